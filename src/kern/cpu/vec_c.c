/* The kernels on single rows, plain C. */
#include <math.h>
#include <stdbool.h>

#include "kern/cpu/exp.h"
#include "kern/cpu/fill.h"
#include "kern/cpu/lanes.h"

static void quantize_32(int8_t *q, float *d, int16_t *sum, const float *x) {
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++) {
        uint32_t b = du_bits_of_f32(x[i]) & 0x7fffffff;
        bits = b > bits ? b : bits;
    }
    float max = du_f32_of_bits(bits);
    bool usable = max >= DU_QUANTIZE_MIN && max <= 3.402823466e38f;
    float inverse = usable ? 127 / max : 0;
    *d = max < DU_QUANTIZE_MIN ? 0 : max / 127;
    for (int k = 0; k < 2; k++) {
        int s = 0;
        for (int i = 0; i < 16; i++) {
            int v = usable ? (int)rintf(x[16 * k + i] * inverse) : 0;
            q[16 * k + i] = (int8_t)v;
            s += v;
        }
        sum[k] = (int16_t)s;
    }
}

static void quantize(int8_t *q, float *d, int16_t *sum, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += 32) {
        quantize_32(q + i, d + i / 32, sum + i / 16, x + i);
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

static void rmsnorm(float *y, const float *x, const float *w, int64_t n, float eps) {
    float acc[DU_LANES] = {0};
    du_lanes_add_dot(acc, x, x, n);
    float scale = 1 / sqrtf(du_lanes_sum(acc) / (float)n + eps);
    for (int64_t i = 0; i < n; i++) {
        y[i] = w ? x[i] * scale * w[i] : x[i] * scale;
    }
}

static void swiglu(float *y, const float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        y[i] = gate[i] / (1 + du_exp(-gate[i])) * up[i];
    }
}

static void add(float *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        y[i] += x[i];
    }
}

static void axpy(float *y, float a, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        y[i] += a * x[i];
    }
}

static void scale(float *y, float a, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        y[i] *= a;
    }
}

static void rope_norm(float *x, const float *cos, const float *sin, int64_t n_pair) {
    for (int64_t i = 0; i < n_pair; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos[i] - b * sin[i];
        x[2 * i + 1] = a * sin[i] + b * cos[i];
    }
}

static void rope_neox(float *x, const float *cos, const float *sin, int64_t n_pair) {
    for (int64_t i = 0; i < n_pair; i++) {
        float a = x[i], b = x[i + n_pair];
        x[i] = a * cos[i] - b * sin[i];
        x[i + n_pair] = a * sin[i] + b * cos[i];
    }
}

static float softmax(float *s, int64_t n, float *m, float *l) {
    float max = *m;
    for (int64_t i = 0; i < n; i++) {
        max = s[i] > max ? s[i] : max;
    }
    if (max == -INFINITY) { /* nothing seen that counts */
        for (int64_t i = 0; i < n; i++) {
            s[i] = 0;
        }
        return 1;
    }
    float acc[DU_LANES] = {0};
    for (int64_t i = 0; i < n; i++) {
        s[i] = du_exp(s[i] - max);
        acc[i % DU_LANES] += s[i];
    }
    float factor = du_exp(*m - max);
    *l = *l * factor + du_lanes_sum(acc);
    *m = max;
    return factor;
}

static void rmsnorm_bwd(float *dx, float *dw, const float *dy, const float *x, const float *w,
                        int64_t n, float eps) {
    float squares[DU_LANES] = {0}, products[DU_LANES] = {0};
    du_lanes_add_dot(squares, x, x, n);
    for (int64_t i = 0; i < n; i++) {
        products[i % DU_LANES] += w[i] * dy[i] * x[i];
    }
    float r = 1 / sqrtf(du_lanes_sum(squares) / (float)n + eps);
    float c = r * r * (du_lanes_sum(products) / (float)n);
    for (int64_t i = 0; i < n; i++) {
        dx[i] += r * (w[i] * dy[i] - x[i] * c);
        dw[i] += dy[i] * x[i] * r;
    }
}

static void swiglu_bwd(float *dgate, float *dup, const float *dy, const float *gate,
                       const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float g = gate[i], s = 1 / (1 + du_exp(-g)), d = dy[i], u = up[i];
        dgate[i] = d * u * (s * (1 + g * (1 - s)));
        dup[i] = d * (g * s);
    }
}

static void softmax_again(float *s, int64_t n, float lse) {
    for (int64_t i = 0; i < n; i++) {
        s[i] = du_exp(s[i] - lse);
    }
}

static void softmax_bwd(float *ds, const float *p, int64_t n, float dot_, float scale_) {
    for (int64_t i = 0; i < n; i++) {
        ds[i] = scale_ * p[i] * (ds[i] - dot_);
    }
}

static float dot(const float *x, const float *y, int64_t n) {
    float acc[DU_LANES] = {0};
    du_lanes_add_dot(acc, x, y, n);
    return du_lanes_sum(acc);
}

static void adamw(float *w, float *m, float *v, const float *g, int64_t n, const du_adamw *step) {
    for (int64_t i = 0; i < n; i++) {
        float d = step->clip * g[i];
        m[i] = step->beta1 * m[i] + (1 - step->beta1) * d;
        v[i] = step->beta2 * v[i] + (1 - step->beta2) * d * d;
        w[i] = step->keep * w[i] - step->rate * (m[i] / (step->root * sqrtf(v[i]) + step->eps));
    }
}

void du_kern_fill_vec_c(du_kern *k) {
#define FILL(name, ret, args) k->name = name;
    DU_KERN_LIST(FILL)
#undef FILL
}
