/* Expressions of the Jinja interpreter, evaluated by walking the tree.
 *
 * Every evaluation counts one step and one level of depth, so that hostile templates end; the line
 * of the node in progress is kept for messages. */
#include <stdarg.h>

#include "text/jinja_int.h"
#include "text/jinja_text.h"

bool du_jinja_fail(jrun *run, du_err code, const char *fmt, ...) {
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    du_jinja_mend(text);
    run->err = du_fail(run->diag, code, "%s: line %d: %s", run->template->name, run->line, text);
    return false;
}

bool du_jinja_spend(jrun *run, int64_t n_steps) {
    run->steps_left -= n_steps + 1;
    return run->steps_left >= 0 ||
           du_jinja_fail(run, DU_ELIMIT, "the template takes too many steps");
}

bool du_jinja_deeper(jrun *run) {
    if (run->depth >= J_DEPTH_MAX) {
        return du_jinja_fail(run, DU_ELIMIT, "evaluation is nested more than %d levels deep",
                             J_DEPTH_MAX);
    }
    run->depth++;
    return true;
}

jvalue *du_jinja_slot(jrun *run, jref ref) {
    jact *act = run->act;
    for (int32_t i = 0; i < ref.up; i++) {
        act = act->outer;
    }
    return &act->slots[ref.slot];
}

static bool eval_name(jrun *run, const jnode *node, jvalue *out) {
    *out = *du_jinja_slot(run, node->var.ref);
    if (j_given(*out)) {
        return true;
    }
    return du_jinja_undefined(run, NULL, *out, j_str(run->template->names[node->var.ref.name]),
                              out);
}

static bool eval_list(jrun *run, const jnode *node, jtype type, jvalue *out) {
    jvalue *items;
    if (!du_jinja_list_new(run, type, node->list.items.n, out, &items)) {
        return false;
    }
    for (int32_t i = 0; i < node->list.items.n; i++) {
        if (!du_jinja_eval(run, node->list.items.items[i], &items[i])) {
            return false;
        }
    }
    return true;
}

static bool eval_dict(jrun *run, const jnode *node, jvalue *out) {
    jdict *d;
    if (!du_jinja_dict_new(run, node->list.items.n / 2, &d)) {
        return false;
    }
    for (int32_t i = 0; i < node->list.items.n; i += 2) {
        jvalue key, value;
        if (!du_jinja_eval(run, node->list.items.items[i], &key) ||
            !du_jinja_eval(run, node->list.items.items[i + 1], &value) ||
            !du_jinja_dict_set(run, d, key, value)) {
            return false;
        }
    }
    *out = j_dict(d);
    return true;
}

static bool eval_truth(jrun *run, const jnode *node, bool *out) {
    jvalue v;
    return du_jinja_eval(run, node, &v) && du_jinja_truth(run, v, out);
}

static bool eval_cond(jrun *run, const jnode *node, jvalue *out) {
    bool yes;
    if (!eval_truth(run, node->cond.test, &yes)) {
        return false;
    }
    if (yes || node->cond.no) {
        return du_jinja_eval(run, yes ? node->cond.yes : node->cond.no, out);
    }
    return du_jinja_undefined(run, "an inline if without else was false",
                              (jvalue){.type = J_MISSING}, (jvalue){.type = J_MISSING}, out);
}

/* `and` and `or` give the operand that decided. */
static bool eval_logic(jrun *run, const jnode *node, jvalue *out) {
    bool left;
    if (!du_jinja_eval(run, node->bin.left, out) || !du_jinja_truth(run, *out, &left)) {
        return false;
    }
    return left == (node->type == N_OR) || du_jinja_eval(run, node->bin.right, out);
}

static bool eval_binary(jrun *run, const jnode *node, jvalue *out) {
    jvalue a, b;
    return du_jinja_eval(run, node->bin.left, &a) && du_jinja_eval(run, node->bin.right, &b) &&
           du_jinja_binary(run, node->bin.op, a, b, out);
}

/* a < b < c: each operand once, until a comparison is false. */
static bool eval_compare(jrun *run, const jnode *node, jvalue *out) {
    jvalue a, b;
    bool holds = true;
    if (!du_jinja_eval(run, node->list.items.items[0], &a)) {
        return false;
    }
    for (int32_t i = 1; holds && i < node->list.items.n; i++) {
        if (!du_jinja_eval(run, node->list.items.items[i], &b) ||
            !du_jinja_compare(run, node->list.ops[i - 1], a, b, &holds)) {
            return false;
        }
        a = b;
    }
    *out = j_bool(holds);
    return true;
}

static bool eval_concat(jrun *run, const jnode *node, jvalue *out) {
    for (int32_t i = 0; i < node->list.items.n; i++) {
        jvalue v;
        if (!du_jinja_eval(run, node->list.items.items[i], &v) || !du_jinja_to_str(run, v, &v)) {
            return false;
        }
        if (i == 0) {
            *out = v;
        } else if (!du_jinja_str_append(run, out->s, v.s, out)) {
            return false;
        }
    }
    return true;
}

static bool eval_optional(jrun *run, const jnode *node, jvalue *out) {
    *out = (jvalue){.type = J_MISSING};
    return !node || du_jinja_eval(run, node, out);
}

static bool eval_getitem(jrun *run, const jnode *node, jvalue *out) {
    jvalue object, key, start, stop, step;
    const jnode *k = node->get.key;
    if (!du_jinja_eval(run, node->get.object, &object)) {
        return false;
    }
    if (k->type != N_SLICE) {
        return du_jinja_eval(run, k, &key) && du_jinja_getitem(run, object, key, out);
    }
    return eval_optional(run, k->slice.start, &start) && eval_optional(run, k->slice.stop, &stop) &&
           eval_optional(run, k->slice.step, &step) &&
           du_jinja_slice(run, object, start, stop, step, out);
}

/* ---- calls --------------------------------------------------------------------------------- */

static bool eval_keywords(jrun *run, const jnode *node, jcall *call) {
    if (!node->call.kwargs.n && !node->call.dyn_kwargs) {
        return true;
    }
    if (!du_jinja_dict_new(run, node->call.kwargs.n, &call->kwargs)) {
        return false;
    }
    for (int32_t i = 0; i < node->call.kwargs.n; i++) {
        jvalue v, *old, key = j_str(node->call.kw_names[i]);
        if (!du_jinja_eval(run, node->call.kwargs.items[i], &v) ||
            !du_jinja_dict_find(run, call->kwargs, key, &old)) {
            return false;
        }
        if (old) {
            return du_jinja_fail(run, DU_EFORMAT, "the argument %.*s is given twice",
                                 (int)key.s->len, key.s->s);
        }
        if (!du_jinja_dict_append(run, call->kwargs, key, v)) {
            return false;
        }
    }
    return true;
}

static bool eval_dynamic(jrun *run, const jnode *node, jcall *call) {
    jvalue v, positional;
    if (node->call.dyn_args) {
        jvalue given = {.type = J_TUPLE, .list = &(jlist){call->args, call->n_args, false}};
        if (!du_jinja_eval(run, node->call.dyn_args, &v) ||
            !du_jinja_to_list(run, v, J_TUPLE, &v) ||
            !du_jinja_binary(run, OP_ADD, given, v, &positional)) {
            return false;
        }
        call->args = positional.list->items;
        call->n_args = positional.list->n;
    }
    if (!node->call.dyn_kwargs) {
        return true;
    }
    if (!du_jinja_eval(run, node->call.dyn_kwargs, &v)) {
        return false;
    }
    if (v.type != J_DICT) {
        return du_jinja_fail(run, DU_EFORMAT, "** takes a dict, not %s", du_jinja_type_name(v));
    }
    for (int64_t i = 0; i < v.dict->n; i++) {
        jvalue *old, key = v.dict->entries[i].key;
        if (key.type != J_STR || !du_jinja_dict_find(run, call->kwargs, key, &old) || old) {
            return run->err == DU_OK &&
                   du_jinja_fail(run, DU_EFORMAT,
                                 "** holds a key that is no text or given already");
        }
        if (!du_jinja_dict_append(run, call->kwargs, key, v.dict->entries[i].value)) {
            return false;
        }
    }
    return true;
}

bool du_jinja_eval_args(jrun *run, const jnode *node, jcall *call) {
    *call = (jcall){.n_args = node->call.args.n};
    jvalue *args = du_jinja_run_alloc(run, call->n_args, sizeof *args);
    if (!args) {
        return false;
    }
    call->args = args;
    for (int32_t i = 0; i < node->call.args.n; i++) {
        if (!du_jinja_eval(run, node->call.args.items[i], &args[i])) {
            return false;
        }
    }
    return eval_keywords(run, node, call) && eval_dynamic(run, node, call);
}

static bool eval_call(jrun *run, const jnode *node, jvalue *out) {
    jvalue target;
    jcall call;
    return du_jinja_eval(run, node->call.target, &target) && du_jinja_eval_args(run, node, &call) &&
           du_jinja_call(run, target, &call, out);
}

static bool apply(jrun *run, const jnode *node, jvalue v, jvalue *out) {
    jcall call;
    if (!node->call.def) {
        return du_jinja_fail(run, DU_EFORMAT, "there is no %s named %.*s",
                             node->type == N_FILTER ? "filter" : "test", (int)node->call.name->len,
                             node->call.name->s);
    }
    return du_jinja_eval_args(run, node, &call) &&
           du_jinja_call_builtin(run, node->call.def, v, &call, out);
}

static bool eval_apply(jrun *run, const jnode *node, jvalue *out) {
    jvalue v = run->block_text;
    return (!node->call.target || du_jinja_eval(run, node->call.target, &v)) &&
           apply(run, node, v, out);
}

static bool eval_not(jrun *run, const jnode *node, jvalue *out) {
    bool yes;
    if (!eval_truth(run, node->bin.left, &yes)) {
        return false;
    }
    *out = j_bool(!yes);
    return true;
}

static bool eval_sign(jrun *run, const jnode *node, jvalue *out) {
    jvalue v;
    return du_jinja_eval(run, node->bin.left, &v) &&
           du_jinja_negate(run, v, node->type == N_NEG, out);
}

static bool eval_getattr(jrun *run, const jnode *node, jvalue *out) {
    jvalue object;
    return du_jinja_eval(run, node->get.object, &object) &&
           du_jinja_getattr(run, object, node->get.name, out);
}

static bool eval_node(jrun *run, const jnode *node, jvalue *out) {
    switch (node->type) {
    case N_CONST:
        *out = node->value;
        return true;
    case N_NAME:
        return eval_name(run, node, out);
    case N_TUPLE:
        return eval_list(run, node, J_TUPLE, out);
    case N_LIST:
        return eval_list(run, node, J_LIST, out);
    case N_DICT:
        return eval_dict(run, node, out);
    case N_COND:
        return eval_cond(run, node, out);
    case N_AND:
    case N_OR:
        return eval_logic(run, node, out);
    case N_NOT:
        return eval_not(run, node, out);
    case N_NEG:
    case N_POS:
        return eval_sign(run, node, out);
    case N_BINARY:
        return eval_binary(run, node, out);
    case N_COMPARE:
        return eval_compare(run, node, out);
    case N_CONCAT:
        return eval_concat(run, node, out);
    case N_GETATTR:
        return eval_getattr(run, node, out);
    case N_GETITEM:
        return eval_getitem(run, node, out);
    case N_CALL:
        return eval_call(run, node, out);
    case N_FILTER:
    case N_TEST:
        return eval_apply(run, node, out);
    default:
        return du_jinja_fail(run, DU_EFORMAT, "a slice stands where no slice can be");
    }
}

bool du_jinja_eval(jrun *run, const jnode *node, jvalue *out) {
    int32_t line = run->line;
    run->line = node->line;
    if (!du_jinja_spend(run, 0) || !du_jinja_deeper(run)) {
        return false;
    }
    bool ok = eval_node(run, node, out);
    run->depth--;
    run->line = line;
    return ok;
}
