/* How values look as text: Python's str and repr, and JSON as json.dumps writes it.
 *
 * Floats are printed with the fewest digits that read back as the same number, in plain notation
 * from 1e-4 up to 1e16 and with an exponent outside, as repr does. */
#include <math.h>

#include "text/jinja_int.h"
#include "text/jinja_text.h"

/* Fails when the text so far or the nesting passes its limit. */
bool du_jinja_within_limits(jrun *run, const du_str *to, int depth) {
    if (depth > J_VALUE_DEPTH) {
        return du_jinja_fail(run, DU_ELIMIT, "a value is nested more than %d levels deep",
                             J_VALUE_DEPTH);
    }
    if (to->failed) {
        return du_jinja_fail_memory(run);
    }
    if (to->len > run->out_max) {
        return du_jinja_fail(run, DU_ELIMIT, "the text gets longer than %zu bytes", run->out_max);
    }
    return du_jinja_spend(run, 1);
}

/* ---- floats -------------------------------------------------------------------------------- */

/* Adds one to the last digit of "d.ddde+xx"; false when that would carry into a new digit. */
static bool next_decimal(char *text) {
    for (char *p = strchr(text, 'e') - 1; p >= text; p--) {
        if (*p == '9') {
            *p = '0';
        } else if (*p != '.') {
            (*p)++;
            return true;
        }
    }
    return false;
}

/* The decimal with so many digits behind its first, if one reads back as f. That is the nearest
 * one, except at powers of two: the doubles below them lie closer, so the next decimal above may do
 * where the nearest, below, does not. */
static bool decimal_of(double f, int precision, char text[40]) {
    int exponent;
    snprintf(text, 40, "%.*e", precision, f);
    return strtod(text, NULL) == f ||
           (frexp(f, &exponent) == 0.5 && next_decimal(text) && strtod(text, NULL) == f);
}

/* The shortest decimal digits that read back as f (positive, finite) and their exponent:
 * 0.d1d2d3... * 10^exponent. */
static int shortest_digits(double f, char digits[20], int *exponent) {
    char text[40];
    int n = 0, precision = 0;
    while (!decimal_of(f, precision, text)) {
        precision++; /* 16 is always enough */
    }
    const char *p = text;
    for (; *p != 'e'; p++) {
        if (*p >= '0' && *p <= '9') {
            digits[n++] = *p;
        }
    }
    while (n > 1 && digits[n - 1] == '0') {
        n--;
    }
    *exponent = (int)strtol(p + 1, NULL, 10) + 1;
    return n;
}

void du_jinja_print_float(du_str *to, double f) {
    char digits[20];
    int exponent;
    if (isnan(f) || isinf(f)) {
        du_str_add_s(to, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    if (signbit(f)) {
        du_str_add_c(to, '-');
        f = -f;
    }
    if (f == 0) {
        du_str_add_s(to, "0.0");
        return;
    }
    int n = shortest_digits(f, digits, &exponent);
    if (exponent > 16 || exponent < -3) {
        du_str_add_c(to, digits[0]);
        if (n > 1) {
            du_str_add_c(to, '.');
            du_str_add(to, digits + 1, (size_t)n - 1);
        }
        du_str_addf(to, "e%c%02d", exponent > 0 ? '+' : '-', abs(exponent - 1));
    } else if (exponent <= 0) {
        du_str_addf(to, "0.%.*s", -exponent, "000");
        du_str_add(to, digits, (size_t)n);
    } else {
        for (int i = 0; i < exponent || i < n; i++) {
            if (i == exponent) {
                du_str_add_c(to, '.');
            }
            du_str_add_c(to, i < n ? digits[i] : '0');
        }
        if (n <= exponent) {
            du_str_add_s(to, ".0");
        }
    }
}

/* ---- repr ---------------------------------------------------------------------------------- */

static void repr_char(du_str *to, int32_t c, const char *bytes, size_t n, char quote) {
    if (c == (int32_t)quote || c == '\\') {
        du_str_add_c(to, '\\');
        du_str_add_c(to, (char)c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
        du_str_addf(to, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
    } else if (du_jinja_is_printable(c)) {
        du_str_add(to, bytes, n);
    } else if (c < 0x100) {
        du_str_addf(to, "\\x%02x", c);
    } else if (c < 0x10000) {
        du_str_addf(to, "\\u%04x", c);
    } else {
        du_str_addf(to, "\\U%08x", c);
    }
}

static void repr_str(du_str *to, const jstr *s) {
    bool single = du_sv_find(j_view(s), du_sv_of("'"), 0) >= 0;
    bool both = single && du_sv_find(j_view(s), du_sv_of("\""), 0) >= 0;
    char quote = single && !both ? '"' : '\'';
    if (s->markup) {
        du_str_add_s(to, "Markup(");
    }
    du_str_add_c(to, quote);
    size_t n;
    for (size_t i = 0; i < s->len; i += n) {
        int32_t c = du_jinja_char_get(s->s + i, &n);
        repr_char(to, c, s->s + i, n, quote);
    }
    du_str_add_c(to, quote);
    if (s->markup) {
        du_str_add_c(to, ')');
    }
}

static bool repr_at(jrun *run, du_str *to, jvalue v, int depth);

static bool repr_items(jrun *run, du_str *to, const jlist *list, const char *brackets, int depth) {
    du_str_add_c(to, brackets[0]);
    for (int64_t i = 0; i < list->n; i++) {
        if (i) {
            du_str_add_s(to, ", ");
        }
        if (!repr_at(run, to, list->items[i], depth + 1)) {
            return false;
        }
    }
    if (brackets[0] == '(' && list->n == 1) {
        du_str_add_c(to, ',');
    }
    du_str_add_c(to, brackets[1]);
    return true;
}

static bool repr_dict(jrun *run, du_str *to, const jdict *d, int depth) {
    du_str_add_c(to, '{');
    for (int64_t i = 0; i < d->n; i++) {
        if (i) {
            du_str_add_s(to, ", ");
        }
        if (!repr_at(run, to, d->entries[i].key, depth + 1)) {
            return false;
        }
        du_str_add_s(to, ": ");
        if (!repr_at(run, to, d->entries[i].value, depth + 1)) {
            return false;
        }
    }
    du_str_add_c(to, '}');
    return true;
}

static bool repr_view(jrun *run, du_str *to, jvalue v, int depth) {
    jvalue list;
    du_str_addf(to, "%s(", du_jinja_type_name(v));
    if (!du_jinja_to_list(run, v, J_LIST, &list) || !repr_items(run, to, list.list, "[]", depth)) {
        return false;
    }
    du_str_add_c(to, ')');
    return true;
}

static void repr_range(du_str *to, const jrange *r) {
    du_str_addf(to, "range(%lld, %lld", (long long)r->start, (long long)r->stop);
    if (r->step != 1) {
        du_str_addf(to, ", %lld", (long long)r->step);
    }
    du_str_add_c(to, ')');
}

static bool repr_loop(jrun *run, du_str *to, jloop *loop) {
    int64_t length;
    if (!du_jinja_loop_length(run, loop, &length)) {
        return false;
    }
    du_str_addf(to, "<LoopContext %lld/%lld>", (long long)loop->index0 + 1, (long long)length);
    return true;
}

static bool repr_at(jrun *run, du_str *to, jvalue v, int depth) {
    if (!du_jinja_within_limits(run, to, depth)) {
        return false;
    }
    switch (v.type) {
    case J_MISSING:
    case J_UNDEFINED:
        du_str_add_s(to, "Undefined");
        return true;
    case J_NONE:
        du_str_add_s(to, "None");
        return true;
    case J_BOOL:
        du_str_add_s(to, v.b ? "True" : "False");
        return true;
    case J_INT:
        du_str_addf(to, "%lld", (long long)v.i);
        return true;
    case J_FLOAT:
        du_jinja_print_float(to, v.f);
        return du_jinja_spend(run, J_FLOAT_STEPS);
    case J_STR:
        repr_str(to, v.s);
        return du_jinja_spend(run, (int64_t)(v.s->len / 16));
    case J_LIST:
        return repr_items(run, to, v.list, "[]", depth);
    case J_TUPLE:
        return repr_items(run, to, v.list, "()", depth);
    case J_DICT:
        return repr_dict(run, to, v.dict, depth);
    case J_VIEW:
        return repr_view(run, to, v, depth);
    case J_RANGE:
        repr_range(to, v.range);
        return true;
    case J_NAMESPACE:
        du_str_add_s(to, "<Namespace ");
        if (!repr_dict(run, to, v.dict, depth)) {
            return false;
        }
        du_str_add_c(to, '>');
        return true;
    case J_LOOP:
        return repr_loop(run, to, v.loop);
    case J_MACRO:
        du_str_add_s(to, "<Macro ");
        if (v.macro->node->macro.name) {
            repr_str(to, v.macro->node->macro.name);
        } else {
            du_str_add_s(to, "anonymous");
        }
        du_str_add_c(to, '>');
        return true;
    default: /* Python would show an address */
        return du_jinja_fail(run, DU_EUNSUPPORTED, "printing a %s", du_jinja_type_name(v));
    }
}

bool du_jinja_repr(jrun *run, du_str *to, jvalue v) {
    return repr_at(run, to, v, 0) && du_jinja_within_limits(run, to, 0);
}

bool du_jinja_print(jrun *run, du_str *to, jvalue v) {
    if (v.type == J_STR) {
        du_str_add_sv(to, j_view(v.s));
        return du_jinja_within_limits(run, to, 0);
    }
    if (v.type == J_UNDEFINED || v.type == J_MISSING) {
        return true;
    }
    return du_jinja_repr(run, to, v);
}

bool du_jinja_to_str(jrun *run, jvalue v, jvalue *out) {
    if (v.type == J_STR && !v.s->markup) {
        *out = v;
        return true;
    }
    if (v.type == J_STR) {
        return du_jinja_str_borrow(run, v.s->s, v.s->len, false, out);
    }
    du_str buf = {0};
    if (!du_jinja_print(run, &buf, v)) {
        du_str_done(&buf);
        return false;
    }
    return du_jinja_str_take(run, &buf, false, out);
}

bool du_jinja_soft_str(jrun *run, jvalue v, jvalue *out) {
    if (v.type == J_STR) {
        *out = v;
        return true;
    }
    return du_jinja_to_str(run, v, out);
}
