/* Tokens of a Jinja template.
 *
 * Outside tags everything is data up to the next "{{", "{%" or "{#". White space around tags goes
 * as Jinja2 does it with trim_blocks and lstrip_blocks:
 *
 *   {%-  -%}  {{-  -}}  {#-  -#}   all white space on that side
 *   {%  %}  {#  #}                 blanks between the line's start and the tag; one newline behind
 *   {%+  +%}  {#+  +#}             nothing
 *   {{  }}                         nothing
 *
 * Inside tags an end mark counts only when no bracket is open, so that {{ {'a': {}} }} works. Text
 * between {% raw %} and {% endraw %} is data. Comments give no token. */
#include <stdarg.h>

#include "text/jinja_int.h"
#include "text/jinja_text.h"
#include "text/unicode.h"

static jtoken fail_lex(jlex *lex, du_err code, const char *fmt, ...) DU_PRINTF(3, 4);

/* The line of a place; places are asked for in order. */
static int32_t line_at(jlex *lex, size_t pos) {
    for (; lex->pos_line < pos; lex->pos_line++) {
        lex->line += lex->src.s[lex->pos_line] == '\n';
    }
    return lex->line;
}

static jtoken fail_lex(jlex *lex, du_err code, const char *fmt, ...) {
    char text[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    du_jinja_mend(text);
    if (lex->err == DU_OK) {
        lex->err = du_fail_at(lex->diag, code, (int64_t)lex->pos, "%s: line %d: %s", lex->name,
                              line_at(lex, lex->pos), text);
    }
    return (jtoken){.type = T_EOF, .line = lex->line};
}

static char char_at(const jlex *lex, size_t pos) {
    return pos < lex->src.len ? lex->src.s[pos] : '\0';
}

static bool text_at(const jlex *lex, size_t pos, const char *text) {
    size_t n = strlen(text);
    return lex->src.len - pos >= n && memcmp(lex->src.s + pos, text, n) == 0;
}

static size_t skip_space(const jlex *lex, size_t pos) {
    return pos + du_jinja_strip_start((du_sv){lex->src.s + pos, lex->src.len - pos}, NULL);
}

/* ---- outside tags -------------------------------------------------------------------------- */

/* The place behind `-%}` and its white space, `%}` and its newline, or `+%}`, at pos; 0: none of
 * these. `trim`: a newline behind the mark goes, too. */
static size_t end_mark(const jlex *lex, size_t pos, const char *mark, bool plus, bool trim) {
    char sign = char_at(lex, pos);
    size_t at = pos + (sign == '-' || (sign == '+' && plus));
    if (at > lex->src.len || !text_at(lex, at, mark)) {
        return 0;
    }
    at += 2;
    if (at - pos == 3) {
        return sign == '-' ? skip_space(lex, at) : at;
    }
    return trim && char_at(lex, at) == '\n' ? at + 1 : at;
}

/* The text before a tag, without the white space that the tag's sign takes from it. */
static du_sv data_before(const jlex *lex, size_t from, size_t tag, bool strips_line) {
    du_sv text = {lex->src.s + from, tag - from};
    char sign = char_at(lex, tag + 2);
    if (sign == '-') {
        text.len -= du_jinja_strip_end(text, NULL);
    } else if (sign != '+' && strips_line) {
        size_t line = text.len;
        while (line > 0 && text.s[line - 1] != '\n') {
            line--;
        }
        du_sv last = {text.s + line, text.len - line};
        if ((line > 0 || lex->line_start) && du_jinja_strip_start(last, NULL) == last.len) {
            text.len = line;
        }
    }
    return text;
}

static size_t after_sign(const jlex *lex, size_t tag) {
    char sign = char_at(lex, tag + 2);
    return tag + 2 + (sign == '-' || sign == '+');
}

/* Whether `{% word %}` stands at pos; *end is behind it. The marks differ: see end_mark. */
static bool lone_tag(const jlex *lex, size_t pos, const char *word, bool plus, bool trim,
                     size_t *end) {
    if (!text_at(lex, pos, "{%")) {
        return false;
    }
    size_t at = skip_space(lex, after_sign(lex, pos));
    if (!text_at(lex, at, word)) {
        return false;
    }
    *end = end_mark(lex, skip_space(lex, at + strlen(word)), "%}", plus, trim);
    return *end != 0;
}

static void move_behind(jlex *lex, size_t end) {
    lex->pos = end;
    lex->line_start = end > 0 && lex->src.s[end - 1] == '\n';
}

static bool skip_comment(jlex *lex, size_t tag) {
    for (size_t at = after_sign(lex, tag); at < lex->src.len; at++) {
        size_t end = end_mark(lex, at, "#}", true, true);
        if (end) {
            move_behind(lex, end);
            return true;
        }
    }
    if (after_sign(lex, tag) < lex->src.len) {
        fail_lex(lex, DU_EFORMAT, "this comment has no end");
    }
    lex->pos = lex->src.len;
    return lex->err == DU_OK;
}

static jtoken data_token(jlex *lex, size_t from, du_sv text) {
    return (jtoken){.type = T_DATA, .line = line_at(lex, from), .text = text};
}

/* {% raw %}: everything up to {% endraw %} is data. */
static jtoken lex_raw(jlex *lex) {
    size_t from = lex->pos, end;
    for (size_t at = from; at < lex->src.len; at++) {
        if (lex->src.s[at] == '{' && lone_tag(lex, at, "endraw", true, true, &end)) {
            du_sv text = data_before(lex, from, at, true);
            move_behind(lex, end);
            lex->state = LEX_TEXT;
            return data_token(lex, from, text);
        }
    }
    lex->state = LEX_TEXT;
    return from < lex->src.len ? fail_lex(lex, DU_EFORMAT, "this raw block has no endraw")
                               : data_token(lex, from, (du_sv){0});
}

static bool is_tag(const jlex *lex, size_t at) {
    char next = char_at(lex, at + 1);
    return lex->src.s[at] == '{' && (next == '{' || next == '%' || next == '#');
}

/* The data up to the next tag, and that tag's beginning into lex->pending. */
static jtoken lex_text(jlex *lex) {
    size_t from = lex->pos, tag = from, end;
    while (tag < lex->src.len && !is_tag(lex, tag)) {
        tag++;
    }
    if (tag == lex->src.len) {
        lex->pos = tag;
        return data_token(lex, from, (du_sv){lex->src.s + from, tag - from});
    }
    char kind = lex->src.s[tag + 1];
    du_sv text = data_before(lex, from, tag, kind != '{');
    jtoken data = data_token(lex, from, text);
    lex->pos = tag;
    line_at(lex, tag);
    if (kind == '#') {
        return skip_comment(lex, tag) ? data : (jtoken){.type = T_EOF};
    }
    if (kind == '%' && lone_tag(lex, tag, "raw", false, false, &end)) {
        move_behind(lex, end);
        lex->state = LEX_RAW;
        return data;
    }
    lex->pos = after_sign(lex, tag);
    lex->state = kind == '%' ? LEX_BLOCK : LEX_VARIABLE;
    lex->pending = kind == '%' ? T_BLOCK_BEGIN : T_VAR_BEGIN;
    return data;
}

/* ---- inside tags: numbers and names -------------------------------------------------------- */

static bool is_digit(char c, int base) {
    int v = c >= '0' && c <= '9'   ? c - '0'
            : c >= 'a' && c <= 'f' ? c - 'a' + 10
            : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                   : 99;
    return v < base;
}

/* Behind digits with single underscores between them; pos when there are none. */
static size_t skip_digits(const jlex *lex, size_t pos, int base) {
    size_t at = pos;
    while (is_digit(char_at(lex, at), base) ||
           (at > pos && char_at(lex, at) == '_' && is_digit(char_at(lex, at + 1), base))) {
        at++;
    }
    return at;
}

/* Behind the float at pos; pos when there is none (an integer, or the 1 of x.1). */
static size_t skip_float(const jlex *lex, size_t pos) {
    size_t whole = skip_digits(lex, pos, 10), fraction = whole;
    if (whole == pos || (pos > 0 && lex->src.s[pos - 1] == '.')) {
        return pos;
    }
    if (char_at(lex, whole) == '.') {
        fraction = skip_digits(lex, whole + 1, 10);
        fraction = fraction == whole + 1 ? whole : fraction;
    }
    if (char_at(lex, fraction) == 'e' || char_at(lex, fraction) == 'E') {
        char sign = char_at(lex, fraction + 1);
        size_t digits = fraction + 1 + (sign == '+' || sign == '-');
        size_t end = skip_digits(lex, digits, 10);
        if (end > digits) {
            return end;
        }
    }
    return fraction > whole ? fraction : pos;
}

static jtoken number_token(jlex *lex, jtoken_type type, size_t end) {
    jtoken token = {.type = type,
                    .line = line_at(lex, lex->pos),
                    .text = {lex->src.s + lex->pos, end - lex->pos}};
    lex->pos = end;
    return token;
}

static jtoken lex_float(jlex *lex, size_t end) {
    char text[400];
    size_t n = 0;
    for (size_t i = lex->pos; i < end; i++) {
        if (n + 1 == sizeof text) {
            return fail_lex(lex, DU_ELIMIT, "a number of more than %zu digits", sizeof text - 1);
        }
        if (lex->src.s[i] != '_') {
            text[n++] = lex->src.s[i];
        }
    }
    text[n] = '\0';
    jtoken token = number_token(lex, T_FLOAT, end);
    token.value = j_float(strtod(text, NULL));
    return token;
}

static jtoken lex_int(jlex *lex) {
    size_t start = lex->pos, end;
    char mark = (char)(char_at(lex, start + 1) | 0x20);
    int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
    /* behind the mark one underscore may stand */
    size_t digits = start + 2 + (char_at(lex, start + 2) == '_');
    if (lex->src.s[start] != '0' || base == 10 || skip_digits(lex, digits, base) == digits) {
        base = 10;
        digits = start;
    }
    end = skip_digits(lex, digits, base);
    if (base == 10 && lex->src.s[start] == '0') { /* 012 is 0 and then 12, as in Jinja2 */
        for (end = start + 1; char_at(lex, end) == '0' ||
                              (char_at(lex, end) == '_' && char_at(lex, end + 1) == '0');) {
            end++;
        }
    }
    int64_t v = 0;
    for (size_t i = digits; i < end; i++) {
        char c = lex->src.s[i];
        int digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
        if (c != '_' && (__builtin_mul_overflow(v, (int64_t)base, &v) ||
                         __builtin_add_overflow(v, (int64_t)digit, &v))) {
            return fail_lex(lex, DU_EUNSUPPORTED, "an integer beyond 64 bits");
        }
    }
    jtoken token = number_token(lex, T_INT, end);
    token.value = j_int(v);
    return token;
}

static jtoken lex_name(jlex *lex) {
    size_t end = lex->pos, n;
    while (end < lex->src.len && du_jinja_is_word(du_jinja_char_get(lex->src.s + end, &n))) {
        end += n;
    }
    if (!du_jinja_is_id_start(du_jinja_char_get(lex->src.s + lex->pos, &n))) {
        return fail_lex(lex, DU_EFORMAT, "a name cannot start like this");
    }
    return number_token(lex, T_NAME, end);
}

/* ---- strings ------------------------------------------------------------------------------- */

/* \xhh, \uhhhh, \Uhhhhhhhh at s (behind the backslash): their value, -1 when they are cut short. */
static int64_t hex_escape(const char *s, size_t left) {
    size_t n = s[0] == 'x' ? 2 : s[0] == 'u' ? 4 : 8;
    int64_t v = 0;
    if (left < n + 1) {
        return -1;
    }
    for (size_t i = 1; i <= n; i++) {
        if (!is_digit(s[i], 16)) {
            return -1;
        }
        v = v * 16 + (s[i] <= '9' ? s[i] - '0' : (s[i] | 0x20) - 'a' + 10);
    }
    return v;
}

/* One escape at s (behind the backslash); its bytes, 0 when it is wrong. What is no escape stays,
 * with its backslash. */
static size_t add_escape(du_str *to, const char *s, size_t left) {
    static const char named[] = "abfnrtv\\'\"", values[] = "\a\b\f\n\r\t\v\\'\"";
    const char *at = memchr(named, s[0], sizeof named - 1);
    if (at) {
        du_str_add_c(to, values[at - named]);
        return 1;
    }
    if (s[0] == '\n') {
        return 1;
    }
    if (s[0] == 'x' || s[0] == 'u' || s[0] == 'U') {
        int64_t v = hex_escape(s, left);
        if (v < 0 || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff)) {
            return 0;
        }
        du_utf8_add(to, (int32_t)v);
        return s[0] == 'x' ? 3 : s[0] == 'u' ? 5 : 9;
    }
    if (is_digit(s[0], 8)) {
        size_t n = 0;
        int32_t v = 0;
        while (n < 3 && n < left && is_digit(s[n], 8)) {
            v = v * 8 + (s[n++] - '0');
        }
        du_utf8_add(to, v);
        return n;
    }
    size_t n;
    int32_t c = du_jinja_char_get(s, &n);
    du_str_add_c(to, '\\');
    if (c < 0x80) {
        du_str_add_c(to, s[0]);
    } else { /* Jinja2 decodes by way of ASCII, which makes this of it */
        du_str_addf(to, c < 0x100 ? "x%02x" : c < 0x10000 ? "u%04x" : "U%08x", c);
    }
    return n;
}

static bool unescape(jlex *lex, du_sv text, jvalue *out) {
    du_str buf = {0};
    for (size_t i = 0; i < text.len;) {
        size_t n = 1;
        if (text.s[i] != '\\') {
            du_str_add_c(&buf, text.s[i]);
        } else if (text.s[i + 1] == 'N') {
            fail_lex(lex, DU_EUNSUPPORTED, "the escape \\N");
            break;
        } else {
            n = 1 + add_escape(&buf, text.s + i + 1, text.len - i - 1);
            if (n == 1) {
                fail_lex(lex, DU_EFORMAT, "a wrong escape in this text");
                break;
            }
        }
        i += n;
    }
    jstr *str = du_jinja_alloc(lex->pool, 1, sizeof *str);
    char *bytes = du_jinja_alloc(lex->pool, buf.len, 1);
    if (lex->err == DU_OK && (!str || !bytes || buf.failed)) {
        lex->err = du_fail_nomem(lex->diag, "a template");
    }
    if (lex->err == DU_OK) {
        memcpy(bytes, du_str_get(&buf), buf.len);
        *str = (jstr){.s = bytes, .len = buf.len};
        str->n_chars = du_jinja_count_chars(j_view(str));
        *out = j_str(str);
    }
    du_str_done(&buf);
    return lex->err == DU_OK;
}

static jtoken lex_string(jlex *lex) {
    char quote = lex->src.s[lex->pos];
    size_t end = lex->pos + 1;
    while (end < lex->src.len && lex->src.s[end] != quote) {
        end += lex->src.s[end] == '\\' ? 2 : 1;
    }
    if (end >= lex->src.len) {
        return fail_lex(lex, DU_EFORMAT, "this text has no closing quote");
    }
    jtoken token = {.type = T_STRING, .line = line_at(lex, lex->pos)};
    token.text = (du_sv){lex->src.s + lex->pos, end + 1 - lex->pos};
    if (!unescape(lex, (du_sv){token.text.s + 1, token.text.len - 2}, &token.value)) {
        return (jtoken){.type = T_EOF};
    }
    lex->pos = end + 1;
    return token;
}

/* ---- operators ----------------------------------------------------------------------------- */

static const struct {
    const char *text;
    jtoken_type type;
} operators[] = {
    {"//", T_FLOORDIV}, {"**", T_POW},   {"==", T_EQ},      {"!=", T_NE},      {">=", T_GE},
    {"<=", T_LE},       {"+", T_ADD},    {"-", T_SUB},      {"/", T_DIV},      {"*", T_MUL},
    {"%", T_MOD},       {"~", T_TILDE},  {"[", T_LBRACKET}, {"]", T_RBRACKET}, {"(", T_LPAREN},
    {")", T_RPAREN},    {"{", T_LBRACE}, {"}", T_RBRACE},   {">", T_GT},       {"<", T_LT},
    {"=", T_ASSIGN},    {".", T_DOT},    {":", T_COLON},    {"|", T_PIPE},     {",", T_COMMA},
    {";", T_SEMICOLON},
};

enum { N_OPERATORS = sizeof operators / sizeof operators[0] };

const char *du_jinja_token_name(jtoken_type type) {
    static const char *const names[] = {
        [T_EOF] = "the end of the template",
        [T_DATA] = "text",
        [T_BLOCK_BEGIN] = "{%",
        [T_BLOCK_END] = "%}",
        [T_VAR_BEGIN] = "{{",
        [T_VAR_END] = "}}",
        [T_NAME] = "a name",
        [T_STRING] = "a quoted text",
        [T_INT] = "an integer",
        [T_FLOAT] = "a number",
    };
    for (size_t i = 0; i < N_OPERATORS; i++) {
        if (operators[i].type == type) {
            return operators[i].text;
        }
    }
    return names[type];
}

/* Opening brackets are remembered, closing ones must fit. */
static bool balance(jlex *lex, jtoken_type type) {
    static const char opening[] = "([{", closing[] = ")]}";
    char c = du_jinja_token_name(type)[0];
    const char *open = strchr(opening, c), *close = strchr(closing, c);
    if (open && lex->n_brackets == J_NEST_MAX) {
        fail_lex(lex, DU_ELIMIT, "more than %d open brackets", J_NEST_MAX);
        return false;
    }
    if (open) {
        lex->brackets[lex->n_brackets++] = closing[open - opening];
    } else if (close && (lex->n_brackets == 0 || lex->brackets[--lex->n_brackets] != c)) {
        fail_lex(lex, DU_EFORMAT, "'%c' closes no bracket", c);
        return false;
    }
    return true;
}

static jtoken lex_operator(jlex *lex) {
    for (size_t i = 0; i < N_OPERATORS; i++) {
        if (text_at(lex, lex->pos, operators[i].text)) {
            if (!balance(lex, operators[i].type)) {
                return (jtoken){.type = T_EOF};
            }
            return number_token(lex, operators[i].type, lex->pos + strlen(operators[i].text));
        }
    }
    size_t n;
    int32_t c = du_jinja_char_get(lex->src.s + lex->pos, &n);
    return fail_lex(lex, DU_EFORMAT, "unexpected character '%.*s' (U+%04X)", (int)n,
                    lex->src.s + lex->pos, c);
}

static jtoken lex_tag(jlex *lex) {
    for (;;) {
        bool block = lex->state == LEX_BLOCK;
        size_t end =
            lex->n_brackets ? 0 : end_mark(lex, lex->pos, block ? "%}" : "}}", block, block);
        if (end) {
            jtoken token = {.type = block ? T_BLOCK_END : T_VAR_END,
                            .line = line_at(lex, lex->pos)};
            move_behind(lex, end);
            lex->state = LEX_TEXT;
            return token;
        }
        size_t next = skip_space(lex, lex->pos);
        if (next == lex->pos) {
            break;
        }
        lex->pos = next;
    }
    if (lex->pos == lex->src.len) {
        return fail_lex(lex, DU_EFORMAT, "the template ends inside a tag");
    }
    size_t float_end = skip_float(lex, lex->pos), n;
    char c = lex->src.s[lex->pos];
    if (float_end > lex->pos) {
        return lex_float(lex, float_end);
    }
    if (is_digit(c, 10)) {
        return lex_int(lex);
    }
    if (c == '\'' || c == '"') {
        return lex_string(lex);
    }
    return du_jinja_is_word(du_jinja_char_get(lex->src.s + lex->pos, &n)) ? lex_name(lex)
                                                                          : lex_operator(lex);
}

jtoken du_jinja_lex_next(jlex *lex) {
    while (lex->err == DU_OK) {
        jtoken token = {.type = lex->pending, .line = lex->line};
        if (token.type != T_EOF) {
            lex->pending = T_EOF;
            return token;
        }
        if (lex->state == LEX_BLOCK || lex->state == LEX_VARIABLE) {
            return lex_tag(lex);
        }
        if (lex->state == LEX_RAW) {
            token = lex_raw(lex);
        } else if (lex->pos == lex->src.len) {
            return (jtoken){.type = T_EOF, .line = line_at(lex, lex->pos)};
        } else {
            token = lex_text(lex);
        }
        if (token.type == T_DATA && token.text.len > 0) {
            return token;
        }
    }
    return (jtoken){.type = T_EOF, .line = lex->line};
}
