/* Steps of training: their sums, what they allocate, numbers that are not finite. What a run gives
 * is in e2e/test_train.py. */
#include "test.h"

#include <math.h>

#include "base/rng.h"
#include "data/shards.h"
#include "tmp.h"
#include "train/trainable.h"
#include "train/trainer.h"

static du_diag diag;
static test_tmp tmp;
static du_train_config config;
static du_ctx ctx;
static du_trainer *trainer;

enum { V = 40, N_TOKENS = 300, SEQ_LEN = 8, N_SEQ = 4 };

static void set(const char *pair) {
    assert_ok(du_train_config_set_pair(&config, pair, &diag), &diag);
}

static int setup(void **state) {
    (void)state;
    static const char *const pairs[] = {"model.arch=deepseek_v3",
                                        "model.vocab_size=40",
                                        "model.hidden_size=16",
                                        "model.intermediate_size=24",
                                        "model.num_hidden_layers=2",
                                        "model.num_attention_heads=2",
                                        "model.kv_lora_rank=8",
                                        "model.qk_nope_head_dim=4",
                                        "model.qk_rope_head_dim=4",
                                        "model.v_head_dim=4",
                                        "model.n_routed_experts=4",
                                        "model.num_experts_per_tok=2",
                                        "model.moe_intermediate_size=8",
                                        "model.n_shared_experts=1",
                                        "model.first_k_dense_replace=1",
                                        "model.initializer_range=0.1",
                                        "router.bias_step=0.5",
                                        "seq_len=8",
                                        "batch_seqs=4",
                                        "optim.lr=0.01",
                                        "steps=10",
                                        "out=unused"};
    uint16_t tokens[N_TOKENS];
    du_rng rng;
    du_rng_init(&rng, 1);
    for (int i = 0; i < N_TOKENS; i++) {
        tokens[i] = (uint16_t)du_rng_below(&rng, V);
    }
    du_diag_reset(&diag);
    tmp = test_tmp_make();
    test_tmp_write(&tmp, "tokens.bin", tokens, sizeof tokens);
    assert_ok(du_train_config_init(&config, &diag), &diag);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        set(pairs[i]);
    }
    char pair[TEST_PATH_BYTES + 16];
    snprintf(pair, sizeof pair, "data.tokens=%s", test_tmp_file(&tmp, "tokens.bin"));
    set(pair);
    snprintf(pair, sizeof pair, "data.validation=%s", test_tmp_file(&tmp, "tokens.bin"));
    set(pair);
    ctx = (du_ctx){.kern = du_kern_get(test_isa()), .same_bits = true};
    ctx.scratch = du_arena_new(1 << 16);
    assert_non_null(ctx.scratch);
    assert_ok(du_pool_new(&ctx.pool, 2, false, &diag), &diag);
    return 0;
}

static void begin(void) {
    json_t *shape = NULL;
    assert_ok(du_trainable_shape(&shape, &config, &diag), &diag);
    assert_ok(du_trainer_new(&trainer, &ctx, &config, shape, NULL, &diag), &diag);
    json_decref(shape);
    assert_ok(du_trainer_begin(trainer, &diag), &diag);
    assert_ok(du_trainer_open_data(trainer, &diag), &diag);
}

static int teardown(void **state) {
    (void)state;
    du_trainer_free(trainer);
    trainer = NULL;
    du_pool_free(ctx.pool);
    du_arena_free(ctx.scratch);
    du_train_config_done(&config);
    test_tmp_remove(&tmp);
    return 0;
}

static const du_param *find(const char *name) {
    for (int64_t k = 0; k < trainer->params->n; k++) {
        if (strstr(trainer->params->at[k].name, name)) {
            return &trainer->params->at[k];
        }
    }
    fail_msg("no weight %s", name);
    return NULL;
}

/* After the first steps, in which arenas grow, a step and a validation allocate nothing. */
static void test_allocates_nothing(void **state) {
    (void)state;
    du_metrics m;
    double loss;
    set("accumulate=3");
    begin();
    for (int i = 0; i < 2; i++) {
        assert_ok(du_trainer_step(trainer, &m, &diag), &diag);
        assert_ok(du_trainer_validate(trainer, &loss, &diag), &diag);
    }
    int64_t n_calls = du_mem_get_stats().n_calls;
    for (int i = 0; i < 3; i++) {
        assert_ok(du_trainer_step(trainer, &m, &diag), &diag);
        assert_ok(du_trainer_validate(trainer, &loss, &diag), &diag);
    }
    assert_int_equal(du_mem_get_stats().n_calls, n_calls);
    assert_int_equal(m.step, 5);
    assert_int_equal(m.tokens, 5 * 3 * SEQ_LEN * N_SEQ);
}

/* Biases move against the counts of the whole step, by no more and no less than bias_step. */
static void test_biases(void **state) {
    (void)state;
    du_metrics m;
    set("accumulate=3");
    begin();
    const du_param *bias = find("e_score_correction_bias");
    float *values = trainer->params->values + bias->offset;
    int64_t n_moved = 0;
    for (int i = 0; i < 6; i++) {
        float before[4];
        memcpy(before, values, sizeof before);
        assert_ok(du_trainer_step(trainer, &m, &diag), &diag);
        const int64_t *count = du_grad_counts(trainer->passes.grad) + bias->layer * 4;
        int64_t share = 3 * SEQ_LEN * N_SEQ * 2 / 4, most = 0;
        for (int e = 0; e < 4; e++) {
            float want = count[e] > share ? -0.5f : count[e] < share ? 0.5f : 0;
            assert_true(values[e] == before[e] + want);
            n_moved += want != 0;
            most = count[e] > most ? count[e] : most;
        }
        assert_true(fabs(m.overload - ((double)most / (double)share - 1)) < 1e-12);
    }
    assert_true(n_moved > 6);
}

/* Validation data are read from their beginning whatever the step, and change nothing. */
static void test_validation(void **state) {
    (void)state;
    du_metrics m;
    double first, again;
    set("validate.batches=1");
    set("optim.lr=0");
    set("router.bias_step=0");
    begin();
    assert_ok(du_trainer_validate(trainer, &first, &diag), &diag);
    assert_ok(du_trainer_step(trainer, &m, &diag), &diag);
    assert_true(first == m.loss);
    assert_ok(du_trainer_step(trainer, &m, &diag), &diag);
    assert_true(first != m.loss);
    assert_ok(du_trainer_validate(trainer, &again, &diag), &diag);
    assert_true(first == again);
}

/* The gradient in the first step of the tensor that joins the block behind the trunk to it, whose
 * only loss is that of the token behind the next; du_free. */
static float *next_gradient(const char *weight, int64_t *n) {
    du_metrics m;
    set(weight);
    begin();
    assert_ok(du_trainer_step(trainer, &m, &diag), &diag);
    const du_param *t = find("eh_proj");
    *n = t->rows * t->cols;
    float *grads = du_alloc_array((size_t)*n, sizeof *grads);
    memcpy(grads, du_grad_values(trainer->passes.grad) + t->offset, (size_t)*n * sizeof *grads);
    du_trainer_free(trainer);
    trainer = NULL;
    return grads;
}

/* mtp.weight is a factor: exactly, where it is a power of two. */
static void test_next_weight(void **state) {
    (void)state;
    int64_t n, n_zero = 0;
    float *one = next_gradient("mtp.weight=0.125", &n), *four = next_gradient("mtp.weight=0.5", &n);
    for (int64_t i = 0; i < n; i++) {
        assert_true(four[i] == 4 * one[i]);
        n_zero += one[i] == 0;
    }
    assert_true(n_zero < n / 2);
    du_free(one);
    du_free(four);
}

/* Documents of 1 to 3 tokens; all tokens but the first of each count. */
static void write_documents(const char *dir) {
    du_shards_params params = {SEQ_LEN, V, 1 << 20};
    du_shards_writer *w;
    json_t *about = json_object();
    assert_ok(du_shards_writer_open(&w, dir, &params, &diag), &diag);
    for (int32_t i = 0; i < N_SEQ; i++) {
        int32_t tokens[SEQ_LEN + 1];
        uint8_t marks[SEQ_LEN + 1];
        for (int32_t t = 0; t <= SEQ_LEN; t++) {
            bool begins = t == 0 || t == 2 + i % 2 || t == 5 || t == 6;
            tokens[t] = i * (SEQ_LEN + 1) + t;
            marks[t] = begins ? DU_MARK_BEGINS : DU_MARK_COUNTS;
        }
        assert_ok(du_shards_write(w, DU_SHARDS_TRAIN, tokens, marks, &diag), &diag);
    }
    assert_ok(du_shards_writer_commit(w, about, &diag), &diag);
    du_shards_writer_close(w);
    json_decref(about);
}

/* The token behind the next is learned within a document alone. */
static void test_next_targets(void **state) {
    (void)state;
    du_metrics m;
    char pair[TEST_PATH_BYTES + 16];
    write_documents(test_tmp_file(&tmp, "d"));
    snprintf(pair, sizeof pair, "data.shards=%s", test_tmp_file(&tmp, "d"));
    set(pair);
    set("data.validation=");
    set("mtp.weight=0.5");
    begin();
    assert_ok(du_trainer_step(trainer, &m, &diag), &diag);
    for (int32_t i = 0; i < N_SEQ; i++) {
        for (int32_t t = 0; t < SEQ_LEN; t++) {
            int32_t second = 2 + i % 2; /* where the second document begins; 5 the third, 6 ... */
            int32_t end = t < second ? second : t < 5 ? 5 : t < 6 ? 6 : SEQ_LEN + 1;
            int32_t want = t + 2 < end ? i * (SEQ_LEN + 1) + t + 2 : -1;
            assert_int_equal(trainer->passes.next_targets[i * SEQ_LEN + t], want);
        }
    }
}

/* What is not finite is named, and the weights stay as they are. */
static void test_not_finite(void **state) {
    (void)state;
    static const char *const names[] = {"model.norm.weight", "layers.0.mlp.down_proj.weight",
                                        "layers.1.self_attn.kv_b_proj.weight"};
    du_metrics m;
    begin();
    assert_ok(du_trainer_step(trainer, &m, &diag), &diag);
    size_t n_bytes = (size_t)trainer->params->n_values * sizeof(float);
    float *before = du_alloc(n_bytes);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        float *w = trainer->params->values + find(names[i])->offset + 3, kept = *w;
        assert_ok(du_trainer_check_weights(trainer, &diag), &diag);
        *w = i % 2 ? (float)INFINITY : (float)NAN;
        memcpy(before, trainer->params->values, n_bytes);
        assert_fails(du_trainer_step(trainer, &m, &diag), DU_ELIMIT, &diag, names[i]);
        assert_non_null(strstr(diag.msg, "step 2: the loss is nan"));
        assert_memory_equal(before, trainer->params->values, n_bytes);
        assert_int_equal(trainer->step, 1);
        assert_fails(du_trainer_check_weights(trainer, &diag), DU_ELIMIT, &diag, names[i]);
        *w = kept;
    }
    /* Weights too large for the forward pass: the gradients are what is not finite. */
    float *w = trainer->params->values + find("lm_head.weight")->offset;
    for (int i = 0; i < 16 * V; i++) {
        w[i] = i % 2 ? 3e38f : -3e38f;
    }
    assert_fails(du_trainer_step(trainer, &m, &diag), DU_ELIMIT, &diag, "the gradient of ");
    du_free(before);
}

/* A pass that fails, here for want of memory, leaves no losses that it did not compute. */
static void test_fails(void **state) {
    (void)state;
    enum { NOT_MEASURED = -7 };
    du_metrics m;
    set("mtp.weight=0.1");
    begin();
    du_arena_free(ctx.scratch); /* it has all that a step takes */
    ctx.scratch = du_arena_new(1 << 16);
    assert_non_null(ctx.scratch);
    du_err err = DU_ENOMEM;
    for (int64_t n = 1; err != DU_OK; n++) {
        for (int64_t i = 0; i < N_SEQ; i++) {
            trainer->passes.measured[DU_LEAF_LOSS][i] = NOT_MEASURED;
            trainer->passes.measured[DU_LEAF_NEXT_LOSS][i] = NOT_MEASURED;
        }
        du_diag_reset(&diag);
        du_mem_fail_at(n, false);
        err = du_trainer_step(trainer, &m, &diag);
        du_mem_fail_at(0, false);
        assert_true(n > 3 || err == DU_ENOMEM);
        for (int64_t i = 0; i < N_SEQ; i++) {
            bool measured = err == DU_OK;
            assert_true((trainer->passes.measured[DU_LEAF_LOSS][i] != NOT_MEASURED) == measured);
            assert_true((trainer->passes.measured[DU_LEAF_NEXT_LOSS][i] != NOT_MEASURED) ==
                        measured);
        }
    }
}

static void refused(const char *pair, const char *says) {
    json_t *shape = NULL;
    set(pair);
    assert_ok(du_trainable_shape(&shape, &config, &diag), &diag);
    assert_fails(du_trainer_new(&trainer, &ctx, &config, shape, NULL, &diag), DU_EUNSUPPORTED,
                 &diag, says);
    json_decref(shape);
    du_diag_reset(&diag);
}

/* Keys without an effect in this model are mistakes. */
static void test_keys(void **state) {
    (void)state;
    json_t *shape = NULL;
    set("seq_len=2049");
    refused("steps=1", "longer than max_position_embeddings = 2048");
    set("seq_len=8");
    set("model.scoring_func=softmax");
    refused("model.topk_method=greedy", "router.bias_step");
    set("router.bias_step=0");
    set("model.n_routed_experts=0");
    refused("router.seq_balance=1", "router.seq_balance");
    set("router.seq_balance=0");
    set("model.qk_nope_head_dim=250");
    refused("model.qk_rope_head_dim=8", "qk_nope_head_dim + qk_rope_head_dim = 258: ");
    set("model.qk_nope_head_dim=248");
    refused("model.v_head_dim=257", "v_head_dim = 257: training takes heads of at most 256");
    set("model.vocab_size=0");
    assert_fails(du_trainable_shape(&shape, &config, &diag), DU_EFORMAT, &diag, "model.*: ");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_allocates_nothing),
                                       TEST(test_biases),
                                       TEST(test_validation),
                                       TEST(test_next_weight),
                                       TEST(test_next_targets),
                                       TEST(test_not_finite),
                                       TEST(test_fails),
                                       TEST(test_keys)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
