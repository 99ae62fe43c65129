/* Macros: functions written in the template, and the statement call, which gives a macro a body to
 * call back as `caller`. */
#include "text/jinja_int.h"

/* The keyword argument of this name, taken out of kwargs; missing when it is not there. */
static bool take_keyword(jrun *run, jdict *kwargs, jvalue name, jvalue *out) {
    *out = (jvalue){.type = J_MISSING};
    for (int64_t i = 0; i < kwargs->n; i++) {
        bool same;
        if (!du_jinja_equal(run, kwargs->entries[i].key, name, &same)) {
            return false;
        }
        if (same) {
            *out = kwargs->entries[i].value;
            kwargs->n--;
            memmove(&kwargs->entries[i], &kwargs->entries[i + 1],
                    (size_t)(kwargs->n - i) * sizeof kwargs->entries[0]);
            return true;
        }
    }
    return true;
}

/* Where a keyword argument finds no parameter. */
static bool bind_rest(jrun *run, const jnode *node, const jcall *call, jdict *kwargs) {
    jvalue *slots = run->act->slots;
    const char *name = node->macro.name ? node->macro.name->s : "caller";
    int len = node->macro.name ? (int)node->macro.name->len : 6;
    int64_t extra = call->n_args - node->macro.params.n;
    jvalue *items;
    if (node->macro.kwargs_slot >= 0) {
        slots[node->macro.kwargs_slot] = j_dict(kwargs);
    } else if (kwargs->n) {
        return du_jinja_fail(run, DU_EFORMAT, "macro %.*s has no parameter %.*s", len, name,
                             (int)kwargs->entries[0].key.s->len, kwargs->entries[0].key.s->s);
    }
    if (node->macro.varargs_slot >= 0) {
        extra = extra < 0 ? 0 : extra;
        jvalue *slot = &slots[node->macro.varargs_slot];
        if (!du_jinja_list_new(run, J_TUPLE, extra, slot, &items)) {
            return false;
        }
        memcpy(items, call->args + call->n_args - extra, (size_t)extra * sizeof *items);
    } else if (extra > 0) {
        return du_jinja_fail(run, DU_EFORMAT, "macro %.*s takes at most %d arguments", len, name,
                             node->macro.params.n);
    }
    return true;
}

/* Puts the arguments into the slots of the parameters, as far as they were given. */
static bool bind_macro(jrun *run, const jnode *node, const jcall *call) {
    jdict *kwargs;
    if (!du_jinja_dict_new(run, call->kwargs ? call->kwargs->n : 0, &kwargs)) {
        return false;
    }
    for (int64_t i = 0; call->kwargs && i < call->kwargs->n; i++) {
        kwargs->entries[kwargs->n++] = call->kwargs->entries[i];
    }
    for (int32_t i = 0; i < node->macro.params.n; i++) {
        jref ref = node->macro.params.items[i]->var.ref;
        jvalue *slot = &run->act->slots[ref.slot];
        jvalue name = j_str(run->template->names[ref.name]);
        if (i < call->n_args) {
            *slot = call->args[i];
        } else if (!take_keyword(run, kwargs, name, slot)) {
            return false;
        }
    }
    if (node->macro.caller_slot >= 0) {
        jvalue *slot = &run->act->slots[node->macro.caller_slot];
        jstr caller = {.s = "caller", .len = 6, .n_chars = 6};
        if (!take_keyword(run, kwargs, j_str(&caller), slot)) {
            return false;
        }
        if ((!j_given(*slot) || slot->type == J_NONE) &&
            !du_jinja_undefined(run, "the macro was called without a call block", *slot, *slot,
                                slot)) {
            return false;
        }
    }
    return bind_rest(run, node, call, kwargs);
}

static bool bind_defaults(jrun *run, const jnode *node) {
    int32_t first = node->macro.params.n - node->macro.defaults.n;
    for (int32_t i = 0; i < node->macro.params.n; i++) {
        jvalue *slot = &run->act->slots[node->macro.params.items[i]->var.ref.slot];
        jvalue v = {.type = J_MISSING};
        if (j_given(*slot)) {
            continue;
        }
        if (i >= first) {
            if (!du_jinja_eval(run, node->macro.defaults.items[i - first], &v)) {
                return false;
            }
        } else if (!du_jinja_undefined(run, "a parameter of the macro was not given", v, v, &v)) {
            return false;
        }
        *slot = v;
    }
    return true;
}

bool du_jinja_macro_call(jrun *run, jmacro *macro, const jcall *call, jvalue *out) {
    const jnode *node = macro->node;
    jact *caller = run->act;
    size_t start = run->out.len;
    run->act = du_jinja_act_new(run, macro->closure, node->macro.n_slots);
    bool ok = run->act && bind_macro(run, node, call) &&
              du_jinja_enter_scope(run, &node->macro.scope) && bind_defaults(run, node) &&
              du_jinja_exec_body(run, &node->macro.body) != FLOW_FAIL &&
              du_jinja_captured(run, start, out);
    run->act = caller;
    return ok;
}

bool du_jinja_macro_new(jrun *run, const jnode *node, jvalue *out) {
    jmacro *macro = du_jinja_run_alloc(run, 1, sizeof *macro);
    if (!macro) {
        return false;
    }
    *macro = (jmacro){.node = node, .closure = run->act};
    *out = (jvalue){.type = J_MACRO, .macro = macro};
    return true;
}

bool du_jinja_exec_call_block(jrun *run, const jnode *node) {
    jvalue caller, target, result, *old;
    jstr name = {.s = "caller", .len = 6, .n_chars = 6};
    jcall call;
    if (!du_jinja_macro_new(run, node, &caller) ||
        !du_jinja_eval(run, node->macro.call->call.target, &target) ||
        !du_jinja_eval_args(run, node->macro.call, &call) ||
        (!call.kwargs && !du_jinja_dict_new(run, 1, &call.kwargs)) ||
        !du_jinja_dict_find(run, call.kwargs, j_str(&name), &old)) {
        return false;
    }
    if (old) {
        return du_jinja_fail(run, DU_EFORMAT, "a call block gives `caller` twice");
    }
    jvalue key;
    return du_jinja_str_borrow(run, "caller", 6, false, &key) &&
           du_jinja_dict_append(run, call.kwargs, key, caller) &&
           du_jinja_call(run, target, &call, &result) &&
           (result.type == J_STR ||
            du_jinja_fail(run, DU_EFORMAT, "a call block's call gives %s, not text",
                          du_jinja_type_name(result))) &&
           du_jinja_print(run, &run->out, result);
}
