/* Attention in tiles against double precision, with every way that this machine has.
 *
 * The oracle takes queries, keys and values as the kernels round them, so that what is left are
 * F32 sums (a score of n terms is off by at most n * 2^-24 of their sizes, which moves its weight
 * by that times ln 2) and the rounding of weights to BF16 (2^-8). Weights off by a factor of at
 * most 1 + e move a mean of values v by at most e * (mean |v| + |mean v|) / (1 - e). */
#include "kern/cpu/fill.h"
#include "kern_test.h"
#include "tensor/quant.h"

enum {
    SLOT_K,
    SLOT_V,
    SLOT_Q,
    SLOT_TILES,
    SLOT_FORM_K,
    SLOT_FORM_V,
    SLOT_SUMS,
    SLOT_SUMS1,
    SLOT_Y
};
enum { MAX_ROWS = 3 * DU_ATTN_STEP, MAX_DIM = 576, MAX_QUERIES = 5 * DU_ATTN_QUERIES };

static const du_attn_tiles *attn;
static const char *way;

typedef struct {
    du_dtype dtype;
    int64_t n_q, n_kv, k_dim, v_dim;
    bool latent;
} shape;

static float q_exact[MAX_QUERIES][MAX_DIM], k_exact[MAX_ROWS][MAX_DIM], v_exact[MAX_ROWS][MAX_DIM];
static int32_t limit[MAX_QUERIES]; /* cached rows that a query sees */

static float rounded(float x) {
    return du_f32_of_bf16(du_bf16_of_f32(x));
}

/* n rows of dim values in a slot; what the kernels make of them in exact. */
static char *make_rows(int slot, float exact[][MAX_DIM], const shape *s, int64_t dim,
                       size_t *stride) {
    size_t row_bytes = du_dtype_row_bytes(s->dtype, dim);
    *stride = row_bytes + 2 * (size_t)between(0, 3);
    char *rows = guard(slot, (size_t)(s->n_kv - 1) * *stride + row_bytes);
    for (int64_t j = 0; j < s->n_kv; j++) {
        float x[MAX_DIM];
        for (int64_t c = 0; c < dim; c++) {
            x[c] = (float)du_rng_normal(&rng) + (c % 7 == 0 ? 1.5f : 0);
        }
        char *row = rows + (size_t)j * *stride;
        du_kern_get(DU_ISA_C)->kv_store[s->dtype](row, x, dim);
        du_dtype_get(s->dtype)->unpack(exact[j], row, dim);
        for (int64_t c = 0; c < dim; c++) {
            exact[j][c] = rounded(exact[j][c]);
        }
    }
    seal(slot);
    return rows;
}

static uint16_t *make_queries(const shape *s, int64_t n_tiles, float scale) {
    float *q = guard(SLOT_Q, (size_t)(s->n_q * s->k_dim) * sizeof *q);
    for (int64_t i = 0; i < s->n_q; i++) {
        for (int64_t c = 0; c < s->k_dim; c++) {
            float x = (float)du_rng_normal(&rng);
            q[i * s->k_dim + c] = x;
            q_exact[i][c] = rounded(x * scale);
        }
    }
    seal(SLOT_Q);
    size_t len = (size_t)du_attn_queries_len(s->k_dim);
    uint16_t *tiles = guard(SLOT_TILES, (size_t)n_tiles * len * sizeof *tiles);
    memset(tiles, 0xff, (size_t)n_tiles * len * sizeof *tiles);
    for (int64_t i = 0; i < n_tiles; i++) {
        const float *rows[DU_ATTN_QUERIES];
        int64_t n = 0;
        for (; n < DU_ATTN_QUERIES && 16 * i + n < s->n_q; n++) {
            rows[n] = q + (16 * i + n) * s->k_dim;
        }
        attn->queries(tiles + (size_t)i * len, rows, n, s->k_dim, scale);
    }
    seal(SLOT_TILES);
    return tiles;
}

/* Brings rows [j0, j0 + n) into form. */
static void load_pages(const shape *s, uint16_t *k, uint16_t *v, const char *k_rows,
                       size_t k_stride, const char *v_rows, size_t v_stride, int64_t j0,
                       int64_t n) {
    for (int64_t j = 0; j < n; j += DU_ATTN_PAGE) {
        int64_t n_page = n - j < DU_ATTN_PAGE ? n - j : DU_ATTN_PAGE;
        uint16_t *to_k = k + j * s->k_dim, *to_v = v + j / DU_ATTN_PAGE * du_attn_v_len(s->v_dim);
        const char *from_k = k_rows + (size_t)(j0 + j) * k_stride;
        const char *from_v = v_rows + (size_t)(j0 + j) * v_stride;
        if (s->latent) {
            attn->load[s->dtype](to_k, to_v, from_k, k_stride, n_page, s->k_dim, s->v_dim);
        } else {
            attn->load[s->dtype](to_k, NULL, from_k, k_stride, n_page, s->k_dim, 0);
            attn->load[s->dtype](NULL, to_v, from_v, v_stride, n_page, 0, s->v_dim);
        }
    }
}

static void check_query(const shape *s, int64_t i, const float *y) {
    static double p[MAX_ROWS];
    double m = -INFINITY, l = 0, off = 0;
    for (int64_t j = 0; j < limit[i]; j++) {
        double score = 0, terms = 0;
        for (int64_t c = 0; c < s->k_dim; c++) {
            score += (double)q_exact[i][c] * k_exact[j][c];
            terms += fabs((double)q_exact[i][c] * k_exact[j][c]);
        }
        p[j] = score;
        off = fmax(off, terms * (double)s->k_dim * 0x1p-24);
        m = fmax(m, score);
    }
    for (int64_t j = 0; j < limit[i]; j++) {
        p[j] = exp2(p[j] - m);
        l += p[j];
    }
    double e = 2 * 0.6932 * off + 0x1p-8 + 0x1p-20;
    for (int64_t c = 0; c < s->v_dim; c++) {
        double mean = 0, size = 0;
        for (int64_t j = 0; j < limit[i]; j++) {
            mean += p[j] * v_exact[j][c] / l;
            size += p[j] * fabs(v_exact[j][c]) / l;
        }
        if (!(fabs(y[c] - mean) <= e * (size + fabs(mean)) / (1 - e))) {
            fail_msg("%s %s: query %d of %d, %d rows, widths %d and %d, column %d: %.9g, exact "
                     "%.9g +- %.3g (%g)",
                     way, du_dtype_get(s->dtype)->name, (int)i, (int)s->n_q, (int)s->n_kv,
                     (int)s->k_dim, (int)s->v_dim, (int)c, y[c], mean,
                     e * (size + fabs(mean)) / (1 - e), off);
        }
    }
}

/* The sums of rows [j0, j0 + n) for all queries, once together and once tile by tile. */
static void run_step(const shape *s, const uint16_t *tiles, int64_t n_tiles, const uint16_t *k,
                     const uint16_t *v, int64_t j0, int64_t n, float *sums) {
    int64_t len = du_attn_sums_len(s->v_dim);
    int32_t seen[MAX_QUERIES];
    for (int64_t i = 0; i < n_tiles * 16; i++) {
        int64_t sees = i < s->n_q ? limit[i] - j0 : n + 9;
        seen[i] = (int32_t)sees;
    }
    for (int64_t i = 0; i < n_tiles * len; i++) {
        sums[i] = du_f32_of_bits(UNWRITTEN);
    }
    attn->step(sums, tiles, n_tiles, k, v, n, s->k_dim, s->v_dim, seen);
    float *one = guard_out(SLOT_SUMS1, len);
    for (int64_t i = 0; i < n_tiles; i++) {
        attn->step(one, tiles + i * du_attn_queries_len(s->k_dim), 1, k, v, n, s->k_dim, s->v_dim,
                   seen + 16 * i);
        assert_memory_equal(one, sums + i * len, (size_t)len * sizeof *one);
    }
}

/* Whole way: steps, merged one after the other and at once, by two ranges of columns. */
static void check_shape(const shape *s) {
    size_t k_stride, v_stride = 0;
    const char *k_rows = make_rows(SLOT_K, k_exact, s, s->k_dim, &k_stride), *v_rows = k_rows;
    if (s->latent) {
        memcpy(v_exact, k_exact, sizeof v_exact);
    } else {
        v_rows = make_rows(SLOT_V, v_exact, s, s->v_dim, &v_stride);
    }
    int64_t n_tiles = (s->n_q + 15) / 16, len = du_attn_sums_len(s->v_dim);
    int64_t n_steps = (s->n_kv + DU_ATTN_STEP - 1) / DU_ATTN_STEP;
    uint16_t *tiles = make_queries(s, n_tiles, 0.7f / sqrtf((float)s->k_dim));
    for (int64_t i = 0; i < s->n_q; i++) {
        limit[i] = (int32_t)(i % 3 ? s->n_kv : between(1, s->n_kv));
    }
    float *sums = guard(SLOT_SUMS, (size_t)(n_steps * n_tiles * len) * sizeof *sums);
    for (int64_t t = 0; t < n_steps; t++) {
        int64_t n = s->n_kv - t * DU_ATTN_STEP;
        n = n < DU_ATTN_STEP ? n : DU_ATTN_STEP;
        int64_t n_pages = (n + DU_ATTN_PAGE - 1) / DU_ATTN_PAGE;
        size_t k_len = (size_t)(n_pages * DU_ATTN_PAGE * s->k_dim) * 2;
        size_t v_len = (size_t)(n_pages * du_attn_v_len(s->v_dim)) * 2;
        uint16_t *k = guard(SLOT_FORM_K, k_len), *v = guard(SLOT_FORM_V, v_len);
        memset(k, 0xff, k_len);
        memset(v, 0xff, v_len);
        load_pages(s, k, v, k_rows, k_stride, v_rows, v_stride, t * DU_ATTN_STEP, n);
        seal(SLOT_FORM_K);
        seal(SLOT_FORM_V);
        run_step(s, tiles, n_tiles, k, v, t * DU_ATTN_STEP, n, sums + t * n_tiles * len);
    }
    int64_t c1 = s->v_dim / 64 * 32;
    for (int64_t i = 0; i < n_tiles; i++) {
        float *y[16], *y1[16], *from = sums + i * len;
        int64_t n = s->n_q - 16 * i < 16 ? s->n_q - 16 * i : 16;
        float *out = guard_out(SLOT_Y, 2 * n * s->v_dim);
        for (int64_t k = 0; k < n; k++) {
            y[k] = out + k * s->v_dim;
            y1[k] = out + (n + k) * s->v_dim;
        }
        attn->fold(y, n, from, n_steps, n_tiles * len, s->v_dim, 0, c1);
        attn->fold(y, n, from, n_steps, n_tiles * len, s->v_dim, c1, s->v_dim);
        for (int64_t t = 1; t < n_steps; t++) {
            attn->merge(from, from + t * n_tiles * len, s->v_dim);
        }
        attn->fold(y1, n, from, 1, 0, s->v_dim, 0, s->v_dim);
        assert_memory_equal(y[0], y1[0], (size_t)(n * s->v_dim) * sizeof *out);
        for (int64_t k = 0; k < n; k++) {
            check_query(s, 16 * i + k, y[k]);
        }
    }
}

static void check_shapes(void) {
    static const du_dtype dtypes[] = {DU_F16, DU_BF16, DU_Q8_0};
    static const int64_t dims[][2] = {{32, 32},   {64, 64},   {96, 32},
                                      {128, 128}, {192, 128}, {160, 96}};
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 24; k++) {
            guard_at_end = k % 2 == 0;
            const int64_t *d = dims[k % 6];
            check_shape(&(shape){dtypes[i], 1 + k * 7 % 70, k < 4 ? k + 1 : between(1, 600), d[0],
                                 d[1], k % 4 > 1});
        }
        check_shape(&(shape){dtypes[i], 16, 700, 576, 512, true});
        check_shape(&(shape){dtypes[i], 6, 256, 128, 128, false});
    }
}

/* A query that sees nothing leaves what it is merged with as it is. */
static void check_unseen(void) {
    const shape s = {DU_F16, 16, 40, 64, 32, true};
    size_t stride;
    const char *rows = make_rows(SLOT_K, k_exact, &s, s.k_dim, &stride);
    uint16_t *tiles = make_queries(&s, 1, 0.1f);
    static uint16_t k[DU_ATTN_PAGE * 64], v[2 * DU_ATTN_V_BLOCK];
    static float sums[DU_ATTN_QUERIES * 34], none[DU_ATTN_QUERIES * 34],
        before[DU_ATTN_QUERIES * 34];
    load_pages(&s, k, v, rows, stride, NULL, 0, 0, s.n_kv);
    int32_t all[16], nothing[16];
    for (int i = 0; i < 16; i++) {
        all[i] = 40;
        nothing[i] = -i;
    }
    attn->step(sums, tiles, 1, k, v, s.n_kv, s.k_dim, s.v_dim, all);
    attn->step(none, tiles, 1, k, v, s.n_kv, s.k_dim, s.v_dim, nothing);
    for (int i = 0; i < 16; i++) {
        assert_true(none[i] == -INFINITY && none[16 + i] == 0);
    }
    memcpy(before, sums, sizeof sums);
    attn->merge(sums, none, s.v_dim);
    assert_memory_equal(sums, before, sizeof sums);
    attn->merge(none, sums, s.v_dim);
    assert_memory_equal(none, sums, sizeof sums);
}

/* Keys of a page against double precision: off by roundings of F32 sums and then to BF16. */
static void check_keys(const uint16_t *k, int64_t nope, int64_t rank, int64_t rope) {
    for (int64_t j = 0; j < DU_ATTN_PAGE; j++) {
        for (int64_t c = 0; c < nope; c++) {
            double want = 0, size = 0, got = (double)du_f32_of_bf16(k[j * (nope + rope) + c]);
            for (int64_t r = 0; r < rank; r++) {
                want += (double)q_exact[c][r] * k_exact[j][r];
                size += fabs((double)q_exact[c][r] * k_exact[j][r]);
            }
            double e = (double)rank * 0x1p-24 * size;
            if (!(fabs(got - want) <= e + 0x1p-8 * (fabs(want) + e) + 0x1p-126)) {
                fail_msg("%s: row %d column %d: %.9g, exact %.9g +- %.3g", way, (int)j, (int)c, got,
                         want, e);
            }
        }
        for (int64_t p = 0; p < rope; p++) {
            float got = du_f32_of_bf16(k[j * (nope + rope) + nope + p]);
            assert_true(got == k_exact[j][rank + p]);
        }
    }
}

/* The weights of values are those of the first keys, so that values are known from keys. */
static void check_expand(int64_t n, int64_t rank, int64_t rope, int64_t nope, int64_t v_dim) {
    const shape s = {DU_F16, nope, n, rank + rope, 0, true}, w = {.n_q = nope, .k_dim = rank};
    int64_t k_dim = nope + rope, n_v = du_attn_v_len(v_dim);
    memset(k_exact, 0, sizeof k_exact);
    size_t stride;
    const char *rows = make_rows(SLOT_K, k_exact, &s, s.k_dim, &stride);
    uint16_t *latents = guard(SLOT_FORM_K, sizeof *latents * (size_t)(DU_ATTN_PAGE * s.k_dim));
    attn->load[s.dtype](latents, NULL, rows, stride, n, s.k_dim, 0);
    seal(SLOT_FORM_K);
    const uint16_t *tiles = make_queries(&w, nope / 16, 1);
    uint16_t *weights = guard(SLOT_Y, sizeof *weights * (size_t)((nope + v_dim) * rank));
    memcpy(weights, tiles, sizeof *weights * (size_t)(nope * rank));
    memcpy(weights + nope * rank, tiles, sizeof *weights * (size_t)(v_dim * rank));
    seal(SLOT_Y);
    uint16_t *k = guard(SLOT_SUMS, sizeof *k * (size_t)(DU_ATTN_PAGE * k_dim));
    uint16_t *v = guard(SLOT_FORM_V, sizeof *v * (size_t)n_v);
    uint16_t *v_want = guard(SLOT_SUMS1, sizeof *v_want * (size_t)n_v);
    memset(k, 0xff, sizeof *k * (size_t)(DU_ATTN_PAGE * k_dim));
    memset(v, 0xff, sizeof *v * (size_t)n_v); /* neither writes the lines between blocks */
    memset(v_want, 0xff, sizeof *v_want * (size_t)n_v);
    attn->expand(k, v, latents, weights, rank, rope, k_dim, v_dim);
    check_keys(k, nope, rank, rope);
    attn->load[DU_BF16](NULL, v_want, k, sizeof *k * (size_t)k_dim, DU_ATTN_PAGE, 0, v_dim);
    assert_memory_equal(v, v_want, sizeof *v * (size_t)n_v);
}

static void check_expands(void) {
    guard_at_end = true;
    check_expand(64, 32, 32, 32, 32);
    check_expand(1, 64, 32, 64, 32);
    check_expand(50, 96, 64, 64, 64);
    guard_at_end = false;
    check_expand(63, 512, 32, 64, 64);
}

static void each_way(void (*fn)(void)) {
    bool found = false;
    for (int isa = (int)level_first; isa <= (int)level_last; isa++) {
        const du_kern *level = du_kern_get((du_isa)isa);
        if (level && level->attn.step) {
            attn = &level->attn;
            way = du_isa_name((du_isa)isa);
            fn();
            found = true;
        }
    }
#if defined(__x86_64__)
    if (du_cpu_get_features()->amx_bf16 && level_last >= DU_ISA_AVX512) {
        static du_kern plain; /* the level as on a machine without AMX */
        du_kern_fill_attn_tiles_bf16_avx512(&plain);
        attn = &plain.attn;
        way = "avx512 without amx";
        fn();
    }
#endif
    if (!found) {
        skip();
    }
}

static void test_shapes(void **state) {
    (void)state;
    each_way(check_shapes);
}

static void test_unseen(void **state) {
    (void)state;
    each_way(check_unseen);
}

static void test_expand(void **state) {
    (void)state;
    each_way(check_expands);
}

int main(int argc, char **argv) {
    choose_level(argc, argv);
    du_rng_init(&rng, 2026);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_unseen),
        cmocka_unit_test(test_expand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
