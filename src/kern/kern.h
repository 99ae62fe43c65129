/* The kernel table: every hot loop of the forward pass as a pure function on rows.
 *
 * A kernel allocates nothing, starts no thread, keeps no state and touches nothing outside the
 * shapes it is told. Rows (tokens, queries) are independent: the bits of a row's result depend
 * neither on how many rows are computed together nor on which rows of the weight matrix the call
 * covers. So thread count, chunking and batch neighbours never change a result.
 *
 * kern/cpu/<family>_c.c is complete and readable beside the formula; <family>_<isa>.c replaces
 * entries where it is at least 1.15 times as fast. Dimension letters as in docs/HACKING.md: T rows
 * (tokens). */
#ifndef DU_KERN_KERN_H
#define DU_KERN_KERN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cpu.h"
#include "kern/attn_tiles.h"
#include "kern/gemm.h"
#include "tensor/dtype.h"
#include "tensor/mat.h"

/* Rows of activations as the products read them: f32 for weights stored as floats; for
 * block-quantised weights 8-bit integers with one scale per 32 values, x[t,c] ~ d[t,c/32] * q[t,c].
 */
typedef struct {
    const float *x; /* [T, cols] f32, rows ldx apart */
    int64_t ldx;
    int64_t T, cols;
    const int8_t *q;    /* [T, cols] in [-127, 127], rows cols apart; NULL: no 8-bit form */
    const float *d;     /* [T, cols/32] */
    const int16_t *sum; /* [T, cols/16] sums of 16 consecutive q */
    const uint16_t *h;  /* [T, cols] bf16, rows ldh apart; NULL: none */
    int64_t ldh;
} du_acts;

/* y[t*ldy + r] = sum_c W[r,c] * x[row(t),c] for r in [row0, row1), t in [0, n_rows)
 *   row(t) = i_row ? i_row[t] : t      (i_row gathers the tokens of one expert)
 * Weights stored as floats: exact products, f32 sums. Block types: integer dot products per group
 * against x->q, scaled and summed in f32. y does not overlap the inputs. */
typedef void du_mm_fn(float *y, int64_t ldy, const du_mat *w, int64_t row0, int64_t row1,
                      const du_acts *x, const int32_t *i_row, int64_t n_rows);

/* Attention against cached rows. kv: n_kv rows of `dim` values of the cache's type, stride bytes
 * apart; dim is a multiple of the type's block.
 *
 * qk     s[i*lds + j] = scale * sum_c q[i*ldq + c] * kv[j][c]
 *
 * pv     acc[i*ldacc + c] += sum_j p[i*ldp + j] * kv[j][c], j ascending
 *
 * store  kv row <- x [dim] f32, rounded to nearest; Q8_0's scale is max|x| / 127 rounded to f16
 *
 * load   x [dim] f32 <- kv row, exactly */
typedef void du_qk_fn(float *s, int64_t lds, const float *q, int64_t ldq, int64_t n_q,
                      const void *kv, size_t stride, int64_t n_kv, int64_t dim, float scale);
typedef void du_pv_fn(float *acc, int64_t ldacc, const float *p, int64_t ldp, int64_t n_q,
                      const void *kv, size_t stride, int64_t n_kv, int64_t dim);
typedef void du_kv_store_fn(void *kv, const float *x, int64_t dim);
typedef void du_kv_load_fn(float *x, const void *kv, int64_t dim);

/* Number types of the KV cache: X(suffix, function name part) */
#define DU_KV_DTYPE_LIST(X) X(F32, f32) X(F16, f16) X(BF16, bf16) X(Q8_0, q8_0)

/* Numbers of a step of AdamW, below. */
typedef struct {
    float beta1, beta2, eps, clip, keep, rate, root;
} du_adamw;

/* The other kernels: X(name, return type, arguments)
 *
 * quantize: per 32 values d = max|x| / 127 and q = x / d rounded to nearest; sum per 16 of q. n is
 * a multiple of 32. A group whose max|x| is below 2^-100 has d = 0, q = 0; one that holds an
 * infinity or a NaN has q = 0 and a d that is not finite, so that what is computed from it is NaN.
 *
 * residue: r[i] = x[i] - d[i/32] * q[i], what quantize rounded away.
 *
 * rmsnorm: y[i] = x[i] * w[i] / sqrt(mean_i(x[i]^2) + eps)       (Zhang & Sennrich 2019, eq. 4); y
 * may be x; w NULL: all ones.
 *
 * swiglu: y[i] = silu(gate[i]) * up[i], silu(v) = v / (1 + exp(-v))         (Shazeer 2020, eq. 5);
 * y may be gate or up.
 *
 * add: y[i] += x[i]. axpy: y[i] += a * x[i]. scale: y[i] *= a.
 *
 * rope_norm rotates pairs (2i, 2i+1), i < n_pair, by (cos[i], sin[i]), in place; rope_neox rotates
 * pairs (i, i + n_pair).                                                         (Su et al. 2021)
 *
 * softmax: one tile of a running softmax (Milakov & Gimelshein 2018). With m' = max(*m, max_j
 * s[j]): s[j] = exp(s[j] - m'), *l = *l * exp(*m - m') + sum_j s[j], *m = m'; returns exp(*m_old -
 * m'), the factor for what was accumulated before. Start with *m = -INFINITY, *l = 0. While m' is
 * -INFINITY s becomes 0 and nothing else changes. exp is within 2 ulp.
 *
 * Backward, where d name is d(loss)/d(name):
 *
 * rmsnorm_bwd: with r = 1 / sqrt(mean_i(x[i]^2) + eps) and m = mean_i(w[i] dy[i] x[i]),
 * dx[i] += r * (w[i] dy[i] - x[i] r^2 m), dw[i] += dy[i] * x[i] * r. dx and dw overlap no input.
 *
 * swiglu_bwd: with s = 1 / (1 + exp(-gate[i])), dgate[i] = dy[i] up[i] s (1 + gate[i] (1 - s)) and
 * dup[i] = dy[i] gate[i] s. Each output may be any input.
 *
 * softmax_again: s[i] = exp(s[i] - lse), what softmax gave whose log of the sum was kept.
 *
 * softmax_bwd: ds[i] = scale * p[i] * (ds[i] - dot), dot = sum_i p[i] ds[i] over the whole row.
 *
 * dot: sum_i x[i] y[i].
 *
 * adamw: with g = clip * g[i], m[i] = beta1 m[i] + (1 - beta1) g, v[i] = beta2 v[i] + (1 - beta2)
 * g^2, w[i] = keep w[i] - rate m[i] / (root sqrt(v[i]) + eps)    (Loshchilov & Hutter 2019,
 * algorithm 2); for step t keep = 1 - lr decay, rate = lr / (1 - beta1^t), root = 1 / sqrt(1 -
 * beta2^t). */
#define DU_KERN_LIST(X)                                                                            \
    X(quantize, void, (int8_t * q, float *d, int16_t *sum, const float *x, int64_t n))             \
    X(residue, void, (float *r, const float *x, const int8_t *q, const float *d, int64_t n))       \
    X(rmsnorm, void, (float *y, const float *x, const float *w, int64_t n, float eps))             \
    X(swiglu, void, (float *y, const float *gate, const float *up, int64_t n))                     \
    X(add, void, (float *y, const float *x, int64_t n))                                            \
    X(axpy, void, (float *y, float a, const float *x, int64_t n))                                  \
    X(scale, void, (float *y, float a, int64_t n))                                                 \
    X(rope_norm, void, (float *x, const float *cos, const float *sin, int64_t n_pair))             \
    X(rope_neox, void, (float *x, const float *cos, const float *sin, int64_t n_pair))             \
    X(softmax, float, (float *s, int64_t n, float *m, float *l))                                   \
    X(rmsnorm_bwd, void,                                                                           \
      (float *dx, float *dw, const float *dy, const float *x, const float *w, int64_t n,           \
       float eps))                                                                                 \
    X(swiglu_bwd, void,                                                                            \
      (float *dgate, float *dup, const float *dy, const float *gate, const float *up, int64_t n))  \
    X(softmax_again, void, (float *s, int64_t n, float lse))                                       \
    X(softmax_bwd, void, (float *ds, const float *p, int64_t n, float dot, float scale))           \
    X(dot, float, (const float *x, const float *y, int64_t n))                                     \
    X(adamw, void, (float *w, float *m, float *v, const float *g, int64_t n, const du_adamw *step))

/* Probes: what a core can do at most, for measuring. X(code, name)
 *
 * n rounds of multiply-adds on registers, none waiting for another; every product is 1 * 1, and
 * the sum of all of them is returned, which is how many there were. n <= 2^20. A level that has no
 * such instruction has NULL.
 *
 * read_sum: the sum of n bytes at p as 64-bit words, modulo 2^64; n is a multiple of 256. Reads as
 * fast as a core can, hinting at up to 1 KiB behind the end. */
#define DU_PROBE_LIST(X)                                                                           \
    X(DU_PROBE_INT8, "int8")                                                                       \
    X(DU_PROBE_BF16, "bf16")                                                                       \
    X(DU_PROBE_F32, "f32")                                                                         \
    X(DU_PROBE_AMX_INT8, "AMX int8")                                                               \
    X(DU_PROBE_AMX_BF16, "AMX bf16")

#define DU_PROBE_ENUM(code, name) code,
typedef enum { DU_PROBE_LIST(DU_PROBE_ENUM) DU_PROBE_COUNT } du_probe;
#undef DU_PROBE_ENUM

typedef double du_probe_fn(int64_t n);
typedef uint64_t du_read_sum_fn(const void *p, int64_t n);

typedef struct {
    du_isa isa;
    du_probe_fn *probe[DU_PROBE_COUNT];
    du_read_sum_fn *read_sum;
    du_mm_fn *mm[DU_DTYPE_COUNT];
    du_mm_fn *mm_strips[DU_DTYPE_COUNT]; /* NULL: this level reads the type as it lies */
    bool strips_same_bits;               /* mm_strips without x->h gives the bits of mm */
    /* Writes rows [row0, row1) of w into w->strips (kern/strips.h); row0 is a multiple of 16, row1
     * too or the number of rows. */
    void (*strips_write)(const du_mat *w, int64_t row0, int64_t row1);
    int64_t n_bf16; /* from so many rows on mm_strips likes x->h, where it may differ by rounding;
                       0: never reads it */
    du_qk_fn *qk[DU_DTYPE_COUNT]; /* the types of DU_KV_DTYPE_LIST, NULL elsewhere */
    du_pv_fn *pv[DU_DTYPE_COUNT];
    du_kv_store_fn *kv_store[DU_DTYPE_COUNT];
    du_kv_load_fn *kv_load[DU_DTYPE_COUNT];
    du_attn_tiles attn; /* all NULL where the level has no products of BF16 */
    du_gemm gemm[DU_GEMM_KINDS];
    du_gemm_kind gemm_f32, gemm_bf16; /* the faster ones of the kinds */
    du_gemm_add_fn *gemm_add;
#define DU_KERN_FIELD(name, ret, args) ret(*name) args;
    DU_KERN_LIST(DU_KERN_FIELD)
#undef DU_KERN_FIELD
} du_kern;

/* What a run's products are made of, with factors in BF16 or in F32. */
static inline du_gemm_kind du_kern_gemm_kind(const du_kern *kern, bool bf16) {
    return bf16 ? kern->gemm_bf16 : kern->gemm_f32;
}

/* The table of a level, complete; NULL when this machine lacks it. Static storage, thread-safe. */
const du_kern *du_kern_get(du_isa isa);

#endif
