/* Filters on sequences. An `attribute` is a path of names and numbers ("a.b.0"); text is compared
 * without case unless case_sensitive is given. */
#include "text/jinja_int.h"

static bool opt_truth(jrun *run, jvalue v, bool *out) {
    *out = false;
    return !j_given(v) || du_jinja_truth(run, v, out);
}

/* ---- attributes ---------------------------------------------------------------------------- */

/* One part of a path: a number when it is all digits. */
static bool path_part(jrun *run, du_sv part, jvalue *out) {
    int64_t v = 0;
    bool number = part.len > 0 && part.len < 19;
    for (size_t i = 0; number && i < part.len; i++) {
        number = part.s[i] >= '0' && part.s[i] <= '9';
        v = v * 10 + (part.s[i] - '0');
    }
    if (number) {
        *out = j_int(v);
        return true;
    }
    return du_jinja_str_borrow(run, part.s, part.len, false, out);
}

static bool get_step(jrun *run, jvalue key, jvalue fallback, jvalue *item) {
    if (!du_jinja_getitem(run, *item, key, item)) {
        return false;
    }
    if (item->type == J_UNDEFINED && j_given(fallback)) {
        *item = fallback;
    }
    return true;
}

static bool get_path(jrun *run, jvalue item, du_sv path, jvalue fallback, jvalue *out) {
    jvalue key;
    for (;;) {
        int64_t dot = du_sv_find(path, du_sv_of("."), 0);
        du_sv part = {path.s, dot < 0 ? path.len : (size_t)dot};
        if (!path_part(run, part, &key) || !get_step(run, key, fallback, &item)) {
            return false;
        }
        if (dot < 0) {
            *out = item;
            return true;
        }
        path = (du_sv){path.s + dot + 1, path.len - (size_t)dot - 1};
    }
}

/* What the attribute of an item is; the item itself when there is no attribute. A fallback stands
 * for what is undefined. */
bool du_jinja_get_attr(jrun *run, jvalue item, jvalue attr, jvalue fallback, jvalue *out) {
    *out = item;
    if (fallback.type == J_NONE) {
        fallback.type = J_MISSING;
    }
    if (!j_given(attr) || attr.type == J_NONE) {
        return true;
    }
    return attr.type == J_STR ? get_path(run, item, j_view(attr.s), fallback, out)
                              : get_step(run, attr, fallback, out);
}

bool du_jinja_ignore_case(jrun *run, jvalue v, bool case_sensitive, jvalue *out) {
    *out = v;
    return case_sensitive || v.type != J_STR || du_jinja_lower(run, v.s, out);
}

static const jvalue missing = {.type = J_MISSING};

/* ---- order --------------------------------------------------------------------------------- */

typedef struct {
    jvalue key, item;
} keyed;

/* Merges the sorted halves [0, mid) and [mid, n) of `in`; equal ones keep their order. */
static bool merge(jrun *run, const keyed *in, int64_t mid, int64_t n, bool reverse, keyed *out) {
    int64_t a = 0, b = mid;
    for (int64_t i = 0; i < n; i++) {
        bool right = a == mid;
        if (!right && b < n) {
            jvalue x = reverse ? in[a].key : in[b].key, y = reverse ? in[b].key : in[a].key;
            if (!du_jinja_compare(run, OP_LT, x, y, &right)) {
                return false;
            }
        }
        out[i] = right ? in[b++] : in[a++];
    }
    return true;
}

static bool sort_keyed(jrun *run, keyed *items, int64_t n, bool reverse) {
    keyed *spare = du_jinja_run_alloc(run, n, sizeof *spare), *from = items, *to = spare;
    if (!spare) {
        return false;
    }
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t at = 0; at < n; at += 2 * width) {
            int64_t mid = at + width < n ? width : n - at;
            int64_t end = at + 2 * width < n ? 2 * width : n - at;
            if (!merge(run, from + at, mid, end, reverse, to + at)) {
                return false;
            }
        }
        keyed *swap = from;
        from = to;
        to = swap;
    }
    if (from != items) {
        memcpy(items, from, (size_t)n * sizeof *items);
    }
    return true;
}

/* The values of "a,b.c" as a list, which is compared item by item. */
static bool sort_key(jrun *run, jvalue item, jvalue attr, bool case_sensitive, jvalue *out) {
    jitems parts = {0};
    jvalue v;
    if (attr.type != J_STR) {
        return du_jinja_get_attr(run, item, attr, missing, &v) &&
               du_jinja_ignore_case(run, v, case_sensitive, &v) && du_jinja_push(run, &parts, v) &&
               du_jinja_list_of(run, J_LIST, parts.items, parts.n, out);
    }
    du_sv rest = j_view(attr.s);
    for (bool more = true; more;) {
        int64_t comma = du_sv_find(rest, du_sv_of(","), 0);
        du_sv path = {rest.s, comma < 0 ? rest.len : (size_t)comma};
        if (!get_path(run, item, path, missing, &v) ||
            !du_jinja_ignore_case(run, v, case_sensitive, &v) || !du_jinja_push(run, &parts, v)) {
            return false;
        }
        more = comma >= 0;
        if (more) {
            rest = (du_sv){rest.s + comma + 1, rest.len - (size_t)comma - 1};
        }
    }
    return du_jinja_list_of(run, J_LIST, parts.items, parts.n, out);
}

static bool keyed_items(jrun *run, const keyed *from, int64_t n, jvalue *out) {
    jvalue *items;
    if (!du_jinja_list_new(run, J_LIST, n, out, &items)) {
        return false;
    }
    for (int64_t i = 0; i < n; i++) {
        items[i] = from[i].item;
    }
    return true;
}

bool du_jinja_f_sort(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    bool reverse, case_sensitive;
    jvalue list;
    if (!opt_truth(run, call->p[0], &reverse) || !opt_truth(run, call->p[1], &case_sensitive) ||
        !du_jinja_to_list(run, self, J_LIST, &list)) {
        return false;
    }
    int64_t n = list.list->n;
    keyed *items = du_jinja_run_alloc(run, n, sizeof *items);
    if (!items) {
        return false;
    }
    for (int64_t i = 0; i < n; i++) {
        items[i].item = list.list->items[i];
        if (!sort_key(run, items[i].item, call->p[2], case_sensitive, &items[i].key)) {
            return false;
        }
    }
    return sort_keyed(run, items, n, reverse) && keyed_items(run, items, n, out);
}

bool du_jinja_sorted_entries(jrun *run, const jdict *d, const jentry **out) {
    keyed *items = du_jinja_run_alloc(run, d->n, sizeof *items);
    jentry *entries = du_jinja_run_alloc(run, d->n, sizeof *entries);
    if (!items || !entries) {
        return false;
    }
    for (int64_t i = 0; i < d->n; i++) {
        items[i] = (keyed){d->entries[i].key, d->entries[i].value};
    }
    if (!sort_keyed(run, items, d->n, false)) {
        return false;
    }
    for (int64_t i = 0; i < d->n; i++) {
        entries[i] = (jentry){items[i].key, items[i].item};
    }
    *out = entries;
    return true;
}

bool du_jinja_f_dictsort(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    bool case_sensitive, reverse, by_value = j_str_is(call->p[1], "value");
    if (!opt_truth(run, call->p[0], &case_sensitive) || !opt_truth(run, call->p[2], &reverse)) {
        return false;
    }
    if (j_given(call->p[1]) && !by_value && !j_str_is(call->p[1], "key")) {
        return du_jinja_fail(run, DU_EFORMAT, "dictsort sorts by \"key\" or \"value\"");
    }
    if (self.type != J_DICT) {
        return self.type == J_UNDEFINED
                   ? du_jinja_fail_undefined(run, self)
                   : du_jinja_fail(run, DU_EFORMAT, "dictsort takes a dict, not %s",
                                   du_jinja_type_name(self));
    }
    const jdict *d = self.dict;
    keyed *items = du_jinja_run_alloc(run, d->n, sizeof *items);
    if (!items) {
        return false;
    }
    for (int64_t i = 0; i < d->n; i++) {
        const jentry *e = &d->entries[i];
        if (!du_jinja_pair(run, e->key, e->value, &items[i].item) ||
            !du_jinja_ignore_case(run, by_value ? e->value : e->key, case_sensitive,
                                  &items[i].key)) {
            return false;
        }
    }
    return sort_keyed(run, items, d->n, reverse) && keyed_items(run, items, d->n, out);
}

/* Least or greatest: the first of equal ones. */
static bool extreme(jrun *run, jvalue self, const jcall *call, jop better, jvalue *out) {
    bool case_sensitive, more, first = true;
    jiter *it;
    jvalue item, key, best = missing;
    if (!opt_truth(run, call->p[0], &case_sensitive) || !du_jinja_iter(run, self, &it)) {
        return false;
    }
    for (;; first = false) {
        if (!du_jinja_next(run, it, &item, &more)) {
            return false;
        }
        if (!more) {
            break;
        }
        bool is_better = first;
        if (!du_jinja_get_attr(run, item, call->p[1], missing, &key) ||
            !du_jinja_ignore_case(run, key, case_sensitive, &key) ||
            (!first && !du_jinja_compare(run, better, key, best, &is_better))) {
            return false;
        }
        if (is_better) {
            best = key;
            *out = item;
        }
    }
    return !first || du_jinja_undefined(run, "the sequence is empty", missing, missing, out);
}

bool du_jinja_f_min(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return extreme(run, self, call, OP_LT, out);
}

bool du_jinja_f_max(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return extreme(run, self, call, OP_GT, out);
}

static bool group_tuple(jrun *run, jvalue key, const keyed *items, int64_t n, jvalue *out) {
    jvalue list;
    jlist *group = du_jinja_run_alloc(run, 1, sizeof *group);
    if (!group || !keyed_items(run, items, n, &list) || !du_jinja_pair(run, key, list, out)) {
        return false;
    }
    *group = (jlist){.items = out->list->items, .n = 2, .group = true};
    out->list = group;
    return true;
}

/* Sorted by the attribute; neighbours with equal ones make a group, named by its first item's. */
bool du_jinja_f_groupby(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    bool case_sensitive;
    jvalue list, name, group;
    jitems groups = {0};
    if (!opt_truth(run, call->p[2], &case_sensitive) ||
        !du_jinja_to_list(run, self, J_LIST, &list)) {
        return false;
    }
    int64_t n = list.list->n;
    keyed *items = du_jinja_run_alloc(run, n, sizeof *items);
    if (!items) {
        return false;
    }
    for (int64_t i = 0; i < n; i++) {
        items[i].item = list.list->items[i];
        if (!du_jinja_get_attr(run, items[i].item, call->p[0], call->p[1], &items[i].key) ||
            !du_jinja_ignore_case(run, items[i].key, case_sensitive, &items[i].key)) {
            return false;
        }
    }
    if (!sort_keyed(run, items, n, false)) {
        return false;
    }
    for (int64_t i = 0, end; i < n; i = end) {
        bool same = true;
        for (end = i + 1; end < n; end++) {
            if (!du_jinja_equal(run, items[i].key, items[end].key, &same)) {
                return false;
            }
            if (!same) {
                break;
            }
        }
        if (!du_jinja_get_attr(run, items[i].item, call->p[0], call->p[1], &name) ||
            !group_tuple(run, name, items + i, end - i, &group) ||
            !du_jinja_push(run, &groups, group)) {
            return false;
        }
    }
    return du_jinja_list_of(run, J_LIST, groups.items, groups.n, out);
}

/* ---- whole sequences ----------------------------------------------------------------------- */

bool du_jinja_f_list(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return du_jinja_to_list(run, self, J_LIST, out);
}

bool du_jinja_f_first(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jiter *it;
    bool more;
    (void)call;
    if (!du_jinja_iter(run, self, &it) || !du_jinja_next(run, it, out, &more)) {
        return false;
    }
    return more || du_jinja_undefined(run, "the sequence is empty", missing, missing, out);
}

bool du_jinja_f_last(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue list;
    (void)call;
    if (self.type == J_ITER) {
        return du_jinja_fail(run, DU_EFORMAT, "last needs a sequence, make a list first");
    }
    if (self.type == J_STR && self.s->len) {
        return du_jinja_getitem(run, self, j_int(-1), out);
    }
    if (!du_jinja_to_list(run, self, J_LIST, &list)) {
        return false;
    }
    if (list.list->n) {
        *out = list.list->items[list.list->n - 1];
        return true;
    }
    return du_jinja_undefined(run, "the sequence is empty", missing, missing, out);
}

/* Text gives text; sequences an iterator from the end. */
bool du_jinja_f_reverse(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue list, reversed;
    (void)call;
    if (self.type == J_STR) {
        return du_jinja_slice(run, self, missing, missing, j_int(-1), out);
    }
    if (self.type != J_ITER) {
        return du_jinja_reversed(run, self, out);
    }
    return du_jinja_to_list(run, self, J_LIST, &list) && du_jinja_reversed(run, list, &reversed) &&
           du_jinja_to_list(run, reversed, J_LIST, out);
}

bool du_jinja_f_join(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jiter *it;
    jvalue sep = call->p[0], item;
    bool more, first = true;
    if ((j_given(sep) && !du_jinja_to_str(run, sep, &sep)) || !du_jinja_iter(run, self, &it)) {
        return false;
    }
    du_str buf = {0};
    for (bool ok = true;; first = false) {
        ok = du_jinja_next(run, it, &item, &more);
        if (ok && !more) {
            return du_jinja_str_take(run, &buf, false, out);
        }
        ok = ok && du_jinja_get_attr(run, item, call->p[1], missing, &item);
        if (ok && !first && j_given(sep)) {
            du_str_add_sv(&buf, j_view(sep.s));
        }
        if (!ok || !du_jinja_print(run, &buf, item) || !du_jinja_within_limits(run, &buf, 0)) {
            du_str_done(&buf);
            return false;
        }
    }
}

bool du_jinja_f_sum(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jiter *it;
    jvalue item;
    bool more;
    *out = j_given(call->p[1]) ? call->p[1] : j_int(0);
    if (out->type == J_STR) {
        return du_jinja_fail(run, DU_EFORMAT, "sum does not add texts, join does");
    }
    if (!du_jinja_iter(run, self, &it)) {
        return false;
    }
    for (;;) {
        if (!du_jinja_next(run, it, &item, &more)) {
            return false;
        }
        if (!more) {
            return true;
        }
        if (!du_jinja_get_attr(run, item, call->p[0], missing, &item) ||
            !du_jinja_binary(run, OP_ADD, *out, item, out)) {
            return false;
        }
    }
}

/* ---- rows --------------------------------------------------------------------------------- */

/* A list that was made at once but is given as a lazy sequence. */
static bool as_iter(jrun *run, const jitems *items, jvalue *out) {
    jvalue list;
    jiter *it;
    if (!du_jinja_list_of(run, J_LIST, items->items, items->n, &list) ||
        !du_jinja_iter(run, list, &it)) {
        return false;
    }
    it->type_name = "generator";
    *out = (jvalue){.type = J_ITER, .iter = it};
    return true;
}

/* items[from, from + n) and `fill` up to n_whole as one row. */
static bool push_row(jrun *run, jitems *rows, const jlist *list, int64_t from, int64_t n,
                     int64_t n_whole, jvalue fill) {
    jvalue row, *items;
    bool filled = j_given(fill) && fill.type != J_NONE && n < n_whole;
    if (!du_jinja_list_new(run, J_LIST, filled ? n_whole : n, &row, &items)) {
        return false;
    }
    for (int64_t i = 0; i < row.list->n; i++) {
        items[i] = i < n ? list->items[from + i] : fill;
    }
    return du_jinja_push(run, rows, row);
}

/* Rows of linecount items. */
bool du_jinja_f_batch(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue list;
    int64_t width;
    jitems rows = {0};
    if (!du_jinja_arg_int(run, "batch", call->p[0], &width) ||
        !du_jinja_to_list(run, self, J_LIST, &list)) {
        return false;
    }
    int64_t total = list.list->n;
    if (width == 0 && total && !push_row(run, &rows, list.list, 0, 0, 0, missing)) {
        return false;
    }
    width = width < 1 ? total : width;
    for (int64_t i = 0, n; i < total; i += n) {
        n = total - i < width ? total - i : width;
        if (!push_row(run, &rows, list.list, i, n, width, call->p[1])) {
            return false;
        }
    }
    return as_iter(run, &rows, out);
}

/* `slices` rows of nearly equal length, the longer ones first. */
bool du_jinja_f_slice(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue list;
    int64_t slices, at = 0;
    jitems rows = {0};
    if (!du_jinja_arg_int(run, "slice", call->p[0], &slices) ||
        !du_jinja_to_list(run, self, J_LIST, &list)) {
        return false;
    }
    if (slices == 0) {
        return du_jinja_fail(run, DU_EFORMAT, "slice into no rows");
    }
    int64_t n = list.list->n, each = slices > 0 ? n / slices : 0;
    int64_t n_longer = slices > 0 ? n % slices : 0;
    for (int64_t i = 0; i < slices; i++) {
        int64_t width = each + (i < n_longer);
        if (!du_jinja_spend(run, 1) || !push_row(run, &rows, list.list, at, width,
                                                 i < n_longer ? width : width + 1, call->p[1])) {
            return false;
        }
        at += width;
    }
    return as_iter(run, &rows, out);
}
