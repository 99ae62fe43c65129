/* Gradients of tiny models of every architecture against central differences of a loss in double
 * (oracle/model.h), for every weight; and bits that neither threads, nor what is kept, nor the
 * split into micro-batches change. */
#include <math.h>

#include "base/json.h"
#include "base/rng.h"
#include "oracle/gradients.h"

#define COMMON                                                                                     \
    "\"vocab_size\":11,\"hidden_size\":8,\"num_hidden_layers\":2,\"num_attention_heads\":2,"       \
    "\"intermediate_size\":12,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,"               \
    "\"rope_theta\":100.0,\"hidden_act\":\"silu\""
#define LATENT                                                                                     \
    ",\"kv_lora_rank\":6,\"qk_nope_head_dim\":4,\"qk_rope_head_dim\":2,\"v_head_dim\":5,"          \
    "\"moe_intermediate_size\":6,\"n_routed_experts\":4,\"num_experts_per_tok\":2,"                \
    "\"first_k_dense_replace\":1,\"n_shared_experts\":1"

typedef struct {
    const char *name, *json;
} shape;

static const shape shapes[] = {
    {"llama, two heads to a key, tied",
     "{\"model_type\":\"llama\",\"num_key_value_heads\":1,\"tie_word_embeddings\":true," COMMON
     "}"},
    {"qwen2: biases",
     "{\"model_type\":\"qwen2\",\"num_key_value_heads\":2,\"tie_word_embeddings\":false," COMMON
     "}"},
    {"qwen3: norms of heads", "{\"model_type\":\"qwen3\",\"num_key_value_heads\":1,\"head_dim\":6,"
                              "\"tie_word_embeddings\":true," COMMON "}"},
    {"deepseek_v2: softmax scores, not divided",
     "{\"model_type\":\"deepseek_v2\",\"q_lora_rank\":null,\"norm_topk_prob\":false,"
     "\"routed_scaling_factor\":1.5,\"scoring_func\":\"softmax\",\"topk_method\":\"greedy\","
     "\"n_group\":1,\"topk_group\":1,\"tie_word_embeddings\":false," COMMON LATENT "}"},
    {"deepseek_v3: sigmoid scores, groups, latent of queries",
     "{\"model_type\":\"deepseek_v3\",\"q_lora_rank\":5,\"norm_topk_prob\":true,"
     "\"routed_scaling_factor\":2.5,\"scoring_func\":\"sigmoid\",\"topk_method\":\"noaux_tc\","
     "\"n_group\":2,\"topk_group\":1,\"tie_word_embeddings\":true," COMMON LATENT "}"},
    {"deepseek_v3 with a block behind the trunk",
     "{\"model_type\":\"deepseek_v3\",\"q_lora_rank\":null,\"norm_topk_prob\":true,"
     "\"routed_scaling_factor\":1.0,\"scoring_func\":\"sigmoid\",\"topk_method\":\"noaux_tc\","
     "\"n_group\":1,\"topk_group\":1,\"num_nextn_predict_layers\":1,"
     "\"tie_word_embeddings\":true," COMMON LATENT "}"},
    {"deepseek_v3 with that, untied",
     "{\"model_type\":\"deepseek_v3\",\"q_lora_rank\":5,\"norm_topk_prob\":true,"
     "\"routed_scaling_factor\":1.0,\"scoring_func\":\"sigmoid\",\"topk_method\":\"noaux_tc\","
     "\"n_group\":1,\"topk_group\":1,\"num_nextn_predict_layers\":1,"
     "\"tie_word_embeddings\":false," COMMON LATENT "}"},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static du_params *make_params(const char *json) {
    json_error_t error;
    json_t *config = json_loads(json, 0, &error);
    du_params *p;
    assert_non_null(config);
    assert_ok(du_params_new(&p, config, &diag), &diag);
    json_decref(config);
    du_params_init(p, 0.3, 7);
    du_rng rng;
    du_rng_init(&rng, 3);
    for (int64_t i = 0; i < p->n; i++) { /* norms and biases away from their beginnings */
        for (int64_t k = 0; p->at[i].def->kind == DU_WEIGHT_VEC && k < p->at[i].cols; k++) {
            p->values[p->at[i].offset + k] += 0.2f * (float)du_rng_normal(&rng);
        }
    }
    return p;
}

static double difference(oracle *o, int64_t i) {
    const double h = 1e-5, w = o->w[i];
    o->w[i] = w + h;
    double up = oracle_loss(o);
    o->w[i] = w - h;
    double down = oracle_loss(o);
    o->w[i] = w;
    return (up - down) / (2 * h);
}

static void check_tensor(oracle *o, const float *grads, const du_param *t, const char *name) {
    int64_t n = t->rows * t->cols;
    double worst = 0, size = 0;
    for (int64_t i = t->offset; i < t->offset + n; i++) {
        double want = t->def->chooses ? 0 : difference(o, i);
        worst = fmax(worst, fabs((double)grads[i] - want));
        size = fmax(size, fabs(want));
    }
    if (!(worst <= 1e-4 * size + 1e-9)) {
        fail_msg("%s: %s: off by %g of %g", name, t->name, worst, size);
    }
}

static void gradients_are_those_of_the_formulas(void **state) {
    (void)state;
    data d = make_data();
    for (int64_t i = 0; i < N_SHAPES; i++) {
        du_params *p = make_params(shapes[i].json);
        float *grads = gradients(p, &d, (way){1, 1, DU_KEEP_ALL, false});
        oracle o = open_oracle(p, &d);
        oracle_loss(&o);
        for (int64_t k = 0; k < p->n; k++) {
            check_tensor(&o, grads, &p->at[k], shapes[i].name);
        }
        oracle_close(&o);
        du_free(grads);
        du_params_free(p);
    }
}

static void bits_do_not_depend_on_the_way(void **state) {
    (void)state;
    static const way ways[] = {
        {2, 1, DU_KEEP_ALL, false},    {3, 1, DU_KEEP_ALL, false}, {1, 1, DU_KEEP_SOME, false},
        {2, 1, DU_KEEP_INPUTS, false}, {1, 4, DU_KEEP_ALL, false}, {2, 2, DU_KEEP_SOME, false},
        {2, 3, DU_KEEP_ALL, false},
    };
    data d = make_data();
    for (int64_t i = 0; i < N_SHAPES; i++) {
        du_params *p = make_params(shapes[i].json);
        for (int64_t bf16 = 0; bf16 < 2; bf16++) {
            float *want = gradients(p, &d, (way){1, 1, DU_KEEP_ALL, bf16});
            for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
                way w = ways[k];
                w.bf16 = bf16;
                float *got = gradients(p, &d, w);
                for (int64_t j = 0; j < p->n; j++) {
                    const du_param *t = &p->at[j];
                    if (memcmp(got + t->offset, want + t->offset,
                               (size_t)(t->rows * t->cols) * sizeof *got) != 0) {
                        fail_msg("%s, %s: way %zu gives other bits for %s", shapes[i].name,
                                 bf16 ? "bf16" : "f32", k, t->name);
                    }
                }
                du_free(got);
            }
            du_free(want);
        }
        du_params_free(p);
    }
}

/* The factors of products rounded to 8 bits: gradients point the same way. */
static void bf16_is_near(void **state) {
    (void)state;
    data d = make_data();
    for (int64_t i = 0; i < N_SHAPES; i++) {
        du_params *p = make_params(shapes[i].json);
        float *exact = gradients(p, &d, (way){2, 1, DU_KEEP_ALL, false});
        float *rounded = gradients(p, &d, (way){2, 1, DU_KEEP_ALL, true});
        double dot = 0, a = 0, b = 0;
        for (int64_t k = 0; k < p->n_values; k++) {
            dot += (double)exact[k] * (double)rounded[k];
            a += (double)exact[k] * (double)exact[k];
            b += (double)rounded[k] * (double)rounded[k];
        }
        if (!(dot > 0.999 * sqrt(a * b))) {
            fail_msg("%s: cosine %g", shapes[i].name, dot / sqrt(a * b));
        }
        assert_memory_not_equal(exact, rounded, (size_t)p->n_values * sizeof *exact);
        du_free(exact);
        du_free(rounded);
        du_params_free(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_those_of_the_formulas),
        cmocka_unit_test(bits_do_not_depend_on_the_way),
        cmocka_unit_test(bf16_is_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
