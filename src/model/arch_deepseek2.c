/* DeepSeek-V2, V3, R1 and what shares their layers (Kimi K2, Moonlight, GLM-4.7-Flash).
 *
 *     x += attention(norm(x))       multi-head latent attention
 *     x += ffn(norm(x))             dense in the first layers, then routed + shared experts
 *
 * Latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1). Per head h
 *
 *     q      = [q_nope | q_rope]                 from x, or from a normalised latent of x
 *     c      = norm(latent of x)                 [R], cached; so is the rotated key k_rope [P]
 *     score  = q_nope . (K_h c) + q_rope . k_rope = (K_h^T q_nope) . c + q_rope . k_rope
 *     output = V_h (sum_s p_s c_s)
 *
 * absorbed: the query [K_h^T q_nope | q_rope] of R + P values meets the cache rows directly, and
 * the sum of latents goes through V_h once. Long prompts expand keys and values instead
 * (nn/latent.h).
 *
 * k_b holds K_h^T ([R, nope] per head), v_b holds V_h. Files that store K and V together
 * (attn_kv_b, kv_b_proj: per head nope rows, then v rows) get K_h^T made once at loading. */
#include "model/arch_deepseek2.h"
#include "nn/basic.h"
#include "nn/latent.h"
#include "nn/linear.h"
#include "nn/moe.h"
#include "tensor/half.h"

#define MAT(field_, role_, where_, rows_, cols_, gguf_, hf_, input_)                               \
    {                                                                                              \
        .field = offsetof(du_deepseek2_layer, field_), .kind = DU_WEIGHT_MAT, .in_layer = true,    \
        .role = DU_ROLE_##role_, .where = DU_IN_##where_, .rows = DU_DIM_##rows_,                  \
        .cols = DU_DIM_##cols_, .gguf = "blk.%d." gguf_ ".weight",                                 \
        .hf = "model.layers.%d." hf_ ".weight", .input = input_                                    \
    }
#define VEC(field_, where_, rows_, gguf_, hf_)                                                     \
    {                                                                                              \
        .field = offsetof(du_deepseek2_layer, field_), .kind = DU_WEIGHT_VEC, .in_layer = true,    \
        .role = DU_ROLE_NORM, .where = DU_IN_##where_, .rows = DU_DIM_##rows_,                     \
        .gguf = "blk.%d." gguf_ ".weight", .hf = "model.layers.%d." hf_ ".weight"                  \
    }
#define EXPERTS(field_, role_, rows_, cols_, gguf_, hf_, input_, ...)                              \
    {                                                                                              \
        .field = offsetof(du_deepseek2_layer, field_), .kind = DU_WEIGHT_EXPERTS,                  \
        .in_layer = true, .role = DU_ROLE_##role_, .where = DU_IN_MOE, .rows = DU_DIM_##rows_,     \
        .cols = DU_DIM_##cols_, .gguf = "blk.%d." gguf_ ".weight",                                 \
        .hf = "model.layers.%d.mlp.experts.%d." hf_ ".weight", .input = input_, __VA_ARGS__        \
    }

#define NEXTN(field_, rows_, cols_, kind_, role_, hf_)                                             \
    {                                                                                              \
        .field = offsetof(du_deepseek2_layer, block.field_), .kind = DU_WEIGHT_##kind_,            \
        .in_layer = true, .where = DU_IN_NEXTN, .role = DU_ROLE_##role_, .rows = DU_DIM_##rows_,   \
        .cols = DU_DIM_##cols_, .hf = "model.layers.%d." hf_ ".weight"                             \
    }

static const du_weight_def weights[] = {
    DU_TOP_WEIGHTS,
    VEC(block.attn_norm, ALL, D, "attn_norm", "input_layernorm"),
    MAT(q, ATTN_Q, Q_PLAIN, Q, D, "attn_q", "self_attn.q_proj", "attn_norm"),
    MAT(q_a, ATTN_Q, Q_LATENT, RQ, D, "attn_q_a", "self_attn.q_a_proj", "attn_norm"),
    VEC(q_a_norm, Q_LATENT, RQ, "attn_q_a_norm", "self_attn.q_a_layernorm"),
    MAT(q_b, ATTN_Q, Q_LATENT, Q, RQ, "attn_q_b", "self_attn.q_b_proj", "q_latent"),
    MAT(kv_a, ATTN_KV, ALL, RKVP, D, "attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa", "attn_norm"),
    VEC(kv_a_norm, ALL, RKV, "attn_kv_a_norm", "self_attn.kv_a_layernorm"),
    {.field = offsetof(du_deepseek2_layer, kv_b),
     .kind = DU_WEIGHT_MAT,
     .in_layer = true,
     .optional = true,
     .read_only = true,
     .role = DU_ROLE_ATTN_KV,
     .rows = DU_DIM_H_NOPE_V,
     .cols = DU_DIM_RKV,
     .gguf = "blk.%d.attn_kv_b.weight",
     .hf = "model.layers.%d.self_attn.kv_b_proj.weight"},
    {.field = offsetof(du_deepseek2_layer, k_heads),
     .kind = DU_WEIGHT_HEADS,
     .in_layer = true,
     .optional = true,
     .role = DU_ROLE_ATTN_K,
     .rows = DU_DIM_RKV,
     .cols = DU_DIM_NOPE,
     .gguf = "blk.%d.attn_k_b.weight",
     .input = "q"},
    {.field = offsetof(du_deepseek2_layer, v_heads),
     .kind = DU_WEIGHT_HEADS,
     .in_layer = true,
     .optional = true,
     .role = DU_ROLE_ATTN_V,
     .rows = DU_DIM_VH,
     .cols = DU_DIM_RKV,
     .gguf = "blk.%d.attn_v_b.weight",
     .input = "attn_latent"},
    MAT(attn_out, ATTN_OUT, ALL, D, O, "attn_output", "self_attn.o_proj", "attn_heads"),
    VEC(block.ffn_norm, ALL, D, "ffn_norm", "post_attention_layernorm"),
    MAT(block.ffn_gate, FFN_GATE, DENSE, F, D, "ffn_gate", "mlp.gate_proj", "ffn_norm"),
    MAT(block.ffn_up, FFN_UP, DENSE, F, D, "ffn_up", "mlp.up_proj", "ffn_norm"),
    MAT(block.ffn_down, FFN_DOWN, DENSE, D, F, "ffn_down", "mlp.down_proj", "ffn_hidden"),
    MAT(block.router, ROUTER, MOE, E, D, "ffn_gate_inp", "mlp.gate", "ffn_norm"),
    {.field = offsetof(du_deepseek2_layer, block.router_bias),
     .kind = DU_WEIGHT_VEC,
     .in_layer = true,
     .optional = true,
     .chooses = true,
     .where = DU_IN_MOE,
     .role = DU_ROLE_BIAS,
     .rows = DU_DIM_E,
     .gguf = "blk.%d.exp_probs_b.bias",
     .hf = "model.layers.%d.mlp.gate.e_score_correction_bias"},
    EXPERTS(block.expert_gate, EXPERT_GATE, FX, D, "ffn_gate_exps", "gate_proj", "expert_in",
            .gguf_fused = "blk.%d.ffn_gate_up_exps.weight"),
    EXPERTS(block.expert_up, EXPERT_UP, FX, D, "ffn_up_exps", "up_proj", "expert_in",
            .gguf_fused = "blk.%d.ffn_gate_up_exps.weight"),
    EXPERTS(block.expert_down, EXPERT_DOWN, D, FX, "ffn_down_exps", "down_proj", "expert_hidden",
            .gguf_fused = NULL),
    MAT(block.shared_gate, SHARED_GATE, MOE_SHARED, FS, D, "ffn_gate_shexp",
        "mlp.shared_experts.gate_proj", "ffn_norm"),
    MAT(block.shared_up, SHARED_UP, MOE_SHARED, FS, D, "ffn_up_shexp", "mlp.shared_experts.up_proj",
        "ffn_norm"),
    MAT(block.shared_down, SHARED_DOWN, MOE_SHARED, D, FS, "ffn_down_shexp",
        "mlp.shared_experts.down_proj", "shared_hidden"),
    NEXTN(nextn_embed_norm, D, ONE, VEC, NORM, "enorm"),
    NEXTN(nextn_hidden_norm, D, ONE, VEC, NORM, "hnorm"),
    NEXTN(nextn_proj, D, D2, MAT, NEXTN_PROJ, "eh_proj"),
    NEXTN(nextn_norm, D, ONE, VEC, NORM, "shared_head.norm"),
};

static du_err needs_latent(const du_hparams *hp, const char *path, du_diag *diag) {
    if (hp->kv_rank > 0) {
        return DU_OK;
    }
    return du_fail(diag, DU_EFORMAT, "%s: kv_lora_rank is missing: no latent attention", path);
}

static du_err read_gguf(du_hparams *hp, const du_gguf *g, du_diag *diag) {
    du_err err = du_hparams_read_gguf(hp, g, "deepseek2", diag);
    hp->rope_layout = DU_ROPE_NORM;
    return err == DU_OK ? needs_latent(hp, du_gguf_path(g), diag) : err;
}

static du_err read_hf(du_hparams *hp, const json_t *config, du_diag *diag) {
    du_err err = du_hparams_read_hf(hp, config, diag);
    hp->rope_layout = DU_ROPE_NORM;
    return err == DU_OK ? needs_latent(hp, "config", diag) : err;
}

/* K_h^T of a stored [nope, R] block in a number type that holds its values: the file's own for F32,
 * F16 and BF16, F32 for FP8 (value times scale), F16 for block types. */
static du_err transpose_head(du_model *model, const du_mat *k, float *row, du_mat *out) {
    bool half = k->dtype == DU_F16 || k->dtype == DU_BF16 || du_dtype_is_block(k->dtype);
    du_mat t = {.dtype = k->dtype == DU_BF16 ? DU_BF16
                         : half              ? DU_F16
                                             : DU_F32,
                .rows = k->cols,
                .cols = k->rows};
    t.row_bytes = du_dtype_row_bytes(t.dtype, t.cols);
    char *data = du_model_alloc(model, (size_t)t.rows, t.row_bytes);
    if (!data) {
        return DU_ENOMEM;
    }
    for (int64_t n = 0; n < k->rows; n++) {
        du_mat_unpack_row(row, k, n);
        for (int64_t r = 0; r < t.rows; r++) {
            int64_t at = r * t.cols + n;
            if (t.dtype == DU_F32) {
                ((float *)(void *)data)[at] = row[r];
            } else {
                ((uint16_t *)(void *)data)[at] =
                    t.dtype == DU_F16 ? du_f16_of_f32(row[r]) : du_bf16_of_f32(row[r]);
            }
        }
    }
    t.data = data;
    *out = t;
    return DU_OK;
}

static du_err finish_layer(du_model *model, int64_t i, float *row, du_diag *diag) {
    const du_hparams *hp = &model->hp;
    du_deepseek2_layer *w = du_model_layer(model, i);
    int64_t H = hp->n_head, nope = du_hparams_nope(hp);
    if (w->k_heads && w->v_heads) {
        return DU_OK;
    }
    if (!w->kv_b.data) {
        return du_fail(diag, DU_EFORMAT,
                       "%s: layer %lld has neither attn_kv_b nor attn_k_b and attn_v_b",
                       du_weights_path(model->files), (long long)i);
    }
    w->k_heads = du_model_alloc(model, (size_t)H, sizeof *w->k_heads);
    w->v_heads = du_model_alloc(model, (size_t)H, sizeof *w->v_heads);
    if (!w->k_heads || !w->v_heads) {
        return du_fail_nomem(diag, "attention heads");
    }
    for (int64_t h = 0; h < H; h++) {
        int64_t row0 = h * (nope + hp->v_dim);
        du_mat k = du_mat_slice(&w->kv_b, row0, nope);
        w->v_heads[h] = du_mat_slice(&w->kv_b, row0 + nope, hp->v_dim);
        if (transpose_head(model, &k, row, &w->k_heads[h]) != DU_OK) {
            return du_fail_nomem(diag, "the transposed key matrices");
        }
    }
    return DU_OK;
}

static du_err finish(du_model *model, du_diag *diag) {
    float *row = du_model_alloc(model, (size_t)model->hp.kv_rank, sizeof *row);
    du_err err = row ? DU_OK : du_fail_nomem(diag, "the model");
    for (int64_t i = 0; err == DU_OK && i < model->hp.n_layer; i++) {
        err = finish_layer(model, i, row, diag);
    }
    return err;
}

/* kv_b from its two halves: per head the nope rows of K_h, then the v rows of V_h. */
static du_err compose(const du_model *model, const du_weight_def *def, int64_t layer, float *out) {
    const du_hparams *hp = &model->hp;
    const du_deepseek2_layer *w = du_model_layer(model, layer);
    DU_CHECK(def->field == offsetof(du_deepseek2_layer, kv_b));
    int64_t nope = du_hparams_nope(hp), R = hp->kv_rank;
    float *row = du_alloc_array((size_t)nope, sizeof *row);
    if (!row) {
        return DU_ENOMEM;
    }
    for (int64_t h = 0; h < hp->n_head; h++) {
        for (int64_t r = 0; r < R; r++) {
            du_mat_unpack_row(row, &w->k_heads[h], r);
            for (int64_t n = 0; n < nope; n++) {
                out[n * R + r] = row[n];
            }
        }
        out += nope * R;
        for (int64_t v = 0; v < hp->v_dim; v++, out += R) {
            du_mat_unpack_row(out, &w->v_heads[h], v);
        }
    }
    du_free(row);
    return DU_OK;
}

static du_err kv_layout(const du_hparams *hp, du_dtype dtype, du_kv_layout *out, du_diag *diag) {
    return du_kv_layout_init(out, dtype, hp->n_layer, 1, hp->kv_rank + hp->rope_dim, hp->kv_rank,
                             true, diag);
}

/* Buffers of one forward pass, shared by its layers. */
typedef struct {
    float *x, *norm;  /* [T,D] */
    float *cos, *sin; /* [T,P/2] */
    float *q_latent;  /* [T,Rq] */
    float *q;         /* [T,H,nope+P] */
    float *kv;        /* [T,R+P]: the new cache rows */
    float *heads;     /* [T,H,v] */
    float *y;         /* [T,D] */
} buffers;

static du_err take_buffers(du_ctx *ctx, const du_hparams *hp, int64_t T, buffers *b) {
    int64_t D = hp->d_model, H = hp->n_head, R = hp->kv_rank, P = hp->rope_dim;
    b->x = DU_SCRATCH(ctx, float, T *D);
    b->norm = DU_SCRATCH(ctx, float, T *D);
    b->cos = DU_SCRATCH(ctx, float, T *P / 2);
    b->sin = DU_SCRATCH(ctx, float, T *P / 2);
    b->q_latent = DU_SCRATCH(ctx, float, T * hp->q_rank);
    b->q = DU_SCRATCH(ctx, float, T *H * hp->k_dim);
    b->kv = DU_SCRATCH(ctx, float, T *(R + P));
    b->heads = DU_SCRATCH(ctx, float, T *H * hp->v_dim);
    b->y = DU_SCRATCH(ctx, float, T *D);
    bool all =
        b->x && b->norm && b->cos && b->sin && b->q_latent && b->q && b->kv && b->heads && b->y;
    return all ? DU_OK : DU_ENOMEM;
}

/* q [T,H,nope+P] and the latent rows kv [T,R+P], both before rotation. */
static du_err project(du_ctx *ctx, const du_model *model, const du_deepseek2_layer *w,
                      int64_t i_layer, const buffers *b, int64_t T) {
    const du_hparams *hp = &model->hp;
    int64_t D = hp->d_model, Q = hp->n_head * hp->k_dim, Rq = hp->q_rank;
    int64_t row = hp->kv_rank + hp->rope_dim;
    bool factored = Rq > 0;
    du_linear_out outs[] = {
        {factored ? b->q_latent : b->q, factored ? Rq : Q, factored ? &w->q_a : &w->q, NULL},
        {b->kv, row, &w->kv_a, NULL}};
    du_err err = du_linear_fwd(ctx, outs, 2, b->norm, D, T);
    if (err == DU_OK && factored) {
        du_rmsnorm_fwd(ctx, b->q_latent, Rq, b->q_latent, Rq, w->q_a_norm, T, Rq, hp->latent_eps);
        du_tap(ctx, "q_latent", i_layer, b->q_latent, T, Rq);
        err = du_linear_fwd(ctx, &(du_linear_out){b->q, Q, &w->q_b, NULL}, 1, b->q_latent, Rq, T);
    }
    return err;
}

/* y = attention(norm) */
static du_err attention(du_ctx *ctx, const du_model *model, const du_deepseek2_layer *w,
                        int64_t i_layer, const du_batch *batch, const buffers *b) {
    const du_hparams *hp = &model->hp;
    int64_t T = batch->T, H = hp->n_head, R = hp->kv_rank, P = hp->rope_dim, Q = H * hp->k_dim;
    int64_t nope = du_hparams_nope(hp), row = R + P;
    du_err err = project(ctx, model, w, i_layer, b, T);
    if (err != DU_OK) {
        return err;
    }
    du_rope_fwd(ctx, b->q + nope, Q, H, hp->k_dim, b->cos, b->sin, hp->rope_layout, T, P / 2);
    du_rope_fwd(ctx, b->kv + R, row, 1, row, b->cos, b->sin, hp->rope_layout, T, P / 2);
    du_rmsnorm_fwd(ctx, b->kv, row, b->kv, row, w->kv_a_norm, T, R, hp->latent_eps);
    du_tap(ctx, "kv_row", i_layer, b->kv, T, row);
    du_kv_append(ctx, batch->kv, i_layer, &batch->rows, b->kv, NULL);

    du_tap(ctx, "q", i_layer, b->q, T, Q);
    du_attn_params params = {H, model->attn_scale, model->block_quantised};
    du_latent_weights heads = {w->k_heads, w->v_heads};
    err = du_latent_fwd(ctx, b->heads, b->q, &heads, batch->kv, i_layer, &batch->rows, &params);
    if (err == DU_OK) {
        du_tap(ctx, "attn_heads", i_layer, b->heads, T, H * hp->v_dim);
        du_linear_out out = {b->y, hp->d_model, &w->attn_out, NULL};
        err = du_linear_fwd(ctx, &out, 1, b->heads, H * hp->v_dim, T);
    }
    return err;
}

/* y = routed experts(norm) + shared experts(norm) */
static du_err experts(du_ctx *ctx, const du_model *model, const du_deepseek2_layer *w,
                      int64_t i_layer, const buffers *b, int64_t T) {
    const du_hparams *hp = &model->hp;
    const du_expert shared = {w->block.shared_gate, w->block.shared_up, w->block.shared_down};
    return du_moe_fwd(ctx, b->y, b->norm, &w->block.router, w->block.router_bias, &hp->router,
                      &model->experts, hp->n_shared_expert > 0 ? &shared : NULL, i_layer, T,
                      hp->d_ff_expert);
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
        const du_deepseek2_layer *w = du_model_layer(model, i);
        du_rmsnorm_fwd(ctx, b.norm, D, b.x, D, w->block.attn_norm, T, D, hp->eps);
        du_tap(ctx, "attn_norm", i, b.norm, T, D);
        err = attention(ctx, model, w, i, batch, &b);
        if (err != DU_OK) {
            return err;
        }
        du_add_fwd(ctx, b.x, b.y, T, D);
        du_rmsnorm_fwd(ctx, b.norm, D, b.x, D, w->block.ffn_norm, T, D, hp->eps);
        du_tap(ctx, "ffn_norm", i, b.norm, T, D);
        if (i < hp->n_dense_layer) {
            err = du_ffn_fwd(ctx, b.y, b.norm, &w->block.ffn_gate, &w->block.ffn_up,
                             &w->block.ffn_down, "ffn_hidden", i, T);
        } else {
            err = experts(ctx, model, w, i, &b, T);
        }
        if (err != DU_OK) {
            return err;
        }
        du_add_fwd(ctx, b.x, b.y, T, D);
        du_tap(ctx, "layer", i, b.x, T, D);
    }
    return du_model_logits(ctx, model, batch, b.x);
}

static const char *const hf_types[] = {"deepseek_v3", "deepseek_v2", "kimi_k2", "glm4_moe_lite",
                                       NULL};
static const char *const hf_classes[] = {"DeepseekV3ForCausalLM", "DeepseekV2ForCausalLM",
                                         "DeepseekV3ForCausalLM", "Glm4MoeLiteForCausalLM"};

extern const du_arch du_arch_deepseek2;
const du_arch du_arch_deepseek2 = {
    .name = "deepseek2",
    .hf_types = hf_types,
    .hf_classes = hf_classes,
    .weights = weights,
    .n_weights = sizeof weights / sizeof *weights,
    .layer_bytes = sizeof(du_deepseek2_layer),
    .read_gguf = read_gguf,
    .read_hf = read_hf,
    .finish = finish,
    .compose = compose,
    .kv_layout = kv_layout,
    .forward = forward,
    .train = &du_deepseek2_train,
};
