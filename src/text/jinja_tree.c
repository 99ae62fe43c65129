/* Walking the tree of a Jinja template. */
#include "text/jinja_int.h"

typedef bool visit_fn(void *data, jnode *child);

static bool each(const jnodes *nodes, visit_fn *visit, void *data) {
    for (int32_t i = 0; i < nodes->n; i++) {
        if (!visit(data, nodes->items[i])) {
            return false;
        }
    }
    return true;
}

static bool one(jnode *node, visit_fn *visit, void *data) {
    return !node || visit(data, node);
}

static bool each_of_if(jnode *node, visit_fn *visit, void *data) {
    bool ok = true;
    for (int32_t i = 0; ok && i < node->branch.n_bodies; i++) {
        ok = (i >= node->branch.tests.n || visit(data, node->branch.tests.items[i])) &&
             each(&node->branch.bodies[i], visit, data);
    }
    return ok;
}

static bool each_of_macro(jnode *node, visit_fn *visit, void *data) {
    return one(node->type == N_CALL_BLOCK ? node->macro.call : NULL, visit, data) &&
           each(&node->macro.params, visit, data) && each(&node->macro.defaults, visit, data) &&
           each(&node->macro.body, visit, data);
}

bool du_jinja_each_child(jnode *node, bool (*visit)(void *data, jnode *child), void *data) {
    switch (node->type) {
    case N_CONST:
    case N_NAME:
    case N_NSREF:
    case N_BREAK:
    case N_CONTINUE:
        return true;
    case N_TUPLE:
    case N_LIST:
    case N_DICT:
    case N_COMPARE:
    case N_CONCAT:
    case N_OUTPUT:
        return each(&node->list.items, visit, data);
    case N_COND:
        return visit(data, node->cond.test) && visit(data, node->cond.yes) &&
               one(node->cond.no, visit, data);
    case N_AND:
    case N_OR:
    case N_NOT:
    case N_NEG:
    case N_POS:
    case N_BINARY:
        return visit(data, node->bin.left) && one(node->bin.right, visit, data);
    case N_GETATTR:
    case N_GETITEM:
        return visit(data, node->get.object) && one(node->get.key, visit, data);
    case N_SLICE:
        return one(node->slice.start, visit, data) && one(node->slice.stop, visit, data) &&
               one(node->slice.step, visit, data);
    case N_CALL:
    case N_FILTER:
    case N_TEST:
        return one(node->call.target, visit, data) && each(&node->call.args, visit, data) &&
               each(&node->call.kwargs, visit, data) && one(node->call.dyn_args, visit, data) &&
               one(node->call.dyn_kwargs, visit, data);
    case N_IF:
        return each_of_if(node, visit, data);
    case N_FOR:
        return visit(data, node->loop.target) && visit(data, node->loop.iter) &&
               each(&node->loop.body, visit, data) && each(&node->loop.otherwise, visit, data) &&
               one(node->loop.test, visit, data);
    case N_SET:
    case N_SET_BLOCK:
    case N_FILTER_BLOCK:
    case N_GENERATION:
        return one(node->set.target, visit, data) && one(node->set.value, visit, data) &&
               each(&node->set.body, visit, data);
    case N_WITH:
        return each(&node->with.targets, visit, data) && each(&node->with.values, visit, data) &&
               each(&node->with.body, visit, data);
    case N_MACRO:
    case N_CALL_BLOCK:
        return each_of_macro(node, visit, data);
    }
    return true;
}

typedef struct {
    int depth;
    int32_t line; /* where it got too deep, 0: nowhere */
} measure;

static bool measure_node(void *data, jnode *node) {
    measure *m = data;
    if (++m->depth > J_TREE_MAX) {
        m->line = node->line;
        return false;
    }
    bool ok = du_jinja_each_child(node, measure_node, m);
    m->depth--;
    return ok;
}

bool du_jinja_too_deep(const jnodes *body, int32_t *line) {
    measure m = {0};
    bool deep = !each(body, measure_node, &m);
    *line = m.line;
    return deep;
}

jnode *du_jinja_copy_target(jparser *p, const jnode *target) {
    jnode *copy = du_jinja_node_new(p, target->type, target->line);
    if (!copy) {
        return NULL;
    }
    if (target->type != N_TUPLE) {
        copy->var = target->var;
        return copy;
    }
    for (int32_t i = 0; i < target->list.items.n; i++) {
        jnode *item = du_jinja_copy_target(p, target->list.items.items[i]);
        if (!du_jinja_nodes_add(p, &copy->list.items, item)) {
            return NULL;
        }
    }
    return copy;
}
