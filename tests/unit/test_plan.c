/* What the plan of a run says against what the run takes. */
#include "train/plan.h"

#include <sys/wait.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/json.h"
#include "base/machine.h"
#include "base/mem.h"
#include "nn/loss.h"
#include "test.h"
#include "train/optim.h"

static du_diag diag;

#define SIZES                                                                                      \
    "\"vocab_size\":512,\"hidden_size\":128,\"num_hidden_layers\":4,\"num_attention_heads\":4,"    \
    "\"intermediate_size\":320,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5,"             \
    "\"rope_theta\":1e4,\"hidden_act\":\"silu\",\"tie_word_embeddings\":true"
#define LLAMA "{\"model_type\":\"llama\",\"num_key_value_heads\":2," SIZES "}"
#define QWEN3 "{\"model_type\":\"qwen3\",\"num_key_value_heads\":4,\"head_dim\":48," SIZES "}"
#define EXPERTS                                                                                    \
    "{\"model_type\":\"deepseek_v3\",\"q_lora_rank\":%s,\"kv_lora_rank\":48,"                      \
    "\"qk_nope_head_dim\":24,\"qk_rope_head_dim\":8,\"v_head_dim\":24,"                            \
    "\"moe_intermediate_size\":64,\"n_routed_experts\":8,\"num_experts_per_tok\":2,"               \
    "\"n_shared_experts\":1,\"first_k_dense_replace\":1,\"norm_topk_prob\":true,"                  \
    "\"routed_scaling_factor\":1.0,\"scoring_func\":\"sigmoid\",\"topk_method\":\"noaux_tc\","     \
    "\"n_group\":1,\"topk_group\":1,\"num_nextn_predict_layers\":%d," SIZES "}"

enum { N_SEQ = 32, S = 256, T = N_SEQ * S };

typedef struct {
    du_train_config config;
    json_t *shape;
    du_ctx ctx;
    du_train_plan plan;
} run;

static json_t *parse(const char *text) {
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    return json;
}

static json_t *experts(const char *q_rank, int n_next) {
    char text[2048];
    snprintf(text, sizeof text, EXPERTS, q_rank, n_next);
    return parse(text);
}

static void begin(run *r, json_t *shape, const char *const *keys) {
    du_diag_reset(&diag);
    *r = (run){.shape = shape, .ctx = {.kern = du_kern_get(du_isa_best()), .same_bits = true}};
    assert_ok(du_train_config_init(&r->config, &diag), &diag);
    r->config.batch_seqs = N_SEQ;
    r->config.seq_len = S;
    for (; keys && *keys; keys++) {
        assert_ok(du_train_config_set_pair(&r->config, *keys, &diag), &diag);
    }
    assert_ok(du_pool_new(&r->ctx.pool, 2, false, &diag), &diag);
    assert_ok(du_train_plan_make(&r->plan, &r->ctx, &r->config, r->shape, NULL, &diag), &diag);
}

static void end(run *r) {
    du_arena_free(r->ctx.scratch);
    du_pool_free(r->ctx.pool);
    json_decref(r->shape);
    du_train_config_done(&r->config);
}

/* Two steps as the trainer makes them; more than the arena's one chunk is not taken from it. */
static void make_steps(run *r) {
    const du_train_config *c = &r->config;
    static int32_t tokens[T], targets[T];
    static double losses[T];
    du_params *params;
    du_grad *grad;
    du_optim optim;
    size_t room = r->plan.levels[c->recompute].scratch;
    r->ctx.scratch = du_arena_new(1 << 20);
    du_arena_mark mark = du_arena_get_mark(r->ctx.scratch);
    assert_non_null(du_arena_alloc(r->ctx.scratch, room, 1));
    du_arena_release(r->ctx.scratch, mark);
    assert_ok(du_params_new(&params, r->shape, &diag), &diag);
    du_params_init(params, 0.02, 1);
    assert_ok(du_optim_init(&optim, c, params, NULL, &diag), &diag);
    du_grad_params how = {.bf16 = c->dtype == DU_TRAIN_BF16,
                          .keep = (du_grad_keep)c->recompute,
                          .n_leaves = c->accumulate * c->batch_seqs};
    assert_ok(du_grad_new(&grad, params, &how, &diag), &diag);
    for (int64_t t = 0; t < T; t++) {
        tokens[t] = (int32_t)(t * 7919 % 512);
        targets[t] = t % S == S - 1 ? -1 : 3;
    }
    du_cross_entropy loss = {
        .base.rows = du_cross_entropy_rows, .targets = targets, .scale = 1.0 / T, .losses = losses};
    du_cross_entropy next = loss;
    du_grad_rows rows = {.n_seq = c->batch_seqs, .seq_len = S, .tokens = tokens};
    rows.next = du_model_n_nextn(params->model) > 0 ? &next.base : NULL;
    for (int step = 1; step <= 2; step++) {
        double norm;
        for (int64_t i = 0; i < c->accumulate; i++) {
            du_leaves leaves = {i * c->batch_seqs, c->batch_seqs, i + 1 == c->accumulate};
            assert_ok(du_grad_add(&r->ctx, grad, &rows, &loss.base, leaves, &diag), &diag);
        }
        const float *g = du_grad_values(grad);
        assert_int_equal(du_optim_norm(&r->ctx, &optim, g, &norm, &diag), DU_OK);
        assert_int_equal(du_optim_step(&r->ctx, &optim, g, step, 1e-3, 1), DU_OK);
    }
    assert_int_equal(du_arena_bytes(r->ctx.scratch), (room + DU_ALIGN - 1) / DU_ALIGN * DU_ALIGN);
    du_grad_free(grad);
    du_optim_done(&optim);
    du_params_free(params);
}

/* Resident memory of the steps is within 5 % of the plan's. In a process of its own, whose heap
 * holds nothing from before. */
static bool memory_is_right(json_t *shape, const char *const *keys) {
    run r;
    begin(&r, shape, keys);
    int64_t before = du_machine_resident().anonymous;
    make_steps(&r);
    double took = (double)(du_machine_resident().peak - before - du_machine_resident().file);
    double said = (double)r.plan.levels[r.config.recompute].total;
    bool right = took > 0.95 * said && took < 1.05 * said;
    if (!right) {
        print_error("%s, recompute %d: %.1f MB where the plan says %.1f MB\n",
                    json_string_value(json_object_get(shape, "model_type")), r.config.recompute,
                    took * 1e-6, said * 1e-6);
    }
    end(&r);
    return right;
}

static void assert_memory(json_t *shape, const char *const *keys) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(memory_is_right(shape, keys) ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    json_decref(shape);
}

static void test_memory_is_what_is_taken(void **state) {
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* it holds on to what is freed */
#endif
    static const char *const plain[] = {NULL};
    static const char *const cheap[] = {"recompute=cheap", "ema.decay=0.9", NULL};
    static const char *const layer[] = {"recompute=layer", "optim.name=sgd", NULL};
    static const char *const bf16[] = {"dtype=bf16", "batch_seqs=16", "accumulate=3", NULL};
    static const char *const muon[] = {"optim.name=muon", "recompute=layer", NULL};
    /* A llama leaves room for rows of qwen3's norms untouched. */
    assert_memory(parse(QWEN3), plain);
    assert_memory(parse(QWEN3), cheap);
    assert_memory(parse(QWEN3), layer);
    assert_memory(experts("null", 0), plain);
    assert_memory(experts("32", 1), cheap);
    assert_memory(experts("32", 0), layer);
    assert_memory(experts("null", 1), bf16);
    assert_memory(experts("null", 0), muon);
}

/* Counted by hand: matrices of a layer [2,2] etc. */
static void test_operations(void **state) {
    (void)state;
    run r;
    begin(&r, parse(LLAMA), NULL);
    double layer = 128 * 128 * 2 + 2 * 128 * 64 + 3 * 128 * 320, output = 512 * 128;
    double attention = 4 * 128.5 * (32 + 32); /* heads, keys seen on average, both products */
    double all = 2 * (4 * (layer + attention) + output);
    assert_float_equal(r.plan.flops.forward, all, 1e-6);
    double back = 2 * (4 * (2 * layer + attention * 5 / 2) + 2 * output);
    assert_float_equal(r.plan.flops.backward, back, 1e-6);
    assert_int_equal(r.plan.n_weights, 4 * (layer + 2 * 128) + output + 128);
    assert_float_equal(r.plan.rule_flops, 6.0 * (double)r.plan.n_weights, 1e-6);
    assert_int_equal(r.plan.flops.again, 0);
    end(&r);
    begin(&r, experts("null", 0), NULL);
    assert_int_equal(r.plan.n_weights - r.plan.n_active, 3 * 6 * 3 * 128 * 64);
    end(&r);
}

static void test_what_does_not_fit_is_refused(void **state) {
    (void)state;
    run r;
    begin(&r, parse(LLAMA), NULL);
    r.plan.available = 0;
    assert_ok(du_train_plan_check(&r.plan, &r.config, &diag), &diag);
    r.plan.available = r.plan.levels[DU_RECOMPUTE_NONE].total;
    assert_ok(du_train_plan_check(&r.plan, &r.config, &diag), &diag);
    r.plan.available = r.plan.levels[DU_RECOMPUTE_LAYER].total;
    assert_int_equal(du_train_plan_check(&r.plan, &r.config, &diag), DU_ENOMEM);
    assert_non_null(strstr(diag.msg, "recompute = layer needs"));
    assert_non_null(strstr(diag.msg, "batch_seqs"));
    du_diag_reset(&diag);
    r.plan.available = r.plan.weights;
    assert_int_equal(du_train_plan_check(&r.plan, &r.config, &diag), DU_ENOMEM);
    assert_non_null(strstr(diag.msg, "a smaller model.*"));
    end(&r);
}

static void test_speed_is_measured(void **state) {
    (void)state;
    run r;
    begin(&r, experts("null", 1), NULL);
    r.ctx.scratch = du_arena_new(1 << 20);
    assert_ok(du_train_plan_probe(&r.plan, &r.ctx, &r.config, r.shape, &diag), &diag);
    assert_true(r.plan.tok_s > 0);
    assert_float_equal(r.plan.step_s * r.plan.tok_s, (double)r.plan.step_tokens, 1e-3);
    end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_is_what_is_taken),
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_what_does_not_fit_is_refused),
        cmocka_unit_test(test_speed_is_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
