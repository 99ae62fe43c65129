/* What the plan of a run says against what the run takes. */
#include "train/plan.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/machine.h"
#include "frozen.h"
#include "train/trainable.h"
#include "train/trainer.h"

static du_diag diag;

#define SIZES                                                                                      \
    "\"vocab_size\":512,\"hidden_size\":128,\"num_hidden_layers\":4,\"num_attention_heads\":4,"    \
    "\"intermediate_size\":320,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5,"             \
    "\"rope_theta\":1e4,\"hidden_act\":\"silu\",\"tie_word_embeddings\":true"
#define LLAMA "{\"model_type\":\"llama\",\"num_key_value_heads\":2," SIZES "}"
#define QWEN3 "{\"model_type\":\"qwen3\",\"num_key_value_heads\":4,\"head_dim\":48," SIZES "}"
#define WIDE                                                                                       \
    "{\"model_type\":\"qwen3\",\"num_key_value_heads\":4,\"head_dim\":64,\"vocab_size\":2048,"     \
    "\"hidden_size\":512,\"num_hidden_layers\":4,\"num_attention_heads\":8,"                       \
    "\"intermediate_size\":1536,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5,"            \
    "\"rope_theta\":1e4,\"hidden_act\":\"silu\",\"tie_word_embeddings\":false}"
#define MANY                                                                                       \
    "{\"model_type\":\"deepseek_v3\",\"q_lora_rank\":null,\"kv_lora_rank\":128,"                   \
    "\"qk_nope_head_dim\":64,\"qk_rope_head_dim\":32,\"v_head_dim\":64,\"vocab_size\":2048,"       \
    "\"moe_intermediate_size\":256,\"n_routed_experts\":16,\"num_experts_per_tok\":4,"             \
    "\"n_shared_experts\":1,\"first_k_dense_replace\":1,\"norm_topk_prob\":true,"                  \
    "\"routed_scaling_factor\":1.0,\"scoring_func\":\"sigmoid\",\"topk_method\":\"noaux_tc\","     \
    "\"n_group\":1,\"topk_group\":1,\"num_nextn_predict_layers\":1,\"hidden_size\":512,"           \
    "\"num_hidden_layers\":3,\"num_attention_heads\":8,\"intermediate_size\":1024,"                \
    "\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5,\"rope_theta\":1e4,"                    \
    "\"hidden_act\":\"silu\",\"tie_word_embeddings\":false}"
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
    json_t *shape; /* NULL: adapters over config.init */
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

static du_params *params_of(const run *r) {
    du_params *params;
    assert_ok(du_trainable_new(&params, &r->config, r->shape, &diag), &diag);
    return params;
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
    r->ctx.scratch = du_arena_new(1);
    du_params *params = params_of(r);
    assert_ok(du_train_plan_make(&r->plan, &r->ctx, &r->config, params, NULL, &diag), &diag);
    du_params_free(params);
}

static void end(run *r) {
    du_arena_free(r->ctx.scratch);
    du_pool_free(r->ctx.pool);
    json_decref(r->shape);
    du_train_config_done(&r->config);
}

static bool is_near(const run *r, const char *what, double took, double said) {
    bool near = took > 0.95 * said && took < 1.05 * said;
    if (!near) {
        print_error("%s, recompute %d: %s: %.1f MB where the plan says %.1f MB\n",
                    r->shape ? json_string_value(json_object_get(r->shape, "model_type"))
                             : r->config.init,
                    r->config.recompute, what, took * 1e-6, said * 1e-6);
    }
    return near;
}

/* Two steps of random tokens: resident memory is within 5 % of the plan's, and scratch is no more
 * than its one piece. */
static bool memory_is_right(json_t *shape, const char *const *keys) {
    run r;
    begin(&r, shape, keys);
    du_resident before = du_machine_resident();
    du_trainer *t;
    assert_ok(du_trainer_of(&t, &r.ctx, &r.config, params_of(&r), NULL, &diag), &diag);
    assert_ok(du_trainer_begin(t, &diag), &diag);
    assert_ok(du_trainer_open_data(t, &diag), &diag);
    for (int i = 0; i < 2; i++) {
        du_metrics m;
        t->lr = 1e-3;
        assert_ok(du_trainer_step(t, &m, &diag), &diag);
    }
    du_resident after = du_machine_resident();
    size_t room = r.plan.levels[r.config.recompute].scratch;
    assert_int_equal(du_arena_bytes(r.ctx.scratch), (room + DU_ALIGN - 1) / DU_ALIGN * DU_ALIGN);
    double took = (double)(after.peak - before.anonymous - after.file);
    bool right = is_near(&r, "memory", took, (double)r.plan.levels[r.config.recompute].total);
    if (r.plan.mapped > 0) {
        double read = (double)(after.file - before.file);
        right = is_near(&r, "read of the file", read, (double)r.plan.mapped) && right;
    }
    du_trainer_free(t);
    end(&r);
    return right;
}

/* In a process of its own, whose heap holds nothing from before. */
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
    static const char *const next[] = {"recompute=cheap", "ema.decay=0.9", "mtp.weight=0.3", NULL};
    static const char *const bf16[] = {"dtype=bf16",     "batch_seqs=16",  "accumulate=3",
                                       "mtp.weight=0.3", "recompute=none", NULL};
    static const char *const muon[] = {"optim.name=muon", "recompute=layer", NULL};
    static const char *const rounded[] = {"qat.type=Q8_0", "batch_seqs=8", NULL};
    /* A llama leaves room for rows of qwen3's norms untouched. */
    assert_memory(parse(QWEN3), plain);
    assert_memory(parse(QWEN3), cheap);
    assert_memory(parse(QWEN3), layer);
    assert_memory(experts("null", 0), plain);
    assert_memory(experts("32", 1), next);
    assert_memory(experts("32", 0), layer);
    assert_memory(experts("null", 1), bf16);
    assert_memory(experts("null", 0), muon);
    assert_memory(parse(WIDE), rounded);
}

static void assert_frozen(const char *json, du_dtype type, const char *const *more) {
    test_tmp tmp = test_tmp_make();
    const char *keys[12] = {NULL, "lora.rank=16", "batch_seqs=4"};
    char init[TEST_PATH_BYTES + 8];
    snprintf(init, sizeof init, "init=%s", frozen_file(&tmp, json, type));
    keys[0] = init;
    for (int i = 0; more[i]; i++) {
        keys[3 + i] = more[i];
    }
    assert_memory(NULL, keys);
    test_tmp_remove(&tmp);
}

/* Anonymous memory, and what lies in the file, apart. */
static void test_memory_of_adapters(void **state) {
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip();
#endif
    static const char *const plain[] = {"recompute=none", NULL};
    static const char *const some[] = {"recompute=cheap", "optim.name=muon", NULL};
    static const char *const next[] = {"recompute=layer",        "mtp.weight=0.3", "dtype=bf16",
                                       "router.bias_step=0.001", "batch_seqs=8",   NULL};
    static const char *const less[] = {"qat.type=Q4_0", "lora.targets=q_proj,v_proj", NULL};
    static const char *const tiles[] = {"qat.type=F8_E4M3", "accumulate=3", NULL};
    assert_frozen(WIDE, DU_F32, plain);
    assert_frozen(WIDE, DU_Q4_K, plain);
    assert_frozen(WIDE, DU_Q8_0, some);
    assert_frozen(WIDE, DU_F32, less);
    assert_frozen(WIDE, DU_Q8_0, tiles);
    assert_frozen(MANY, DU_F32, next);
    assert_frozen(MANY, DU_Q8_0, some);
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
    /* Over frozen weights: no gradients of theirs; an adapter's pair has products in both
     * directions and, for two gradients, its narrow rows again. */
    test_tmp tmp = test_tmp_make();
    char init[TEST_PATH_BYTES + 8];
    snprintf(init, sizeof init, "init=%s", frozen_file(&tmp, LLAMA, DU_F32));
    const char *const keys[] = {init, "lora.rank=4", "lora.targets=q_proj", NULL};
    begin(&r, NULL, keys);
    double pair = 4 * (128 + 128);
    assert_float_equal(r.plan.flops.forward, all + 2 * 4 * pair, 1e-6);
    back = 2 * (4 * (layer + attention * 5 / 2 + 3 * pair) + output);
    assert_float_equal(r.plan.flops.backward, back, 1e-6);
    assert_int_equal(r.plan.n_trained, 4 * pair);
    assert_int_equal(r.plan.n_weights, 4 * (layer + 2 * 128 + pair) + output + 128);
    assert_int_equal(r.plan.n_active, r.plan.n_weights);
    assert_int_equal(r.plan.mapped, 4 * (4 * layer + output));
    end(&r);
    test_tmp_remove(&tmp);
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
    assert_ok(du_train_plan_probe(&r.plan, &r.ctx, &r.config, r.shape, NULL, &diag), &diag);
    assert_true(r.plan.tok_s > 0);
    assert_float_equal(r.plan.step_s * r.plan.tok_s, (double)r.plan.step_tokens, 1e-3);
    end(&r);
}

/* Ranks as threads of this process. */
enum { N_RANKS = 3 };
static pthread_barrier_t barrier;
static const du_ranks_part *sent[N_RANKS];
static _Thread_local int64_t me;
static _Thread_local double n_sent;

static const char *exchange(const du_ranks_part *send, const du_ranks_part *receive) {
    sent[me] = send;
    pthread_barrier_wait(&barrier);
    for (int64_t r = 0; r < N_RANKS; r++) {
        n_sent += r != me ? (double)send[r].n_bytes : 0;
        if (r != me && receive[r].n_bytes > 0) {
            memcpy(receive[r].data, sent[r][me].data, receive[r].n_bytes);
        }
    }
    pthread_barrier_wait(&barrier);
    return NULL;
}

typedef struct {
    int64_t rank;
    const run *run;
    double step_bytes, plan_bytes;
    bool good;
} rank_job;

/* What the rank sends in its second step, and what its plan says. */
static void *run_rank(void *arg) {
    rank_job *job = arg;
    const du_train_config *config = &job->run->config;
    du_ranks ranks = {.link = {job->rank, N_RANKS, N_RANKS, exchange, NULL},
                      .sizes = DU_RANKS_SIZES};
    du_ctx ctx = {.kern = job->run->ctx.kern, .same_bits = true, .scratch = du_arena_new(1)};
    du_params *params = NULL;
    du_trainer *t = NULL;
    du_train_plan plan;
    du_metrics m;
    du_diag why;
    du_diag_reset(&why);
    me = job->rank;
    du_err err = du_pool_new(&ctx.pool, 1, false, &why);
    err = err ? err : du_trainable_new(&params, config, job->run->shape, &why);
    err = err ? err : du_train_plan_make(&plan, &ctx, config, params, &ranks, &why);
    err = err ? err : du_trainer_of(&t, &ctx, config, params, &ranks, &why);
    err = err ? err : du_trainer_begin(t, &why);
    err = err ? err : du_trainer_open_data(t, &why);
    for (int i = 0; i < 2 && err == DU_OK; i++) {
        t->lr = 1e-3;
        n_sent = 0;
        err = du_trainer_step(t, &m, &why);
    }
    job->good = err == DU_OK;
    job->step_bytes = n_sent;
    job->plan_bytes = plan.sent_bytes;
    du_trainer_free(t);
    du_pool_free(ctx.pool);
    du_arena_free(ctx.scratch);
    return NULL;
}

/* The rank that sends most does not send more than 5 % more or less than the plan says. */
static void assert_sent(json_t *shape, const char *const *keys) {
    run r;
    rank_job jobs[N_RANKS];
    pthread_t threads[N_RANKS];
    double most = 0;
    begin(&r, shape, keys);
    pthread_barrier_init(&barrier, NULL, N_RANKS);
    for (int64_t i = 0; i < N_RANKS; i++) {
        jobs[i] = (rank_job){.rank = i, .run = &r};
        assert_int_equal(pthread_create(&threads[i], NULL, run_rank, &jobs[i]), 0);
    }
    for (int64_t i = 0; i < N_RANKS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(jobs[i].good);
        most = jobs[i].step_bytes > most ? jobs[i].step_bytes : most;
    }
    pthread_barrier_destroy(&barrier);
    assert_true(is_near(&r, "sent", most, jobs[0].plan_bytes));
    end(&r);
}

static void test_what_ranks_send(void **state) {
    (void)state;
    static const char *const whole[] = {"batch_seqs=1", "accumulate=3", "seq_len=64", NULL};
    static const char *const next[] = {"batch_seqs=4", "accumulate=3", "mtp.weight=0.3", NULL};
    static const char *const spread[] = {"batch_seqs=4",         "accumulate=6",   "mtp.weight=0.3",
                                         "ranks.experts=spread", "recompute=none", NULL};
    static const char *const again[] = {"batch_seqs=4", "accumulate=3", "ranks.experts=spread",
                                        "recompute=layer", NULL};
    assert_sent(parse(LLAMA), whole);
    assert_sent(experts("null", 1), next);
    assert_sent(experts("null", 1), spread);
    assert_sent(experts("32", 0), again);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_is_what_is_taken),
        cmocka_unit_test(test_memory_of_adapters),
        cmocka_unit_test(test_what_ranks_send),
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_what_does_not_fit_is_refused),
        cmocka_unit_test(test_speed_is_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
