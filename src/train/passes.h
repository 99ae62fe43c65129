/* Passes over the sequences of a step, forward and backward, and over validation data, forward
 * alone: the data that are read, gradients, losses.
 *
 * What is summed over leaves - the gradients in model/grad, losses here - is summed in the tree of
 * nn/leaves.h, so the same sequences give the same bits however they are spread over micro-batches
 * and ranks. All ranks call these functions, and return the same. */
#ifndef DU_TRAIN_PASSES_H
#define DU_TRAIN_PASSES_H

#include "data/loader.h"
#include "train/batch_split.h"
#include "train/grad_reduce.h"
#include "train/metrics.h"
#include "train/optim.h"
#include "train/qat.h"

/* What is measured of the leaves of a step. */
enum { DU_LEAF_LOSS, DU_LEAF_NEXT_LOSS, DU_LEAF_BALANCE, DU_LEAF_MEASURES };

typedef struct {
    du_ctx *ctx; /* borrowed, as all that follow */
    const du_train_config *config;
    du_ranks *ranks;
    du_params *params;
    const du_batch_split *split; /* set by the caller before each step */
    du_diag *diag;               /* of the call at hand, for the link */
    du_spread_link link;         /* where experts are spread */
    du_grad *grad;
    du_grad_reduce reduce;
    du_qat qat;                         /* with qat.type, else empty */
    double *measured[DU_LEAF_MEASURES]; /* [leaves of the largest step] */
    du_loader *data, *validation;       /* validation NULL: none is given */
    du_loader_batch batch;
    double *losses; /* [rows of the batch] */
    /* Of the token behind the next, with mtp.weight; [rows of the batch] */
    int32_t *next_targets;
    double *next_losses;
    double rounds_s; /* of the last step, seconds: what more micro-batches would take again */
} du_passes;

/* Without data. p stays where it is.
 * optim  says of which weights; borrowed for its owners
 * Returns DU_OK, DU_ENOMEM and the errors of du_grad_check. Free with du_passes_done, also after a
 * failure; it takes an empty one. */
DU_NODISCARD
du_err du_passes_init(du_passes *p, du_ctx *ctx, du_params *params, const du_batch_split *split,
                      const du_optim *optim, du_diag *diag);
void du_passes_done(du_passes *p);

/* Opens the data that the configuration names, random tokens where it names none. The errors of the
 * loader, DU_ENOMEM. */
DU_NODISCARD
du_err du_passes_open(du_passes *p, du_diag *diag);

/* How many targets the step has, by which losses are divided: wanted before the first gradient, so
 * the data of a step are read twice when a rank has several micro-batches. The loader's errors,
 * DU_EIO (a rank is lost), DU_ENOMEM. */
DU_NODISCARD
du_err du_passes_count(du_passes *p, int64_t *n_targets, du_diag *diag);

/* Forward and backward of the step: its gradients in p->grad, as far as this rank owns them;
 * out->loss, mtp_loss, balance. Behind du_passes_count. As above. */
DU_NODISCARD
du_err du_passes_run(du_passes *p, int64_t n_targets, du_metrics *out, du_diag *diag);

/* Mean cross-entropy over the first validate.batches micro-batches of the validation data, or as
 * many as it has. As above. */
DU_NODISCARD
du_err du_passes_validate(du_passes *p, double *loss, du_diag *diag);

#endif
