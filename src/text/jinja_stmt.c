/* Statements of a Jinja template: tokens to tree.
 *
 * A statement with a body reads it up to one of its end tags; the tags in progress are kept for
 * messages. Statements that need other templates, and those of extensions, are named as not
 * supported. */
#include "text/jinja_int.h"

static bool parse_body(jparser *p, jnodes *body, const char *const *ends);

static bool at_any(const jparser *p, const char *const *ends) {
    for (size_t i = 0; ends && ends[i]; i++) {
        if (du_jinja_at_name(p, ends[i])) {
            return true;
        }
    }
    return false;
}

/* `%}`, then statements up to an end tag, whose name is then the current token. */
static bool parse_block(jparser *p, jnodes *body, const char *const *ends) {
    du_jinja_skip(p, T_COLON);
    return du_jinja_expect(p, T_BLOCK_END, NULL) && parse_body(p, body, ends);
}

/* The same with one end tag, which is moved behind. */
static bool parse_block_to(jparser *p, jnodes *body, const char *end) {
    const char *const ends[] = {end, NULL};
    if (!parse_block(p, body, ends)) {
        return false;
    }
    du_jinja_advance(p);
    return true;
}

static jnode *parse_for(jparser *p) {
    static const char *const ends[] = {"endfor", "else", NULL};
    jnode *node = du_jinja_node_new(p, N_FOR, p->cur.line);
    du_jinja_advance(p);
    if (!node || !(node->loop.target = du_jinja_parse_target(p, false)) ||
        !du_jinja_expect_name(p, "in") || !(node->loop.iter = du_jinja_parse_tuple(p, false))) {
        return NULL;
    }
    if (du_jinja_skip_name(p, "if")) {
        node->loop.test = du_jinja_parse_expr(p, true);
        node->loop.test_target = du_jinja_copy_target(p, node->loop.target);
        if (!node->loop.test || !node->loop.test_target) {
            return NULL;
        }
    }
    node->loop.recursive = du_jinja_skip_name(p, "recursive");
    if (!parse_block(p, &node->loop.body, ends)) {
        return NULL;
    }
    bool has_else = du_jinja_at_name(p, "else");
    du_jinja_advance(p);
    return !has_else || parse_block_to(p, &node->loop.otherwise, "endfor") ? node : NULL;
}

static bool add_body(jparser *p, jnode *node, jnodes body) {
    int32_t n = node->branch.n_bodies;
    if ((n & (n - 1)) == 0) {
        jnodes *bodies = du_jinja_alloc(&p->template->pool, n ? (size_t)n * 2 : 1, sizeof *bodies);
        if (!bodies) {
            du_jinja_parse_nomem(p);
            return false;
        }
        if (n) {
            memcpy(bodies, node->branch.bodies, (size_t)n * sizeof *bodies);
        }
        node->branch.bodies = bodies;
    }
    node->branch.bodies[node->branch.n_bodies++] = body;
    return true;
}

static jnode *parse_if(jparser *p) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    jnode *node = du_jinja_node_new(p, N_IF, p->cur.line);
    if (!node) {
        return NULL;
    }
    for (;;) { /* at if or elif */
        jnodes body = {0};
        du_jinja_advance(p);
        if (!du_jinja_nodes_add(p, &node->branch.tests, du_jinja_parse_tuple(p, false)) ||
            !parse_block(p, &body, ends) || !add_body(p, node, body)) {
            return NULL;
        }
        if (!du_jinja_at_name(p, "elif")) {
            break;
        }
    }
    bool has_else = du_jinja_at_name(p, "else");
    du_jinja_advance(p);
    jnodes body = {0};
    return !has_else || (parse_block_to(p, &body, "endif") && add_body(p, node, body)) ? node
                                                                                       : NULL;
}

static jnode *parse_set(jparser *p) {
    jnode *node = du_jinja_node_new(p, N_SET, p->cur.line);
    du_jinja_advance(p);
    if (!node || !(node->set.target = du_jinja_parse_target(p, true))) {
        return NULL;
    }
    if (du_jinja_skip(p, T_ASSIGN)) {
        node->set.value = du_jinja_parse_tuple(p, true);
        return node->set.value ? node : NULL;
    }
    node->type = N_SET_BLOCK;
    if (p->cur.type == T_PIPE) {
        node->set.value = du_jinja_parse_filters(p, NULL, false);
        if (!node->set.value) {
            return NULL;
        }
    }
    return parse_block_to(p, &node->set.body, "endset") ? node : NULL;
}

static jnode *parse_with(jparser *p) {
    jnode *node = du_jinja_node_new(p, N_WITH, p->cur.line);
    du_jinja_advance(p);
    while (node && p->cur.type != T_BLOCK_END) {
        if ((node->with.targets.n && !du_jinja_expect(p, T_COMMA, NULL)) ||
            !du_jinja_nodes_add(p, &node->with.targets, du_jinja_parse_target(p, false)) ||
            !du_jinja_expect(p, T_ASSIGN, NULL) ||
            !du_jinja_nodes_add(p, &node->with.values, du_jinja_parse_expr(p, true))) {
            return NULL;
        }
    }
    return node && parse_block_to(p, &node->with.body, "endwith") ? node : NULL;
}

static jnode *parse_name_target(jparser *p) {
    jtoken token;
    if (!du_jinja_expect(p, T_NAME, &token)) {
        return NULL;
    }
    static const char *const constants[] = {"true", "True", "false", "False", "none", "None"};
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
        if (du_sv_is(token.text, constants[i])) {
            du_jinja_parse_error(p, DU_EFORMAT, token.line, "%s cannot be assigned to",
                                 constants[i]);
            return NULL;
        }
    }
    return du_jinja_name_node(p, token.text, token.line, true);
}

/* (a, b, c=1, d=2) */
static bool parse_signature(jparser *p, jnode *node) {
    if (!du_jinja_expect(p, T_LPAREN, NULL)) {
        return false;
    }
    while (p->cur.type != T_RPAREN) {
        if ((node->macro.params.n && !du_jinja_expect(p, T_COMMA, NULL)) ||
            !du_jinja_nodes_add(p, &node->macro.params, parse_name_target(p))) {
            return false;
        }
        if (du_jinja_skip(p, T_ASSIGN)) {
            if (!du_jinja_nodes_add(p, &node->macro.defaults, du_jinja_parse_expr(p, true))) {
                return false;
            }
        } else if (node->macro.defaults.n) {
            du_jinja_parse_error(p, DU_EFORMAT, p->cur.line,
                                 "a parameter without a default follows one with a default");
            return false;
        }
    }
    return du_jinja_expect(p, T_RPAREN, NULL);
}

static jnode *parse_macro(jparser *p) {
    jnode *node = du_jinja_node_new(p, N_MACRO, p->cur.line);
    du_jinja_advance(p);
    jnode *name = node ? parse_name_target(p) : NULL;
    if (!name) {
        return NULL;
    }
    node->macro.ref = name->var.ref;
    node->macro.name = p->template->names[name->var.ref.name];
    return parse_signature(p, node) && parse_block_to(p, &node->macro.body, "endmacro") ? node
                                                                                        : NULL;
}

static jnode *parse_call_block(jparser *p) {
    jnode *node = du_jinja_node_new(p, N_CALL_BLOCK, p->cur.line);
    du_jinja_advance(p);
    if (!node || (p->cur.type == T_LPAREN && !parse_signature(p, node)) ||
        !(node->macro.call = du_jinja_parse_expr(p, true))) {
        return NULL;
    }
    if (node->macro.call->type != N_CALL) {
        du_jinja_parse_error(p, DU_EFORMAT, node->line, "a call block needs a call");
        return NULL;
    }
    return parse_block_to(p, &node->macro.body, "endcall") ? node : NULL;
}

static jnode *parse_filter_block(jparser *p) {
    jnode *node = du_jinja_node_new(p, N_FILTER_BLOCK, p->cur.line);
    du_jinja_advance(p);
    if (!node || !(node->set.value = du_jinja_parse_filters(p, NULL, true))) {
        return NULL;
    }
    return parse_block_to(p, &node->set.body, "endfilter") ? node : NULL;
}

static jnode *parse_generation(jparser *p) {
    jnode *node = du_jinja_node_new(p, N_GENERATION, p->cur.line);
    du_jinja_advance(p);
    return node && parse_block_to(p, &node->set.body, "endgeneration") ? node : NULL;
}

static jnode *parse_print(jparser *p) {
    jnode *node = du_jinja_node_new(p, N_OUTPUT, p->cur.line);
    du_jinja_advance(p);
    while (node && p->cur.type != T_BLOCK_END) {
        if ((node->list.items.n && !du_jinja_expect(p, T_COMMA, NULL)) ||
            !du_jinja_nodes_add(p, &node->list.items, du_jinja_parse_expr(p, true))) {
            return NULL;
        }
    }
    return node;
}

static jnode *parse_break(jparser *p) {
    jnode *node = du_jinja_node_new(p, N_BREAK, p->cur.line);
    du_jinja_advance(p);
    return node;
}

static jnode *parse_continue(jparser *p) {
    jnode *node = du_jinja_node_new(p, N_CONTINUE, p->cur.line);
    du_jinja_advance(p);
    return node;
}

static const struct {
    const char *tag;
    jnode *(*parse)(jparser *p); /* NULL: not supported */
} statements[] = {
    {"for", parse_for},
    {"if", parse_if},
    {"set", parse_set},
    {"with", parse_with},
    {"macro", parse_macro},
    {"call", parse_call_block},
    {"print", parse_print},
    {"filter", parse_filter_block},
    {"break", parse_break},
    {"continue", parse_continue},
    {"generation", parse_generation},
    {"block", NULL},
    {"extends", NULL},
    {"include", NULL},
    {"import", NULL},
    {"from", NULL},
    {"autoescape", NULL},
    {"do", NULL},
    {"trans", NULL},
    {"debug", NULL},
};

static jnode *fail_unknown_tag(jparser *p) {
    int n = (int)(p->cur.text.len < 50 ? p->cur.text.len : 50);
    if (p->n_open) {
        du_jinja_parse_error(
            p, DU_EFORMAT, p->cur.line, "unexpected tag '%.*s': the '%s' of line %d is still open",
            n, p->cur.text.s, p->open_tags[p->n_open - 1], p->open_lines[p->n_open - 1]);
    } else {
        du_jinja_parse_error(p, DU_EFORMAT, p->cur.line, "unknown tag '%.*s'", n, p->cur.text.s);
    }
    return NULL;
}

static jnode *parse_statement(jparser *p) {
    if (p->cur.type != T_NAME) {
        du_jinja_expect(p, T_NAME, NULL);
        return NULL;
    }
    for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++) {
        if (!du_jinja_at_name(p, statements[i].tag)) {
            continue;
        }
        if (!statements[i].parse) {
            du_jinja_parse_error(p, DU_EUNSUPPORTED, p->cur.line, "the tag '%s' is not supported",
                                 statements[i].tag);
            return NULL;
        }
        if (!du_jinja_enter(p)) {
            return NULL;
        }
        p->open_tags[p->n_open] = statements[i].tag;
        p->open_lines[p->n_open++] = p->cur.line;
        jnode *node = statements[i].parse(p);
        p->n_open--;
        p->depth--;
        return node;
    }
    return fail_unknown_tag(p);
}

/* Text and {{ }} up to the next statement are one output node. */
static bool add_output(jparser *p, jnodes *body, jnode **output, jnode *item) {
    if (!*output) {
        *output = du_jinja_node_new(p, N_OUTPUT, p->cur.line);
        if (!du_jinja_nodes_add(p, body, *output)) {
            return false;
        }
    }
    return du_jinja_nodes_add(p, &(*output)->list.items, item);
}

static jnode *data_node(jparser *p) {
    jnode *node = du_jinja_node_new(p, N_CONST, p->cur.line);
    const jstr *text = node ? du_jinja_name_str(p, p->cur.text) : NULL;
    if (!text) {
        return NULL;
    }
    node->value = j_str(text);
    return node;
}

static bool parse_body(jparser *p, jnodes *body, const char *const *ends) {
    jnode *output = NULL;
    while (p->cur.type != T_EOF) {
        if (p->cur.type == T_DATA) {
            if (!add_output(p, body, &output, data_node(p))) {
                return false;
            }
            du_jinja_advance(p);
        } else if (du_jinja_skip(p, T_VAR_BEGIN)) {
            if (!add_output(p, body, &output, du_jinja_parse_tuple(p, true)) ||
                !du_jinja_expect(p, T_VAR_END, NULL)) {
                return false;
            }
        } else {
            output = NULL;
            du_jinja_advance(p); /* {% */
            if (at_any(p, ends)) {
                return true;
            }
            if (!du_jinja_nodes_add(p, body, parse_statement(p)) ||
                !du_jinja_expect(p, T_BLOCK_END, NULL)) {
                return false;
            }
        }
    }
    if (p->lex.err != DU_OK) {
        p->err = p->lex.err;
    } else if (ends) {
        du_jinja_parse_error(p, DU_EFORMAT, p->cur.line,
                             "the template ends inside the '%s' of line %d",
                             p->open_tags[p->n_open - 1], p->open_lines[p->n_open - 1]);
    }
    return p->err == DU_OK;
}

bool du_jinja_parse_template(jparser *p) {
    du_jinja_advance(p);
    du_jinja_advance(p);
    return parse_body(p, &p->template->body, NULL);
}
