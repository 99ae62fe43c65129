/* Lazy filters: map, select, reject, their attr variants, unique, items. They give an iterator that
 * does nothing before an item is asked for; errors, also in the arguments, come then. A sequence
 * that is false as a whole has no items, and its arguments are not looked at. */
#include "text/jinja_int.h"

static const jvalue missing = {.type = J_MISSING};

static bool lazy_iter(jrun *run, jvalue src, jnext *next, jlazy **lazy, jvalue *out) {
    jiter *it;
    *lazy = du_jinja_run_alloc(run, 1, sizeof **lazy);
    if (!*lazy || !du_jinja_iter_new(run, src, next, "generator", &it)) {
        return false;
    }
    it->lazy = *lazy;
    *out = (jvalue){.type = J_ITER, .iter = it};
    return true;
}

/* The next item of the source; what is false as a whole has none and is not looked at further. */
static bool draw(jrun *run, jiter *it, jvalue *out, bool *more) {
    jlazy *lazy = it->lazy;
    *more = false;
    if (!lazy->inner) {
        bool some;
        if (!du_jinja_truth(run, it->src, &some)) {
            return false;
        }
        if (!some) {
            return true;
        }
        if (!du_jinja_iter(run, it->src, &lazy->inner)) {
            return false;
        }
    }
    return du_jinja_next(run, lazy->inner, out, more);
}

/* The function named by the first argument; the other arguments are for it. */
static bool named_function(jrun *run, jlazy *lazy, bool filter) {
    jvalue name = lazy->call.args[0];
    if (name.type == J_STR) {
        lazy->def =
            filter ? du_jinja_filter_find(j_view(name.s)) : du_jinja_test_find(j_view(name.s));
    }
    if (!lazy->def) {
        return du_jinja_fail(run, DU_EFORMAT, "there is no %s named %.*s",
                             filter ? "filter" : "test",
                             name.type == J_STR && name.s->len < 60 ? (int)name.s->len : 1,
                             name.type == J_STR ? name.s->s : "?");
    }
    lazy->call.args++;
    lazy->call.n_args--;
    return true;
}

/* map(attribute=..., default=...), or map(filter name, arguments). */
static bool prepare_map(jrun *run, jlazy *lazy) {
    jvalue *attr = NULL, *fallback = NULL;
    jdict *kwargs = lazy->call.kwargs;
    lazy->ready = true;
    if (lazy->call.n_args) {
        return named_function(run, lazy, true);
    }
    if (kwargs && (!du_jinja_dict_find_sv(run, kwargs, du_sv_of("attribute"), &attr) ||
                   !du_jinja_dict_find_sv(run, kwargs, du_sv_of("default"), &fallback))) {
        return false;
    }
    if (!attr || kwargs->n != 1 + (fallback != NULL)) {
        return du_jinja_fail(run, DU_EFORMAT, "map needs a filter, or an attribute= and default=");
    }
    lazy->attr = *attr;
    lazy->fallback = fallback ? *fallback : missing;
    return true;
}

static bool next_mapped(jrun *run, jiter *it, jvalue *out, bool *more) {
    jlazy *lazy = it->lazy;
    jvalue item;
    if (!draw(run, it, &item, more) || !*more) {
        return run->err == DU_OK;
    }
    if (!lazy->ready && !prepare_map(run, lazy)) {
        return false;
    }
    return lazy->def ? du_jinja_call_builtin(run, lazy->def, item, &lazy->call, out)
                     : du_jinja_get_attr(run, item, lazy->attr, lazy->fallback, out);
}

bool du_jinja_f_map(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jlazy *lazy;
    if (!lazy_iter(run, self, next_mapped, &lazy, out)) {
        return false;
    }
    lazy->call = *call;
    return true;
}

/* select(test name, arguments); the attr variants have the attribute first. Without a test an item
 * counts as it is. */
static bool prepare_select(jrun *run, jlazy *lazy) {
    lazy->ready = true;
    if (lazy->by_attr) {
        if (!lazy->call.n_args) {
            return du_jinja_fail(run, DU_EFORMAT, "the name of the attribute is missing");
        }
        lazy->attr = *lazy->call.args++;
        lazy->call.n_args--;
    }
    return !lazy->call.n_args || named_function(run, lazy, false);
}

static bool next_selected(jrun *run, jiter *it, jvalue *out, bool *more) {
    jlazy *lazy = it->lazy;
    for (;;) {
        jvalue v, verdict;
        bool pass;
        if (!draw(run, it, out, more) || !*more) {
            return run->err == DU_OK;
        }
        if (!lazy->ready && !prepare_select(run, lazy)) {
            return false;
        }
        if (!du_jinja_get_attr(run, *out, lazy->attr, missing, &v)) {
            return false;
        }
        verdict = v;
        if (lazy->def && !du_jinja_call_builtin(run, lazy->def, v, &lazy->call, &verdict)) {
            return false;
        }
        if (!du_jinja_truth(run, verdict, &pass)) {
            return false;
        }
        if (pass != lazy->negate) {
            return true;
        }
    }
}

static bool select_items(jrun *run, jvalue self, const jcall *call, bool negate, bool by_attr,
                         jvalue *out) {
    jlazy *lazy;
    if (!lazy_iter(run, self, next_selected, &lazy, out)) {
        return false;
    }
    lazy->call = *call;
    lazy->negate = negate;
    lazy->by_attr = by_attr;
    return true;
}

bool du_jinja_f_select(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return select_items(run, self, call, false, false, out);
}

bool du_jinja_f_reject(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return select_items(run, self, call, true, false, out);
}

bool du_jinja_f_selectattr(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return select_items(run, self, call, false, true, out);
}

bool du_jinja_f_rejectattr(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    return select_items(run, self, call, true, true, out);
}

static bool next_unique(jrun *run, jiter *it, jvalue *out, bool *more) {
    jlazy *lazy = it->lazy;
    if (!lazy->inner && !du_jinja_iter(run, it->src, &lazy->inner)) {
        return false;
    }
    if (!lazy->seen && !du_jinja_dict_new(run, 8, &lazy->seen)) {
        return false;
    }
    for (;;) {
        jvalue key, *known;
        if (!du_jinja_next(run, lazy->inner, out, more) || !*more) {
            return run->err == DU_OK;
        }
        if (!du_jinja_get_attr(run, *out, lazy->attr, missing, &key) ||
            !du_jinja_ignore_case(run, key, lazy->case_sensitive, &key) ||
            !du_jinja_dict_find(run, lazy->seen, key, &known)) {
            return false;
        }
        if (!known) {
            return du_jinja_dict_append(run, lazy->seen, key, j_none());
        }
    }
}

bool du_jinja_f_unique(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jlazy *lazy;
    bool case_sensitive = false;
    if ((j_given(call->p[0]) && !du_jinja_truth(run, call->p[0], &case_sensitive)) ||
        !lazy_iter(run, self, next_unique, &lazy, out)) {
        return false;
    }
    lazy->case_sensitive = case_sensitive;
    lazy->attr = call->p[1];
    return true;
}

bool du_jinja_f_items(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue view = self;
    jiter *it;
    (void)call;
    if (self.type != J_DICT && self.type != J_UNDEFINED) {
        return du_jinja_fail(run, DU_EFORMAT, "items takes a dict, not %s",
                             du_jinja_type_name(self));
    }
    if ((self.type == J_DICT && !du_jinja_view(run, self.dict, J_ITEMS, &view)) ||
        !du_jinja_iter(run, view, &it)) {
        return false;
    }
    it->type_name = "generator";
    *out = (jvalue){.type = J_ITER, .iter = it};
    return true;
}
