/* Filters on single values: text, numbers, defaults. What is left of | is `self`; the parameters
 * have the names of Jinja2's. The table of all filters is here. */
#include <ctype.h>

#include "text/jinja_int.h"
#include "text/jinja_text.h"

bool du_jinja_arg_int(jrun *run, const char *who, jvalue v, int64_t *out) {
    if (v.type == J_UNDEFINED) {
        return du_jinja_fail_undefined(run, v);
    }
    if (!j_is_int(v)) {
        return du_jinja_fail(run, DU_EFORMAT, "%s takes an integer, not %s", who,
                             du_jinja_type_name(v));
    }
    *out = j_as_int(v);
    return true;
}

/* An integer parameter that may be left out. */
static bool opt_int(jrun *run, const char *who, jvalue v, int64_t *out) {
    return !j_given(v) || du_jinja_arg_int(run, who, v, out);
}

static bool opt_truth(jrun *run, jvalue v, bool *out) {
    return !j_given(v) || du_jinja_truth(run, v, out);
}

/* ---- text ---------------------------------------------------------------------------------- */

static bool soft_case(jrun *run, jvalue self, du_case how, jvalue *out) {
    return du_jinja_soft_str(run, self, &self) && du_jinja_to_case(run, self.s, (int)how, out);
}

static bool f_upper(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return soft_case(run, self, CASE_UPPER, out);
}

static bool f_lower(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return soft_case(run, self, CASE_LOWER, out);
}

static bool f_capitalize(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return soft_case(run, self, CASE_CAPITALIZE, out);
}

/* What stands between the words of the filter title (not the method's). */
static bool is_gap(int32_t c) {
    return du_jinja_is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
}

static bool f_title(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    du_str buf = {0};
    size_t n, len;
    (void)call;
    if (!du_jinja_soft_str(run, self, &self) || !du_jinja_spend(run, (int64_t)(self.s->len / 8))) {
        return false;
    }
    const char *s = self.s->s;
    for (size_t i = 0; i < self.s->len; i += n) {
        if (is_gap(du_jinja_char_get(s + i, &n))) {
            du_str_add(&buf, s + i, n);
            continue;
        }
        size_t rest = i + n, end = rest;
        while (end < self.s->len && !is_gap(du_jinja_char_get(s + end, &len))) {
            end += len;
        }
        du_jinja_add_case(&buf, (du_sv){s + i, n}, CASE_UPPER);
        du_jinja_add_case(&buf, (du_sv){s + rest, end - rest}, CASE_LOWER);
        n = end - i;
    }
    return du_jinja_str_take(run, &buf, false, out);
}

static bool f_trim(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return du_jinja_soft_str(run, self, &self) &&
           du_jinja_strip(run, "trim", self, call->p[0], true, true, out);
}

static bool f_center(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    int64_t width = 80;
    return du_jinja_soft_str(run, self, &self) && opt_int(run, "center", call->p[0], &width) &&
           du_jinja_center(run, self.s, width, (jvalue){.type = J_MISSING}, out);
}

static bool f_replace(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue old, with;
    int64_t max = -1;
    if (call->p[2].type != J_NONE && !opt_int(run, "replace", call->p[2], &max)) {
        return false;
    }
    return du_jinja_to_str(run, self, &self) && du_jinja_to_str(run, call->p[0], &old) &&
           du_jinja_to_str(run, call->p[1], &with) &&
           du_jinja_replace(run, self.s, j_view(old.s), j_view(with.s), max, out);
}

/* width: a number of blanks, or the text to put in front of the lines. */
static bool f_indent(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue width = j_given(call->p[0]) ? call->p[0] : j_int(4), text, newline, indent = width;
    bool first = false, blank = false;
    jitems lines = {0};
    if (!opt_truth(run, call->p[1], &first) || !opt_truth(run, call->p[2], &blank) ||
        !du_jinja_str_borrow(run, "\n", 1, self.type == J_STR && self.s->markup, &newline) ||
        !du_jinja_binary(run, OP_ADD, self, newline, &text)) {
        return false;
    }
    if (width.type != J_STR) {
        int64_t n = 0;
        if (!du_jinja_arg_int(run, "indent", width, &n) ||
            !du_jinja_repeat(run, du_sv_of(" "), n, false, &indent)) {
            return false;
        }
    }
    if (!du_jinja_splitlines(run, text.s, false, &lines)) {
        return false;
    }
    du_str buf = {0};
    bool ok = true;
    for (int64_t i = 0; ok && i < lines.n; i++) {
        const jstr *line = lines.items[i].s;
        if (i) {
            du_str_add_c(&buf, '\n');
        }
        if (i ? blank || line->len > 0 : first) {
            du_str_add_sv(&buf, j_view(indent.s));
        }
        du_str_add_sv(&buf, j_view(line));
        ok = du_jinja_within_limits(run, &buf, 0);
    }
    if (!ok) {
        du_str_done(&buf);
        return false;
    }
    return du_jinja_str_take(run, &buf, text.s->markup, out);
}

/* The first n characters. */
static bool first_chars(jrun *run, jvalue s, int64_t n, jvalue *out) {
    jvalue missing = {.type = J_MISSING};
    return du_jinja_slice(run, s, missing, j_int(n), missing, out);
}

static bool f_truncate(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    int64_t length = 255, leeway = 5;
    bool kill_words = false;
    jvalue end = call->p[2], cut;
    if ((!j_given(end) && !du_jinja_str_borrow(run, "...", 3, false, &end)) ||
        !opt_int(run, "truncate", call->p[0], &length) ||
        !opt_truth(run, call->p[1], &kill_words) ||
        (call->p[3].type != J_NONE && !opt_int(run, "truncate", call->p[3], &leeway))) {
        return false;
    }
    int64_t n;
    if (!du_jinja_length(run, self, &n)) {
        return false;
    }
    bool fits = n >= 0 && leeway >= 0 && n - leeway <= length;
    if (end.type != J_STR || length < (int64_t)end.s->n_chars || leeway < 0 ||
        (!fits && self.type != J_STR)) {
        return du_jinja_fail(run, DU_EFORMAT,
                             "truncate takes a text, a length of at least its end, a leeway >= 0");
    }
    if (fits) {
        *out = self;
        return true;
    }
    if (!first_chars(run, self, length - (int64_t)end.s->n_chars, &cut)) {
        return false;
    }
    if (!kill_words) {
        const char *blank = memrchr(cut.s->s, ' ', cut.s->len);
        size_t len = blank ? (size_t)(blank - cut.s->s) : cut.s->len;
        if (!du_jinja_str_sub(run, cut.s, 0, len, &cut)) {
            return false;
        }
    }
    return du_jinja_binary(run, OP_ADD, cut, end, out);
}

static bool f_wordcount(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    int64_t words = 0;
    bool inside = false;
    size_t n;
    (void)call;
    if (!du_jinja_soft_str(run, self, &self) || !du_jinja_spend(run, (int64_t)(self.s->len / 8))) {
        return false;
    }
    for (size_t i = 0; i < self.s->len; i += n) {
        int32_t c = du_jinja_char_get(self.s->s + i, &n);
        bool word = c == '_' || du_jinja_is_alnum(c);
        words += word && !inside;
        inside = word;
    }
    *out = j_int(words);
    return true;
}

static bool f_escape(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return du_jinja_escape(run, self, out);
}

static bool f_forceescape(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return du_jinja_to_str(run, self, &self) && du_jinja_escape(run, self, out);
}

static bool f_safe(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return du_jinja_to_str(run, self, &self) &&
           du_jinja_str_borrow(run, self.s->s, self.s->len, true, out);
}

static bool f_string(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return du_jinja_soft_str(run, self, out);
}

static bool f_format(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue args;
    if (call->n_args && call->kwargs) {
        return du_jinja_fail(run, DU_EFORMAT,
                             "format takes arguments by position or by name, not both");
    }
    if (!du_jinja_soft_str(run, self, &self)) {
        return false;
    }
    if (call->kwargs) {
        args = j_dict(call->kwargs);
    } else if (!du_jinja_list_of(run, J_TUPLE, call->args, call->n_args, &args)) {
        return false;
    }
    return du_jinja_percent(run, self.s, args, out);
}

static void quote_url(du_str *to, du_sv text, bool query) {
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.s[i];
        if ((c < 0x80 && isalnum(c)) || memchr("_.-~", c, 4) || (c == '/' && !query)) {
            du_str_add_c(to, (char)c);
        } else if (c == ' ' && query) {
            du_str_add_c(to, '+');
        } else {
            du_str_addf(to, "%%%02X", c);
        }
    }
}

static bool add_url(jrun *run, du_str *to, jvalue v, bool query) {
    if (!du_jinja_to_str(run, v, &v)) {
        return false;
    }
    quote_url(to, j_view(v.s), query);
    return du_jinja_within_limits(run, to, 0);
}

/* A text, or pairs that become key=value&key=value. */
static bool f_urlencode(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    du_str buf = {0};
    jvalue list;
    bool ok = true;
    (void)call;
    if (self.type == J_STR || !du_jinja_iterable(self)) {
        ok = add_url(run, &buf, self, false);
    } else {
        ok = (self.type != J_DICT || du_jinja_view(run, self.dict, J_ITEMS, &self)) &&
             du_jinja_to_list(run, self, J_LIST, &list);
        for (int64_t i = 0; ok && i < list.list->n; i++) {
            jvalue pair;
            ok = du_jinja_to_list(run, list.list->items[i], J_LIST, &pair) &&
                 (pair.list->n == 2 ||
                  du_jinja_fail(run, DU_EFORMAT, "urlencode takes a text or pairs"));
            if (ok && i) {
                du_str_add_c(&buf, '&');
            }
            ok = ok && add_url(run, &buf, pair.list->items[0], true);
            du_str_add_c(&buf, '=');
            ok = ok && add_url(run, &buf, pair.list->items[1], true);
        }
    }
    if (!ok) {
        du_str_done(&buf);
        return false;
    }
    return du_jinja_str_take(run, &buf, false, out);
}

/* ---- the rest ------------------------------------------------------------------------------ */

static bool f_default(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    bool boolean = false, truth = true;
    if (!opt_truth(run, call->p[1], &boolean) || (boolean && !du_jinja_truth(run, self, &truth))) {
        return false;
    }
    *out = self;
    if (self.type != J_UNDEFINED && truth) {
        return true;
    }
    *out = call->p[0];
    return j_given(*out) || du_jinja_str_borrow(run, "", 0, false, out);
}

static bool f_length(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    *out = j_int(0);
    return du_jinja_length(run, self, &out->i) &&
           (out->i >= 0 ||
            du_jinja_fail(run, DU_EFORMAT, "%s has no length", du_jinja_type_name(self)));
}

/* The attribute alone: a key of a dict is none. */
static bool f_attr(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue name = call->p[0];
    bool found;
    if (name.type != J_STR) {
        return du_jinja_fail(run, DU_EFORMAT, "attr takes a name, not %s",
                             du_jinja_type_name(name));
    }
    if (self.type == J_UNDEFINED) {
        return du_jinja_fail_undefined(run, self);
    }
    return du_jinja_builtin_attr(run, self, j_view(name.s), &found, out) &&
           (found || du_jinja_undefined(run, NULL, self, name, out));
}

/* Sorted by name. */
static const jbuiltin filters[] = {
    {"abs", du_jinja_f_abs, "", 0},
    {"attr", f_attr, "name", 1},
    {"batch", du_jinja_f_batch, "linecount,fill_with", 1},
    {"capitalize", f_capitalize, "", 0},
    {"center", f_center, "width", 0},
    {"count", f_length, "", 0},
    {"d", f_default, "default_value,boolean", 0},
    {"default", f_default, "default_value,boolean", 0},
    {"dictsort", du_jinja_f_dictsort, "case_sensitive,by,reverse", 0},
    {"e", f_escape, "", 0},
    {"escape", f_escape, "", 0},
    {"filesizeformat", du_jinja_f_filesizeformat, "binary", 0},
    {"first", du_jinja_f_first, "", 0},
    {"float", du_jinja_f_float, "default", 0},
    {"forceescape", f_forceescape, "", 0},
    {"format", f_format, NULL, 0},
    {"groupby", du_jinja_f_groupby, "attribute,default,case_sensitive", 1},
    {"indent", f_indent, "width,first,blank", 0},
    {"int", du_jinja_f_int, "default,base", 0},
    {"items", du_jinja_f_items, "", 0},
    {"join", du_jinja_f_join, "d,attribute", 0},
    {"last", du_jinja_f_last, "", 0},
    {"length", f_length, "", 0},
    {"list", du_jinja_f_list, "", 0},
    {"lower", f_lower, "", 0},
    {"map", du_jinja_f_map, NULL, 0},
    {"max", du_jinja_f_max, "case_sensitive,attribute", 0},
    {"min", du_jinja_f_min, "case_sensitive,attribute", 0},
    {"pprint", NULL, NULL, 0},
    {"random", NULL, NULL, 0},
    {"reject", du_jinja_f_reject, NULL, 0},
    {"rejectattr", du_jinja_f_rejectattr, NULL, 0},
    {"replace", f_replace, "old,new,count", 2},
    {"reverse", du_jinja_f_reverse, "", 0},
    {"round", du_jinja_f_round, "precision,method", 0},
    {"safe", f_safe, "", 0},
    {"select", du_jinja_f_select, NULL, 0},
    {"selectattr", du_jinja_f_selectattr, NULL, 0},
    {"slice", du_jinja_f_slice, "slices,fill_with", 1},
    {"sort", du_jinja_f_sort, "reverse,case_sensitive,attribute", 0},
    {"string", f_string, "", 0},
    {"striptags", NULL, NULL, 0},
    {"sum", du_jinja_f_sum, "attribute,start", 0},
    {"title", f_title, "", 0},
    {"tojson", du_jinja_tojson, "ensure_ascii,indent,separators,sort_keys", 0},
    {"trim", f_trim, "chars", 0},
    {"truncate", f_truncate, "length,killwords,end,leeway", 0},
    {"unique", du_jinja_f_unique, "case_sensitive,attribute", 0},
    {"upper", f_upper, "", 0},
    {"urlencode", f_urlencode, "", 0},
    {"urlize", NULL, NULL, 0},
    {"wordcount", f_wordcount, "", 0},
    {"wordwrap", NULL, NULL, 0},
    {"xmlattr", NULL, NULL, 0},
};

const jbuiltin *du_jinja_filter_find(du_sv name) {
    return du_jinja_builtin_find(filters, sizeof filters / sizeof filters[0], name);
}
