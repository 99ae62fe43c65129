/* Linear layers in training. */
#ifndef DU_NN_LINEAR_TRAIN_H
#define DU_NN_LINEAR_TRAIN_H

#include "nn/linear.h"
#include "nn/train_mat.h"

/* y = x W^T + bias of each of outs, which share x [T, cols], ldx apart.
 * Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_linear_train_fwd(du_ctx *ctx, const du_train *tr, const du_linear_out *outs,
                           int64_t n_out, const float *x, int64_t ldx, int64_t T);

/* One of the products that share an input, and d(loss)/dy of it, rows ldy apart. */
typedef struct {
    const float *dy;
    int64_t ldy;
    const du_mat *w;
    const float *bias;
} du_linear_grad;

/* Gradients of the weights and biases, and dx (+)= sum over outs of dy W.
 * dx   [T, cols] out, lddx apart; NULL: not wanted
 * add  to what dx holds
 * Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_linear_train_bwd(du_ctx *ctx, const du_train *tr, const du_linear_grad *outs,
                           int64_t n_out, float *dx, int64_t lddx, bool add, const float *x,
                           int64_t ldx, int64_t T);

#endif
