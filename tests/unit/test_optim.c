/* Optimizers against their formulas in double, over a model's tensors. */
#include "test.h"

#include <math.h>

#include "base/rng.h"
#include "model/params.h"
#include "train/optim.h"

static du_diag diag;
static du_params *params;
static du_train_config config;
static float *grads;
static double *w, *m, *v, *mean;

static void set(const char *pair) {
    assert_ok(du_train_config_set_pair(&config, pair, &diag), &diag);
}

static int setup(void **state) {
    (void)state;
    json_t *shape = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "model_type",
        "deepseek_v3", "vocab_size", 131, "hidden_size", 32, "intermediate_size", 48,
        "num_hidden_layers", 2, "num_attention_heads", 2, "kv_lora_rank", 16, "qk_nope_head_dim", 8,
        "qk_rope_head_dim", 8, "v_head_dim", 8, "n_routed_experts", 4, "num_experts_per_tok", 2,
        "moe_intermediate_size", 16, "n_shared_experts", 1, "first_k_dense_replace", 1);
    assert_non_null(shape);
    du_diag_reset(&diag);
    assert_ok(du_params_new(&params, shape, &diag), &diag);
    json_decref(shape);
    du_params_init(params, 0.1, 3);
    size_t n = (size_t)params->n_values;
    grads = du_alloc_zero(n, sizeof *grads);
    w = du_alloc_zero(n, sizeof *w), m = du_alloc_zero(n, sizeof *m);
    v = du_alloc_zero(n, sizeof *v), mean = du_alloc_zero(n, sizeof *mean);
    for (size_t i = 0; i < n; i++) {
        w[i] = mean[i] = (double)params->values[i];
    }
    assert_ok(du_train_config_init(&config, &diag), &diag);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    du_train_config_done(&config);
    du_params_free(params);
    du_free(grads), du_free(w), du_free(m), du_free(v), du_free(mean);
    return 0;
}

static void fill_grads(du_rng *rng) {
    for (int64_t k = 0; k < params->n; k++) {
        const du_param *t = &params->at[k];
        for (int64_t i = 0; i < t->rows * t->cols; i++) {
            grads[t->offset + i] = (float)du_rng_normal(rng);
        }
    }
}

enum { MATRIX_MAX = 4096 };

/* y [n,c] = x [n,k] z [k,c] */
static void multiply(double *y, const double *x, const double *z, int64_t n, int64_t k, int64_t c) {
    for (int64_t i = 0; i < n * c; i++) {
        y[i] = 0;
        for (int64_t j = 0; j < k; j++) {
            y[i] += x[i / c * k + j] * z[j * c + i % c];
        }
    }
}

static void transpose(double *y, const double *x, int64_t rows, int64_t cols) {
    for (int64_t i = 0; i < rows * cols; i++) {
        y[i % cols * rows + i / cols] = x[i];
    }
}

/* u [rows,cols] made orthogonal, always from the left: for more rows than columns that is another
 * way to the same numbers than the transpose. */
static void orthogonalise(double *u, int64_t rows, int64_t cols) {
    int64_t n = rows * cols;
    double squares = 0, x[MATRIX_MAX], t[MATRIX_MAX], a[MATRIX_MAX], a2[MATRIX_MAX];
    assert_true(n <= MATRIX_MAX && rows * rows <= MATRIX_MAX);
    for (int64_t i = 0; i < n; i++) {
        squares += u[i] * u[i];
    }
    for (int64_t i = 0; i < n; i++) {
        u[i] /= fmax(sqrt(squares), 1e-7);
    }
    for (int64_t step = 0; step < 5; step++) {
        transpose(t, u, rows, cols);
        multiply(a, u, t, rows, cols, rows);
        multiply(a2, a, a, rows, rows, rows);
        for (int64_t i = 0; i < rows * rows; i++) {
            a2[i] = -4.7750 * a[i] + 2.0315 * a2[i];
        }
        multiply(x, a2, u, rows, rows, cols);
        for (int64_t i = 0; i < n; i++) {
            u[i] = 3.4445 * u[i] + x[i];
        }
    }
}

static bool is_muon(const du_param *t) {
    return config.optim.name == DU_OPTIM_MUON && t->rows > 1 && !strstr(t->name, "embed_tokens") &&
           !strstr(t->name, "lm_head");
}

static void exact_muon(const du_param *t, double lr, double clip) {
    double mu = config.optim.momentum, rows = (double)t->rows, cols = (double)t->cols;
    double u[MATRIX_MAX];
    assert_true(t->rows * t->cols <= MATRIX_MAX);
    for (int64_t k = 0; k < t->rows * t->cols; k++) {
        int64_t i = t->offset + k;
        double g = clip * (double)grads[i];
        m[i] = mu * m[i] + (1 - mu) * g;
        u[k] = (1 - mu) * g + mu * m[i];
    }
    orthogonalise(u, t->rows, t->cols);
    double scale = config.optim.muon_scale == DU_MUON_MOONLIGHT ? 0.2 * sqrt(fmax(rows, cols))
                                                                : sqrt(fmax(1, rows / cols));
    for (int64_t k = 0; k < t->rows * t->cols; k++) {
        int64_t i = t->offset + k;
        w[i] = (1 - lr * config.optim.weight_decay) * w[i] - lr * scale * u[k];
        mean[i] = config.ema.decay * mean[i] + (1 - config.ema.decay) * w[i];
    }
}

/* One step in double, over the tensors in order. */
static void exact_step(int64_t t_step, double lr, double clip) {
    double b1 = config.optim.beta1, b2 = config.optim.beta2, mu = config.optim.momentum;
    for (int64_t k = 0; k < params->n; k++) {
        const du_param *t = &params->at[k];
        bool bias = strstr(t->name, "e_score_correction_bias") != NULL;
        bool masked = config.optim.decay == DU_DECAY_MATRICES && t->rows == 1;
        double keep = 1 - (masked ? 0 : lr * config.optim.weight_decay);
        if (is_muon(t)) {
            exact_muon(t, lr, clip);
            continue;
        }
        for (int64_t i = t->offset; i < t->offset + t->rows * t->cols; i++) {
            double g = clip * (double)grads[i];
            if (bias) { /* moved by others */
                w[i] = (double)params->values[i];
            } else if (config.optim.name == DU_OPTIM_SGD) {
                m[i] = mu * m[i] + g;
                w[i] = keep * w[i] - lr * m[i];
            } else {
                m[i] = b1 * m[i] + (1 - b1) * g;
                v[i] = b2 * v[i] + (1 - b2) * g * g;
                double mh = m[i] / (1 - pow(b1, (double)t_step));
                double vh = v[i] / (1 - pow(b2, (double)t_step));
                w[i] = keep * w[i] - lr * mh / (sqrt(vh) + config.optim.eps);
            }
            mean[i] = config.ema.decay * mean[i] + (1 - config.ema.decay) * w[i];
        }
    }
}

/* What the routers' rule does to the biases that choose experts. */
static void move_biases(int64_t t_step) {
    for (int64_t k = 0; k < params->n; k++) {
        const du_param *t = &params->at[k];
        for (int64_t i = 0; strstr(t->name, "e_score_correction_bias") && i < t->cols; i++) {
            params->values[t->offset + i] += (float)(t_step * (i + 1)) * 0.01f;
        }
    }
}

/* Muon's steps in products of bf16, by their length: each factor of a product is rounded by up to
 * 2^-9, and five polynomials of degree 5 steepen that, to some hundredths of a step. */
static void check_length(const du_param *t, const float *got, const float *begun) {
    double off = 0, length = 0;
    for (int64_t i = t->offset; i < t->offset + t->rows * t->cols; i++) {
        off += ((double)got[i] - w[i]) * ((double)got[i] - w[i]);
        length += (w[i] - (double)begun[i]) * (w[i] - (double)begun[i]);
    }
    assert_true(sqrt(off) < 0.1 * sqrt(length));
    assert_true(off > 0);
}

/* The weights, and their mean, are those of the formulas. */
static void check(const float *mean_got, const float *begun) {
    for (int64_t k = 0; k < params->n; k++) {
        const du_param *t = &params->at[k];
        if (is_muon(t) && config.dtype == DU_TRAIN_BF16) {
            check_length(t, params->values, begun);
            continue;
        }
        for (int64_t i = t->offset; i < t->offset + t->rows * t->cols; i++) {
            assert_true(fabs((double)params->values[i] - w[i]) < 2e-6);
            assert_true(!mean_got || fabs((double)mean_got[i] - mean[i]) < 2e-6);
        }
    }
}

/* 20 steps with n threads; the weights at the end into out [n_values]. */
static void run(int64_t n_threads, bool checked, float *out) {
    du_ctx ctx = {.kern = du_kern_get(du_isa_best()), .scratch = du_arena_new(1 << 16)};
    assert_ok(du_pool_new(&ctx.pool, n_threads, false, &diag), &diag);
    du_params_init(params, 0.1, 3);
    memcpy(out, params->values, (size_t)params->n_values * sizeof *out);
    du_optim optim;
    assert_ok(du_optim_init(&optim, &config, params, NULL, &diag), &diag);
    du_rng rng;
    du_rng_init(&rng, 9);
    for (int64_t t = 1; t <= 20; t++) {
        fill_grads(&rng);
        double norm, sum = 0;
        assert_ok(du_optim_norm(&ctx, &optim, grads, &norm, &diag), &diag);
        for (int64_t i = 0; i < params->n_values; i++) {
            sum += (double)grads[i] * (double)grads[i];
        }
        assert_true(fabs(norm / sqrt(sum) - 1) < 1e-6);
        move_biases(t);
        assert_ok(du_optim_step(&ctx, &optim, grads, t, 1e-2, 0.5), &diag);
        if (checked) {
            exact_step(t, 1e-2, 0.5);
        }
    }
    if (checked) {
        check(optim.mean, out);
    }
    memcpy(out, params->values, (size_t)params->n_values * sizeof *out);
    du_optim_done(&optim);
    du_pool_free(ctx.pool);
    du_arena_free(ctx.scratch);
}

/* 20 steps are those of the formulas, and no number of threads changes a bit. */
static void check_threads(void) {
    size_t n_bytes = (size_t)params->n_values * sizeof(float);
    float *one = du_alloc(n_bytes), *more = du_alloc(n_bytes);
    run(1, true, one);
    for (int64_t n = 2; n <= 3; n++) {
        run(n, false, more);
        assert_memory_equal(one, more, n_bytes);
    }
    du_free(one);
    du_free(more);
}

static void test_adamw(void **state) {
    (void)state;
    set("ema.decay=0.9");
    check_threads();
}

static void test_adamw_masked(void **state) {
    (void)state;
    set("optim.decay=matrices");
    set("optim.weight_decay=2");
    set("optim.beta2=0.999");
    check_threads();
}

static void test_sgd(void **state) {
    (void)state;
    set("optim.name=sgd");
    set("ema.decay=0.5");
    check_threads();
}

static void test_sgd_plain(void **state) {
    (void)state;
    set("optim.name=sgd");
    set("optim.momentum=0");
    check_threads();
}

static void test_muon(void **state) {
    (void)state;
    set("optim.name=muon");
    set("ema.decay=0.5");
    check_threads();
}

static void test_muon_original(void **state) {
    (void)state;
    set("optim.name=muon");
    set("optim.muon_scale=original");
    check_threads();
}

static void test_muon_bf16(void **state) {
    (void)state;
    set("optim.name=muon");
    set("dtype=bf16");
    check_threads();
}

/* A NaN anywhere is seen in the norm. */
static void test_norm_nan(void **state) {
    (void)state;
    du_ctx ctx = {.kern = du_kern_get(du_isa_best()), .scratch = du_arena_new(1 << 16)};
    double norm = 0;
    grads[params->n_values / 2] = NAN;
    du_optim optim;
    assert_ok(du_optim_init(&optim, &config, params, NULL, &diag), &diag);
    assert_ok(du_optim_norm(&ctx, &optim, grads, &norm, &diag), &diag);
    assert_true(isnan(norm));
    du_optim_done(&optim);
    du_arena_free(ctx.scratch);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_adamw), TEST(test_adamw_masked),  TEST(test_sgd),       TEST(test_sgd_plain),
        TEST(test_muon),  TEST(test_muon_original), TEST(test_muon_bf16), TEST(test_norm_nan)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
