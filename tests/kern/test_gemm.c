/* Products for training at every level and of every kind: bit for bit what kern/gemm.h says,
 * element by element, and that close to double precision; whatever the way the factors lie in
 * memory and however a product is cut. */
#include "kern/cpu/fill.h"
#include "kern/gemm.h"
#include "kern_test.h"

enum { SLOT_A, SLOT_B, SLOT_IA, SLOT_IB, SLOT_PA, SLOT_PB, SLOT_C, SLOT_C1 };

typedef struct {
    du_gemm_src a, b;
    int64_t m, n, k;
} problem;

static const du_gemm *gemm;
static du_gemm_kind kind;

static float value(const du_gemm_src *s, int64_t i, int64_t k) {
    int64_t r = s->k_rows ? k : i, c = s->k_rows ? i : k;
    int64_t at = (s->i_row ? s->i_row[r] : r) * s->ld + c;
    return s->bf16 ? du_f32_of_bf16(((const uint16_t *)s->data)[at]) : ((const float *)s->data)[at];
}

/* Zero of its sign where x is subnormal */
static float flush(float x) {
    return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x;
}

static float bf16(float v) {
    return flush(du_f32_of_bf16(du_bf16_of_f32(flush(v))));
}

static bool is_f32(void) {
    return kind == DU_GEMM_F32 || kind == DU_GEMM_F32_TILES;
}

/* To nearest, ties away from zero */
static float bf16_away(float v) {
    double ulp = v == 0 || !isfinite(v)
                     ? 1
                     : ldexp(1, (ilogb((double)v) < -126 ? -126 : ilogb((double)v)) - 7);
    return v == 0 || !isfinite(v) ? v : (float)(round((double)v / ulp) * ulp);
}

/* The value as the kind rounds it; of parts the one asked for */
static float factor(const du_gemm_src *s, int64_t i, int64_t k, int part) {
    float v = value(s, i, k);
    if (kind != DU_GEMM_F32_TILES) {
        return kind == DU_GEMM_F32 ? v : bf16(v);
    }
    for (int p = 0; p < part; p++) {
        v = v - bf16_away(v);
    }
    return flush(part < 2 ? bf16_away(v) : v);
}

/* a * b + c, rounded once, subnormal operands and results zeros. A product of BF16 is exact in
 * double, and a sum rounded to 53 bits first is then rounded to 24 as if at once (Figueroa 1995);
 * what would be below the normal numbers with 24 bits becomes 0. */
static float fma_flushed(float a, float b, float c) {
    double v = (double)a * b + flush(c);
    return fabs(v) < 0x1p-126 - 0x1p-151 ? (float)copysign(0, v) : (float)v;
}

static float fused(float a, float b, float c) {
    if (kern->isa != DU_ISA_C) {
        return fmaf(a, b, c);
    }
    float product = a * b;
    return product + c;
}

/* c + the product of both factors' value k, or of their parts; beyond the last they are zeros */
static float step_of(const problem *p, int64_t i, int64_t j, int64_t k, const int parts[2],
                     float c) {
    float a = k < p->k ? factor(&p->a, i, k, parts[0]) : 0;
    float b = k < p->k ? factor(&p->b, j, k, parts[1]) : 0;
    return kind == DU_GEMM_F32 ? fused(a, b, c) : fma_flushed(a, b, c);
}

static const int first[2] = {0, 0};

static float step(const problem *p, int64_t i, int64_t j, int64_t k, float c) {
    return step_of(p, i, j, k, first, c);
}

/* A tile from k on */
static float tile(const problem *p, int64_t i, int64_t j, int64_t k, const int parts[2], float c) {
    int64_t step = kind == DU_GEMM_F32_TILES ? 1 : 2, next = kind == DU_GEMM_F32_TILES ? 16 : 1;
    float one = 0, other = 0;
    for (int64_t pair = k; pair < k + 16 * step; pair += step) {
        one = step_of(p, i, j, pair, parts, one);
        other = step_of(p, i, j, pair + next, parts, other);
    }
    return fma_flushed(fma_flushed(one, 1, other), 1, c);
}

/* One element as kern/gemm.h defines it, on from c. */
static float chain(const problem *p, int64_t i, int64_t j, float c) {
    for (int64_t k = 0; kind == DU_GEMM_F32 && k < p->k; k++) {
        c = step(p, i, j, k, c);
    }
    for (int64_t k = 0; kind == DU_GEMM_BF16 && k < p->k; k += 2) {
        c = step(p, i, j, k, step(p, i, j, k + 1, c));
    }
    for (int64_t k = 0; kind == DU_GEMM_BF16_TILES && k < p->k; k += 32) {
        c = tile(p, i, j, k, first, c);
    }
    for (int64_t k = 0; kind == DU_GEMM_F32_TILES && k < p->k; k += 32) {
        static const int parts[6][2] = {{0, 2}, {0, 1}, {1, 1}, {1, 0}, {2, 0}, {0, 0}};
        for (int n = 0; n < 6; n++) {
            c = tile(p, i, j, k, parts[n], c);
        }
    }
    return c;
}

/* Bits, or NaN both */
static bool same(float a, float b) {
    return same_bits(a, b) || (isnan(a) && isnan(b));
}

static bool bf16_source, gathered;
static float special_share;

static float a_number(void) {
    static const float special[] = {0,         -0.0f,       INFINITY,         -INFINITY, NAN,
                                    0x1p-126f, -0x1p-149f,  0x1p-130f,        0x1p-64f,  -0x1p-62f,
                                    0x1p127f,  -0x1.8p126f, 0x1.fffffep-127f, 0x1.8p-63f};
    if (du_rng_uniform(&rng) < special_share) {
        return special[between(0, sizeof special / sizeof *special - 1)];
    }
    return (float)du_rng_normal(&rng);
}

/* n_i x n_k values somewhere in rows */
static du_gemm_src make_src(int slot, int slot_rows, int64_t n_i, int64_t n_k, bool k_rows) {
    int64_t rows = k_rows ? n_k : n_i, cols = k_rows ? n_i : n_k;
    int64_t ld = cols + between(0, 3), in_memory = gathered ? rows + between(1, 5) : rows;
    int64_t len = (in_memory - 1) * ld + cols;
    du_gemm_src s = {.ld = ld, .bf16 = bf16_source, .k_rows = k_rows};
    void *data = guard(slot, (size_t)len * (bf16_source ? 2 : 4));
    for (int64_t i = 0; i < len; i++) {
        if (bf16_source) {
            ((uint16_t *)data)[i] = du_bf16_of_f32(a_number());
        } else {
            ((float *)data)[i] = a_number();
        }
    }
    seal(slot);
    s.data = data;
    if (gathered) {
        int32_t *i_row = guard(slot_rows, (size_t)rows * sizeof *i_row);
        for (int64_t i = 0; i < rows; i++) {
            i_row[i] = (int32_t)between(0, in_memory - 1);
        }
        seal(slot_rows);
        s.i_row = i_row;
    }
    return s;
}

static problem make_problem(int64_t m, int64_t n, int64_t k) {
    guard_at_end = between(0, 1);
    gathered = between(0, 1);
    bf16_source = between(0, 3) == 0;
    problem p = {.m = m, .n = n, .k = k};
    p.a = make_src(SLOT_A, SLOT_IA, m, k, between(0, 1));
    bf16_source = between(0, 3) == 0;
    p.b = make_src(SLOT_B, SLOT_IB, n, k, between(0, 1));
    return p;
}

/* C's part [i0, i0 + m) x [j0, j0 + n), k in blocks of k_step * steps */
static void compute(const problem *p, float *c, int64_t ldc, int64_t i0, int64_t m, int64_t j0,
                    int64_t n, int64_t steps, bool go_on) {
    int64_t block = gemm->k_step * steps < gemm->k_block ? gemm->k_step * steps : gemm->k_block;
    for (int64_t k = 0; k < p->k; k += block) {
        int64_t n_k = p->k - k < block ? p->k - k : block;
        void *a = guard(SLOT_PA, du_gemm_a_bytes(gemm, m, n_k));
        void *b = guard(SLOT_PB, du_gemm_b_bytes(gemm, n, n_k));
        memset(a, 0xff, du_gemm_a_bytes(gemm, m, n_k));
        memset(b, 0xff, du_gemm_b_bytes(gemm, n, n_k));
        gemm->pack_a(a, &p->a, i0, m, k, n_k);
        gemm->pack_b(b, &p->b, j0, n, k, n_k);
        seal(SLOT_PA);
        seal(SLOT_PB);
        gemm->block(c + i0 * ldc + j0, ldc, a, b, m, n, n_k, go_on || k > 0);
    }
}

static void check(const problem *p) {
    int64_t ldc = p->n + between(0, 3), len = (p->m - 1) * ldc + p->n;
    float *c = guard_out(SLOT_C, len), *c1 = guard(SLOT_C1, (size_t)len * sizeof *c1);
    bool go_on = between(0, 1);
    for (int64_t i = 0; i < p->m * p->n && go_on; i++) {
        c[i / p->n * ldc + i % p->n] = a_number();
    }
    memcpy(c1, c, (size_t)len * sizeof *c);
    compute(p, c1, ldc, 0, p->m, 0, p->n, INT32_MAX, go_on);
    for (int64_t i = 0; i < len; i++) {
        int64_t row = i / ldc, col = i % ldc;
        if (col >= p->n) {
            assert_true(same_bits(c1[i], c[i]));
            continue;
        }
        float want = chain(p, row, col, go_on ? c[i] : 0);
        if (!same(c1[i], want)) {
            fail_msg("%s, kind %d: %d x %d x %d at %d,%d: %a, not %a", du_isa_name(kern->isa), kind,
                     (int)p->m, (int)p->n, (int)p->k, (int)row, (int)col, (double)c1[i],
                     (double)want);
        }
    }
}

static void sizes_at_level(void) {
    for (int64_t i = 1; i <= 70; i++) {
        problem p = make_problem(i, between(1, 70), between(1, 70));
        check(&p);
        p = make_problem(between(1, 70), i, between(1, 70));
        check(&p);
        p = make_problem(between(1, 20), between(1, 70), i);
        check(&p);
    }
    problem p = make_problem(13, 35, 3 * gemm->k_block + 7);
    check(&p);
    p = make_problem(5, 33, gemm->k_block + gemm->k_step);
    check(&p);
}

/* Infinities, NaN, zeros of both signs, subnormal factors, products and sums */
static void specials_at_level(void) {
    special_share = 0.02f;
    for (int i = 0; i < 40; i++) {
        problem p = make_problem(between(1, 40), between(1, 40), between(1, 70));
        check(&p);
    }
    special_share = 0.3f;
    for (int i = 0; i < 40; i++) {
        problem p = make_problem(between(1, 20), between(1, 40), between(1, 4));
        check(&p);
    }
}

/* Any cut of C, and of k at multiples of k_step, gives the same bits. */
static void cuts_at_level(void) {
    for (int round = 0; round < 10; round++) {
        int64_t m = between(2, 90), n = between(2, 90), k = between(1, 600);
        problem p = make_problem(m, n, k);
        float *whole = guard_out(SLOT_C, m * n), *parts = guard_out(SLOT_C1, m * n);
        int64_t i = between(1, m - 1), j = between(1, n - 1);
        compute(&p, whole, n, 0, m, 0, n, INT32_MAX, false);
        compute(&p, parts, n, 0, i, 0, j, between(1, 20), false);
        compute(&p, parts, n, i, m - i, 0, j, between(1, 20), false);
        compute(&p, parts, n, 0, i, j, n - j, between(1, 20), false);
        compute(&p, parts, n, i, m - i, j, n - j, between(1, 20), false);
        for (int64_t at = 0; at < m * n; at++) {
            assert_true(same_bits(whole[at], parts[at]));
        }
    }
}

/* The exact element, of factors as the BF16 kinds round them, and the sum of its terms' sizes */
static double exact_of(const problem *p, int64_t i, int64_t j, double *terms) {
    double exact = *terms = 0;
    for (int64_t k = 0; k < p->k; k++) {
        double a = is_f32() ? value(&p->a, i, k) : factor(&p->a, i, k, 0);
        double b = is_f32() ? value(&p->b, j, k) : factor(&p->b, j, k, 0);
        exact += a * b;
        *terms += fabs(a * b);
    }
    return exact;
}

/* Within the error of k roundings */
static void exactness_at_level(void) {
    for (int round = 0; round < 20; round++) {
        problem p = make_problem(between(1, 30), between(1, 40), between(1, 500));
        float *c = guard_out(SLOT_C, p.m * p.n);
        compute(&p, c, p.n, 0, p.m, 0, p.n, INT32_MAX, false);
        for (int64_t at = 0; at < p.m * p.n; at++) {
            double terms, exact = exact_of(&p, at / p.n, at % p.n, &terms);
            assert_true(within(c[at], exact, terms, 2 * (double)p.k));
        }
    }
}

/* The mean square of the errors of a kind, in units of the terms' sizes */
static double mean_error(const problem *p, du_gemm_kind of_kind) {
    kind = of_kind;
    gemm = &kern->gemm[kind];
    float *c = guard_out(SLOT_C, p->m * p->n);
    compute(p, c, p->n, 0, p->m, 0, p->n, INT32_MAX, false);
    double sum = 0;
    for (int64_t at = 0; at < p->m * p->n; at++) {
        double terms, exact = exact_of(p, at / p->n, at % p->n, &terms);
        sum += (c[at] - exact) * (c[at] - exact) / (terms * terms);
    }
    return sqrt(sum / (double)(p->m * p->n));
}

/* Sums of parts are closer to the exact ones than those of F32, but for a single product, where
 * what is left out shows beside its one rounding. */
static void parts_at_level(void) {
    du_rng_init(&rng, 21);
    special_share = 0;
    for (int64_t k = 1; k <= 1024; k *= 2) {
        guard_at_end = gathered = bf16_source = false;
        problem p = {.m = 24, .n = 24, .k = k};
        p.a = make_src(SLOT_A, SLOT_IA, p.m, k, false);
        p.b = make_src(SLOT_B, SLOT_IB, p.n, k, false);
        double tiles = mean_error(&p, DU_GEMM_F32_TILES), f32 = mean_error(&p, DU_GEMM_F32);
        print_message("# %s, %4d terms: errors of tiles %.4g, of F32 %.4g\n",
                      du_isa_name(kern->isa), (int)k, tiles, f32);
        assert_true(tiles <= (k < 8 ? 1.05 : 0.6) * f32);
    }
}

static void no_k_at_level(void) {
    float *c = guard_out(SLOT_C, 5 * 7);
    const float none = 0;
    gemm->block(c, 7, &none, &none, 5, 7, 0, false);
    for (int i = 0; i < 35; i++) {
        assert_true(same_bits(c[i], 0));
    }
}

static void add_at_level(void) {
    du_rng_init(&rng, 3);
    for (int64_t n = 1; n <= 70; n++) {
        guard_at_end = n % 2;
        int64_t m = between(1, 5), ldy = n + between(0, 3), ldx = n + between(0, 3);
        float *y = guard_normal(SLOT_C, (m - 1) * ldy + n, 1), y0[5 * 73];
        const float *x = guard_normal(SLOT_A, (m - 1) * ldx + n, 1);
        seal(SLOT_A);
        memcpy(y0, y, sizeof *y * (size_t)((m - 1) * ldy + n));
        kern->gemm_add(y, ldy, x, ldx, m, n);
        for (int64_t i = 0; i < m * n; i++) {
            int64_t at = i / n * ldy + i % n;
            assert_true(same_bits(y[at], y0[at] + x[i / n * ldx + i % n]));
        }
        y[0] = -0.0f;
        kern->gemm_add(y, ldy, NULL, 0, m, n);
        assert_true(same_bits(y[0], 0));
    }
}

/* Rows that lie as panels of A do are what packing makes of them. */
static void plain_at_level(void) {
    for (int64_t k = 1; k <= 70 && gemm->a_plain; k++) {
        int64_t m = between(1, 40), n = between(1, 40);
        du_gemm_src a = {.ld = (int64_t)du_gemm_a_row_bytes(sizeof(float), true, k) / 4};
        gathered = bf16_source = guard_at_end = false;
        a.data = guard_normal(SLOT_A, (m - 1) * a.ld + k, 1);
        problem p = {.a = a, .b = make_src(SLOT_B, SLOT_IB, n, k, true), .m = m, .n = n, .k = k};
        float *want = guard_out(SLOT_C, m * n), *c = guard_out(SLOT_C1, m * n);
        compute(&p, want, n, 0, m, 0, n, INT32_MAX, false);
        gemm->block(c, n, a.data, slots[SLOT_PB], m, n, k, false);
        assert_memory_equal(c, want, (size_t)(m * n) * sizeof *c);
    }
}

static void each_kind(void (*fn)(void)) {
    for (int i = 0; i < DU_GEMM_KINDS; i++) {
        kind = (du_gemm_kind)i;
        gemm = &kern->gemm[i];
        du_rng_init(&rng, 17);
        special_share = 0;
        fn();
    }
}

/* Every kind of every level, and what a level has for other processors */
static void each_table(void (*fn)(void)) {
    each_level(fn);
#if defined(__x86_64__)
    static du_kern plain;
    const du_kern *avx512 = du_kern_get(DU_ISA_AVX512);
    if (level_last >= DU_ISA_AVX512 && avx512 && du_cpu_get_features()->avx512_bf16) {
        plain = *avx512;
        du_kern_fill_gemm_bf16_avx512(&plain);
        kern = &plain;
        fn();
    }
#endif
}

#define TEST(name)                                                                                 \
    static void name##_of_kinds(void) {                                                            \
        each_kind(name##_at_level);                                                                \
    }                                                                                              \
    static void test_##name(void **state) {                                                        \
        (void)state;                                                                               \
        each_table(name##_of_kinds);                                                               \
    }
TEST(sizes)
TEST(specials)
TEST(cuts)
TEST(exactness)
TEST(no_k)
TEST(plain)
#undef TEST

static void test_parts(void **state) {
    (void)state;
    each_level(parts_at_level);
}

static void test_add(void **state) {
    (void)state;
    each_level(add_at_level);
}

int main(int argc, char **argv) {
    choose_level(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes), cmocka_unit_test(test_specials),
        cmocka_unit_test(test_cuts),  cmocka_unit_test(test_exactness),
        cmocka_unit_test(test_no_k),  cmocka_unit_test(test_add),
        cmocka_unit_test(test_plain), cmocka_unit_test(test_parts),
    };
    return cmocka_run_group_tests_name("gemm", tests, NULL, NULL);
}
