/* Added tokens: texts that are found in a text before it is split and merged. */
#ifndef DU_TEXT_ADDED_H
#define DU_TEXT_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum {
    DU_ADDED_BYTES_MAX = 1024
}; /* of one text: finding takes that many steps per byte at worst */

/* How a token is found. */
typedef struct {
    int32_t id;
    bool special;     /* only on request */
    bool lstrip;      /* takes white space before it in */
    bool rstrip;      /* and behind it */
    bool single_word; /* not next to a letter, digit, mark or connector */
} du_added;

typedef struct {
    du_added *tokens;
    size_t n, cap;
    struct du_trie_node *nodes; /* nodes[0] is the root */
    size_t n_nodes, cap_nodes;
    bool first[256]; /* the bytes that a text begins with */
} du_added_set;

void du_added_done(du_added_set *set); /* also of a zeroed one */

/* Enters a token under its text, which is not empty. Returns DU_OK, DU_ELIMIT, DU_ENOMEM; a text
 * that is there already gives DU_EFORMAT. */
DU_NODISCARD
du_err du_added_add(du_added_set *set, du_sv text, const du_added *token, du_diag *diag);

typedef struct {
    const du_added *token;
    size_t start, end; /* in the text, white space taken in */
} du_added_match;

/* The leftmost token in text at or after `from`, of several there the longest. special: those too.
 * White space before `from` is not taken in. false: there is none. */
bool du_added_find(const du_added_set *set, du_sv text, size_t from, bool special,
                   du_added_match *match);

#endif
