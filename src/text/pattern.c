/* Translation of Oniguruma's Ruby syntax to PCRE2 (Oniguruma 6.9, doc/RE; pcre2pattern(3)).
 *
 * What is spelt alike and means the same passes through; what differs is written out:
 *
 *   \s \S          White_Space as ranges: PCRE2's own has U+180E too
 *   \d \w \h       Unicode digits, words, hexadecimal digits (PCRE2's \h: horizontal space)
 *   \v             U+000B (PCRE2: any vertical space)
 *   \p{Han}        the script; PCRE2 takes a bare script name as its extensions
 *   (?m:           the dot matches newlines: (?s:
 *   {,n}  {n,m}+   {0,n} and, since it is not possessive in Ruby, (?:...{n,m})+
 *   [A&&[^B]]      (?:(?![B])[A]): a class and a look-ahead, as PCRE2 cannot intersect
 *   (...)          (?:...): groups are never referred to
 *
 * Back references, conditionals, calls, word boundaries, absent operators, comments and isolated
 * flags that do not begin the pattern are refused. */
#include "text/pattern.h"

#include <stdbool.h>
#include <stdint.h>

#include "text/unicode.h"

#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define NO_SPACES                                                                                  \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{"     \
    "1fff}"                                                                                        \
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"                 \
    "\\x{3001}-\\x{d7ff}\\x{e000}-\\x{10ffff}"
/* Letters, marks, digits, connectors, letters among the symbols; and, though not within a class,
 * what Oniguruma has besides: superscripts and fractions of Latin-1. */
#define WORDS                                                                                      \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}"                    \
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
#define MORE_WORDS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

enum { NESTING_MAX = 64 };

typedef struct {
    du_sv in;
    size_t pos;
    du_str *out;
    du_diag *diag;
    int32_t depth;  /* of groups and classes */
    bool caseless;  /* within (?i: */
    int32_t before; /* the literal just in front, 0: none */
} parser;

static du_err unsupported(parser *p, size_t at, const char *what) {
    return du_fail_at(p->diag, DU_EUNSUPPORTED, (int64_t)at,
                      "regular expression, byte %zu: %s is not supported", at, what);
}

static du_err malformed(parser *p, size_t at, const char *what) {
    return du_fail_at(p->diag, DU_EFORMAT, (int64_t)at, "regular expression, byte %zu: %s", at,
                      what);
}

static bool at_end(const parser *p) {
    return p->pos == p->in.len;
}

static bool next_is(const parser *p, const char *text) {
    size_t n = strlen(text);
    return p->in.len - p->pos >= n && memcmp(p->in.s + p->pos, text, n) == 0;
}

static bool take(parser *p, const char *text) {
    bool is = next_is(p, text);
    p->pos += is ? strlen(text) : 0;
    return is;
}

/* The next character; its pattern is valid UTF-8 (checked at the start) and not at its end. */
static int32_t take_char(parser *p) {
    int32_t cp;
    p->pos += du_utf8_next(p->in.s + p->pos, p->in.len - p->pos, &cp);
    return cp;
}

/* A literal in one spelling: letters, digits and what is not ASCII as they are, the rest by number,
 * which has no meaning of its own anywhere. */
static void add_char(du_str *out, int32_t cp) {
    bool plain = (cp >= '0' && cp <= '9') || (cp >= 'a' && cp <= 'z') || (cp >= 'A' && cp <= 'Z');
    if (plain || cp >= 0xa0) {
        du_utf8_add(out, cp);
    } else {
        du_str_addf(out, "\\x{%x}", (unsigned)cp);
    }
}

/* A literal of the pattern. Caseless, Oniguruma also takes one character for several ("ss" and
 * U+00DF), which PCRE2 does not; where that can happen is refused. */
static du_err add_literal(parser *p, size_t at, int32_t cp) {
    static const char *const joined[] = {"ss", "st", "ff", "fi", "fl"};
    add_char(p->out, cp);
    if (!p->caseless) {
        return DU_OK;
    }
    if (cp > 0x7f) {
        return unsupported(p, at, "a character outside ASCII after (?i");
    }
    for (size_t i = 0; i < sizeof joined / sizeof joined[0]; i++) {
        if ((p->before | 0x20) == joined[i][0] && (cp | 0x20) == joined[i][1]) {
            return unsupported(p, at, "ss, st, ff, fi or fl after (?i");
        }
    }
    return DU_OK;
}

void du_pattern_add_literal(du_str *out, du_sv text) {
    for (size_t i = 0; i < text.len;) {
        int32_t cp;
        i += du_utf8_next(text.s + i, text.len - i, &cp);
        add_char(out, cp < 0 ? DU_CP_REPLACEMENT : cp);
    }
}

static int32_t hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Up to max hexadecimal digits; -1 when there is none or the value is no character. */
static int32_t take_hex(parser *p, size_t max) {
    int32_t v = 0;
    size_t n = 0;
    for (; n < max && !at_end(p) && hex_digit(p->in.s[p->pos]) >= 0; n++) {
        v = v * 16 + hex_digit(p->in.s[p->pos++]);
        if (v > DU_CP_MAX) {
            return -1;
        }
    }
    return n == 0 || (v >= 0xd800 && v <= 0xdfff) ? -1 : v;
}

/* \xHH, \x{H...}, \uHHHH, the backslash and the letter being read already. */
static du_err take_code_point(parser *p, char letter, int32_t *cp) {
    size_t at = p->pos;
    bool braced = letter == 'x' && take(p, "{");
    *cp = take_hex(p, braced ? 8 : letter == 'u' ? 4 : 2);
    if (*cp < 0 || (braced && !take(p, "}"))) {
        return malformed(p, at, "not the number of a character");
    }
    if (letter == 'x' && !braced && *cp > 0x7f) {
        return unsupported(p, at, "a byte of a character by its number");
    }
    return DU_OK;
}

/* A name between braces, without the blanks, hyphens and underscores that do not count. */
static du_err take_property_name(parser *p, char *name, size_t size, bool *negated) {
    size_t at = p->pos, n = 0;
    if (!take(p, "{")) {
        return malformed(p, at, "\\p without a property in braces");
    }
    *negated = take(p, "^");
    while (!at_end(p) && !next_is(p, "}")) {
        char c = p->in.s[p->pos++];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (n + 1 == size || !(letter || c == '_' || c == '-' || c == ' ')) {
            return malformed(p, at, "not the name of a property");
        }
        name[n] = c;
        n += letter ? 1 : 0;
    }
    name[n] = '\0';
    return n && take(p, "}") ? DU_OK : malformed(p, at, "not the name of a property");
}

/* A property of characters by its names. */
typedef struct {
    const char *name, *long_name;
} property;

static const property categories[] = {
    {"L", "Letter"},
    {"Lu", "UppercaseLetter"},
    {"Ll", "LowercaseLetter"},
    {"Lt", "TitlecaseLetter"},
    {"Lm", "ModifierLetter"},
    {"Lo", "OtherLetter"},
    {"M", "Mark"},
    {"Mn", "NonspacingMark"},
    {"Mc", "SpacingMark"},
    {"Me", "EnclosingMark"},
    {"N", "Number"},
    {"Nd", "DecimalNumber"},
    {"Nl", "LetterNumber"},
    {"No", "OtherNumber"},
    {"P", "Punctuation"},
    {"Pc", "ConnectorPunctuation"},
    {"Pd", "DashPunctuation"},
    {"Ps", "OpenPunctuation"},
    {"Pe", "ClosePunctuation"},
    {"Pi", "InitialPunctuation"},
    {"Pf", "FinalPunctuation"},
    {"Po", "OtherPunctuation"},
    {"S", "Symbol"},
    {"Sm", "MathSymbol"},
    {"Sc", "CurrencySymbol"},
    {"Sk", "ModifierSymbol"},
    {"So", "OtherSymbol"},
    {"Z", "Separator"},
    {"Zs", "SpaceSeparator"},
    {"Zl", "LineSeparator"},
    {"Zp", "ParagraphSeparator"},
    {"Cc", "Control"},
    {"Cf", "Format"},
    {"Co", "PrivateUse"},
};

/* PCRE2 takes a bare script name as its extensions. Of other scripts some newer characters would be
 * missed (du_unicode_add_proxies). */
static const property scripts[] = {
    {"sc:Han", "Han"},       {"sc:Hiragana", "Hiragana"}, {"sc:Katakana", "Katakana"},
    {"sc:Hangul", "Hangul"}, {"sc:Latin", "Latin"},       {"sc:Greek", "Greek"},
    {"sc:Hebrew", "Hebrew"}, {"sc:Thai", "Thai"},
};

/* The name that PCRE2 has for a property, NULL: not one of ours. */
static const char *find_property(const property *list, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++) {
        if (strcasecmp(name, list[i].name) == 0 || strcasecmp(name, list[i].long_name) == 0) {
            return list[i].name;
        }
    }
    return NULL;
}

/* \p{...} and \P{...}: general categories by their short or long names, and scripts. */
static du_err add_property(parser *p, bool negated) {
    char name[32];
    bool caret = false;
    size_t at = p->pos;
    du_err err = take_property_name(p, name, sizeof name, &caret);
    if (err != DU_OK) {
        return err;
    }
    const char *known = find_property(categories, sizeof categories / sizeof categories[0], name);
    known = known ? known : find_property(scripts, sizeof scripts / sizeof scripts[0], name);
    if (!known) {
        return unsupported(p, at, "the property");
    }
    if (p->caseless && (known[1] == 'u' || known[1] == 'l' || known[1] == 't') && known[0] == 'L') {
        return unsupported(p, at, "a property of cased letters after (?i");
    }
    du_str_addf(p->out, "\\%s{%s}", negated != caret ? "P" : "p", known);
    return DU_OK;
}

/* What an escape stands for: one character, or a set of them already written to out. */
typedef struct {
    bool is_set;
    int32_t cp;
} escape;

/* The escapes that mean the same inside and outside a class. in_class: sets are written without
 * their brackets. */
static du_err take_escape(parser *p, bool in_class, escape *e) {
    size_t at = p->pos - 1;
    if (at_end(p)) {
        return malformed(p, at, "a backslash at the end");
    }
    int32_t c = take_char(p);
    const char *set = NULL;
    *e = (escape){false, c};
    switch (c) {
    case 'r':
        e->cp = '\r';
        return DU_OK;
    case 'n':
        e->cp = '\n';
        return DU_OK;
    case 't':
        e->cp = '\t';
        return DU_OK;
    case 'f':
        e->cp = '\f';
        return DU_OK;
    case 'v':
        e->cp = '\v';
        return DU_OK;
    case 'a':
        e->cp = '\a';
        return DU_OK;
    case 'e':
        e->cp = 0x1b;
        return DU_OK;
    case 'x':
    case 'u':
        return take_code_point(p, (char)c, &e->cp);
    case 'p':
    case 'P':
        e->is_set = true;
        return add_property(p, c == 'P');
    case 's':
        set = in_class ? SPACES : "[" SPACES "]";
        break;
    case 'S':
        set = in_class ? NO_SPACES : "[^" SPACES "]";
        break;
    case 'd':
        set = "\\p{Nd}";
        break;
    case 'D':
        set = "\\P{Nd}";
        break;
    case 'w':
        set = in_class ? WORDS : "[" WORDS MORE_WORDS "]";
        break;
    case 'W':
        set = in_class ? NULL : "[^" WORDS MORE_WORDS "]";
        break;
    case 'h':
        set = in_class ? "0-9A-Fa-f" : "[0-9A-Fa-f]";
        break;
    default:
        break;
    }
    if (set) {
        e->is_set = true;
        du_str_add_s(p->out, set);
        return DU_OK;
    }
    bool alphanumeric = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (alphanumeric) {
        char what[] = "the escape \\?";
        what[sizeof what - 2] = (char)c;
        return unsupported(p, at, what);
    }
    return DU_OK;
}

static du_err add_class(parser *p);

/* One member of a class, or a range of two; a nested class is a member too. */
static du_err add_class_item(parser *p) {
    size_t at = p->pos;
    if (next_is(p, "[:")) {
        return unsupported(p, at, "a POSIX bracket");
    }
    if (next_is(p, "[")) {
        return unsupported(p, at, "a class within a class, but for &&[...],");
    }
    escape e = {false, take_char(p)};
    du_err err = e.cp == '\\' ? take_escape(p, true, &e) : DU_OK;
    if (err != DU_OK || e.is_set) {
        return err;
    }
    err = add_literal(p, at, e.cp);
    if (err != DU_OK || !next_is(p, "-") || next_is(p, "-]") || next_is(p, "-&&")) {
        return err;
    }
    p->pos++;
    if (at_end(p) || next_is(p, "[")) {
        return malformed(p, at, "a range without an end");
    }
    escape last = {false, take_char(p)};
    du_str_add_c(p->out, '-');
    err = last.cp == '\\' ? take_escape(p, true, &last) : DU_OK;
    if (err == DU_OK && (last.is_set || last.cp < e.cp)) {
        err = malformed(p, at, "a range that does not go up");
    }
    return err == DU_OK ? add_literal(p, at, last.cp) : err;
}

/* Members up to the closing bracket or an &&, within brackets of its own. at: where it begins. */
static du_err add_members(parser *p, size_t at, bool negated) {
    du_str_add_s(p->out, negated ? "[^" : "[");
    bool any = false;
    while (!at_end(p) && !next_is(p, "]") && !next_is(p, "&&")) {
        du_err err = add_class_item(p);
        if (err != DU_OK) {
            return err;
        }
        any = true;
    }
    du_str_add_c(p->out, ']');
    if (at_end(p)) {
        return malformed(p, at, "a class without its ]");
    }
    return any ? DU_OK : unsupported(p, at, "an empty class or one that begins with ]");
}

/* X&&Y&&Z: members of X that look-aheads find in Y and in Z. The look-aheads go in front, so the
 * members read first are put behind what follows. */
static du_err add_intersections(parser *p, size_t start) {
    du_str first = {0};
    du_str_add(&first, p->out->data + start, p->out->len - start);
    p->out->len = start;
    du_str_add_s(p->out, "(?:");
    du_err err = DU_OK;
    while (err == DU_OK && take(p, "&&")) {
        du_str_add_s(p->out, "(?=");
        if (take(p, "[")) {
            err = add_class(p);
        } else {
            err = add_members(p, p->pos, false);
        }
        du_str_add_c(p->out, ')');
    }
    du_str_add_sv(p->out, du_str_view(&first));
    du_str_add_c(p->out, ')');
    p->out->failed = p->out->failed || first.failed;
    du_str_done(&first);
    return err;
}

/* A class, its [ being read already. */
static du_err add_class(parser *p) {
    size_t at = p->pos - 1, start = p->out->len;
    if (++p->depth > NESTING_MAX) {
        return du_fail_at(p->diag, DU_ELIMIT, (int64_t)at,
                          "regular expression, byte %zu: nested more than %d deep", at,
                          NESTING_MAX);
    }
    bool negated = take(p, "^");
    du_err err = add_members(p, at, negated);
    if (err == DU_OK && next_is(p, "&&")) {
        err = p->out->failed ? du_fail_nomem(p->diag, "a regular expression")
              : negated      ? unsupported(p, at, "&& in a negated class")
                             : add_intersections(p, start);
    }
    p->depth--;
    if (err != DU_OK) {
        return err;
    }
    return take(p, "]") ? DU_OK : malformed(p, at, "a class without its ]");
}

/* The head of a group after its (: what kind it is. *isolated: flags for the whole pattern. */
static du_err add_group_head(parser *p, bool *isolated) {
    size_t at = p->pos - 1;
    static const char *const same[] = {"?:", "?=", "?!", "?>", "?<=", "?<!"};
    *isolated = false;
    if (!next_is(p, "?")) {
        du_str_add_s(p->out, "(?:");
        return DU_OK;
    }
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        if (take(p, same[i])) {
            du_str_addf(p->out, "(%s", same[i]);
            return DU_OK;
        }
    }
    p->pos++;
    du_str_add_s(p->out, "(?");
    for (bool off = false; next_is(p, "i") || next_is(p, "m") || next_is(p, "-");) {
        char c = p->in.s[p->pos++];
        du_str_add_c(p->out, c == 'm' ? 's' : c);
        off = off || c == '-';
        p->caseless = c == 'i' ? !off : p->caseless;
    }
    if (next_is(p, ")") && at == 0) {
        *isolated = true;
        return DU_OK;
    }
    if (!take(p, ":")) {
        return unsupported(p, at, "this kind of group");
    }
    du_str_add_c(p->out, ':');
    return DU_OK;
}

/* A decimal number of at most 6 digits; -1 when there is none. */
static int32_t take_number(parser *p) {
    int32_t v = -1;
    for (size_t n = 0; n < 6 && !at_end(p); n++) {
        char c = p->in.s[p->pos];
        if (c < '0' || c > '9') {
            break;
        }
        v = (v < 0 ? 0 : v * 10) + (c - '0');
        p->pos++;
    }
    return v;
}

/* {n}, {n,}, {,m} or {n,m} after an atom; pos stays where it is when the text is none of them. */
static bool take_interval(parser *p, int32_t *min, int32_t *max, bool *fixed) {
    size_t at = p->pos;
    if (!take(p, "{")) {
        return false;
    }
    *min = take_number(p);
    *fixed = !take(p, ",");
    *max = *fixed ? *min : take_number(p);
    if ((*min < 0 && *max < 0) || !take(p, "}")) {
        p->pos = at;
        return false;
    }
    return true;
}

/* An interval behind the atom that begins at `atom` in out. */
static du_err add_interval(parser *p, size_t atom, int32_t min, int32_t max, bool fixed) {
    size_t at = p->pos;
    du_str_addf(p->out, "{%d", min < 0 ? 0 : min);
    du_str_add_s(p->out, fixed ? "" : ",");
    if (!fixed && max >= 0) {
        du_str_addf(p->out, "%d", max);
    }
    du_str_add_c(p->out, '}');
    if (next_is(p, "?")) {
        if (fixed) {
            return unsupported(p, at, "{n}?");
        }
        du_str_add_c(p->out, '?');
        p->pos++;
    }
    if (take(p, "+")) {
        du_str body = {0};
        du_str_add(&body, du_str_get(p->out) + atom, p->out->len - atom);
        p->out->len = atom;
        du_str_addf(p->out, "(?:%s)+", du_str_get(&body));
        p->out->failed = p->out->failed || body.failed;
        du_str_done(&body);
    }
    return DU_OK;
}

/* The quantifiers behind an atom; none is fine. */
static du_err add_quantifier(parser *p, size_t atom) {
    int32_t min, max;
    bool fixed;
    if (next_is(p, "*") || next_is(p, "+") || next_is(p, "?")) {
        du_str_add_c(p->out, p->in.s[p->pos++]);
        if (next_is(p, "+") || next_is(p, "?")) {
            du_str_add_c(p->out, p->in.s[p->pos++]);
        }
    } else if (take_interval(p, &min, &max, &fixed)) {
        du_err err = add_interval(p, atom, min, max, fixed);
        if (err != DU_OK) {
            return err;
        }
    } else {
        return DU_OK;
    }
    if (next_is(p, "*") || next_is(p, "+") || next_is(p, "?")) {
        return unsupported(p, p->pos, "a quantifier behind a quantifier");
    }
    return DU_OK;
}

static du_err add_alternatives(parser *p);

/* One atom with its quantifier. */
static du_err add_atom(parser *p) {
    size_t at = p->pos, atom = p->out->len;
    int32_t c = take_char(p);
    du_err err = DU_OK;
    bool isolated = false, caseless = p->caseless, literal = false;
    switch (c) {
    case '[':
        err = add_class(p);
        break;
    case '(':
        err = add_group_head(p, &isolated);
        if (err == DU_OK && !isolated) {
            err = add_alternatives(p);
        }
        if (err == DU_OK && !take(p, ")")) {
            err = malformed(p, at, "a group without its )");
        }
        du_str_add_c(p->out, ')');
        p->caseless = isolated ? p->caseless : caseless;
        break;
    case '\\':
        if (take(p, "A")) {
            du_str_add_s(p->out, "\\A");
        } else if (take(p, "z")) {
            du_str_add_s(p->out, "\\z");
        } else if (take(p, "Z")) {
            du_str_add_s(p->out, "\\Z");
        } else {
            escape e;
            err = take_escape(p, false, &e);
            if (err == DU_OK && !e.is_set) {
                err = add_literal(p, at, e.cp);
                literal = true;
                c = e.cp;
            }
        }
        break;
    case '.':
    case '^':
    case '$':
        du_str_add_c(p->out, (char)c);
        break;
    case '*':
    case '+':
    case '?':
        return malformed(p, at, "a quantifier with nothing in front");
    default:
        err = add_literal(p, at, c);
        literal = true;
        break;
    }
    p->before = literal ? c : 0;
    return err != DU_OK || isolated ? err : add_quantifier(p, atom);
}

static du_err add_alternatives(parser *p) {
    if (++p->depth > NESTING_MAX) {
        return du_fail_at(p->diag, DU_ELIMIT, (int64_t)p->pos,
                          "regular expression, byte %zu: nested more than %d deep", p->pos,
                          NESTING_MAX);
    }
    while (!at_end(p) && !next_is(p, ")")) {
        if (take(p, "|")) {
            du_str_add_c(p->out, '|');
            p->before = 0;
            continue;
        }
        du_err err = add_atom(p);
        if (err != DU_OK) {
            return err;
        }
    }
    p->depth--;
    return DU_OK;
}

du_err du_pattern_translate(du_str *out, du_sv pattern, du_diag *diag) {
    parser p = {.in = pattern, .out = out, .diag = diag};
    if (pattern.len > DU_PATTERN_BYTES_MAX) {
        return du_fail(diag, DU_ELIMIT, "a regular expression of %zu bytes, more than %d",
                       pattern.len, DU_PATTERN_BYTES_MAX);
    }
    size_t valid = du_utf8_valid(pattern.s, pattern.len);
    if (valid < pattern.len) {
        return malformed(&p, valid, "not UTF-8");
    }
    du_err err = add_alternatives(&p);
    if (err == DU_OK && !at_end(&p)) {
        err = malformed(&p, p.pos, "a ) without its (");
    }
    if (err == DU_OK && out->failed) {
        err = du_fail_nomem(diag, "a regular expression");
    }
    return err;
}
