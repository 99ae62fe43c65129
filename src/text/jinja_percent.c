/* `text % values` as in Python: %[(key)][flags][width][.precision]type. */
#include <math.h>

#include "text/jinja_int.h"
#include "text/unicode.h"

typedef struct {
    jrun *run;
    jvalue args; /* tuple, dict or a single value */
    int64_t used;
    bool keyed; /* a %(name) was there */
    bool markup;
} percent;

static bool next_arg(percent *p, jvalue *out) {
    bool single = p->args.type != J_TUPLE;
    if (p->used >= (single ? 1 : p->args.list->n)) {
        return du_jinja_fail(p->run, DU_EFORMAT, "%% has too few values");
    }
    *out = single ? p->args : p->args.list->items[p->used];
    p->used++;
    return true;
}

static bool keyed_arg(percent *p, const char **at, const char *end, jvalue *out) {
    const char *key = ++*at;
    for (int open = 1; open && *at < end; (*at)++) {
        open += **at == '(' ? 1 : **at == ')' ? -1 : 0;
    }
    if (*at == end || p->args.type != J_DICT) {
        return du_jinja_fail(p->run, DU_EFORMAT, "%% with a (name) needs a dict and a type");
    }
    jvalue *value;
    du_sv name = {key, (size_t)(*at - key) - 1};
    if (!du_jinja_dict_find_sv(p->run, p->args.dict, name, &value)) {
        return false;
    }
    p->keyed = true;
    if (!value) {
        return du_jinja_fail(p->run, DU_EFORMAT, "%% finds no value %.*s",
                             (int)(name.len < 60 ? name.len : 60), name.s);
    }
    *out = *value;
    return true;
}

/* A number, or * for the next value. */
static bool percent_count(percent *p, const char **at, const char *end, int64_t max, int64_t *out) {
    jvalue v;
    if (*at == end || **at != '*') {
        return du_jinja_spec_count(p->run, at, end, max, out);
    }
    (*at)++;
    if (!next_arg(p, &v) || !du_jinja_arg_int(p->run, "% *", v, out)) {
        return false;
    }
    if (*out > max || *out < -max) {
        return du_jinja_fail(p->run, DU_ELIMIT, "a width or precision beyond %lld", (long long)max);
    }
    return true;
}

static bool percent_spec(percent *p, const char **at, const char *end, jspec *s) {
    for (; *at < end && strchr("-+ #0", **at) && **at; (*at)++) {
        s->align = **at == '-' ? '<' : **at == '0' && s->align != '<' ? '=' : s->align;
        s->sign = **at == '+' || (**at == ' ' && s->sign != '+') ? **at : s->sign;
        s->alternate = s->alternate || **at == '#';
    }
    if (!percent_count(p, at, end, J_WIDTH_MAX, &s->width)) {
        return false;
    }
    if (s->width < 0) {
        s->align = '<';
        s->width = -s->width;
    }
    if (*at < end && **at == '.') {
        (*at)++;
        if (!percent_count(p, at, end, J_PRECISION_MAX, &s->precision)) {
            return false;
        }
        s->precision = s->precision < 0 ? 0 : s->precision;
    }
    while (*at < end && strchr("hlL", **at) && **at) {
        (*at)++;
    }
    if (*at == end) {
        return du_jinja_fail(p->run, DU_EFORMAT, "%% without a type at the end of the text");
    }
    s->type = *(*at)++;
    return true;
}

static bool percent_int(percent *p, du_str *to, jspec *s, jvalue v) {
    bool decimal = s->type == 'd' || s->type == 'i' || s->type == 'u';
    if (v.type == J_FLOAT && decimal && fabs(v.f) < 9e18) {
        v = j_int((int64_t)v.f);
    }
    if (!j_is_int(v)) {
        return v.type == J_UNDEFINED
                   ? du_jinja_fail_undefined(p->run, v)
                   : du_jinja_fail(p->run, DU_EFORMAT, "%%%c takes an integer, not %s", s->type,
                                   du_jinja_type_name(v));
    }
    s->type = decimal ? 'd' : s->type;
    int64_t digits = s->precision;
    s->fill[0] = s->align == '=' ? '0' : ' ';
    du_jinja_spec_int(to, s, j_as_int(v), digits);
    return true;
}

static bool percent_text(percent *p, du_str *to, jspec *s, jvalue v) {
    s->align = s->align == '<' ? '<' : '>';
    if (s->type == 'c' && j_is_int(v)) {
        char buf[4];
        int64_t c = j_as_int(v);
        if (c < 0 || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
            return du_jinja_fail(p->run, DU_EFORMAT, "%%c takes a character");
        }
        return du_jinja_str_copy(p->run, buf, du_utf8_put(buf, (int32_t)c), &v) &&
               du_jinja_spec_text(p->run, to, s, v);
    }
    if (s->type == 'c' && (v.type != J_STR || v.s->n_chars != 1)) {
        return du_jinja_fail(p->run, DU_EFORMAT, "%%c takes a character");
    }
    if (s->type == 'r' || s->type == 'a') {
        du_str repr = {0};
        if (!du_jinja_repr(p->run, &repr, v)) {
            du_str_done(&repr);
            return false;
        }
        if (!du_jinja_str_take(p->run, &repr, false, &v)) {
            return false;
        }
        if (s->type == 'a' && v.s->len != v.s->n_chars) {
            return du_jinja_fail(p->run, DU_EUNSUPPORTED, "%%a of text that is not ASCII");
        }
    }
    return (!p->markup || du_jinja_escape(p->run, v, &v)) && du_jinja_soft_str(p->run, v, &v) &&
           du_jinja_spec_text(p->run, to, s, v);
}

static bool percent_value(percent *p, du_str *to, jspec *s, jvalue v) {
    switch (s->type) {
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        return percent_int(p, to, s, v);
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (!j_is_number(v)) {
            return v.type == J_UNDEFINED
                       ? du_jinja_fail_undefined(p->run, v)
                       : du_jinja_fail(p->run, DU_EFORMAT, "%%%c takes a number, not %s", s->type,
                                       du_jinja_type_name(v));
        }
        s->fill[0] = s->align == '=' ? '0' : ' ';
        du_jinja_spec_float(to, s, j_as_float(v));
        return true;
    case 's':
    case 'r':
    case 'a':
    case 'c':
        return percent_text(p, to, s, v);
    default:
        return du_jinja_fail(p->run, DU_EFORMAT, "%% has no type '%c'", s->type);
    }
}

/* One field at `at`, behind the %. */
static bool percent_field(percent *p, du_str *to, const char **at, const char *end) {
    jspec s = {.fill = " ", .n_fill = 1, .precision = -1};
    jvalue v = {.type = J_MISSING};
    if (*at < end && **at == '(' && !keyed_arg(p, at, end, &v)) {
        return false;
    }
    if (!percent_spec(p, at, end, &s)) {
        return false;
    }
    if (s.type == '%') {
        du_str_add_c(to, '%');
        return true;
    }
    return (j_given(v) || next_arg(p, &v)) && percent_value(p, to, &s, v) &&
           du_jinja_within_limits(p->run, to, 0);
}

bool du_jinja_percent(jrun *run, const jstr *format, jvalue args, jvalue *out) {
    percent p = {.run = run, .args = args, .markup = format->markup};
    const char *at = format->s, *end = at + format->len;
    du_str buf = {0};
    bool ok = du_jinja_spend(run, (int64_t)(format->len / 16));
    while (ok && at < end) {
        const char *next = memchr(at, '%', (size_t)(end - at));
        next = next ? next : end;
        du_str_add(&buf, at, (size_t)(next - at));
        at = next + (next < end);
        ok = next == end || percent_field(&p, &buf, &at, end);
    }
    bool mapping = args.type == J_DICT || args.type == J_LIST || args.type == J_RANGE ||
                   args.type == J_UNDEFINED; /* what has items by key may be left unused */
    if (ok && !mapping && p.used < (args.type == J_TUPLE ? args.list->n : 1)) {
        ok = du_jinja_fail(run, DU_EFORMAT, "%% has more values than fields");
    }
    if (!ok) {
        du_str_done(&buf);
        return false;
    }
    return du_jinja_str_take(run, &buf, format->markup, out);
}
