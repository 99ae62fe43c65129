/* What stands behind a value in a Jinja template: .name, [item], (arguments), | filter, is test. */
#include "text/jinja_int.h"

static jnode *parse_attribute(jparser *p, jnode *object) {
    int32_t line = p->cur.line;
    du_jinja_advance(p);
    jtoken token = p->cur;
    jnode *node = du_jinja_node_new(p, token.type == T_NAME ? N_GETATTR : N_GETITEM, line);
    if (!node) {
        return NULL;
    }
    if (token.type != T_NAME && token.type != T_INT) {
        return du_jinja_fail_unexpected(p, "a name or number");
    }
    du_jinja_advance(p);
    node->get.object = object;
    if (token.type == T_INT) {
        node->get.key = du_jinja_const_node(p, token.value, token.line);
        return node->get.key ? node : NULL;
    }
    node->get.name = du_jinja_name_str(p, token.text);
    return node->get.name ? node : NULL;
}

static bool parse_slice_part(jparser *p, jnode **part) {
    if (p->cur.type == T_COLON || p->cur.type == T_RBRACKET || p->cur.type == T_COMMA) {
        return true;
    }
    *part = du_jinja_parse_expr(p, true);
    return *part != NULL;
}

/* An index, or start:stop:step with any of them left out. */
static jnode *parse_index(jparser *p) {
    int32_t line = p->cur.line;
    jnode *start = NULL;
    if (p->cur.type != T_COLON) {
        start = du_jinja_parse_expr(p, true);
        if (!start || p->cur.type != T_COLON) {
            return start;
        }
    }
    du_jinja_advance(p);
    jnode *slice = du_jinja_node_new(p, N_SLICE, line);
    if (!slice) {
        return NULL;
    }
    slice->slice.start = start;
    if (!parse_slice_part(p, &slice->slice.stop) ||
        (du_jinja_skip(p, T_COLON) && !parse_slice_part(p, &slice->slice.step))) {
        return NULL;
    }
    return slice;
}

static jnode *parse_item(jparser *p, jnode *object) {
    jnode *node = du_jinja_node_new(p, N_GETITEM, p->cur.line);
    jnode *keys = du_jinja_node_new(p, N_TUPLE, p->cur.line);
    du_jinja_advance(p);
    while (keys && p->cur.type != T_RBRACKET) {
        if ((keys->list.items.n && !du_jinja_expect(p, T_COMMA, NULL)) ||
            !du_jinja_nodes_add(p, &keys->list.items, parse_index(p))) {
            return NULL;
        }
    }
    if (!node || !keys || !du_jinja_expect(p, T_RBRACKET, NULL)) {
        return NULL;
    }
    node->get.object = object;
    node->get.key = keys->list.items.n == 1 ? keys->list.items.items[0] : keys;
    return node;
}

static bool parse_keyword(jparser *p, jnode *call) {
    const jstr *name = du_jinja_name_str(p, p->cur.text);
    int32_t n = call->call.kwargs.n;
    if (!name) {
        return false;
    }
    if ((n & (n - 1)) == 0) {
        const jstr **names =
            du_jinja_alloc(&p->template->pool, n ? (size_t)n * 2 : 1, sizeof *names);
        if (!names) {
            du_jinja_parse_nomem(p);
            return false;
        }
        if (n) {
            memcpy(names, call->call.kw_names, (size_t)n * sizeof *names);
        }
        call->call.kw_names = names;
    }
    call->call.kw_names[n] = name;
    du_jinja_advance(p);
    du_jinja_advance(p);
    return du_jinja_nodes_add(p, &call->call.kwargs, du_jinja_parse_expr(p, true));
}

static bool parse_argument(jparser *p, jnode *call) {
    bool is_keyword = p->cur.type == T_NAME && p->next.type == T_ASSIGN;
    jnode **dynamic = p->cur.type == T_MUL   ? &call->call.dyn_args
                      : p->cur.type == T_POW ? &call->call.dyn_kwargs
                                             : NULL;
    bool misplaced = call->call.dyn_kwargs ||
                     (!is_keyword && dynamic != &call->call.dyn_kwargs && call->call.dyn_args) ||
                     (!is_keyword && !dynamic && call->call.kwargs.n);
    if (misplaced) {
        du_jinja_parse_error(p, DU_EFORMAT, p->cur.line,
                             "arguments by position come first, then names, *a, **b");
        return false;
    }
    if (is_keyword) {
        return parse_keyword(p, call);
    }
    if (dynamic) {
        du_jinja_advance(p);
        *dynamic = du_jinja_parse_expr(p, true);
        return *dynamic != NULL;
    }
    return du_jinja_nodes_add(p, &call->call.args, du_jinja_parse_expr(p, true));
}

/* (a, b, name=c, *d, **e) into the node. */
static bool parse_arguments(jparser *p, jnode *call) {
    if (!du_jinja_expect(p, T_LPAREN, NULL)) {
        return false;
    }
    for (bool first = true; p->cur.type != T_RPAREN; first = false) {
        if (!first && !du_jinja_expect(p, T_COMMA, NULL)) {
            return false;
        }
        if (!first && p->cur.type == T_RPAREN) {
            break;
        }
        if (!parse_argument(p, call)) {
            return false;
        }
    }
    return du_jinja_expect(p, T_RPAREN, NULL);
}

static jnode *parse_call(jparser *p, jnode *target) {
    jnode *node = du_jinja_node_new(p, N_CALL, p->cur.line);
    if (!node) {
        return NULL;
    }
    node->call.target = target;
    return parse_arguments(p, node) ? node : NULL;
}

/* A chain has a level for each link, since evaluation goes down it. */
jnode *du_jinja_parse_postfix(jparser *p, jnode *node) {
    int depth = p->depth;
    while (node) {
        jtoken_type type = p->cur.type;
        if ((type != T_DOT && type != T_LBRACKET && type != T_LPAREN) || !du_jinja_enter(p)) {
            break;
        }
        node = type == T_DOT        ? parse_attribute(p, node)
               : type == T_LBRACKET ? parse_item(p, node)
                                    : parse_call(p, node);
    }
    p->depth = depth;
    return p->err == DU_OK ? node : NULL;
}

/* The name behind | or is; names with dots belong to extensions and are never known. */
static const jstr *parse_dotted(jparser *p) {
    jtoken token;
    if (!du_jinja_expect(p, T_NAME, &token)) {
        return NULL;
    }
    du_sv text = token.text;
    while (du_jinja_skip(p, T_DOT)) {
        if (!du_jinja_expect(p, T_NAME, &token)) {
            return NULL;
        }
        text.len = (size_t)(token.text.s + token.text.len - text.s);
    }
    return du_jinja_name_str(p, text);
}

static jnode *parse_filter(jparser *p, jnode *target) {
    jnode *node = du_jinja_node_new(p, N_FILTER, p->cur.line);
    const jstr *name = node ? parse_dotted(p) : NULL;
    if (!name) {
        return NULL;
    }
    node->call.target = target;
    node->call.name = name;
    node->call.def = du_jinja_filter_find(j_view(name));
    return p->cur.type != T_LPAREN || parse_arguments(p, node) ? node : NULL;
}

jnode *du_jinja_parse_filters(jparser *p, jnode *node, bool start_inline) {
    int depth = p->depth;
    bool ok = true;
    while (ok && (start_inline || p->cur.type == T_PIPE)) {
        if (!start_inline) {
            du_jinja_advance(p);
        }
        node = parse_filter(p, node);
        start_inline = false;
        ok = node && du_jinja_enter(p);
    }
    p->depth = depth;
    return ok ? node : NULL;
}

static bool starts_argument(const jparser *p) {
    switch (p->cur.type) {
    case T_NAME:
        return !du_jinja_at_name(p, "else") && !du_jinja_at_name(p, "or") &&
               !du_jinja_at_name(p, "and");
    case T_STRING:
    case T_INT:
    case T_FLOAT:
    case T_LBRACKET:
    case T_LBRACE:
        return true;
    default:
        return false;
    }
}

/* `is [not] name`, with arguments in brackets or one argument without. */
static jnode *parse_test(jparser *p, jnode *target) {
    int32_t line = p->cur.line;
    du_jinja_advance(p);
    bool negated = du_jinja_skip_name(p, "not");
    jnode *node = du_jinja_node_new(p, N_TEST, line);
    const jstr *name = node ? parse_dotted(p) : NULL;
    if (!name) {
        return NULL;
    }
    node->call.target = target;
    node->call.name = name;
    node->call.def = du_jinja_test_find(j_view(name));
    if (p->cur.type == T_LPAREN) {
        if (!parse_arguments(p, node)) {
            return NULL;
        }
    } else if (starts_argument(p)) {
        if (du_jinja_at_name(p, "is")) {
            return du_jinja_fail_unexpected(p, "the end of this test");
        }
        jnode *arg = du_jinja_parse_primary(p, false);
        if (!du_jinja_nodes_add(p, &node->call.args, arg ? du_jinja_parse_postfix(p, arg) : NULL)) {
            return NULL;
        }
    }
    if (!negated) {
        return node;
    }
    jnode *not_node = du_jinja_node_new(p, N_NOT, line);
    if (not_node) {
        not_node->bin.left = node;
    }
    return not_node;
}

jnode *du_jinja_parse_filter_expr(jparser *p, jnode *node) {
    int depth = p->depth;
    while (node && du_jinja_enter(p)) {
        if (p->cur.type == T_PIPE) {
            node = du_jinja_parse_filters(p, node, false);
        } else if (du_jinja_at_name(p, "is")) {
            node = parse_test(p, node);
        } else if (p->cur.type == T_LPAREN) {
            node = parse_call(p, node);
        } else {
            break;
        }
    }
    p->depth = depth;
    return p->err == DU_OK ? node : NULL;
}
