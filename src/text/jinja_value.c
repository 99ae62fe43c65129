/* Values of the Jinja interpreter: memory, strings, lists, truth, equality and order as in Python.
 *
 * Everything made while rendering lies in one pool and lives until the rendering ends; values are
 * never changed after they became visible (only namespaces, loops, cyclers and iterators are), so
 * they are copied by copying the jvalue. A string that grows by appending keeps room behind its
 * bytes: a longer string may share the bytes of the shorter one, which keeps its own length. */
#include <math.h>

#include "text/jinja_int.h"
#include "text/jinja_text.h"

/* ---- memory -------------------------------------------------------------------------------- */

enum { BLOCK_BYTES = 32 << 10 };

void *du_jinja_alloc(jpool *pool, size_t n, size_t size_bytes) {
    size_t n_bytes;
    if (!du_mul_size(n, size_bytes, &n_bytes) || !du_add_size(n_bytes, 15, &n_bytes)) {
        return NULL;
    }
    n_bytes = n_bytes < 16 ? 16 : n_bytes & ~(size_t)15;
    if (!du_add_size(pool->n_bytes, n_bytes, &pool->n_bytes) ||
        (pool->max_bytes && pool->n_bytes > pool->max_bytes)) {
        pool->n_bytes = SIZE_MAX;
        return NULL;
    }
    char *p;
    if (n_bytes > BLOCK_BYTES / 4) {
        p = du_arena_alloc(pool->arena, n_bytes, 1);
    } else {
        if ((size_t)(pool->end - pool->at) < n_bytes) {
            pool->at = du_arena_alloc(pool->arena, BLOCK_BYTES, 1);
            pool->end = pool->at ? pool->at + BLOCK_BYTES : NULL;
        }
        p = pool->at;
        pool->at = p ? p + n_bytes : NULL;
    }
    if (p) {
        memset(p, 0, n_bytes);
    }
    return p;
}

void *du_jinja_run_alloc(jrun *run, int64_t n, size_t size_bytes) {
    void *p = du_jinja_alloc(&run->pool, (size_t)n, size_bytes);
    if (!p && run->pool.n_bytes == SIZE_MAX) {
        du_jinja_fail(run, DU_ELIMIT, "the template takes more than %zu bytes of memory",
                      run->pool.max_bytes);
    } else if (!p) {
        du_jinja_fail_memory(run);
    }
    return p;
}

bool du_jinja_fail_memory(jrun *run) {
    run->err = du_fail_nomem(run->diag, "rendering a template");
    return false;
}

/* ---- strings ------------------------------------------------------------------------------- */

static bool str_new(jrun *run, const char *s, size_t len, size_t n_chars, bool markup, jgrow *grow,
                    jvalue *out) {
    jstr *str = du_jinja_run_alloc(run, 1, sizeof *str);
    if (!str) {
        return false;
    }
    *str = (jstr){.s = s, .len = len, .n_chars = n_chars, .markup = markup, .grow = grow};
    *out = j_str(str);
    return true;
}

bool du_jinja_str_borrow(jrun *run, const char *s, size_t len, bool markup, jvalue *out) {
    return du_jinja_spend(run, (int64_t)(len / 64)) &&
           str_new(run, s, len, du_jinja_count_chars((du_sv){s, len}), markup, NULL, out);
}

bool du_jinja_str_copy(jrun *run, const char *s, size_t len, jvalue *out) {
    char *copy = du_jinja_run_alloc(run, (int64_t)len, 1);
    if (!copy) {
        return false;
    }
    memcpy(copy, s, len);
    return du_jinja_str_borrow(run, copy, len, false, out);
}

bool du_jinja_str_sub(jrun *run, const jstr *s, size_t from, size_t len, jvalue *out) {
    size_t n_chars = s->len == s->n_chars ? len : du_jinja_count_chars((du_sv){s->s + from, len});
    return str_new(run, s->s + from, len, n_chars, s->markup, NULL, out);
}

bool du_jinja_str_take(jrun *run, du_str *s, bool markup, jvalue *out) {
    bool ok = !s->failed || du_jinja_fail_memory(run);
    char *copy = ok ? du_jinja_run_alloc(run, (int64_t)s->len, 1) : NULL;
    if (copy) {
        memcpy(copy, du_str_get(s), s->len);
        ok = du_jinja_str_borrow(run, copy, s->len, markup, out);
    }
    du_str_done(s);
    return ok && copy;
}

bool du_jinja_str_append(jrun *run, const jstr *a, const jstr *b, jvalue *out) {
    enum { GROW_FROM = 256 }; /* bytes; shorter texts are just copied */
    size_t len = a->len + b->len, n_chars = a->n_chars + b->n_chars;
    bool markup = a->markup && b->markup;
    if (!du_jinja_spend(run, (int64_t)(b->len / 64))) {
        return false;
    }
    jgrow *grow = a->grow;
    if (grow && a->s + a->len == grow->start + grow->used && grow->cap - grow->used >= b->len) {
        memcpy(grow->start + grow->used, b->s, b->len);
        grow->used += b->len;
        return str_new(run, a->s, len, n_chars, markup, grow, out);
    }
    if (!du_jinja_spend(run, (int64_t)(a->len / 64))) {
        return false;
    }
    size_t cap = len < GROW_FROM ? len : len * 2;
    char *bytes = du_jinja_run_alloc(run, (int64_t)cap, 1);
    if (!bytes) {
        return false;
    }
    memcpy(bytes, a->s, a->len);
    memcpy(bytes + a->len, b->s, b->len);
    grow = NULL;
    if (cap > len) {
        grow = du_jinja_run_alloc(run, 1, sizeof *grow);
        if (!grow) {
            return false;
        }
        *grow = (jgrow){.used = len, .cap = cap, .start = bytes};
    }
    return str_new(run, bytes, len, n_chars, markup, grow, out);
}

bool du_jinja_escape(jrun *run, jvalue v, jvalue *out) {
    if (v.type == J_STR && v.s->markup) {
        *out = v;
        return true;
    }
    jvalue text;
    if (!du_jinja_to_str(run, v, &text)) {
        return false;
    }
    du_str buf = {0};
    for (size_t i = 0; i < text.s->len; i++) {
        char c = text.s->s[i];
        switch (c) {
        case '&':
            du_str_add_s(&buf, "&amp;");
            break;
        case '<':
            du_str_add_s(&buf, "&lt;");
            break;
        case '>':
            du_str_add_s(&buf, "&gt;");
            break;
        case '\'':
            du_str_add_s(&buf, "&#39;");
            break;
        case '"':
            du_str_add_s(&buf, "&#34;");
            break;
        default:
            du_str_add_c(&buf, c);
        }
    }
    return du_jinja_str_take(run, &buf, true, out);
}

/* ---- other values -------------------------------------------------------------------------- */

bool du_jinja_list_of(jrun *run, jtype type, const jvalue *items, int64_t n, jvalue *out) {
    jlist *list = du_jinja_run_alloc(run, 1, sizeof *list);
    if (!list) {
        return false;
    }
    *list = (jlist){.items = items, .n = n};
    *out = (jvalue){.type = type, .list = list};
    return true;
}

bool du_jinja_list_new(jrun *run, jtype type, int64_t n, jvalue *out, jvalue **items) {
    *items = du_jinja_run_alloc(run, n, sizeof **items);
    return *items && du_jinja_list_of(run, type, *items, n, out);
}

bool du_jinja_push(jrun *run, jitems *items, jvalue v) {
    if (items->n == items->cap) {
        int64_t cap = items->cap * 2 + 4;
        jvalue *more = du_jinja_run_alloc(run, cap, sizeof *more);
        if (!more) {
            return false;
        }
        if (items->n) {
            memcpy(more, items->items, (size_t)items->n * sizeof *more);
        }
        items->items = more;
        items->cap = cap;
    }
    items->items[items->n++] = v;
    return true;
}

bool du_jinja_undefined(jrun *run, const char *hint, jvalue object, jvalue name, jvalue *out) {
    jundef *undef = du_jinja_run_alloc(run, 1, sizeof *undef);
    if (!undef) {
        return false;
    }
    *undef = (jundef){.hint = hint, .object = object, .name = name};
    *out = (jvalue){.type = J_UNDEFINED, .undef = undef};
    return true;
}

bool du_jinja_fail_undefined(jrun *run, jvalue v) {
    const jundef *undef = v.undef;
    if (!undef) {
        return du_jinja_fail(run, DU_EFORMAT, "the value is undefined");
    }
    if (undef->hint) {
        return du_jinja_fail(run, DU_EFORMAT, "%s", undef->hint);
    }
    du_str name = {0};
    bool ok = du_jinja_repr(run, &name, undef->name);
    if (ok && !j_given(undef->object)) {
        du_jinja_fail(run, DU_EFORMAT, "%.200s is undefined", du_str_get(&name));
    } else if (ok) {
        du_jinja_fail(run, DU_EFORMAT, "%s has no %s %.200s", du_jinja_type_name(undef->object),
                      undef->name.type == J_STR ? "attribute" : "element", du_str_get(&name));
    }
    du_str_done(&name);
    return false;
}

const char *du_jinja_type_name(jvalue v) {
    switch (v.type) {
    case J_MISSING:
    case J_UNDEFINED:
        return "Undefined";
    case J_NONE:
        return "None";
    case J_BOOL:
        return "bool";
    case J_INT:
        return "int";
    case J_FLOAT:
        return "float";
    case J_STR:
        return v.s->markup ? "Markup" : "str";
    case J_LIST:
        return "list";
    case J_TUPLE:
        return "tuple";
    case J_DICT:
        return "dict";
    case J_VIEW:
        return v.view->kind == J_KEYS     ? "dict_keys"
               : v.view->kind == J_VALUES ? "dict_values"
                                          : "dict_items";
    case J_RANGE:
        return "range";
    case J_ITER:
        return v.iter->type_name;
    case J_NAMESPACE:
        return "Namespace";
    case J_LOOP:
        return "LoopContext";
    case J_MACRO:
        return "Macro";
    case J_FUNC:
        return "function";
    case J_CYCLER:
        return "Cycler";
    case J_JOINER:
        return "Joiner";
    }
    return "?";
}

bool du_jinja_length(jrun *run, jvalue v, int64_t *out) {
    switch (v.type) {
    case J_UNDEFINED:
        *out = 0;
        return true;
    case J_STR:
        *out = (int64_t)v.s->n_chars;
        return true;
    case J_LIST:
    case J_TUPLE:
        *out = v.list->n;
        return true;
    case J_DICT:
        *out = v.dict->n;
        return true;
    case J_VIEW:
        *out = v.view->dict->n;
        return true;
    case J_RANGE:
        *out = v.range->n;
        return true;
    case J_LOOP:
        return du_jinja_loop_length(run, v.loop, out);
    default:
        *out = -1;
        return true;
    }
}

bool du_jinja_truth(jrun *run, jvalue v, bool *out) {
    int64_t n;
    switch (v.type) {
    case J_MISSING:
    case J_UNDEFINED:
    case J_NONE:
        *out = false;
        return true;
    case J_BOOL:
        *out = v.b;
        return true;
    case J_INT:
        *out = v.i != 0;
        return true;
    case J_FLOAT:
        *out = v.f != 0;
        return true;
    default:
        if (!du_jinja_length(run, v, &n)) {
            return false;
        }
        *out = n != 0; /* what has no length is true */
        return true;
    }
}

/* ---- equality and order -------------------------------------------------------------------- */

/* One level deeper into a value. */
static bool deeper(jrun *run, int *depth) {
    if (++*depth > J_VALUE_DEPTH) {
        return du_jinja_fail(run, DU_ELIMIT, "a value is nested more than %d levels deep",
                             J_VALUE_DEPTH);
    }
    return du_jinja_spend(run, 1);
}

/* -1, 0, 1; 2 when one is not a number. Exact, also beyond 2^53. */
static int order_int_float(int64_t i, double f) {
    if (isnan(f)) {
        return 2;
    }
    if (f >= 9223372036854775808.0) {
        return -1;
    }
    if (f < -9223372036854775808.0) {
        return 1;
    }
    int64_t whole = (int64_t)f;
    if (i != whole) {
        return i < whole ? -1 : 1;
    }
    double rest = f - (double)whole;
    return rest > 0 ? -1 : rest < 0 ? 1 : 0;
}

static int order_numbers(jvalue a, jvalue b) {
    if (a.type == J_FLOAT && b.type == J_FLOAT) {
        return a.f < b.f ? -1 : a.f > b.f ? 1 : a.f == b.f ? 0 : 2;
    }
    if (a.type == J_FLOAT) {
        int o = order_int_float(j_as_int(b), a.f);
        return o == 2 ? 2 : -o;
    }
    if (b.type == J_FLOAT) {
        return order_int_float(j_as_int(a), b.f);
    }
    int64_t x = j_as_int(a), y = j_as_int(b);
    return x < y ? -1 : x > y;
}

/* UTF-8 has the order of its code points. */
static int order_strings(const jstr *a, const jstr *b) {
    size_t n = a->len < b->len ? a->len : b->len;
    int o = n ? memcmp(a->s, b->s, n) : 0;
    return o ? o : a->len < b->len ? -1 : a->len > b->len;
}

static bool equal_at(jrun *run, jvalue a, jvalue b, int depth, bool *out);

static bool equal_items(jrun *run, const jlist *a, const jlist *b, int depth, bool *out) {
    *out = a->n == b->n;
    for (int64_t i = 0; *out && i < a->n; i++) {
        if (!equal_at(run, a->items[i], b->items[i], depth, out)) {
            return false;
        }
    }
    return true;
}

static bool equal_dicts(jrun *run, const jdict *a, jdict *b, int depth, bool *out) {
    *out = a->n == b->n;
    for (int64_t i = 0; *out && i < a->n; i++) {
        jvalue *other;
        if (!du_jinja_dict_find(run, b, a->entries[i].key, &other)) {
            return false;
        }
        *out = other != NULL;
        if (other && !equal_at(run, a->entries[i].value, *other, depth, out)) {
            return false;
        }
    }
    return true;
}

static bool equal_ranges(const jrange *a, const jrange *b) {
    return a->n == b->n &&
           (a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

static bool equal_at(jrun *run, jvalue a, jvalue b, int depth, bool *out) {
    if (!deeper(run, &depth)) {
        return false;
    }
    if (j_is_number(a) && j_is_number(b)) {
        *out = order_numbers(a, b) == 0;
        return true;
    }
    *out = a.type == b.type;
    if (!*out) {
        return true;
    }
    switch (a.type) {
    case J_STR:
        *out = du_sv_eq(j_view(a.s), j_view(b.s));
        return du_jinja_spend(run, (int64_t)(a.s->len / 64));
    case J_LIST:
    case J_TUPLE:
        return a.list == b.list || equal_items(run, a.list, b.list, depth, out);
    case J_DICT:
        return a.dict == b.dict || equal_dicts(run, a.dict, b.dict, depth, out);
    case J_RANGE:
        *out = equal_ranges(a.range, b.range);
        return true;
    case J_VIEW:
        if (a.view->kind == J_VALUES || b.view->kind == J_VALUES) {
            *out = a.view == b.view;
            return true;
        }
        return du_jinja_fail(run, DU_EUNSUPPORTED, "comparing views of dictionaries");
    case J_FUNC:
        *out = a.func->def == b.func->def && !j_given(a.func->self) && !j_given(b.func->self);
        return true;
    case J_NONE:
    case J_UNDEFINED:
    case J_MISSING:
        return true;
    default: /* things, equal to themselves only */
        *out = a.iter == b.iter;
        return true;
    }
}

bool du_jinja_equal(jrun *run, jvalue a, jvalue b, bool *out) {
    return equal_at(run, a, b, 0, out);
}

static bool less_at(jrun *run, jvalue a, jvalue b, const char *op, int depth, bool or_equal,
                    bool *out);

/* Lists are ordered by the first items that differ. */
static bool less_items(jrun *run, const jlist *a, const jlist *b, const char *op, int depth,
                       bool or_equal, bool *out) {
    int64_t n = a->n < b->n ? a->n : b->n;
    for (int64_t i = 0; i < n; i++) {
        bool same;
        if (!equal_at(run, a->items[i], b->items[i], depth, &same)) {
            return false;
        }
        if (!same) {
            return less_at(run, a->items[i], b->items[i], op, depth, or_equal, out);
        }
    }
    *out = or_equal ? a->n <= b->n : a->n < b->n;
    return true;
}

static bool less_at(jrun *run, jvalue a, jvalue b, const char *op, int depth, bool or_equal,
                    bool *out) {
    if (!deeper(run, &depth)) {
        return false;
    }
    if (j_is_number(a) && j_is_number(b)) {
        int o = order_numbers(a, b);
        *out = o < 0 || (or_equal && o == 0);
        return true;
    }
    if (a.type == J_UNDEFINED || b.type == J_UNDEFINED) {
        return du_jinja_fail_undefined(run, a.type == J_UNDEFINED ? a : b);
    }
    if (a.type == J_STR && b.type == J_STR) {
        int o = order_strings(a.s, b.s);
        *out = o < 0 || (or_equal && o == 0);
        return du_jinja_spend(run, (int64_t)(a.s->len / 64));
    }
    if (a.type == b.type && (a.type == J_LIST || a.type == J_TUPLE)) {
        return less_items(run, a.list, b.list, op, depth, or_equal, out);
    }
    return du_jinja_fail(run, DU_EFORMAT, "%s and %s cannot be compared with %s",
                         du_jinja_type_name(a), du_jinja_type_name(b), op);
}

bool du_jinja_compare(jrun *run, jop op, jvalue a, jvalue b, bool *out) {
    switch (op) {
    case OP_EQ:
        return du_jinja_equal(run, a, b, out);
    case OP_NE:
        if (!du_jinja_equal(run, a, b, out)) {
            return false;
        }
        *out = !*out;
        return true;
    case OP_LT:
        return less_at(run, a, b, "<", 0, false, out);
    case OP_LE:
        return less_at(run, a, b, "<=", 0, true, out);
    case OP_GT:
        return less_at(run, b, a, ">", 0, false, out);
    case OP_GE:
        return less_at(run, b, a, ">=", 0, true, out);
    case OP_NOT_IN:
        if (!du_jinja_contains(run, b, a, out)) {
            return false;
        }
        *out = !*out;
        return true;
    default:
        return du_jinja_contains(run, b, a, out);
    }
}
