/* Optimizers over the block of weights of a model (model/params.h).
 *
 * A step's arithmetic is elementwise, and sums have a fixed order, so threads change no bit. The
 * bias that only chooses experts is left alone: the router's rule moves it.
 *
 * Among ranks each one owns a span of the block: it keeps the moments of those values alone, which
 * take memory nowhere else, and steps them (ZeRO, stage 1; Rajbhandari et al. 2020, arXiv
 * 1910.02054, section 5.1). */
#ifndef DU_TRAIN_OPTIM_H
#define DU_TRAIN_OPTIM_H

#include "model/params.h"
#include "train/config.h"
#include "train/ranks.h"

typedef struct {
    const du_train_config *config;
    const du_params *params;
    du_ranks *ranks;
    du_span *spans; /* [ranks] of values, beside each other: who owns what */
    du_span own;    /* that of this rank */
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
 * are borrowed. Returns DU_OK, DU_ENOMEM. Free with du_optim_done, which takes an empty one. */
DU_NODISCARD
du_err du_optim_init(du_optim *optim, const du_train_config *config, const du_params *params,
                     du_ranks *ranks, du_diag *diag);
void du_optim_done(du_optim *optim);

/* Lets the running mean begin again. */
void du_optim_begin(du_optim *optim);

/* The spans of gradients that du_optim_norm and du_optim_step read: what is owned, and what the
 * norm's parts want of the next rank's. spans [ranks] out */
void du_optim_wanted(const du_optim *optim, du_span *spans);

/* The 2-norm of all gradients [params->n_values]; NaN or infinite when one is. All ranks call it.
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
 * decay is optim.weight_decay, 0 for vectors when optim.decay = matrices. Then mean = ema.decay
 * mean + (1 - ema.decay) w. All of it in the own span. Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_optim_step(du_ctx *ctx, du_optim *optim, const float *grads, int64_t t, double lr,
                     double clip);

#endif
