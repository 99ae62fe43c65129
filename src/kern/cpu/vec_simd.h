/* The kernels on single rows, written once in the vectors of a level (simd_<isa>.h is included
 * before). Formulas: kern/kern.h. */
#include <math.h>
#include <stdbool.h>

#include "kern/cpu/exp.h"
#include "kern/cpu/fill.h"
#include "kern/cpu/simd_tail.h"

INLINE vf vf_exp(vf x) {
    /* min and max give their second operand for a NaN: it stays */
    x = vf_min(vf_set1(DU_EXP_MAX), vf_max(vf_set1(DU_EXP_MIN), x));
    vf n = vf_round(vf_mul(x, vf_set1(DU_EXP_LOG2E)));
    vf r = vf_fnma(n, vf_set1(DU_EXP_LN2_LO), vf_fnma(n, vf_set1(DU_EXP_LN2_HI), x));
    vf p = vf_fma(vf_set1(DU_EXP_C4), r, vf_set1(DU_EXP_C3));
    p = vf_fma(p, r, vf_set1(DU_EXP_C2));
    p = vf_fma(p, r, vf_set1(DU_EXP_C1));
    p = vf_fma(p, r, vf_set1(DU_EXP_C0));
    return vf_scale2(vf_add(vf_set1(1), vf_fma(vf_mul(r, r), p, r)), n);
}

static void quantize(int8_t *q, float *d, int16_t *sum, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += 32) {
        float max = du_f32_of_bits(simd_max_bits_32(x + i));
        bool usable = max >= DU_QUANTIZE_MIN && max <= 3.402823466e38f;
        d[i / 32] = max < DU_QUANTIZE_MIN ? 0 : max / 127;
        if (usable) {
            simd_round_32(q + i, sum + i / 16, x + i, 127 / max);
        } else {
            memset(q + i, 0, 32);
            sum[i / 16] = sum[i / 16 + 1] = 0;
        }
    }
}

static void residue(float *r, const float *x, const int8_t *q, const float *d, int64_t n) {
    for (int64_t i = 0; i < n; i += 32) {
        float scale = d[i / 32];
        for (int64_t k = i; k < i + 32; k++) {
            r[k] = x[k] - scale * (float)q[k];
        }
    }
}

/* sum_i a[i] b[i] c[i]; c NULL: ones */
INLINE float sum_of_products(const float *a, const float *b, const float *c, int64_t n) {
    vf acc[4] = {vf_set1(0), vf_set1(0), vf_set1(0), vf_set1(0)};
    int64_t i = 0, n_full = n / VF * VF;
    for (; i + 4 * VF <= n; i += 4 * VF) {
        UNROLL
        for (int k = 0; k < 4; k++) {
            vf v = vf_load(a + i + k * VF);
            v = c ? vf_mul(v, vf_load(c + i + k * VF)) : v;
            acc[k] = vf_fma(v, vf_load(b + i + k * VF), acc[k]);
        }
    }
    for (; i < n; i += VF) {
        bool full = i < n_full;
        vf v = full ? vf_load(a + i) : vf_load_n(a + i, n - i);
        if (c) {
            v = vf_mul(v, full ? vf_load(c + i) : vf_load_n(c + i, n - i));
        }
        acc[0] = vf_fma(v, full ? vf_load(b + i) : vf_load_n(b + i, n - i), acc[0]);
    }
    return vf_sum(vf_add(vf_add(acc[0], acc[1]), vf_add(acc[2], acc[3])));
}

static void rmsnorm(float *y, const float *x, const float *w, int64_t n, float eps) {
    float square = sum_of_products(x, x, NULL, n);
    int64_t i, n_full = n / VF * VF;
    float scale = 1 / sqrtf(square / (float)n + eps);
    for (i = 0; i < n_full; i += VF) {
        vf v = vf_mul(vf_load(x + i), vf_set1(scale));
        vf_store(y + i, w ? vf_mul(v, vf_load(w + i)) : v);
    }
    for (; i < n; i++) {
        y[i] = w ? x[i] * scale * w[i] : x[i] * scale;
    }
}

INLINE vf silu_times(vf gate, vf up) {
    vf e = vf_exp(vf_sub(vf_set1(-0.0f), gate));
    return vf_mul(vf_div(gate, vf_add(vf_set1(1), e)), up);
}

static void swiglu(float *y, const float *gate, const float *up, int64_t n) {
    int64_t i = 0;
    for (; i + VF <= n; i += VF) {
        vf_store(y + i, silu_times(vf_load(gate + i), vf_load(up + i)));
    }
    if (i < n) {
        vf v = silu_times(vf_load_n(gate + i, n - i), vf_load_n(up + i, n - i));
        vf_store_n(y + i, v, n - i);
    }
}

static void add(float *y, const float *x, int64_t n) {
    int64_t i = 0;
    for (; i + VF <= n; i += VF) {
        vf_store(y + i, vf_add(vf_load(y + i), vf_load(x + i)));
    }
    for (; i < n; i++) {
        y[i] += x[i];
    }
}

static void axpy(float *y, float a, const float *x, int64_t n) {
    int64_t i = 0;
    for (; i + VF <= n; i += VF) {
        vf_store(y + i, vf_fma(vf_set1(a), vf_load(x + i), vf_load(y + i)));
    }
    if (i < n) {
        vf v = vf_fma(vf_set1(a), vf_load_n(x + i, n - i), vf_load_n(y + i, n - i));
        vf_store_n(y + i, v, n - i);
    }
}

static void scale(float *y, float a, int64_t n) {
    int64_t i = 0;
    for (; i + VF <= n; i += VF) {
        vf_store(y + i, vf_mul(vf_load(y + i), vf_set1(a)));
    }
    for (; i < n; i++) {
        y[i] *= a;
    }
}

static void rope_norm(float *x, const float *cos, const float *sin, int64_t n_pair) {
    int64_t i = 0;
    for (; i + VF / 2 <= n_pair; i += VF / 2) {
        vf v = vf_load(x + 2 * i);
        vf s = vf_mul(vf_swap_pairs(v), vf_negate_even(vf_load_twice(sin + i)));
        vf_store(x + 2 * i, vf_fma(v, vf_load_twice(cos + i), s));
    }
    for (; i < n_pair; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos[i] - b * sin[i];
        x[2 * i + 1] = a * sin[i] + b * cos[i];
    }
}

static void rope_neox(float *x, const float *cos, const float *sin, int64_t n_pair) {
    int64_t i = 0;
    for (; i + VF <= n_pair; i += VF) {
        vf a = vf_load(x + i), b = vf_load(x + i + n_pair);
        vf c = vf_load(cos + i), s = vf_load(sin + i);
        vf_store(x + i, vf_fnma(b, s, vf_mul(a, c)));
        vf_store(x + i + n_pair, vf_fma(a, s, vf_mul(b, c)));
    }
    for (; i < n_pair; i++) {
        float a = x[i], b = x[i + n_pair];
        x[i] = a * cos[i] - b * sin[i];
        x[i + n_pair] = a * sin[i] + b * cos[i];
    }
}

/* max(m, max_j s[j]); NaNs count as nothing */
static float max_of(const float *s, int64_t n, float m) {
    vf max = vf_set1(m);
    int64_t i = 0;
    for (; i + VF <= n; i += VF) {
        max = vf_max(vf_load(s + i), max);
    }
    m = vf_max_lane(max);
    for (; i < n; i++) {
        m = s[i] > m ? s[i] : m;
    }
    return m;
}

static float softmax(float *s, int64_t n, float *m, float *l) {
    float max = max_of(s, n, *m);
    if (max == -INFINITY) { /* nothing seen that counts */
        memset(s, 0, sizeof(float) * (size_t)n);
        return 1;
    }
    vf acc = vf_set1(0);
    int64_t i = 0;
    for (; i + VF <= n; i += VF) {
        vf e = vf_exp(vf_sub(vf_load(s + i), vf_set1(max)));
        vf_store(s + i, e);
        acc = vf_add(acc, e);
    }
    float sum = vf_sum(acc);
    if (i < n) {
        float rest[VF];
        vf_store(rest, vf_exp(vf_sub(vf_load_n(s + i, n - i), vf_set1(max))));
        for (int k = 0; i < n; i++, k++) {
            s[i] = rest[k];
            sum += rest[k];
        }
    }
    float factor = du_exp(*m - max);
    *l = *l * factor + sum;
    *m = max;
    return factor;
}

static void rmsnorm_bwd(float *dx, float *dw, const float *dy, const float *x, const float *w,
                        int64_t n, float eps) {
    float r = 1 / sqrtf(sum_of_products(x, x, NULL, n) / (float)n + eps);
    float c = r * r * (sum_of_products(dy, x, w, n) / (float)n);
    int64_t i = 0;
    for (; i + VF <= n; i += VF) {
        vf vx = vf_load(x + i), vdy = vf_load(dy + i);
        vf v = vf_fnma(vx, vf_set1(c), vf_mul(vf_load(w + i), vdy));
        vf_store(dx + i, vf_fma(vf_set1(r), v, vf_load(dx + i)));
        vf_store(dw + i, vf_fma(vf_mul(vdy, vx), vf_set1(r), vf_load(dw + i)));
    }
    for (; i < n; i++) {
        dx[i] += r * (w[i] * dy[i] - x[i] * c);
        dw[i] += dy[i] * x[i] * r;
    }
}

INLINE void swiglu_grad(vf *dgate, vf *dup, vf dy, vf gate, vf up) {
    vf one = vf_set1(1), s = vf_div(one, vf_add(one, vf_exp(vf_sub(vf_set1(-0.0f), gate))));
    vf slope = vf_mul(s, vf_fma(gate, vf_sub(one, s), one));
    *dgate = vf_mul(vf_mul(dy, up), slope);
    *dup = vf_mul(dy, vf_mul(gate, s));
}

static void swiglu_bwd(float *dgate, float *dup, const float *dy, const float *gate,
                       const float *up, int64_t n) {
    int64_t i = 0;
    vf g, u;
    for (; i + VF <= n; i += VF) {
        swiglu_grad(&g, &u, vf_load(dy + i), vf_load(gate + i), vf_load(up + i));
        vf_store(dgate + i, g);
        vf_store(dup + i, u);
    }
    if (i < n) {
        swiglu_grad(&g, &u, vf_load_n(dy + i, n - i), vf_load_n(gate + i, n - i),
                    vf_load_n(up + i, n - i));
        vf_store_n(dgate + i, g, n - i);
        vf_store_n(dup + i, u, n - i);
    }
}

static void softmax_again(float *s, int64_t n, float lse) {
    int64_t i = 0;
    for (; i + VF <= n; i += VF) {
        vf_store(s + i, vf_exp(vf_sub(vf_load(s + i), vf_set1(lse))));
    }
    if (i < n) {
        vf_store_n(s + i, vf_exp(vf_sub(vf_load_n(s + i, n - i), vf_set1(lse))), n - i);
    }
}

static void softmax_bwd(float *ds, const float *p, int64_t n, float dot_, float scale_) {
    int64_t i = 0;
    for (; i + VF <= n; i += VF) {
        vf v = vf_mul(vf_set1(scale_), vf_load(p + i));
        vf_store(ds + i, vf_mul(v, vf_sub(vf_load(ds + i), vf_set1(dot_))));
    }
    for (; i < n; i++) {
        ds[i] = scale_ * p[i] * (ds[i] - dot_);
    }
}

static float dot(const float *x, const float *y, int64_t n) {
    return sum_of_products(x, y, NULL, n);
}

static void adamw(float *w, float *m, float *v, const float *g, int64_t n, const du_adamw *step) {
    const du_adamw s = *step;
    for (int64_t i = 0; i < n; i += VF) {
        bool full = i + VF <= n;
        vf d = vf_mul(vf_set1(s.clip), full ? vf_load(g + i) : vf_load_n(g + i, n - i));
        vf vm = full ? vf_load(m + i) : vf_load_n(m + i, n - i);
        vf vv = full ? vf_load(v + i) : vf_load_n(v + i, n - i);
        vf vw = full ? vf_load(w + i) : vf_load_n(w + i, n - i);
        vm = vf_fma(vf_set1(s.beta1), vm, vf_mul(vf_set1(1 - s.beta1), d));
        vv = vf_fma(vf_set1(s.beta2), vv, vf_mul(vf_set1(1 - s.beta2), vf_mul(d, d)));
        vf root = vf_fma(vf_set1(s.root), vf_sqrt(vv), vf_set1(s.eps));
        vw = vf_fnma(vf_set1(s.rate), vf_div(vm, root), vf_mul(vf_set1(s.keep), vw));
        if (full) {
            vf_store(m + i, vm);
            vf_store(v + i, vv);
            vf_store(w + i, vw);
        } else {
            vf_store_n(m + i, vm, n - i);
            vf_store_n(v + i, vv, n - i);
            vf_store_n(w + i, vw, n - i);
        }
    }
}

static void fill_vec(du_kern *k) {
#define FILL(name, ret, args) k->name = name;
    DU_KERN_LIST(FILL)
#undef FILL
}
