/* Adapters of frozen models: gradients against central differences of a loss in double with the
 * effective weights W + s B A, over F32 and block-quantised files, or with those rounded to fewer
 * bits; bits that neither threads, nor what is kept, nor the split into micro-batches change; files
 * that come back, biases of routers in them, and files that must not be taken. */
#include <math.h>

#include "base/json.h"
#include "frozen.h"
#include "model/lora.h"
#include "oracle/gradients.h"
#include "train/qat.h"

enum { RANK = 2 };
static const double scale = 1.5;

#define COMMON                                                                                     \
    "\"vocab_size\":11,\"num_attention_heads\":2,\"max_position_embeddings\":64,"                  \
    "\"rms_norm_eps\":1e-5,\"rope_theta\":100.0,\"hidden_act\":\"silu\""
#define SMALL                                                                                      \
    ",\"hidden_size\":32,\"intermediate_size\":32,\"num_hidden_layers\":2,\"head_dim\":16," COMMON
#define LATENT                                                                                     \
    ",\"hidden_size\":32,\"intermediate_size\":32,\"num_hidden_layers\":2,\"kv_lora_rank\":32,"    \
    "\"qk_nope_head_dim\":16,\"qk_rope_head_dim\":8,\"v_head_dim\":16,"                            \
    "\"moe_intermediate_size\":32,\"n_routed_experts\":4,\"num_experts_per_tok\":2,"               \
    "\"first_k_dense_replace\":1,\"n_shared_experts\":1,\"norm_topk_prob\":true,"                  \
    "\"routed_scaling_factor\":2.5,\"scoring_func\":\"sigmoid\",\"topk_method\":\"noaux_tc\","     \
    "\"n_group\":1,\"topk_group\":1,\"tie_word_embeddings\":true," COMMON
#define V3     "{\"model_type\":\"deepseek_v3\",\"q_lora_rank\":32" LATENT "}"
#define LLAMA  "{\"model_type\":\"llama\",\"num_key_value_heads\":1,\"tie_word_embeddings\":true"
#define LLAMA2 LLAMA SMALL "}"

typedef struct {
    const char *name, *json;
    du_dtype type;    /* F32: a Hugging Face directory; else a GGUF file of it */
    bool interleaved; /* rows of rotated heads, in the file */
    int64_t every;    /* how many values of a tensor are left out behind one that is looked at */
} base;

static const base bases[] = {
    {"llama", LLAMA2, DU_F32, false, 5},
    {"qwen2: biases",
     "{\"model_type\":\"qwen2\",\"num_key_value_heads\":2,\"tie_word_embeddings\":false" SMALL "}",
     DU_F32, false, 5},
    {"deepseek_v3", V3, DU_F32, false, 7},
    {"deepseek_v3 with a block behind the trunk",
     "{\"model_type\":\"deepseek_v3\",\"q_lora_rank\":32,\"num_nextn_predict_layers\":1" LATENT "}",
     DU_F32, false, 7},
    {"deepseek_v3 without a latent of queries, Q8_0",
     "{\"model_type\":\"deepseek_v3\",\"q_lora_rank\":null" LATENT "}", DU_Q8_0, false, 7},
    {"llama, Q8_0, interleaved rows", LLAMA2, DU_Q8_0, true, 5},
    {"llama, Q4_K",
     LLAMA ",\"hidden_size\":256,\"intermediate_size\":256,\"num_hidden_layers\":1,"
           "\"head_dim\":32," COMMON "}",
     DU_Q4_K, true, 101},
};
enum { N_BASES = sizeof bases / sizeof *bases };

static du_params *empty_params(const char *json) {
    json_t *config = json_loads(json, 0, NULL);
    du_params *p;
    assert_non_null(config);
    assert_ok(du_params_new(&p, config, &diag), &diag);
    json_decref(config);
    return p;
}

static const char *make_file(const test_tmp *tmp, const base *b) {
    return frozen_file(tmp, b->json, b->type);
}

static bool wants(const void *user, const char *module) {
    return du_lora_is_target(user, module);
}

static bool wants_all(const void *user, const char *module) {
    (void)user;
    (void)module;
    return true;
}

static du_params *adapters_of(const char *path, const char *targets) {
    du_model *model;
    du_params *p;
    du_lora lora = {RANK, scale, wants, targets, NULL, true};
    assert_ok(du_model_open(&model, path, &diag), &diag);
    assert_ok(du_lora_new(&p, model, &lora, &diag), &diag);
    du_lora_init(p, 5);
    return p;
}

/* Both factors away from zero, so that each has a gradient. */
static void shake(du_params *p) {
    du_rng rng;
    du_rng_init(&rng, 13);
    for (int64_t i = 0; i < p->n; i++) {
        for (int64_t k = 0; k < p->at[i].rows * p->at[i].cols; k++) {
            p->values[p->at[i].offset + k] += 0.1f * (float)du_rng_normal(&rng);
        }
    }
}

/* The same weights unpacked, as a model of F32 values; rows in Hugging Face's order. */
static du_params *unpacked(const base *b, const char *path) {
    du_params *p = empty_params(b->json);
    du_model *model;
    assert_ok(du_model_open(&model, path, &diag), &diag);
    assert_ok(du_params_load(p, model, &diag), &diag);
    du_model_close(model);
    return p;
}

static const du_param *find_param(const du_params *p, const char *module, size_t n) {
    for (int64_t i = 0; i < p->n; i++) {
        const char *name = p->at[i].name;
        if (strncmp(name, module, n) == 0 && strcmp(name + n, ".weight") == 0) {
            return &p->at[i];
        }
    }
    fail_msg("no weight of %s", module);
    return NULL;
}

/* An adapter in the oracle: W [rows, cols] of o->w holds W + s B A. */
typedef struct {
    const base *b;
    oracle *o;
    const du_params *p;
    const du_param *A, *B, *W;
} place;

static place place_of(const base *b, oracle *o, const du_params *p, int64_t i) {
    size_t before = strlen("base_model.model."), behind = strlen(".lora_A.weight");
    const char *name = p->at[i].name + before;
    return (place){
        b, o, p, &p->at[i], &p->at[i + 1], find_param(o->params, name, strlen(name) - behind)};
}

/* The row of W, as Hugging Face has it, that row n of B belongs to. */
static int64_t row_in_oracle(const place *q, int64_t n) {
    int64_t Dh = q->o->params->model->hp.k_dim;
    bool rotated = strstr(q->W->name, "q_proj") || strstr(q->W->name, "k_proj");
    return q->b->interleaved && rotated ? n / Dh * Dh + n % 2 * (Dh / 2) + n % Dh / 2 : n;
}

/* Moves value (r, c) of A or B by h. */
static void move(const place *q, bool is_b, int64_t r, int64_t c, double h) {
    const float *A = q->p->values + q->A->offset, *B = q->p->values + q->B->offset;
    double *W = q->o->w + q->W->offset;
    for (int64_t i = 0; is_b && i < q->W->cols; i++) {
        W[row_in_oracle(q, r) * q->W->cols + i] += scale * h * (double)A[c * q->W->cols + i];
    }
    for (int64_t n = 0; !is_b && n < q->W->rows; n++) {
        W[row_in_oracle(q, n) * q->W->cols + c] += scale * h * (double)B[n * RANK + r];
    }
}

/* The sum of all adapters and the weights of the base, in F32, as merging computes it. */
static du_params *merged(const base *b, const char *path, const du_params *p) {
    du_params *full = unpacked(b, path);
    for (int64_t i = 0; i < p->n_adapters; i++) {
        const char *name = p->at[2 * i].name + strlen("base_model.model.");
        const du_param *W = find_param(full, name, strlen(name) - strlen(".lora_A.weight"));
        du_mat m = {.rows = W->rows, .cols = W->cols, .adapter = &p->adapters[i]};
        for (int64_t row = 0; row < W->rows; row++) {
            du_mat_adapt_row(full->values + W->offset + row * W->cols, &m, row);
        }
    }
    return full;
}

static void add_adapter(const place *q) {
    for (int64_t n = 0; n < q->B->rows; n++) {
        for (int64_t r = 0; r < RANK; r++) {
            double b = (double)q->p->values[q->B->offset + n * RANK + r];
            move(q, true, n, r, b);
        }
    }
}

static void check_tensor(const place *q, bool is_b, const float *grads) {
    const double h = 1e-4;
    const du_param *t = is_b ? q->B : q->A;
    double worst = 0, size = 0;
    for (int64_t i = 0; i < t->rows * t->cols; i += q->b->every) {
        move(q, is_b, i / t->cols, i % t->cols, h);
        double up = oracle_loss(q->o);
        move(q, is_b, i / t->cols, i % t->cols, -2 * h);
        double down = oracle_loss(q->o);
        move(q, is_b, i / t->cols, i % t->cols, h);
        double want = (up - down) / (2 * h);
        worst = fmax(worst, fabs((double)grads[t->offset + i] - want));
        size = fmax(size, fabs(want));
    }
    if (!(worst <= 1e-4 * size + 1e-8)) {
        fail_msg("%s: %s: off by %g of %g", q->b->name, t->name, worst, size);
    }
}

static void gradients_are_those_of_the_effective_weights(void **state) {
    (void)state;
    data d = make_data();
    for (int64_t i = 0; i < N_BASES; i++) {
        test_tmp tmp = test_tmp_make();
        const char *path = make_file(&tmp, &bases[i]);
        du_params *p = adapters_of(path, ""), *full = unpacked(&bases[i], path);
        shake(p);
        float *grads = gradients(p, &d, (way){1, 1, DU_KEEP_ALL, false});
        oracle o = open_oracle(full, &d);
        for (int64_t k = 0; k < p->n; k += 2) {
            place q = place_of(&bases[i], &o, p, k);
            add_adapter(&q);
        }
        oracle_loss(&o);
        for (int64_t k = 0; k < p->n; k += 2) {
            place q = place_of(&bases[i], &o, p, k);
            check_tensor(&q, false, grads);
            check_tensor(&q, true, grads);
        }
        oracle_close(&o);
        du_free(grads);
        du_params_free(full);
        du_params_free(p);
        test_tmp_remove(&tmp);
    }
}

/* Passes over a frozen model whose sums are rounded see the weights that the merged model has when
 * it is rounded itself, and gradients go through as if it were not. */
static void rounded_sums_are_those_of_the_merged_model(void **state) {
    (void)state;
    static const char *const types[] = {"Q8_0", "Q4_0", "F8_E4M3"};
    data d = make_data();
    for (int64_t i = 0; i < 3 * N_BASES; i++) {
        const base *b = &bases[i / 3];
        if (b->interleaved) {
            continue;
        }
        test_tmp tmp = test_tmp_make();
        const char *path = make_file(&tmp, b);
        du_params *p = adapters_of(path, i % 2 ? "" : "o_proj,up_proj,kv_b_proj,q_proj");
        shake(p);
        du_params *full = merged(b, path, p);
        du_qat qat, want;
        du_ctx ctx = test_ctx_make(2);
        assert_ok(du_qat_init(&qat, types[i % 3], p, &diag), &diag);
        assert_ok(du_qat_init(&want, types[i % 3], full, &diag), &diag);
        float *value = p->values + p->at[1].offset, kept = *value;
        *value += 1; /* the second time counts */
        assert_int_equal(du_qat_show(&ctx, &qat), DU_OK);
        *value = kept;
        assert_int_equal(du_qat_show(&ctx, &qat), DU_OK);
        assert_int_equal(du_qat_show(&ctx, &want), DU_OK);
        memcpy(full->values, want.shown, (size_t)full->n_values * sizeof(float));
        float *grads = gradients(p, &d, (way){1, 1, DU_KEEP_ALL, false});
        oracle o = open_oracle(full, &d);
        oracle_loss(&o);
        for (int64_t k = 0; k < p->n_adapters; k++) {
            place q = place_of(b, &o, p, 2 * k);
            const du_mat *sum = p->adapters[k].sum;
            assert_non_null(sum);
            for (int64_t row = 0; row < sum->rows; row++) {
                float got[512];
                du_mat_unpack_row(got, sum, row);
                if (memcmp(got, want.shown + q.W->offset + row * sum->cols,
                           (size_t)sum->cols * sizeof *got) != 0) {
                    fail_msg("%s, %s: row %d of %s differs", b->name, types[i % 3], (int)row,
                             q.W->name);
                }
            }
            check_tensor(&q, false, grads);
            check_tensor(&q, true, grads);
        }
        oracle_close(&o);
        du_free(grads);
        du_qat_done(&want);
        du_qat_done(&qat);
        test_ctx_drop(&ctx);
        du_params_free(full);
        du_params_free(p);
        test_tmp_remove(&tmp);
    }
}

static void bits_do_not_depend_on_the_way(void **state) {
    (void)state;
    static const way ways[] = {
        {2, 1, DU_KEEP_ALL, false},    {3, 1, DU_KEEP_ALL, false}, {1, 1, DU_KEEP_SOME, false},
        {2, 1, DU_KEEP_INPUTS, false}, {1, 4, DU_KEEP_ALL, false}, {2, 3, DU_KEEP_SOME, false},
    };
    data d = make_data();
    for (int64_t i = 0; i < N_BASES; i++) {
        test_tmp tmp = test_tmp_make();
        du_params *p = adapters_of(make_file(&tmp, &bases[i]), "");
        shake(p);
        for (int64_t bf16 = 0; bf16 < 2; bf16++) {
            float *want = gradients(p, &d, (way){1, 1, DU_KEEP_ALL, bf16});
            for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
                way w = ways[k];
                w.bf16 = bf16;
                float *got = gradients(p, &d, w);
                assert_memory_equal(got, want, (size_t)p->n_values * sizeof *got);
                du_free(got);
            }
            du_free(want);
        }
        du_params_free(p);
        test_tmp_remove(&tmp);
    }
}

static void names_choose_layers(void **state) {
    (void)state;
    static const struct {
        const char *targets;
        int64_t n; /* of the layers of V3's model */
    } cases[] = {{"", 5 + 3 + 5 + 4 * 3 + 3},
                 {"all-linear", 28},
                 {"q_a_proj", 2},
                 {" q_a_proj , kv_b_proj", 4},
                 {"self_attn.o_proj", 2},
                 {"o_proj,o_proj", 2},
                 {"model.layers.1.self_attn.o_proj", 1},
                 {"experts.3.down_proj", 1},
                 {"down_proj", 1 + 4 + 1}};
    static const char *const unknown[] = {"proj", "lm_head", "mlp.gate", "embed_tokens", ","};
    test_tmp tmp = test_tmp_make();
    base b = {"deepseek_v3", V3, DU_F32, false, 1};
    const char *path = make_file(&tmp, &b);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        du_params *p = adapters_of(path, cases[i].targets);
        assert_int_equal(p->n, 2 * cases[i].n);
        assert_ok(du_lora_check_targets(cases[i].targets, p, &diag), &diag);
        du_params_free(p);
    }
    du_params *p = adapters_of(path, "");
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_fails(du_lora_check_targets(unknown[i], p, &diag), DU_EINVAL, &diag,
                     "no linear layer");
    }
    du_params_free(p);
    test_tmp_remove(&tmp);
}

/* What is random depends on the seed and the name: other layers chosen change nothing. */
static void beginnings_depend_on_names(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    const char *path = make_file(&tmp, &bases[0]);
    du_params *all = adapters_of(path, ""), *some = adapters_of(path, "v_proj");
    for (int64_t i = 0; i < some->n; i++) {
        const du_param *t = &some->at[i];
        size_t n = (size_t)(t->rows * t->cols);
        for (int64_t k = 0; k < all->n; k++) {
            if (strcmp(all->at[k].name, t->name) == 0) {
                assert_memory_equal(all->values + all->at[k].offset, some->values + t->offset,
                                    n * sizeof(float));
            }
        }
        double largest = 0;
        for (size_t k = 0; k < n; k++) {
            largest = fmax(largest, fabs((double)some->values[t->offset + (int64_t)k]));
        }
        assert_true(i % 2 == 1 ? largest == 0
                               : largest > 0.7 / sqrt((double)t->cols) &&
                                     largest <= 1 / sqrt((double)t->cols));
    }
    du_params_free(all);
    du_params_free(some);
    test_tmp_remove(&tmp);
}

/* Written and read again, also where the model's rows have another order. */
static void files_come_back(void **state) {
    (void)state;
    for (int64_t i = 0; i < N_BASES; i++) {
        test_tmp tmp = test_tmp_make();
        const char *path = make_file(&tmp, &bases[i]);
        char dir[TEST_PATH_BYTES];
        snprintf(dir, sizeof dir, "%s/adapter", tmp.path);
        assert_ok(du_dir_make(dir, &diag), &diag);
        du_params *p = adapters_of(path, "down_proj,q_proj,kv_b_proj,v_proj"), *back;
        shake(p);
        assert_ok(du_lora_write(p, dir, "base", "down_proj", RANK * scale, &diag), &diag);
        du_lora_file file;
        du_model *model;
        assert_ok(du_lora_file_open(&file, dir, &diag), &diag);
        assert_int_equal(file.lora.rank, RANK);
        assert_true(file.lora.scale == scale);
        assert_ok(du_model_open(&model, path, &diag), &diag);
        assert_ok(du_lora_new(&back, model, &file.lora, &diag), &diag);
        assert_ok(du_lora_load(back, &file, &diag), &diag);
        assert_int_equal(back->n, p->n);
        assert_memory_equal(back->values, p->values, (size_t)p->n_values * sizeof(float));
        du_lora_file_close(&file);
        du_params_free(back);
        du_params_free(p);
        test_tmp_remove(&tmp);
    }
}

/* Biases begin as the model has them, come back with the adapters, and go with the model; the
 * router's matrix beside them must be the model's. */
static void biases_of_routers_come_back(void **state) {
    (void)state;
    enum { E = 4 };
    for (int64_t i = 0; i < N_BASES; i++) {
        if (!strstr(bases[i].json, "noaux_tc")) {
            continue;
        }
        test_tmp tmp = test_tmp_make();
        char path[TEST_PATH_BYTES], dir[TEST_PATH_BYTES];
        snprintf(path, sizeof path, "%s", make_file(&tmp, &bases[i]));
        snprintf(dir, sizeof dir, "%s/adapter", tmp.path);
        assert_ok(du_dir_make(dir, &diag), &diag);
        du_model *model, *again;
        du_params *p, *back;
        du_lora lora = {RANK, scale, wants, "o_proj", wants_all, true};
        assert_ok(du_model_open(&model, path, &diag), &diag);
        int64_t n_moe = 1 + du_model_n_nextn(model);
        float before[E];
        memcpy(before, du_model_block(model, 1)->router_bias, sizeof before);
        assert_true(before[2] > 0);
        assert_ok(du_lora_new(&p, model, &lora, &diag), &diag);
        du_lora_init(p, 3);
        assert_int_equal(p->n, 2 * p->n_adapters + n_moe);
        const du_param *bias = &p->at[2 * p->n_adapters];
        assert_string_equal(bias->name, "base_model.model.model.layers.1.mlp.gate."
                                        "e_score_correction_bias");
        float *values = p->values + bias->offset;
        assert_memory_equal(values, before, sizeof before);
        assert_ptr_equal(du_model_block(model, 1)->router_bias, values);
        shake(p);
        assert_ok(du_lora_write(p, dir, "base", "o_proj", RANK * scale, &diag), &diag);
        du_lora_file file;
        assert_ok(du_lora_file_open(&file, dir, &diag), &diag);
        assert_ok(du_model_open(&again, path, &diag), &diag);
        assert_ok(du_lora_new(&back, again, &file.lora, &diag), &diag);
        assert_ok(du_lora_load(back, &file, &diag), &diag);
        assert_int_equal(back->n, p->n);
        assert_memory_equal(back->values, p->values, (size_t)p->n_values * sizeof(float));
        /* Into a model of its own */
        du_convert_params keep = {0};
        du_convert_stats stats;
        du_model *whole;
        assert_ok(
            du_convert_hf(back->model, test_tmp_file(&tmp, "merged"), NULL, &keep, &stats, &diag),
            &diag);
        assert_ok(du_model_open(&whole, test_tmp_file(&tmp, "merged"), &diag), &diag);
        assert_memory_equal(du_model_block(whole, 1)->router_bias, values, sizeof before);
        du_model_close(whole);
        /* Over another router */
        float *router = (float *)(uintptr_t)du_model_block(again, 1)->router.data;
        du_mat *mat = (du_mat *)(uintptr_t)&du_model_block(again, 1)->router;
        float other[E * 32];
        memcpy(other, router, sizeof other);
        other[5] += 1;
        mat->data = other;
        assert_fails(du_lora_load(back, &file, &diag), DU_EFORMAT, &diag,
                     "layers.1.mlp.gate.weight is not the router of the model");
        du_lora_file_close(&file);
        du_params_free(back);
        du_params_free(p);
        test_tmp_remove(&tmp);
    }
}

static char *read_file(const char *path, size_t *n) {
    char *bytes;
    assert_ok(du_file_read(&bytes, n, path, 1 << 24, &diag), &diag);
    return bytes;
}

/* Opens an adapter and loads it into the model at path; the error. */
static du_err take(const char *path, const char *dir) {
    du_lora_file file;
    du_model *model;
    du_params *p = NULL;
    du_diag_reset(&diag);
    du_err err = du_lora_file_open(&file, dir, &diag);
    err = err ? err : du_model_open(&model, path, &diag);
    err = err ? err : du_lora_new(&p, model, &file.lora, &diag);
    err = err ? err : du_lora_load(p, &file, &diag);
    du_params_free(p);
    du_lora_file_close(&file);
    return err;
}

static void foreign_configs_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *key, *json, *says;
    } cases[] = {{"peft_type", "\"IA3\"", "not LORA"},
                 {"peft_type", "null", "not LORA"},
                 {"r", "0", "is not between"},
                 {"r", "null", "r is missing"},
                 {"r", "4", "of another shape"},
                 {"r", "100000", "is not between"},
                 {"r", "\"2\"", "r"},
                 {"lora_alpha", "null", "lora_alpha is missing"},
                 {"lora_alpha", "\"x\"", "lora_alpha"},
                 {"rank_pattern", "{\"q_proj\": 8}", "rank_pattern is set"},
                 {"alpha_pattern", "{\"q_proj\": 8}", "alpha_pattern is set"},
                 {"use_dora", "true", "use_dora is set"},
                 {"bias", "\"all\"", "bias is set"},
                 {"fan_in_fan_out", "true", "fan_in_fan_out is set"},
                 {"modules_to_save", "[\"lm_head\"]", "modules_to_save is set"},
                 {"modules_to_save", "[\"mlp.gate\", 3]", "modules_to_save is set"},
                 {"modules_to_save", "{\"mlp.gate\": 1}", "modules_to_save is set"},
                 {"init_lora_weights", "\"pissa\"", "'pissa'"}};
    test_tmp tmp = test_tmp_make();
    const char *path = make_file(&tmp, &bases[0]);
    char dir[TEST_PATH_BYTES], config_path[TEST_PATH_BYTES + 32];
    snprintf(dir, sizeof dir, "%s/adapter", tmp.path);
    snprintf(config_path, sizeof config_path, "%s/adapter_config.json", dir);
    assert_ok(du_dir_make(dir, &diag), &diag);
    du_params *p = adapters_of(path, "v_proj");
    assert_ok(du_lora_write(p, dir, "base", "v_proj", 3, &diag), &diag);
    du_params_free(p);
    assert_ok(take(path, dir), &diag);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *json, *changed;
        assert_ok(du_json_load(&json, config_path, 1 << 20, &diag), &diag);
        changed = json_deep_copy(json);
        json_object_set_new(changed, cases[i].key,
                            json_loads(cases[i].json, JSON_DECODE_ANY, NULL));
        assert_ok(du_json_save(changed, config_path, &diag), &diag);
        du_err err = take(path, dir);
        if ((err != DU_EFORMAT && err != DU_EUNSUPPORTED) || !strstr(diag.msg, cases[i].says)) {
            fail_msg("%s = %s: %d: '%s'", cases[i].key, cases[i].json, err, diag.msg);
        }
        assert_ok(du_json_save(json, config_path, &diag), &diag);
        json_decref(json);
        json_decref(changed);
    }
    test_tmp_remove(&tmp);
}

/* A tensor too many, one too few, values that are not finite, and every truncation. */
static void foreign_tensors_are_refused(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    char path[TEST_PATH_BYTES], dir[TEST_PATH_BYTES], file[TEST_PATH_BYTES + 32];
    snprintf(path, sizeof path, "%s", make_file(&tmp, &bases[0]));
    snprintf(dir, sizeof dir, "%s/adapter", tmp.path);
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", dir);
    assert_ok(du_dir_make(dir, &diag), &diag);
    du_params *p = adapters_of(path, "v_proj");
    static const char *const names[] = {"lora_A.weight", "lora_B.weight", "v_proj.lora_A",
                                        "base_model.model"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_ok(du_lora_write(p, dir, "base", "v_proj", 3, &diag), &diag);
        size_t n;
        char *bytes = read_file(file, &n), *at = memmem(bytes, n, names[i], strlen(names[i]));
        assert_non_null(at);
        assert_ok(take(path, dir), &diag);
        at[0] = 'X';
        test_tmp_write(&tmp, "adapter/adapter_model.safetensors", bytes, n);
        assert_int_equal(take(path, dir), DU_EFORMAT);
        for (size_t len = 0; len < n; len += n / 17 + 1) {
            test_tmp_write(&tmp, "adapter/adapter_model.safetensors", bytes, len);
            assert_int_not_equal(take(path, dir), DU_OK);
        }
        du_free(bytes);
    }
    p->values[p->at[1].offset + 3] = NAN;
    assert_ok(du_lora_write(p, dir, "base", "v_proj", 3, &diag), &diag);
    assert_fails(take(path, dir), DU_EFORMAT, &diag, "is not finite");
    du_params_free(p);
    test_tmp_remove(&tmp);
}

/* Of a model that can be asked, but whose heads are too wide for backward passes. */
static void wide_heads_are_refused(void **state) {
    (void)state;
    static const base wide = {.json = LLAMA ",\"hidden_size\":32,\"intermediate_size\":32,"
                                            "\"num_hidden_layers\":1,\"head_dim\":258," COMMON "}",
                              .type = DU_F32};
    test_tmp tmp = test_tmp_make();
    du_params *p = adapters_of(make_file(&tmp, &wide), "all-linear");
    du_grad_params how = {.n_leaves = 1};
    du_grad *grad = NULL;
    assert_fails(du_grad_new(&grad, p, &how, &diag), DU_EUNSUPPORTED, &diag,
                 "head_dim = 258: training takes heads of at most 256");
    du_params_free(p);
    test_tmp_remove(&tmp);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_those_of_the_effective_weights),
        cmocka_unit_test(rounded_sums_are_those_of_the_merged_model),
        cmocka_unit_test(bits_do_not_depend_on_the_way),
        cmocka_unit_test(names_choose_layers),
        cmocka_unit_test(beginnings_depend_on_names),
        cmocka_unit_test(files_come_back),
        cmocka_unit_test(biases_of_routers_come_back),
        cmocka_unit_test(foreign_configs_are_refused),
        cmocka_unit_test(foreign_tensors_are_refused),
        cmocka_unit_test(wide_heads_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
