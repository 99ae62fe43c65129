/* Dictionaries of the Jinja interpreter: ordered by insertion, looked up as in Python.
 *
 * Small ones are searched in order. Larger ones get an index (base/hash.h, keyed at random, so that
 * hostile keys cannot collide) from canonical bytes of the key to its entry: bytes that are equal
 * exactly when the keys are, so that 1, 1.0 and true are one key. It is made at the first look-up.
 */
#include <math.h>

#include "text/jinja_int.h"

enum { INDEX_FROM = 9 }; /* entries */

bool du_jinja_dict_new(jrun *run, int64_t cap, jdict **out) {
    jdict *d = du_jinja_run_alloc(run, 1, sizeof *d);
    if (!d) {
        return false;
    }
    d->cap = cap;
    d->entries = du_jinja_run_alloc(run, cap, sizeof *d->entries);
    *out = d;
    return d->entries != NULL;
}

bool du_jinja_hashable(jvalue v) {
    if (v.type == J_TUPLE) {
        for (int64_t i = 0; i < v.list->n; i++) {
            if (!du_jinja_hashable(v.list->items[i])) {
                return false;
            }
        }
    }
    return v.type != J_LIST && v.type != J_DICT && v.type != J_VIEW;
}

static bool add_key(jrun *run, du_str *to, jvalue v, int depth) {
    int64_t whole = 0;
    if (depth > J_VALUE_DEPTH) {
        return du_jinja_fail(run, DU_ELIMIT, "a key is nested more than %d levels deep",
                             J_VALUE_DEPTH);
    }
    switch (v.type) {
    case J_STR:
        du_str_addf(to, "s%zu:", v.s->len);
        du_str_add_sv(to, j_view(v.s));
        return du_jinja_spend(run, (int64_t)(v.s->len / 64));
    case J_BOOL:
    case J_INT:
        du_str_addf(to, "i%lld;", (long long)j_as_int(v));
        return true;
    case J_FLOAT:
        if (v.f >= -9223372036854775808.0 && v.f < 9223372036854775808.0) {
            whole = (int64_t)v.f;
        }
        if ((double)whole == v.f) {
            du_str_addf(to, "i%lld;", (long long)whole);
        } else {
            du_str_addf(to, "f%a;", v.f);
        }
        return true;
    case J_TUPLE:
        du_str_addf(to, "t%lld(", (long long)v.list->n);
        for (int64_t i = 0; i < v.list->n; i++) {
            if (!add_key(run, to, v.list->items[i], depth + 1)) {
                return false;
            }
        }
        return true;
    case J_NONE:
    case J_UNDEFINED:
        du_str_add_c(to, v.type == J_NONE ? 'n' : 'u');
        return true;
    default: /* things: by identity */
        du_str_addf(to, "p%p;", (const void *)v.iter);
        return true;
    }
}

static bool key_bytes(jrun *run, jvalue v, du_sv *out) {
    du_str buf = {0};
    jvalue copy;
    if (!add_key(run, &buf, v, 0)) {
        du_str_done(&buf);
        return false;
    }
    if (!du_jinja_str_take(run, &buf, false, &copy)) {
        return false;
    }
    *out = j_view(copy.s);
    return true;
}

/* Brings the index up to date with the entries. */
static bool make_index(jrun *run, jdict *d) {
    if (!d->index) {
        d->index = du_jinja_run_alloc(run, 1, sizeof *d->index);
        if (!d->index) {
            return false;
        }
        d->next_indexed = run->indexed;
        run->indexed = d;
    }
    for (; d->n_indexed < d->n; d->n_indexed++) {
        du_sv key;
        if (!du_jinja_spend(run, 1) || !key_bytes(run, d->entries[d->n_indexed].key, &key)) {
            return false;
        }
        du_err err = du_hash_add(d->index, key, d->n_indexed);
        if (err != DU_OK) {
            run->err = du_fail_nomem(run->diag, "rendering a template");
            return false;
        }
    }
    return true;
}

bool du_jinja_dict_find(jrun *run, jdict *d, jvalue key, jvalue **out) {
    *out = NULL;
    if (!du_jinja_hashable(key)) {
        return du_jinja_fail(run, DU_EFORMAT, "%s cannot be a key", du_jinja_type_name(key));
    }
    if (d->n < INDEX_FROM) {
        for (int64_t i = 0; i < d->n; i++) {
            bool same;
            if (!du_jinja_equal(run, d->entries[i].key, key, &same)) {
                return false;
            }
            if (same) {
                *out = &d->entries[i].value;
                return true;
            }
        }
        return true;
    }
    du_str bytes = {0};
    bool ok = make_index(run, d) && add_key(run, &bytes, key, 0);
    if (ok && bytes.failed) {
        run->err = du_fail_nomem(run->diag, "rendering a template");
        ok = false;
    }
    int64_t *at = ok ? du_hash_find(d->index, du_str_view(&bytes)) : NULL;
    *out = at ? &d->entries[*at].value : NULL;
    du_str_done(&bytes);
    return ok;
}

bool du_jinja_dict_find_sv(jrun *run, jdict *d, du_sv key, jvalue **out) {
    jstr str = {.s = key.s, .len = key.len};
    return du_jinja_dict_find(run, d, j_str(&str), out);
}

bool du_jinja_dict_append(jrun *run, jdict *d, jvalue key, jvalue value) {
    if (d->n == d->cap) {
        int64_t cap = d->cap * 2 + 4;
        jentry *more = du_jinja_run_alloc(run, cap, sizeof *more);
        if (!more) {
            return false;
        }
        if (d->n) {
            memcpy(more, d->entries, (size_t)d->n * sizeof *more);
        }
        d->entries = more;
        d->cap = cap;
    }
    d->entries[d->n++] = (jentry){key, value};
    return true;
}

bool du_jinja_dict_set(jrun *run, jdict *d, jvalue key, jvalue value) {
    jvalue *old;
    if (!du_jinja_dict_find(run, d, key, &old)) {
        return false;
    }
    if (old) {
        *old = value;
        return true;
    }
    return du_jinja_dict_append(run, d, key, value);
}
