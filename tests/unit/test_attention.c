/* Attention over pages against double precision, and that neither threads nor the rows of a batch
 * change a bit: contexts of one step, of several segments, and of segments of several steps. */
#include "ctx.h"

#include <math.h>

#include "base/rng.h"
#include "nn/attention.h"
#include "tensor/half.h"

enum { N_POS = 4600, N_PAGES = (N_POS + DU_KV_PAGE - 1) / DU_KV_PAGE, MAX_T = 40, N_OTHER = 300 };

typedef struct {
    const char *name;
    du_dtype dtype;
    int64_t H, G, k_dim, v_dim;
    bool latent;
} shape;

static const shape shapes[] = {{"latent", DU_F16, 16, 1, 96, 64, true},
                               {"latent", DU_Q8_0, 40, 1, 64, 32, true},
                               {"grouped", DU_BF16, 12, 2, 64, 64, false},
                               {"grouped", DU_F32, 6, 3, 32, 32, false},
                               {"odd widths", DU_F32, 4, 2, 40, 24, false}};

/* Two sequences in their caches. */
typedef struct {
    du_kv_layout kv;
    uint8_t *pages[2][N_PAGES];
    du_kv_seq seq[2];
    const du_kv_seq *seqs[MAX_T];
    int64_t pos[MAX_T];
    float *q; /* [MAX_T, H, k_dim] of the rows in question */
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

static void fill_cache(fixture *f, int s, int64_t n) {
    du_ctx ctx = test_ctx_make(1);
    ctx.kern = f->kern;
    f->seq[s].pages = f->pages[s];
    float *k = normal(n * f->kv.n_head * f->kv.k_dim), *v = normal(n * f->kv.n_head * f->kv.v_dim);
    for (int64_t i = 0; i * DU_KV_PAGE < n; i++) {
        f->pages[s][i] = du_alloc_aligned(f->kv.page_bytes);
        assert_non_null(f->pages[s][i]);
        memset(f->pages[s][i], 0xff, f->kv.page_bytes); /* NaN where nothing is stored */
    }
    for (int64_t t = 0; t < n; t++) {
        const du_kv_seq *seq = &f->seq[s];
        du_attn_rows row = {1, &seq, &t};
        du_kv_append(&ctx, &f->kv, 1, &row, k + t * f->kv.n_head * f->kv.k_dim,
                     v + t * f->kv.n_head * f->kv.v_dim);
    }
    du_free(k);
    du_free(v);
    test_ctx_drop(&ctx);
}

static fixture *fixture_new(const shape *s, const du_kern *kern, bool may_round) {
    fixture *f = du_alloc_zero(1, sizeof *f);
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_kv_layout_init(&f->kv, s->dtype, 2, s->G, s->k_dim, s->v_dim, s->latent, &diag),
              &diag);
    f->params = (du_attn_params){s->H, 1 / sqrtf((float)s->k_dim), may_round};
    f->kern = kern;
    fill_cache(f, 0, N_POS);
    fill_cache(f, 1, N_OTHER);
    f->q = normal(MAX_T * s->H * s->k_dim);
    return f;
}

static void fixture_free(fixture *f) {
    for (int64_t i = 0; i < N_PAGES; i++) {
        du_free(f->pages[0][i]);
        du_free(f->pages[1][i]);
    }
    du_free(f->q);
    du_free(f);
}

/* The rows of the test: n of the long sequence from pos on, one of the other between. */
static int64_t set_rows(fixture *f, int64_t pos, int64_t n) {
    int64_t t = 0;
    for (int64_t i = 0; i < n; i++) {
        f->seqs[t] = &f->seq[0];
        f->pos[t++] = pos + i;
        if (i == n / 2) {
            f->seqs[t] = &f->seq[1];
            f->pos[t++] = N_OTHER - 1;
        }
    }
    return t;
}

static void compute(const fixture *f, float *out, int64_t T, int64_t n_threads, int64_t n_chunk) {
    du_ctx ctx = test_ctx_make(n_threads);
    ctx.kern = f->kern;
    for (int64_t t = 0; t < T; t += n_chunk) {
        int64_t n = T - t < n_chunk ? T - t : n_chunk;
        du_attn_rows rows = {n, f->seqs + t, f->pos + t};
        assert_int_equal(du_attn_fwd(&ctx, out + t * f->params.H * f->kv.v_dim,
                                     f->q + t * f->params.H * f->kv.k_dim, &f->kv, 1, &rows,
                                     &f->params),
                         DU_OK);
    }
    test_ctx_drop(&ctx);
}

static void unpack(const fixture *f, float *x, const uint8_t *rows, int64_t pos, size_t stride,
                   int64_t n) {
    du_dtype_get(f->kv.dtype)->unpack(x, rows + (size_t)(pos % DU_KV_PAGE) * stride, n);
}

/* One head of one row; the error allowed is that of the roundings to BF16 (2^-8 each for q, k, v
 * and p; the first two move a score, hence its weight, by as much as 2^-7 of its terms), or of F32.
 */
static void check_head(const fixture *f, int64_t t, int64_t h, const float *got) {
    static double p[N_POS];
    float x[96];
    const du_kv_layout *kv = &f->kv;
    int64_t n = f->pos[t] + 1, g = h / (f->params.H / kv->n_head);
    const float *q = f->q + (t * f->params.H + h) * kv->k_dim;
    double m = -INFINITY, l = 0, off = 0, mean[64] = {0}, size[64] = {0};
    for (int64_t j = 0; j < n; j++) {
        unpack(f, x, du_kv_k(kv, f->seqs[t]->pages[j / DU_KV_PAGE], 1, g), j, kv->k_row_bytes,
               kv->k_dim);
        double s = 0, squares = 0;
        for (int64_t c = 0; c < kv->k_dim; c++) {
            s += (double)q[c] * x[c];
            squares += pow((double)q[c] * x[c], 2);
        }
        p[j] = s * (double)f->params.scale;
        m = fmax(m, p[j]);
        off = fmax(off, sqrt(squares) * (double)f->params.scale);
    }
    for (int64_t j = 0; j < n; j++) {
        p[j] = exp(p[j] - m);
        l += p[j];
    }
    for (int64_t j = 0; j < n; j++) {
        unpack(f, x, du_kv_v(kv, f->seqs[t]->pages[j / DU_KV_PAGE], 1, g), j, kv->v_row_bytes,
               kv->v_dim);
        for (int64_t c = 0; c < kv->v_dim; c++) {
            mean[c] += p[j] / l * x[c];
            size[c] += p[j] / l * fabsf(x[c]);
        }
    }
    /* Roundings are as good as random: four times their standard deviation for a score. */
    double e = f->params.may_round ? 4 * 0x1p-8 * off + 0x1p-7 : (double)kv->k_dim * 0x1p-21;
    for (int64_t c = 0; c < kv->v_dim; c++) {
        if (!(fabs(got[c] - mean[c]) <= e * (size[c] + fabs(mean[c])))) {
            fail_msg("%s %s, rounded %d: row %d (position %d) head %d column %d: %.7g, exact %.7g",
                     du_isa_name(f->kern->isa), du_dtype_get(kv->dtype)->name, f->params.may_round,
                     (int)t, (int)f->pos[t], (int)h, (int)c, (double)got[c], mean[c]);
        }
    }
}

static void check(fixture *f, int64_t pos, int64_t n) {
    static const int64_t threads[] = {2, 3, 5, 7}, chunks[] = {1, 7, 16, MAX_T};
    int64_t T = set_rows(f, pos, n), len = f->params.H * f->kv.v_dim;
    float *want = du_alloc_array((size_t)(T * len), sizeof *want);
    float *got = du_alloc_array((size_t)(T * len), sizeof *got);
    compute(f, want, T, 1, 1);
    for (int64_t t = 0; t<T; t += T> 3 ? 5 : 1) {
        for (int64_t h = 0; h < f->params.H; h += 3) {
            check_head(f, t, h, want + t * len + h * f->kv.v_dim);
        }
    }
    for (int i = 0; i < 4; i++) {
        compute(f, got, T, threads[i], chunks[(i + 1) % 4]);
        assert_memory_equal(got, want, (size_t)(T * len) * sizeof *got);
    }
    compute(f, got, T, 1, T);
    assert_memory_equal(got, want, (size_t)(T * len) * sizeof *got);
    du_free(want);
    du_free(got);
}

static void check_all(bool may_round) {
    for (int isa = 0; isa < DU_ISA_COUNT; isa++) {
        const du_kern *kern = du_kern_get((du_isa)isa);
        for (size_t i = 0; kern && i < sizeof shapes / sizeof *shapes; i++) {
            fixture *f = fixture_new(&shapes[i], kern, may_round);
            check(f, 0, 12);
            check(f, 250, 20);                   /* across a step */
            check(f, 1500, 1);                   /* several segments */
            check(f, 16 * DU_ATTN_STEP - 9, 15); /* across where segments get longer */
            fixture_free(f);
        }
    }
}

static void test_exact(void **state) {
    (void)state;
    check_all(false);
}

static void test_rounded(void **state) {
    (void)state;
    check_all(true);
}

int main(void) {
    du_rng_init(&rng, 11);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_rounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
