/* The small layers: embedding, RMS norm, residual sum, rotary positions, SwiGLU feed-forward. */
#ifndef DU_NN_BASIC_H
#define DU_NN_BASIC_H

#include "nn/ctx.h"
#include "tensor/mat.h"

/* y[t] = w[tokens[t]]
 * y [T,D] f32 out; tokens [T] in [0, w->rows); w [V,D] */
void du_embed_fwd(du_ctx *ctx, float *y, const du_mat *w, const int32_t *tokens, int64_t T);

/* y[t,i] = x[t,i] * w[i] / sqrt(mean_i(x[t,i]^2) + eps)       (Zhang & Sennrich 2019, eq. 4)
 * y [T,D] f32 out, rows ldy apart; may be x when ldy = ldx
 * x [T,D] f32, rows ldx apart; w [D] f32. Rows are independent. */
void du_rmsnorm_fwd(du_ctx *ctx, float *y, int64_t ldy, const float *x, int64_t ldx, const float *w,
                    int64_t T, int64_t D, float eps);

/* y[t,i] += x[t,i]      y, x [T,D] f32 */
void du_add_fwd(du_ctx *ctx, float *y, const float *x, int64_t T, int64_t D);

/* y = down (silu(gate x) * up x)      (Shazeer 2020, eq. 6)
 * y [T,D] f32 out; x [T,D] f32; gate, up [F,D]; down [D,F]
 * tap  name under which what goes into down is shown, with the layer
 * Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_ffn_fwd(du_ctx *ctx, float *y, const float *x, const du_mat *gate, const du_mat *up,
                  const du_mat *down, const char *tap, int64_t layer, int64_t T);

#endif
