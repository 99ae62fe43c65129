/* How the sequences of a step, its leaves (nn/leaves.h), are split over ranks and micro-batches.
 * Those that are computed together are a node of the tree over all of them.
 *
 * Where experts are whole, all of a rank's leaves are one such node, too, of the lowest level that
 * has no more nodes than there are ranks; a round is a micro-batch of this rank. Where they are
 * spread, all ranks compute together, and what they compute are neighbours:
 *
 *     leaves    0 1 | 2 3 | 4 5 | 6 7 | 8 9 | ...          n_seq = 2, 3 ranks
 *     rank       0     1     2     0     1
 *     round          first            second */
#ifndef DU_TRAIN_BATCH_SPLIT_H
#define DU_TRAIN_BATCH_SPLIT_H

#include "train/config.h"
#include "train/ranks.h"

typedef struct {
    du_ranks *ranks;    /* borrowed */
    bool spread;        /* routed experts are */
    int64_t batch_seqs; /* most leaves of a micro-batch */
    int64_t n_max;      /* leaves of the largest step */
    /* Of all steps, those of other sizes too, the most that a rank has: n_seq, n_rounds */
    int64_t n_seq_max, n_rounds_max;
    int64_t before; /* leaves of all steps before */
    int64_t n;      /* leaves of the step */
    int64_t n_seq;  /* that are computed together */
    /* What this rank computes, by numbers of the step: n_seq from `first` on, then those `step`
     * further on, before `end` */
    int64_t first, step, end;
    int64_t n_rounds;
    int64_t per_rank; /* leaves of a rank; of a round where experts are spread */
    du_span *spans;   /* [ranks] */
} du_batch_split;

/* The split of the largest step. Returns DU_OK, DU_ENOMEM. Free with du_batch_split_done, which
 * takes an empty one. */
DU_NODISCARD
du_err du_batch_split_init(du_batch_split *split, const du_train_config *config, du_ranks *ranks,
                           du_diag *diag);
void du_batch_split_done(du_batch_split *split);

/* That of a step with n leaves, which others precede in the data; n is at most n_max, or of a step
 * that there is not, with n_seq at most batch_seqs. */
void du_batch_split_set(du_batch_split *split, int64_t before, int64_t n);

/* Round i as du_grad_add wants it: leaves of this rank, numbered from its first one; of all ranks
 * where experts are spread. */
du_leaves du_batch_split_round(const du_batch_split *split, int64_t i);

/* The nodes that ranks have, one each: of the step; of round i where experts are spread. */
du_leaves du_batch_split_nodes(const du_batch_split *split, int64_t i);

/* [ranks] the leaves of each, rank 0 has most: of the step, i = 0; of round i where experts are
 * spread. Until the next call. */
const du_span *du_batch_split_spans(const du_batch_split *split, int64_t i);

#endif
