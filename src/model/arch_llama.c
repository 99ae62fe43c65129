/* Decoders with grouped-query attention: llama, qwen2, qwen3, qwen3moe. One forward pass; they
 * differ in what the weight table holds:
 *
 *     llama      nothing more (R1-Distill-Llama, SmolLM2)
 *     qwen2      biases on q, k and v (R1-Distill-Qwen)
 *     qwen3      RMS norms of every query and key head before the rotation
 *     qwen3moe   those, and routed experts instead of the dense feed-forward
 *
 *     x += W_o attention(norm(x))      (Ainslie et al. 2023; Su et al. 2021)
 *     x += ffn(norm(x))
 *
 * Rows of q and k: Hugging Face rotates halves (i, i + n/2). GGUF files of `llama` alone store them
 * interleaved, for pairs (2i, 2i+1). */
#include "model/arch_llama.h"
#include "nn/basic.h"
#include "nn/linear.h"
#include "nn/moe.h"

#define MAT(field_, role_, where_, rows_, cols_, gguf_, hf_, input_, ...)                          \
    {                                                                                              \
        .field = offsetof(du_llama_layer, field_), .kind = DU_WEIGHT_MAT, .in_layer = true,        \
        .role = DU_ROLE_##role_, .where = DU_IN_##where_, .rows = DU_DIM_##rows_,                  \
        .cols = DU_DIM_##cols_, .gguf = "blk.%d." gguf_ ".weight",                                 \
        .hf = "model.layers.%d." hf_ ".weight", .input = input_, __VA_ARGS__                       \
    }
#define VEC(field_, role_, rows_, gguf_, hf_)                                                      \
    {                                                                                              \
        .field = offsetof(du_llama_layer, field_), .kind = DU_WEIGHT_VEC, .in_layer = true,        \
        .role = DU_ROLE_##role_, .rows = DU_DIM_##rows_, .gguf = "blk.%d." gguf_,                  \
        .hf = "model.layers.%d." hf_                                                               \
    }
#define EXPERTS(field_, role_, rows_, cols_, gguf_, hf_, input_, ...)                              \
    {                                                                                              \
        .field = offsetof(du_llama_layer, field_), .kind = DU_WEIGHT_EXPERTS, .in_layer = true,    \
        .role = DU_ROLE_##role_, .where = DU_IN_MOE, .rows = DU_DIM_##rows_,                       \
        .cols = DU_DIM_##cols_, .gguf = "blk.%d." gguf_ ".weight",                                 \
        .hf = "model.layers.%d.mlp.experts.%d." hf_ ".weight", .input = input_, __VA_ARGS__        \
    }

#define QKV_FUSED     .gguf_fused = "blk.%d.attn_qkv.weight"
#define EXPERTS_FUSED .gguf_fused = "blk.%d.ffn_gate_up_exps.weight"

#define ATTENTION(q_order, k_order)                                                                \
    DU_TOP_WEIGHTS, VEC(block.attn_norm, NORM, D, "attn_norm.weight", "input_layernorm.weight"),   \
        MAT(q, ATTN_Q, ALL, Q, D, "attn_q", "self_attn.q_proj", "attn_norm", .order = q_order,     \
            QKV_FUSED),                                                                            \
        MAT(k, ATTN_K, ALL, K, D, "attn_k", "self_attn.k_proj", "attn_norm", .order = k_order,     \
            QKV_FUSED),                                                                            \
        MAT(v, ATTN_V, ALL, KV, D, "attn_v", "self_attn.v_proj", "attn_norm", QKV_FUSED),          \
        MAT(attn_out, ATTN_OUT, ALL, D, O, "attn_output", "self_attn.o_proj", "attn_heads",        \
            .optional = false),                                                                    \
        VEC(block.ffn_norm, NORM, D, "ffn_norm.weight", "post_attention_layernorm.weight")
#define BIASES                                                                                     \
    VEC(q_bias, BIAS, Q, "attn_q.bias", "self_attn.q_proj.bias"),                                  \
        VEC(k_bias, BIAS, K, "attn_k.bias", "self_attn.k_proj.bias"),                              \
        VEC(v_bias, BIAS, KV, "attn_v.bias", "self_attn.v_proj.bias")
#define HEAD_NORMS                                                                                 \
    VEC(q_norm, NORM, DH, "attn_q_norm.weight", "self_attn.q_norm.weight"),                        \
        VEC(k_norm, NORM, DH, "attn_k_norm.weight", "self_attn.k_norm.weight")
#define DENSE_FFN                                                                                  \
    MAT(block.ffn_gate, FFN_GATE, DENSE, F, D, "ffn_gate", "mlp.gate_proj", "ffn_norm",            \
        .optional = false),                                                                        \
        MAT(block.ffn_up, FFN_UP, DENSE, F, D, "ffn_up", "mlp.up_proj", "ffn_norm",                \
            .optional = false),                                                                    \
        MAT(block.ffn_down, FFN_DOWN, DENSE, D, F, "ffn_down", "mlp.down_proj", "ffn_hidden",      \
            .optional = false)

static const du_weight_def llama_weights[] = {ATTENTION(DU_ROWS_ROPE_Q, DU_ROWS_ROPE_K), DENSE_FFN};
static const du_weight_def qwen2_weights[] = {ATTENTION(DU_ROWS_SAME, DU_ROWS_SAME), BIASES,
                                              DENSE_FFN};
static const du_weight_def qwen3_weights[] = {ATTENTION(DU_ROWS_SAME, DU_ROWS_SAME), HEAD_NORMS,
                                              DENSE_FFN};
static const du_weight_def qwen3moe_weights[] = {
    ATTENTION(DU_ROWS_SAME, DU_ROWS_SAME),
    HEAD_NORMS,
    MAT(block.router, ROUTER, MOE, E, D, "ffn_gate_inp", "mlp.gate", "ffn_norm", .optional = false),
    EXPERTS(block.expert_gate, EXPERT_GATE, FX, D, "ffn_gate_exps", "gate_proj", "expert_in",
            EXPERTS_FUSED),
    EXPERTS(block.expert_up, EXPERT_UP, FX, D, "ffn_up_exps", "up_proj", "expert_in",
            EXPERTS_FUSED),
    EXPERTS(block.expert_down, EXPERT_DOWN, D, FX, "ffn_down_exps", "down_proj", "expert_hidden",
            .optional = false),
};

static du_err llama_read_gguf(du_hparams *hp, const du_gguf *g, du_diag *diag) {
    du_err err = du_hparams_read_gguf(hp, g, "llama", diag);
    hp->rope_layout = DU_ROPE_NORM;
    if (err == DU_OK && hp->router.n_expert > 0) {
        err = du_fail(diag, DU_EUNSUPPORTED, "%s: llama with experts (Mixtral) is not supported",
                      du_gguf_path(g));
    }
    return err;
}

static du_err qwen2_read_gguf(du_hparams *hp, const du_gguf *g, du_diag *diag) {
    du_err err = du_hparams_read_gguf(hp, g, "qwen2", diag);
    hp->rope_layout = DU_ROPE_NEOX;
    return err;
}

static du_err qwen3_read_gguf(du_hparams *hp, const du_gguf *g, du_diag *diag) {
    du_err err = du_hparams_read_gguf(hp, g, "qwen3", diag);
    hp->rope_layout = DU_ROPE_NEOX;
    return err;
}

static du_err qwen3moe_read_gguf(du_hparams *hp, const du_gguf *g, du_diag *diag) {
    du_err err = du_hparams_read_gguf(hp, g, "qwen3moe", diag);
    hp->rope_layout = DU_ROPE_NEOX;
    if (!du_gguf_key_find(g, "qwen3moe.expert_weights_norm")) {
        hp->router.normalise = true; /* no published file has the key; every model divides */
    }
    return err;
}

static du_err read_hf(du_hparams *hp, const json_t *config, du_diag *diag) {
    du_err err = du_hparams_read_hf(hp, config, diag);
    hp->rope_layout = DU_ROPE_NEOX;
    if (err == DU_OK && hp->kv_rank > 0) {
        err = du_fail(diag, DU_EUNSUPPORTED,
                      "kv_lora_rank: an architecture without latent attention");
    }
    return err;
}

static du_err kv_layout(const du_hparams *hp, du_dtype dtype, du_kv_layout *out, du_diag *diag) {
    return du_kv_layout_init(out, dtype, hp->n_layer, hp->n_head_kv, hp->k_dim, hp->v_dim, false,
                             diag);
}

/* Buffers of one forward pass, shared by its layers. */
typedef struct {
    float *x, *norm, *y; /* [T,D] */
    float *cos, *sin;    /* [T,Dh/2] */
    float *q, *heads;    /* [T,H,Dh] */
    float *k, *v;        /* [T,G,Dh] */
} buffers;

static du_err take_buffers(du_ctx *ctx, const du_hparams *hp, int64_t T, buffers *b) {
    int64_t D = hp->d_model;
    b->x = DU_SCRATCH(ctx, float, T *D);
    b->norm = DU_SCRATCH(ctx, float, T *D);
    b->y = DU_SCRATCH(ctx, float, T *D);
    b->cos = DU_SCRATCH(ctx, float, T * hp->rope_dim / 2);
    b->sin = DU_SCRATCH(ctx, float, T * hp->rope_dim / 2);
    b->q = DU_SCRATCH(ctx, float, T * hp->n_head * hp->k_dim);
    b->heads = DU_SCRATCH(ctx, float, T * hp->n_head * hp->v_dim);
    b->k = DU_SCRATCH(ctx, float, T * hp->n_head_kv * hp->k_dim);
    b->v = DU_SCRATCH(ctx, float, T * hp->n_head_kv * hp->v_dim);
    bool all = b->x && b->norm && b->y && b->cos && b->sin && b->q && b->heads && b->k && b->v;
    return all ? DU_OK : DU_ENOMEM;
}

/* y = W_o attention(norm) */
static du_err attention(du_ctx *ctx, const du_model *model, const du_llama_layer *w,
                        int64_t i_layer, const du_batch *batch, const buffers *b) {
    const du_hparams *hp = &model->hp;
    int64_t T = batch->T, D = hp->d_model, H = hp->n_head, G = hp->n_head_kv, Dh = hp->k_dim;
    int64_t n_pair = hp->rope_dim / 2;
    du_linear_out qkv[] = {{b->q, H * Dh, &w->q, w->q_bias},
                           {b->k, G * Dh, &w->k, w->k_bias},
                           {b->v, G * hp->v_dim, &w->v, w->v_bias}};
    du_err err = du_linear_fwd(ctx, qkv, 3, b->norm, D, T);
    if (err != DU_OK) {
        return err;
    }
    if (w->q_norm) {
        du_rmsnorm_fwd(ctx, b->q, Dh, b->q, Dh, w->q_norm, T * H, Dh, hp->eps);
        du_rmsnorm_fwd(ctx, b->k, Dh, b->k, Dh, w->k_norm, T * G, Dh, hp->eps);
    }
    du_rope_fwd(ctx, b->q, H * Dh, H, Dh, b->cos, b->sin, hp->rope_layout, T, n_pair);
    du_rope_fwd(ctx, b->k, G * Dh, G, Dh, b->cos, b->sin, hp->rope_layout, T, n_pair);
    du_tap(ctx, "q", i_layer, b->q, T, H * Dh);
    du_tap(ctx, "k", i_layer, b->k, T, G * Dh);
    du_kv_append(ctx, batch->kv, i_layer, &batch->rows, b->k, b->v);
    du_attn_params params = {H, model->attn_scale, model->block_quantised};
    err = du_attn_fwd(ctx, b->heads, b->q, batch->kv, i_layer, &batch->rows, &params);
    if (err == DU_OK) {
        du_tap(ctx, "attn_heads", i_layer, b->heads, T, H * hp->v_dim);
        du_linear_out out = {b->y, D, &w->attn_out, NULL};
        err = du_linear_fwd(ctx, &out, 1, b->heads, H * hp->v_dim, T);
    }
    return err;
}

static du_err forward(du_ctx *ctx, const du_model *model, const du_batch *batch) {
    const du_hparams *hp = &model->hp;
    int64_t T = batch->T, D = hp->d_model;
    buffers b;
    du_err err = take_buffers(ctx, hp, T, &b);
    if (err != DU_OK) {
        return err;
    }
    du_rope_table(b.cos, b.sin, batch->rows.pos, model->rope_freq, model->rope_magnitude, T,
                  hp->rope_dim / 2);
    du_model_embed(ctx, model, batch, b.x);
    for (int64_t i = 0; i < hp->n_layer; i++) {
        const du_llama_layer *w = du_model_layer(model, i);
        du_rmsnorm_fwd(ctx, b.norm, D, b.x, D, w->block.attn_norm, T, D, hp->eps);
        du_tap(ctx, "attn_norm", i, b.norm, T, D);
        err = attention(ctx, model, w, i, batch, &b);
        if (err != DU_OK) {
            return err;
        }
        du_add_fwd(ctx, b.x, b.y, T, D);
        du_rmsnorm_fwd(ctx, b.norm, D, b.x, D, w->block.ffn_norm, T, D, hp->eps);
        du_tap(ctx, "ffn_norm", i, b.norm, T, D);
        err = i < hp->n_dense_layer
                  ? du_ffn_fwd(ctx, b.y, b.norm, &w->block.ffn_gate, &w->block.ffn_up,
                               &w->block.ffn_down, "ffn_hidden", i, T)
                  : du_moe_fwd(ctx, b.y, b.norm, &w->block.router, NULL, &hp->router,
                               &model->experts, NULL, i, T, hp->d_ff_expert);
        if (err != DU_OK) {
            return err;
        }
        du_add_fwd(ctx, b.x, b.y, T, D);
        du_tap(ctx, "layer", i, b.x, T, D);
    }
    return du_model_logits(ctx, model, batch, b.x);
}

#define ARCH(symbol, gguf_name, hf_type, hf_class, table, reader)                                  \
    extern const du_arch symbol;                                                                   \
    static const char *const symbol##_types[] = {hf_type, NULL};                                   \
    static const char *const symbol##_classes[] = {hf_class};                                      \
    const du_arch symbol = {.name = gguf_name,                                                     \
                            .hf_types = symbol##_types,                                            \
                            .hf_classes = symbol##_classes,                                        \
                            .weights = table,                                                      \
                            .n_weights = sizeof table / sizeof *table,                             \
                            .layer_bytes = sizeof(du_llama_layer),                                 \
                            .read_gguf = reader,                                                   \
                            .read_hf = read_hf,                                                    \
                            .kv_layout = kv_layout,                                                \
                            .forward = forward,                                                    \
                            .train = &du_llama_train}

ARCH(du_arch_llama, "llama", "llama", "LlamaForCausalLM", llama_weights, llama_read_gguf);
ARCH(du_arch_qwen2, "qwen2", "qwen2", "Qwen2ForCausalLM", qwen2_weights, qwen2_read_gguf);
ARCH(du_arch_qwen3, "qwen3", "qwen3", "Qwen3ForCausalLM", qwen3_weights, qwen3_read_gguf);
ARCH(du_arch_qwen3moe, "qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM", qwen3moe_weights,
     qwen3moe_read_gguf);
