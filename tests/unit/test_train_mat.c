/* Products with matrices that are unpacked on the way, whole or in pieces, have the bits of
 * products with the same values as F32. */
#include "base/rng.h"
#include "ctx.h"
#include "nn/train_mat.h"

enum { T = 3, COLS = 1024, N_MATS = 7 };

/* More than is unpacked at once: in one matrix, and in several together. */
static const int64_t rows[N_MATS] = {96, 8320, 2048, 2048, 2048, 2048, 160};
static const du_dtype types[N_MATS] = {DU_Q8_0, DU_Q8_0, DU_Q4_0, DU_F32,
                                       DU_Q8_0, DU_Q4_K, DU_BF16};

typedef struct {
    du_mat stored[N_MATS], plain[N_MATS]; /* the same values */
    float *x[N_MATS];                     /* [T, COLS], [T, rows] */
    float *dy[N_MATS];
} fixture;

static float *random_values(int64_t n, uint64_t seed) {
    float *values = du_alloc_array((size_t)n, sizeof *values);
    du_rng rng;
    du_rng_init(&rng, seed);
    for (int64_t i = 0; i < n; i++) {
        values[i] = (float)(2 * du_rng_uniform(&rng) - 1);
    }
    return values;
}

static du_mat mat_of(void *data, du_dtype type, int64_t n_rows) {
    return (du_mat){.data = data,
                    .dtype = type,
                    .rows = n_rows,
                    .cols = COLS,
                    .row_bytes = du_dtype_row_bytes(type, COLS)};
}

static fixture make(void) {
    fixture f;
    for (int64_t i = 0; i < N_MATS; i++) {
        float *values = random_values(rows[i] * COLS, 40 + (uint64_t)i);
        f.stored[i] = mat_of(NULL, types[i], rows[i]);
        char *data = du_alloc_array((size_t)rows[i], f.stored[i].row_bytes);
        for (int64_t r = 0; r < rows[i]; r++) {
            du_dtype_get(types[i])->pack(data + (size_t)r * f.stored[i].row_bytes,
                                         values + r * COLS, COLS, NULL);
        }
        f.stored[i].data = data;
        for (int64_t r = 0; r < rows[i]; r++) {
            du_mat_unpack_row(values + r * COLS, &f.stored[i], r);
        }
        f.plain[i] = mat_of(values, DU_F32, rows[i]);
        f.x[i] = random_values(T * COLS, 60 + (uint64_t)i);
        f.dy[i] = random_values(T * rows[i], 80 + (uint64_t)i);
    }
    return f;
}

static void done(fixture *f) {
    for (int64_t i = 0; i < N_MATS; i++) {
        du_free((void *)(uintptr_t)f->stored[i].data);
        du_free((void *)(uintptr_t)f->plain[i].data);
        du_free(f->x[i]);
        du_free(f->dy[i]);
    }
}

/* All results side by side: y of each matrix [T, rows], then dx [T, COLS], to which all add. */
static float *compute(const fixture *f, const du_mat *mats, du_gemm_kind kind, int64_t n_threads,
                      size_t *n_bytes) {
    du_ctx ctx = test_ctx_make(n_threads);
    du_train_job fwd[N_MATS], back[N_MATS];
    int64_t n = T * COLS;
    for (int64_t i = 0; i < N_MATS; i++) {
        n += T * rows[i];
    }
    float *out = du_alloc_zero((size_t)n, sizeof *out), *y = out;
    for (int64_t i = 0; i < N_MATS; i++, y += T * rows[i - 1]) {
        du_gemm_src x = {.data = f->x[i], .ld = COLS}, dy = {.data = f->dy[i], .ld = rows[i]};
        fwd[i] = (du_train_job){&mats[i], y, rows[i], x, T, false};
        back[i] = (du_train_job){&mats[i], out + n - T * COLS, COLS, dy, T, i > 0};
    }
    assert_int_equal(du_train_fwd(&ctx, kind, fwd, N_MATS), DU_OK);
    assert_int_equal(du_train_dgrad(&ctx, kind, back, N_MATS), DU_OK);
    test_ctx_drop(&ctx);
    *n_bytes = (size_t)n * sizeof *out;
    return out;
}

static void bits_are_those_of_f32(void **state) {
    (void)state;
    fixture f = make();
    for (int k = 0; k < 2; k++) {
        du_gemm_kind kind = du_kern_gemm_kind(du_kern_get(test_isa()), k == 1);
        size_t n_bytes;
        float *want = compute(&f, f.plain, kind, 1, &n_bytes);
        for (int64_t n_threads = 1; n_threads <= 3; n_threads += 2) {
            float *got = compute(&f, f.stored, kind, n_threads, &n_bytes);
            assert_memory_equal(got, want, n_bytes);
            du_free(got);
        }
        du_free(want);
    }
    done(&f);
}

/* What no row is multiplied with is not read. */
static void no_rows_no_work(void **state) {
    (void)state;
    fixture f = make();
    du_ctx ctx = {.kern = du_kern_get(test_isa()), .scratch = du_arena_new(1 << 16)};
    float y[1] = {7};
    du_mat unread = {.dtype = DU_Q8_0, .rows = rows[1], .cols = COLS};
    du_train_job job = {&unread, y, 1, {.data = f.x[1], .ld = COLS}, 0, false};
    assert_int_equal(du_train_fwd(&ctx, DU_GEMM_F32, &job, 1), DU_OK);
    assert_int_equal(du_train_dgrad(&ctx, DU_GEMM_F32, &job, 1), DU_OK);
    assert_true(y[0] == 7);
    du_arena_free(ctx.scratch);
    done(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_are_those_of_f32),
        cmocka_unit_test(no_rows_no_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
