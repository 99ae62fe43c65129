/* Attention of training: whole sequences side by side, forward and backward (Vaswani et al. 2017,
 * eq. 1), in tiles of keys, so that queries x keys never exists (Dao 2023, arXiv 2307.08691,
 * algorithms 1 and 2). Row t of a sequence sees its positions first[t] .. t:
 *
 *     s_j = scale * q[t,h] . k[j,g]         g = h / (H / G)
 *     lse[t,h] = log sum_j exp(s_j)         out[t,h] = sum_j exp(s_j - lse[t,h]) v[j,g]
 *
 * and backward, with p_j = exp(s_j - lse[t,h]):
 *
 *     ds_j = scale * p_j * (dout[t,h] . v[j,g] - dout[t,h] . out[t,h])
 *     dq[t,h] = sum_j ds_j k[j,g]
 *     dk[j,g] = sum_t,h ds_j q[t,h]         dv[j,g] = sum_t,h p_j dout[t,h]
 *
 * Products are of the given kind (kern/gemm.h): in BF16 queries, keys, values, dout, p and ds are
 * rounded where they are factors, sums and everything else stay F32. Sums over t and h run over the
 * heads ascending, in a head over t. A sequence's bits depend neither on its neighbours nor on
 * threads; a forward row's, as far as numbers are finite, on what it sees alone.
 *
 * No result overlaps an input or another result. All return DU_OK or DU_ENOMEM (scratch). */
#ifndef DU_NN_ATTN_TRAIN_H
#define DU_NN_ATTN_TRAIN_H

#include "nn/ctx.h"

enum { DU_ATTN_TRAIN_DIM_MAX = 256 };

/* Where vectors of heads lie: floats from one row to the next, and from one head to the next. */
typedef struct {
    int64_t row, head;
} du_heads;

/* T = n_seq * seq_len rows, sequence after sequence */
typedef struct {
    int64_t n_seq, seq_len;
    int64_t H, G;          /* heads of queries, a multiple of the heads of keys and values */
    int64_t dk, dv;        /* sizes of a head, 1 .. DU_ATTN_TRAIN_DIM_MAX */
    du_heads q, k, v, out; /* so do their gradients lie */
    const int32_t *first;  /* [T] in [0, the row's position]: where its document begins; NULL: 0 */
    float scale;
} du_attn_train;

/* out  [T, H, dv] f32 out     lse [T, H] f32 out, contiguous; kept for _bwd
 * q    [T, H, dk] f32         k [T, G, dk] f32         v [T, G, dv] f32 */
DU_NODISCARD
du_err du_attn_train_fwd(du_ctx *ctx, du_gemm_kind kind, const du_attn_train *a, float *out,
                         float *lse, const float *q, const float *k, const float *v);

/* What lies between heads is not written.
 * dq   [T, H, dk] f32 out     dk [T, G, dk] f32 out    dv [T, G, dv] f32 out
 * dout [T, H, dv] f32         out, lse: of du_attn_train_fwd on the same q, k, v */
DU_NODISCARD
du_err du_attn_train_bwd(du_ctx *ctx, du_gemm_kind kind, const du_attn_train *a, float *dq,
                         float *dk, float *dv, const float *dout, const float *out,
                         const float *lse, const float *q, const float *k, const float *v);

/* Bytes of scratch that each thread takes in them, at most. */
size_t du_attn_train_bytes(const du_ctx *ctx, du_gemm_kind kind, const du_attn_train *attn);

#endif
