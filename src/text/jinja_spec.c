/* Text, integers and floats in a field: what `%` and str.format come down to.
 *
 *   [[fill]align][sign][#][0][width][,][.precision][type]
 */
#include <math.h>

#include "text/jinja_int.h"
#include "text/jinja_text.h"

/* sign, prefix and digits of a number to the width. */
static void add_number(du_str *to, const jspec *s, const char *sign, const char *prefix,
                       const char *digits) {
    int64_t n = (int64_t)(strlen(sign) + strlen(prefix) + strlen(digits));
    int64_t missing = s->width > n ? s->width - n : 0;
    char align = s->align ? s->align : '>';
    int64_t before = align == '>' ? missing : align == '^' ? missing / 2 : 0;
    for (int64_t i = 0; i < before; i++) {
        du_str_add(to, s->fill, s->n_fill);
    }
    du_str_add_s(to, sign);
    du_str_add_s(to, prefix);
    for (int64_t i = 0; align == '=' && i < missing; i++) {
        du_str_add(to, s->fill, s->n_fill);
    }
    du_str_add_s(to, digits);
    for (int64_t i = before; align != '=' && i < missing; i++) {
        du_str_add(to, s->fill, s->n_fill);
    }
}

bool du_jinja_spec_text(jrun *run, du_str *to, const jspec *s, jvalue text) {
    jvalue missing = {.type = J_MISSING};
    if (s->precision >= 0 &&
        !du_jinja_slice(run, text, missing, j_int(s->precision), missing, &text)) {
        return false;
    }
    int64_t n = (int64_t)text.s->n_chars, rest = s->width > n ? s->width - n : 0;
    int64_t before = s->align == '>' ? rest : s->align == '^' ? rest / 2 : 0;
    for (int64_t i = 0; i < rest + 1; i++) {
        if (i == before) {
            du_str_add_sv(to, j_view(text.s));
        }
        if (i < rest) {
            du_str_add(to, s->fill, s->n_fill);
        }
    }
    return du_jinja_within_limits(run, to, 0);
}

static const char *sign_text(const jspec *s, bool negative) {
    return negative ? "-" : s->sign == '+' ? "+" : s->sign == ' ' ? " " : "";
}

/* Puts the separator between groups of digits of the whole part of `digits`; zeros for a width of
 * fill 0 and align = are grouped, too. */
static void group_digits(du_str *to, const char *digits, char sep, int every, int64_t width) {
    size_t n = strcspn(digits, ".eE%n");
    size_t tail = strlen(digits) - n, whole = n;
    while ((int64_t)(whole + (whole - 1) / (size_t)every + tail) < width) {
        whole++;
    }
    if (whole > n && (int64_t)(whole + (whole - 1) / (size_t)every + tail) > width &&
        whole % (size_t)every != 1) {
        whole--;
    }
    for (size_t i = 0; i < whole; i++) {
        if (i && (whole - i) % (size_t)every == 0) {
            du_str_add_c(to, sep);
        }
        du_str_add_c(to, i < whole - n ? '0' : digits[i - (whole - n)]);
    }
    du_str_add_s(to, digits + n);
}

static void add_grouped(du_str *to, const jspec *s, bool negative, const char *prefix,
                        const char *digits, int every) {
    const char *sign = sign_text(s, negative);
    if (!s->thousands) {
        add_number(to, s, sign, prefix, digits);
        return;
    }
    bool zeros = s->align == '=' && s->n_fill == 1 && s->fill[0] == '0';
    int64_t taken = (int64_t)(strlen(sign) + strlen(prefix));
    du_str grouped = {0};
    group_digits(&grouped, digits, s->thousands, every, zeros ? s->width - taken : 0);
    add_number(to, s, sign, prefix, du_str_get(&grouped));
    to->failed = to->failed || grouped.failed;
    du_str_done(&grouped);
}

void du_jinja_spec_int(du_str *to, const jspec *s, int64_t v, int64_t min_digits) {
    char digits[80 + J_PRECISION_MAX];
    uint64_t left = v < 0 ? -(uint64_t)v : (uint64_t)v;
    unsigned base = s->type == 'x' || s->type == 'X' ? 16
                    : s->type == 'o'                 ? 8
                    : s->type == 'b'                 ? 2
                                                     : 10;
    const char *letters = s->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    const char *prefix = !s->alternate    ? ""
                         : s->type == 'x' ? "0x"
                         : s->type == 'X' ? "0X"
                         : s->type == 'o' ? "0o"
                         : s->type == 'b' ? "0b"
                                          : "";
    size_t at = sizeof digits - 1;
    digits[at] = '\0';
    do {
        digits[--at] = letters[left % base];
        left /= base;
    } while (left);
    while ((int64_t)(sizeof digits - 1 - at) < min_digits) {
        digits[--at] = '0';
    }
    add_grouped(to, s, v < 0, prefix, digits + at, base == 10 ? 3 : 4);
}

/* The digits of a float without its sign, in C's printf, with what Python does differently. */
static void float_digits(du_str *to, const jspec *s, double f) {
    char form[] = "%.*f", form_alt[] = "%#.*f";
    int precision = s->precision < 0 ? 6 : (int)s->precision;
    char type = s->type == '%' || s->type == 'F' ? 'f' : s->type == 'n' ? 'g' : s->type;
    f = fabs(s->type == '%' ? f * 100 : f);
    if (!isfinite(f)) {
        bool big = s->type == 'F' || s->type == 'E' || s->type == 'G';
        du_str_add_s(to, isnan(f) ? (big ? "NAN" : "nan") : big ? "INF" : "inf");
    } else if (!type && s->precision < 0) {
        du_jinja_print_float(to, f);
    } else {
        size_t start = to->len;
        char text[1000];
        form[3] = form_alt[4] = type ? type : 'g';
        precision = !type && precision == 0 ? 1 : precision;
        int (*print)(char *, size_t, const char *, ...) = snprintf; /* the form is ours */
        print(text, sizeof text, s->alternate ? form_alt : form, precision, f);
        du_str_add_s(to, text);
        if (!type && !to->failed && !strpbrk(to->data + start, ".e")) {
            du_str_add_s(to, ".0");
        }
    }
    if (s->type == '%') {
        du_str_add_c(to, '%');
    }
}

void du_jinja_spec_float(du_str *to, const jspec *s, double f) {
    du_str digits = {0};
    float_digits(&digits, s, f);
    add_grouped(to, s, signbit(f) && !isnan(f), "", du_str_get(&digits), 3);
    to->failed = to->failed || digits.failed;
    du_str_done(&digits);
}

bool du_jinja_spec_count(jrun *run, const char **p, const char *end, int64_t max, int64_t *out) {
    *out = 0;
    for (; *p < end && **p >= '0' && **p <= '9'; (*p)++) {
        *out = *out * 10 + (**p - '0');
        if (*out > max) {
            return du_jinja_fail(run, DU_ELIMIT, "a width or precision beyond %lld",
                                 (long long)max);
        }
    }
    return true;
}
