/* Scopes of a Jinja template, settled before anything runs.
 *
 * Jinja2 compiles templates to Python and decides at that time, for each scope (template, loop
 * body, else branch, loop test, macro, with, set and filter block), how each of its names starts:
 *
 *   first read, unknown further out       from the caller's variables or the global functions
 *   first written, known further out      with the value further out
 *   first written, unknown further out    without a value, even if the caller gave one;
 *                                         but as if read when it is written in a branch of an if
 *   parameter (loop variable, ...)        set by whoever enters
 *
 * Reading alone what is known further out makes no name in the scope. A write reaches only the
 * scope it stands in; branches of an if are no scopes. A scope is settled whole, before the scopes
 * inside it, so that a loop body sees names which the template sets behind the loop (without a
 * value yet).
 *
 * Here each name of a scope gets a slot in the activation of its function; names[] holds for each
 * name the innermost binding while the tree is walked. */
#include "text/jinja_int.h"
#include "text/jinja_text.h"

typedef struct function {
    struct function *outer;
    int32_t n_slots;
    int32_t depth; /* 0: the template */
} function;

typedef struct binding binding;
typedef struct scope scope;

/* A name in a scope. */
struct binding {
    int32_t name, slot;
    jload_kind kind;
    jref from; /* LOAD_ALIAS */
    scope *owner;
    binding *shadows; /* of the same name, further out */
    binding *next;    /* in the owner */
};

struct scope {
    function *fn;
    binding *first;
    int32_t n;
    bool in_loop; /* break and continue have a loop */
};

typedef struct {
    du_jinja *t;
    binding **names;
    scope *cur;
    int n_fors; /* open loops around here */
    int n_ifs;  /* open ifs (in settle: inline ones too) between the scope's start and here */
    du_diag *diag;
    du_err err;
} walker;

static bool fail_scope(walker *w, du_err code, int32_t line, const char *what, const jstr *name) {
    char shown[61] = "";
    if (name) {
        snprintf(shown, sizeof shown, "%.*s", (int)(name->len < 60 ? name->len : 60), name->s);
        du_jinja_mend(shown);
    }
    if (w->err == DU_OK) {
        w->err = du_fail(w->diag, code, "%s: line %d: %s%s", w->t->name, line, what, shown);
    }
    return false;
}

static bool fail_nomem(walker *w) {
    if (w->err == DU_OK) {
        w->err = du_fail_nomem(w->diag, "a template");
    }
    return false;
}

/* ---- which names a scope has --------------------------------------------------------------- */

static bool bind(walker *w, int32_t name, jload_kind kind) {
    binding *b = du_jinja_alloc(&w->t->pool, 1, sizeof *b);
    if (!b) {
        return fail_nomem(w);
    }
    binding *outer = w->names[name];
    *b = (binding){.name = name,
                   .slot = w->cur->fn->n_slots++,
                   .kind = kind,
                   .owner = w->cur,
                   .shadows = outer,
                   .next = w->cur->first};
    if (kind == LOAD_ALIAS) {
        b->from = (jref){name, w->cur->fn->depth - outer->owner->fn->depth, outer->slot};
    }
    w->cur->first = b;
    w->cur->n++;
    w->names[name] = b;
    return true;
}

static bool note_read(walker *w, int32_t name) {
    w->t->reads[name] = true;
    return w->names[name] || bind(w, name, LOAD_RESOLVE);
}

static bool note_write(walker *w, int32_t name) {
    binding *b = w->names[name];
    if (b && b->owner == w->cur) {
        return true;
    }
    return bind(w, name, b ? LOAD_ALIAS : w->n_ifs ? LOAD_RESOLVE : LOAD_UNSET);
}

static bool note_param(walker *w, int32_t name) {
    binding *b = w->names[name];
    if (b && b->owner == w->cur) {
        b->kind = LOAD_PARAM;
        return true;
    }
    return bind(w, name, LOAD_PARAM);
}

static bool note_params(walker *w, const jnode *target) {
    if (target->type != N_TUPLE) {
        return note_param(w, target->var.ref.name);
    }
    for (int32_t i = 0; i < target->list.items.n; i++) {
        if (!note_params(w, target->list.items.items[i])) {
            return false;
        }
    }
    return true;
}

static bool note(void *data, jnode *node);

static bool note_all(walker *w, const jnodes *nodes) {
    for (int32_t i = 0; i < nodes->n; i++) {
        if (!note(w, nodes->items[i])) {
            return false;
        }
    }
    return true;
}

static bool note_if(walker *w, const jnode *node) {
    bool ok = true;
    for (int32_t i = 0; ok && i < node->branch.n_bodies; i++) {
        ok = i >= node->branch.tests.n || note(w, node->branch.tests.items[i]);
        w->n_ifs++;
        ok = ok && note_all(w, &node->branch.bodies[i]);
        w->n_ifs--;
    }
    return ok;
}

/* What a node reads and writes in the current scope; not what scopes inside it do. */
static bool note(void *data, jnode *node) {
    walker *w = data;
    switch (node->type) {
    case N_NAME:
        return node->var.store ? note_write(w, node->var.ref.name)
                               : note_read(w, node->var.ref.name);
    case N_NSREF:
        return note_read(w, node->var.ref.name);
    case N_IF:
        return note_if(w, node);
    case N_FOR:
        return note(w, node->loop.iter);
    case N_SET:
        return note(w, node->set.value) && note(w, node->set.target);
    case N_SET_BLOCK:
        return note(w, node->set.target);
    case N_WITH:
        return note_all(w, &node->with.values);
    case N_MACRO:
        return note_write(w, node->macro.ref.name);
    case N_CALL_BLOCK:
        return note(w, node->macro.call);
    case N_FILTER_BLOCK:
        return note(w, node->set.value);
    case N_GENERATION:
        return true;
    default:
        return du_jinja_each_child(node, note, w);
    }
}

/* ---- names that a macro or loop uses without declaring them --------------------------------- */

typedef struct {
    const walker *w;
    const char *name;
    bool found, declared;
} seeker;

static bool seek(void *data, jnode *node) {
    seeker *s = data;
    if (s->found || s->declared) {
        return true;
    }
    if (node->type == N_NAME && du_sv_is(j_view(s->w->t->names[node->var.ref.name]), s->name)) {
        s->found = !node->var.store;
        s->declared = node->var.store;
        return true;
    }
    return du_jinja_each_child(node, seek, s);
}

/* Whether the body, or anything inside it, reads the name before it is written. */
static bool uses(const walker *w, const jnodes *body, const char *name) {
    seeker s = {.w = w, .name = name};
    for (int32_t i = 0; i < body->n; i++) {
        seek(&s, body->items[i]);
    }
    return s.found;
}

static int32_t name_index(const walker *w, const char *name) {
    int64_t *at = du_hash_find(&w->t->index, du_sv_of(name));
    return at ? (int32_t)*at : -1;
}

/* Declares a special name as a parameter if the body uses it; its slot, or -1. */
static bool declare_special(walker *w, const jnodes *body, const char *name, int32_t *slot) {
    *slot = -1;
    if (!uses(w, body, name)) {
        return true;
    }
    int32_t index = name_index(w, name);
    if (!note_param(w, index)) {
        return false;
    }
    *slot = w->names[index]->slot;
    return true;
}

/* ---- slots of the names, and the scopes inside ---------------------------------------------- */

static bool settle(void *data, jnode *node);

static bool settle_all(walker *w, const jnodes *nodes) {
    for (int32_t i = 0; i < nodes->n; i++) {
        if (!settle(w, nodes->items[i])) {
            return false;
        }
    }
    return true;
}

static void enter(walker *w, scope *s, function *fn) {
    *s = (scope){.fn = fn};
    w->cur = s;
}

/* Writes down how the scope's names start, and forgets them. */
static bool leave(walker *w, scope *outer, jscope *out) {
    scope *s = w->cur;
    out->n = s->n;
    out->loads = du_jinja_alloc(&w->t->pool, (size_t)s->n, sizeof *out->loads);
    int32_t i = 0;
    for (binding *b = s->first; b; b = b->next) {
        jref from = b->kind == LOAD_ALIAS ? b->from : (jref){.name = b->name};
        if (out->loads) {
            out->loads[i++] = (jload){.kind = b->kind, .slot = b->slot, .from = from};
        }
        w->names[b->name] = b->shadows;
    }
    w->cur = outer;
    return out->loads ? w->err == DU_OK : fail_nomem(w);
}

static jref ref_of(const walker *w, int32_t name) {
    const binding *b = w->names[name];
    return (jref){name, w->cur->fn->depth - b->owner->fn->depth, b->slot};
}

/* A scope without parameters; filter: of a block, NULL. */
static bool settle_scope(walker *w, const jnodes *body, jnode *filter, bool in_loop, jscope *out) {
    scope s, *outer = w->cur;
    int n_ifs = w->n_ifs;
    enter(w, &s, outer->fn);
    s.in_loop = in_loop;
    w->n_ifs = 0;
    bool ok = note_all(w, body) && (!filter || note(w, filter)) && settle_all(w, body) &&
              (!filter || settle(w, filter));
    w->n_ifs = n_ifs;
    return leave(w, outer, out) && ok;
}

static bool settle_loop_body(walker *w, jnode *node) {
    scope s, *outer = w->cur;
    int n_ifs = w->n_ifs;
    enter(w, &s, outer->fn);
    s.in_loop = true;
    w->n_ifs = 0;
    bool ok = declare_special(w, &node->loop.body, "loop", &node->loop.loop_slot);
    ok = ok && note_params(w, node->loop.target) && note_all(w, &node->loop.body) &&
         settle(w, node->loop.target) && settle_all(w, &node->loop.body);
    w->n_ifs = n_ifs;
    return leave(w, outer, &node->loop.body_scope) && ok;
}

static bool settle_loop_test(walker *w, jnode *node) {
    scope s, *outer = w->cur;
    enter(w, &s, outer->fn);
    bool ok = note_params(w, node->loop.test_target) && note(w, node->loop.test) &&
              settle(w, node->loop.test_target) && settle(w, node->loop.test);
    return leave(w, outer, &node->loop.test_scope) && ok;
}

static bool is_loop_target(const walker *w, const jnode *target) {
    if (target->type != N_TUPLE) {
        return target->type == N_NAME &&
               du_sv_is(j_view(w->t->names[target->var.ref.name]), "loop");
    }
    for (int32_t i = 0; i < target->list.items.n; i++) {
        if (is_loop_target(w, target->list.items.items[i])) {
            return true;
        }
    }
    return false;
}

static bool fail_loop_target(walker *w, const jnode *node) {
    return fail_scope(w, DU_EFORMAT, node->line, "a loop's variable `loop` cannot be assigned to",
                      NULL);
}

static bool settle_for(walker *w, jnode *node) {
    scope *outer = w->cur, call;
    function fn = {.outer = outer->fn, .depth = outer->fn->depth + 1};
    if (is_loop_target(w, node->loop.target)) {
        return fail_loop_target(w, node);
    }
    if (!settle(w, node->loop.iter)) {
        return false;
    }
    if (node->loop.recursive) { /* its scopes live in a function of their own */
        call = (scope){.fn = &fn};
        w->cur = &call;
    }
    w->n_fors++;
    bool ok = settle_loop_body(w, node) && (!node->loop.test || settle_loop_test(w, node)) &&
              settle_scope(w, &node->loop.otherwise, NULL, outer->in_loop && !node->loop.recursive,
                           &node->loop.else_scope);
    w->n_fors--;
    w->cur = outer;
    node->loop.n_slots = fn.n_slots;
    return ok;
}

/* The special names that a macro's body uses, unless they are ordinary parameters of it. */
static bool declare_specials(walker *w, jnode *node) {
    static const char *const names[] = {"caller", "kwargs", "varargs"};
    int32_t *const slots[] = {&node->macro.caller_slot, &node->macro.kwargs_slot,
                              &node->macro.varargs_slot};
    for (int k = 0; k < 3; k++) {
        bool ordinary = false;
        for (int32_t i = 0; i < node->macro.params.n; i++) {
            int32_t name = node->macro.params.items[i]->var.ref.name;
            ordinary = ordinary || du_sv_is(j_view(w->t->names[name]), names[k]);
        }
        *slots[k] = -1;
        if (!ordinary && !declare_special(w, &node->macro.body, names[k], slots[k])) {
            return false;
        }
    }
    return true;
}

/* A macro, or the body of a call block. */
static bool settle_macro(walker *w, jnode *node) {
    scope s, *outer = w->cur;
    function fn = {.outer = outer->fn, .depth = outer->fn->depth + 1};
    int n_ifs = w->n_ifs;
    enter(w, &s, &fn);
    w->n_ifs = 0;
    bool ok = true;
    for (int32_t i = 0; ok && i < node->macro.params.n; i++) {
        ok = note_param(w, node->macro.params.items[i]->var.ref.name);
    }
    ok = ok && note_all(w, &node->macro.defaults) && note_all(w, &node->macro.body) &&
         declare_specials(w, node) && settle_all(w, &node->macro.params) &&
         settle_all(w, &node->macro.defaults) && settle_all(w, &node->macro.body);
    w->n_ifs = n_ifs;
    node->macro.n_slots = fn.n_slots;
    return leave(w, outer, &node->macro.scope) && ok;
}

static bool settle_with(walker *w, jnode *node) {
    scope s, *outer = w->cur;
    int n_ifs = w->n_ifs;
    if (!settle_all(w, &node->with.values)) {
        return false;
    }
    enter(w, &s, outer->fn);
    s.in_loop = outer->in_loop;
    w->n_ifs = 0;
    bool ok = true;
    for (int32_t i = 0; ok && i < node->with.targets.n; i++) {
        ok = note_params(w, node->with.targets.items[i]);
    }
    ok = ok && note_all(w, &node->with.body) && settle_all(w, &node->with.targets) &&
         settle_all(w, &node->with.body);
    w->n_ifs = n_ifs;
    return leave(w, outer, &node->with.scope) && ok;
}

static bool settle_if(walker *w, jnode *node) {
    bool ok = true;
    w->n_ifs++;
    for (int32_t i = 0; ok && i < node->branch.n_bodies; i++) {
        ok = (i >= node->branch.tests.n || settle(w, node->branch.tests.items[i])) &&
             settle_all(w, &node->branch.bodies[i]);
    }
    w->n_ifs--;
    return ok;
}

/* An unknown filter or test is a mistake of the template, but inside an if only when it is
 * reached: templates ask that way what the implementation has. */
static bool settle_apply(walker *w, jnode *node) {
    if (!node->call.def && !w->n_ifs) {
        return fail_scope(w, DU_EFORMAT, node->line,
                          node->type == N_FILTER ? "unknown filter " : "unknown test ",
                          node->call.name);
    }
    return du_jinja_each_child(node, settle, w);
}

static bool settle(void *data, jnode *node) {
    walker *w = data;
    bool in_loop = w->cur->in_loop, ok;
    switch (node->type) {
    case N_NAME:
    case N_NSREF:
        node->var.ref = ref_of(w, node->var.ref.name);
        return true;
    case N_COND:
        w->n_ifs++;
        ok = du_jinja_each_child(node, settle, w);
        w->n_ifs--;
        return ok;
    case N_FILTER:
    case N_TEST:
        return settle_apply(w, node);
    case N_IF:
        return settle_if(w, node);
    case N_FOR:
        return settle_for(w, node);
    case N_SET:
        return w->n_fors && is_loop_target(w, node->set.target)
                   ? fail_loop_target(w, node)
                   : settle(w, node->set.value) && settle(w, node->set.target);
    case N_SET_BLOCK:
        if (w->n_fors && is_loop_target(w, node->set.target)) {
            return fail_loop_target(w, node);
        }
        return settle(w, node->set.target) &&
               settle_scope(w, &node->set.body, node->set.value, in_loop, &node->set.scope);
    case N_FILTER_BLOCK:
        return settle_scope(w, &node->set.body, node->set.value, in_loop, &node->set.scope);
    case N_GENERATION:
        return settle_scope(w, &node->set.body, NULL, false, &node->set.scope);
    case N_WITH:
        return settle_with(w, node);
    case N_MACRO:
        node->macro.ref = ref_of(w, node->macro.ref.name);
        return settle_macro(w, node);
    case N_CALL_BLOCK:
        return settle(w, node->macro.call) && settle_macro(w, node);
    case N_BREAK:
    case N_CONTINUE:
        return in_loop || fail_scope(w, DU_EFORMAT, node->line,
                                     node->type == N_BREAK ? "break outside of a loop"
                                                           : "continue outside of a loop",
                                     NULL);
    default:
        return du_jinja_each_child(node, settle, w);
    }
}

du_err du_jinja_resolve_scopes(du_jinja *t, du_diag *diag) {
    walker w = {.t = t, .diag = diag};
    function fn = {0};
    scope top;
    w.names = du_jinja_alloc(&t->pool, t->n_names, sizeof *w.names);
    if (!w.names) {
        return du_fail_nomem(diag, "a template");
    }
    enter(&w, &top, &fn);
    bool ok = note_all(&w, &t->body) && settle_all(&w, &t->body);
    t->n_slots = fn.n_slots;
    return leave(&w, NULL, &t->scope) && ok ? DU_OK : w.err;
}
