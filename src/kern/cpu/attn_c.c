/* Attention over cached rows, plain C: N_PART values of a cached row are brought to f32 once and
 * used for all queries. */
#include <math.h>

#include "kern/cpu/fill.h"
#include "kern/cpu/lanes.h"
#include "tensor/quant.h"

enum { N_PART = 64 }; /* N_PART: a multiple of Q8_0's block */

/* y [n] f32 <- values [c, c + n) of a cached row; c and n multiples of the type's block */
typedef void load_fn(float *y, const void *row, int64_t c, int64_t n);

static void load_f32(float *y, const void *row, int64_t c, int64_t n) {
    memcpy(y, (const char *)row + 4 * c, 4 * (size_t)n);
}

static void load_f16(float *y, const void *row, int64_t c, int64_t n) {
    const char *h = (const char *)row + 2 * c;
    for (int64_t i = 0; i < n; i++) {
        y[i] = du_f32_of_f16(du_load_u16(h + 2 * i));
    }
}

static void load_bf16(float *y, const void *row, int64_t c, int64_t n) {
    const char *h = (const char *)row + 2 * c;
    for (int64_t i = 0; i < n; i++) {
        y[i] = du_f32_of_bf16(du_load_u16(h + 2 * i));
    }
}

static void load_q8_0(float *y, const void *row, int64_t c, int64_t n) {
    const du_block_q8_0 *b = (const du_block_q8_0 *)row + c / 32;
    for (int64_t i = 0; i < n; i += 32, b++) {
        float d = du_f32_of_f16(b->d);
        for (int64_t j = 0; j < 32; j++) {
            y[i + j] = d * (float)b->qs[j];
        }
    }
}

static float dot(const float *a, const float *b, int64_t n) {
    float acc[DU_LANES] = {0};
    du_lanes_add_dot(acc, a, b, n);
    return du_lanes_sum(acc);
}

static inline void qk(load_fn *load, float *s, int64_t lds, const float *q, int64_t ldq,
                      int64_t n_q, const void *kv, size_t stride, int64_t n_kv, int64_t dim,
                      float scale) {
    for (int64_t j = 0; j < n_kv; j++) {
        const char *row = (const char *)kv + (size_t)j * stride;
        for (int64_t c = 0; c < dim; c += N_PART) {
            int64_t n = dim - c < N_PART ? dim - c : N_PART;
            float part[N_PART];
            load(part, row, c, n);
            for (int64_t i = 0; i < n_q; i++) {
                float d = dot(q + i * ldq + c, part, n);
                s[i * lds + j] = c == 0 ? d : s[i * lds + j] + d;
            }
        }
        for (int64_t i = 0; i < n_q; i++) {
            s[i * lds + j] *= scale;
        }
    }
}

static inline void pv(load_fn *load, float *acc, int64_t ldacc, const float *p, int64_t ldp,
                      int64_t n_q, const void *kv, size_t stride, int64_t n_kv, int64_t dim) {
    for (int64_t j = 0; j < n_kv; j++) {
        const char *row = (const char *)kv + (size_t)j * stride;
        for (int64_t c = 0; c < dim; c += N_PART) {
            int64_t n = dim - c < N_PART ? dim - c : N_PART;
            float part[N_PART];
            load(part, row, c, n);
            for (int64_t i = 0; i < n_q; i++) {
                for (int64_t k = 0; k < n; k++) {
                    acc[i * ldacc + c + k] += p[i * ldp + j] * part[k];
                }
            }
        }
    }
}

static void store_f32(void *kv, const float *x, int64_t dim) {
    memcpy(kv, x, 4 * (size_t)dim);
}

static void store_u16(void *kv, int64_t i, uint16_t h) {
    memcpy((char *)kv + 2 * i, &h, 2);
}

static void store_f16(void *kv, const float *x, int64_t dim) {
    for (int64_t i = 0; i < dim; i++) {
        store_u16(kv, i, du_f16_of_f32(x[i]));
    }
}

static void store_bf16(void *kv, const float *x, int64_t dim) {
    for (int64_t i = 0; i < dim; i++) {
        store_u16(kv, i, du_bf16_of_f32(x[i]));
    }
}

/* One scale per 32 values, max|x| / 127 rounded to f16 (at most its largest value), and the nearest
 * multiples of that rounded scale. */
static void store_q8_0(void *kv, const float *x, int64_t dim) {
    du_block_q8_0 *b = kv;
    for (int64_t c = 0; c < dim; c += 32, b++) {
        float max = 0;
        for (int64_t i = 0; i < 32; i++) {
            max = fmaxf(max, fabsf(x[c + i]));
        }
        b->d = du_f16_of_f32(fminf(max / 127, 65504));
        float d = du_f32_of_f16(b->d);
        for (int64_t i = 0; i < 32; i++) {
            float v = d > 0 ? rintf(x[c + i] / d) : 0;
            b->qs[i] = (int8_t)fminf(fmaxf(v, -127), 127);
        }
    }
}

#define ATTN(suffix, name)                                                                         \
    static void qk_##name(float *s, int64_t lds, const float *q, int64_t ldq, int64_t n_q,         \
                          const void *kv, size_t stride, int64_t n_kv, int64_t dim, float scale) { \
        qk(load_##name, s, lds, q, ldq, n_q, kv, stride, n_kv, dim, scale);                        \
    }                                                                                              \
    static void pv_##name(float *acc, int64_t ldacc, const float *p, int64_t ldp, int64_t n_q,     \
                          const void *kv, size_t stride, int64_t n_kv, int64_t dim) {              \
        pv(load_##name, acc, ldacc, p, ldp, n_q, kv, stride, n_kv, dim);                           \
    }                                                                                              \
    static void kv_load_##name(float *x, const void *kv, int64_t dim) {                            \
        load_##name(x, kv, 0, dim);                                                                \
    }
DU_KV_DTYPE_LIST(ATTN)
#undef ATTN

void du_kern_fill_attn_c(du_kern *k) {
#define FILL(suffix, name)                                                                         \
    k->qk[DU_##suffix] = qk_##name;                                                                \
    k->pv[DU_##suffix] = pv_##name;                                                                \
    k->kv_store[DU_##suffix] = store_##name;                                                       \
    k->kv_load[DU_##suffix] = kv_load_##name;
    DU_KV_DTYPE_LIST(FILL)
#undef FILL
}
