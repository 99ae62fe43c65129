/* Losses: functions from logits to d(loss)/d(logits). Nothing below them knows which one it is. */
#ifndef DU_NN_LOSS_H
#define DU_NN_LOSS_H

#include "nn/ctx.h"

/* An objective gets the logits of rows [row0, row0 + n) of a micro-batch, [n, V] f32, adds up its
 * loss in a place of its own and overwrites them by their gradient. Called for a few hundred rows
 * at a time, ascending, from one thread. Returns DU_OK, DU_ENOMEM (scratch). */
typedef struct du_objective {
    du_err (*rows)(struct du_objective *self, du_ctx *ctx, float *logits, int64_t row0, int64_t n,
                   int64_t V);
} du_objective;

/* Cross-entropy of next tokens, with label smoothing and the z-loss:
 *
 *     l = logsumexp(logits)    p = softmax(logits)    q = (1 - smoothing) onehot(target) +
 *                                                                smoothing / V
 *     loss = weight * (l - sum_v q_v logits_v + z l^2)
 *     dlogits = scale * weight * (p - q + 2 z l p)
 *
 * Rows whose target is negative give nothing. */
typedef struct {
    du_objective base;
    const int32_t *targets; /* [T], -1: none */
    const float *weights;   /* [T] or NULL: 1 each */
    double scale;           /* 1 / (the step's sum of weights): what makes a mean of the sum */
    double z, smoothing;
    double *losses; /* [T] out: cross-entropy alone, times the weight */
} du_cross_entropy;

/* The function `rows` of a du_cross_entropy; its other fields are the caller's to fill. */
du_err du_cross_entropy_rows(du_objective *self, du_ctx *ctx, float *logits, int64_t row0,
                             int64_t n, int64_t V);

#endif
