/* The products of training: groups of any sizes, strided and gathered, whatever the threads; sums
 * over leaves in their tree however the leaves are spread over calls. */
#include "ctx.h"

#include <math.h>

#include "base/rng.h"
#include "nn/gemm.h"
#include "tensor/half.h"

enum { N_JOBS = 5, N_MAX = 150, K_MAX = 330, T_MAX = 420, ROWS = 512 };

static du_rng rng;
static du_ctx ctx;
static du_gemm_kind kind;
static float x[ROWS * K_MAX], dy[ROWS * N_MAX], w[N_JOBS][N_MAX * K_MAX];
static int32_t gather[N_JOBS][T_MAX];

static int64_t between(int64_t lo, int64_t hi) {
    return lo + (int64_t)du_rng_below(&rng, (uint64_t)(hi - lo + 1));
}

static void fill(float *p, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        p[i] = (float)du_rng_normal(&rng);
    }
}

static float rounded(float v) {
    bool f32 = kind == DU_GEMM_F32 || kind == DU_GEMM_F32_TILES;
    return f32 ? v : du_f32_of_bf16(du_bf16_of_f32(v));
}

/* |got - exact| for n roundings of terms of this size */
static void assert_near(double got, double exact, double terms, int64_t n) {
    if (!(fabs(got - exact) <= 2 * (double)(n + 8) * 0x1p-24 * terms)) {
        fail_msg("%.9g, not %.9g (%d terms)", got, exact, (int)n);
    }
}

/* Experts with 0 to T_MAX rows, one of them with no token */
typedef struct {
    du_gemm_job jobs[N_JOBS];
    float y[N_JOBS][T_MAX * (K_MAX + 3)];
} group;

static group groups[2];

static void make_jobs(group *g, bool dgrad) {
    static const int64_t counts[N_JOBS] = {64, 0, 1, 37, T_MAX};
    for (int i = 0; i < N_JOBS; i++) {
        int64_t N = between(1, N_MAX), K = between(1, K_MAX), cols = dgrad ? K : N;
        g->jobs[i] = (du_gemm_job){
            .y = g->y[i],
            .ldy = cols + 3,
            .x = {.data = dgrad ? dy : x, .ld = dgrad ? N_MAX : K_MAX, .i_row = gather[i]},
            .w = {.data = w[i], .ld = K_MAX},
            .T = counts[i],
            .N = N,
            .K = K,
            .add = i == 3};
        for (int t = 0; t < T_MAX; t++) {
            gather[i][t] = (int32_t)between(0, ROWS - 1);
        }
        fill(g->y[i], T_MAX * (K_MAX + 3));
    }
    g->jobs[4].x.i_row = NULL;
}

static void run_jobs(group *g, bool dgrad) {
    if (dgrad) {
        assert_int_equal(du_gemm_dgrad(&ctx, kind, g->jobs, N_JOBS), DU_OK);
    } else {
        assert_int_equal(du_gemm_fwd(&ctx, kind, g->jobs, N_JOBS), DU_OK);
    }
}

static void copy_jobs(group *to, const group *from) {
    *to = *from;
    for (int i = 0; i < N_JOBS; i++) {
        to->jobs[i].y = to->y[i];
    }
}

static void check_job(const du_gemm_job *j, const float *before, bool dgrad) {
    int64_t cols = dgrad ? j->K : j->N, n = dgrad ? j->N : j->K;
    for (int64_t t = 0; t < j->T; t++) {
        const float *row = j->x.data;
        row += (j->x.i_row ? j->x.i_row[t] : t) * j->x.ld;
        for (int64_t c = 0; c < j->ldy; c++) {
            double exact = before[t * j->ldy + c], terms = fabs(exact);
            if (c < cols && !j->add) {
                exact = terms = 0;
            }
            for (int64_t k = 0; c < cols && k < n; k++) {
                const float *weights = j->w.data;
                double term = (double)rounded(row[k]) *
                              rounded(weights[dgrad ? k * j->w.ld + c : c * j->w.ld + k]);
                exact += term;
                terms += fabs(term);
            }
            assert_near(j->y[t * j->ldy + c], exact, c < cols ? terms : 0, n);
        }
    }
}

static void check_direction(bool dgrad) {
    static group first, before;
    make_jobs(&before, dgrad);
    for (int64_t n_threads = 1; n_threads <= 3; n_threads++) {
        group *g = n_threads == 1 ? &first : &groups[0];
        copy_jobs(g, &before);
        ctx = test_ctx_make(n_threads);
        run_jobs(g, dgrad);
        assert_memory_equal(g->y, first.y, sizeof g->y);
        /* Packed before, and one by one */
        copy_jobs(&groups[1], &before);
        for (int i = 0; i < N_JOBS; i++) {
            du_gemm_job *j = &groups[1].jobs[i];
            size_t n = dgrad ? du_gemm_packed_dgrad_bytes(ctx.kern, kind, j->N, j->K)
                             : du_gemm_packed_fwd_bytes(ctx.kern, kind, j->N, j->K);
            void *packed = du_alloc_aligned(n);
            assert_non_null(packed);
            if (dgrad) {
                du_gemm_pack_dgrad(&ctx, kind, packed, &j->w, j->N, j->K);
                j->packed = packed;
                assert_int_equal(du_gemm_dgrad(&ctx, kind, j, 1), DU_OK);
            } else {
                du_gemm_pack_fwd(&ctx, kind, packed, &j->w, j->N, j->K);
                j->packed = packed;
                assert_int_equal(du_gemm_fwd(&ctx, kind, j, 1), DU_OK);
            }
            du_free(packed);
        }
        assert_memory_equal(groups[1].y, first.y, sizeof first.y);
        test_ctx_drop(&ctx);
    }
    for (int i = 0; i < N_JOBS; i++) {
        check_job(&first.jobs[i], before.y[i], dgrad);
    }
}

static void each_kind(void (*fn)(void)) {
    for (int i = 0; i < DU_GEMM_KINDS; i++) {
        kind = (du_gemm_kind)i;
        du_rng_init(&rng, 5);
        fill(x, ROWS * K_MAX);
        fill(dy, ROWS * N_MAX);
        fill(w[0], N_JOBS * N_MAX * K_MAX);
        fn();
    }
}

static void fwd_of_kind(void) {
    check_direction(false);
}

static void dgrad_of_kind(void) {
    check_direction(true);
}

static void test_fwd(void **state) {
    (void)state;
    each_kind(fwd_of_kind);
}

static void test_dgrad(void **state) {
    (void)state;
    each_kind(dgrad_of_kind);
}

/* Gradients over leaves: LEAVES of them, two experts and a dense matrix. Expert 1 has rows in some
 * leaves only, expert 2 in none. */
enum { LEAVES = 11, N_GRADS = 3, LEN = N_MAX * K_MAX, LEVELS = 4 };

static int64_t ends[N_GRADS][LEAVES];
static const int64_t sizes[N_GRADS][2] = {{133, 300}, {20, 70}, {7, 9}}; /* N, K */

static void make_leaves(void) {
    for (int i = 0; i < LEAVES; i++) {
        int64_t n = 3 + i * 5 % 17 + (i == 4 ? 270 : 0);
        ends[0][i] = (i ? ends[0][i - 1] : 0) + n;
        ends[1][i] = (i ? ends[1][i - 1] : 0) + (i % 4 == 1 || i > 8 ? 0 : i + 1);
        ends[2][i] = 0;
    }
    for (int t = 0; t < T_MAX; t++) {
        gather[1][t] = (int32_t)between(0, ROWS - 1);
    }
}

/* The gradient of leaf i alone, zeros without rows: one product of rows [begin, end) */
static void leaf(float *dw, int g, int i) {
    int64_t begin = i ? ends[g][i - 1] : 0, end = ends[g][i] - begin;
    const int32_t *i_row = g == 1 ? gather[1] + begin : NULL;
    int64_t shift = g == 1 ? 0 : begin;
    du_gemm_grad grad = {.dw = dw,
                         .lddw = sizes[g][1],
                         .dy = {.data = dy + shift * N_MAX, .ld = N_MAX, .i_row = i_row},
                         .x = {.data = x + shift * K_MAX, .ld = K_MAX, .i_row = i_row},
                         .end = &end,
                         .N = sizes[g][0],
                         .K = sizes[g][1]};
    assert_int_equal(du_gemm_wgrad(&ctx, kind, &grad, 1, (du_leaves){0, 1, true}), DU_OK);
}

/* node(l, i) by its definition; false: no leaf in it */
static bool sum_of_node(float *dw, int g, int l, int i) {
    int64_t n = sizes[g][0] * sizes[g][1];
    if (i << l >= LEAVES) {
        return false;
    }
    if (l == 0) {
        leaf(dw, g, i);
        return true;
    }
    float *right = du_alloc_array((size_t)n, sizeof *right);
    assert_non_null(right);
    sum_of_node(dw, g, l - 1, 2 * i);
    if (sum_of_node(right, g, l - 1, 2 * i + 1)) {
        for (int64_t j = 0; j < n; j++) {
            dw[j] += right[j];
        }
    }
    du_free(right);
    return true;
}

/* The whole step in calls of so many leaves each; buffers of lower levels serve higher ones. */
static void run_calls(float dw[N_GRADS][LEN], const int *counts, bool add) {
    static float waiting[N_GRADS][LEVELS][LEN];
    int64_t first = 0;
    for (int call = 0; first < LEAVES; call++) {
        int64_t n = counts[call], local[N_GRADS][LEAVES] = {{0}};
        du_gemm_grad grads[N_GRADS];
        float *nodes[N_GRADS][LEVELS];
        for (int g = 0; g < N_GRADS; g++) {
            int64_t begin = first ? ends[g][first - 1] : 0;
            for (int64_t i = 0; i < n; i++) {
                local[g][i] = ends[g][first + i] - begin;
            }
            for (int l = 0; l < LEVELS; l++) {
                nodes[g][l] = waiting[g][l];
            }
            const int32_t *i_row = g == 1 ? gather[1] + begin : NULL;
            int64_t shift = g == 1 ? 0 : begin;
            grads[g] = (du_gemm_grad){.dw = dw[g],
                                      .lddw = sizes[g][1],
                                      .dy = {dy + shift * N_MAX, N_MAX, i_row, false, false},
                                      .x = {x + shift * K_MAX, K_MAX, i_row, false, false},
                                      .end = local[g],
                                      .nodes = nodes[g],
                                      .N = sizes[g][0],
                                      .K = sizes[g][1],
                                      .add = add};
        }
        du_leaves leaves = {first, n, first + n == LEAVES};
        assert_int_equal(du_gemm_wgrad(&ctx, kind, grads, N_GRADS, leaves), DU_OK);
        first += n;
    }
}

static void wgrad_of_kind(void) {
    static const int ways[][LEAVES] = {
        {11}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {4, 4, 3}, {3, 3, 3, 2}, {5, 6}, {8, 3}, {2, 7, 2},
    };
    static float want[N_GRADS][LEN], dw[N_GRADS][LEN];
    make_leaves();
    ctx = test_ctx_make(1);
    for (int g = 0; g < N_GRADS; g++) {
        sum_of_node(want[g], g, LEVELS, 0);
    }
    test_ctx_drop(&ctx);
    for (int64_t n_threads = 1; n_threads <= 3; n_threads++) {
        ctx = test_ctx_make(n_threads);
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            memset(dw, 0x7f, sizeof dw);
            run_calls(dw, ways[i], false);
            for (int g = 0; g < N_GRADS; g++) {
                assert_memory_equal(dw[g], want[g],
                                    (size_t)(sizes[g][0] * sizes[g][1]) * sizeof **dw);
            }
        }
        for (int g = 0; g < N_GRADS; g++) {
            for (int i = 0; i < LEN; i++) {
                dw[g][i] = 3;
            }
        }
        run_calls(dw, ways[3], true);
        for (int g = 0; g < N_GRADS; g++) {
            for (int64_t i = 0; i < sizes[g][0] * sizes[g][1]; i++) {
                assert_true(dw[g][i] == 3 + want[g][i]);
            }
        }
        test_ctx_drop(&ctx);
    }
    for (int64_t i = 0; i < sizes[0][0] * sizes[0][1]; i++) {
        double exact = 0, terms = 0;
        int64_t n = i / sizes[0][1], k = i % sizes[0][1];
        for (int64_t t = 0; t < ends[0][LEAVES - 1]; t++) {
            double term = (double)rounded(dy[t * N_MAX + n]) * rounded(x[t * K_MAX + k]);
            exact += term;
            terms += fabs(term);
        }
        assert_near(want[0][i], exact, terms, 300);
    }
}

static void test_wgrad(void **state) {
    (void)state;
    each_kind(wgrad_of_kind);
}

/* A sum that underflows to -0 and a leaf without rows: the sum is +0, in one call or two. */
static void test_minus_zero(void **state) {
    (void)state;
    const float tiny = 0x1p-100f;
    float minus = -tiny, waits[2] = {9, 9}, dw = 9, *nodes[2] = {&waits[0], &waits[1]};
    int64_t end[2] = {1, 1};
    ctx = test_ctx_make(1);
    bool fused = ctx.kern->isa != DU_ISA_C; /* the product alone underflows, and 0 + -0 is +0 */
    du_gemm_grad grad = {.dw = &dw,
                         .lddw = 1,
                         .dy = {.data = &minus, .ld = 1},
                         .x = {.data = &tiny, .ld = 1},
                         .end = end,
                         .nodes = nodes,
                         .N = 1,
                         .K = 1};
    du_leaves one = {0, 1, true}, two = {0, 2, true}, first = {0, 1, false}, second = {1, 1, true};
    assert_int_equal(du_gemm_wgrad(&ctx, DU_GEMM_F32, &grad, 1, one), DU_OK);
    assert_true(dw == 0 && (bool)signbit(dw) == fused);
    assert_int_equal(du_gemm_wgrad(&ctx, DU_GEMM_F32, &grad, 1, two), DU_OK);
    assert_true(dw == 0 && !signbit(dw));
    dw = 9;
    assert_int_equal(du_gemm_wgrad(&ctx, DU_GEMM_F32, &grad, 1, first), DU_OK);
    assert_true(waits[0] == 0 && (bool)signbit(waits[0]) == fused);
    end[0] = 0;
    assert_int_equal(du_gemm_wgrad(&ctx, DU_GEMM_F32, &grad, 1, second), DU_OK);
    assert_true(dw == 0 && !signbit(dw));
    test_ctx_drop(&ctx);
}

/* Empty calls, no columns, no inner index */
static void test_empty(void **state) {
    (void)state;
    float y[6] = {1, 1, 1, 1, 1, 1};
    ctx = test_ctx_make(2);
    assert_int_equal(du_gemm_fwd(&ctx, DU_GEMM_F32, NULL, 0), DU_OK);
    du_gemm_job job = {.y = y, .ldy = 3, .x = {.data = x, .ld = 1}, .w = {.data = w, .ld = 1}};
    assert_int_equal(du_gemm_fwd(&ctx, DU_GEMM_F32, &job, 1), DU_OK);
    job.T = 2, job.N = 2, job.add = true;
    assert_int_equal(du_gemm_fwd(&ctx, DU_GEMM_F32, &job, 1), DU_OK);
    assert_true(y[0] == 1 && y[4] == 1);
    job.add = false;
    assert_int_equal(du_gemm_fwd(&ctx, DU_GEMM_F32, &job, 1), DU_OK);
    assert_true(y[0] == 0 && y[1] == 0 && y[2] == 1 && y[3] == 0 && y[4] == 0 && y[5] == 1);
    test_ctx_drop(&ctx);
}

/* Memory short at each allocation in turn */
static void test_memory(void **state) {
    (void)state;
    static float y[64 * 64];
    int64_t end = 64;
    du_gemm_job job = {.y = y,
                       .ldy = 64,
                       .x = {.data = x, .ld = K_MAX},
                       .w = {.data = w, .ld = K_MAX},
                       .T = 64,
                       .N = 64,
                       .K = 64};
    du_gemm_grad grad = {.dw = y,
                         .lddw = 64,
                         .dy = {.data = dy, .ld = N_MAX},
                         .x = {.data = x, .ld = K_MAX},
                         .end = &end,
                         .N = 64,
                         .K = 64};
    for (int n = 1;; n++) {
        ctx = test_ctx_make(1);
        du_mem_fail_at(n, true);
        du_err err = du_gemm_fwd(&ctx, DU_GEMM_F32, &job, 1);
        err = err ? err : du_gemm_wgrad(&ctx, DU_GEMM_F32, &grad, 1, (du_leaves){0, 1, true});
        du_mem_fail_at(0, false);
        test_ctx_drop(&ctx);
        if (err == DU_OK) {
            assert_true(n > 2);
            return;
        }
        assert_int_equal(err, DU_ENOMEM);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fwd),   cmocka_unit_test(test_dgrad),
        cmocka_unit_test(test_wgrad), cmocka_unit_test(test_minus_zero),
        cmocka_unit_test(test_empty), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
