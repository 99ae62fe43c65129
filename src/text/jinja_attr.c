/* Attributes of objects themselves: methods of lists and dictionaries, properties of loops, macros,
 * numbers. What would change a list or dictionary is undefined, as in the immutable sandbox. */
#include "text/jinja_int.h"

enum { UNSAFE = -1, PROPERTY = -2 }; /* in jbuiltin.n_required */

/* ---- lists and dictionaries ---------------------------------------------------------------- */

static bool list_count(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    int64_t n = 0;
    for (int64_t i = 0; i < self.list->n; i++) {
        bool same;
        if (!du_jinja_equal(run, self.list->items[i], call->p[0], &same)) {
            return false;
        }
        n += same;
    }
    *out = j_int(n);
    return true;
}

static bool list_index(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    int64_t bound[2] = {0, self.list->n};
    for (int k = 0; k < 2; k++) {
        if (j_given(call->p[1 + k])) {
            if (!du_jinja_arg_int(run, "index", call->p[1 + k], &bound[k])) {
                return false;
            }
            bound[k] += bound[k] < 0 ? self.list->n : 0;
            bound[k] = bound[k] < 0 ? 0 : bound[k];
        }
    }
    for (int64_t i = bound[0]; i < bound[1] && i < self.list->n; i++) {
        bool same;
        if (!du_jinja_equal(run, self.list->items[i], call->p[0], &same)) {
            return false;
        }
        if (same) {
            *out = j_int(i);
            return true;
        }
    }
    return du_jinja_fail(run, DU_EFORMAT, "index: the value is not there");
}

static bool self_copy(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = self; /* values do not change */
    return true;
}

static bool dict_get(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue *found;
    if (!du_jinja_dict_find(run, self.dict, call->p[0], &found)) {
        return false;
    }
    *out = found ? *found : j_given(call->p[1]) ? call->p[1] : j_none();
    return true;
}

bool du_jinja_view(jrun *run, jdict *d, jview_kind kind, jvalue *out) {
    jview *view = du_jinja_run_alloc(run, 1, sizeof *view);
    if (!view) {
        return false;
    }
    *view = (jview){.kind = kind, .dict = d};
    *out = (jvalue){.type = J_VIEW, .view = view};
    return true;
}

static bool dict_keys(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return du_jinja_view(run, self.dict, J_KEYS, out);
}

static bool dict_values(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return du_jinja_view(run, self.dict, J_VALUES, out);
}

static bool dict_items(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return du_jinja_view(run, self.dict, J_ITEMS, out);
}

/* ---- loops --------------------------------------------------------------------------------- */

static bool loop_index(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = j_int(self.loop->index0 + 1);
    return true;
}

static bool loop_index0(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = j_int(self.loop->index0);
    return true;
}

static bool loop_length(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    *out = j_int(0);
    return du_jinja_loop_length(run, self.loop, &out->i);
}

static bool loop_revindex(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    bool ok = loop_length(run, self, call, out);
    out->i -= self.loop->index0;
    return ok;
}

static bool loop_revindex0(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    bool ok = loop_length(run, self, call, out);
    out->i -= self.loop->index0 + 1;
    return ok;
}

static bool loop_first(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = j_bool(self.loop->index0 == 0);
    return true;
}

static bool loop_last(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue next;
    (void)call;
    if (!du_jinja_loop_peek(run, self.loop, &next)) {
        return false;
    }
    *out = j_bool(!j_given(next));
    return true;
}

static bool loop_depth(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = j_int(self.loop->depth0 + 1);
    return true;
}

static bool loop_depth0(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = j_int(self.loop->depth0);
    return true;
}

static bool loop_previtem(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    *out = self.loop->before;
    return j_given(*out) ||
           du_jinja_undefined(run, "the first round has no previous item", *out, *out, out);
}

static bool loop_nextitem(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)call;
    return du_jinja_loop_peek(run, self.loop, out) &&
           (j_given(*out) ||
            du_jinja_undefined(run, "the last round has no next item", *out, *out, out));
}

static bool loop_cycle(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    if (!call->n_args || call->kwargs) {
        return du_jinja_fail(run, DU_EFORMAT, "loop.cycle needs the values to go through");
    }
    *out = call->args[self.loop->index0 % call->n_args];
    return true;
}

static bool loop_changed(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue now, before = {.type = J_TUPLE, .list = self.loop->changed};
    bool same = false;
    if (!du_jinja_list_of(run, J_TUPLE, call->args, call->n_args, &now) ||
        (before.list && !du_jinja_equal(run, before, now, &same))) {
        return false;
    }
    self.loop->changed = now.list;
    *out = j_bool(!same);
    return true;
}

/* ---- the rest ------------------------------------------------------------------------------ */

static bool group_item(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = self.list->items[0];
    return true;
}

static bool group_list(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = self.list->items[1];
    return true;
}

static bool cycler_current(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = self.cycler->items[self.cycler->pos];
    return true;
}

static bool cycler_next(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    cycler_current(run, self, call, out);
    self.cycler->pos = (self.cycler->pos + 1) % self.cycler->n;
    return true;
}

static bool cycler_reset(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    self.cycler->pos = 0;
    *out = j_none();
    return true;
}

static bool macro_name(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    const jstr *name = self.macro->node->macro.name;
    *out = name ? j_str(name) : j_none();
    return true;
}

static bool macro_arguments(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    const jnodes *params = &self.macro->node->macro.params;
    jvalue *items;
    (void)call;
    if (!du_jinja_list_new(run, J_TUPLE, params->n, out, &items)) {
        return false;
    }
    for (int32_t i = 0; i < params->n; i++) {
        items[i] = j_str(run->template->names[params->items[i]->var.ref.name]);
    }
    return true;
}

static bool macro_caller(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = j_bool(self.macro->node->macro.caller_slot >= 0);
    return true;
}

static bool macro_catch_kwargs(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = j_bool(self.macro->node->macro.kwargs_slot >= 0);
    return true;
}

static bool macro_catch_varargs(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = j_bool(self.macro->node->macro.varargs_slot >= 0);
    return true;
}

static bool range_start(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = j_int(self.range->start);
    return true;
}

static bool range_stop(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = j_int(self.range->stop);
    return true;
}

static bool range_step(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = j_int(self.range->step);
    return true;
}

static bool number_real(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = self.type == J_FLOAT ? self : j_int(j_as_int(self));
    return true;
}

static bool number_imag(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)run;
    (void)call;
    *out = self.type == J_FLOAT ? j_float(0) : j_int(0);
    return true;
}

/* ---- tables -------------------------------------------------------------------------------- */

static const jbuiltin list_attrs[] = {
    {"append", NULL, NULL, UNSAFE}, {"clear", NULL, NULL, UNSAFE},
    {"copy", self_copy, "", 0},     {"count", list_count, "/value", 1},
    {"extend", NULL, NULL, UNSAFE}, {"index", list_index, "/value,start,stop", 1},
    {"insert", NULL, NULL, UNSAFE}, {"pop", NULL, NULL, UNSAFE},
    {"remove", NULL, NULL, UNSAFE}, {"reverse", NULL, NULL, UNSAFE},
    {"sort", NULL, NULL, UNSAFE},
};

static const jbuiltin tuple_attrs[] = {
    {"count", list_count, "/value", 1},
    {"index", list_index, "/value,start,stop", 1},
};

static const jbuiltin group_attrs[] = {
    {"grouper", group_item, NULL, PROPERTY},
    {"list", group_list, NULL, PROPERTY},
    {"count", list_count, "/value", 1},
    {"index", list_index, "/value,start,stop", 1},
};

static const jbuiltin dict_attrs[] = {
    {"clear", NULL, NULL, UNSAFE},      {"copy", self_copy, "", 0},
    {"fromkeys", NULL, NULL, 0},        {"get", dict_get, "/key,default", 1},
    {"items", dict_items, "", 0},       {"keys", dict_keys, "", 0},
    {"pop", NULL, NULL, UNSAFE},        {"popitem", NULL, NULL, UNSAFE},
    {"setdefault", NULL, NULL, UNSAFE}, {"update", NULL, NULL, UNSAFE},
    {"values", dict_values, "", 0},
};

static const jbuiltin loop_attrs[] = {
    {"index", loop_index, NULL, PROPERTY},       {"index0", loop_index0, NULL, PROPERTY},
    {"revindex", loop_revindex, NULL, PROPERTY}, {"revindex0", loop_revindex0, NULL, PROPERTY},
    {"first", loop_first, NULL, PROPERTY},       {"last", loop_last, NULL, PROPERTY},
    {"length", loop_length, NULL, PROPERTY},     {"depth", loop_depth, NULL, PROPERTY},
    {"depth0", loop_depth0, NULL, PROPERTY},     {"previtem", loop_previtem, NULL, PROPERTY},
    {"nextitem", loop_nextitem, NULL, PROPERTY}, {"cycle", loop_cycle, NULL, 0},
    {"changed", loop_changed, NULL, 0},
};

static const jbuiltin macro_attrs[] = {
    {"name", macro_name, NULL, PROPERTY},
    {"arguments", macro_arguments, NULL, PROPERTY},
    {"caller", macro_caller, NULL, PROPERTY},
    {"catch_kwargs", macro_catch_kwargs, NULL, PROPERTY},
    {"catch_varargs", macro_catch_varargs, NULL, PROPERTY},
};

static const jbuiltin cycler_attrs[] = {
    {"current", cycler_current, NULL, PROPERTY},
    {"next", cycler_next, "", 0},
    {"reset", cycler_reset, "", 0},
};

static const jbuiltin range_attrs[] = {
    {"start", range_start, NULL, PROPERTY},
    {"stop", range_stop, NULL, PROPERTY},
    {"step", range_step, NULL, PROPERTY},
    {"count", NULL, NULL, 0},
    {"index", NULL, NULL, 0},
};

static const jbuiltin number_attrs[] = {
    {"real", number_real, NULL, PROPERTY},
    {"imag", number_imag, NULL, PROPERTY},
    {"as_integer_ratio", NULL, NULL, 0},
    {"bit_count", NULL, NULL, 0},
    {"bit_length", NULL, NULL, 0},
    {"conjugate", number_real, "", 0},
    {"hex", NULL, NULL, 0},
    {"is_integer", NULL, NULL, 0},
    {"to_bytes", NULL, NULL, 0},
};

#define FIND(table, name) du_jinja_builtin_find(table, sizeof(table) / sizeof((table)[0]), name)

static const jbuiltin *find_attr(jvalue object, du_sv name) {
    switch (object.type) {
    case J_STR:
        return du_jinja_str_method(name);
    case J_LIST:
        return FIND(list_attrs, name);
    case J_TUPLE:
        return object.list->group ? FIND(group_attrs, name) : FIND(tuple_attrs, name);
    case J_DICT:
        return FIND(dict_attrs, name);
    case J_LOOP:
        return FIND(loop_attrs, name);
    case J_MACRO:
        return FIND(macro_attrs, name);
    case J_CYCLER:
        return FIND(cycler_attrs, name);
    case J_RANGE:
        return FIND(range_attrs, name);
    case J_BOOL:
    case J_INT:
    case J_FLOAT:
        return FIND(number_attrs, name);
    default:
        return NULL;
    }
}

bool du_jinja_builtin_attr(jrun *run, jvalue object, du_sv name, bool *found, jvalue *out) {
    static const jcall no_args = {0};
    if (object.type == J_NAMESPACE) {
        jvalue *value;
        if (!du_jinja_dict_find_sv(run, object.dict, name, &value)) {
            return false;
        }
        *found = value && !du_sv_starts(name, "_"); /* the sandbox hides these */
        if (*found) {
            *out = *value;
        }
        return true;
    }
    const jbuiltin *def = find_attr(object, name);
    *found = def != NULL;
    if (!def) {
        return true;
    }
    if (def->n_required == UNSAFE) {
        return du_jinja_undefined(run, "templates cannot change lists and dictionaries", object,
                                  object, out);
    }
    return def->n_required == PROPERTY ? def->fn(run, object, &no_args, out)
                                       : du_jinja_func(run, def, object, out);
}
