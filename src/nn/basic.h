/* The small layers: embedding, RMS norm, residual sum, rotary positions, SwiGLU feed-forward. */
#ifndef DU_NN_BASIC_H
#define DU_NN_BASIC_H

#include "nn/leaves.h"
#include "tensor/mat.h"

/* y[t] = w[tokens[t]]
 * y [T,D] f32 out; tokens [T] in [0, w->rows); w [V,D] */
void du_embed_fwd(du_ctx *ctx, float *y, const du_mat *w, const int32_t *tokens, int64_t T);

/* The gradient of the embedding, [V,D]: the sum of dx [T,D] over the rows with a token; T /
 * leaves.n rows of each leaf. grad NULL: nothing
 * is done. Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_embed_bwd(du_ctx *ctx, const du_sums *sums, float *grad, const float *dx,
                    const int32_t *tokens, int64_t T, int64_t V, int64_t D);

/* y[t,i] = x[t,i] * w[i] / sqrt(mean_i(x[t,i]^2) + eps)       (Zhang & Sennrich 2019, eq. 4)
 * y [T,D] f32 out, rows ldy apart; may be x when ldy = ldx
 * x [T,D] f32, rows ldx apart; w [D] f32. Rows are independent. */
void du_rmsnorm_fwd(du_ctx *ctx, float *y, int64_t ldy, const float *x, int64_t ldx, const float *w,
                    int64_t T, int64_t D, float eps);

/* dx += d(loss)/dx, and the gradient of w where it is one (nn/leaves.h), from dy; all rows of D
 * values, T / leaves.n of each leaf. dx overlaps neither dy nor x.
 * Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_rmsnorm_bwd(du_ctx *ctx, const du_sums *sums, float *dx, int64_t lddx, const float *dy,
                      int64_t lddy, const float *x, int64_t ldx, const float *w, int64_t T,
                      int64_t D, float eps);

/* y[t,i] += x[t,i]      y, x [T,D] f32 */
void du_add_fwd(du_ctx *ctx, float *y, const float *x, int64_t T, int64_t D);

/* y[t,i] = a[t,i] + b[t,i]      y, a, b [T,D] f32, y overlaps neither */
void du_sum_fwd(du_ctx *ctx, float *y, const float *a, const float *b, int64_t T, int64_t D);

/* y = silu(gate) * up      (Shazeer 2020, eq. 5); y, gate, up [T,F] f32, y may be gate or up.
 * bwd: dgate and dup from dy; each may be any of the inputs. */
void du_swiglu_fwd(du_ctx *ctx, float *y, const float *gate, const float *up, int64_t T, int64_t F);
void du_swiglu_bwd(du_ctx *ctx, float *dgate, float *dup, const float *dy, const float *gate,
                   const float *up, int64_t T, int64_t F);

/* y = down (silu(gate x) * up x)      (Shazeer 2020, eq. 6)
 * y [T,D] f32 out; x [T,D] f32; gate, up [F,D]; down [D,F]
 * tap  name under which what goes into down is shown, with the layer
 * Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_ffn_fwd(du_ctx *ctx, float *y, const float *x, const du_mat *gate, const du_mat *up,
                  const du_mat *down, const char *tap, int64_t layer, int64_t T);

#endif
