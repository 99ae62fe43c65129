/* The products of training, over a pool of threads: forward, gradient of the input, gradient of the
 * weights. What an element of a result is, to the bit, is said in kern/gemm.h; it depends on
 * neither threads, nor the split into tasks, nor the other rows, nor the other products of a call.
 *
 * A call takes any number of products, experts with row counts of their own for example, as one
 * parallel region. Rows of inputs may be strided, gathered, and stored as BF16. No result overlaps
 * an input or another result, except that a job with `add` may have the y of the job before it,
 * whole, and goes on with its chains. Neighbours that share x are computed together, which is
 * faster. All return DU_OK or DU_ENOMEM (scratch). */
#ifndef DU_NN_GEMM_H
#define DU_NN_GEMM_H

#include "kern/gemm.h"
#include "nn/ctx.h"
#include "nn/leaves.h"

/* A factor whose rows lie in their order, ld values apart, in f32. */
static inline du_gemm_src du_gemm_rows(const void *data, int64_t ld) {
    return (du_gemm_src){.data = data, .ld = ld};
}

/* One product of du_gemm_fwd or du_gemm_dgrad; k_rows of its factors is not read. */
typedef struct {
    float *y; /* [T, N] (fwd), [T, K] (dgrad) out, rows ldy apart */
    int64_t ldy;
    du_gemm_src x;      /* [T, K] (fwd); dY [T, N] (dgrad) */
    du_gemm_src w;      /* [N, K]; not read where packed is set */
    const void *packed; /* w by du_gemm_pack_fwd or du_gemm_pack_dgrad; NULL: packed on the way */
    int64_t T, N, K;
    bool add; /* to what y holds, as the beginning of the chains */
} du_gemm_job;

/* Y = X W^T: y[t,n] (+)= sum_k x[t,k] w[n,k] */
DU_NODISCARD
du_err du_gemm_fwd(du_ctx *ctx, du_gemm_kind kind, const du_gemm_job *jobs, int64_t n_jobs);

/* dX = dY W: y[t,k] (+)= sum_n x[t,n] w[n,k] */
DU_NODISCARD
du_err du_gemm_dgrad(du_ctx *ctx, du_gemm_kind kind, const du_gemm_job *jobs, int64_t n_jobs);

/* Weights in the form that products read, for many calls: `to` has du_gemm_packed_fwd_bytes or
 * ..._dgrad_bytes, aligned to DU_ALIGN. */
size_t du_gemm_packed_fwd_bytes(const du_kern *kern, du_gemm_kind kind, int64_t N, int64_t K);
size_t du_gemm_packed_dgrad_bytes(const du_kern *kern, du_gemm_kind kind, int64_t N, int64_t K);
void du_gemm_pack_fwd(du_ctx *ctx, du_gemm_kind kind, void *to, const du_gemm_src *w, int64_t N,
                      int64_t K);
void du_gemm_pack_dgrad(du_ctx *ctx, du_gemm_kind kind, void *to, const du_gemm_src *w, int64_t N,
                        int64_t K);

/* Rows and columns of a gradient that a task computes at most: per thread scratch for one such sum
 * of each level of the leaves' tree and one more, and for panels of both factors. */
enum { DU_GEMM_GRAD_TILE = 384 };

/* One gradient of du_gemm_wgrad; k_rows of its factors is not read. */
typedef struct {
    float *dw; /* [N, K] out, rows lddw apart, when the leaves are the last */
    int64_t lddw;
    du_gemm_src dy, x;   /* [., N], [., K] */
    const int64_t *end;  /* [leaves.n]: leaf i has the rows [end[i-1], end[i]), 0 before the first;
                            a leaf without rows counts as zeros */
    float *const *nodes; /* [N, K] each, rows lddw apart; may be NULL where first is 0 and last
                              set. nodes[l] may be the place of a lower level, or of dw without
                              add, where the two are never needed together. After the last
                              leaves they hold nothing of use */
    int64_t N, K;
    bool add; /* to what dw holds, after everything else */
} du_gemm_grad;

/* dW = dY^T X: dw[n,k] (+)= sum over leaves in their tree of sum_t dy[t,n] x[t,k] */
DU_NODISCARD
du_err du_gemm_wgrad(du_ctx *ctx, du_gemm_kind kind, const du_gemm_grad *grads, int64_t n_grads,
                     du_leaves leaves);

#endif
