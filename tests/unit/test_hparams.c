/* Hyper-parameters: what config.json and GGUF keys may say, and one line of error for what they may
 * not. */
#include "test.h"

#include <math.h>

#include "base/json.h"
#include "formats/gguf_write.h"
#include "model/arch.h"
#include "tmp.h"

static const char v3[] =
    "{\"model_type\": \"deepseek_v3\", \"num_hidden_layers\": 3, \"hidden_size\": 64,"
    "\"vocab_size\": 320, \"intermediate_size\": 96, \"max_position_embeddings\": 4096,"
    "\"num_attention_heads\": 4, \"q_lora_rank\": 48, \"kv_lora_rank\": 32,"
    "\"qk_nope_head_dim\": 32, \"qk_rope_head_dim\": 16, \"v_head_dim\": 24,"
    "\"n_routed_experts\": 16, \"num_experts_per_tok\": 4, \"moe_intermediate_size\": 32,"
    "\"n_shared_experts\": 1, \"first_k_dense_replace\": 1, \"n_group\": 4, \"topk_group\": 2,"
    "\"norm_topk_prob\": true, \"routed_scaling_factor\": 2.5, \"rms_norm_eps\": 1e-6,"
    "\"rope_theta\": 10000, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40,"
    "\"original_max_position_embeddings\": 4096, \"mscale\": 1.0, \"mscale_all_dim\": 1.0,"
    "\"beta_fast\": 32, \"beta_slow\": 1}}";

/* Reads v3 with one key set to a JSON text, or taken away (value NULL). */
static du_err read_with(du_hparams *hp, const char *key, const char *value, du_diag *diag) {
    json_t *config, *v;
    du_diag_reset(diag);
    assert_ok(du_json_parse(&config, v3, strlen(v3), "v3", diag), diag);
    if (key && value) {
        assert_ok(du_json_parse(&v, value, strlen(value), "value", diag), diag);
        json_object_set_new(config, key, v);
    } else if (key) {
        json_object_del(config, key);
    }
    du_err err = du_arch_of_hf("deepseek_v3")->read_hf(hp, config, diag);
    if (err == DU_OK) {
        err = du_hparams_check(hp, diag);
    }
    json_decref(config);
    return err;
}

static void published_values_are_read(void **state) {
    (void)state;
    du_diag diag;
    du_hparams hp;
    assert_ok(read_with(&hp, NULL, NULL, &diag), &diag);
    assert_int_equal(hp.k_dim, 48);
    assert_int_equal(du_hparams_nope(&hp), 32);
    assert_int_equal(hp.n_dense_layer, 1);
    assert_int_equal(hp.router.score, DU_SCORE_SIGMOID);
    assert_int_equal(hp.router.group_rule, DU_GROUP_TOP2);
    assert_true(hp.router.normalise);
    /* m = 0.1 ln 40 + 1 = 1.3689; the scale is m^2 / sqrt(48), cos and sin stay */
    assert_true(fabs(du_hparams_attn_scale(&hp) - 1.3689 * 1.3689 / sqrt(48)) < 1e-4);
    assert_true(du_hparams_rope_magnitude(&hp) == 1);
    assert_ok(read_with(&hp, "model_type", "\"deepseek_v2\"", &diag), &diag);
    assert_int_equal(hp.router.score, DU_SCORE_SOFTMAX);
    assert_false(hp.router.normalise);
    /* What published configs leave out or set to null. */
    assert_ok(read_with(&hp, "norm_topk_prob", NULL, &diag), &diag);
    assert_true(hp.router.normalise);
    assert_ok(read_with(&hp, "n_group", "null", &diag), &diag);
    assert_int_equal(hp.router.n_group, 0);
    assert_ok(read_with(&hp, "rope_scaling",
                        "{\"rope_type\": \"yarn\", \"factor\": 4.0, \"mscale\": null,"
                        "\"attention_factor\": 1.1386294361119891}",
                        &diag),
              &diag);
    assert_true(fabs(du_hparams_rope_magnitude(&hp) - 1.1386294361119891) < 1e-12);
}

/* The corrected pairs of YaRN for theta 10000 and 4,096 positions are 10 to 23 of 32. */
static void yarn_follows_its_ramp(void **state) {
    (void)state;
    double freq[32];
    du_yarn yarn = {40, 4096, 32, 1};
    du_rope_freqs(freq, 64, 10000);
    du_rope_scale_yarn(freq, 64, 10000, &yarn);
    for (int i = 0; i < 32; i++) {
        double plain = pow(10000, -i / 32.0), ramp = fmin(fmax((i - 10) / 13.0, 0), 1);
        assert_true(fabs(freq[i] / (plain / 40 * ramp + plain * (1 - ramp)) - 1) < 1e-12);
    }
}

static void bad_values_are_named(void **state) {
    (void)state;
    static const struct {
        const char *key, *value, *part;
        du_err err;
    } cases[] = {
        {"num_hidden_layers", NULL, "num_hidden_layers", DU_EFORMAT},
        {"num_hidden_layers", "\"61\"", "num_hidden_layers", DU_EFORMAT},
        {"num_hidden_layers", "-1", "num_hidden_layers", DU_EFORMAT},
        {"num_hidden_layers", "1000000000", "num_hidden_layers", DU_EFORMAT},
        {"hidden_size", "0", "hidden_size", DU_EFORMAT},
        {"hidden_size", "9223372036854775807", "hidden_size", DU_EFORMAT},
        {"vocab_size", "1.5", "vocab_size", DU_EFORMAT},
        {"rms_norm_eps", "-1", "rms_norm_eps", DU_EFORMAT},
        {"rms_norm_eps", "true", "rms_norm_eps", DU_EFORMAT},
        {"rope_theta", "0", "rope_theta", DU_EFORMAT},
        {"rope_scaling", "{\"type\": \"ntk\", \"factor\": 2}", "'ntk'", DU_EUNSUPPORTED},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 0}", "factor", DU_EFORMAT},
        {"qk_rope_head_dim", "15", "rotated part", DU_EFORMAT},
        {"qk_nope_head_dim", "0", "qk_nope_head_dim", DU_EFORMAT},
        {"num_experts_per_tok", "17", "experts per token", DU_EFORMAT},
        {"n_group", "3", "multiple of groups", DU_EFORMAT},
        {"topk_group", "5", "chosen groups", DU_EFORMAT},
        {"topk_group", "0", "topk_group", DU_EFORMAT},
        {"n_routed_experts", "100000", "n_routed_experts", DU_EFORMAT},
        {"first_k_dense_replace", "4", "dense layers", DU_EFORMAT},
        {"scoring_func", "\"tanh\"", "'tanh'", DU_EUNSUPPORTED},
        {"topk_method", "\"best\"", "'best'", DU_EUNSUPPORTED},
        {"hidden_act", "\"gelu\"", "'gelu'", DU_EUNSUPPORTED},
        {"attention_bias", "true", "attention_bias", DU_EUNSUPPORTED},
        {"moe_layer_freq", "2", "moe_layer_freq", DU_EFORMAT},
        {"kv_lora_rank", NULL, "kv_lora_rank", DU_EFORMAT},
        {"qk_nope_head_dim", "2048", "width of a head", DU_EFORMAT},
        {"quantization_config", "{\"quant_method\": \"awq\"}", "'awq'", DU_EUNSUPPORTED},
        {"rope_interleave", "false", "rope_interleave", DU_EUNSUPPORTED},
        {"partial_rotary_factor", "0.5", "partial_rotary_factor", DU_EUNSUPPORTED},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"attention_factor\": 1}",
         "attention_factor", DU_EUNSUPPORTED},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"truncate\": false}", "truncate",
         DU_EUNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        du_diag diag;
        du_hparams hp;
        du_err err = read_with(&hp, cases[i].key, cases[i].value, &diag);
        if (err != cases[i].err || !strstr(diag.msg, cases[i].part)) {
            fail_msg("%s = %s: %s: %s", cases[i].key, cases[i].value ? cases[i].value : "(absent)",
                     du_err_text(err), diag.msg);
        }
    }
}

/* What is written is read back as it was. */
static void config_json_round_trip(void **state) {
    (void)state;
    static const char *const variants[][2] = {
        {NULL, NULL},
        {"q_lora_rank", "null"},
        {"rope_scaling", "null"},
        {"rope_scaling", "{\"rope_type\": \"yarn\", \"factor\": 4.0,"
                         "\"original_max_position_embeddings\": 1024}"},
        {"rms_norm_eps", "1e-05"},
        {"routed_scaling_factor", "2.827"},
    };
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        du_diag diag;
        du_hparams hp, back;
        assert_ok(read_with(&hp, variants[i][0], variants[i][1], &diag), &diag);
        json_t *config = json_pack("{s:s}", "model_type", "deepseek_v3");
        assert_ok(du_hparams_write_hf(&hp, config, &diag), &diag);
        assert_ok(du_arch_of_hf("deepseek_v3")->read_hf(&back, config, &diag), &diag);
        json_decref(config);
        assert_int_equal(back.q_rank, hp.q_rank);
        assert_true(back.eps == hp.eps && back.router.scale == hp.router.scale);
        assert_true(du_hparams_attn_scale(&back) == du_hparams_attn_scale(&hp));
        assert_true(du_hparams_rope_magnitude(&back) == du_hparams_rope_magnitude(&hp));
        float freq[8], freq_back[8];
        du_hparams_rope_freqs(&hp, freq, NULL);
        du_hparams_rope_freqs(&back, freq_back, NULL);
        assert_memory_equal(freq, freq_back, sizeof freq);
    }
}

/* A GGUF of keys: name without the architecture, and a value; NULL ends. */
typedef struct {
    const char *name;
    double value;
} key;

/* Reads the hyper-parameters of a file with these keys and a tensor of one number, or none. */
static du_err read_keys(du_hparams *hp, const char *arch, const key *base, const key *more,
                        const char *tensor, du_diag *diag) {
    test_tmp tmp = test_tmp_make();
    du_gguf_writer *w;
    du_gguf *g;
    const int64_t one = 1;
    const float number = 1;
    du_diag_reset(diag);
    assert_ok(du_gguf_writer_new(&w, diag), diag);
    du_gguf_put_str(w, "general.architecture", du_sv_of(arch));
    for (int i = 0; i < 2; i++) {
        for (const key *k = i ? more : base; k && k->name; k++) {
            char name[128];
            snprintf(name, sizeof name, "%s.%s", arch, k->name);
            if (k->value == floor(k->value)) {
                du_gguf_put_u32(w, name, (uint32_t)k->value);
            } else {
                du_gguf_put_f32(w, name, (float)k->value);
            }
        }
    }
    if (tensor) {
        du_gguf_put_tensor(w, tensor, DU_F32, 1, &one);
    }
    assert_ok(du_gguf_writer_begin(w, test_tmp_file(&tmp, "k.gguf"), diag), diag);
    du_gguf_write(w, &number, tensor ? sizeof number : 0);
    assert_ok(du_gguf_writer_commit(w, diag), diag);
    du_gguf_writer_close(w);
    assert_ok(du_gguf_open(&g, test_tmp_file(&tmp, "k.gguf"), diag), diag);
    test_tmp_remove(&tmp);
    du_err err = du_arch_of_gguf(du_sv_of(arch))->read_gguf(hp, g, diag);
    du_gguf_close(g);
    return err;
}

static const key llama[] = {{"block_count", 2},
                            {"embedding_length", 64},
                            {"attention.head_count", 4},
                            {"context_length", 4096},
                            {NULL, 0}};

/* The linear factor has had two names. */
static void gguf_factor_by_either_name(void **state) {
    (void)state;
    du_diag diag;
    du_hparams hp;
    const key old[] = {{"rope.scale_linear", 4}, {NULL, 0}};
    const key new[] = {{"rope.scale_linear", 2}, {"rope.scaling.factor", 4}, {NULL, 0}};
    const key none[] = {{"rope.scaling.factor", 0}, {NULL, 0}};
    assert_ok(read_keys(&hp, "llama", llama, old, NULL, &diag), &diag);
    assert_true(hp.scaling == DU_SCALING_LINEAR && hp.yarn.factor == 4);
    assert_ok(read_keys(&hp, "llama", llama, new, NULL, &diag), &diag);
    assert_true(hp.scaling == DU_SCALING_LINEAR && hp.yarn.factor == 4);
    assert_ok(read_keys(&hp, "llama", llama, none, NULL, &diag), &diag);
    assert_int_equal(hp.scaling, DU_SCALING_NONE);
}

static void gguf_features_are_refused(void **state) {
    (void)state;
    static const key cases[][2] = {{{"attention.scale", 0.5}, {NULL, 0}},
                                   {{"attention.temperature_scale", 0.25}, {NULL, 0}},
                                   {{"rope.scaling.attn_factor", 1.5}, {NULL, 0}},
                                   {{"logit_scale", 3}, {NULL, 0}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        du_diag diag;
        du_hparams hp;
        assert_int_equal(read_keys(&hp, "llama", llama, cases[i], NULL, &diag), DU_EUNSUPPORTED);
        assert_non_null(strstr(diag.msg, cases[i][0].name));
    }
    const key neutral[] = {{"rope.scaling.attn_factor", 1}, {"attention.scale", 0}, {NULL, 0}};
    const key theta[] = {{"rope.freq_base", 1}, {NULL, 0}};
    du_diag diag;
    du_hparams hp;
    assert_ok(read_keys(&hp, "llama", llama, neutral, NULL, &diag), &diag);
    assert_int_equal(read_keys(&hp, "llama", llama, theta, NULL, &diag), DU_EFORMAT);
    assert_non_null(strstr(diag.msg, "rope.freq_base: 1 is not between"));
}

/* Files of V2 236B, and of V3 and R1 before October 2025, do not tell the groups of experts; some
 * of GLM-4.7-Flash not even how experts are scored. */
static void old_expert_keys_are_filled_in(void **state) {
    (void)state;
    static const char bias[] = "blk.1.exp_probs_b.bias";
    static const struct {
        double n_expert, n_used, n_vocab, gating; /* 0: no key */
        const char *tensor;
        du_score_func score;
        int64_t n_group, n_group_used;
        du_group_rule rule;
    } cases[] = {
        {160, 6, 102400, 0, NULL, DU_SCORE_SOFTMAX, 8, 3, DU_GROUP_MAX},
        {64, 6, 102400, 0, NULL, DU_SCORE_SOFTMAX, 0, 0, DU_GROUP_MAX},
        {256, 8, 129280, 2, bias, DU_SCORE_SIGMOID, 8, 4, DU_GROUP_TOP2},
        {256, 8, 129280, 0, bias, DU_SCORE_SIGMOID, 8, 4, DU_GROUP_TOP2},
        {384, 8, 163840, 2, bias, DU_SCORE_SIGMOID, 0, 0, DU_GROUP_TOP2}, /* Kimi K2 */
        {256, 8, 154880, 2, bias, DU_SCORE_SIGMOID, 0, 0, DU_GROUP_TOP2}, /* GLM-5 */
        {64, 4, 154880, 0, bias, DU_SCORE_SIGMOID, 0, 0, DU_GROUP_TOP2},  /* GLM-4.7-Flash */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const key keys[] = {{"block_count", 4},
                            {"embedding_length", 64},
                            {"attention.head_count", 4},
                            {"attention.kv_lora_rank", 32},
                            {"attention.key_length", 48},
                            {"attention.value_length", 24},
                            {"rope.dimension_count", 16},
                            {"leading_dense_block_count", 1},
                            {"expert_feed_forward_length", 32},
                            {"vocab_size", cases[i].n_vocab},
                            {"expert_count", cases[i].n_expert},
                            {"expert_used_count", cases[i].n_used},
                            {cases[i].gating > 0 ? "expert_gating_func" : NULL, cases[i].gating},
                            {NULL, 0}};
        const key told[] = {{"expert_group_count", 1}, {"expert_group_used_count", 1}, {NULL, 0}};
        du_diag diag;
        du_hparams hp;
        assert_ok(read_keys(&hp, "deepseek2", keys, NULL, cases[i].tensor, &diag), &diag);
        assert_int_equal(hp.router.score, cases[i].score);
        assert_int_equal(hp.router.n_group, cases[i].n_group);
        assert_int_equal(hp.router.n_group_used, cases[i].n_group_used);
        assert_int_equal(hp.router.group_rule, cases[i].rule);
        if (cases[i].gating > 0) {
            assert_ok(read_keys(&hp, "deepseek2", keys, told, cases[i].tensor, &diag), &diag);
            assert_int_equal(hp.router.n_group, 1);
        }
    }
}

/* Whether weights are divided by their sum survives the way into GGUF keys and back. */
static void gguf_keeps_the_norm(void **state) {
    (void)state;
    const key keys[] = {
        {"vocab_size", 20},       {"feed_forward_length", 96},        {"expert_count", 8},
        {"expert_used_count", 2}, {"expert_feed_forward_length", 32}, {NULL, 0}};
    for (int normalise = 0; normalise < 2; normalise++) {
        test_tmp tmp = test_tmp_make();
        du_diag diag;
        du_hparams hp, back;
        du_gguf_writer *w;
        du_gguf *g;
        assert_ok(read_keys(&hp, "qwen3moe", llama, keys, NULL, &diag), &diag);
        assert_true(hp.router.normalise); /* no published file has the key */
        hp.router.normalise = normalise;
        assert_ok(du_gguf_writer_new(&w, &diag), &diag);
        du_hparams_write_gguf(&hp, w, "qwen3moe");
        assert_ok(du_gguf_writer_begin(w, test_tmp_file(&tmp, "k.gguf"), &diag), &diag);
        assert_ok(du_gguf_writer_commit(w, &diag), &diag);
        du_gguf_writer_close(w);
        assert_ok(du_gguf_open(&g, test_tmp_file(&tmp, "k.gguf"), &diag), &diag);
        assert_ok(du_arch_of_gguf(du_sv_of("qwen3moe"))->read_gguf(&back, g, &diag), &diag);
        assert_int_equal(back.router.normalise, normalise);
        du_gguf_close(g);
        test_tmp_remove(&tmp);
    }
}

/* A count of layers behind the trunk that takes a layer of the trunk away is an error. */
static void gguf_layers_behind_the_trunk(void **state) {
    (void)state;
    du_diag diag;
    du_hparams hp;
    const key next[] = {{"nextn_predict_layers", 1}, {NULL, 0}};
    assert_ok(read_keys(&hp, "llama", llama, next, NULL, &diag), &diag);
    assert_true(hp.n_layer == 1 && hp.n_nextn == 1);
    assert_int_equal(read_keys(&hp, "llama", llama, next, "blk.1.attn_norm.weight", &diag),
                     DU_EFORMAT);
    assert_non_null(strstr(diag.msg, "blk.1"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_values_are_read),
        cmocka_unit_test(yarn_follows_its_ramp),
        cmocka_unit_test(bad_values_are_named),
        cmocka_unit_test(config_json_round_trip),
        cmocka_unit_test(gguf_factor_by_either_name),
        cmocka_unit_test(gguf_features_are_refused),
        cmocka_unit_test(old_expert_keys_are_filled_in),
        cmocka_unit_test(gguf_keeps_the_norm),
        cmocka_unit_test(gguf_layers_behind_the_trunk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
