/* Hyper-parameters in GGUF keys.
 *
 * Keys of the form ARCH.name, listed where they are read. Sources: the GGUF specification's list of
 * standardised keys, and what current converters write. Two quirks of `deepseek2` files:
 *   rope.scaling.yarn_log_multiplier is 0.1 * mscale_all_dim (the 0.1 of YaRN's magnitude is
 *   inside), and no key holds mscale: it equals mscale_all_dim in every published model, and where
 *   it does not, attn_factor makes up for it;
 *   head_count_kv = 1 with key_length_mla tells the layout with attn_k_b and attn_v_b, where
 *   key_length is that of the cache row. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/hparams.h"

typedef struct {
    const du_gguf *g;
    const char *arch;
    du_diag *diag;
    du_err err; /* sticky */
    char key[128];
} reader;

static const char *key_of(reader *r, const char *name) {
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, name);
    return r->key;
}

static bool has(reader *r, const char *name) {
    return du_gguf_key_find(r->g, key_of(r, name)) != NULL;
}

static void get_i64(reader *r, const char *name, int64_t min, int64_t max, int64_t *out) {
    if (r->err == DU_OK) {
        r->err = du_gguf_get_i64(r->g, key_of(r, name), min, max, out, r->diag);
    }
}

static void need_i64(reader *r, const char *name, int64_t min, int64_t max, int64_t *out) {
    if (r->err == DU_OK && !has(r, name)) {
        r->err =
            du_fail(r->diag, DU_EFORMAT, "%s: the key %s is missing", du_gguf_path(r->g), r->key);
    }
    get_i64(r, name, min, max, out);
}

static void get_f64(reader *r, const char *name, double *out) {
    if (r->err == DU_OK) {
        r->err = du_gguf_get_f64(r->g, key_of(r, name), out, r->diag);
    }
}

/* A feature that changes the result and that dure does not compute: the key is absent or neutral.
 */
static void refuse_unless(reader *r, const char *name, double neutral) {
    double v = neutral;
    get_f64(r, name, &v);
    if (r->err == DU_OK && v != neutral) {
        r->err = du_fail(r->diag, DU_EUNSUPPORTED, "%s: %s: %g is not supported (%g is)",
                         du_gguf_path(r->g), r->key, v, neutral);
    }
}

static void above(reader *r, const char *name, double v, double least) {
    if (r->err == DU_OK && !(v > least && v < 1e15)) {
        r->err = du_fail(r->diag, DU_EFORMAT, "%s: %s: %g is not between %g and 1e+15",
                         du_gguf_path(r->g), key_of(r, name), v, least);
    }
}

/* A count that may be stored once or per layer; all layers must agree. */
static void uniform_i64(reader *r, const char *name, int64_t n_layer, int64_t max, int64_t *out) {
    int64_t per_layer[DU_LAYERS_MAX];
    if (r->err != DU_OK || !has(r, name)) {
        return;
    }
    const du_gguf_kv *kv = du_gguf_key_find(r->g, r->key);
    int64_t n = kv->is_array ? n_layer : 1;
    r->err = du_gguf_get_i64_per_layer(r->g, r->key, 1, max, n, per_layer, r->diag);
    for (int64_t i = 0; r->err == DU_OK && i < n; i++) {
        if (per_layer[i] != per_layer[0]) {
            r->err = du_fail(r->diag, DU_EUNSUPPORTED, "%s: %s differs between layers",
                             du_gguf_path(r->g), r->key);
        }
    }
    if (r->err == DU_OK) {
        *out = per_layer[0];
    }
}

/* The mscale that has this magnitude; never 0, which stands for none. factor > 1 */
static double mscale_of(double factor, double magnitude) {
    double mscale = (magnitude - 1) / (0.1 * log(factor));
    return mscale != 0 ? mscale : 1e-12;
}

/* What cos and sin, and q . k, are multiplied with. Two keys tell it as llama.cpp uses them
 * (ggml-org/llama.cpp: src/llama-context.cpp, src/models/deepseek2.cpp): with a the attn_factor,
 * L ten times the yarn_log_multiplier and m = magnitude(factor, 1)
 *
 *     latent attention    cos and sin: a        q . k: (a * magnitude(factor, L))^2
 *     plain attention     cos and sin: a * m    q . k: 1
 *
 * A file of latent attention without L comes from a model that names no mscale. */
static void read_yarn_scales(reader *r, du_hparams *hp) {
    double a = 1, log_multiplier = 0, factor = hp->yarn.factor;
    bool latent = hp->kv_rank > 0;
    get_f64(r, "rope.scaling.attn_factor", &a);
    above(r, "rope.scaling.attn_factor", a, 0);
    if (latent) {
        get_f64(r, "rope.scaling.yarn_log_multiplier", &log_multiplier);
        hp->yarn_mscale = hp->yarn_mscale_all = 10 * log_multiplier;
    }
    if (r->err != DU_OK || a == 1) {
        return;
    }
    if (factor <= 1 || (latent && log_multiplier == 0)) {
        refuse_unless(r, "rope.scaling.attn_factor", 1);
        return;
    }
    double m = du_yarn_magnitude(factor, 1);
    double rope = latent ? a : a * m;
    double qk = latent ? a * du_yarn_magnitude(factor, 10 * log_multiplier) : m;
    above(r, "rope.scaling.yarn_log_multiplier", qk, 0);
    /* The keys are f32. */
    bool none = latent && fabs(rope - m) < 1e-6 * m && fabs(qk - 1) < 1e-6;
    hp->yarn_mscale_all = none ? 0 : mscale_of(factor, qk);
    hp->yarn_mscale = none ? 0 : mscale_of(factor, rope * qk);
}

static void read_rope(reader *r, du_hparams *hp) {
    hp->rope_theta = 10000;
    hp->yarn = (du_yarn){.factor = 1, .beta_fast = 32, .beta_slow = 1};
    get_f64(r, "rope.freq_base", &hp->rope_theta);
    above(r, "rope.freq_base", hp->rope_theta, 1);
    get_f64(r, "rope.scale_linear", &hp->yarn.factor); /* the factor's name until the end of 2023 */
    get_f64(r, "rope.scaling.factor", &hp->yarn.factor);
    if (hp->yarn.factor == 0) {
        hp->yarn.factor = 1; /* "none", as llama.cpp reads it */
    }
    above(r, "rope.scaling.factor", hp->yarn.factor, 0);
    hp->yarn.n_ctx_original = (double)hp->n_ctx_train;
    get_f64(r, "rope.scaling.original_context_length", &hp->yarn.n_ctx_original);
    above(r, "rope.scaling.original_context_length", hp->yarn.n_ctx_original, 0);
    get_f64(r, "rope.scaling.yarn_beta_fast", &hp->yarn.beta_fast);
    get_f64(r, "rope.scaling.yarn_beta_slow", &hp->yarn.beta_slow);
    du_sv type = du_sv_of("linear");
    if (r->err == DU_OK) {
        r->err = du_gguf_get_str(r->g, key_of(r, "rope.scaling.type"), &type, r->diag);
    }
    if (du_sv_is(type, "yarn")) {
        hp->scaling = DU_SCALING_YARN;
        above(r, "rope.scaling.yarn_beta_fast", hp->yarn.beta_fast, 0);
        above(r, "rope.scaling.yarn_beta_slow", hp->yarn.beta_slow, 0);
        read_yarn_scales(r, hp);
    } else if (du_sv_is(type, "linear") || du_sv_is(type, "none")) {
        bool none = hp->yarn.factor == 1 || du_sv_is(type, "none");
        hp->scaling = none ? DU_SCALING_NONE : DU_SCALING_LINEAR;
        refuse_unless(r, "rope.scaling.attn_factor", 1);
    } else if (r->err == DU_OK) {
        r->err = du_fail(r->diag, DU_EUNSUPPORTED, "%s: rope.scaling.type '%.*s' is not known",
                         du_gguf_path(r->g), (int)(type.len < 40 ? type.len : 40), type.s);
    }
}

/* What files written before the keys existed leave out. The published models with groups of experts
 * are DeepSeek-V2 236B and those of the shape of V3; a bias for the choice comes with sigmoids only
 * (DeepSeek-V3, arXiv 2412.19437, eq. 16). */
static void fill_in_experts(reader *r, du_hparams *hp, int64_t *gating) {
    du_router *m = &hp->router;
    char bias[64];
    snprintf(bias, sizeof bias, "blk.%lld.exp_probs_b.bias", (long long)hp->n_dense_layer);
    if (*gating == 0) {
        *gating = du_gguf_tensor_find(r->g, bias) ? 2 : 1;
    }
    bool latent = hp->kv_rank > 0 && !has(r, "expert_group_count");
    if (latent && *gating == 1 && m->n_expert == 160 && hp->n_vocab == 102400) {
        m->n_group = 8;
        m->n_group_used = 3;
    } else if (latent && *gating == 2 && m->n_expert == 256 && hp->n_vocab == 129280) {
        m->n_group = 8;
        m->n_group_used = 4;
    }
}

static void read_experts(reader *r, du_hparams *hp) {
    du_router *m = &hp->router;
    hp->n_dense_layer = hp->n_layer;
    get_i64(r, "expert_count", 0, DU_MAX_EXPERTS, &m->n_expert);
    if (m->n_expert == 0) {
        return;
    }
    hp->n_dense_layer = 0;
    get_i64(r, "leading_dense_block_count", 0, DU_LAYERS_MAX, &hp->n_dense_layer);
    uniform_i64(r, "expert_used_count", hp->n_layer, DU_MAX_EXPERTS, &m->n_used);
    get_i64(r, "expert_shared_count", 0, DU_MAX_EXPERTS, &hp->n_shared_expert);
    uniform_i64(r, "expert_feed_forward_length", hp->n_layer, DU_WIDTH_MAX, &hp->d_ff_expert);
    get_i64(r, "expert_group_count", 0, DU_MAX_EXPERTS, &m->n_group);
    get_i64(r, "expert_group_used_count", 0, DU_MAX_EXPERTS, &m->n_group_used);
    int64_t gating = 0;
    double scale = 0;
    get_i64(r, "expert_gating_func", 0, 64, &gating);
    get_f64(r, "expert_weights_scale", &scale);
    if (r->err == DU_OK) {
        r->err = du_gguf_get_bool(r->g, key_of(r, "expert_weights_norm"), &m->normalise, r->diag);
    }
    fill_in_experts(r, hp, &gating);
    if (gating > 2 && r->err == DU_OK) {
        r->err = du_fail(r->diag, DU_EUNSUPPORTED,
                         "%s: expert_gating_func %lld is not supported (1 softmax, 2 sigmoid)",
                         du_gguf_path(r->g), (long long)gating);
    }
    m->score = gating == 2 ? DU_SCORE_SIGMOID : DU_SCORE_SOFTMAX;
    /* V2 236B is the only softmax model with groups, and its rule is the maximum. */
    m->group_rule = m->score == DU_SCORE_SIGMOID ? DU_GROUP_TOP2 : DU_GROUP_MAX;
    m->scale = scale == 0 ? 1.0f : (float)scale;
    if (r->err == DU_OK && (m->n_used == 0 || hp->d_ff_expert == 0)) {
        r->err = du_fail(r->diag, DU_EFORMAT,
                         "%s: %s.expert_used_count or expert_feed_forward_length is missing",
                         du_gguf_path(r->g), r->arch);
    }
}

/* n_head, k_dim, ... of plain attention and of both layouts of latent attention. */
static void read_heads(reader *r, du_hparams *hp) {
    uniform_i64(r, "attention.head_count", hp->n_layer, DU_HEADS_MAX, &hp->n_head);
    if (r->err == DU_OK && hp->n_head == 0) {
        r->err = du_fail(r->diag, DU_EFORMAT, "%s: the key %s is missing", du_gguf_path(r->g),
                         key_of(r, "attention.head_count"));
    }
    if (r->err != DU_OK) {
        return;
    }
    get_i64(r, "attention.kv_lora_rank", 0, DU_WIDTH_MAX, &hp->kv_rank);
    hp->n_head_kv = hp->n_head;
    if (hp->kv_rank == 0) {
        uniform_i64(r, "attention.head_count_kv", hp->n_layer, DU_HEADS_MAX, &hp->n_head_kv);
    }
    get_i64(r, "attention.q_lora_rank", 0, DU_WIDTH_MAX, &hp->q_rank);
    hp->k_dim = hp->v_dim = hp->d_model / hp->n_head;
    bool cache_rows = has(r, "attention.key_length_mla");
    get_i64(r, cache_rows ? "attention.key_length_mla" : "attention.key_length", 1, DU_HEAD_DIM_MAX,
            &hp->k_dim);
    get_i64(r, cache_rows ? "attention.value_length_mla" : "attention.value_length", 1,
            DU_HEAD_DIM_MAX, &hp->v_dim);
    hp->rope_dim = hp->kv_rank > 0 ? 64 : hp->k_dim;
    get_i64(r, "rope.dimension_count", 2, DU_HEAD_DIM_MAX, &hp->rope_dim);
}

/* The layers behind the trunk predict further tokens. A file may leave them out, but counts them.
 */
static void read_layers(reader *r, du_hparams *hp) {
    int64_t n_block = 0;
    need_i64(r, "block_count", 1, DU_LAYERS_MAX, &n_block);
    get_i64(r, "nextn_predict_layers", 0, n_block > 0 ? n_block - 1 : 0, &hp->n_nextn);
    hp->n_layer = n_block - hp->n_nextn;
    char norm[64], next[64];
    snprintf(norm, sizeof norm, "blk.%lld.attn_norm.weight", (long long)hp->n_layer);
    snprintf(next, sizeof next, "blk.%lld.nextn.eh_proj.weight", (long long)hp->n_layer);
    if (r->err == DU_OK && hp->n_nextn > 0 && du_gguf_tensor_find(r->g, norm) &&
        !du_gguf_tensor_find(r->g, next)) {
        r->err = du_fail(r->diag, DU_EFORMAT,
                         "%s: nextn_predict_layers is %lld, but blk.%lld is an ordinary layer",
                         du_gguf_path(r->g), (long long)hp->n_nextn, (long long)hp->n_layer);
    }
}

/* Keys of other models of these architectures, with the values that change nothing. */
static void refuse_features(reader *r) {
    refuse_unless(r, "attention.scale", 0);
    refuse_unless(r, "attention.temperature_scale", 0);
    refuse_unless(r, "embedding_scale", 0);
    refuse_unless(r, "residual_scale", 0);
    refuse_unless(r, "logit_scale", 0);
}

du_err du_hparams_read_gguf(du_hparams *hp, const du_gguf *g, const char *arch, du_diag *diag) {
    reader r = {.g = g, .arch = arch, .diag = diag};
    *hp = (du_hparams){.latent_eps = 1e-6f, .n_ctx_train = 4096};
    read_layers(&r, hp);
    refuse_features(&r);
    need_i64(&r, "embedding_length", 1, DU_WIDTH_MAX, &hp->d_model);
    get_i64(&r, "context_length", 1, DU_CONTEXT_MAX, &hp->n_ctx_train);
    get_i64(&r, "vocab_size", 1, DU_VOCAB_MAX, &hp->n_vocab);
    double eps = 1e-6;
    get_f64(&r, "attention.layer_norm_rms_epsilon", &eps);
    hp->eps = (float)eps;
    if (r.err == DU_OK && !(eps >= 0 && eps < 1)) {
        r.err = du_fail(diag, DU_EFORMAT, "%s: %s.attention.layer_norm_rms_epsilon is %g",
                        du_gguf_path(g), arch, eps);
    }
    if (r.err == DU_OK) {
        uniform_i64(&r, "feed_forward_length", hp->n_layer, DU_WIDTH_MAX, &hp->d_ff);
    }
    if (r.err == DU_OK) {
        read_heads(&r, hp);
    }
    if (r.err == DU_OK) {
        read_rope(&r, hp);
    }
    if (r.err == DU_OK) {
        read_experts(&r, hp);
    }
    return r.err;
}

static void put_u32(du_gguf_writer *w, const char *arch, const char *name, int64_t v) {
    char key[128];
    snprintf(key, sizeof key, "%s.%s", arch, name);
    du_gguf_put_u32(w, key, (uint32_t)v);
}

static void put_f32(du_gguf_writer *w, const char *arch, const char *name, double v) {
    char key[128];
    snprintf(key, sizeof key, "%s.%s", arch, name);
    du_gguf_put_f32(w, key, (float)v);
}

static void write_experts(const du_hparams *hp, du_gguf_writer *w, const char *arch) {
    const du_router *m = &hp->router;
    char key[128];
    put_u32(w, arch, "expert_count", m->n_expert);
    put_u32(w, arch, "expert_used_count", m->n_used);
    put_u32(w, arch, "expert_feed_forward_length", hp->d_ff_expert);
    snprintf(key, sizeof key, "%s.expert_weights_norm", arch);
    du_gguf_put_bool(w, key, m->normalise);
    if (hp->kv_rank == 0) {
        return; /* qwen3moe says no more */
    }
    put_u32(w, arch, "leading_dense_block_count", hp->n_dense_layer);
    put_u32(w, arch, "expert_shared_count", hp->n_shared_expert);
    put_f32(w, arch, "expert_weights_scale", (double)m->scale);
    put_u32(w, arch, "expert_gating_func", m->score == DU_SCORE_SIGMOID ? 2 : 1);
    if (m->n_group > 1) {
        put_u32(w, arch, "expert_group_count", m->n_group);
        put_u32(w, arch, "expert_group_used_count", m->n_group_used);
    }
}

/* The reverse of read_yarn_scales. */
static void write_yarn_scales(const du_hparams *hp, du_gguf_writer *w, const char *arch) {
    double factor = hp->yarn.factor, rope = du_hparams_rope_magnitude(hp), a, L;
    if (factor <= 1) {
        return; /* all are 1 */
    }
    if (hp->kv_rank == 0) {
        a = rope / du_yarn_magnitude(factor, 1);
        L = 0;
    } else if (hp->yarn_mscale == hp->yarn_mscale_all && hp->yarn_mscale != 0) {
        a = 1;
        L = hp->yarn_mscale_all;
    } else {
        a = rope;
        L = mscale_of(factor, sqrt(du_hparams_attn_scale(hp) * sqrt((double)hp->k_dim)) / rope);
    }
    if (a != 1) {
        put_f32(w, arch, "rope.scaling.attn_factor", a);
    }
    if (L != 0) {
        put_f32(w, arch, "rope.scaling.yarn_log_multiplier", 0.1 * L);
    }
}

static void write_rope(const du_hparams *hp, du_gguf_writer *w, const char *arch) {
    char key[128];
    put_u32(w, arch, "rope.dimension_count", hp->rope_dim);
    put_f32(w, arch, "rope.freq_base", hp->rope_theta);
    if (hp->scaling != DU_SCALING_LINEAR && hp->scaling != DU_SCALING_YARN) {
        return; /* llama3's scaling is in the tensor rope_freqs.weight */
    }
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    du_gguf_put_str(w, key, du_sv_of(hp->scaling == DU_SCALING_YARN ? "yarn" : "linear"));
    put_f32(w, arch, "rope.scaling.factor", hp->yarn.factor);
    if (hp->scaling == DU_SCALING_YARN) {
        put_u32(w, arch, "rope.scaling.original_context_length", (int64_t)hp->yarn.n_ctx_original);
        put_f32(w, arch, "rope.scaling.yarn_beta_fast", hp->yarn.beta_fast);
        put_f32(w, arch, "rope.scaling.yarn_beta_slow", hp->yarn.beta_slow);
        write_yarn_scales(hp, w, arch);
    }
}

void du_hparams_write_gguf(const du_hparams *hp, du_gguf_writer *w, const char *arch) {
    bool latent = hp->kv_rank > 0;
    put_u32(w, arch, "block_count", hp->n_layer);
    put_u32(w, arch, "context_length", hp->n_ctx_train);
    put_u32(w, arch, "embedding_length", hp->d_model);
    put_u32(w, arch, "feed_forward_length", hp->d_ff);
    put_u32(w, arch, "vocab_size", hp->n_vocab);
    put_u32(w, arch, "attention.head_count", hp->n_head);
    put_u32(w, arch, "attention.head_count_kv", latent ? 1 : hp->n_head_kv);
    put_f32(w, arch, "attention.layer_norm_rms_epsilon", (double)hp->eps);
    if (latent) {
        put_u32(w, arch, "attention.q_lora_rank", hp->q_rank);
        put_u32(w, arch, "attention.kv_lora_rank", hp->kv_rank);
        put_u32(w, arch, "attention.key_length", hp->kv_rank + hp->rope_dim);
        put_u32(w, arch, "attention.value_length", hp->kv_rank);
        put_u32(w, arch, "attention.key_length_mla", hp->k_dim);
        put_u32(w, arch, "attention.value_length_mla", hp->v_dim);
    } else {
        put_u32(w, arch, "attention.key_length", hp->k_dim);
        put_u32(w, arch, "attention.value_length", hp->v_dim);
    }
    write_rope(hp, w, arch);
    if (hp->router.n_expert > 0) {
        write_experts(hp, w, arch);
    }
}
