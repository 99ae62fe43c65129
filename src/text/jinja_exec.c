/* Statements of the Jinja interpreter: scopes, output, branches, assignments, blocks.
 *
 * Text goes to one buffer. What a macro or a block gives is written there too and then cut off its
 * end (capture). Variables lie in slots that jinja_scope.c gave out; an activation holds the slots
 * of one call of a function, and macros keep the activation that they were defined in. */
#include "text/jinja_int.h"

static jflow flow_of(bool ok) {
    return ok ? FLOW_NEXT : FLOW_FAIL;
}

/* ---- scopes -------------------------------------------------------------------------------- */

/* A variable that the caller gave, or a global function; missing when there is neither. */
static bool resolve(jrun *run, int32_t name, jvalue *out) {
    const jstr *text = run->template->names[name];
    jvalue *given;
    if (!du_jinja_dict_find(run, run->vars, j_str(text), &given)) {
        return false;
    }
    if (given) {
        *out = *given;
        return true;
    }
    return du_jinja_global_find(run, j_view(text), out);
}

bool du_jinja_enter_scope(jrun *run, const jscope *scope) {
    for (int32_t i = 0; i < scope->n; i++) {
        const jload *load = &scope->loads[i];
        jvalue *slot = &run->act->slots[load->slot];
        switch (load->kind) {
        case LOAD_PARAM:
            break;
        case LOAD_RESOLVE:
            if (!resolve(run, load->from.name, slot)) {
                return false;
            }
            break;
        case LOAD_ALIAS:
            *slot = *du_jinja_slot(run, load->from);
            break;
        case LOAD_UNSET:
            *slot = (jvalue){.type = J_MISSING};
            break;
        }
    }
    return true;
}

/* Behind its end a scope's variables have no value, also for a macro that remembers them. */
void du_jinja_leave_scope(jrun *run, const jscope *scope) {
    for (int32_t i = 0; i < scope->n; i++) {
        run->act->slots[scope->loads[i].slot] = (jvalue){.type = J_MISSING};
    }
}

jact *du_jinja_act_new(jrun *run, jact *outer, int32_t n_slots) {
    jact *act = du_jinja_run_alloc(run, 1, sizeof *act);
    if (!act) {
        return NULL;
    }
    act->outer = outer;
    act->slots = du_jinja_run_alloc(run, n_slots, sizeof *act->slots);
    return act->slots ? act : NULL;
}

/* ---- output -------------------------------------------------------------------------------- */

/* Cuts what was written since `start` off the output. */
bool du_jinja_captured(jrun *run, size_t start, jvalue *out) {
    if (run->out.failed) {
        return du_jinja_fail_memory(run);
    }
    bool ok = du_jinja_str_copy(run, du_str_get(&run->out) + start, run->out.len - start, out);
    run->out.len = start;
    return ok;
}

static bool exec_output(jrun *run, const jnode *node) {
    for (int32_t i = 0; i < node->list.items.n; i++) {
        jvalue v;
        if (!du_jinja_eval(run, node->list.items.items[i], &v) ||
            !du_jinja_print(run, &run->out, v)) {
            return false;
        }
    }
    return true;
}

/* Runs the body of a block in its scope and gives its text. */
static jflow exec_captured(jrun *run, const jnodes *body, const jscope *scope, jvalue *out) {
    size_t start = run->out.len;
    if (!du_jinja_enter_scope(run, scope)) {
        return FLOW_FAIL;
    }
    jflow f = du_jinja_exec_body(run, body);
    if (f != FLOW_FAIL && !du_jinja_captured(run, start, out)) {
        return FLOW_FAIL;
    }
    return f;
}

static jflow exec_filter_block(jrun *run, const jnode *node) {
    jvalue text, result, outer = run->block_text;
    jflow f = exec_captured(run, &node->set.body, &node->set.scope, &text);
    if (f != FLOW_NEXT) {
        return f;
    }
    run->block_text = text;
    bool ok =
        du_jinja_eval(run, node->set.value, &result) && du_jinja_print(run, &run->out, result);
    run->block_text = outer;
    du_jinja_leave_scope(run, &node->set.scope);
    return flow_of(ok);
}

/* ---- assignments --------------------------------------------------------------------------- */

static bool assign_tuple(jrun *run, const jnodes *targets, jvalue v) {
    jvalue list;
    if (!du_jinja_to_list(run, v, J_LIST, &list)) {
        return false;
    }
    if (list.list->n != targets->n) {
        return du_jinja_fail(run, DU_EFORMAT, "%lld values for %d variables",
                             (long long)list.list->n, targets->n);
    }
    for (int32_t i = 0; i < targets->n; i++) {
        if (!du_jinja_assign(run, targets->items[i], list.list->items[i])) {
            return false;
        }
    }
    return true;
}

bool du_jinja_assign(jrun *run, const jnode *target, jvalue v) {
    if (target->type == N_TUPLE) {
        return assign_tuple(run, &target->list.items, v);
    }
    jvalue *slot = du_jinja_slot(run, target->var.ref);
    if (target->type == N_NAME) {
        *slot = v;
        return true;
    }
    if (slot->type != J_NAMESPACE) {
        return du_jinja_fail(run, DU_EFORMAT, "%.*s is no namespace, its attribute cannot be set",
                             (int)run->template->names[target->var.ref.name]->len,
                             run->template->names[target->var.ref.name]->s);
    }
    return du_jinja_dict_set(run, slot->dict, j_str(target->var.attr), v);
}

static jflow exec_set_block(jrun *run, const jnode *node) {
    jvalue text, outer = run->block_text;
    jflow f = exec_captured(run, &node->set.body, &node->set.scope, &text);
    if (f != FLOW_NEXT) {
        return f;
    }
    run->block_text = text;
    bool ok = !node->set.value || du_jinja_eval(run, node->set.value, &text);
    run->block_text = outer;
    ok = ok && du_jinja_assign(run, node->set.target, text);
    du_jinja_leave_scope(run, &node->set.scope);
    return flow_of(ok);
}

static bool exec_set(jrun *run, const jnode *node) {
    jvalue v;
    return du_jinja_eval(run, node->set.value, &v) && du_jinja_assign(run, node->set.target, v);
}

static jflow exec_with(jrun *run, const jnode *node) {
    if (!du_jinja_enter_scope(run, &node->with.scope)) {
        return FLOW_FAIL;
    }
    for (int32_t i = 0; i < node->with.targets.n; i++) {
        jvalue v;
        if (!du_jinja_eval(run, node->with.values.items[i], &v) ||
            !du_jinja_assign(run, node->with.targets.items[i], v)) {
            return FLOW_FAIL;
        }
    }
    jflow f = du_jinja_exec_body(run, &node->with.body);
    du_jinja_leave_scope(run, &node->with.scope);
    return f;
}

/* ---- statements ---------------------------------------------------------------------------- */

static jflow exec_if(jrun *run, const jnode *node) {
    int32_t i = 0;
    for (; i < node->branch.tests.n; i++) {
        jvalue v;
        bool yes;
        if (!du_jinja_eval(run, node->branch.tests.items[i], &v) || !du_jinja_truth(run, v, &yes)) {
            return FLOW_FAIL;
        }
        if (yes) {
            break;
        }
    }
    return i < node->branch.n_bodies ? du_jinja_exec_body(run, &node->branch.bodies[i]) : FLOW_NEXT;
}

static jflow exec_generation(jrun *run, const jnode *node) {
    if (!du_jinja_enter_scope(run, &node->set.scope)) {
        return FLOW_FAIL;
    }
    jflow f = du_jinja_exec_body(run, &node->set.body);
    du_jinja_leave_scope(run, &node->set.scope);
    return f;
}

static jflow exec_node(jrun *run, const jnode *node) {
    jvalue macro;
    switch (node->type) {
    case N_OUTPUT:
        return flow_of(exec_output(run, node));
    case N_IF:
        return exec_if(run, node);
    case N_FOR:
        return du_jinja_exec_for(run, node);
    case N_SET:
        return flow_of(exec_set(run, node));
    case N_SET_BLOCK:
        return exec_set_block(run, node);
    case N_WITH:
        return exec_with(run, node);
    case N_MACRO:
        if (!du_jinja_macro_new(run, node, &macro)) {
            return FLOW_FAIL;
        }
        *du_jinja_slot(run, node->macro.ref) = macro;
        return FLOW_NEXT;
    case N_CALL_BLOCK:
        return flow_of(du_jinja_exec_call_block(run, node));
    case N_FILTER_BLOCK:
        return exec_filter_block(run, node);
    case N_GENERATION:
        return exec_generation(run, node);
    case N_BREAK:
        return FLOW_BREAK;
    default:
        return FLOW_CONTINUE;
    }
}

jflow du_jinja_exec_body(jrun *run, const jnodes *body) {
    for (int32_t i = 0; i < body->n; i++) {
        int32_t line = run->line;
        run->line = body->items[i]->line;
        if (!du_jinja_spend(run, 0) || !du_jinja_deeper(run)) {
            return FLOW_FAIL;
        }
        jflow f = exec_node(run, body->items[i]);
        run->depth--;
        if (f != FLOW_NEXT) {
            return f;
        }
        run->line = line;
    }
    return FLOW_NEXT;
}

bool du_jinja_render_body(jrun *run) {
    const du_jinja *t = run->template;
    run->act = du_jinja_act_new(run, NULL, t->n_slots);
    return run->act && du_jinja_enter_scope(run, &t->scope) &&
           du_jinja_exec_body(run, &t->body) != FLOW_FAIL;
}
