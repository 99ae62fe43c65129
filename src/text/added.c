#include "text/added.h"

#include "base/mem.h"
#include "text/unicode.h"

/* A trie with the children of a node in a list: almost all have one. */
struct du_trie_node {
    int32_t child, sibling; /* -1: none */
    int32_t token;          /* index in tokens, -1: no text ends here */
    uint8_t byte;
};

void du_added_done(du_added_set *set) {
    du_free(set->tokens);
    du_free(set->nodes);
    *set = (du_added_set){0};
}

static int32_t child_of(const du_added_set *set, int32_t node, uint8_t byte) {
    int32_t child = set->nodes[node].child;
    while (child >= 0 && set->nodes[child].byte != byte) {
        child = set->nodes[child].sibling;
    }
    return child;
}

/* Index of a new node below parent (-1: the root), -1 when memory is short. */
static int32_t add_node(du_added_set *set, int32_t parent, uint8_t byte) {
    if (set->n_nodes >= INT32_MAX ||
        !du_grow((void **)&set->nodes, &set->cap_nodes, set->n_nodes, sizeof set->nodes[0])) {
        return -1;
    }
    int32_t node = (int32_t)set->n_nodes++;
    set->nodes[node] = (struct du_trie_node){-1, -1, -1, byte};
    if (parent >= 0) {
        set->nodes[node].sibling = set->nodes[parent].child;
        set->nodes[parent].child = node;
    }
    return node;
}

du_err du_added_add(du_added_set *set, du_sv text, const du_added *token, du_diag *diag) {
    if (text.len > DU_ADDED_BYTES_MAX) {
        return du_fail(diag, DU_ELIMIT, "added token %d has %zu bytes, more than %d", token->id,
                       text.len, DU_ADDED_BYTES_MAX);
    }
    if (!set->n_nodes && add_node(set, -1, 0) < 0) {
        return du_fail_nomem(diag, "the added tokens");
    }
    int32_t node = 0;
    for (size_t i = 0; i < text.len; i++) {
        int32_t child = child_of(set, node, (uint8_t)text.s[i]);
        node = child < 0 ? add_node(set, node, (uint8_t)text.s[i]) : child;
        if (node < 0) {
            return du_fail_nomem(diag, "the added tokens");
        }
    }
    if (set->nodes[node].token >= 0) {
        return du_fail(diag, DU_EFORMAT, "added tokens %d and %d are both found as '%.*s'",
                       set->tokens[set->nodes[node].token].id, token->id, (int)text.len, text.s);
    }
    if (!du_grow((void **)&set->tokens, &set->cap, set->n, sizeof set->tokens[0])) {
        return du_fail_nomem(diag, "the added tokens");
    }
    set->nodes[node].token = (int32_t)set->n;
    set->tokens[set->n++] = *token;
    set->first[(uint8_t)text.s[0]] = true;
    return DU_OK;
}

static size_t char_before(du_sv text, size_t at, int32_t *cp) {
    size_t start = at - 1;
    while (start > 0 && at - start < 4 && ((uint8_t)text.s[start] & 0xc0) == 0x80) {
        start--;
    }
    if (du_utf8_next(text.s + start, at - start, cp) != at - start) {
        *cp = -1;
        start = at - 1;
    }
    return start;
}

static bool stands_alone(du_sv text, size_t start, size_t end) {
    int32_t cp = -1;
    if (start > 0) {
        char_before(text, start, &cp);
    }
    if (cp >= 0 && du_unicode_is_word(cp)) {
        return false;
    }
    cp = -1;
    if (end < text.len) {
        du_utf8_next(text.s + end, text.len - end, &cp);
    }
    return cp < 0 || !du_unicode_is_word(cp);
}

/* The longest text of the set that begins at `at`; *end is its end. */
static const du_added *longest(const du_added_set *set, du_sv text, size_t at, bool special,
                               size_t *end) {
    const du_added *found = NULL;
    int32_t node = 0;
    for (size_t i = at; i < text.len; i++) {
        node = child_of(set, node, (uint8_t)text.s[i]);
        if (node < 0) {
            break;
        }
        int32_t token = set->nodes[node].token;
        if (token >= 0 && (special || !set->tokens[token].special)) {
            found = &set->tokens[token];
            *end = i + 1;
        }
    }
    return found;
}

bool du_added_find(const du_added_set *set, du_sv text, size_t from, bool special,
                   du_added_match *match) {
    size_t at = from;
    while (set->n && at < text.len) {
        size_t end = 0;
        const du_added *token =
            set->first[(uint8_t)text.s[at]] ? longest(set, text, at, special, &end) : NULL;
        if (!token) {
            at++;
            continue;
        }
        if (token->single_word && !stands_alone(text, at, end)) {
            at = end;
            continue;
        }
        *match = (du_added_match){token, at, end};
        int32_t cp;
        while (token->lstrip && match->start > from) {
            size_t before = char_before(text, match->start, &cp);
            if (cp < 0 || before < from || !du_unicode_is_space(cp)) {
                break;
            }
            match->start = before;
        }
        while (token->rstrip && match->end < text.len) {
            size_t n = du_utf8_next(text.s + match->end, text.len - match->end, &cp);
            if (cp < 0 || !du_unicode_is_space(cp)) {
                break;
            }
            match->end += n;
        }
        return true;
    }
    return false;
}
