/* How often each word of a text occurs. */
#ifndef DU_TEXT_WORD_TABLE_INT_H
#define DU_TEXT_WORD_TABLE_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/str.h"

enum { DU_WORD_BYTES_MAX = 1024 };

typedef struct {
    du_sv text; /* in the table's memory */
    int64_t count;
} du_word;

/* Start from {0}. */
typedef struct {
    du_word *words; /* [n] in the order in which they first came */
    size_t n, cap;
    du_hash places;                      /* a text to its place among them */
    char **blocks;                       /* what the texts lie in */
    size_t n_blocks, cap_blocks, n_left; /* n_left: bytes not used of the last block */
} du_word_table;

void du_word_table_done(du_word_table *t); /* frees and empties */

/* Counts a word of at most DU_WORD_BYTES_MAX n more times. false: memory is short, the table
 * unchanged. */
DU_NODISCARD
bool du_word_table_add(du_word_table *t, du_sv text, int64_t n);

/* Forgets the words that occur at most `count` times. false: memory is short, the table unchanged.
 */
DU_NODISCARD
bool du_word_table_prune(du_word_table *t, int64_t count);

#endif
