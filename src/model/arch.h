/* What an architecture is: a name, a weight table, readers of its hyper-parameters, a forward pass.
 *
 * One file model/arch_x.c defines each and one line of arch_list.h makes it known. The weight table
 * drives loading, conversion in both directions, quantisation, counting and the documentation. */
#ifndef DU_MODEL_ARCH_H
#define DU_MODEL_ARCH_H

#include "formats/weights.h"
#include "model/hparams.h"
#include "nn/attention.h"
#include "nn/experts.h"

/* Dimensions a weight's rows and columns can have; du_dim_value computes them. */
#define DU_DIM_LIST(X)                                                                             \
    X(ONE, 1)                                                                                      \
    X(V, hp->n_vocab)                                                                              \
    X(D, hp->d_model)                                                                              \
    X(F, hp->d_ff)                                                                                 \
    X(FX, hp->d_ff_expert)                                                                         \
    X(FS, hp->d_ff_expert * hp->n_shared_expert)                                                   \
    X(E, hp->router.n_expert)                                                                      \
    X(DH, hp->k_dim)                                                                               \
    X(Q, hp->n_head * hp->k_dim)     /* all query heads */                                         \
    X(K, hp->n_head_kv * hp->k_dim)  /* all key heads */                                           \
    X(KV, hp->n_head_kv * hp->v_dim) /* all value heads */                                         \
    X(O, hp->n_head * hp->v_dim)     /* all head outputs */                                        \
    X(RQ, hp->q_rank)                                                                              \
    X(RKV, hp->kv_rank)                                                                            \
    X(RKVP, hp->kv_rank + hp->rope_dim)                                                            \
    X(NOPE, hp->k_dim - hp->rope_dim)                                                              \
    X(VH, hp->v_dim)                                                                               \
    X(H_NOPE_V, hp->n_head *(hp->k_dim - hp->rope_dim + hp->v_dim))                                \
    X(PAIRS, hp->rope_dim / 2)                                                                     \
    X(D2, 2 * hp->d_model)

#define DU_DIM_ENUM(name, value) DU_DIM_##name,
typedef enum { DU_DIM_LIST(DU_DIM_ENUM) DU_DIM_COUNT } du_dim;
#undef DU_DIM_ENUM

int64_t du_dim_value(const du_hparams *hp, du_dim dim);

/* What a weight is for: decides its number type when quantising, and its training group. */
#define DU_ROLE_LIST(X)                                                                            \
    X(EMBED, "embedding")                                                                          \
    X(OUTPUT, "output")                                                                            \
    X(NORM, "norm")                                                                                \
    X(BIAS, "bias")                                                                                \
    X(ROPE, "rope factors")                                                                        \
    X(ATTN_Q, "attention q")                                                                       \
    X(ATTN_K, "attention k")                                                                       \
    X(ATTN_V, "attention v")                                                                       \
    X(ATTN_KV, "attention kv")                                                                     \
    X(ATTN_OUT, "attention output")                                                                \
    X(FFN_GATE, "ffn gate")                                                                        \
    X(FFN_UP, "ffn up")                                                                            \
    X(FFN_DOWN, "ffn down")                                                                        \
    X(ROUTER, "router")                                                                            \
    X(EXPERT_GATE, "experts gate")                                                                 \
    X(EXPERT_UP, "experts up")                                                                     \
    X(EXPERT_DOWN, "experts down")                                                                 \
    X(SHARED_GATE, "shared expert gate")                                                           \
    X(SHARED_UP, "shared expert up")                                                               \
    X(SHARED_DOWN, "shared expert down")                                                           \
    X(NEXTN_PROJ, "projection of the next token")

#define DU_ROLE_ENUM(name, text) DU_ROLE_##name,
typedef enum { DU_ROLE_LIST(DU_ROLE_ENUM) DU_ROLE_COUNT } du_role;
#undef DU_ROLE_ENUM

const char *du_role_name(du_role role);

typedef enum {
    DU_WEIGHT_VEC,    /* const float *: rows values, converted to f32 when stored otherwise */
    DU_WEIGHT_MAT,    /* du_mat [rows, cols] */
    DU_WEIGHT_HEADS,  /* du_mat * of n_head matrices [rows, cols], stacked in the file */
    DU_WEIGHT_EXPERTS /* du_mat * of n_expert matrices [rows, cols]; stacked in GGUF, one by one in
                         HF */
} du_weight_kind;

/* Where a weight exists. */
typedef enum {
    DU_IN_ALL,
    DU_IN_DENSE,      /* layers before n_dense_layer */
    DU_IN_MOE,        /* layers from n_dense_layer on */
    DU_IN_MOE_SHARED, /* those, when there are shared experts */
    DU_IN_Q_LATENT,   /* q_rank > 0 */
    DU_IN_Q_PLAIN,    /* q_rank = 0 */
    DU_IN_NEXTN       /* layers behind the trunk, which predict further tokens */
} du_where;

/* How rows differ between the containers. */
typedef enum {
    DU_ROWS_SAME,
    DU_ROWS_ROPE_Q, /* GGUF interleaves the two halves of every head (rope pairs 2i, 2i+1) */
    DU_ROWS_ROPE_K
} du_rows_order;

typedef struct {
    size_t field; /* offset in du_top_weights, or in the architecture's layer struct */
    du_weight_kind kind;
    bool in_layer;
    bool optional;
    bool read_only; /* an older form: read from GGUF files, never written to one */
    bool chooses;   /* moves the choice of experts alone: no gradient reaches it */
    du_where where;
    du_role role;
    du_dim rows, cols; /* VEC: rows values, cols ONE */
    const char *gguf;  /* "blk.%d.attn_q.weight"; NULL: not in this container */
    const char *hf;    /* "model.layers.%d.self_attn.q_proj.weight"; experts: a second %d; NULL */
    const char *gguf_fused; /* a GGUF tensor that holds the rows of all entries naming it, in table
                               order (per expert); used when the entry's own is absent; NULL */
    du_rows_order order;
    const char *input; /* the tap that shows what the matrix is multiplied with; HEADS: rows of
                          n_head equal parts, each beginning with one head's cols values */
} du_weight_def;

/* The name in layer i (of expert e): replaces each %d of a pattern in turn. Returns out. */
const char *du_weight_name(char *out, size_t size, const char *pattern, int64_t layer,
                           int64_t expert);
enum { DU_WEIGHT_NAME_BYTES = 256 };

/* Matrices that the entry stacks: 1, n_head or n_expert. */
int64_t du_weight_def_n(const du_weight_def *def, const du_hparams *hp);

/* Is the weight there in layer i (top weights: any i)? Layers from n_layer on are those behind the
 * trunk, whose weights a model may lack. */
bool du_weight_def_in(const du_weight_def *def, const du_hparams *hp, int64_t layer);

/* Weights outside the layers, the same for all architectures. */
typedef struct {
    du_mat embed;              /* [V,D] */
    const float *norm;         /* [D] */
    du_mat output;             /* [V,D]; embed when tied */
    const float *rope_factors; /* [rope_dim/2] or NULL */
} du_top_weights;

/* What every architecture's layer struct begins with: norms and feed-forward. Absent matrices have
 * no data. */
typedef struct {
    const float *attn_norm, *ffn_norm;             /* [D] */
    du_mat ffn_gate, ffn_up, ffn_down;             /* dense layers: [F,D], [F,D], [D,F] */
    du_mat router;                                 /* [E,D] */
    const float *router_bias;                      /* [E] or NULL */
    du_mat *expert_gate, *expert_up, *expert_down; /* [E] */
    du_mat shared_gate, shared_up, shared_down;    /* width FX * shared */
    /* Behind the trunk: [D], [D], [D], [D,2D] (DeepSeek-V3, arXiv 2412.19437, section 2.2) */
    const float *nextn_embed_norm, *nextn_hidden_norm, *nextn_norm;
    du_mat nextn_proj;
} du_block;

/* Files that have a layer behind the trunk hold its projection under this name. */
#define DU_NEXTN_PROJ_HF "model.layers.%d.eh_proj.weight"

/* The entries of an architecture's table that fill du_top_weights. */
#define DU_TOP_WEIGHTS                                                                             \
    {.field = offsetof(du_top_weights, embed),                                                     \
     .kind = DU_WEIGHT_MAT,                                                                        \
     .role = DU_ROLE_EMBED,                                                                        \
     .rows = DU_DIM_V,                                                                             \
     .cols = DU_DIM_D,                                                                             \
     .gguf = "token_embd.weight",                                                                  \
     .hf = "model.embed_tokens.weight"},                                                           \
        {.field = offsetof(du_top_weights, norm),                                                  \
         .kind = DU_WEIGHT_VEC,                                                                    \
         .role = DU_ROLE_NORM,                                                                     \
         .rows = DU_DIM_D,                                                                         \
         .gguf = "output_norm.weight",                                                             \
         .hf = "model.norm.weight"},                                                               \
        {.field = offsetof(du_top_weights, output),                                                \
         .kind = DU_WEIGHT_MAT,                                                                    \
         .optional = true,                                                                         \
         .role = DU_ROLE_OUTPUT,                                                                   \
         .rows = DU_DIM_V,                                                                         \
         .cols = DU_DIM_D,                                                                         \
         .gguf = "output.weight",                                                                  \
         .hf = "lm_head.weight",                                                                   \
         .input = "output_norm"},                                                                  \
    {                                                                                              \
        .field = offsetof(du_top_weights, rope_factors), .kind = DU_WEIGHT_VEC, .optional = true,  \
        .role = DU_ROLE_ROPE, .rows = DU_DIM_PAIRS, .gguf = "rope_freqs.weight"                    \
    }

typedef struct du_model du_model;

/* One forward pass over rows of one or more sequences whose pages exist. */
typedef struct {
    int64_t T;
    const int32_t *tokens; /* [T] in [0, n_vocab) */
    du_attn_rows rows;     /* rows.T = T */
    const du_kv_layout *kv;
    int64_t n_out;           /* rows whose logits are wanted */
    const int32_t *out_rows; /* [n_out], each in [0, T) */
    float *logits;           /* [n_out, V] f32 out */
} du_batch;

typedef struct du_arch {
    const char *name;              /* general.architecture of GGUF files */
    const char *const *hf_types;   /* model_type of config.json, the first is written; NULL ends */
    const char *const *hf_classes; /* "architectures" written for each of hf_types */
    const du_weight_def *weights;
    int64_t n_weights;
    size_t layer_bytes;

    /* Read and check hyper-parameters. */
    du_err (*read_gguf)(du_hparams *hp, const du_gguf *g, du_diag *diag);
    du_err (*read_hf)(du_hparams *hp, const json_t *config, du_diag *diag);

    /* Derives what the files hold in another form; called once after loading; may be NULL. Memory
     * comes from du_model_alloc. */
    du_err (*finish)(du_model *model, du_diag *diag);

    /* The values of a matrix that the model holds in another form only, as f32 [rows, cols] into
     * out (conversion to a container that wants it). NULL: every matrix is held as it is stored. */
    du_err (*compose)(const du_model *model, const du_weight_def *def, int64_t layer, float *out);

    /* The cache this architecture wants in a number type. */
    du_err (*kv_layout)(const du_hparams *hp, du_dtype dtype, du_kv_layout *out, du_diag *diag);

    /* Returns DU_OK, DU_ENOMEM (scratch), or an expert source's error. */
    du_err (*forward)(du_ctx *ctx, const du_model *model, const du_batch *batch);

    const struct du_arch_train *train; /* its attention in training (model/grad_int.h) */
} du_arch;

/* Layers of the trunk and, where the architecture has such, behind it. */
int64_t du_arch_n_layers(const du_arch *arch, const du_hparams *hp);

/* NULL when unknown. */
const du_arch *du_arch_of_gguf(du_sv name);
const du_arch *du_arch_of_hf(const char *model_type);
const du_arch *du_arch_at(int64_t i); /* NULL beyond the last */

/* The architecture and hyper-parameters that a Hugging Face config.json says. Returns DU_OK,
 * DU_EUNSUPPORTED (a model_type that none has: names those that are known), DU_EFORMAT, and the
 * other errors of read_hf. */
DU_NODISCARD
du_err du_arch_read_hf(const du_arch **arch, du_hparams *hp, const json_t *config, du_diag *diag);

#endif
