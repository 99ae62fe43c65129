/* Methods of str in the Jinja interpreter, with Python's results: case, classes, building; and the
 * table of all. What a method makes of markup is markup, and text that goes into it is escaped. */
#include "text/jinja_int.h"
#include "text/jinja_text.h"

bool du_jinja_want_str(jrun *run, const char *method, jvalue v) {
    return v.type == J_STR ||
           du_jinja_fail(run, DU_EFORMAT, "%s takes a text, not %s", method, du_jinja_type_name(v));
}

/* ---- case and classes ---------------------------------------------------------------------- */

bool du_jinja_to_case(jrun *run, const jstr *s, int how, jvalue *out) {
    du_str buf = {0};
    if (!du_jinja_spend(run, (int64_t)(s->len / 8))) {
        return false;
    }
    du_jinja_add_case(&buf, j_view(s), (du_case)how);
    return du_jinja_str_take(run, &buf, s->markup, out);
}

bool du_jinja_lower(jrun *run, const jstr *s, jvalue *out) {
    return du_jinja_to_case(run, s, CASE_LOWER, out);
}

#define CASE_METHOD(name, how)                                                                     \
    static bool str_##name(jrun *run, jvalue self, const jcall *call, jvalue *out) {               \
        (void)call;                                                                                \
        return du_jinja_to_case(run, self.s, how, out);                                            \
    }
CASE_METHOD(capitalize, CASE_CAPITALIZE)
CASE_METHOD(casefold, CASE_FOLD)
CASE_METHOD(lower, CASE_LOWER)
CASE_METHOD(swapcase, CASE_SWAP)
CASE_METHOD(title, CASE_TITLE)
CASE_METHOD(upper, CASE_UPPER)
#undef CASE_METHOD

/* True when there is a character and all are of the class. */
static bool all_chars(const jstr *s, bool (*is)(int32_t c)) {
    size_t n;
    for (size_t i = 0; i < s->len; i += n) {
        if (!is(du_jinja_char_get(s->s + i, &n))) {
            return false;
        }
    }
    return s->len > 0;
}

#define CLASS_METHOD(name, is)                                                                     \
    static bool str_##name(jrun *run, jvalue self, const jcall *call, jvalue *out) {               \
        (void)call;                                                                                \
        *out = j_bool(all_chars(self.s, is));                                                      \
        return du_jinja_spend(run, (int64_t)(self.s->len / 8));                                    \
    }
CLASS_METHOD(isalnum, du_jinja_is_alnum)
CLASS_METHOD(isalpha, du_jinja_is_alpha)
CLASS_METHOD(isdecimal, du_jinja_is_decimal)
CLASS_METHOD(isdigit, du_jinja_is_digit)
CLASS_METHOD(isspace, du_jinja_is_space)
#undef CLASS_METHOD

static bool str_isascii(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = j_bool(self.s->len == self.s->n_chars);
    return true;
}

static bool str_isprintable(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    *out = j_bool(self.s->len == 0 || all_chars(self.s, du_jinja_is_printable));
    return du_jinja_spend(run, (int64_t)(self.s->len / 8));
}

static bool str_isidentifier(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    size_t n;
    (void)call;
    *out = j_bool(all_chars(self.s, du_jinja_is_word) &&
                  du_jinja_is_id_start(du_jinja_char_get(self.s->s, &n)));
    return du_jinja_spend(run, (int64_t)(self.s->len / 8));
}

/* Some letter with case, and none of the other case. */
bool du_jinja_one_case(const jstr *s, bool upper) {
    bool found = false;
    size_t n;
    for (size_t i = 0; i < s->len; i += n) {
        int32_t c = du_jinja_char_get(s->s + i, &n);
        bool is_upper = du_jinja_is_upper(c), is_lower = du_jinja_is_lower(c);
        if (du_jinja_is_title(c) || (upper ? is_lower : is_upper)) {
            return false;
        }
        found = found || (upper ? is_upper : is_lower);
    }
    return found;
}

static bool str_islower(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    *out = j_bool(du_jinja_one_case(self.s, false));
    return du_jinja_spend(run, (int64_t)(self.s->len / 8));
}

static bool str_isupper(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    *out = j_bool(du_jinja_one_case(self.s, true));
    return du_jinja_spend(run, (int64_t)(self.s->len / 8));
}

/* Capitals only where a word starts, small letters only inside. */
static bool str_istitle(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    bool inside = false, ok = true, found = false;
    size_t n;
    (void)call;
    for (size_t i = 0; ok && i < self.s->len; i += n) {
        int32_t c = du_jinja_char_get(self.s->s + i, &n);
        bool big = du_jinja_is_upper(c) || du_jinja_is_title(c), small = du_jinja_is_lower(c);
        ok = big ? !inside : !small || inside;
        inside = big || small;
        found = found || inside;
    }
    *out = j_bool(ok && found);
    return du_jinja_spend(run, (int64_t)(self.s->len / 8));
}

/* ---- building ------------------------------------------------------------------------------ */

bool du_jinja_replace(jrun *run, const jstr *s, du_sv old, du_sv with, int64_t max, jvalue *out) {
    du_str buf = {0};
    size_t at = 0, n;
    bool ok = du_jinja_spend(run, (int64_t)(s->len / 16));
    for (int64_t done = 0; ok && (max < 0 || done < max); done++) {
        int64_t next = du_sv_find(j_view(s), old, at);
        if (next < 0) {
            break;
        }
        du_str_add(&buf, s->s + at, (size_t)next - at);
        du_str_add_sv(&buf, with);
        at = (size_t)next + old.len;
        ok = du_jinja_within_limits(run, &buf, 0);
        if (old.len == 0) { /* before each character, and at the end */
            if (at == s->len) {
                break;
            }
            du_jinja_char_get(s->s + at, &n);
            du_str_add(&buf, s->s + at, n);
            at += n;
        }
    }
    du_str_add(&buf, s->s + at, s->len - at);
    if (!ok) {
        du_str_done(&buf);
        return false;
    }
    return du_jinja_str_take(run, &buf, s->markup, out);
}

static bool str_replace(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue with = call->p[1];
    int64_t max = -1;
    return du_jinja_want_str(run, "replace", call->p[0]) &&
           du_jinja_want_str(run, "replace", with) &&
           (!j_given(call->p[2]) || du_jinja_arg_int(run, "replace", call->p[2], &max)) &&
           (!self.s->markup || du_jinja_escape(run, with, &with)) &&
           du_jinja_replace(run, self.s, j_view(call->p[0].s), j_view(with.s), max, out);
}

static bool str_join(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue list;
    if (!du_jinja_to_list(run, call->p[0], J_LIST, &list)) {
        return false;
    }
    du_str buf = {0};
    bool ok = true;
    for (int64_t i = 0; ok && i < list.list->n; i++) {
        jvalue item = list.list->items[i];
        ok = (self.s->markup ? du_jinja_escape(run, item, &item)
                             : du_jinja_want_str(run, "join", item)) &&
             du_jinja_within_limits(run, &buf, 0);
        if (ok && i) {
            du_str_add_sv(&buf, j_view(self.s));
        }
        if (ok) {
            du_str_add_sv(&buf, j_view(item.s));
        }
    }
    if (!ok) {
        du_str_done(&buf);
        return false;
    }
    return du_jinja_str_take(run, &buf, self.s->markup, out);
}

/* Blanks (or another character) on both sides; left and right of how many are missing. */
static bool pad(jrun *run, const jstr *s, jvalue fill, int64_t left, int64_t right, jvalue *out) {
    jvalue pads[2], blank = fill;
    if (!j_given(fill) && !du_jinja_str_borrow(run, " ", 1, false, &blank)) {
        return false;
    }
    if (!du_jinja_want_str(run, "fillchar", blank) ||
        (s->markup && !du_jinja_escape(run, blank, &blank))) {
        return false;
    }
    if (blank.s->n_chars != 1) {
        return du_jinja_fail(run, DU_EFORMAT, "the fill is not one character");
    }
    if (!du_jinja_repeat(run, j_view(blank.s), left, s->markup, &pads[0]) ||
        !du_jinja_repeat(run, j_view(blank.s), right, s->markup, &pads[1])) {
        return false;
    }
    jvalue text;
    return du_jinja_str_append(run, pads[0].s, s, &text) &&
           du_jinja_str_append(run, text.s, pads[1].s, out);
}

/* How many characters the text lacks to the width. */
static int64_t lacking(const jstr *s, int64_t width) {
    return width > (int64_t)s->n_chars ? width - (int64_t)s->n_chars : 0;
}

bool du_jinja_center(jrun *run, const jstr *s, int64_t width, jvalue fill, jvalue *out) {
    int64_t missing = lacking(s, width);
    int64_t left = missing / 2 + (missing & width & 1);
    return pad(run, s, fill, left, missing - left, out);
}

static bool str_center(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    int64_t width;
    return du_jinja_arg_int(run, "center", call->p[0], &width) &&
           du_jinja_center(run, self.s, width, call->p[1], out);
}

static bool str_ljust(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    int64_t width;
    return du_jinja_arg_int(run, "ljust", call->p[0], &width) &&
           pad(run, self.s, call->p[1], 0, lacking(self.s, width), out);
}

static bool str_rjust(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    int64_t width;
    return du_jinja_arg_int(run, "rjust", call->p[0], &width) &&
           pad(run, self.s, call->p[1], lacking(self.s, width), 0, out);
}

static bool str_zfill(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    int64_t width;
    jvalue zeros, sign, rest;
    size_t n_sign = self.s->len && (self.s->s[0] == '+' || self.s->s[0] == '-');
    return du_jinja_arg_int(run, "zfill", call->p[0], &width) &&
           du_jinja_repeat(run, du_sv_of("0"), lacking(self.s, width), self.s->markup, &zeros) &&
           du_jinja_str_sub(run, self.s, 0, n_sign, &sign) &&
           du_jinja_str_sub(run, self.s, n_sign, self.s->len - n_sign, &rest) &&
           du_jinja_str_append(run, sign.s, zeros.s, &sign) &&
           du_jinja_str_append(run, sign.s, rest.s, out);
}

static bool str_expandtabs(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    int64_t size = 8, column = 0;
    size_t n;
    if (j_given(call->p[0]) && !du_jinja_arg_int(run, "expandtabs", call->p[0], &size)) {
        return false;
    }
    du_str buf = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < self.s->len; i += n) {
        int32_t c = du_jinja_char_get(self.s->s + i, &n);
        if (c != '\t') {
            du_str_add(&buf, self.s->s + i, n);
            column = c == '\n' || c == '\r' ? 0 : column + 1;
            continue;
        }
        int64_t blanks = size > 0 ? size - column % size : 0;
        column += blanks;
        for (; ok && blanks > 0; blanks--) {
            du_str_add_c(&buf, ' ');
            ok = du_jinja_within_limits(run, &buf, 0);
        }
    }
    if (!ok) {
        du_str_done(&buf);
        return false;
    }
    return du_jinja_str_take(run, &buf, self.s->markup, out);
}

static bool str_format(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return du_jinja_str_format(run, self.s, call, out);
}

static bool str_format_map(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    if (call->p[0].type != J_DICT) {
        return du_jinja_fail(run, DU_EFORMAT, "format_map takes a dict");
    }
    jcall named = {.kwargs = call->p[0].dict};
    return du_jinja_str_format(run, self.s, &named, out);
}

const jbuiltin *du_jinja_str_method(du_sv name) {
    static const jbuiltin methods[] = {
        {"capitalize", str_capitalize, "", 0},
        {"casefold", str_casefold, "", 0},
        {"center", str_center, "/width,fillchar", 1},
        {"count", du_jinja_str_count, "/sub,start,end", 1},
        {"encode", NULL, NULL, 0},
        {"endswith", du_jinja_str_endswith, "/suffix,start,end", 1},
        {"expandtabs", str_expandtabs, "tabsize", 0},
        {"find", du_jinja_str_find, "/sub,start,end", 1},
        {"format", str_format, NULL, 0},
        {"format_map", str_format_map, "/mapping", 1},
        {"index", du_jinja_str_index, "/sub,start,end", 1},
        {"isalnum", str_isalnum, "", 0},
        {"isalpha", str_isalpha, "", 0},
        {"isascii", str_isascii, "", 0},
        {"isdecimal", str_isdecimal, "", 0},
        {"isdigit", str_isdigit, "", 0},
        {"isidentifier", str_isidentifier, "", 0},
        {"islower", str_islower, "", 0},
        {"isnumeric", NULL, NULL, 0},
        {"isprintable", str_isprintable, "", 0},
        {"isspace", str_isspace, "", 0},
        {"istitle", str_istitle, "", 0},
        {"isupper", str_isupper, "", 0},
        {"join", str_join, "/iterable", 1},
        {"ljust", str_ljust, "/width,fillchar", 1},
        {"lower", str_lower, "", 0},
        {"lstrip", du_jinja_str_lstrip, "/chars", 0},
        {"maketrans", NULL, NULL, 0},
        {"partition", du_jinja_str_partition, "/sep", 1},
        {"removeprefix", du_jinja_str_removeprefix, "/prefix", 1},
        {"removesuffix", du_jinja_str_removesuffix, "/suffix", 1},
        {"replace", str_replace, "/old,new,count", 2},
        {"rfind", du_jinja_str_rfind, "/sub,start,end", 1},
        {"rindex", du_jinja_str_rindex, "/sub,start,end", 1},
        {"rjust", str_rjust, "/width,fillchar", 1},
        {"rpartition", du_jinja_str_rpartition, "/sep", 1},
        {"rsplit", du_jinja_str_rsplit, "sep,maxsplit", 0},
        {"rstrip", du_jinja_str_rstrip, "/chars", 0},
        {"split", du_jinja_str_split, "sep,maxsplit", 0},
        {"splitlines", du_jinja_str_splitlines, "keepends", 0},
        {"startswith", du_jinja_str_startswith, "/prefix,start,end", 1},
        {"strip", du_jinja_str_strip, "/chars", 0},
        {"swapcase", str_swapcase, "", 0},
        {"title", str_title, "", 0},
        {"translate", NULL, NULL, 0},
        {"upper", str_upper, "", 0},
        {"zfill", str_zfill, "/width", 1},
    };
    return du_jinja_builtin_find(methods, sizeof methods / sizeof methods[0], name);
}
