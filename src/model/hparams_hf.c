/* Hyper-parameters in Hugging Face's config.json, in the form published with the checkpoints
 * (rope_scaling with "type", rope_theta beside it, scoring_func, topk_method) and in the form that
 * transformers 5 writes (rope_parameters). What a family leaves out follows from its model_type. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "model/hparams.h"

typedef struct {
    const json_t *config;
    du_diag *diag;
    du_err err; /* sticky */
} reader;

static void get_i64(reader *r, const char *key, int64_t min, int64_t max, int64_t *out) {
    if (r->err == DU_OK) {
        r->err = du_json_get_i64(r->config, key, min, max, out, r->diag);
    }
}

static void need_i64(reader *r, const char *key, int64_t min, int64_t max, int64_t *out) {
    if (r->err == DU_OK && !json_is_number(json_object_get(r->config, key))) {
        r->err = du_fail(r->diag, DU_EFORMAT, "the key %s is missing or no number", key);
    }
    get_i64(r, key, min, max, out);
}

static void get_f64(reader *r, const json_t *obj, const char *key, double *out) {
    if (r->err == DU_OK) {
        r->err = du_json_get_f64(obj, key, out, r->diag);
    }
}

static void get_str(reader *r, const json_t *obj, const char *key, const char **out) {
    if (r->err == DU_OK) {
        r->err = du_json_get_str(obj, key, out, r->diag);
    }
}

static void get_bool(reader *r, const char *key, bool *out) {
    if (r->err == DU_OK) {
        r->err = du_json_get_bool(r->config, key, out, r->diag);
    }
}

static void in_range(reader *r, const char *key, double v, double min, double max) {
    if (r->err == DU_OK && !(v >= min && v <= max)) {
        r->err = du_fail(r->diag, DU_EFORMAT, "%s: %g is not between %g and %g", key, v, min, max);
    }
}

/* A feature that changes the result and that dure does not compute. */
static void refuse_true(reader *r, const char *key) {
    bool set = false;
    get_bool(r, key, &set);
    if (r->err == DU_OK && set) {
        r->err = du_fail(r->diag, DU_EUNSUPPORTED, "%s: true is not supported", key);
    }
}

static void refuse_unless(reader *r, const json_t *obj, const char *key, double neutral) {
    double v = neutral;
    get_f64(r, obj, key, &v);
    if (r->err == DU_OK && v != neutral) {
        r->err =
            du_fail(r->diag, DU_EUNSUPPORTED, "%s: %g is not supported (%g is)", key, v, neutral);
    }
}

/* A boolean that every supported model has true where it has it at all. */
static void refuse_false(reader *r, const json_t *obj, const char *key) {
    bool set = true;
    if (r->err == DU_OK) {
        r->err = du_json_get_bool(obj, key, &set, r->diag);
    }
    if (r->err == DU_OK && !set) {
        r->err = du_fail(r->diag, DU_EUNSUPPORTED, "%s: false is not supported", key);
    }
}

static void read_yarn(reader *r, const json_t *rope, du_hparams *hp) {
    hp->scaling = DU_SCALING_YARN;
    hp->yarn.beta_fast = 32;
    hp->yarn.beta_slow = 1;
    get_f64(r, rope, "beta_fast", &hp->yarn.beta_fast);
    get_f64(r, rope, "beta_slow", &hp->yarn.beta_slow);
    get_f64(r, rope, "mscale", &hp->yarn_mscale);
    get_f64(r, rope, "mscale_all_dim", &hp->yarn_mscale_all);
    in_range(r, "beta_fast", hp->yarn.beta_fast, 1e-6, 1e6);
    in_range(r, "beta_slow", hp->yarn.beta_slow, 1e-6, 1e6);
    if (json_is_null(json_object_get(rope, "factor")) || !json_object_get(rope, "factor")) {
        hp->yarn.factor = (double)hp->n_ctx_train / hp->yarn.n_ctx_original;
    }
    refuse_false(r, rope, "truncate");
    double computed = du_hparams_rope_magnitude(hp), magnitude = computed;
    get_f64(r, rope, "attention_factor", &magnitude);
    if (r->err == DU_OK && fabs(magnitude - computed) > 1e-6) {
        r->err = du_fail(r->diag, DU_EUNSUPPORTED,
                         "rope_scaling.attention_factor: %g is not supported (%g follows from the "
                         "other keys)",
                         magnitude, computed);
    }
}

static void read_rope(reader *r, du_hparams *hp) {
    const json_t *rope = json_object_get(r->config, "rope_parameters");
    if (!json_is_object(rope)) {
        rope = json_object_get(r->config, "rope_scaling");
    }
    hp->rope_theta = 10000;
    hp->yarn = (du_yarn){.factor = 1};
    get_f64(r, r->config, "rope_theta", &hp->rope_theta);
    get_f64(r, rope, "rope_theta", &hp->rope_theta);
    in_range(r, "rope_theta", hp->rope_theta, 1.000001, 1e15);
    refuse_unless(r, r->config, "partial_rotary_factor", 1);
    refuse_unless(r, rope, "partial_rotary_factor", 1);
    if (!json_is_object(rope)) {
        return;
    }
    const char *type = "default";
    get_str(r, rope, "type", &type);
    get_str(r, rope, "rope_type", &type);
    get_f64(r, rope, "factor", &hp->yarn.factor);
    hp->yarn.n_ctx_original = (double)hp->n_ctx_train;
    get_f64(r, rope, "original_max_position_embeddings", &hp->yarn.n_ctx_original);
    in_range(r, "rope_scaling.original_max_position_embeddings", hp->yarn.n_ctx_original, 1, 1e12);
    if (r->err != DU_OK || strcmp(type, "default") == 0) {
        return;
    }
    if (strcmp(type, "yarn") == 0) {
        read_yarn(r, rope, hp);
    } else if (strcmp(type, "linear") == 0) {
        hp->scaling = DU_SCALING_LINEAR;
    } else if (strcmp(type, "llama3") == 0) {
        hp->scaling = DU_SCALING_LLAMA3;
        hp->llama3_low = 1;
        hp->llama3_high = 4;
        get_f64(r, rope, "low_freq_factor", &hp->llama3_low);
        get_f64(r, rope, "high_freq_factor", &hp->llama3_high);
        in_range(r, "rope_scaling.low_freq_factor", hp->llama3_low, 1e-6, 1e6);
        in_range(r, "rope_scaling.high_freq_factor", hp->llama3_high, hp->llama3_low + 1e-6, 1e6);
    } else {
        r->err = du_fail(r->diag, DU_EUNSUPPORTED, "rope_scaling type '%s' is not known", type);
    }
    in_range(r, "rope_scaling.factor", hp->yarn.factor, 1e-6, 1e6);
}

static void read_router(reader *r, du_hparams *hp, bool v2) {
    du_router *m = &hp->router;
    const char *score = v2 ? "softmax" : "sigmoid";
    const char *method = v2 ? "greedy" : "noaux_tc";
    double scale = 1;
    get_str(r, r->config, "scoring_func", &score);
    get_str(r, r->config, "topk_method", &method);
    get_f64(r, r->config, "routed_scaling_factor", &scale);
    get_i64(r, "n_group", 1, DU_MAX_EXPERTS, &m->n_group);
    get_i64(r, "topk_group", 1, DU_MAX_EXPERTS, &m->n_group_used);
    m->normalise = true; /* of V3 where it is left out; V2 follows below */
    get_bool(r, "norm_topk_prob", &m->normalise);
    in_range(r, "routed_scaling_factor", scale, 0, 1e6);
    if (r->err != DU_OK) {
        return;
    }
    m->scale = (float)scale;
    m->score = strcmp(score, "sigmoid") == 0 ? DU_SCORE_SIGMOID : DU_SCORE_SOFTMAX;
    if (m->score == DU_SCORE_SOFTMAX && strcmp(score, "softmax") != 0) {
        r->err = du_fail(r->diag, DU_EUNSUPPORTED, "scoring_func '%s' is not known", score);
    } else if (strcmp(method, "greedy") == 0) {
        m->n_group = m->n_group_used = 0;
    } else if (strcmp(method, "group_limited_greedy") == 0) {
        m->group_rule = DU_GROUP_MAX;
    } else if (strcmp(method, "noaux_tc") == 0) {
        m->group_rule = DU_GROUP_TOP2;
    } else {
        r->err = du_fail(r->diag, DU_EUNSUPPORTED, "topk_method '%s' is not known", method);
    }
    /* The reference never divides V2's weights by their sum, whatever the file says. */
    m->normalise = m->normalise && !v2;
}

static void read_experts(reader *r, du_hparams *hp, const char *type) {
    du_router *m = &hp->router;
    bool latent = hp->kv_rank > 0;
    hp->n_dense_layer = hp->n_layer;
    get_i64(r, latent ? "n_routed_experts" : "num_experts", 0, DU_MAX_EXPERTS, &m->n_expert);
    if (!latent && m->n_expert == 0) {
        get_i64(r, "num_local_experts", 0, DU_MAX_EXPERTS, &m->n_expert); /* transformers 5 */
    }
    if (m->n_expert == 0) {
        return;
    }
    hp->n_dense_layer = 0;
    need_i64(r, "num_experts_per_tok", 1, DU_MAX_EXPERTS, &m->n_used);
    need_i64(r, "moe_intermediate_size", 1, DU_WIDTH_MAX, &hp->d_ff_expert);
    m->scale = 1;
    if (latent) {
        get_i64(r, "first_k_dense_replace", 0, DU_LAYERS_MAX, &hp->n_dense_layer);
        get_i64(r, "n_shared_experts", 0, DU_MAX_EXPERTS, &hp->n_shared_expert);
        int64_t freq = 1;
        get_i64(r, "moe_layer_freq", 1, 1, &freq);
        read_router(r, hp, strcmp(type, "deepseek_v2") == 0);
        return;
    }
    get_bool(r, "norm_topk_prob", &m->normalise);
    int64_t step = 1;
    get_i64(r, "decoder_sparse_step", 1, 1, &step);
    if (r->err == DU_OK && json_array_size(json_object_get(r->config, "mlp_only_layers")) > 0) {
        r->err = du_fail(r->diag, DU_EUNSUPPORTED,
                         "mlp_only_layers: dense layers between expert "
                         "layers are not supported");
    }
}

static void read_heads(reader *r, du_hparams *hp) {
    need_i64(r, "num_attention_heads", 1, DU_HEADS_MAX, &hp->n_head);
    get_i64(r, "kv_lora_rank", 1, DU_WIDTH_MAX, &hp->kv_rank);
    if (r->err != DU_OK) {
        return;
    }
    hp->n_head_kv = hp->n_head;
    if (hp->kv_rank > 0) {
        int64_t nope = 0;
        get_i64(r, "q_lora_rank", 0, DU_WIDTH_MAX, &hp->q_rank);
        need_i64(r, "qk_nope_head_dim", 1, DU_HEAD_DIM_MAX, &nope);
        need_i64(r, "qk_rope_head_dim", 2, DU_HEAD_DIM_MAX, &hp->rope_dim);
        need_i64(r, "v_head_dim", 1, DU_HEAD_DIM_MAX, &hp->v_dim);
        hp->k_dim = nope + hp->rope_dim;
        return;
    }
    get_i64(r, "num_key_value_heads", 1, DU_HEADS_MAX, &hp->n_head_kv);
    hp->k_dim = hp->d_model / hp->n_head;
    get_i64(r, "head_dim", 2, DU_HEAD_DIM_MAX, &hp->k_dim);
    hp->v_dim = hp->rope_dim = hp->k_dim;
}

/* Weights stored in another way than FP8 with tiles: their tensors have names of their own, whose
 * absence alone would not tell a reader why. */
static void refuse_quantised(reader *r) {
    const json_t *how = json_object_get(r->config, "quantization_config");
    const char *method = "fp8";
    get_str(r, how, "quant_method", &method);
    if (r->err == DU_OK && strcmp(method, "fp8") != 0) {
        r->err =
            du_fail(r->diag, DU_EUNSUPPORTED,
                    "quantization_config: quant_method '%.40s' is not supported (fp8 is)", method);
    }
}

du_err du_hparams_read_hf(du_hparams *hp, const json_t *config, du_diag *diag) {
    reader r = {.config = config, .diag = diag};
    *hp = (du_hparams){.latent_eps = 1e-6f, .n_ctx_train = 2048};
    const char *type = "", *act = "silu";
    get_str(&r, config, "model_type", &type);
    get_str(&r, config, "hidden_act", &act);
    if (r.err == DU_OK && strcmp(act, "silu") != 0) {
        r.err = du_fail(diag, DU_EUNSUPPORTED, "hidden_act '%s' is not supported (silu is)", act);
    }
    refuse_quantised(&r);
    refuse_true(&r, "attention_bias");
    refuse_true(&r, "mlp_bias");
    refuse_true(&r, "use_sliding_window");
    refuse_false(&r, config, "rope_interleave"); /* of latent attention */
    need_i64(&r, "num_hidden_layers", 1, DU_LAYERS_MAX, &hp->n_layer);
    need_i64(&r, "hidden_size", 1, DU_WIDTH_MAX, &hp->d_model);
    need_i64(&r, "vocab_size", 1, DU_VOCAB_MAX, &hp->n_vocab);
    need_i64(&r, "intermediate_size", 1, DU_WIDTH_MAX, &hp->d_ff);
    get_i64(&r, "max_position_embeddings", 1, DU_CONTEXT_MAX, &hp->n_ctx_train);
    get_i64(&r, "num_nextn_predict_layers", 0, 64, &hp->n_nextn);
    get_bool(&r, "tie_word_embeddings", &hp->tied);
    double eps = 1e-6;
    get_f64(&r, config, "rms_norm_eps", &eps);
    in_range(&r, "rms_norm_eps", eps, 0, 1);
    hp->eps = (float)eps;
    if (r.err == DU_OK) {
        read_heads(&r, hp);
    }
    if (r.err == DU_OK) {
        read_rope(&r, hp);
    }
    if (r.err == DU_OK) {
        read_experts(&r, hp, type);
    }
    return r.err;
}

/* An object that is being filled. */
typedef struct {
    json_t *obj;
    bool failed; /* sticky: memory is short */
} filler;

static void set(filler *f, const char *key, json_t *value) {
    f->failed = json_object_set_new(f->obj, key, value) != 0 || f->failed;
}

/* Whole numbers are written as such, as the published files have them. */
static void set_num(filler *f, const char *key, double v) {
    bool whole = v == floor(v) && fabs(v) < 1e15;
    set(f, key, whole ? json_integer((json_int_t)v) : json_real(v));
}

/* An f32 as the shortest decimal that reads back as the same f32: 1e-06, not 9.99999997e-07. */
static void set_f32(filler *f, const char *key, float v) {
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v) {
            break;
        }
    }
    set_num(f, key, strtod(text, NULL));
}

static void write_rope_scaling(const du_hparams *hp, filler *config) {
    if (hp->scaling == DU_SCALING_NONE) {
        set(config, "rope_scaling", json_null());
        return;
    }
    filler fill = {json_object(), false}, *rope = &fill;
    set_f32(rope, "factor", (float)hp->yarn.factor);
    switch (hp->scaling) {
    case DU_SCALING_YARN:
        set(rope, "type", json_string("yarn"));
        set(rope, "rope_type", json_string("yarn"));
        set_num(rope, "beta_fast", hp->yarn.beta_fast);
        set_num(rope, "beta_slow", hp->yarn.beta_slow);
        if (hp->yarn_mscale_all != 0) {
            set_f32(rope, "mscale", (float)hp->yarn_mscale);
            set_f32(rope, "mscale_all_dim", (float)hp->yarn_mscale_all);
        }
        break;
    case DU_SCALING_LLAMA3:
        set(rope, "rope_type", json_string("llama3"));
        set_num(rope, "low_freq_factor", hp->llama3_low);
        set_num(rope, "high_freq_factor", hp->llama3_high);
        break;
    default:
        set(rope, "rope_type", json_string("linear"));
        break;
    }
    if (hp->scaling != DU_SCALING_LINEAR) {
        set_num(rope, "original_max_position_embeddings", hp->yarn.n_ctx_original);
    }
    set(config, "rope_scaling", rope->obj);
    config->failed = config->failed || rope->failed;
}

static void write_latent(const du_hparams *hp, filler *config) {
    const du_router *m = &hp->router;
    bool v3 = m->score == DU_SCORE_SIGMOID;
    set(config, "q_lora_rank", hp->q_rank > 0 ? json_integer(hp->q_rank) : json_null());
    set_num(config, "kv_lora_rank", (double)hp->kv_rank);
    set_num(config, "qk_nope_head_dim", (double)du_hparams_nope(hp));
    set_num(config, "qk_rope_head_dim", (double)hp->rope_dim);
    set_num(config, "v_head_dim", (double)hp->v_dim);
    if (m->n_expert == 0) {
        return;
    }
    set_num(config, "n_routed_experts", (double)m->n_expert);
    set_num(config, "n_shared_experts", (double)hp->n_shared_expert);
    set_num(config, "first_k_dense_replace", (double)hp->n_dense_layer);
    set_num(config, "moe_layer_freq", 1);
    set_num(config, "n_group", m->n_group > 1 ? (double)m->n_group : 1);
    set_num(config, "topk_group", m->n_group > 1 ? (double)m->n_group_used : 1);
    set_f32(config, "routed_scaling_factor", m->scale);
    set(config, "scoring_func", json_string(v3 ? "sigmoid" : "softmax"));
    const char *v2_method = m->n_group > 1 ? "group_limited_greedy" : "greedy";
    set(config, "topk_method", json_string(v3 ? "noaux_tc" : v2_method));
}

du_err du_hparams_write_hf(const du_hparams *hp, json_t *obj, du_diag *diag) {
    filler fill = {obj, false}, *config = &fill;
    set_num(config, "num_hidden_layers", (double)hp->n_layer);
    set_num(config, "hidden_size", (double)hp->d_model);
    set_num(config, "vocab_size", (double)hp->n_vocab);
    set_num(config, "intermediate_size", (double)hp->d_ff);
    set_num(config, "max_position_embeddings", (double)hp->n_ctx_train);
    set_num(config, "num_attention_heads", (double)hp->n_head);
    set_num(config, "num_key_value_heads", (double)hp->n_head_kv);
    set_f32(config, "rms_norm_eps", hp->eps);
    set_f32(config, "rope_theta", (float)hp->rope_theta);
    write_rope_scaling(hp, config);
    set(config, "tie_word_embeddings", json_boolean(hp->tied));
    set(config, "hidden_act", json_string("silu"));
    set(config, "attention_bias", json_false());
    if (hp->kv_rank > 0) {
        write_latent(hp, config);
    } else {
        set_num(config, "head_dim", (double)hp->k_dim);
        if (hp->router.n_expert > 0) {
            set_num(config, "num_experts", (double)hp->router.n_expert);
            set_num(config, "decoder_sparse_step", 1);
            set(config, "mlp_only_layers", json_array());
        }
    }
    if (hp->router.n_expert > 0) {
        set_num(config, "num_experts_per_tok", (double)hp->router.n_used);
        set_num(config, "moe_intermediate_size", (double)hp->d_ff_expert);
        set(config, "norm_topk_prob", json_boolean(hp->router.normalise));
    }
    if (hp->n_nextn > 0) {
        set_num(config, "num_nextn_predict_layers", (double)hp->n_nextn);
    }
    return config->failed ? du_fail_nomem(diag, "config.json") : DU_OK;
}
