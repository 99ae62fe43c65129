/* str.format as in Python: {name.attribute[item]!conversion:specification}. */
#include "text/jinja_int.h"
#include "text/jinja_text.h"

static bool read_spec(jrun *run, du_sv text, jspec *s) {
    const char *p = text.s, *end = text.s + text.len;
    size_t n = 0;
    *s = (jspec){.fill = " ", .n_fill = 1, .precision = -1};
    if (p < end) {
        du_jinja_char_get(p, &n);
    }
    if (p + n < end && strchr("<>=^", p[n]) && p[n]) {
        memcpy(s->fill, p, n);
        s->n_fill = n;
        s->align = p[n];
        p += n + 1;
    } else if (p < end && strchr("<>=^", *p) && *p) {
        s->align = *p++;
    }
    if (p < end && (*p == '+' || *p == '-' || *p == ' ')) {
        s->sign = *p++;
    }
    if (p < end && *p == '#') {
        s->alternate = true;
        p++;
    }
    if (p < end && *p == '0') {
        if (!s->align) {
            s->fill[0] = '0';
            s->align = '=';
        }
        p++;
    }
    if (!du_jinja_spec_count(run, &p, end, J_WIDTH_MAX, &s->width)) {
        return false;
    }
    if (p < end && (*p == ',' || *p == '_')) {
        s->thousands = *p++;
    }
    if (p < end && *p == '.') {
        p++;
        if (p == end || *p < '0' || *p > '9') {
            return du_jinja_fail(run, DU_EFORMAT, "format: a precision is missing");
        }
        if (!du_jinja_spec_count(run, &p, end, J_PRECISION_MAX, &s->precision)) {
            return false;
        }
    }
    if (p < end) {
        s->type = *p++;
    }
    return p == end || du_jinja_fail(run, DU_EFORMAT, "format: '%.*s' is no specification",
                                     (int)(text.len < 60 ? text.len : 60), text.s);
}

static bool fail_type(jrun *run, const jspec *s, jvalue v) {
    return du_jinja_fail(run, DU_EFORMAT, "format: the type '%c' does not suit %s",
                         s->type ? s->type : ' ', du_jinja_type_name(v));
}

static bool format_text(jrun *run, du_str *to, jspec *s, jvalue v) {
    if ((s->type && s->type != 's') || s->sign || s->alternate || s->thousands || s->align == '=') {
        if (s->align != '=' || s->fill[0] != '0' || s->type || s->sign) {
            return fail_type(run, s, v);
        }
        s->align = '<'; /* a 0 before the width of a text fills behind it */
    }
    return du_jinja_spec_text(run, to, s, v);
}

static bool format_number(jrun *run, du_str *to, jspec *s, jvalue v) {
    bool as_float = v.type == J_FLOAT || (s->type && strchr("eEfFgG%", s->type));
    if (as_float ? s->type && !strchr("eEfFgGn%", s->type)
                 : s->type && !strchr("bdoxXnc", s->type)) {
        return fail_type(run, s, v);
    }
    if (as_float) {
        du_jinja_spec_float(to, s, j_as_float(v));
        return true;
    }
    if (s->precision >= 0 || s->type == 'c') {
        return fail_type(run, s, v);
    }
    du_jinja_spec_int(to, s, j_as_int(v), 0);
    return true;
}

static bool format_value(jrun *run, du_str *to, jvalue v, du_sv text) {
    jspec s;
    if (v.type != J_STR && (text.len == 0 || !j_is_number(v))) {
        if (text.len) {
            return du_jinja_fail(run, DU_EFORMAT, "format: %s takes no specification",
                                 du_jinja_type_name(v));
        }
        return du_jinja_print(run, to, v);
    }
    return read_spec(run, text, &s) &&
           (v.type == J_STR ? format_text(run, to, &s, v) : format_number(run, to, &s, v)) &&
           du_jinja_within_limits(run, to, 0);
}

typedef struct {
    jrun *run;
    const jcall *call;
    int64_t next;   /* automatic numbering */
    bool numbered;  /* a field had a number */
    bool automatic; /* a field had none */
    bool markup;
} formatter;

static bool all_digits(du_sv s) {
    for (size_t i = 0; i < s.len; i++) {
        if (s.s[i] < '0' || s.s[i] > '9') {
            return false;
        }
    }
    return s.len > 0 && s.len < 10;
}

static int64_t number_of(du_sv s) {
    int64_t v = 0;
    for (size_t i = 0; i < s.len; i++) {
        v = v * 10 + (s.s[i] - '0');
    }
    return v;
}

/* The argument that the first part of a field's name means. */
static bool field_argument(formatter *f, du_sv name, jvalue *out) {
    jvalue *named = NULL;
    bool number = name.len == 0 || all_digits(name);
    if (!number) {
        if (f->call->kwargs && !du_jinja_dict_find_sv(f->run, f->call->kwargs, name, &named)) {
            return false;
        }
        if (!named) {
            return du_jinja_fail(f->run, DU_EFORMAT, "format has no argument %.*s",
                                 (int)(name.len < 60 ? name.len : 60), name.s);
        }
        *out = *named;
        return true;
    }
    f->automatic = f->automatic || name.len == 0;
    f->numbered = f->numbered || name.len > 0;
    int64_t i = name.len ? number_of(name) : f->next++;
    if (f->automatic && f->numbered) {
        return du_jinja_fail(f->run, DU_EFORMAT, "format: fields with and without numbers");
    }
    if (i >= f->call->n_args) {
        return du_jinja_fail(f->run, DU_EFORMAT, "format has too few arguments");
    }
    *out = f->call->args[i];
    return true;
}

/* name.attribute[item]... */
static bool field_value(formatter *f, du_sv name, jvalue *out) {
    size_t end = 0;
    while (end < name.len && name.s[end] != '.' && name.s[end] != '[') {
        end++;
    }
    if (!field_argument(f, (du_sv){name.s, end}, out)) {
        return false;
    }
    while (end < name.len) {
        bool item = name.s[end++] == '[';
        size_t from = end;
        while (end < name.len &&
               (item ? name.s[end] != ']' : name.s[end] != '.' && name.s[end] != '[')) {
            end++;
        }
        du_sv part = {name.s + from, end - from};
        if (part.len == 0 || (item && end++ == name.len)) {
            return du_jinja_fail(f->run, DU_EFORMAT, "format: an empty or open part of a name");
        }
        jvalue key;
        if (item && all_digits(part)) {
            key = j_int(number_of(part));
        } else if (!du_jinja_str_borrow(f->run, part.s, part.len, false, &key)) {
            return false;
        }
        if (item ? !du_jinja_getitem(f->run, *out, key, out)
                 : !du_jinja_getattr(f->run, *out, key.s, out)) {
            return false;
        }
    }
    return true;
}

static bool convert(formatter *f, char conversion, jvalue *v) {
    du_str repr = {0};
    if (conversion == 's') {
        return du_jinja_to_str(f->run, *v, v);
    }
    if (conversion != 'r') {
        return du_jinja_fail(f->run, DU_EUNSUPPORTED, "format: the conversion !%c", conversion);
    }
    if (!du_jinja_repr(f->run, &repr, *v)) {
        du_str_done(&repr);
        return false;
    }
    return du_jinja_str_take(f->run, &repr, false, v);
}

static bool format_text_into(formatter *f, du_sv text, int depth, du_str *to);

/* name!conversion:specification; the specification may hold fields itself. */
static bool format_field(formatter *f, du_sv field, int depth, du_str *to) {
    size_t end = 0;
    bool bracket = false;
    while (end < field.len && (bracket || (field.s[end] != '!' && field.s[end] != ':'))) {
        bracket = field.s[end] == '[' || (bracket && field.s[end] != ']');
        end++;
    }
    jvalue v;
    if (!field_value(f, (du_sv){field.s, end}, &v)) {
        return false;
    }
    if (end < field.len && field.s[end] == '!') {
        if (end + 1 >= field.len || !convert(f, field.s[end + 1], &v)) {
            return f->run->err == DU_OK &&
                   du_jinja_fail(f->run, DU_EFORMAT, "format: a conversion is missing");
        }
        end += 2;
    }
    if (end < field.len && field.s[end] != ':') {
        return du_jinja_fail(f->run, DU_EFORMAT, "format: ':' is missing");
    }
    du_str inner = {0};
    du_sv rest = {field.s + end + 1, end < field.len ? field.len - end - 1 : 0};
    bool ok = format_text_into(f, rest, depth + 1, &inner);
    if (ok && f->markup) {
        jvalue plain;
        du_str one = {0};
        ok = format_value(f->run, &one, v, du_str_view(&inner)) &&
             du_jinja_str_take(f->run, &one, v.type == J_STR && v.s->markup, &plain) &&
             du_jinja_escape(f->run, plain, &plain);
        du_str_done(&one);
        if (ok) {
            du_str_add_sv(to, j_view(plain.s));
        }
    } else if (ok) {
        ok = format_value(f->run, to, v, du_str_view(&inner));
    }
    du_str_done(&inner);
    return ok;
}

static bool format_text_into(formatter *f, du_sv text, int depth, du_str *to) {
    if (depth > 2) {
        return du_jinja_fail(f->run, DU_EFORMAT, "format: fields nested too deep");
    }
    for (size_t i = 0; i < text.len; i++) {
        char c = text.s[i];
        bool twice = i + 1 < text.len && text.s[i + 1] == c;
        if ((c != '{' && c != '}') || (twice && depth == 0)) {
            du_str_add_c(to, c);
            i += c == '{' || c == '}';
            continue;
        }
        size_t end = i + 1;
        int open = 1;
        for (; c == '{' && end < text.len; end++) {
            open += text.s[end] == '{' ? 1 : text.s[end] == '}' ? -1 : 0;
            if (open == 0) {
                break;
            }
        }
        if (c == '}' || end == text.len) {
            return du_jinja_fail(f->run, DU_EFORMAT, "format: a single '%c'", c);
        }
        if (!format_field(f, (du_sv){text.s + i + 1, end - i - 1}, depth, to)) {
            return false;
        }
        i = end;
    }
    return du_jinja_within_limits(f->run, to, 0);
}

bool du_jinja_str_format(jrun *run, const jstr *format, const jcall *call, jvalue *out) {
    formatter f = {.run = run, .call = call, .markup = format->markup};
    du_str buf = {0};
    if (!du_jinja_spend(run, (int64_t)(format->len / 16)) ||
        !format_text_into(&f, j_view(format), 0, &buf)) {
        du_str_done(&buf);
        return false;
    }
    return du_jinja_str_take(run, &buf, format->markup, out);
}
