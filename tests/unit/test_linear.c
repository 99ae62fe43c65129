/* Linear layers against double precision: the fine form, and that neither threads nor the number
 * of rows change a bit. */
#include "test.h"

#include <math.h>

#include "base/rng.h"
#include "nn/acts.h"
#include "nn/linear.h"

enum { ROWS = 200, COLS = 512, T = 9, N_OUT = 3 };

static uint8_t bytes[N_OUT][ROWS * COLS * sizeof(float)];
static du_mat mats[N_OUT];
static float x[T * COLS], bias[ROWS];
static du_rng rng;

/* Q4_K, F32 and Q8_0 weights in one group. */
static void make_weights(void) {
    static const du_dtype types[N_OUT] = {DU_Q4_K, DU_F32, DU_Q8_0};
    static float row[COLS];
    du_rng_init(&rng, 7);
    for (int k = 0; k < N_OUT; k++) {
        size_t row_bytes = du_dtype_row_bytes(types[k], COLS);
        mats[k] = (du_mat){.data = bytes[k],
                           .dtype = types[k],
                           .rows = ROWS,
                           .cols = COLS,
                           .row_bytes = row_bytes};
        for (int r = 0; r < ROWS; r++) {
            for (int c = 0; c < COLS; c++) {
                row[c] = (float)du_rng_normal(&rng);
            }
            if (types[k] == DU_F32) {
                memcpy(bytes[k] + (size_t)r * row_bytes, row, sizeof row);
            } else {
                du_dtype_get(types[k])->pack(bytes[k] + (size_t)r * row_bytes, row, COLS, NULL);
            }
        }
    }
    for (int i = 0; i < T * COLS; i++) {
        x[i] = (float)(du_rng_normal(&rng) * (i % 37 == 0 ? 20 : 1));
    }
    for (int i = 0; i < ROWS; i++) {
        bias[i] = (float)du_rng_normal(&rng);
    }
}

typedef du_err linear_fn(du_ctx *ctx, const du_linear_out *outs, int64_t n_out, const float *in,
                         int64_t ldx, int64_t n);

/* y [N_OUT][T, ROWS] for n rows at a time. */
static void compute(linear_fn *fn, float *y, int64_t n_threads, int64_t n) {
    du_diag diag;
    du_diag_reset(&diag);
    du_ctx ctx = {.kern = du_kern_get(du_isa_best()), .scratch = du_arena_new(1 << 16)};
    assert_ok(du_pool_new(&ctx.pool, n_threads, false, &diag), &diag);
    for (int64_t t = 0; t < T; t += n) {
        du_linear_out outs[N_OUT];
        for (int k = 0; k < N_OUT; k++) {
            outs[k] = (du_linear_out){y + (k * T + t) * ROWS, ROWS, &mats[k], k == 0 ? bias : NULL};
        }
        assert_int_equal(fn(&ctx, outs, N_OUT, x + t * COLS, COLS, n < T - t ? n : T - t), DU_OK);
    }
    du_pool_free(ctx.pool);
    du_arena_free(ctx.scratch);
}

/* The largest error of output k in units of what is allowed, when each group of 32 values of x is
 * off by at most step times its greatest: with w the weights, step * sum_c |w[c]| * max of c's
 * group. Sums in f32 get 64 roundings of the sum of magnitudes. */
static double error_of(const float *y, int k, double step) {
    static float row[COLS];
    double worst = 0;
    for (int r = 0; r < ROWS; r++) {
        du_mat_unpack_row(row, &mats[k], r);
        for (int t = 0; t < T; t++) {
            const float *in = x + t * COLS;
            double exact = k == 0 ? (double)bias[r] : 0, terms = fabs(exact), off = 0;
            for (int c = 0; c < COLS; c++) {
                double max = 0;
                for (int i = c / 32 * 32; i < c / 32 * 32 + 32; i++) {
                    max = fmax(max, fabs((double)in[i]));
                }
                exact += (double)row[c] * in[c];
                terms += fabs((double)row[c] * in[c]);
                off += fabs((double)row[c]) * max;
            }
            double allowed = step * off + 64 * 0x1p-24 * terms;
            worst = fmax(worst, fabs(y[(k * T + t) * ROWS + r] - exact) / allowed);
        }
    }
    return worst;
}

static void fine_products_have_15_bits(void **state) {
    (void)state;
    static float y[N_OUT * T * ROWS];
    static const double coarse = 0.5 / 127, fine = coarse * coarse; /* half a step, twice */
    make_weights();
    compute(du_linear_fwd, y, 1, T);
    for (int k = 0; k < N_OUT; k++) {
        bool floats = mats[k].dtype == DU_F32;
        assert_true(error_of(y, k, floats ? 0 : coarse) <= 1);
        assert_true(floats || error_of(y, k, fine) > 1);
    }
    compute(du_linear_fine_fwd, y, 1, T);
    for (int k = 0; k < N_OUT; k++) {
        assert_true(error_of(y, k, mats[k].dtype == DU_F32 ? 0 : fine) <= 1);
    }
}

static void the_split_changes_no_bit(void **state) {
    (void)state;
    static float want[N_OUT * T * ROWS], got[N_OUT * T * ROWS];
    linear_fn *const fns[] = {du_linear_fwd, du_linear_fine_fwd};
    make_weights();
    for (int f = 0; f < 2; f++) {
        compute(fns[f], want, 1, T);
        for (int64_t n_threads = 1; n_threads <= 3; n_threads++) {
            for (int64_t n = 1; n <= T; n += 2) {
                memset(got, 0xff, sizeof got);
                compute(fns[f], got, n_threads, n);
                assert_memory_equal(got, want, sizeof want);
            }
        }
    }
}

/* Rows in bf16 cost time, and are read by products with strips alone. */
static void bf16_is_made_where_it_may_be_read(void **state) {
    (void)state;
    du_kern kern = *du_kern_get(DU_ISA_C);
    for (int i = 0; i < 32; i++) {
        bool strips = i & 1, same_bits = i & 2, for_blocks = i & 4, many = i & 8, wanted = i & 16;
        du_ctx ctx = {.kern = &kern,
                      .scratch = du_arena_new(1 << 16),
                      .strips = strips,
                      .same_bits = same_bits};
        du_acts acts;
        kern.n_bf16 = wanted ? 4 : 0;
        assert_int_equal(du_acts_make(&ctx, &acts, x, COLS, many ? 4 : 3, COLS, for_blocks), DU_OK);
        assert_int_equal(acts.h != NULL, strips && !same_bits && for_blocks && many && wanted);
        du_arena_free(ctx.scratch);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fine_products_have_15_bits),
        cmocka_unit_test(the_split_changes_no_bit),
        cmocka_unit_test(bf16_is_made_where_it_may_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
