/* A loaded model: hyper-parameters, weights in place in the mapped files, and the forward pass. */
#ifndef DU_MODEL_MODEL_H
#define DU_MODEL_MODEL_H

#include "model/arch.h"

struct du_model {
    const du_arch *arch;
    du_hparams hp;
    du_weights *files; /* owned */
    du_top_weights top;
    void *layers;           /* n_layer structs of arch->layer_bytes */
    const float *rope_freq; /* [rope_dim/2] */
    float rope_magnitude, attn_scale;
    bool fp8;             /* some matrix is F8_E4M3 */
    bool block_quantised; /* some matrix is: activations and cache may be rounded by default */
    du_expert_source experts;
    du_arena *arena;                /* owns what was converted or derived */
    struct du_model_strips *strips; /* model/strips.h */
};

/* Loads a model from a GGUF file or a Hugging Face directory.
 * out  new handle, free with du_model_close; untouched on failure
 * Returns DU_OK and every error of du_weights_open; DU_EUNSUPPORTED (an architecture or a feature
 * that dure does not compute), DU_EFORMAT (missing key or tensor, wrong shape), DU_ENOMEM. */
DU_NODISCARD
du_err du_model_open(du_model **out, const char *path, du_diag *diag);

/* The same from files that are already open; takes over `files` also on failure. */
DU_NODISCARD
du_err du_model_load(du_model **out, du_weights *files, du_diag *diag);
void du_model_close(du_model *model); /* takes NULL */

/* A model of no file, from a Hugging Face config.json: place puts its weights into the empty fields
 * of the table's entries. It is not ready for inference: an architecture's derived forms are not
 * made. Returns place's errors, DU_EFORMAT, DU_EUNSUPPORTED, DU_ENOMEM. */
typedef du_err du_model_place_fn(void *user, du_model *model, du_diag *diag);
DU_NODISCARD
du_err du_model_of_config(du_model **out, const json_t *config, du_model_place_fn *place,
                          void *user, du_diag *diag);

/* Memory that lives as long as the model; NULL when there is none. */
void *du_model_alloc(du_model *model, size_t n, size_t size_bytes);

/* The struct of layer i. */
static inline void *du_model_layer(const du_model *model, int64_t i) {
    return (char *)model->layers + (size_t)i * model->arch->layer_bytes;
}

/* What it begins with. */
static inline const du_block *du_model_block(const du_model *model, int64_t i) {
    return (const du_block *)du_model_layer(model, i);
}

/* Layers behind the trunk that the model really has. */
int64_t du_model_n_nextn(const du_model *model);

/* Where the table's entry lies in layer i (top weights: any i). */
void *du_model_field(const du_model *model, const du_weight_def *def, int64_t layer);

/* Runs the architecture's forward pass. Returns DU_OK, DU_ENOMEM, or a source's error. */
DU_NODISCARD
du_err du_model_forward(du_ctx *ctx, const du_model *model, const du_batch *batch);

/* The parts that architectures share. x [T,D] f32 out: embeddings of the batch's tokens. */
void du_model_embed(du_ctx *ctx, const du_model *model, const du_batch *batch, float *x);

/* Final norm and output matrix for the rows whose logits are wanted. x [T,D] */
DU_NODISCARD
du_err du_model_logits(du_ctx *ctx, const du_model *model, const du_batch *batch, const float *x);

typedef struct {
    int64_t n_params;               /* weights in all */
    int64_t n_params_active;        /* used by one token: chosen experts only, embedding row only */
    int64_t bytes;                  /* of all weights */
    int64_t bytes_per_token;        /* read to decode one token, without the cache */
    int64_t expert_bytes_per_token; /* of these, the chosen experts */
    int64_t macs_per_token; /* multiply-adds with matrices to decode one token: attention apart */
    int64_t output_macs;    /* of these, the output matrix */
} du_model_counts;

du_model_counts du_model_count(const du_model *model);

#endif
