/* Causal attention of rows of queries against a paged key/value cache. */
#ifndef DU_NN_ATTENTION_H
#define DU_NN_ATTENTION_H

#include "nn/ctx.h"
#include "nn/kv.h"

/* Where the rows of a batch stand: row t is position pos[t] of sequence seq[t]. Rows of one
 * sequence that follow each other are consecutive positions. */
typedef struct {
    int64_t T;
    const du_kv_seq *const *seq; /* [T] */
    const int64_t *pos;          /* [T] */
} du_attn_rows;

/* What a layer's attention computes with. */
typedef struct {
    int64_t H; /* query heads, a multiple of the cache's key heads */
    float scale;
    bool may_round; /* queries, keys, values and weights may be rounded to BF16 where the level has
                       products of it, unless the cache is F32 (docs/design/attention.md) */
} du_attn_params;

/* Writes the rows' keys and values into the cache.
 * k [T, G, k_dim] f32; v [T, G, v_dim] f32, NULL for latent attention */
void du_kv_append(du_ctx *ctx, const du_kv_layout *kv, int64_t layer, const du_attn_rows *rows,
                  const float *k, const float *v);

/* out[t,h] = sum_s softmax_s(scale * q[t,h] . k[s,g]) v[s,g], s = 0 .. pos[t], g = h / (H/G)
 * (Vaswani et al. 2017, eq. 1)
 * out [T, H, v_dim] f32; q [T, H, k_dim] f32
 * A row's bits depend on its own query, position and cache only. Returns DU_OK, DU_ENOMEM
 * (scratch). */
DU_NODISCARD
du_err du_attn_fwd(du_ctx *ctx, float *out, const float *q, const du_kv_layout *kv, int64_t layer,
                   const du_attn_rows *rows, const du_attn_params *params);

#endif
