/* Optimizers over the block of weights of a model (model/params.h).
 *
 * A step's arithmetic is elementwise, and sums have a fixed order, so threads change no bit. The
 * bias that only chooses experts is left alone: the router's rule moves it, before the step, whose
 * running mean has it too.
 *
 * Among ranks each one owns a span of what all of them have, and the routed experts that it alone
 * has, where these are spread: it keeps the moments of those values alone, which take memory
 * nowhere else, and steps them (ZeRO, stage 1; Rajbhandari et al. 2020, arXiv 1910.02054,
 * section 5.1).
 *
 * The block is seen as parts, DU_OPTIM_PART values of one tensor, numbered in the order of the
 * block; spans begin and end between parts. */
#ifndef DU_TRAIN_OPTIM_H
#define DU_TRAIN_OPTIM_H

#include "model/params.h"
#include "train/config.h"
#include "train/ranks.h"

enum { DU_OPTIM_PART = 1 << 12 };

/* Who owns what of a range of the block. */
typedef struct {
    du_span *values, *parts; /* [ranks], beside each other */
} du_optim_spans;

typedef struct {
    const du_train_config *config;
    const du_params *params;
    du_ranks *ranks;
    du_optim_spans common; /* of what all ranks have */
    du_optim_spans spread; /* of the experts, where they are spread; else all empty */
    int64_t *order;        /* [params->n] tensors by their offset */
    int64_t *first_part;   /* [params->n + 1] of those */
    /* [params->n_values] each, NULL where the optimizer has none */
    float *m;    /* first moment, or momentum */
    float *v;    /* second moment; muon's matrices leave their pages untouched */
    float *mean; /* running mean of the weights, with ema.decay > 0 */
} du_optim;

/* Memory in bytes of one of n_ranks: what du_optim_init takes, and at most the scratch of a step.
 */
typedef struct {
    size_t moments, mean, scratch;
} du_optim_memory;

du_optim_memory du_optim_measure(const du_kern *kern, const du_train_config *config,
                                 const du_params *params, int64_t n_ranks);

/* Moments of zeros; the running mean begins at the weights as they are. config, params and ranks
 * are borrowed; where experts are spread, over all ranks. Returns DU_OK, DU_ENOMEM. Free with
 * du_optim_done, which takes an empty one. */
DU_NODISCARD
du_err du_optim_init(du_optim *optim, const du_train_config *config, const du_params *params,
                     du_ranks *ranks, du_diag *diag);
void du_optim_done(du_optim *optim);

/* Lets the running mean begin again. */
void du_optim_begin(du_optim *optim);

/* Who owns what of a tensor of the block. spans [ranks] out */
void du_optim_owners(const du_optim *optim, const du_param *t, du_span *spans);

/* The 2-norm of all gradients [params->n_values], of which each rank has what it owns; NaN or
 * infinite when one is. All ranks call it.
 * Returns DU_OK, DU_ENOMEM (scratch), DU_EIO (a rank is lost). */
DU_NODISCARD
du_err du_optim_norm(du_ctx *ctx, const du_optim *optim, const float *grads, double *norm,
                     du_diag *diag);

/* One step, number t from 1, with the learning rate lr and gradients times `clip`:
 *
 *     adamw  m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2,
 *            w = (1 - lr decay) w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
 *                                                       (Loshchilov & Hutter 2019, algorithm 2)
 *     sgd    m = momentum m + g, w = (1 - lr decay) w - lr m
 *
 *     muon   matrices but the embedding and the output matrix as muon.h says, all else adamw
 *
 * decay is optim.weight_decay, 0 for vectors when optim.decay = matrices. Then, of all w,
 *
 *     mean = ema.decay mean + (1 - ema.decay) w
 *
 * All of it in the own span. Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_optim_step(du_ctx *ctx, du_optim *optim, const float *grads, int64_t t, double lr,
                     double clip);

#endif
