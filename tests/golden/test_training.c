/* Gradients and 20 steps of AdamW against the reference implementation in double precision, for
 * every fixture of tests/golden/training (tests/golden/README.md says what its files hold). A
 * fixture of an architecture without a backward pass is skipped. */
#include "test.h"

#include <math.h>

#include "base/file.h"
#include "base/mem.h"
#include "formats/safetensors.h"
#include "model/grad.h"
#include "train/optim.h"

#define DIR DURE_SOURCE_DIR "/tests/golden/training"

enum { N_STEPS = 20, N_SEQ = 2, SEQ_LEN = 12, N_ROWS = N_SEQ * SEQ_LEN };

static const double tolerance = 1e-4;      /* relative to the largest value of a tensor */
static const double loss_tolerance = 1e-5; /* relative; a mean of 24 logarithms of F32 sums */

/* A step rounds each weight to F32 twice: when it decays and when it is updated. */
static const double rounding = 2 * N_STEPS * 0x1p-24;

typedef struct {
    const char *name;
    du_ctx ctx;
    du_params *params;
    du_st *grads, *changes;
    json_t *steps;
    uint8_t *tokens; /* little-endian uint16 */
    int64_t n_tokens;
    du_diag diag;
} fixture;

static const char *path_of(char path[512], const char *name, const char *file) {
    snprintf(path, 512, DIR "/%s/%s", name, file);
    return path;
}

static int setup(void **state) {
    fixture *f = du_alloc_zero(1, sizeof *f);
    assert_non_null(f);
    f->name = *state;
    char path[512];
    du_diag_reset(&f->diag);
    json_t *config = json_load_file(path_of(path, f->name, "config.json"), 0, NULL);
    assert_non_null(config);
    assert_ok(du_params_new(&f->params, config, &f->diag), &f->diag);
    json_decref(config);
    du_model *model;
    snprintf(path, sizeof path, DIR "/%s", f->name);
    assert_ok(du_model_open(&model, path, &f->diag), &f->diag);
    assert_ok(du_params_load(f->params, model, &f->diag), &f->diag);
    du_model_close(model);
    path_of(path, f->name, "grads.safetensors");
    assert_ok(du_st_open(&f->grads, path, &f->diag), &f->diag);
    path_of(path, f->name, "changes.safetensors");
    assert_ok(du_st_open(&f->changes, path, &f->diag), &f->diag);
    f->steps = json_load_file(path_of(path, f->name, "steps.json"), 0, NULL);
    assert_non_null(f->steps);
    size_t n_bytes;
    assert_ok(du_file_read((char **)&f->tokens, &n_bytes, DIR "/tokens.bin", 1 << 20, &f->diag),
              &f->diag);
    f->n_tokens = (int64_t)n_bytes / 2;
    f->ctx = (du_ctx){.kern = du_kern_get(test_isa()), .scratch = du_arena_new(1 << 16)};
    assert_ok(du_pool_new(&f->ctx.pool, 2, false, &f->diag), &f->diag);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    du_pool_free(f->ctx.pool);
    du_arena_free(f->ctx.scratch);
    du_free(f->tokens);
    json_decref(f->steps);
    du_st_close(f->changes);
    du_st_close(f->grads);
    du_params_free(f->params);
    du_free(f);
    return 0;
}

static int32_t token_at(const fixture *f, int64_t i) {
    const uint8_t *p = f->tokens + i % f->n_tokens * 2;
    return p[0] | p[1] << 8;
}

/* Gradients of the batch of a step counted from 0, and its mean cross-entropy. */
static double add_batch(fixture *f, du_grad *grad, int64_t step) {
    int32_t inputs[N_ROWS], targets[N_ROWS];
    double losses[N_ROWS], sum = 0;
    for (int64_t i = 0; i < N_ROWS; i++) {
        inputs[i] = token_at(f, step * N_ROWS + i);
        targets[i] = token_at(f, step * N_ROWS + i + 1);
    }
    du_cross_entropy loss = {.base.rows = du_cross_entropy_rows,
                             .targets = targets,
                             .scale = 1.0 / N_ROWS,
                             .losses = losses};
    du_grad_rows rows = {.n_seq = N_SEQ, .seq_len = SEQ_LEN, .tokens = inputs};
    du_leaves leaves = {.first = 0, .n = N_SEQ, .last = true};
    assert_ok(du_grad_add(&f->ctx, grad, &rows, &loss.base, leaves, &f->diag), &f->diag);
    for (int64_t i = 0; i < N_ROWS; i++) {
        sum += losses[i];
    }
    return sum / N_ROWS;
}

/* Skips the test when the architecture has no backward pass. */
static du_grad *new_grad(fixture *f, du_grad_keep keep) {
    du_grad *grad = NULL;
    du_grad_params how = {.keep = keep, .n_leaves = N_SEQ};
    du_err err = du_grad_new(&grad, f->params, &how, &f->diag);
    if (err == DU_EUNSUPPORTED) {
        print_message("%s: not there: %s\n", f->name, f->diag.msg);
        skip();
    }
    assert_ok(err, &f->diag);
    return grad;
}

static double want_step(const fixture *f, const char *what, int64_t step) {
    const json_t *list = json_object_get(f->steps, what);
    assert_int_equal(json_array_size(list), N_STEPS);
    return json_real_value(json_array_get(list, (size_t)step));
}

static void check_number(const fixture *f, const char *what, int64_t step, double got,
                         double allowed, double *worst) {
    double error = fabs(got / want_step(f, what, step) - 1);
    *worst = fmax(*worst, error);
    if (!(error <= allowed)) {
        fail_msg("%s: %s of step %d is %.9g, not %.9g", f->name, what, (int)step + 1, got,
                 want_step(f, what, step));
    }
}

static float st_value(const du_st_tensor *t, int64_t i) {
    float value;
    memcpy(&value, (const uint8_t *)t->data + i * (int64_t)sizeof value, sizeof value);
    return value;
}

/* Is every tensor of `got` (or, with `before`, its difference to that; laid out as the block of
 * weights) as in the file? Returns the largest error as a part of what is allowed. */
static double check_tensors(const fixture *f, const char *what, const du_st *file, const float *got,
                            const float *before) {
    double worst = 0;
    int64_t n_found = 0;
    for (int64_t k = 0; k < f->params->n; k++) {
        const du_param *p = &f->params->at[k];
        const du_st_tensor *t = du_st_tensor_find(file, p->name);
        int64_t n = p->rows * p->cols;
        if (!t && !p->def->chooses) {
            fail_msg("%s: the reference has no %s", f->name, p->name);
        }
        assert_true(!t || t->n_bytes == (size_t)n * sizeof(float));
        n_found += t != NULL;
        double largest = 0;
        for (int64_t i = 0; t && i < n; i++) {
            largest = fmax(largest, fabs((double)st_value(t, i)));
        }
        for (int64_t i = 0; i < n; i++) {
            double w = before ? (double)before[p->offset + i] : 0;
            double want = t ? (double)st_value(t, i) : 0; /* what only chooses stays */
            double error = fabs((double)got[p->offset + i] - w - want);
            double allowed = t ? tolerance * largest + rounding * fabs(w) : 0;
            if (!(error <= allowed)) {
                fail_msg("%s: %s of %s[%d] is %.9g, not %.9g (largest in it: %.3g)", f->name, what,
                         p->name, (int)i, (double)got[p->offset + i] - w, want, largest);
            }
            worst = error > 0 ? fmax(worst, error / allowed) : worst;
        }
    }
    assert_int_equal(n_found, du_st_n_tensors(file));
    return worst;
}

static void gradients(void **state) {
    fixture *f = *state;
    for (du_grad_keep keep = DU_KEEP_ALL; keep <= DU_KEEP_INPUTS; keep++) {
        du_grad *grad = new_grad(f, keep);
        double worst_loss = 0, loss = add_batch(f, grad, 0);
        check_number(f, "loss", 0, loss, loss_tolerance, &worst_loss);
        double worst = check_tensors(f, "the gradient", f->grads, du_grad_values(grad), NULL);
        print_message("%-20s keep %d: loss off by %.1e, gradients by %.1e of the largest\n",
                      f->name, (int)keep, worst_loss, worst * tolerance);
        du_grad_free(grad);
    }
}

static void set(du_train_config *config, const char *pair) {
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_train_config_set_pair(config, pair, &diag), &diag);
}

static void steps(void **state) {
    fixture *f = *state;
    du_grad *grad = new_grad(f, DU_KEEP_ALL);
    du_train_config config;
    assert_ok(du_train_config_init(&config, &f->diag), &f->diag);
    static const char *const pairs[] = {"optim.name=adamw", "optim.beta1=0.9",
                                        "optim.beta2=0.95", "optim.eps=1e-8",
                                        "optim.decay=all",  "optim.weight_decay=0.1"};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        set(&config, pairs[i]);
    }
    du_optim optim;
    assert_ok(du_optim_init(&optim, &config, f->params, NULL, &f->diag), &f->diag);
    size_t n_bytes = (size_t)f->params->n_values * sizeof(float);
    float *before = du_alloc(n_bytes);
    assert_non_null(before);
    memcpy(before, f->params->values, n_bytes);
    double worst_loss = 0, worst_norm = 0;
    for (int64_t step = 0; step < N_STEPS; step++) {
        double norm, loss = add_batch(f, grad, step);
        check_number(f, "loss", step, loss, loss_tolerance, &worst_loss);
        assert_int_equal(du_optim_norm(&f->ctx, &optim, du_grad_values(grad), &norm, &f->diag),
                         DU_OK);
        check_number(f, "grad_norm", step, norm, tolerance, &worst_norm);
        assert_ok(
            du_optim_step(&f->ctx, &optim, du_grad_values(grad), step + 1, 1e-4, fmin(1, 1 / norm)),
            &f->diag);
    }
    double worst = check_tensors(f, "the change", f->changes, f->params->values, before);
    print_message("%-20s %d steps: losses off by %.1e, norms by %.1e, changes by %.2f of what is "
                  "allowed\n",
                  f->name, N_STEPS, worst_loss, worst_norm, worst);
    du_free(before);
    du_optim_done(&optim);
    du_train_config_done(&config);
    du_grad_free(grad);
}

static char names[][24] = {
    "llama",       "llama_tied",          "qwen2",
    "qwen3",       "deepseek_v2",         "deepseek_v2_group",
    "deepseek_v3", "deepseek_v3_noqlora", "deepseek_v3_plain",
};
enum { N_FIXTURES = sizeof names / sizeof *names };

int main(void) {
    static char titles[N_FIXTURES][2][48];
    struct CMUnitTest tests[2 * N_FIXTURES];
    for (int i = 0; i < N_FIXTURES; i++) {
        snprintf(titles[i][0], sizeof titles[i][0], "gradients: %.30s", names[i]);
        snprintf(titles[i][1], sizeof titles[i][1], "steps: %.30s", names[i]);
        tests[2 * i] = (struct CMUnitTest){titles[i][0], gradients, setup, teardown, names[i]};
        tests[2 * i + 1] = (struct CMUnitTest){titles[i][1], steps, setup, teardown, names[i]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
