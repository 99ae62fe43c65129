/* Attention over cached rows, written once in the vectors of a level (simd_<isa>.h is included
 * before).
 *
 * Scores: QK_Q queries by QK_J cached rows at a time, one accumulator each; columns in steps of VF,
 * so that a score's bits do not depend on the tile it stands in. Weighted sums: PV_Q queries by
 * PV_V vectors of columns at a time, accumulators in registers over the whole run of rows. */
#include <math.h>

#include "kern/cpu/fill.h"
#include "kern/cpu/simd_tail.h"
#include "tensor/quant.h"

/* VF values of a cached row from column c on; n: how many of them exist (the rest are zeros) */
typedef vf kv_load_fn(const char *row, int64_t c, int64_t n);

INLINE vf kv_f32(const char *row, int64_t c, int64_t n) {
    return n >= VF ? vf_load(row + 4 * c) : vf_load_part(vf_load, row + 4 * c, n, 4);
}
INLINE vf kv_f16(const char *row, int64_t c, int64_t n) {
    return n >= VF ? vf_load_f16(row + 2 * c) : vf_load_part(vf_load_f16, row + 2 * c, n, 2);
}
INLINE vf kv_bf16(const char *row, int64_t c, int64_t n) {
    return n >= VF ? vf_load_bf16(row + 2 * c) : vf_load_part(vf_load_bf16, row + 2 * c, n, 2);
}
INLINE vf kv_q8_0(const char *row, int64_t c, int64_t n) {
    (void)n;
    const du_block_q8_0 *b = (const du_block_q8_0 *)row + c / 32;
    return vf_mul(vf_load_i8(b->qs + c % 32), vf_set1(simd_f16(b->d)));
}

INLINE vf load_up_to(const float *p, int64_t n) {
    return n >= VF ? vf_load(p) : vf_load_n(p, n);
}

/* Q queries by J cached rows */
INLINE void qk_tile(kv_load_fn *load, int Q, int J, float *s, int64_t lds, const float *q,
                    int64_t ldq, const char *kv, size_t stride, int64_t dim, float scale) {
    vf acc[QK_Q][QK_J];
    UNROLL
    for (int i = 0; i < Q; i++) {
        UNROLL
        for (int j = 0; j < J; j++) {
            acc[i][j] = vf_set1(0);
        }
    }
    for (int64_t c = 0; c < dim; c += VF) {
        vf k[QK_J];
        UNROLL
        for (int j = 0; j < J; j++) {
            k[j] = load(kv + (size_t)j * stride, c, dim - c);
        }
        UNROLL
        for (int i = 0; i < Q; i++) {
            vf v = load_up_to(q + i * ldq + c, dim - c);
            UNROLL
            for (int j = 0; j < J; j++) {
                acc[i][j] = vf_fma(v, k[j], acc[i][j]);
            }
        }
    }
    UNROLL
    for (int i = 0; i < Q; i++) {
        UNROLL
        for (int j = 0; j < J; j++) {
            s[i * lds + j] = scale * vf_sum(acc[i][j]);
        }
    }
}

INLINE void qk_rows(kv_load_fn *load, int J, float *s, int64_t lds, const float *q, int64_t ldq,
                    int64_t n_q, const char *kv, size_t stride, int64_t dim, float scale) {
    int64_t i = 0;
    for (; i + QK_Q <= n_q; i += QK_Q) {
        qk_tile(load, QK_Q, J, s + i * lds, lds, q + i * ldq, ldq, kv, stride, dim, scale);
    }
    for (; i < n_q; i++) {
        qk_tile(load, 1, J, s + i * lds, lds, q + i * ldq, ldq, kv, stride, dim, scale);
    }
}

INLINE void qk(kv_load_fn *load, float *s, int64_t lds, const float *q, int64_t ldq, int64_t n_q,
               const void *kv, size_t stride, int64_t n_kv, int64_t dim, float scale) {
    const char *row = kv;
    int64_t j = 0;
    for (; j + QK_J <= n_kv; j += QK_J, row += QK_J * stride) {
        qk_rows(load, QK_J, s + j, lds, q, ldq, n_q, row, stride, dim, scale);
    }
    for (; j < n_kv; j++, row += stride) {
        qk_rows(load, 1, s + j, lds, q, ldq, n_q, row, stride, dim, scale);
    }
}

/* Q queries by V vectors of columns from c on; a single vector may be short */
INLINE void pv_tile(kv_load_fn *load, int Q, int V, float *acc, int64_t ldacc, const float *p,
                    int64_t ldp, const char *kv, size_t stride, int64_t n_kv, int64_t c,
                    int64_t dim) {
    vf a[PV_Q][PV_V];
    int64_t n = V > 1 ? VF : dim - c;
    UNROLL
    for (int i = 0; i < Q; i++) {
        UNROLL
        for (int v = 0; v < V; v++) {
            a[i][v] = load_up_to(acc + i * ldacc + c + v * VF, n);
        }
    }
    for (int64_t j = 0; j < n_kv; j++, kv += stride) {
        vf k[PV_V];
        UNROLL
        for (int v = 0; v < V; v++) {
            k[v] = load(kv, c + v * VF, n);
        }
        UNROLL
        for (int i = 0; i < Q; i++) {
            vf w = vf_set1(p[i * ldp + j]);
            UNROLL
            for (int v = 0; v < V; v++) {
                a[i][v] = vf_fma(w, k[v], a[i][v]);
            }
        }
    }
    UNROLL
    for (int i = 0; i < Q; i++) {
        UNROLL
        for (int v = 0; v < V; v++) {
            float *to = acc + i * ldacc + c + v * VF;
            if (n >= VF) {
                vf_store(to, a[i][v]);
            } else {
                vf_store_n(to, a[i][v], n);
            }
        }
    }
}

INLINE void pv_columns(kv_load_fn *load, int V, float *acc, int64_t ldacc, const float *p,
                       int64_t ldp, int64_t n_q, const void *kv, size_t stride, int64_t n_kv,
                       int64_t c, int64_t dim) {
    int64_t i = 0;
    for (; i + PV_Q <= n_q; i += PV_Q) {
        pv_tile(load, PV_Q, V, acc + i * ldacc, ldacc, p + i * ldp, ldp, kv, stride, n_kv, c, dim);
    }
    for (; i + 2 <= n_q; i += 2) {
        pv_tile(load, 2, V, acc + i * ldacc, ldacc, p + i * ldp, ldp, kv, stride, n_kv, c, dim);
    }
    for (; i < n_q; i++) {
        pv_tile(load, 1, V, acc + i * ldacc, ldacc, p + i * ldp, ldp, kv, stride, n_kv, c, dim);
    }
}

INLINE void pv(kv_load_fn *load, float *acc, int64_t ldacc, const float *p, int64_t ldp,
               int64_t n_q, const void *kv, size_t stride, int64_t n_kv, int64_t dim) {
    int64_t c = 0;
    for (; c + PV_V * VF <= dim; c += PV_V * VF) {
        pv_columns(load, PV_V, acc, ldacc, p, ldp, n_q, kv, stride, n_kv, c, dim);
    }
    for (; c < dim; c += VF) {
        pv_columns(load, 1, acc, ldacc, p, ldp, n_q, kv, stride, n_kv, c, dim);
    }
}

INLINE void load_row(kv_load_fn *load, float *x, const char *row, int64_t dim) {
    int64_t c = 0;
    for (; c + VF <= dim; c += VF) {
        vf_store(x + c, load(row, c, VF));
    }
    if (c < dim) {
        vf_store_n(x + c, load(row, c, dim - c), dim - c);
    }
}

#define ATTN(suffix, name)                                                                         \
    static void qk_##name(float *s, int64_t lds, const float *q, int64_t ldq, int64_t n_q,         \
                          const void *kv, size_t stride, int64_t n_kv, int64_t dim, float scale) { \
        qk(kv_##name, s, lds, q, ldq, n_q, kv, stride, n_kv, dim, scale);                          \
    }                                                                                              \
    static void pv_##name(float *acc, int64_t ldacc, const float *p, int64_t ldp, int64_t n_q,     \
                          const void *kv, size_t stride, int64_t n_kv, int64_t dim) {              \
        pv(kv_##name, acc, ldacc, p, ldp, n_q, kv, stride, n_kv, dim);                             \
    }                                                                                              \
    static void load_##name(float *x, const void *kv, int64_t dim) {                               \
        load_row(kv_##name, x, kv, dim);                                                           \
    }
DU_KV_DTYPE_LIST(ATTN)
#undef ATTN

static void store_f16(void *kv, const float *x, int64_t dim) {
    int64_t i = 0;
    for (; i + VF <= dim; i += VF) {
        vf_store_f16((char *)kv + 2 * i, vf_load(x + i));
    }
    for (; i < dim; i++) {
        uint16_t h = du_f16_of_f32(x[i]);
        memcpy((char *)kv + 2 * i, &h, 2);
    }
}

/* As in attn_c.c; a group that is not finite is left to it. */
static void store_q8_0(void *kv, const float *x, int64_t dim) {
    du_block_q8_0 *b = kv;
    for (int64_t c = 0; c < dim; c += 32, b++) {
        float max = du_f32_of_bits(simd_max_bits_32(x + c));
        b->d = du_f16_of_f32(fminf(max / 127, 65504));
        float d = simd_f16(b->d);
        float rounded[32];
        for (int i = 0; i < 32; i += VF) {
            vf v = d > 0 ? vf_round(vf_div(vf_load(x + c + i), vf_set1(d))) : vf_set1(0);
            vf_store(rounded + i, vf_min(vf_max(v, vf_set1(-127)), vf_set1(127)));
        }
        int16_t sum[2];
        int8_t q[32];
        simd_round_32(q, sum, rounded, 1);
        memcpy(b->qs, q, 32);
    }
}

static void fill_attn(du_kern *k) {
#define FILL(suffix, name)                                                                         \
    k->qk[DU_##suffix] = qk_##name;                                                                \
    k->pv[DU_##suffix] = pv_##name;                                                                \
    k->kv_load[DU_##suffix] = load_##name;
    DU_KV_DTYPE_LIST(FILL)
#undef FILL
    k->kv_store[DU_F16] = store_f16;
    k->kv_store[DU_Q8_0] = store_q8_0;
}
