/* Iteration in the Jinja interpreter.
 *
 * An iterator gives one item after the other and is then empty for good, as Python's generators
 * are: what map, select and their like return is one, so it is true even when empty, has no length
 * and can be walked once. Lazy iterators draw from an inner one item by item; errors come when the
 * item is asked for. */
#include "text/jinja_int.h"
#include "text/jinja_text.h"

bool du_jinja_iter_new(jrun *run, jvalue src, jnext *next, const char *type_name, jiter **out) {
    jiter *it = du_jinja_run_alloc(run, 1, sizeof *it);
    if (!it) {
        return false;
    }
    it->next = next;
    it->type_name = type_name;
    it->src = src;
    *out = it;
    return true;
}

bool du_jinja_next(jrun *run, jiter *it, jvalue *out, bool *more) {
    if (it->ended) {
        *more = false;
        return true;
    }
    if (!du_jinja_spend(run, 1) || !du_jinja_deeper(run)) {
        return false;
    }
    bool ok = it->next(run, it, out, more);
    run->depth--;
    it->ended = !ok || !*more;
    return ok;
}

static bool next_empty(jrun *run, jiter *it, jvalue *out, bool *more) {
    (void)run;
    (void)it;
    (void)out;
    *more = false;
    return true;
}

static bool next_of_list(jrun *run, jiter *it, jvalue *out, bool *more) {
    (void)run;
    *more = it->pos < it->src.list->n;
    if (*more) {
        *out = it->src.list->items[it->pos++];
    }
    return true;
}

/* Characters are plain text, also those of markup. */
static bool next_of_str(jrun *run, jiter *it, jvalue *out, bool *more) {
    const jstr *s = it->src.s;
    size_t at = (size_t)it->pos, n;
    *more = at < s->len;
    if (!*more) {
        return true;
    }
    du_jinja_char_get(s->s + at, &n);
    it->pos += (int64_t)n;
    return du_jinja_str_borrow(run, s->s + at, n, false, out);
}

static bool next_of_range(jrun *run, jiter *it, jvalue *out, bool *more) {
    (void)run;
    const jrange *r = it->src.range;
    *more = it->pos < r->n;
    if (*more) {
        *out = j_int(r->start + it->pos++ * r->step);
    }
    return true;
}

bool du_jinja_pair(jrun *run, jvalue a, jvalue b, jvalue *out) {
    jvalue *items;
    if (!du_jinja_list_new(run, J_TUPLE, 2, out, &items)) {
        return false;
    }
    items[0] = a;
    items[1] = b;
    return true;
}

static bool next_of_dict(jrun *run, jiter *it, jvalue *out, bool *more) {
    const jdict *d = it->src.type == J_VIEW ? it->src.view->dict : it->src.dict;
    jview_kind kind = it->src.type == J_VIEW ? it->src.view->kind : J_KEYS;
    *more = it->pos < d->n;
    if (!*more) {
        return true;
    }
    const jentry *e = &d->entries[it->pos++];
    if (kind == J_ITEMS) {
        return du_jinja_pair(run, e->key, e->value, out);
    }
    *out = kind == J_KEYS ? e->key : e->value;
    return true;
}

static jnext *next_for(jvalue v, const char **type_name) {
    switch (v.type) {
    case J_UNDEFINED:
        *type_name = "generator";
        return next_empty;
    case J_STR:
        *type_name = "str_iterator";
        return next_of_str;
    case J_LIST:
        *type_name = "list_iterator";
        return next_of_list;
    case J_TUPLE:
        *type_name = "tuple_iterator";
        return next_of_list;
    case J_RANGE:
        *type_name = "range_iterator";
        return next_of_range;
    case J_DICT:
    case J_VIEW:
        *type_name = "dict_iterator";
        return next_of_dict;
    default:
        return NULL;
    }
}

bool du_jinja_iterable(jvalue v) {
    const char *type_name;
    return v.type == J_ITER || v.type == J_LOOP || next_for(v, &type_name) != NULL;
}

bool du_jinja_iter(jrun *run, jvalue v, jiter **out) {
    const char *type_name;
    if (v.type == J_ITER) {
        *out = v.iter;
        return true;
    }
    if (v.type == J_LOOP) {
        return du_jinja_fail(run, DU_EUNSUPPORTED, "walking through the variable loop itself");
    }
    jnext *next = next_for(v, &type_name);
    if (!next) {
        return du_jinja_fail(run, DU_EFORMAT, "%s cannot be walked through", du_jinja_type_name(v));
    }
    return du_jinja_iter_new(run, v, next, type_name, out);
}

/* Reversed sequences: the items from the last to the first. */
static bool next_reversed(jrun *run, jiter *it, jvalue *out, bool *more) {
    const jlist *list = it->src.list;
    (void)run;
    *more = it->pos < list->n;
    if (*more) {
        *out = list->items[list->n - ++it->pos];
    }
    return true;
}

bool du_jinja_reversed(jrun *run, jvalue v, jvalue *out) {
    jvalue list;
    jiter *it;
    if (!du_jinja_to_list(run, v, J_LIST, &list) ||
        !du_jinja_iter_new(run, list, next_reversed, "reversed", &it)) {
        return false;
    }
    *out = (jvalue){.type = J_ITER, .iter = it};
    return true;
}

bool du_jinja_to_list(jrun *run, jvalue v, jtype type, jvalue *out) {
    jiter *it;
    jitems items = {0};
    if (v.type == J_LIST || v.type == J_TUPLE) { /* they never change, so the items are shared */
        *out = v;
        out->type = type;
        if (!v.list->group) {
            return true;
        }
    }
    if (!du_jinja_iter(run, v, &it)) {
        return false;
    }
    for (;;) {
        jvalue item;
        bool more;
        if (!du_jinja_next(run, it, &item, &more)) {
            return false;
        }
        if (!more) {
            return du_jinja_list_of(run, type, items.items, items.n, out);
        }
        if (!du_jinja_push(run, &items, item)) {
            return false;
        }
    }
}
