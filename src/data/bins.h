/* Packing: documents into sequences of one length, each document apart from its neighbours.
 *
 * Documents that may be cut fill one sequence after the other; what does not fit goes on at the
 * beginning of the next one, where it sees nothing of what came before. Documents that may not be
 * cut go to the open sequence with the least room that takes them (best fit; Ding et al. 2024,
 * arXiv 2404.10830), of DU_BINS_MAX; where none does, the fullest is given out. */
#ifndef DU_DATA_BINS_H
#define DU_DATA_BINS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { DU_BINS_MAX = 64 };

/* Takes a sequence: tokens and marks (data/shards.h) [seq_len + 1]. */
typedef du_err du_sequence_fn(void *arg, const int32_t *tokens, const uint8_t *marks,
                              du_diag *diag);

typedef struct {
    int64_t n_seqs;
    int64_t n_fill;    /* rows that hold no document */
    int64_t n_learned; /* targets that count */
} du_bins_stats;

typedef struct du_bins du_bins;

/* fill  the token in rows that hold no document
 * fn    is given the sequences, and what it returns when not DU_OK ends the call
 * Returns DU_OK, DU_ENOMEM. Free with du_bins_free, which takes NULL. */
DU_NODISCARD
du_err du_bins_new(du_bins **out, int64_t seq_len, int32_t fill, du_sequence_fn *fn, void *arg,
                   du_diag *diag);
void du_bins_free(du_bins *bins);

/* Packs a document.
 * ids     [n], n > 0
 * counts  [n] 1: the token before learns to predict this one; of the first it is not read
 * whole   it may not be cut: n <= seq_len + 1, the last token being only a target then
 * Returns DU_OK, DU_ENOMEM, fn's errors. */
DU_NODISCARD
du_err du_bins_add(du_bins *bins, const int32_t *ids, const char *counts, int64_t n, bool whole,
                   du_diag *diag);

/* Gives out what is not full yet. */
DU_NODISCARD
du_err du_bins_flush(du_bins *bins, du_diag *diag);

du_bins_stats du_bins_get_stats(const du_bins *bins);

#endif
