/* The packers against oracles in double precision: no worse than rounding with unrounded scales
 * over the whole range of each group, for the types with one scale within 1% of the true minimum;
 * and inputs that no quantiser likes. Every type of the list that is written takes part. */
#include "test.h"

#include <math.h>

#include "base/mem.h"
#include "base/rng.h"
#include "tensor/dtype.h"
#include "tensor/half.h"
#include "tensor/mat.h"
#include "tensor/quant.h"

enum { N = 4096, N_BYTES_MAX = 4 * N + 2 };

/* How a type divides its blocks: weights per scale, levels lo .. hi, with a minimum or not. */
typedef struct {
    int group, lo, hi;
    bool has_min;
} plan;

/* group 0: each weight by itself. A type that is written must be here. */
static const plan plans[DU_DTYPE_COUNT] = {
    [DU_Q4_0] = {32, -8, 7, false},     [DU_Q4_1] = {32, 0, 15, true},
    [DU_Q5_0] = {32, -16, 15, false},   [DU_Q5_1] = {32, 0, 31, true},
    [DU_Q8_0] = {32, -127, 127, false}, [DU_Q2_K] = {16, 0, 3, true},
    [DU_Q3_K] = {16, -4, 3, false},     [DU_Q4_K] = {32, 0, 15, true},
    [DU_Q5_K] = {32, 0, 31, true},      [DU_Q6_K] = {16, -32, 31, false},
    [DU_IQ4_NL] = {32, -8, 7, false},   [DU_IQ4_XS] = {32, -8, 7, false},
};

typedef struct {
    float *y, *back, *importance;
    uint8_t *bytes;
} buffers;

static buffers buffers_new(void) {
    return (buffers){du_alloc_array(N, sizeof(float)), du_alloc_array(N, sizeof(float)),
                     du_alloc_array(N, sizeof(float)), du_alloc(N_BYTES_MAX)};
}

static void buffers_free(buffers *b) {
    du_free(b->y);
    du_free(b->back);
    du_free(b->importance);
    du_free(b->bytes);
}

/* Packs at an odd address and unpacks. */
static void round_trip(du_dtype dtype, buffers *b, const float *importance) {
    const du_dtype_info *info = du_dtype_get(dtype);
    size_t n_bytes = du_dtype_row_bytes(dtype, N);
    b->bytes[0] = b->bytes[n_bytes + 1] = 0xa5;
    memset(b->bytes + 1, 0xff, n_bytes);
    info->pack(b->bytes + 1, b->y, N, importance);
    assert_int_equal(b->bytes[0], 0xa5);
    assert_int_equal(b->bytes[n_bytes + 1], 0xa5);
    info->unpack(b->back, b->bytes + 1, N);
}

static double error_of(const buffers *b, const float *importance) {
    double sum = 0;
    for (int i = 0; i < N; i++) {
        double e = (double)b->y[i] - (double)b->back[i];
        sum += (importance ? (double)importance[i] : 1) * e * e;
    }
    return sum;
}

/* 0: Gaussian; 1: heavy tails (Student's t with 3 degrees of freedom); 2: mostly one sign */
static void fill(float *y, du_rng *rng, int kind) {
    for (int i = 0; i < N; i++) {
        double v = du_rng_normal(rng);
        if (kind == 1) {
            double a = du_rng_normal(rng), c = du_rng_normal(rng), e = du_rng_normal(rng);
            v /= sqrt((a * a + c * c + e * e) / 3);
        } else if (kind == 2) {
            v += 2;
        }
        y[i] = (float)(0.02 * v);
    }
}

static void fill_importance(float *importance, du_rng *rng) {
    for (int i = 0; i < N; i++) {
        importance[i] = (float)exp(1.5 * du_rng_normal(rng));
    }
}

/* The error of rounding each group to levels spread over its range, scales not rounded: without a
 * minimum the largest weight lies on lo, the longer end. */
static double plain_error(const plan *p, const float *y, const float *importance) {
    double sum = 0;
    for (int i0 = 0; i0 < N; i0 += p->group) {
        double least = 0, most = 0;
        for (int i = i0; i < i0 + p->group; i++) {
            least = fmin(least, (double)y[i]);
            most = fmax(most, (double)y[i]);
        }
        double d = p->has_min ? (most - least) / p->hi : (-least > most ? least : most) / p->lo;
        double m = p->has_min ? least : 0;
        for (int i = i0; i < i0 + p->group; i++) {
            double q = fmin(fmax(nearbyint(((double)y[i] - m) / d), p->lo), p->hi);
            double e = (double)y[i] - (d * q + m);
            sum += (importance ? (double)importance[i] : 1) * e * e;
        }
    }
    return sum;
}

static void no_worse_than_plain_rounding(void **state) {
    (void)state;
    buffers b = buffers_new();
    for (int t = 0; t < DU_DTYPE_COUNT; t++) {
        const du_dtype_info *info = du_dtype_get((du_dtype)t);
        if (!info->pack || !du_dtype_is_block((du_dtype)t)) {
            continue;
        }
        assert_true(plans[t].group > 0); /* a new type: say how it divides its blocks */
        for (int kind = 0; kind < 3; kind++) {
            du_rng rng;
            du_rng_init(&rng, (uint64_t)(100 + kind));
            fill(b.y, &rng, kind);
            fill_importance(b.importance, &rng);
            const float *given[2] = {NULL, b.importance};
            for (int k = 0; k < 2; k++) {
                round_trip((du_dtype)t, &b, given[k]);
                double got = error_of(&b, given[k]);
                double plain = plain_error(&plans[t], b.y, given[k]);
                if (!(got < plain)) {
                    fail_msg("%s, rows %d, importance %d: error %g, plain rounding %g", info->name,
                             kind, k, got, plain);
                }
            }
        }
    }
    buffers_free(&b);
}

typedef struct {
    double at;     /* inverse scale at which a weight moves on to its next level */
    double wx, ww; /* what that adds to sum w x level and to sum w level^2 */
} crossing;

static int by_place(const void *a, const void *b) {
    double d = ((const crossing *)a)->at - ((const crossing *)b)->at;
    return (d > 0) - (d < 0);
}

/* The least error of one group over all real scales of one sign, by walking every inverse scale at
 * which a level changes: between two of them the best error is sum w x^2 - (sum w x l)^2 / sum w
 * l^2. */
static double least_error_of_sign(const float *y, const float *w, const int *levels, int n_levels,
                                  double sign) {
    static crossing list[32 * 256];
    int n = 0, zero = 0;
    while (levels[zero + 1] <= 0 || abs(levels[zero + 1]) < abs(levels[zero])) {
        zero++;
    }
    double xx = 0, wx = 0, ww = 0;
    for (int i = 0; i < 32; i++) {
        double x = sign * (double)y[i], weight = (double)w[i];
        xx += weight * x * x;
        wx += weight * x * levels[zero];
        ww += weight * levels[zero] * levels[zero];
        int step = x > 0 ? 1 : -1;
        for (int l = zero; x != 0 && l + step >= 0 && l + step < n_levels; l += step) {
            double from = levels[l], to = levels[l + step];
            double at = (from + to) / 2 / x;
            list[n++] = (crossing){at, weight * x * (to - from), weight * (to * to - from * from)};
        }
    }
    qsort(list, (size_t)n, sizeof *list, by_place);
    double least = wx > 0 ? xx - wx * wx / ww : xx;
    for (int k = 0; k < n; k++) {
        wx += list[k].wx;
        ww += list[k].ww;
        if (list[k].at > 0 && wx > 0) {
            least = fmin(least, xx - wx * wx / ww);
        }
    }
    return least;
}

static void one_scale_is_nearly_the_best(void **state) {
    (void)state;
    static const du_dtype types[] = {DU_Q4_0, DU_Q5_0, DU_IQ4_NL};
    buffers b = buffers_new();
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        int levels[32], n_levels = types[t] == DU_Q5_0 ? 32 : 16;
        for (int l = 0; l < n_levels; l++) {
            levels[l] = types[t] == DU_IQ4_NL ? du_iq4_values[l] : plans[types[t]].lo + l;
        }
        for (int kind = 0; kind < 2; kind++) {
            du_rng rng;
            du_rng_init(&rng, (uint64_t)(200 + kind));
            fill(b.y, &rng, kind);
            for (int k = 0; k < 2; k++) {
                for (int i = 0; i < N; i++) {
                    b.importance[i] = 1;
                }
                if (k) {
                    fill_importance(b.importance, &rng);
                }
                double least = 0;
                for (int i = 0; i < N; i += 32) {
                    const float *w = b.importance + i;
                    least += fmin(least_error_of_sign(b.y + i, w, levels, n_levels, 1),
                                  least_error_of_sign(b.y + i, w, levels, n_levels, -1));
                }
                round_trip(types[t], &b, b.importance);
                double ratio = sqrt(error_of(&b, b.importance) / least);
                if (!(ratio < 1.01) || ratio < 0.9999) {
                    fail_msg("%s, rows %d, importance %d: %g of the least error",
                             du_dtype_get(types[t])->name, kind, k, ratio);
                }
            }
        }
    }
    buffers_free(&b);
}

/* Blocks of one value: exact up to the rounding of the scale, two of them in a super-block. */
static void constants_come_back(void **state) {
    (void)state;
    static const float values[] = {0, -0.0f, 0.3f, -0.3f, 1, -1, 1000, -1000};
    buffers b = buffers_new();
    for (int t = 0; t < DU_DTYPE_COUNT; t++) {
        if (!du_dtype_get((du_dtype)t)->pack) {
            continue;
        }
        double bound = t == DU_F8_E4M3 ? 0x1p-4 : t == DU_BF16 ? 0x1p-8 : 0x1p-10;
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
            float v = t == DU_F8_E4M3 ? fmaxf(fminf(values[k], 448), -448) : values[k];
            for (int i = 0; i < N; i++) {
                b.y[i] = v;
            }
            round_trip((du_dtype)t, &b, NULL);
            for (int i = 0; i < N; i++) {
                if (!(fabs((double)b.back[i] - (double)v) <= bound * fabs((double)v))) {
                    fail_msg("%s: %g comes back as %g", du_dtype_get((du_dtype)t)->name, (double)v,
                             (double)b.back[i]);
                }
            }
        }
    }
    buffers_free(&b);
}

/* NaN and infinity leave the blocks around them untouched and every result finite. */
static void bad_weights_stay_in_their_block(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f};
    buffers b = buffers_new();
    uint8_t *good = du_alloc(N_BYTES_MAX);
    du_rng rng;
    du_rng_init(&rng, 300);
    fill(b.y, &rng, 0);
    for (int t = 0; t < DU_DTYPE_COUNT; t++) {
        const du_dtype_info *info = du_dtype_get((du_dtype)t);
        if (!info->pack || !du_dtype_is_block((du_dtype)t)) {
            continue;
        }
        info->pack(good, b.y, N, NULL);
        for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
            float was = b.y[300];
            b.y[300] = bad[k];
            round_trip((du_dtype)t, &b, NULL);
            b.y[300] = was;
            for (int i = 0; i < N; i++) {
                assert_true(isfinite(b.back[i]));
            }
            if (k > 0) { /* as large as the type allows, of the right sign */
                assert_true(b.back[300] * (bad[k] > 0 ? 1 : -1) >= 65504);
            }
            size_t at = (size_t)(300 / info->block) * info->block_bytes;
            assert_memory_equal(b.bytes + 1, good, at);
            assert_memory_equal(b.bytes + 1 + at + info->block_bytes, good + at + info->block_bytes,
                                du_dtype_row_bytes((du_dtype)t, N) - at - info->block_bytes);
        }
    }
    du_free(good);
    buffers_free(&b);
}

/* Powers of two change nothing while the scales are normal binary16 numbers and little while they
 * are subnormal; below and above, results are finite and no worse than zeros. */
static void any_magnitude_is_taken(void **state) {
    (void)state;
    buffers b = buffers_new();
    float *unscaled = du_alloc_array(N, sizeof *unscaled);
    for (int i = 0; i < N; i++) {
        b.importance[i] = 1;
    }
    for (int t = 0; t < DU_DTYPE_COUNT; t++) {
        const du_dtype_info *info = du_dtype_get((du_dtype)t);
        if (!info->pack || !du_dtype_is_block((du_dtype)t)) {
            continue;
        }
        du_rng rng;
        du_rng_init(&rng, 400);
        fill(unscaled, &rng, 0);
        double at_normal = 0;
        for (int exponent = 126; exponent >= -149; exponent -= abs(exponent) > 30 ? 8 : 1) {
            double energy = 0;
            for (int i = 0; i < N; i++) {
                b.y[i] = ldexpf(unscaled[i] * 50, exponent);
                energy += (double)b.y[i] * (double)b.y[i];
            }
            round_trip((du_dtype)t, &b, b.importance);
            double error = error_of(&b, NULL);
            for (int i = 0; i < N; i++) {
                assert_true(isfinite(b.back[i]));
            }
            if (exponent == 13) {
                at_normal = error / energy;
            } else if (exponent < 13 && exponent >= 0) {
                assert_true(error / energy == at_normal);
            } else if (exponent < 0 && exponent >= -9) {
                assert_true(error / energy < 1.05 * at_normal);
            }
            assert_true(error <= energy);
        }
    }
    du_free(unscaled);
    buffers_free(&b);
}

static void importance_says_where_the_error_goes(void **state) {
    (void)state;
    buffers b = buffers_new();
    uint8_t *without = du_alloc(N_BYTES_MAX), *first = du_alloc(N_BYTES_MAX);
    float *back_without = du_alloc_array(N, sizeof *back_without);
    du_rng rng;
    du_rng_init(&rng, 500);
    fill(b.y, &rng, 0);
    for (int t = 0; t < DU_DTYPE_COUNT; t++) {
        const du_dtype_info *info = du_dtype_get((du_dtype)t);
        if (!info->pack || !du_dtype_is_block((du_dtype)t)) {
            continue;
        }
        size_t n_bytes = du_dtype_row_bytes((du_dtype)t, N);
        fill_importance(b.importance, &rng);
        round_trip((du_dtype)t, &b, NULL);
        double plain = error_of(&b, b.importance);
        memcpy(without, b.bytes + 1, n_bytes);
        round_trip((du_dtype)t, &b, b.importance);
        assert_true(error_of(&b, b.importance) < 0.95 * plain);
        memcpy(first, b.bytes + 1, n_bytes);

        /* Only ratios within a block matter. */
        for (int i = 0; i < N; i++) {
            b.importance[i] *= i < N / 2 ? 0x1p60f : 0x1p-60f;
        }
        round_trip((du_dtype)t, &b, b.importance);
        assert_memory_equal(b.bytes + 1, first, n_bytes);

        /* Nothing positive: as without. */
        for (int i = 0; i < N; i++) {
            b.importance[i] = i % 3 == 0 ? 0 : i % 3 == 1 ? -1 : NAN;
        }
        round_trip((du_dtype)t, &b, b.importance);
        assert_memory_equal(b.bytes + 1, without, n_bytes);

        /* Weights that alone count in their group come near; the others stay sensible. */
        for (int i = 0; i < N; i++) {
            b.importance[i] = i % 32 == 7 ? INFINITY : 0;
        }
        round_trip((du_dtype)t, &b, b.importance);
        info->unpack(back_without, without, N);
        double alone = 0, among = 0;
        for (int i = 0; i < N; i++) {
            assert_true(fabsf(b.back[i]) < 1);
            if (i % 32 == 7) {
                alone += pow((double)b.back[i] - (double)b.y[i], 2);
                among += pow((double)back_without[i] - (double)b.y[i], 2);
            }
        }
        assert_true(sqrt(alone) < 0.25 * sqrt(among));
    }
    du_free(back_without);
    du_free(without);
    du_free(first);
    buffers_free(&b);
}

/* A block does not depend on its row. */
static void blocks_are_independent(void **state) {
    (void)state;
    buffers b = buffers_new();
    du_rng rng;
    du_rng_init(&rng, 600);
    fill(b.y, &rng, 1);
    fill_importance(b.importance, &rng);
    uint8_t block[1024];
    for (int t = 0; t < DU_DTYPE_COUNT; t++) {
        const du_dtype_info *info = du_dtype_get((du_dtype)t);
        if (!info->pack) {
            continue;
        }
        round_trip((du_dtype)t, &b, b.importance);
        for (int64_t i = 0, k = 0; i < N; i += info->block, k++) {
            info->pack(block, b.y + i, info->block, b.importance + i);
            assert_memory_equal(block, b.bytes + 1 + (size_t)k * info->block_bytes,
                                info->block_bytes);
        }
    }
    buffers_free(&b);
}

static float through(du_dtype dtype, float v) {
    uint8_t bytes[4];
    float back;
    du_dtype_get(dtype)->pack(bytes, &v, 1, NULL);
    du_dtype_get(dtype)->unpack(&back, bytes, 1);
    return back;
}

static void floats_are_rounded(void **state) {
    (void)state;
    for (int code = 0; code < 0x7e; code++) { /* neighbours of F8 and the middle between them */
        float a = du_f32_of_f8_e4m3((uint8_t)code), b = du_f32_of_f8_e4m3((uint8_t)(code + 1));
        float middle = (a + b) / 2;
        assert_int_equal(du_f8_e4m3_of_f32(a), code);
        assert_int_equal(du_f8_e4m3_of_f32(-a), code | 0x80);
        assert_int_equal(du_f8_e4m3_of_f32(nextafterf(middle, 0)), code);
        assert_int_equal(du_f8_e4m3_of_f32(nextafterf(middle, INFINITY)), code + 1);
        assert_int_equal(du_f8_e4m3_of_f32(middle), code + (code & 1));
    }
    assert_int_equal(du_f8_e4m3_of_f32(448), 0x7e);
    assert_int_equal(du_f8_e4m3_of_f32(-1e9f), 0xfe);
    assert_int_equal(du_f8_e4m3_of_f32(INFINITY), 0x7e);
    assert_int_equal(du_f8_e4m3_of_f32(NAN) & 0x7f, 0x7f);

    assert_true(through(DU_F32, 3e38f) == 3e38f && isnan(through(DU_F32, NAN)));
    assert_true(through(DU_F16, 65519) == 65504 && through(DU_F16, -1e30f) == -65504);
    assert_true(isinf(through(DU_F16, INFINITY)) && isnan(through(DU_F16, NAN)));
    assert_true(isinf(through(DU_BF16, -INFINITY)) && isnan(through(DU_BF16, NAN)));
    assert_true(through(DU_BF16, 1.00390625f) == 1 && through(DU_F16, 0x1p-25f) == 0);
}

static void f8_tiles_have_their_own_scale(void **state) {
    (void)state;
    enum { ROWS = 300, COLS = 200 };
    static float y[ROWS][COLS], back[COLS];
    static uint8_t x[ROWS][COLS];
    float scale[3][2];
    du_rng rng;
    du_rng_init(&rng, 700);
    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < COLS; c++) {
            float tile = ldexpf(1, 10 * (r / 128) - 10 * (c / 128));
            y[r][c] = r / 128 == 1 && c >= 128 ? 0 : tile * (float)du_rng_normal(&rng);
        }
    }
    du_mat_pack_f8(&x[0][0], &scale[0][0], &y[0][0], ROWS, COLS);
    du_mat m = {.data = x,
                .dtype = DU_F8_E4M3,
                .rows = ROWS,
                .cols = COLS,
                .row_bytes = COLS,
                .aux = &scale[0][0],
                .aux_cols = 2};
    float largest[3][2] = {{0}};
    for (int r = 0; r < ROWS; r++) {
        du_mat_unpack_row(back, &m, r);
        for (int c = 0; c < COLS; c++) {
            float s = scale[r / 128][c / 128];
            float bound = fmaxf(fabsf(y[r][c]) * 0x1p-4f, s * 0x1p-10f);
            assert_true(fabsf(back[c] - y[r][c]) <= bound);
            largest[r / 128][c / 128] = fmaxf(largest[r / 128][c / 128], fabsf(y[r][c]));
        }
    }
    for (int k = 0; k < 6; k++) {
        float want = largest[k / 2][k % 2] > 0 ? largest[k / 2][k % 2] / 448 : 1;
        assert_true(scale[k / 2][k % 2] == want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_worse_than_plain_rounding),
        cmocka_unit_test(one_scale_is_nearly_the_best),
        cmocka_unit_test(constants_come_back),
        cmocka_unit_test(bad_weights_stay_in_their_block),
        cmocka_unit_test(any_magnitude_is_taken),
        cmocka_unit_test(importance_says_where_the_error_goes),
        cmocka_unit_test(blocks_are_independent),
        cmocka_unit_test(floats_are_rounded),
        cmocka_unit_test(f8_tiles_have_their_own_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
