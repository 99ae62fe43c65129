/* Linear layers in training: F32 weights, products of nn/gemm.h, gradients of nn/leaves.h. */
#ifndef DU_NN_LINEAR_TRAIN_H
#define DU_NN_LINEAR_TRAIN_H

#include "nn/gemm.h"
#include "nn/leaves.h"
#include "nn/linear.h"

/* What the backward pass of a layer is computed with. */
typedef struct {
    du_gemm_kind kind; /* of products with weights */
    du_sums sums;
    const int64_t *end; /* [sums.leaves.n]: rows of leaf i are [end[i-1], end[i]) */
} du_train;

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

/* The gradient of one matrix [N,K] in its place among others, for du_gemm_wgrad: dy [., N] and x
 * [., K] of the leaves whose rows `end` tells. nodes [DU_LEAF_LEVELS] is filled and borrowed.
 * Returns false where the matrix is frozen. */
bool du_train_grad(const du_train *tr, du_gemm_grad *out, float **nodes, const du_mat *w,
                   du_gemm_src dy, du_gemm_src x, const int64_t *end);

#endif
