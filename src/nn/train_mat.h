/* Products of training with a model's matrices: F32 ones that are trained, and frozen ones of any
 * number type, with or without an adapter (tensor/mat.h). Gradients go where nn/leaves.h says.
 *
 * With W' = W + s B A, u = s A x and v = s B^T dy:
 *
 *     y = W x + B u       dx = W^T dy + A^T v       dA = v x^T       dB = dy u^T
 *
 * so that nothing of W's size is made. An adapter with a sum in fewer bits (tensor/mat.h) has that
 * in the place of W' in the first two; the others stay, as if rounding were not there. Both factors
 * of the adapter's products are as those of other products, rounded to BF16 where the kind says so.
 */
#ifndef DU_NN_TRAIN_MAT_H
#define DU_NN_TRAIN_MAT_H

#include "nn/gemm.h"
#include "nn/leaves.h"
#include "tensor/mat.h"

/* What the backward pass of a layer is computed with. */
typedef struct {
    du_gemm_kind kind; /* of products with weights */
    du_sums sums;
    const int64_t *end; /* [sums.leaves.n]: rows of leaf i are [end[i-1], end[i]) */
} du_train;

/* One product with a matrix [N,K]: y, ldy, x (dy for dgrad), T and add as in du_gemm_job. */
typedef struct {
    const du_mat *w;
    float *y;
    int64_t ldy;
    du_gemm_src x;
    int64_t T;
    bool add;
} du_train_job;

/* Y (+)= X W'^T and dX (+)= dY W' of each job, as one parallel region where all matrices are used
 * as they lie (F32, BF16). Others are unpacked to scratch, some tens of megabytes at a time, and
 * not at all for no rows. Results overlap as those of du_gemm_fwd may. Return DU_OK, DU_ENOMEM
 * (scratch). */
DU_NODISCARD
du_err du_train_fwd(du_ctx *ctx, du_gemm_kind kind, const du_train_job *jobs, int64_t n_jobs);
DU_NODISCARD
du_err du_train_dgrad(du_ctx *ctx, du_gemm_kind kind, const du_train_job *jobs, int64_t n_jobs);

/* Scratch of calls before they are made: of those that a matrix for T rows each was added to. The
 * tiles that gradients are summed in are left out. Begins as {.gemm = the products' kind}. */
typedef struct {
    const du_gemm *gemm;
    size_t most;        /* of products that are over before the last ones */
    int64_t n_unpacked; /* of the last ones, values */
    size_t panels;      /* their factors */
    size_t u, low;      /* of adapters: rows of u, or v; of those without a sum in fewer bits */
    size_t narrow;      /* their factors */
} du_train_room;

void du_train_room_add(du_train_room *room, const du_mat *w, int64_t T);
size_t du_train_room_products(const du_train_room *room);  /* du_train_fwd, du_train_dgrad */
size_t du_train_room_gradients(const du_train_room *room); /* du_train_wgrad */

/* The factors of a matrix's gradient: dy [T,N] and x [T,K] of the leaves whose rows `end` tells. */
typedef struct {
    const du_mat *w;
    du_gemm_src dy, x;
    int64_t T;
    const int64_t *end; /* [leaves.n], the last T */
} du_train_pair;

/* Gradients of the matrices, or of their adapters; none of what is frozen without one.
 * Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_train_wgrad(du_ctx *ctx, const du_train *tr, const du_train_pair *pairs, int64_t n_pairs);

#endif
