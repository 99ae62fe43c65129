/* Linear layers over weights of any number type. */
#ifndef DU_NN_LINEAR_H
#define DU_NN_LINEAR_H

#include "nn/ctx.h"
#include "tensor/mat.h"

/* One product of a group that shares its input: y[t*ldy + r] = sum_c w[r,c] x[t,c] + bias[r].
 * y     rows ldy apart, f32 out; overlaps neither x nor another output
 * w     [rows, cols]
 * bias  [rows] f32, or NULL */
typedef struct {
    float *y;
    int64_t ldy;
    const du_mat *w;
    const float *bias;
} du_linear_out;

/* Computes n_out products of the same rows x [T, cols] (ldx apart) in one parallel region; x is
 * rounded to 8 bits once when any of the weights is block-quantised.
 * Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_linear_fwd(du_ctx *ctx, const du_linear_out *outs, int64_t n_out, const float *x,
                     int64_t ldx, int64_t T);

/* The same with x rounded to 15 bits for block-quantised weights, as the sum of two products: for
 * inputs where that is worth its price (docs/design/activations.md). */
DU_NODISCARD
du_err du_linear_fine_fwd(du_ctx *ctx, const du_linear_out *outs, int64_t n_out, const float *x,
                          int64_t ldx, int64_t T);

/* Per-head products: y[t,h] = W_h x[t,h] for H matrices of one shape [rows, cols].
 * x  row (t,h) at x + (t*H + h) * ld_x, f32       y  row (t,h) at y + (t*H + h) * ld_y, f32 out
 * w  [H]
 * Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_heads_fwd(du_ctx *ctx, float *y, int64_t ld_y, const du_mat *w, const float *x,
                    int64_t ld_x, int64_t H, int64_t T);

/* How many rows of w one task of a parallel product takes: enough bytes to be worth handing out,
 * few enough that all threads get several. A multiple of 16, at least 16. */
int64_t du_linear_rows_per_task(const du_ctx *ctx, const du_mat *w, int64_t T);

#endif
