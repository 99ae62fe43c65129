/* Scores, weighted sums and stores of cached rows at every level against double precision. */
#include "kern_test.h"
#include "tensor/quant.h"

enum { SLOT_KV, SLOT_Q, SLOT_P, SLOT_OUT, SLOT_OUT1, SLOT_X };

static const du_dtype kv_dtypes[] = {DU_F32, DU_F16, DU_BF16, DU_Q8_0};
enum { N_KV_DTYPE = sizeof kv_dtypes / sizeof *kv_dtypes };

typedef struct {
    du_dtype dtype;
    int64_t n_q, n_kv, dim;
    size_t stride;
    const char *kv;
} cache;

static void fill_kv_row(char *row, du_dtype dtype, int64_t dim) {
    for (int64_t c = 0; c < dim; c++) {
        float v = (float)du_rng_normal(&rng);
        uint16_t h = dtype == DU_F16 ? du_f16_of_f32(v) : du_bf16_of_f32(v);
        if (dtype == DU_F32) {
            memcpy(row + 4 * c, &v, 4);
        } else if (dtype != DU_Q8_0) {
            memcpy(row + 2 * c, &h, 2);
        } else {
            du_block_q8_0 *b = (du_block_q8_0 *)row + c / 32;
            b->d = du_f16_of_f32((float)(0.001 + 0.02 * du_rng_uniform(&rng)));
            b->qs[c % 32] = (int8_t)between(-127, 127);
        }
    }
}

static void make_cache(cache *k, du_dtype dtype, int64_t n_q, int64_t n_kv, int64_t dim) {
    size_t row_bytes = du_dtype_row_bytes(dtype, dim);
    *k = (cache){dtype, n_q, n_kv, dim, row_bytes + 6, NULL};
    char *kv = guard(SLOT_KV, (size_t)(n_kv - 1) * k->stride + row_bytes);
    for (int64_t j = 0; j < n_kv; j++) {
        fill_kv_row(kv + (size_t)j * k->stride, dtype, dim);
    }
    seal(SLOT_KV);
    k->kv = kv;
}

static const float *kv_row(const cache *k, int64_t j) {
    static float row[1 << 12];
    du_dtype_get(k->dtype)->unpack(row, k->kv + (size_t)j * k->stride, k->dim);
    return row;
}

static void fail_at(const cache *k, const char *what, int64_t i, int64_t j, double got,
                    double exact) {
    fail_msg("%s %s %s n_q %ld n_kv %ld dim %ld at %ld, %ld: got %.9g, exact %.9g", what,
             du_isa_name(kern->isa), du_dtype_get(k->dtype)->name, (long)k->n_q, (long)k->n_kv,
             (long)k->dim, (long)i, (long)j, got, exact);
}

static void check_qk(du_dtype dtype, int64_t n_q, int64_t n_kv, int64_t dim) {
    cache k;
    make_cache(&k, dtype, n_q, n_kv, dim);
    int64_t ldq = dim + 5, lds = n_kv + 3;
    int64_t n = (n_q - 1) * lds + n_kv;
    const float *q = guard_normal(SLOT_Q, (n_q - 1) * ldq + dim, 1);
    seal(SLOT_Q);
    float scale = 0.3f;
    float *s = guard_out(SLOT_OUT, n);
    kern->qk[dtype](s, lds, q, ldq, n_q, k.kv, k.stride, n_kv, dim, scale);
    for (int64_t j = 0; j < n_kv; j++) {
        const float *row = kv_row(&k, j);
        for (int64_t i = 0; i < n_q; i++) {
            double exact = 0, terms = 0;
            for (int64_t c = 0; c < dim; c++) {
                exact += (double)q[i * ldq + c] * row[c] * scale;
                terms += fabs((double)q[i * ldq + c] * row[c] * scale);
            }
            if (!within(s[i * lds + j], exact, terms, (double)dim / 4 + 4)) {
                fail_at(&k, "qk", i, j, s[i * lds + j], exact);
            }
        }
    }
    /* The same bits in pieces; what lies between rows is not written. */
    float *s1 = guard_out(SLOT_OUT1, n);
    for (int64_t i = 0; i < n_q;) {
        int64_t n_i = between(1, 3);
        n_i = n_i > n_q - i ? n_q - i : n_i;
        int64_t split = between(0, n_kv);
        kern->qk[dtype](s1 + i * lds, lds, q + i * ldq, ldq, n_i, k.kv, k.stride, split, dim,
                        scale);
        kern->qk[dtype](s1 + i * lds + split, lds, q + i * ldq, ldq, n_i,
                        k.kv + (size_t)split * k.stride, k.stride, n_kv - split, dim, scale);
        i += n_i;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!same_bits(s[i], s1[i]) || (i % lds >= n_kv) != is_unwritten(s[i])) {
            fail_at(&k, "qk in pieces", i / lds, i % lds, s1[i], s[i]);
        }
    }
}

static void check_pv(du_dtype dtype, int64_t n_q, int64_t n_kv, int64_t dim) {
    cache k;
    make_cache(&k, dtype, n_q, n_kv, dim);
    int64_t ldp = n_kv + 5, ldacc = dim + 3;
    int64_t n = (n_q - 1) * ldacc + dim;
    float *p = guard_normal(SLOT_P, (n_q - 1) * ldp + n_kv, 1);
    p[0] = 0;
    seal(SLOT_P);
    static double exact[1 << 16], terms[1 << 16];
    float *acc = guard_normal(SLOT_OUT, n, 1), *acc1 = guard(SLOT_OUT1, sizeof(float) * (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        acc1[i] = acc[i];
        exact[i] = acc[i];
        terms[i] = i % ldacc < dim ? fabs(acc[i]) : 0;
    }
    for (int64_t j = 0; j < n_kv; j++) {
        const float *row = kv_row(&k, j);
        for (int64_t i = 0; i < n_q; i++) {
            for (int64_t c = 0; c < dim; c++) {
                exact[i * ldacc + c] += (double)p[i * ldp + j] * row[c];
                terms[i * ldacc + c] += fabs((double)p[i * ldp + j] * row[c]);
            }
        }
    }
    kern->pv[dtype](acc, ldacc, p, ldp, n_q, k.kv, k.stride, n_kv, dim);
    /* One query at a time, and the rows in two calls: j ascends either way. */
    for (int64_t i = 0; i < n_q; i++) {
        int64_t split = between(0, n_kv);
        kern->pv[dtype](acc1 + i * ldacc, ldacc, p + i * ldp, ldp, 1, k.kv, k.stride, split, dim);
        kern->pv[dtype](acc1 + i * ldacc, ldacc, p + i * ldp + split, ldp, 1,
                        k.kv + (size_t)split * k.stride, k.stride, n_kv - split, dim);
    }
    for (int64_t i = 0; i < n; i++) {
        if (!within(acc[i], exact[i], terms[i], (double)n_kv + 4)) {
            fail_at(&k, "pv", i / ldacc, i % ldacc, acc[i], exact[i]);
        }
        if (!same_bits(acc[i], acc1[i])) {
            fail_at(&k, "pv in pieces", i / ldacc, i % ldacc, acc1[i], acc[i]);
        }
    }
}

static void check_shapes(void) {
    for (int i = 0; i < N_KV_DTYPE; i++) {
        int64_t step = kv_dtypes[i] == DU_Q8_0 ? 32 : 1;
        for (int k = 0; k < 90; k++) {
            guard_at_end = k % 2 == 0;
            int64_t dim = step == 1 ? k + 1 : 32 * (k % 18 + 1);
            check_qk(kv_dtypes[i], 1 + k % 19, 1 + k % 13, dim);
            check_pv(kv_dtypes[i], 1 + k % 19, 1 + k % 13, dim);
        }
        check_qk(kv_dtypes[i], 16, 37, 576);
        check_pv(kv_dtypes[i], 16, 37, 512);
        check_qk(kv_dtypes[i], 3, 200, 128);
        check_pv(kv_dtypes[i], 3, 200, 128);
    }
}

static float nasty(int k) {
    static const float values[] = {
        0,     -0.0f,    65504,  65519,   65520,    -65536,        1e30f,    6e-8f,     2.9e-8f,
        3e-8f, -6.1e-5f, 1e-40f, -1e-45f, 0x1.8p0f, 0x1.ffffp-15f, INFINITY, -INFINITY, 0x1.002p0f};
    const int n = sizeof values / sizeof *values;
    return k < n ? values[k]
                 : du_f32_of_bits((uint32_t)(between(60, 160) << 23 | between(0, 0x7fffff)) |
                                  (between(0, 1) ? 0x80000000u : 0));
}

static void check_store_floats(int64_t dim) {
    float *x = guard(SLOT_X, sizeof(float) * (size_t)dim);
    for (int64_t i = 0; i < dim; i++) {
        x[i] = nasty((int)i);
    }
    seal(SLOT_X);
    for (int i = 0; i < 3; i++) {
        du_dtype dtype = kv_dtypes[i];
        size_t size = dtype == DU_F32 ? 4 : 2;
        char *kv = guard(SLOT_KV, size * (size_t)dim);
        memset(kv, 0x5a, size * (size_t)dim);
        kern->kv_store[dtype](kv, x, dim);
        for (int64_t c = 0; c < dim; c++) {
            uint32_t got = size == 4 ? du_load_u32(kv + 4 * c) : du_load_u16(kv + 2 * c);
            uint32_t want = dtype == DU_F32   ? du_bits_of_f32(x[c])
                            : dtype == DU_F16 ? du_f16_of_f32(x[c])
                                              : du_bf16_of_f32(x[c]);
            assert_int_equal(got, want);
        }
    }
}

/* What is loaded is what the type's rows mean. */
static void check_loads(int64_t dim) {
    for (int i = 0; i < N_KV_DTYPE; i++) {
        const du_dtype_info *type = du_dtype_get(kv_dtypes[i]);
        if (dim % type->block != 0) {
            continue;
        }
        size_t n_bytes = du_dtype_row_bytes(kv_dtypes[i], dim);
        uint8_t *kv = guard(SLOT_KV, n_bytes);
        for (size_t k = 0; k < n_bytes; k++) {
            kv[k] = (uint8_t)between(0, 0x7b); /* no infinity, no NaN */
        }
        seal(SLOT_KV);
        float *x = guard(SLOT_X, sizeof(float) * (size_t)dim), want[128];
        memset(x, 0xff, sizeof(float) * (size_t)dim);
        kern->kv_load[kv_dtypes[i]](x, kv, dim);
        type->unpack(want, kv, dim);
        assert_memory_equal(x, want, sizeof(float) * (size_t)dim);
    }
}

static void check_store_q8_0(int64_t dim) {
    float *x = guard(SLOT_X, sizeof(float) * (size_t)dim);
    for (int64_t i = 0; i < dim; i++) {
        float size = (float)exp2((double)(i / 32 * 5 % 60) - 40);
        x[i] = i / 32 % 4 == 3 ? 0 : size * (float)du_rng_normal(&rng);
    }
    seal(SLOT_X);
    du_block_q8_0 *b = guard(SLOT_KV, sizeof *b * (size_t)(dim / 32));
    memset(b, 0x5a, sizeof *b * (size_t)(dim / 32));
    kern->kv_store[DU_Q8_0](b, x, dim);
    for (int64_t i = 0; i < dim; i += 32, b++) {
        float max = 0;
        for (int64_t j = 0; j < 32; j++) {
            max = fmaxf(max, fabsf(x[i + j]));
        }
        assert_int_equal(b->d, du_f16_of_f32(fminf(max / 127, 65504)));
        float d = du_f32_of_f16(b->d);
        for (int64_t j = 0; j < 32; j++) {
            double ideal = d > 0 ? fmin(fmax(x[i + j] / d, -127), 127) : 0;
            assert_true(fabs(b->qs[j] - ideal) <= 0.5 + 1e-4);
        }
    }
}

static void check_rows(void) {
    for (int64_t dim = 1; dim <= 100; dim++) {
        guard_at_end = dim % 2 == 0;
        check_store_floats(dim);
        check_loads(dim);
        if (dim % 32 == 0) {
            check_store_q8_0(dim);
        }
    }
    check_store_floats(4096);
    check_store_q8_0(2048);
}

static void test_attn_shapes(void **state) {
    (void)state;
    each_level(check_shapes);
}

static void test_kv_rows(void **state) {
    (void)state;
    each_level(check_rows);
}

int main(int argc, char **argv) {
    choose_level(argc, argv);
    du_rng_init(&rng, 2025);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attn_shapes),
        cmocka_unit_test(test_kv_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
