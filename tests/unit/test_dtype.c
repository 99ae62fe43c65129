#include "test.h"

#include <math.h>

#include "tensor/dtype.h"
#include "tensor/half.h"
#include "tensor/mat.h"
#include "tensor/quant.h"

static void types_are_found_by_name_and_id(void **state) {
    (void)state;
    for (int t = 0; t < DU_DTYPE_COUNT; t++) {
        const du_dtype_info *info = du_dtype_get((du_dtype)t);
        du_dtype found = DU_DTYPE_COUNT;
        assert_true(du_dtype_find(&found, info->name));
        assert_int_equal(found, t);
        if (info->gguf_id >= 0) {
            assert_true(du_dtype_of_gguf(&found, (uint32_t)info->gguf_id));
            assert_int_equal(found, t);
        }
        assert_non_null(info->unpack);
        assert_int_equal(du_dtype_row_bytes((du_dtype)t, 3 * info->block), 3 * info->block_bytes);
        assert_int_equal(du_dtype_is_block((du_dtype)t), info->block > 1);
    }
    du_dtype found = DU_F16;
    assert_true(du_dtype_find(&found, "q4_k"));
    assert_int_equal(found, DU_Q4_K);
    assert_false(du_dtype_find(&found, "Q4_K_M"));
    assert_false(du_dtype_of_gguf(&found, 4)); /* Q4_2, removed from the format */
    assert_false(du_dtype_of_gguf(&found, UINT32_MAX));
    assert_int_equal(found, DU_Q4_K);
}

static void fallback_fits_the_row(void **state) {
    (void)state;
    for (int t = 0; t < DU_DTYPE_COUNT; t++) {
        for (int64_t n = 1; n <= 1536; n++) {
            du_dtype got = du_dtype_fallback((du_dtype)t, n);
            int64_t block = du_dtype_get((du_dtype)t)->block;
            assert_int_equal(n % du_dtype_get(got)->block, 0);
            assert_int_equal(got == (du_dtype)t, n % block == 0);
        }
    }
    assert_int_equal(du_dtype_fallback(DU_Q4_K, 1408), DU_Q5_0);
    assert_int_equal(du_dtype_fallback(DU_Q5_K, 1408), DU_Q5_1);
    assert_int_equal(du_dtype_fallback(DU_Q6_K, 1408), DU_Q8_0);
    assert_int_equal(du_dtype_fallback(DU_Q2_K, 1408), DU_Q4_0);
    assert_int_equal(du_dtype_fallback(DU_Q3_K, 1408), DU_Q4_0);
    assert_int_equal(du_dtype_fallback(DU_IQ4_XS, 1408), DU_IQ4_NL);
    assert_int_equal(du_dtype_fallback(DU_Q8_0, 100), DU_F16);
    assert_int_equal(du_dtype_fallback(DU_Q4_K, 100), DU_F16);
}

/* What the bits of a small float format say, in double. */
static double value_of(uint32_t bits, int n_exp, int n_man) {
    int e = (int)(bits >> n_man & ((1u << n_exp) - 1));
    double man = bits & ((1u << n_man) - 1);
    int bias = (1 << (n_exp - 1)) - 1;
    double v =
        e ? ldexp(man + (double)(1 << n_man), e - bias - n_man) : ldexp(man, 1 - bias - n_man);
    return bits >> (n_exp + n_man) & 1 ? -v : v;
}

static void halves_convert_exactly(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = du_f32_of_f16((uint16_t)h);
        if ((h & 0x7c00) < 0x7c00) {
            assert_true(f == value_of(h, 5, 10));
            assert_int_equal(du_f16_of_f32(f), h);
        } else if (h & 0x3ff) {
            assert_true(isnan(f) && isnan(du_f32_of_f16(du_f16_of_f32(f))));
        } else {
            assert_true(isinf(f));
            assert_int_equal(du_f16_of_f32(f), h);
        }
        float b = du_f32_of_bf16((uint16_t)h);
        if ((h & 0x7f80) < 0x7f80) {
            assert_true(b == value_of(h, 8, 7));
            assert_int_equal(du_bf16_of_f32(b), h);
        } else {
            assert_int_equal(isnan(b) != 0, (h & 0x7f) != 0);
            assert_int_equal(isnan(du_f32_of_bf16(du_bf16_of_f32(b))) != 0, (h & 0x7f) != 0);
        }
    }
}

/* Between neighbours a < b: just below the middle gives a, just above b, the middle the even one.
 */
static void halves_round_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float mid = (float)((value_of(h, 5, 10) + value_of(h + 1, 5, 10)) / 2);
        assert_int_equal(du_f16_of_f32(nextafterf(mid, 0)), h);
        assert_int_equal(du_f16_of_f32(nextafterf(mid, INFINITY)), h + 1);
        assert_int_equal(du_f16_of_f32(mid), h + (h & 1));
        assert_int_equal(du_f16_of_f32(-mid), 0x8000 | (h + (h & 1)));
    }
    assert_int_equal(du_f16_of_f32(65519.0f), 0x7bff);
    assert_int_equal(du_f16_of_f32(65520.0f), 0x7c00);
    assert_int_equal(du_f16_of_f32(1e30f), 0x7c00);
    for (uint32_t h = 0; h < 0x7f7f; h++) {
        float mid = (float)((value_of(h, 8, 7) + value_of(h + 1, 8, 7)) / 2);
        assert_int_equal(du_bf16_of_f32(nextafterf(mid, 0)), h);
        assert_int_equal(du_bf16_of_f32(nextafterf(mid, INFINITY)), h + 1);
        assert_int_equal(du_bf16_of_f32(mid), h + (h & 1));
    }
}

static void e8m0_is_a_power_of_two(void **state) {
    (void)state;
    for (int code = 0; code < 255; code++) {
        assert_true(du_f32_of_e8m0((uint8_t)code) == ldexp(1, code - 127));
    }
    assert_true(isnan(du_f32_of_e8m0(255)));
    du_block_mxfp4 block = {.e = 255};
    float y[32];
    du_unpack_mxfp4(y, &block, 32);
    assert_true(isnan(y[0]) && isnan(y[31]));
}

static void sign_codes_have_an_even_count(void **state) {
    (void)state;
    for (uint32_t code = 0; code < 128; code++) {
        assert_int_equal(du_iq_signs(code) & 127, code);
        assert_int_equal(__builtin_popcount(du_iq_signs(code)) % 2, 0);
    }
}

/* An F8 matrix of 3 x 2 tiles with ragged edges, and a view that starts inside a tile. */
static void f8_rows_are_scaled_by_their_tile(void **state) {
    (void)state;
    enum { ROWS = 300, COLS = 200 };
    static uint8_t data[ROWS][COLS];
    float scale[3][2] = {{1, 2}, {4, 8}, {16, 32}};
    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < COLS; c++) {
            data[r][c] = (uint8_t)((r * 7 + c) % 126);
        }
    }
    du_mat m = {.data = data,
                .dtype = DU_F8_E4M3,
                .rows = ROWS,
                .cols = COLS,
                .row_bytes = COLS,
                .aux = &scale[0][0],
                .aux_cols = 2};
    du_mat view = du_mat_slice(&m, 100, 200);
    float y[COLS];
    for (int r = 0; r < ROWS; r++) {
        if (r < 100) {
            du_mat_unpack_row(y, &m, r);
        } else {
            du_mat_unpack_row(y, &view, r - 100);
        }
        for (int c = 0; c < COLS; c++) {
            float want = du_f32_of_f8_e4m3(data[r][c]) * scale[r / 128][c / 128];
            assert_true(y[c] == want);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_are_found_by_name_and_id),
        cmocka_unit_test(fallback_fits_the_row),
        cmocka_unit_test(halves_convert_exactly),
        cmocka_unit_test(halves_round_to_nearest_even),
        cmocka_unit_test(e8m0_is_a_power_of_two),
        cmocka_unit_test(sign_codes_have_an_even_count),
        cmocka_unit_test(f8_rows_are_scaled_by_their_tile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
