/* Hyper-parameters: what config.json and GGUF keys may say, and one line of error for what they may
 * not. */
#include "test.h"

#include <math.h>

#include "base/json.h"
#include "model/arch.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_values_are_read),
        cmocka_unit_test(yarn_follows_its_ramp),
        cmocka_unit_test(bad_values_are_named),
        cmocka_unit_test(config_json_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
