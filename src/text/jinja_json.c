/* The filter tojson: JSON as Python's json.dumps(value, ensure_ascii=, indent=, separators=,
 * sort_keys=) writes it, with the defaults of Hugging Face (non-ASCII text stays). */
#include <math.h>

#include "text/jinja_int.h"
#include "text/jinja_text.h"

typedef struct {
    jrun *run;
    du_str *to;
    bool ascii, sort_keys;
    bool pretty;  /* each item on its own line, */
    du_sv indent; /* after this per level */
    du_sv item_sep, key_sep;
} writer;

static void add_string(const writer *w, du_sv s) {
    du_str_add_c(w->to, '"');
    size_t n;
    for (size_t i = 0; i < s.len; i += n) {
        int32_t c = du_jinja_char_get(s.s + i, &n);
        const char *named = c == '"'    ? "\\\""
                            : c == '\\' ? "\\\\"
                            : c == '\n' ? "\\n"
                            : c == '\r' ? "\\r"
                            : c == '\t' ? "\\t"
                            : c == '\b' ? "\\b"
                            : c == '\f' ? "\\f"
                                        : NULL;
        if (named) {
            du_str_add_s(w->to, named);
        } else if (c >= 0x10000 && w->ascii) {
            du_str_addf(w->to, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
                        0xdc00 + ((c - 0x10000) & 0x3ff));
        } else if (c < 0x20 || (c > 0x7e && w->ascii)) {
            du_str_addf(w->to, "\\u%04x", c);
        } else {
            du_str_add(w->to, s.s + i, n);
        }
    }
    du_str_add_c(w->to, '"');
}

static void add_float(const writer *w, double f) {
    if (isnan(f) || isinf(f)) {
        du_str_add_s(w->to, isnan(f) ? "NaN" : f < 0 ? "-Infinity" : "Infinity");
    } else {
        du_jinja_print_float(w->to, f);
    }
}

static void new_line(const writer *w, int depth) {
    if (w->pretty) {
        du_str_add_c(w->to, '\n');
        for (int i = 0; i < depth; i++) {
            du_str_add_sv(w->to, w->indent);
        }
    }
}

static bool add_value(const writer *w, jvalue v, int depth);

static bool add_list(const writer *w, const jlist *list, int depth) {
    du_str_add_c(w->to, '[');
    for (int64_t i = 0; i < list->n; i++) {
        if (i) {
            du_str_add_sv(w->to, w->item_sep);
        }
        new_line(w, depth + 1);
        if (!add_value(w, list->items[i], depth + 1)) {
            return false;
        }
    }
    if (list->n) {
        new_line(w, depth);
    }
    du_str_add_c(w->to, ']');
    return true;
}

static bool add_key(const writer *w, jvalue key) {
    switch (key.type) {
    case J_STR:
        add_string(w, j_view(key.s));
        return true;
    case J_NONE:
        du_str_add_s(w->to, "\"null\"");
        return true;
    case J_BOOL:
        du_str_add_s(w->to, key.b ? "\"true\"" : "\"false\"");
        return true;
    case J_INT:
        du_str_addf(w->to, "\"%lld\"", (long long)key.i);
        return true;
    case J_FLOAT:
        du_str_add_c(w->to, '"');
        add_float(w, key.f);
        du_str_add_c(w->to, '"');
        return true;
    default:
        return du_jinja_fail(w->run, DU_EFORMAT, "%s cannot be a key in JSON",
                             du_jinja_type_name(key));
    }
}

static bool add_dict(const writer *w, const jdict *d, int depth) {
    const jentry *entries = d->entries;
    if (w->sort_keys && !du_jinja_sorted_entries(w->run, d, &entries)) {
        return false;
    }
    du_str_add_c(w->to, '{');
    for (int64_t i = 0; i < d->n; i++) {
        if (i) {
            du_str_add_sv(w->to, w->item_sep);
        }
        new_line(w, depth + 1);
        if (!add_key(w, entries[i].key)) {
            return false;
        }
        du_str_add_sv(w->to, w->key_sep);
        if (!add_value(w, entries[i].value, depth + 1)) {
            return false;
        }
    }
    if (d->n) {
        new_line(w, depth);
    }
    du_str_add_c(w->to, '}');
    return true;
}

static bool add_value(const writer *w, jvalue v, int depth) {
    if (!du_jinja_within_limits(w->run, w->to, depth)) {
        return false;
    }
    switch (v.type) {
    case J_NONE:
        du_str_add_s(w->to, "null");
        return true;
    case J_BOOL:
        du_str_add_s(w->to, v.b ? "true" : "false");
        return true;
    case J_INT:
        du_str_addf(w->to, "%lld", (long long)v.i);
        return true;
    case J_FLOAT:
        add_float(w, v.f);
        return du_jinja_spend(w->run, J_FLOAT_STEPS);
    case J_STR:
        add_string(w, j_view(v.s));
        return du_jinja_spend(w->run, (int64_t)(v.s->len / 16));
    case J_LIST:
    case J_TUPLE:
        return add_list(w, v.list, depth);
    case J_DICT:
        return add_dict(w, v.dict, depth);
    default:
        return du_jinja_fail(w->run, DU_EFORMAT, "%s cannot be written as JSON",
                             du_jinja_type_name(v));
    }
}

/* indent: a number of blanks or a text; none: all on one line. */
static bool read_indent(writer *w, jvalue indent) {
    jvalue blanks;
    if (!j_given(indent) || indent.type == J_NONE) {
        return true;
    }
    w->pretty = true;
    if (indent.type == J_STR) {
        w->indent = j_view(indent.s);
        return true;
    }
    if (!j_is_int(indent)) {
        return du_jinja_fail(w->run, DU_EFORMAT, "tojson: indent is %s, neither number nor text",
                             du_jinja_type_name(indent));
    }
    if (!du_jinja_repeat(w->run, du_sv_of(" "), j_as_int(indent), false, &blanks)) {
        return false;
    }
    w->indent = j_view(blanks.s);
    return true;
}

static bool read_separators(writer *w, jvalue separators) {
    w->item_sep = du_sv_of(w->pretty ? "," : ", ");
    w->key_sep = du_sv_of(": ");
    if (!j_given(separators) || separators.type == J_NONE) {
        return true;
    }
    if ((separators.type != J_TUPLE && separators.type != J_LIST) || separators.list->n != 2 ||
        separators.list->items[0].type != J_STR || separators.list->items[1].type != J_STR) {
        return du_jinja_fail(w->run, DU_EFORMAT, "tojson: separators are not two texts");
    }
    w->item_sep = j_view(separators.list->items[0].s);
    w->key_sep = j_view(separators.list->items[1].s);
    return true;
}

/* Parameters: ensure_ascii, indent, separators, sort_keys. */
bool du_jinja_tojson(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    du_str buf = {0};
    writer w = {.run = run, .to = &buf};
    if ((j_given(call->p[0]) && !du_jinja_truth(run, call->p[0], &w.ascii)) ||
        !read_indent(&w, call->p[1]) || !read_separators(&w, call->p[2]) ||
        (j_given(call->p[3]) && !du_jinja_truth(run, call->p[3], &w.sort_keys)) ||
        !add_value(&w, self, 0)) {
        du_str_done(&buf);
        return false;
    }
    return du_jinja_str_take(run, &buf, false, out);
}
