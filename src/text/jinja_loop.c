/* The statement for, and the variable `loop`.
 *
 * The variables of the body start afresh in each round. The branch `else` runs when no round came
 * to the end of its body: so also when each ended in break or continue, as in Jinja2. A recursive
 * loop is a function that the variable `loop` can be called as. */
#include "text/jinja_int.h"

/* `for x in items if test`: the items that pass, tested in a scope of their own. */
static bool next_tested(jrun *run, jiter *it, jvalue *out, bool *more) {
    const jnode *node = it->lazy->node;
    jact *act = run->act;
    run->act = it->lazy->act;
    bool ok = true, pass = false;
    while (ok && !pass) {
        jvalue verdict;
        ok = du_jinja_next(run, it->src.iter, out, more);
        if (!ok || !*more) {
            break;
        }
        ok = du_jinja_assign(run, node->loop.test_target, *out) &&
             du_jinja_eval(run, node->loop.test, &verdict) && du_jinja_truth(run, verdict, &pass);
    }
    run->act = act;
    return ok;
}

static bool tested_iter(jrun *run, const jnode *node, jiter *inner, jiter **out) {
    jlazy *lazy = du_jinja_run_alloc(run, 1, sizeof *lazy);
    jvalue src = {.type = J_ITER, .iter = inner};
    if (!lazy || !du_jinja_enter_scope(run, &node->loop.test_scope) ||
        !du_jinja_iter_new(run, src, next_tested, "generator", out)) {
        return false;
    }
    lazy->node = node;
    lazy->act = run->act;
    (*out)->lazy = lazy;
    return true;
}

/* The next item of the loop, which may have been looked at already. */
static bool loop_next(jrun *run, jloop *loop, jvalue *item, bool *more) {
    *more = j_given(loop->after);
    *item = loop->after;
    if (!*more && !du_jinja_next(run, loop->iter, item, more)) {
        return false;
    }
    loop->after = (jvalue){.type = J_MISSING};
    if (*more) {
        loop->index0++;
        loop->before = loop->current;
        loop->current = *item;
    }
    return true;
}

bool du_jinja_loop_peek(jrun *run, jloop *loop, jvalue *out) {
    bool more;
    if (!j_given(loop->after)) {
        if (!du_jinja_next(run, loop->iter, &loop->after, &more)) {
            return false;
        }
        if (!more) {
            loop->after = (jvalue){.type = J_MISSING};
        }
    }
    *out = loop->after;
    return true;
}

/* A sequence without a length is read to its end to know it. */
bool du_jinja_loop_length(jrun *run, jloop *loop, int64_t *out) {
    if (loop->length < 0 && !du_jinja_length(run, loop->iterable, &loop->length)) {
        return false;
    }
    if (loop->length < 0) {
        jvalue rest = {.type = J_ITER, .iter = loop->iter};
        if (!du_jinja_to_list(run, rest, J_LIST, &rest) || !du_jinja_iter(run, rest, &loop->iter)) {
            return false;
        }
        loop->length = rest.list->n + loop->index0 + 1 + j_given(loop->after);
    }
    *out = loop->length;
    return true;
}

/* All rounds; *none stays true when no round came to the end of the body. */
static jflow loop_rounds(jrun *run, const jnode *node, jloop *loop, bool *none) {
    for (;;) {
        jvalue item;
        bool more;
        if (!loop_next(run, loop, &item, &more)) {
            return FLOW_FAIL;
        }
        if (!more) {
            return FLOW_NEXT;
        }
        if (!du_jinja_enter_scope(run, &node->loop.body_scope) ||
            !du_jinja_assign(run, node->loop.target, item)) {
            return FLOW_FAIL;
        }
        jflow f = du_jinja_exec_body(run, &node->loop.body);
        if (f == FLOW_FAIL) {
            return f;
        }
        if (f == FLOW_BREAK) {
            return FLOW_NEXT;
        }
        *none = *none && f == FLOW_CONTINUE;
    }
}

static jflow exec_else(jrun *run, const jnode *node) {
    if (!du_jinja_enter_scope(run, &node->loop.else_scope)) {
        return FLOW_FAIL;
    }
    jflow f = du_jinja_exec_body(run, &node->loop.otherwise);
    du_jinja_leave_scope(run, &node->loop.else_scope);
    return f;
}

static jloop *loop_new(jrun *run, const jnode *node, jact *closure, jvalue iterable,
                       int64_t depth0) {
    jloop *loop = du_jinja_run_alloc(run, 1, sizeof *loop);
    if (!loop || !du_jinja_iter(run, iterable, &loop->iter)) {
        return NULL;
    }
    if (node->loop.test) {
        if (!tested_iter(run, node, loop->iter, &loop->iter)) {
            return NULL;
        }
        iterable = (jvalue){.type = J_ITER, .iter = loop->iter};
    }
    loop->node = node;
    loop->closure = closure;
    loop->iterable = iterable;
    loop->index0 = -1;
    loop->depth0 = depth0;
    loop->length = -1;
    return loop;
}

static jflow run_loop(jrun *run, const jnode *node, jact *closure, jvalue iterable,
                      int64_t depth0) {
    bool none = true;
    jloop *loop = loop_new(run, node, closure, iterable, depth0);
    if (!loop) {
        return FLOW_FAIL;
    }
    if (node->loop.loop_slot >= 0) {
        run->act->slots[node->loop.loop_slot] = (jvalue){.type = J_LOOP, .loop = loop};
    }
    if (loop_rounds(run, node, loop, &none) == FLOW_FAIL) {
        return FLOW_FAIL;
    }
    du_jinja_leave_scope(run, &node->loop.body_scope);
    return none && node->loop.otherwise.n ? exec_else(run, node) : FLOW_NEXT;
}

/* A recursive loop is a function: each call has variables of its own. */
static bool run_recursive(jrun *run, const jnode *node, jact *closure, jvalue iterable,
                          int64_t depth0) {
    jact *caller = run->act;
    run->act = du_jinja_act_new(run, closure, node->loop.n_slots);
    bool ok = run->act && run_loop(run, node, closure, iterable, depth0) != FLOW_FAIL;
    run->act = caller;
    return ok;
}

bool du_jinja_loop_call(jrun *run, jloop *loop, jvalue iterable, jvalue *out) {
    size_t start = run->out.len;
    if (!loop->node->loop.recursive) {
        return du_jinja_fail(run, DU_EFORMAT, "loop is called, but its for is not `recursive`");
    }
    return run_recursive(run, loop->node, loop->closure, iterable, loop->depth0 + 1) &&
           du_jinja_captured(run, start, out);
}

jflow du_jinja_exec_for(jrun *run, const jnode *node) {
    jvalue iterable;
    if (!du_jinja_eval(run, node->loop.iter, &iterable)) {
        return FLOW_FAIL;
    }
    if (node->loop.recursive) {
        return run_recursive(run, node, run->act, iterable, 0) ? FLOW_NEXT : FLOW_FAIL;
    }
    return run_loop(run, node, run->act, iterable, 0);
}
