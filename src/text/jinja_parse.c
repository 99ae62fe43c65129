/* Expressions of a Jinja template: tokens to tree, by recursive descent.
 *
 * From the weakest binding to the strongest: inline if; or; and; not; comparisons, in, not in;
 * + -; ~; * / // %; **; signs; attributes, items and calls; filters and tests. As in Jinja2 (and
 * unlike Python) ** groups to the left, ~ binds tighter than +, and a sign belongs to the name
 * right of it, before filters. */
#include <stdarg.h>

#include "text/jinja_int.h"
#include "text/jinja_text.h"

/* ---- tools --------------------------------------------------------------------------------- */

void du_jinja_parse_error(jparser *p, du_err code, int32_t line, const char *fmt, ...) {
    char text[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    du_jinja_mend(text);
    if (p->err == DU_OK && p->lex.err != DU_OK) {
        p->err = p->lex.err;
    }
    if (p->err == DU_OK) {
        p->err = du_fail(p->lex.diag, code, "%s: line %d: %s", p->lex.name, line, text);
    }
}

void du_jinja_parse_nomem(jparser *p) {
    if (p->err == DU_OK) {
        p->err = du_fail_nomem(p->lex.diag, "a template");
    }
}

void du_jinja_advance(jparser *p) {
    p->cur = p->next;
    p->next = du_jinja_lex_next(&p->lex);
}

jnode *du_jinja_node_new(jparser *p, jnode_type type, int32_t line) {
    jnode *node = du_jinja_alloc(&p->template->pool, 1, sizeof *node);
    if (!node) {
        du_jinja_parse_nomem(p);
        return NULL;
    }
    node->type = type;
    node->line = line;
    return node;
}

bool du_jinja_nodes_add(jparser *p, jnodes *list, jnode *node) {
    if (!node) {
        return false;
    }
    if ((list->n & (list->n - 1)) == 0) { /* full: the capacity is the next power of two */
        size_t cap = list->n ? (size_t)list->n * 2 : 1;
        jnode **items = du_jinja_alloc(&p->template->pool, cap, sizeof *items);
        if (!items) {
            du_jinja_parse_nomem(p);
            return false;
        }
        if (list->n) {
            memcpy(items, list->items, (size_t)list->n * sizeof *items);
        }
        list->items = items;
    }
    list->items[list->n++] = node;
    return true;
}

/* What a message calls the current token. */
static const char *describe(const jparser *p, char buf[60]) {
    if (p->cur.type != T_NAME) {
        return du_jinja_token_name(p->cur.type);
    }
    snprintf(buf, 60, "%.*s", (int)(p->cur.text.len < 50 ? p->cur.text.len : 50), p->cur.text.s);
    return buf;
}

jnode *du_jinja_fail_unexpected(jparser *p, const char *wanted) {
    char buf[60];
    du_jinja_parse_error(p, DU_EFORMAT, p->cur.line, "unexpected '%s', where %s should stand",
                         describe(p, buf), wanted);
    return NULL;
}

static bool is_name(const jtoken *token, const char *name) {
    return token->type == T_NAME && du_sv_is(token->text, name);
}

bool du_jinja_at_name(const jparser *p, const char *name) {
    return is_name(&p->cur, name);
}

bool du_jinja_skip(jparser *p, jtoken_type type) {
    bool there = p->cur.type == type;
    if (there) {
        du_jinja_advance(p);
    }
    return there;
}

bool du_jinja_skip_name(jparser *p, const char *name) {
    bool there = du_jinja_at_name(p, name);
    if (there) {
        du_jinja_advance(p);
    }
    return there;
}

bool du_jinja_expect(jparser *p, jtoken_type type, jtoken *token) {
    if (p->cur.type != type) {
        char wanted[60];
        snprintf(wanted, sizeof wanted, "'%s'", du_jinja_token_name(type));
        du_jinja_fail_unexpected(p, wanted);
        return false;
    }
    if (token) {
        *token = p->cur;
    }
    du_jinja_advance(p);
    return true;
}

bool du_jinja_expect_name(jparser *p, const char *name) {
    if (!du_jinja_skip_name(p, name)) {
        char wanted[60];
        snprintf(wanted, sizeof wanted, "'%s'", name);
        du_jinja_fail_unexpected(p, wanted);
        return false;
    }
    return true;
}

bool du_jinja_enter(jparser *p) {
    if (p->depth >= J_NEST_MAX) {
        du_jinja_parse_error(p, DU_ELIMIT, p->cur.line, "nested more than %d levels deep",
                             J_NEST_MAX);
        return false;
    }
    p->depth++;
    return true;
}

/* ---- names --------------------------------------------------------------------------------- */

const jstr *du_jinja_name_str(jparser *p, du_sv text) {
    jstr *str = du_jinja_alloc(&p->template->pool, 1, sizeof *str);
    char *copy = du_jinja_alloc(&p->template->pool, text.len, 1);
    if (!str || !copy) {
        du_jinja_parse_nomem(p);
        return NULL;
    }
    memcpy(copy, text.s, text.len);
    *str = (jstr){.s = copy, .len = text.len};
    for (size_t i = 0; i < text.len; i++) {
        str->n_chars += ((unsigned char)text.s[i] & 0xc0) != 0x80;
    }
    return str;
}

/* The name's index in the template, -1 after a failure. */
static int32_t intern(jparser *p, du_sv text) {
    du_jinja *t = p->template;
    int64_t *known = du_hash_find(&t->index, text);
    if (known) {
        return (int32_t)*known;
    }
    const jstr *str = du_jinja_name_str(p, text);
    if (!str) {
        return -1;
    }
    if (!du_grow((void **)&t->names, &t->cap_names, t->n_names, sizeof *t->names) ||
        !du_grow((void **)&t->reads, &t->cap_reads, t->n_names, sizeof *t->reads) ||
        du_hash_add(&t->index, j_view(str), (int64_t)t->n_names) != DU_OK) {
        du_jinja_parse_nomem(p);
        return -1;
    }
    t->names[t->n_names] = str;
    t->reads[t->n_names] = false;
    return (int32_t)t->n_names++;
}

jnode *du_jinja_name_node(jparser *p, du_sv text, int32_t line, bool store) {
    jnode *node = du_jinja_node_new(p, N_NAME, line);
    int32_t name = node ? intern(p, text) : -1;
    if (name < 0) {
        return NULL;
    }
    node->var.ref.name = name;
    node->var.store = store;
    return node;
}

jnode *du_jinja_const_node(jparser *p, jvalue v, int32_t line) {
    jnode *node = du_jinja_node_new(p, N_CONST, line);
    if (node) {
        node->value = v;
    }
    return node;
}

/* ---- primaries ----------------------------------------------------------------------------- */

static jnode *parse_name(jparser *p, bool with_namespace) {
    jtoken token = p->cur;
    du_jinja_advance(p);
    bool yes = is_name(&token, "true") || is_name(&token, "True");
    if (yes || is_name(&token, "false") || is_name(&token, "False")) {
        return du_jinja_const_node(p, j_bool(yes), token.line);
    }
    if (is_name(&token, "none") || is_name(&token, "None")) {
        return du_jinja_const_node(p, j_none(), token.line);
    }
    jnode *node = du_jinja_name_node(p, token.text, token.line, false);
    if (!node || !with_namespace || !du_jinja_skip(p, T_DOT)) {
        return node;
    }
    if (!du_jinja_expect(p, T_NAME, &token)) {
        return NULL;
    }
    node->type = N_NSREF;
    node->var.attr = du_jinja_name_str(p, token.text);
    return node->var.attr ? node : NULL;
}

/* Texts side by side are one. */
static jnode *parse_strings(jparser *p) {
    int32_t line = p->cur.line;
    jstr *whole = du_jinja_alloc(&p->template->pool, 1, sizeof *whole);
    if (!whole) {
        du_jinja_parse_nomem(p);
        return NULL;
    }
    for (; p->cur.type == T_STRING; du_jinja_advance(p)) {
        const jstr *part = p->cur.value.s;
        if (whole->len == 0) {
            *whole = *part;
            continue;
        }
        char *bytes = du_jinja_alloc(&p->template->pool, whole->len + part->len, 1);
        if (!bytes) {
            du_jinja_parse_nomem(p);
            return NULL;
        }
        memcpy(bytes, whole->s, whole->len);
        memcpy(bytes + whole->len, part->s, part->len);
        *whole = (jstr){
            .s = bytes, .len = whole->len + part->len, .n_chars = whole->n_chars + part->n_chars};
    }
    return du_jinja_const_node(p, j_str(whole), line);
}

/* [a, b] or {a: b, c: d} behind its opening bracket. */
static jnode *parse_display(jparser *p, jnode_type type, jtoken_type end) {
    jnode *node = du_jinja_node_new(p, type, p->cur.line);
    du_jinja_advance(p);
    while (node && p->cur.type != end) {
        jnodes *items = &node->list.items;
        if (items->n && !du_jinja_expect(p, T_COMMA, NULL)) {
            return NULL;
        }
        if (p->cur.type == end) {
            break;
        }
        if (!du_jinja_nodes_add(p, items, du_jinja_parse_expr(p, true))) {
            return NULL;
        }
        if (type == N_DICT && (!du_jinja_expect(p, T_COLON, NULL) ||
                               !du_jinja_nodes_add(p, items, du_jinja_parse_expr(p, true)))) {
            return NULL;
        }
    }
    return node && du_jinja_expect(p, end, NULL) ? node : NULL;
}

static jnode *parse_parentheses(jparser *p);

jnode *du_jinja_parse_primary(jparser *p, bool with_namespace) {
    jnode *node;
    switch (p->cur.type) {
    case T_NAME:
        return parse_name(p, with_namespace);
    case T_STRING:
        return parse_strings(p);
    case T_INT:
    case T_FLOAT:
        node = du_jinja_const_node(p, p->cur.value, p->cur.line);
        du_jinja_advance(p);
        return node;
    case T_LPAREN:
        return parse_parentheses(p);
    case T_LBRACKET:
        return parse_display(p, N_LIST, T_RBRACKET);
    case T_LBRACE:
        return parse_display(p, N_DICT, T_RBRACE);
    default:
        return du_jinja_fail_unexpected(p, "an expression");
    }
}

/* ---- tuples and targets -------------------------------------------------------------------- */

typedef struct {
    bool simple;         /* names and literals only */
    bool with_cond;      /* inline if allowed */
    bool with_namespace; /* ns.attr allowed */
    bool parentheses;    /* () is an empty tuple */
} tuple_rules;

static bool at_tuple_end(const jparser *p) {
    return p->cur.type == T_VAR_END || p->cur.type == T_BLOCK_END || p->cur.type == T_RPAREN;
}

static jnode *parse_tuple(jparser *p, const tuple_rules *rules) {
    jnode *tuple = du_jinja_node_new(p, N_TUPLE, p->cur.line);
    bool is_tuple = false;
    while (tuple) {
        jnodes *items = &tuple->list.items;
        if (items->n && !du_jinja_expect(p, T_COMMA, NULL)) {
            return NULL;
        }
        if (at_tuple_end(p)) {
            break;
        }
        if (!du_jinja_nodes_add(p, items,
                                rules->simple ? du_jinja_parse_primary(p, rules->with_namespace)
                                              : du_jinja_parse_expr(p, rules->with_cond))) {
            return NULL;
        }
        if (p->cur.type != T_COMMA) {
            break;
        }
        is_tuple = true;
    }
    if (!tuple || is_tuple) {
        return tuple;
    }
    if (tuple->list.items.n) {
        return tuple->list.items.items[0];
    }
    return rules->parentheses ? tuple : du_jinja_fail_unexpected(p, "an expression");
}

jnode *du_jinja_parse_tuple(jparser *p, bool with_cond) {
    return parse_tuple(p, &(tuple_rules){.with_cond = with_cond});
}

static jnode *parse_parentheses(jparser *p) {
    du_jinja_advance(p);
    jnode *node = parse_tuple(p, &(tuple_rules){.with_cond = true, .parentheses = true});
    return node && du_jinja_expect(p, T_RPAREN, NULL) ? node : NULL;
}

/* Turns what was read into something that is assigned to. */
static bool make_target(jparser *p, jnode *node) {
    if (node->type == N_TUPLE) {
        for (int32_t i = 0; i < node->list.items.n; i++) {
            if (!make_target(p, node->list.items.items[i])) {
                return false;
            }
        }
        return true;
    }
    if (node->type != N_NAME && node->type != N_NSREF) {
        du_jinja_parse_error(p, DU_EFORMAT, node->line, "this cannot be assigned to");
        return false;
    }
    node->var.store = node->type == N_NAME;
    return true;
}

jnode *du_jinja_parse_target(jparser *p, bool with_namespace) {
    jnode *node = parse_tuple(p, &(tuple_rules){.simple = true, .with_namespace = with_namespace});
    return node && make_target(p, node) ? node : NULL;
}

/* ---- operators ----------------------------------------------------------------------------- */

static jnode *parse_unary(jparser *p, bool with_filter) {
    jtoken_type type = p->cur.type;
    jnode *node;
    if (type == T_SUB || type == T_ADD) {
        node = du_jinja_node_new(p, type == T_SUB ? N_NEG : N_POS, p->cur.line);
        if (!node || !du_jinja_enter(p)) {
            return NULL;
        }
        du_jinja_advance(p);
        node->bin.left = parse_unary(p, false);
        p->depth--;
        node = node->bin.left ? node : NULL;
    } else {
        node = du_jinja_parse_primary(p, false);
    }
    node = node ? du_jinja_parse_postfix(p, node) : NULL;
    return node && with_filter ? du_jinja_parse_filter_expr(p, node) : node;
}

static jnode *binary_node(jparser *p, jnode_type type, jop op, int32_t line, jnode *left,
                          jnode *right) {
    jnode *node = left && right ? du_jinja_node_new(p, type, line) : NULL;
    if (node) {
        node->bin.left = left;
        node->bin.right = right;
        node->bin.op = op;
    }
    return node;
}

typedef jnode *parse_fn(jparser *p);

/* left op right op right ..., grouped to the left: each link is one level of the tree deeper. */
static jnode *parse_chain(jparser *p, parse_fn *operand, const jtoken_type *types, const jop *ops,
                          int n_ops) {
    int depth = p->depth;
    jnode *left = operand(p);
    while (left) {
        int i = 0;
        while (i < n_ops && p->cur.type != types[i]) {
            i++;
        }
        if (i == n_ops || !du_jinja_enter(p)) {
            break;
        }
        int32_t line = p->cur.line;
        du_jinja_advance(p);
        left = binary_node(p, N_BINARY, ops[i], line, left, operand(p));
    }
    p->depth = depth;
    return p->err == DU_OK ? left : NULL;
}

static jnode *parse_unary_filtered(jparser *p) {
    return parse_unary(p, true);
}

static jnode *parse_power(jparser *p) {
    static const jtoken_type types[] = {T_POW};
    static const jop ops[] = {OP_POW};
    return parse_chain(p, parse_unary_filtered, types, ops, 1);
}

static jnode *parse_product(jparser *p) {
    static const jtoken_type types[] = {T_MUL, T_DIV, T_FLOORDIV, T_MOD};
    static const jop ops[] = {OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD};
    return parse_chain(p, parse_power, types, ops, 4);
}

static jnode *parse_concat(jparser *p) {
    jnode *first = parse_product(p);
    if (!first || p->cur.type != T_TILDE) {
        return first;
    }
    jnode *node = du_jinja_node_new(p, N_CONCAT, p->cur.line);
    bool ok = node && du_jinja_nodes_add(p, &node->list.items, first);
    while (ok && du_jinja_skip(p, T_TILDE)) {
        ok = du_jinja_nodes_add(p, &node->list.items, parse_product(p));
    }
    return ok ? node : NULL;
}

static jnode *parse_sum(jparser *p) {
    static const jtoken_type types[] = {T_ADD, T_SUB};
    static const jop ops[] = {OP_ADD, OP_SUB};
    return parse_chain(p, parse_concat, types, ops, 2);
}

/* The comparison at the current token, which it moves behind; false when there is none. */
static bool comparison(jparser *p, jop *op) {
    static const jtoken_type types[] = {T_EQ, T_NE, T_LT, T_LE, T_GT, T_GE};
    static const jop ops[] = {OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (du_jinja_skip(p, types[i])) {
            *op = ops[i];
            return true;
        }
    }
    *op = OP_IN;
    if (du_jinja_skip_name(p, "in")) {
        return true;
    }
    if (du_jinja_at_name(p, "not") && is_name(&p->next, "in")) {
        du_jinja_advance(p);
        du_jinja_advance(p);
        *op = OP_NOT_IN;
        return true;
    }
    return false;
}

static jnode *parse_compare(jparser *p) {
    jnode *first = parse_sum(p);
    jop op;
    jnode *node = NULL;
    int32_t line = p->cur.line;
    while (first && comparison(p, &op)) {
        if (!node) {
            node = du_jinja_node_new(p, N_COMPARE, line);
            if (!node || !du_jinja_nodes_add(p, &node->list.items, first)) {
                return NULL;
            }
        }
        int32_t n = node->list.items.n;
        if ((n & (n - 1)) == 0) { /* ops is one shorter and grows with the operands */
            jop *ops = du_jinja_alloc(&p->template->pool, (size_t)n * 2, sizeof *ops);
            if (!ops) {
                du_jinja_parse_nomem(p);
                return NULL;
            }
            if (n > 1) {
                memcpy(ops, node->list.ops, (size_t)(n - 1) * sizeof *ops);
            }
            node->list.ops = ops;
        }
        node->list.ops[n - 1] = op;
        if (!du_jinja_nodes_add(p, &node->list.items, parse_sum(p))) {
            return NULL;
        }
    }
    return node ? node : first;
}

static jnode *parse_not(jparser *p) {
    if (!du_jinja_at_name(p, "not")) {
        return parse_compare(p);
    }
    jnode *node = du_jinja_node_new(p, N_NOT, p->cur.line);
    if (!node || !du_jinja_enter(p)) {
        return NULL;
    }
    du_jinja_advance(p);
    node->bin.left = parse_not(p);
    p->depth--;
    return node->bin.left ? node : NULL;
}

static jnode *parse_logic(jparser *p, const char *word, jnode_type type, parse_fn *operand) {
    int depth = p->depth;
    jnode *left = operand(p);
    while (left && du_jinja_at_name(p, word) && du_jinja_enter(p)) {
        int32_t line = p->cur.line;
        du_jinja_advance(p);
        left = binary_node(p, type, OP_ADD, line, left, operand(p));
    }
    p->depth = depth;
    return p->err == DU_OK ? left : NULL;
}

static jnode *parse_and(jparser *p) {
    return parse_logic(p, "and", N_AND, parse_not);
}

static jnode *parse_or(jparser *p) {
    return parse_logic(p, "or", N_OR, parse_and);
}

/* a if b else c if d else e */
static jnode *parse_cond(jparser *p) {
    jnode *yes = parse_or(p);
    int depth = p->depth;
    while (yes && du_jinja_at_name(p, "if") && du_jinja_enter(p)) {
        jnode *node = du_jinja_node_new(p, N_COND, p->cur.line);
        du_jinja_advance(p);
        if (!node || !(node->cond.test = parse_or(p))) {
            return NULL;
        }
        node->cond.yes = yes;
        if (du_jinja_skip_name(p, "else") && !(node->cond.no = parse_cond(p))) {
            return NULL;
        }
        yes = node;
    }
    p->depth = depth;
    return p->err == DU_OK ? yes : NULL;
}

jnode *du_jinja_parse_expr(jparser *p, bool with_cond) {
    if (!du_jinja_enter(p)) {
        return NULL;
    }
    jnode *node = with_cond ? parse_cond(p) : parse_or(p);
    p->depth--;
    if (p->lex.err != DU_OK && p->err == DU_OK) {
        p->err = p->lex.err;
    }
    return p->err == DU_OK ? node : NULL;
}
