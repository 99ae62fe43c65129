/* Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1) of a layer, in whichever
 * of its two forms is faster. */
#ifndef DU_NN_LATENT_H
#define DU_NN_LATENT_H

#include "nn/attention.h"
#include "tensor/mat.h"

/* A layer's matrices per head: K_h^T [R, nope] and V_h [v, R]. */
typedef struct {
    const du_mat *k_heads, *v_heads; /* [H] */
} du_latent_weights;

/* With cached rows c [R] | r [P] per position s, and q[t,h] = [q_nope | q_rope]:
 *
 *     out[t,h] = V_h sum_s softmax_s(scale * (q_nope . K_h c[s] + q_rope . r[s])) c[s]
 *
 * out [T, H, v] f32; q [T, H, nope + P] f32
 * Rows that follow each other in one sequence are computed in expanded form where that is faster,
 * so that their bits depend on how many they are; not with ctx->same_bits, nor while somebody
 * listens, who is shown the step "attn_latent" of the absorbed form. Returns DU_OK, DU_ENOMEM
 * (scratch). */
DU_NODISCARD
du_err du_latent_fwd(du_ctx *ctx, float *out, const float *q, const du_latent_weights *w,
                     const du_kv_layout *kv, int64_t layer, const du_attn_rows *rows,
                     const du_attn_params *params);

/* The same absorbed: (K_h^T q_nope) . c instead of q_nope . (K_h c), so that queries meet the cache
 * as it is, and V_h once behind the sum. */
DU_NODISCARD
du_err du_latent_absorbed_fwd(du_ctx *ctx, float *out, const float *q, const du_latent_weights *w,
                              const du_kv_layout *kv, int64_t layer, const du_attn_rows *rows,
                              const du_attn_params *params);

/* Widths: of latents R, rotated keys P, the other part of keys, and values. */
typedef struct {
    int64_t R, P, nope, v_dim;
} du_latent_dims;

/* The cost rule: whether n_rows rows of one sequence behind n_cached positions are computed faster
 * in expanded form (nn/expanded.h), from a cache of that type by a model that may round or not. */
bool du_latent_expands(const du_kern *kern, const du_latent_dims *dims, du_dtype cache,
                       bool may_round, int64_t n_rows, int64_t n_cached);

#endif
