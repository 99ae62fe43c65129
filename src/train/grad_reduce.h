/* Gradients of ranks, added up where they are wanted: each rank gets the sums over all leaves of
 * the values that it owns (the reduce-scatter of ZeRO, stage 1), in the tree of nn/leaves.h. What
 * is added to a gradient behind another sum over leaves is a tree of its own (du_grad_parts). */
#ifndef DU_TRAIN_GRAD_REDUCE_H
#define DU_TRAIN_GRAD_REDUCE_H

#include "model/grad.h"
#include "train/ranks.h"

typedef struct {
    du_ranks *ranks;       /* borrowed; NULL: there is nothing to add */
    du_grad *grad;         /* borrowed; made with `apart` where there are ranks */
    int64_t n_values;      /* of the block of gradients */
    const du_span *owners; /* [ranks] of its values, borrowed */
    /* Sums that wait between rounds, of gradients and of what is added to them */
    float *wait[DU_LEAF_LEVELS], *term_wait[DU_GRAD_TERMS_MAX][DU_LEAF_LEVELS];
} du_grad_reduce;

void du_grad_reduce_done(du_grad_reduce *reduce); /* while its grad is there; takes an empty one */

/* Adds the gradients of what all ranks have, which are the next nodes of the tree; behind the last
 * ones each rank has the sums that it owns. All ranks call it. Returns DU_OK, DU_EIO (a rank is
 * lost), DU_ENOMEM. */
DU_NODISCARD
du_err du_grad_reduce_add(du_ctx *ctx, du_grad_reduce *reduce, du_leaves nodes, du_diag *diag);

#endif
