/* Byte-pair encoding by ranked merges of pairs of tokens (Sennrich et al. 2016). */
#ifndef DU_TEXT_BPE_H
#define DU_TEXT_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "text/merge_int.h"

/* The merges: a hash table from (left, right) to (rank, merged). */
typedef struct {
    struct du_bpe_slot *slots;
    size_t n_slots;   /* a power of two */
    uint64_t seed[2]; /* random, so that merges cannot be chosen to collide */
    uint64_t *seen;   /* 4 bits per slot: the one of a pair's hash is set. Most questions are about
                       * pairs that do not join, and the answer is found here, in little memory */
} du_bpe;

/* Room for n merges; false when memory is short. */
DU_NODISCARD
bool du_bpe_init(du_bpe *bpe, size_t n);
void du_bpe_done(du_bpe *bpe); /* also of a zeroed one */

/* Enters a merge; the lower rank goes first. A pair that is there already keeps its merge, unless
 * `replace`. Returns the rank that the pair had, DU_RANK_NONE for a new one. At most n entries. */
uint32_t du_bpe_add(du_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t merged,
                    bool replace);

/* Merges the symbols of w (see du_merge_run). Returns false when memory is short. */
DU_NODISCARD
bool du_bpe_merge(const du_bpe *bpe, du_merge_work *w);

#endif
