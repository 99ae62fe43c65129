/* The pairs of neighbouring tokens in a list of words: how often each occurs, and in which words.
 */
#ifndef DU_TEXT_PAIR_TABLE_INT_H
#define DU_TEXT_PAIR_TABLE_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define DU_PAIR_NONE UINT32_MAX

typedef struct {
    int32_t left, right; /* left -1: a free entry */
    uint32_t places;     /* the newest block of words that hold it; of a free entry the next one */
    int64_t count;
} du_pair;

enum { DU_PLACES_PER_BLOCK = 6 };

/* Words, by their numbers. A pair may name one twice, and one that does not hold it any more. */
typedef struct {
    uint32_t next; /* DU_PAIR_NONE: the last one */
    uint32_t n;
    uint32_t words[DU_PLACES_PER_BLOCK];
} du_places;

/* Pairs keep their number until they are removed. */
typedef struct {
    du_pair *pairs;
    size_t n, cap;
    uint32_t free_pair;
    uint32_t *slots; /* [n_slots] hash table of numbers, DU_PAIR_NONE: free; at most half full */
    size_t n_slots, n_used;
    uint64_t seed[2];
    du_places *blocks;
    size_t n_blocks, cap_blocks;
    uint32_t free_block;
} du_pair_table;

/* false: memory is short. */
DU_NODISCARD
bool du_pair_table_init(du_pair_table *t);
void du_pair_table_done(du_pair_table *t); /* also of a zeroed one */

/* The number of a pair, DU_PAIR_NONE: not there. */
uint32_t du_pair_find(const du_pair_table *t, int32_t left, int32_t right);

/* The same, entering it with count 0 where it is not; DU_PAIR_NONE: memory is short. */
uint32_t du_pair_get(du_pair_table *t, int32_t left, int32_t right);

/* Adds a word to those that hold pair i. false: memory is short. */
DU_NODISCARD
bool du_pair_add_place(du_pair_table *t, uint32_t i, uint32_t word);

void du_pair_remove(du_pair_table *t, uint32_t i);

#endif
