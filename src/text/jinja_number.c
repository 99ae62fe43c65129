/* Numbers of the Jinja interpreter: reading them from text, and the filters abs, float, int, round,
 * filesizeformat. */
#include <ctype.h>
#include <math.h>

#include "text/jinja_int.h"
#include "text/jinja_text.h"

/* ---- reading ------------------------------------------------------------------------------- */

typedef enum { READ_OK, READ_INVALID, READ_TOO_BIG } reading;

static du_sv trimmed(du_sv text) {
    size_t from = du_jinja_strip_start(text, NULL);
    text = (du_sv){text.s + from, text.len - from};
    text.len -= du_jinja_strip_end(text, NULL);
    return text;
}

static int digit_of(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'z' ? c - 'a' + 10
           : c >= 'A' && c <= 'Z' ? c - 'A' + 10
                                  : 99;
}

/* 0x, 0o, 0b: the base they stand for, 0 when there is none. */
static int prefix_base(du_sv text) {
    if (text.len < 3 || text.s[0] != '0') {
        return 0;
    }
    char c = (char)tolower((unsigned char)text.s[1]);
    return c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
}

/* int(text, base) of Python: white space around, a sign, a prefix that fits the base, digits with
 * single underscores between them. */
static reading read_int(du_sv text, int base, int64_t *out) {
    text = trimmed(text);
    bool minus = text.len && text.s[0] == '-', underscore_ok = false;
    if (text.len && (text.s[0] == '-' || text.s[0] == '+')) {
        text = (du_sv){text.s + 1, text.len - 1};
    }
    int prefix = prefix_base(text);
    if (prefix && (base == 0 || base == prefix)) {
        base = prefix;
        text = (du_sv){text.s + 2, text.len - 2};
        underscore_ok = true;
    } else if (base == 0) {
        base = 10;
        for (size_t i = 0; text.len && text.s[0] == '0' && i < text.len; i++) {
            if (text.s[i] != '0' && text.s[i] != '_') { /* 012 */
                return READ_INVALID;
            }
        }
    }
    int64_t v = 0;
    bool too_big = false, digit_last = false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.s[i] == '_' && (digit_last || (i == 0 && underscore_ok))) {
            digit_last = false;
            continue;
        }
        int digit = digit_of(text.s[i]);
        if (digit >= base) {
            return READ_INVALID;
        }
        too_big = too_big || __builtin_mul_overflow(v, (int64_t)base, &v) ||
                  __builtin_sub_overflow(v, (int64_t)digit, &v); /* negative: it reaches further */
        digit_last = true;
    }
    if (!digit_last) {
        return READ_INVALID;
    }
    if (too_big || (!minus && v == INT64_MIN)) {
        return READ_TOO_BIG;
    }
    *out = minus ? v : -v;
    return READ_OK;
}

/* Digits with single underscores between them, appended without these. */
static bool copy_digits(const char **p, const char *end, du_str *to) {
    bool any = false;
    while (*p < end && (isdigit((unsigned char)**p) ||
                        (any && **p == '_' && *p + 1 < end && isdigit((unsigned char)(*p)[1])))) {
        if (**p != '_') {
            du_str_add_c(to, **p);
        }
        any = true;
        (*p)++;
    }
    return any;
}

/* The form of a decimal number with fraction and exponent, without underscores. */
static bool copy_float(du_sv text, du_str *to) {
    const char *p = text.s, *end = text.s + text.len;
    bool whole = copy_digits(&p, end, to), fraction = false;
    if (p < end && *p == '.') {
        du_str_add_c(to, *p++);
        fraction = copy_digits(&p, end, to);
    }
    if (!whole && !fraction) {
        return false;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        du_str_add_c(to, *p++);
        if (p < end && (*p == '-' || *p == '+')) {
            du_str_add_c(to, *p++);
        }
        if (!copy_digits(&p, end, to)) {
            return false;
        }
    }
    return p == end;
}

static bool is_word(du_sv text, const char *word) {
    return text.len == strlen(word) && strncasecmp(text.s, word, text.len) == 0;
}

/* float(text) of Python. */
static bool read_float(du_sv text, double *out) {
    text = trimmed(text);
    double sign = text.len && text.s[0] == '-' ? -1 : 1;
    if (text.len && (text.s[0] == '-' || text.s[0] == '+')) {
        text = (du_sv){text.s + 1, text.len - 1};
    }
    if (is_word(text, "inf") || is_word(text, "infinity") || is_word(text, "nan")) {
        *out = tolower((unsigned char)text.s[0]) == 'n' ? (double)NAN : sign * (double)INFINITY;
        return true;
    }
    du_str digits = {0};
    bool valid = copy_float(text, &digits) && !digits.failed;
    *out = valid ? sign * strtod(du_str_get(&digits), NULL) : 0;
    du_str_done(&digits);
    return valid;
}

/* ---- filters ------------------------------------------------------------------------------- */

/* The integer part of a number; *valid is false for what has none. */
static bool whole_part(jrun *run, double f, bool *valid, jvalue *out) {
    *valid = isfinite(f);
    if (*valid && (f >= 9223372036854775808.0 || f < -9223372036854775808.0)) {
        return du_jinja_fail(run, DU_EUNSUPPORTED, "int gives an integer beyond 64 bits");
    }
    *out = j_int(*valid ? (int64_t)f : 0);
    return true;
}

static bool int_of_str(jrun *run, du_sv text, int64_t base, bool *valid, jvalue *out) {
    double f;
    *out = j_int(0);
    if (base != 0 && (base < 2 || base > 36)) {
        base = 1; /* no text is a number then, but "4.2" still gives 4 */
    }
    reading r = base == 1 ? READ_INVALID : read_int(text, (int)base, &out->i);
    if (r == READ_TOO_BIG) {
        return du_jinja_fail(run, DU_EUNSUPPORTED, "int gives an integer beyond 64 bits");
    }
    *valid = r == READ_OK;
    if (*valid || !read_float(text, &f)) {
        return true;
    }
    return whole_part(run, f, valid, out);
}

bool du_jinja_f_int(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    bool valid = false;
    int64_t base = 10;
    if (j_given(call->p[1]) && !du_jinja_arg_int(run, "int", call->p[1], &base)) {
        return false;
    }
    if (self.type == J_UNDEFINED) {
        return du_jinja_fail_undefined(run, self);
    }
    if (self.type == J_STR && !int_of_str(run, j_view(self.s), base, &valid, out)) {
        return false;
    }
    if (j_is_int(self)) {
        *out = j_int(j_as_int(self));
        return true;
    }
    if (self.type == J_FLOAT) {
        if (isinf(self.f)) {
            return du_jinja_fail(run, DU_EFORMAT, "infinity is no integer");
        }
        if (!whole_part(run, self.f, &valid, out)) {
            return false;
        }
    }
    if (!valid) {
        *out = j_given(call->p[0]) ? call->p[0] : j_int(0);
    }
    return true;
}

bool du_jinja_f_float(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    double f;
    if (self.type == J_UNDEFINED) {
        return du_jinja_fail_undefined(run, self);
    }
    if (j_is_number(self)) {
        *out = j_float(j_as_float(self));
    } else if (self.type == J_STR && read_float(j_view(self.s), &f)) {
        *out = j_float(f);
    } else {
        *out = j_given(call->p[0]) ? call->p[0] : j_float(0);
    }
    return du_jinja_spend(run, self.type == J_STR ? (int64_t)(self.s->len / 16) : 0);
}

bool du_jinja_f_abs(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    if (!j_is_number(self)) {
        return du_jinja_fail(run, DU_EFORMAT, "abs takes a number, not %s",
                             du_jinja_type_name(self));
    }
    if (self.type == J_FLOAT) {
        *out = j_float(fabs(self.f));
        return true;
    }
    return du_jinja_negate(run, self, j_as_int(self) < 0, out);
}

/* To a multiple of `unit` > 0, halves to the even one; false when it does not fit. */
static bool round_int(int64_t v, int64_t unit_v, int64_t *out) {
    uint64_t unit = (uint64_t)unit_v, size = v < 0 ? -(uint64_t)v : (uint64_t)v;
    uint64_t rest = size % unit, base = size - rest;
    bool odd = (base / unit) % 2 != 0;
    base += rest > unit - rest || (rest == unit - rest && odd) ? unit : 0;
    *out = v < 0 ? (int64_t)-base : (int64_t)base;
    return base <= (uint64_t)INT64_MAX + (v < 0);
}

static double round_tens(double f, int64_t digits) {
    double unit = pow(10, (double)digits), size = fabs(f);
    if (digits > 308) {
        return copysign(0.0, f);
    }
    double rest = fmod(size, unit), base = size - rest;
    bool odd = fmod(base / unit, 2) != 0;
    if (rest > unit - rest || (rest == unit - rest && odd)) {
        base += unit;
    }
    return copysign(base, f);
}

/* round(f, digits): printf rounds the exact value, halves to even, as Python does. */
static double round_float(double f, int64_t digits) {
    char text[700];
    if (!isfinite(f) || digits > 323) {
        return f;
    }
    if (digits < 0) {
        return round_tens(f, -digits);
    }
    snprintf(text, sizeof text, "%.*f", (int)digits, f);
    return strtod(text, NULL);
}

static bool round_common(jrun *run, jvalue v, int64_t digits, jvalue *out) {
    if (v.type == J_FLOAT) {
        *out = j_float(round_float(v.f, digits));
        return true;
    }
    *out = j_int(j_as_int(v));
    if (digits >= 0) {
        return true;
    }
    if (digits < -18) {
        *out = j_int(0);
        return true;
    }
    int64_t unit = 1;
    for (; digits < 0; digits++) {
        unit *= 10;
    }
    return round_int(j_as_int(v), unit, &out->i) ||
           du_jinja_fail(run, DU_EUNSUPPORTED, "round gives an integer beyond 64 bits");
}

bool du_jinja_f_round(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    int64_t digits = 0;
    jvalue method = call->p[1];
    bool common = !j_given(method) || j_str_is(method, "common");
    if (!common && !j_str_is(method, "ceil") && !j_str_is(method, "floor")) {
        return du_jinja_fail(run, DU_EFORMAT, "round: the method is not common, ceil or floor");
    }
    if (j_given(call->p[0]) && !du_jinja_arg_int(run, "round", call->p[0], &digits)) {
        return false;
    }
    if (!j_is_number(self)) {
        return self.type == J_UNDEFINED
                   ? du_jinja_fail_undefined(run, self)
                   : du_jinja_fail(run, DU_EFORMAT, "round takes a number, not %s",
                                   du_jinja_type_name(self));
    }
    if (common) {
        return round_common(run, self, digits, out);
    }
    double unit = pow(10, (double)digits), scaled = j_as_float(self) * unit;
    if (!isfinite(scaled)) {
        return du_jinja_fail(run, DU_EFORMAT, "round: the number is too large");
    }
    double whole = j_str_is(method, "ceil") ? ceil(scaled) : floor(scaled);
    *out = j_float(j_is_int(self) && digits >= 0 ? j_as_float(self) : whole / unit);
    return true;
}

bool du_jinja_f_filesizeformat(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    static const char prefixes[] = "kMGTPEZY";
    double bytes;
    bool binary = false;
    char text[400];
    if (j_given(call->p[0]) && !du_jinja_truth(run, call->p[0], &binary)) {
        return false;
    }
    if (j_is_number(self)) {
        bytes = j_as_float(self);
    } else if (self.type != J_STR || !read_float(j_view(self.s), &bytes)) {
        return du_jinja_fail(run, DU_EFORMAT, "filesizeformat takes a number");
    }
    double base = binary ? 1024 : 1000, unit = base;
    if (!isfinite(bytes)) {
        return du_jinja_fail(run, DU_EFORMAT, "filesizeformat takes a finite number");
    }
    if (bytes == 1) {
        return du_jinja_str_borrow(run, "1 Byte", 6, false, out);
    }
    if (bytes < base) {
        snprintf(text, sizeof text, "%.0f Bytes", trunc(bytes));
        return du_jinja_str_copy(run, text, strlen(text), out);
    }
    size_t i = 0;
    while (i + 1 < sizeof prefixes - 1 && bytes >= unit * base) {
        unit *= base;
        i++;
    }
    snprintf(text, sizeof text, "%.1f %c%s", base * bytes / (unit * base),
             binary ? toupper(prefixes[i]) : prefixes[i], binary ? "iB" : "B");
    return du_jinja_str_copy(run, text, strlen(text), out);
}
