/* Latent attention in both forms against double precision; that threads change no bit of the
 * expanded form, and which rows of a batch take it. */
#include "ctx.h"

#include <math.h>

#include "base/rng.h"
#include "nn/expanded.h"

enum { N_POS = 2200, N_PAGES = (N_POS + DU_KV_PAGE - 1) / DU_KV_PAGE, N_OTHER = 400 };
enum { MAX_T = 310, MAX_DIM = 160 };

typedef struct {
    const char *name;
    du_dtype cache, k_type, v_type;
    int64_t H, R, P, nope, v_dim;
} shape;

static const shape shapes[] = {
    {"as models are", DU_F16, DU_Q8_0, DU_Q8_0, 3, 64, 32, 32, 32},
    {"cache of Q8_0", DU_Q8_0, DU_F16, DU_BF16, 2, 96, 32, 64, 32},
    {"more keys than latents", DU_BF16, DU_F32, DU_F32, 2, 32, 32, 64, 64},
    {"odd widths", DU_F32, DU_F32, DU_BF16, 3, 40, 8, 24, 20},
    {"odd widths, few latents", DU_F16, DU_F16, DU_F16, 2, 24, 6, 34, 3}};

typedef struct {
    const shape *s;
    du_kv_layout kv;
    uint8_t *pages[2][N_PAGES];
    du_kv_seq seq[2];
    const du_kv_seq *seqs[MAX_T];
    int64_t pos[MAX_T];
    du_mat *k_heads, *v_heads;
    du_latent_weights w;
    float *q; /* [MAX_T, H, nope + P] */
    du_attn_params params;
    const du_kern *kern;
} fixture;

static du_rng rng;

static float *normal(int64_t n) {
    float *x = du_alloc_array((size_t)n, sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)du_rng_normal(&rng);
    }
    return x;
}

static void fill_cache(fixture *f, int i_seq, int64_t n) {
    int64_t row = f->kv.k_dim;
    float *x = normal(row);
    f->seq[i_seq].pages = f->pages[i_seq];
    for (int64_t i = 0; i * DU_KV_PAGE < n; i++) {
        f->pages[i_seq][i] = du_alloc_aligned(f->kv.page_bytes);
        assert_non_null(f->pages[i_seq][i]);
        memset(f->pages[i_seq][i], 0xff, f->kv.page_bytes); /* NaN where nothing is stored */
    }
    for (int64_t t = 0; t < n; t++) {
        for (int64_t c = 0; c < row; c++) {
            x[c] = (float)du_rng_normal(&rng);
        }
        uint8_t *page = du_kv_k(&f->kv, f->pages[i_seq][t / DU_KV_PAGE], 1, 0);
        f->kern->kv_store[f->kv.dtype](page + (size_t)(t % DU_KV_PAGE) * f->kv.k_row_bytes, x, row);
    }
    du_free(x);
}

/* Weights that leave a latent's size as it is. */
static du_mat *make_heads(const fixture *f, du_dtype type, int64_t rows, int64_t cols) {
    du_mat *w = du_alloc_array((size_t)f->s->H, sizeof *w);
    assert_non_null(w);
    size_t row_bytes = du_dtype_row_bytes(type, cols);
    for (int64_t h = 0; h < f->s->H; h++) {
        char *data = du_alloc_aligned(row_bytes * (size_t)rows);
        float *x = normal(rows * cols);
        assert_non_null(data);
        for (int64_t i = 0; i < rows; i++) {
            f->kern->scale(x + i * cols, 1 / sqrtf((float)f->s->R), cols);
            f->kern->kv_store[type](data + (size_t)i * row_bytes, x + i * cols, cols);
        }
        du_free(x);
        w[h] = (du_mat){
            .data = data, .dtype = type, .rows = rows, .cols = cols, .row_bytes = row_bytes};
    }
    return w;
}

static fixture *fixture_new(const shape *s, const du_kern *kern, bool may_round) {
    fixture *f = du_alloc_zero(1, sizeof *f);
    du_diag diag;
    du_diag_reset(&diag);
    f->s = s;
    f->kern = kern;
    assert_ok(du_kv_layout_init(&f->kv, s->cache, 2, 1, s->R + s->P, s->R, true, &diag), &diag);
    f->params = (du_attn_params){s->H, 1 / sqrtf((float)(s->nope + s->P)), may_round};
    fill_cache(f, 0, N_POS);
    fill_cache(f, 1, N_OTHER);
    f->k_heads = make_heads(f, s->k_type, s->R, s->nope);
    f->v_heads = make_heads(f, s->v_type, s->v_dim, s->R);
    f->w = (du_latent_weights){f->k_heads, f->v_heads};
    f->q = normal(MAX_T * s->H * (s->nope + s->P));
    return f;
}

static void fixture_free(fixture *f) {
    for (int64_t i = 0; i < N_PAGES; i++) {
        du_free(f->pages[0][i]);
        du_free(f->pages[1][i]);
    }
    for (int64_t h = 0; h < f->s->H; h++) {
        du_free((void *)(uintptr_t)f->k_heads[h].data);
        du_free((void *)(uintptr_t)f->v_heads[h].data);
    }
    du_free(f->k_heads);
    du_free(f->v_heads);
    du_free(f->q);
    du_free(f);
}

static int64_t add_rows(fixture *f, int64_t t, int i_seq, int64_t pos, int64_t n) {
    for (int64_t i = 0; i < n; i++, t++) {
        f->seqs[t] = &f->seq[i_seq];
        f->pos[t] = pos + i;
    }
    assert_true(t <= MAX_T);
    return t;
}

typedef du_err form_fn(du_ctx *ctx, float *out, const float *q, const du_latent_weights *w,
                       const du_kv_layout *kv, int64_t layer, const du_attn_rows *rows,
                       const du_attn_params *params);

/* Outputs of rows [t, t + n), on the heap. */
static float *compute(const fixture *f, form_fn *form, int64_t t, int64_t n, int64_t n_threads,
                      bool same_bits) {
    du_ctx ctx = test_ctx_make(n_threads);
    ctx.kern = f->kern;
    ctx.same_bits = same_bits;
    int64_t H = f->s->H;
    float *out = du_alloc_array((size_t)(n * H * f->s->v_dim), sizeof *out);
    memset(out, 0xff, (size_t)(n * H * f->s->v_dim) * sizeof *out);
    du_attn_rows rows = {n, f->seqs + t, f->pos + t};
    assert_int_equal(
        form(&ctx, out, f->q + t * H * (f->s->nope + f->s->P), &f->w, &f->kv, 1, &rows, &f->params),
        DU_OK);
    test_ctx_drop(&ctx);
    return out;
}

static void unpack_heads(double *w, const du_mat *m) {
    float row[MAX_DIM];
    for (int64_t i = 0; i < m->rows; i++) {
        du_mat_unpack_row(row, m, i);
        for (int64_t c = 0; c < m->cols; c++) {
            w[i * m->cols + c] = (double)row[c];
        }
    }
}

/* The cached row of a position. */
static void read_row(const fixture *f, float *c, const du_kv_seq *seq, int64_t pos) {
    const uint8_t *page = du_kv_k(&f->kv, seq->pages[pos / DU_KV_PAGE], 1, 0);
    du_dtype_get(f->kv.dtype)
        ->unpack(c, page + (size_t)(pos % DU_KV_PAGE) * f->kv.k_row_bytes, f->kv.k_dim);
}

/* sum_r w[r * step] c[r], and the squares of its terms in *squares */
static double product(const double *w, int64_t step, const float *c, int64_t R, double *squares) {
    double sum = 0;
    *squares = 0;
    for (int64_t r = 0; r < R; r++) {
        double term = w[r * step] * (double)c[r];
        sum += term;
        *squares += term * term;
    }
    return sum;
}

/* Of a row with query q: its score, and the squares of what roundings change in it */
static double score_of(const shape *s, const float *q, const double *k_t, const float *c,
                       double *squares) {
    double score = 0;
    *squares = 0;
    for (int64_t i = 0; i < s->nope + s->P; i++) {
        double terms = 0, x = (double)q[i];
        double key = i < s->nope ? product(k_t + i, s->nope, c, s->R, &terms)
                                 : (double)c[s->R + i - s->nope];
        score += x * key;
        *squares += x * x * (key * key + terms);
    }
    return score;
}

/* One head of one row in expanded form. Allowed are the roundings to BF16 of latents, weights,
 * keys, values, queries and p, as good as random and at most 2^-8 of what they change: four times
 * that for the root of the squares; or those of F32 sums. */
static void check_head(const fixture *f, int64_t t, int64_t h, const float *got) {
    static double p[N_POS], k_t[MAX_DIM * MAX_DIM], v[MAX_DIM * MAX_DIM];
    const shape *s = f->s;
    int64_t n = f->pos[t] + 1;
    const float *q = f->q + (t * s->H + h) * (s->nope + s->P);
    float c[MAX_DIM];
    double m = -INFINITY, l = 0, off = 0, squares, mean[MAX_DIM] = {0}, size[MAX_DIM] = {0};
    unpack_heads(k_t, &f->k_heads[h]);
    unpack_heads(v, &f->v_heads[h]);
    for (int64_t j = 0; j < n; j++) {
        read_row(f, c, f->seqs[t], j);
        p[j] = score_of(s, q, k_t, c, &squares) * (double)f->params.scale;
        m = fmax(m, p[j]);
        off = fmax(off, sqrt(squares) * (double)f->params.scale);
    }
    for (int64_t j = 0; j < n; j++) {
        p[j] = exp(p[j] - m);
        l += p[j];
    }
    for (int64_t j = 0; j < n; j++) {
        read_row(f, c, f->seqs[t], j);
        for (int64_t i = 0; i < s->v_dim; i++) {
            double value = product(v + i * s->R, 1, c, s->R, &squares);
            mean[i] += p[j] / l * value;
            size[i] += p[j] / l * (fabs(value) + sqrt(squares));
        }
    }
    double sum = (double)(s->nope + s->P + s->R);
    double e = f->params.may_round ? 4 * 0x1p-8 * off + 0x1p-6 : sum * 0x1p-20;
    for (int64_t i = 0; i < s->v_dim; i++) {
        if (!(fabs(got[i] - mean[i]) <= e * (size[i] + fabs(mean[i])))) {
            fail_msg("%s %s, rounded %d: position %d head %d column %d: %.7g, exact %.7g",
                     du_isa_name(f->kern->isa), s->name, f->params.may_round, (int)f->pos[t],
                     (int)h, (int)i, (double)got[i], mean[i]);
        }
    }
}

/* A form is right; threads change nothing. n rows from pos on */
static void check_form(fixture *f, form_fn *form, int64_t pos, int64_t n) {
    int64_t len = f->s->H * f->s->v_dim;
    add_rows(f, 0, 0, pos, n);
    float *want = compute(f, form, 0, n, 1, false);
    for (int64_t i = 0; i < 3; i++) {
        int64_t t = i * (n - 1) / 2, h = i % f->s->H;
        check_head(f, t, h, want + t * len + h * f->s->v_dim);
    }
    for (int64_t n_threads = 2; n_threads < 6; n_threads += 3) {
        float *got = compute(f, form, 0, n, n_threads, false);
        assert_memory_equal(got, want, (size_t)(n * len) * sizeof *got);
        du_free(got);
    }
    du_free(want);
}

static void each_fixture(void (*fn)(fixture *f)) {
    for (int isa = 0; isa < DU_ISA_COUNT; isa++) {
        const du_kern *kern = du_kern_get((du_isa)isa);
        for (size_t i = 0; kern && i < sizeof shapes / sizeof *shapes; i++) {
            for (int may_round = 0; may_round < 2; may_round++) {
                fixture *f = fixture_new(&shapes[i], kern, may_round);
                fn(f);
                fixture_free(f);
            }
        }
    }
}

static void check_forms(fixture *f) {
    check_form(f, du_expanded_fwd, 0, 1);
    check_form(f, du_expanded_fwd, 0, 77);
    check_form(f, du_expanded_fwd, 250, 70);   /* across a step */
    check_form(f, du_expanded_fwd, 2040, 120); /* several segments */
    if (!du_dtype_is_block(f->s->k_type)) {    /* rounds queries to 8 bits otherwise */
        check_form(f, du_latent_absorbed_fwd, 250, 20);
    }
}

static void test_forms(void **state) {
    (void)state;
    each_fixture(check_forms);
}

/* A long run between rows of another sequence expands, if the rule says so, and they do not. */
static void check_batch(fixture *f) {
    du_latent_dims dims = {f->s->R, f->s->P, f->s->nope, f->s->v_dim};
    int64_t n_long = 300, len = f->s->H * f->s->v_dim;
    int64_t T = add_rows(f, 0, 1, 7, 2);
    T = add_rows(f, add_rows(f, T, 0, 0, n_long), 1, 390, 3);
    bool long_expands =
        du_latent_expands(f->kern, &dims, f->kv.dtype, f->params.may_round, n_long, 0);
    for (int same_bits = 0; same_bits < 2; same_bits++) {
        float *got = compute(f, du_latent_fwd, 0, T, 2, same_bits);
        form_fn *form = long_expands && !same_bits ? du_expanded_fwd : du_latent_absorbed_fwd;
        float *middle = compute(f, form, 2, n_long, 1, same_bits);
        float *first = compute(f, du_latent_absorbed_fwd, 0, 2, 1, same_bits);
        float *last = compute(f, du_latent_absorbed_fwd, 2 + n_long, 3, 1, same_bits);
        assert_memory_equal(got, first, (size_t)(2 * len) * sizeof *got);
        assert_memory_equal(got + 2 * len, middle, (size_t)(n_long * len) * sizeof *got);
        assert_memory_equal(got + (2 + n_long) * len, last, (size_t)(3 * len) * sizeof *got);
        du_free(got), du_free(first), du_free(middle), du_free(last);
    }
}

static void test_batch(void **state) {
    (void)state;
    each_fixture(check_batch);
}

static void test_rule(void **state) {
    (void)state;
    static const du_latent_dims dims = {512, 64, 128, 128};
    for (int isa = 0; isa < DU_ISA_COUNT; isa++) {
        const du_kern *kern = du_kern_get((du_isa)isa);
        for (int may_round = 0; kern && may_round < 2; may_round++) {
            for (int64_t n_cached = 0; n_cached < 100000; n_cached = 3 * n_cached + 100) {
                assert_false(du_latent_expands(kern, &dims, DU_F16, may_round, 1, n_cached));
                assert_false(du_latent_expands(kern, &dims, DU_F16, may_round, 8, n_cached));
                assert_true(du_latent_expands(kern, &dims, DU_F16, may_round, 512, n_cached));
            }
        }
    }
}

int main(void) {
    du_rng_init(&rng, 12);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
