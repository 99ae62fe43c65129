/* The kernels on single rows at every level against double precision. */
#include "kern_test.h"

enum { SLOT_X, SLOT_W, SLOT_Y, SLOT_Q, SLOT_D, SLOT_SUM, SLOT_COS, SLOT_SIN, SLOT_Z };

enum { N_LONG = 7168 };
enum { N_LAST = 150 }; /* row lengths up to here are all tried, then LONG ones */
static const int64_t long_rows[] = {576, 1000, 1408, 2048, N_LONG};

static void each_length(void (*fn)(int64_t n), int64_t first, int64_t step) {
    for (int64_t n = first; n <= N_LAST; n += step) {
        guard_at_end = n / step % 2 == 0;
        fn(n);
    }
    for (size_t i = 0; i < sizeof long_rows / sizeof *long_rows; i++) {
        guard_at_end = i % 2 == 0;
        fn(long_rows[i] / step * step);
    }
}

static void check_near(const char *what, int64_t n, int64_t i, double got, double exact,
                       double terms, double steps) {
    if (!within(got, exact, terms, steps)) {
        fail_msg("%s %s n %ld at %ld: got %.9g, exact %.9g", what, du_isa_name(kern->isa), (long)n,
                 (long)i, got, exact);
    }
}

/* Outputs of quantize for x [n] in SLOT_X, checked. */
static void check_quantize(const float *x, int64_t n) {
    int8_t *q = guard(SLOT_Q, (size_t)n);
    int16_t *sum = guard(SLOT_SUM, 2 * (size_t)(n / 16));
    float *d = guard_out(SLOT_D, n / 32);
    memset(q, 0x5a, (size_t)n);
    memset(sum, 0x5a, 2 * (size_t)(n / 16));
    kern->quantize(q, d, sum, x, n);
    for (int64_t i = 0; i < n; i += 16) {
        const float *group = x + i / 32 * 32;
        double max = 0;
        for (int j = 0; j < 32; j++) {
            max = isfinite(group[j]) ? fmax(max, fabs(group[j])) : INFINITY;
            if (isinf(max)) {
                break;
            }
        }
        if (isinf(max)) {
            assert_false(isfinite(d[i / 32]));
        } else {
            check_near("quantize d", n, i, d[i / 32], max < 0x1p-100 ? 0 : max / 127, max / 127, 2);
        }
        int s = 0;
        for (int j = 0; j < 16; j++) {
            bool zero = isinf(max) || max < 0x1p-100;
            double ideal = zero ? 0 : x[i + j] / (max / 127);
            assert_true(fabs(q[i + j] - ideal) <= 0.5 + 1e-4 && abs(q[i + j]) <= 127);
            s += q[i + j];
        }
        assert_int_equal(sum[i / 16], s);
    }
}

/* What the rounding left of x, given q and d. */
static void check_residue(const float *x, int64_t n) {
    int8_t *q = guard(SLOT_Q, (size_t)n);
    int16_t sum[N_LONG / 16];
    float *d = guard_out(SLOT_D, n / 32), *r = guard_out(SLOT_Y, n);
    kern->quantize(q, d, sum, x, n);
    seal(SLOT_Q);
    seal(SLOT_D);
    kern->residue(r, x, q, d, n);
    for (int64_t i = 0; i < n; i++) {
        double exact = (double)x[i] - (double)d[i / 32] * q[i];
        check_near("residue", n, i, r[i], exact, fabs((double)x[i]), 2);
    }
}

static void quantize_normal(int64_t n) {
    float *x = guard_normal(SLOT_X, n, 1);
    for (int64_t i = 0; i < n; i++) {
        x[i] *= (float)exp2((double)(i / 32 * 7 % 90) - 45);
    }
    seal(SLOT_X);
    check_quantize(x, n);
    check_residue(x, n);
}

static void check_quantize_all(void) {
    static const float odd[] = {0,        1e-45f,   0x1p-101f, 0x1p-100f, 3.4e38f,
                                -3.4e38f, INFINITY, -INFINITY, NAN,       1};
    each_length(quantize_normal, 32, 32);
    for (size_t k = 0; k < sizeof odd / sizeof *odd; k++) {
        for (int64_t at = 0; at < 32; at++) {
            float *x = guard(SLOT_X, 64 * sizeof(float));
            for (int64_t i = 0; i < 64; i++) {
                x[i] = i == 32 + at ? odd[k] : i < 32 ? (float)i : 0.25f * odd[k] * (float)(at % 2);
            }
            check_quantize(x, 64);
        }
    }
}

static void rmsnorm_one(int64_t n) {
    for (int with = 0; with < 3; with++) {
        const float *w = with == 1 ? NULL : guard_normal(SLOT_W, n, 1);
        float *x = guard_normal(SLOT_X, n, 3);
        static double exact[1 << 13];
        double square = 0;
        for (int64_t i = 0; i < n; i++) {
            square += (double)x[i] * x[i];
        }
        for (int64_t i = 0; i < n; i++) {
            exact[i] = x[i] * (w ? w[i] : 1.0) / sqrt(square / (double)n + 1e-6f);
        }
        float *y = with == 2 ? x : guard_out(SLOT_Y, n);
        kern->rmsnorm(y, x, w, n, 1e-6f);
        for (int64_t i = 0; i < n; i++) {
            check_near("rmsnorm", n, i, y[i], exact[i], fabs(exact[i]), (double)n / 8 + 12);
        }
    }
}

static void swiglu_one(int64_t n) {
    for (int where = 0; where < 3; where++) {
        float *gate = guard_normal(SLOT_X, n, 20), *up = guard_normal(SLOT_W, n, 1);
        static double exact[1 << 13];
        for (int64_t i = 0; i < n; i++) {
            exact[i] = gate[i] / (1 + exp(-(double)gate[i])) * up[i];
        }
        float *y = where == 0 ? guard_out(SLOT_Y, n) : where == 1 ? gate : up;
        kern->swiglu(y, gate, up, n);
        for (int64_t i = 0; i < n; i++) {
            check_near("swiglu", n, i, y[i], exact[i], fabs(exact[i]) + 1e-30, 10);
        }
    }
}

/* Far out silu(v) is v or 0, and never NaN for a finite gate. */
static void check_swiglu_far(void) {
    static const float far[] = {-3e38f, -1000, -104, -90, -88.5f, -80,
                                80,     88.5f, 90,   104, 1000,   3e38f};
    enum { N = sizeof far / sizeof *far };
    float gate[N], up[N], y[N];
    memcpy(gate, far, sizeof far);
    for (int i = 0; i < N; i++) {
        up[i] = 1;
    }
    kern->swiglu(y, gate, up, N);
    for (int i = 0; i < N; i++) {
        double exact = far[i] / (1 + exp(-(double)far[i]));
        check_near("swiglu", N, i, y[i], exact, fabs(exact) + 1e-30, 10);
    }
    gate[0] = NAN;
    kern->swiglu(y, gate, up, 1);
    assert_true(isnan(y[0]));
}

static void arithmetic_one(int64_t n) {
    static float before[1 << 13];
    const float *x = guard_normal(SLOT_X, n, 1);
    float *y = guard_normal(SLOT_Y, n, 1);
    seal(SLOT_X);
    memcpy(before, y, sizeof(float) * (size_t)n);
    kern->add(y, x, n);
    for (int64_t i = 0; i < n; i++) {
        assert_true(same_bits(y[i], before[i] + x[i]));
        before[i] = y[i];
    }
    kern->scale(y, 0.7f, n);
    for (int64_t i = 0; i < n; i++) {
        assert_true(same_bits(y[i], before[i] * 0.7f));
        before[i] = y[i];
    }
    kern->axpy(y, -1.3f, x, n);
    for (int64_t i = 0; i < n; i++) {
        double term = -1.3f * (double)x[i];
        check_near("axpy", n, i, y[i], before[i] + term, fabs(before[i]) + fabs(term), 2);
    }
}

static void rope_one(int64_t n_pair) {
    for (int neox = 0; neox < 2; neox++) {
        static float before[1 << 14];
        float *x = guard_normal(SLOT_X, 2 * n_pair, 1);
        float *cos_ = guard(SLOT_COS, sizeof(float) * (size_t)n_pair);
        float *sin_ = guard(SLOT_SIN, sizeof(float) * (size_t)n_pair);
        for (int64_t i = 0; i < n_pair; i++) {
            double angle = 10 * du_rng_normal(&rng);
            cos_[i] = (float)cos(angle), sin_[i] = (float)sin(angle);
        }
        seal(SLOT_COS), seal(SLOT_SIN);
        memcpy(before, x, sizeof(float) * 2 * (size_t)n_pair);
        (neox ? kern->rope_neox : kern->rope_norm)(x, cos_, sin_, n_pair);
        for (int64_t i = 0; i < n_pair; i++) {
            int64_t ia = neox ? i : 2 * i, ib = neox ? i + n_pair : 2 * i + 1;
            double a = before[ia], b = before[ib], c = cos_[i], s = sin_[i];
            check_near("rope", n_pair, ia, x[ia], a * c - b * s, fabs(a * c) + fabs(b * s), 2);
            check_near("rope", n_pair, ib, x[ib], a * s + b * c, fabs(a * s) + fabs(b * c), 2);
        }
    }
}

/* Units in the last place of the float nearest to exact. */
static double ulps(float got, double exact) {
    int exponent;
    frexp(exact, &exponent);
    double ulp = ldexp(1, (exponent < -125 ? -125 : exponent) - 24);
    return fabs(got - exact) / ulp;
}

/* exp over its whole range below 0, through a tile whose maximum is 0. */
static void check_exp(void) {
    enum { N = 1000 };
    double worst = 0;
    for (int64_t k = 0; k < 400; k++) {
        float s[N], in[N], m = -INFINITY, l = 0;
        for (int64_t i = 0; i < N; i++) {
            double x = -110 * ((double)(k * N + i) / (400 * N));
            s[i] = in[i] = i == 0 ? 0 : (float)x;
        }
        kern->softmax(s, N, &m, &l);
        for (int64_t i = 0; i < N; i++) {
            double e = ulps(s[i], exp((double)in[i]));
            worst = e > worst ? e : worst;
        }
    }
    if (!(worst <= 2)) {
        fail_msg("exp %s: %g ulp", du_isa_name(kern->isa), worst);
    }
}

static void softmax_one(int64_t n) {
    float *s = guard_normal(SLOT_X, n, 5);
    static float before[1 << 13];
    float m = -INFINITY, l = 0;
    for (int tile = 0; tile < 3; tile++) { /* a rising, then a falling maximum */
        float shift = tile == 1 ? 30 : -20;
        for (int64_t i = 0; i < n; i++) {
            before[i] = s[i] = shift + 5 * (float)du_rng_normal(&rng);
        }
        double max = m, sum = 0;
        for (int64_t i = 0; i < n; i++) {
            max = fmax(max, before[i]);
        }
        double factor = exp(m - max), l_before = l;
        float got = kern->softmax(s, n, &m, &l);
        assert_true(m == (float)max);
        check_near("softmax factor", n, 0, got, factor, factor, 4 + fabs(log(factor + 1e-300)));
        for (int64_t i = 0; i < n; i++) {
            double e = exp((double)(before[i] - m));
            check_near("softmax", n, i, s[i], e, e + 1e-44, 4);
            sum += e;
        }
        sum += l_before * got;
        check_near("softmax sum", n, 0, l, sum, sum, (double)n / 4 + 8);
    }
}

static void rmsnorm_bwd_one(int64_t n) {
    const float *x = guard_normal(SLOT_X, n, 3), *w = guard_normal(SLOT_W, n, 1);
    const float *dy = guard_normal(SLOT_Y, n, 1);
    float *dx = guard_normal(SLOT_D, n, 1), *dw = guard_normal(SLOT_Z, n, 1);
    static double before[2][1 << 13];
    double square = 0, product = 0, terms = 0;
    for (int64_t i = 0; i < n; i++) {
        before[0][i] = dx[i], before[1][i] = dw[i];
        square += (double)x[i] * x[i];
        product += (double)w[i] * dy[i] * x[i];
        terms += fabs((double)w[i] * dy[i] * x[i]);
    }
    seal(SLOT_X), seal(SLOT_W), seal(SLOT_Y);
    kern->rmsnorm_bwd(dx, dw, dy, x, w, n, 1e-6f);
    double r = 1 / sqrt(square / (double)n + 1e-6f), steps = (double)n / 8 + 20;
    for (int64_t i = 0; i < n; i++) {
        double c = x[i] * r * r * r / (double)n, own = r * w[i] * dy[i];
        double all = fabs(before[0][i]) + fabs(own) + fabs(c) * terms;
        check_near("rmsnorm_bwd dx", n, i, dx[i], before[0][i] + own - c * product, all, steps);
        double add = dy[i] * r * x[i];
        check_near("rmsnorm_bwd dw", n, i, dw[i], before[1][i] + add,
                   fabs(before[1][i]) + fabs(add), steps);
    }
}

static void swiglu_bwd_one(int64_t n) {
    for (int where = 0; where < 3; where++) {
        float *gate = guard_normal(SLOT_X, n, 20), *up = guard_normal(SLOT_W, n, 1);
        float *dy = guard_normal(SLOT_D, n, 1);
        static double exact[2][1 << 13], slope[1 << 13];
        for (int64_t i = 0; i < n; i++) {
            double s = 1 / (1 + exp(-(double)gate[i]));
            slope[i] = s * (1 + fabs(gate[i]) * (1 - s));
            exact[0][i] = dy[i] * (double)up[i] * s * (1 + gate[i] * (1 - s));
            exact[1][i] = dy[i] * (double)gate[i] * s;
        }
        float *dgate = where == 0 ? guard_out(SLOT_Y, n) : where == 1 ? gate : dy;
        float *dup = where == 0 ? guard_out(SLOT_Z, n) : up;
        double terms[2];
        for (int64_t i = 0; i < n; i++) {
            slope[i] *= fabs(dy[i] * (double)up[i]);
        }
        kern->swiglu_bwd(dgate, dup, dy, gate, up, n);
        for (int64_t i = 0; i < n; i++) {
            terms[0] = slope[i] + 1e-30, terms[1] = fabs(exact[1][i]) + 1e-30;
            check_near("swiglu_bwd gate", n, i, dgate[i], exact[0][i], terms[0], 24);
            check_near("swiglu_bwd up", n, i, dup[i], exact[1][i], terms[1], 12);
        }
    }
}

/* softmax_again gives what softmax gave; softmax_bwd and dot. */
static void softmax_bwd_one(int64_t n) {
    float *s = guard_normal(SLOT_X, n, 4), *ds = guard_normal(SLOT_D, n, 1);
    static double p[1 << 13], before[1 << 13];
    double sum = 0, product = 0, terms = 0;
    for (int64_t i = 0; i < n; i++) {
        p[i] = exp((double)s[i]);
        sum += p[i];
        before[i] = ds[i];
    }
    float lse = (float)log(sum);
    kern->softmax_again(s, n, lse);
    for (int64_t i = 0; i < n; i++) {
        double off = 1 + 2 * fabs((double)lse) + 40; /* of the exponent */
        check_near("softmax_again", n, i, s[i], p[i] / sum, p[i] / sum, off);
        product += (double)s[i] * ds[i];
        terms += fabs((double)s[i] * ds[i]);
    }
    check_near("dot", n, 0, kern->dot(s, ds, n), product, terms, (double)n / 8 + 8);
    kern->softmax_bwd(ds, s, n, 0.25f, 0.5f);
    for (int64_t i = 0; i < n; i++) {
        double exact = 0.5 * s[i] * (before[i] - 0.25);
        check_near("softmax_bwd", n, i, ds[i], exact, s[i] * (fabs(before[i]) + 0.25), 6);
    }
}

static void adamw_one(int64_t n) {
    float *w = guard_normal(SLOT_W, n, 1), *m = guard_normal(SLOT_X, n, 0.1f);
    float *v = guard_normal(SLOT_Y, n, 0.1f);
    const float *g = guard_normal(SLOT_D, n, 3);
    const du_adamw s = {0.9f, 0.95f, 1e-8f, 0.5f, 0.999f, 0.01f, 1.5f};
    static double exact[3][1 << 13], terms[1 << 13];
    for (int64_t i = 0; i < n; i++) {
        v[i] *= v[i];
        double d = (double)s.clip * g[i], before = w[i];
        exact[0][i] = (double)s.beta1 * m[i] + (1 - (double)s.beta1) * d;
        exact[1][i] = (double)s.beta2 * v[i] + (1 - (double)s.beta2) * d * d;
        double move = s.rate / (s.root * sqrt(exact[1][i]) + s.eps);
        terms[i] = fabs(before) + move * (fabs(m[i]) + fabs(d));
        exact[2][i] = s.keep * before - move * exact[0][i];
    }
    seal(SLOT_D);
    kern->adamw(w, m, v, g, n, &s);
    for (int64_t i = 0; i < n; i++) {
        check_near("adamw m", n, i, m[i], exact[0][i], fabs(g[i]) + 1, 4);
        check_near("adamw v", n, i, v[i], exact[1][i], exact[1][i], 8);
        check_near("adamw w", n, i, w[i], exact[2][i], terms[i], 16);
    }
}

static void check_softmax_empty(void) {
    float m = -INFINITY, l = 0, s[40];
    for (int i = 0; i < 40; i++) {
        s[i] = -INFINITY;
    }
    assert_true(kern->softmax(s, 40, &m, &l) == 1 && m == -INFINITY && l == 0);
    for (int i = 0; i < 40; i++) {
        assert_true(s[i] == 0);
    }
    s[7] = 3;
    for (int i = 0; i < 40; i++) {
        s[i] = i == 7 ? 3 : -INFINITY;
    }
    kern->softmax(s, 40, &m, &l);
    assert_true(m == 3 && l == 1 && s[7] == 1 && s[8] == 0);
    assert_true(kern->softmax(s, 0, &m, &l) == 1 && m == 3 && l == 1);
    s[3] = NAN;
    kern->softmax(s, 40, &m, &l);
    assert_true(isnan(l) && isnan(s[3]));
}

static void check_rmsnorm(void) {
    each_length(rmsnorm_one, 1, 1);
}
static void check_swiglu(void) {
    each_length(swiglu_one, 1, 1);
    check_swiglu_far();
}
static void check_arithmetic(void) {
    each_length(arithmetic_one, 1, 1);
}
static void check_rope(void) {
    each_length(rope_one, 1, 1);
}
static void check_backward(void) {
    each_length(rmsnorm_bwd_one, 1, 1);
    each_length(swiglu_bwd_one, 1, 1);
    each_length(softmax_bwd_one, 1, 1);
    each_length(adamw_one, 1, 1);
}
static void check_softmax(void) {
    each_length(softmax_one, 1, 1);
    check_softmax_empty();
}

#define TEST(name)                                                                                 \
    static void test_##name(void **state) {                                                        \
        (void)state;                                                                               \
        each_level(check_##name);                                                                  \
    }
TEST(quantize_all)
TEST(rmsnorm)
TEST(swiglu)
TEST(arithmetic)
TEST(rope)
TEST(exp)
TEST(softmax)
TEST(backward)
#undef TEST

int main(int argc, char **argv) {
    choose_level(argc, argv);
    du_rng_init(&rng, 2026);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantize_all), cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_swiglu),       cmocka_unit_test(test_arithmetic),
        cmocka_unit_test(test_rope),         cmocka_unit_test(test_exp),
        cmocka_unit_test(test_softmax),      cmocka_unit_test(test_backward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
