/* Writing a loaded model into either container, tensor by tensor, in number types of choice. Only a
 * few megabytes are held at a time, whatever the model's size. A matrix with an adapter is written
 * as their sum. */
#ifndef DU_MODEL_CONVERT_H
#define DU_MODEL_CONVERT_H

#include "model/model.h"

/* A tensor about to be written. */
typedef struct {
    const du_weight_def *def;
    const char *name;      /* in the output */
    int64_t layer;         /* 0 for weights outside the layers */
    int64_t rows, cols, n; /* n stacked matrices [rows, cols] */
    du_dtype source;       /* type it has in the model's files */
} du_out_tensor;

/* The number type to write; what does not fit the container or the row length falls back
 * (du_dtype_fallback; F32 in safetensors). Vectors and routers are not asked for. */
typedef du_dtype du_choose_fn(void *user, const du_out_tensor *t);

/* Importance of the columns of matrix i_matrix of a tensor, [cols] f32, or NULL. */
typedef const float *du_importance_fn(void *user, const du_out_tensor *t, int64_t i_matrix);

/* Fetches a matrix that the model has no data of: rows [t->rows, t->cols] out. Its errors end the
 * writing. */
typedef du_err du_fetch_fn(void *user, const du_out_tensor *t, float *rows, du_diag *diag);

/* Called after each piece; true stops (DU_ECANCELLED). */
typedef bool du_convert_progress_fn(void *user, int64_t bytes_done, int64_t bytes_all);

typedef struct {
    du_choose_fn *choose;             /* NULL: du_choose_keep */
    du_importance_fn *importance;     /* may be NULL */
    du_convert_progress_fn *progress; /* may be NULL */
    du_fetch_fn *fetch;               /* NULL: the model has all of its matrices */
    du_pool *pool;                    /* NULL: this thread alone */
    void *user;
} du_convert_params;

typedef struct {
    int64_t n_tensors, n_params, bytes; /* of what was written; bytes of tensors only */
    int64_t bytes_of[DU_DTYPE_COUNT];
    bool from_quantised; /* some source matrix was block-quantised and has another type now */
} du_convert_stats;

/* Each tensor's own type: FP8 becomes BF16; in safetensors block types become F32, which holds
 * their values exactly. */
du_dtype du_choose_keep(void *user, const du_out_tensor *t);

/* Writes model to a GGUF file. w holds what the caller wants in it besides (the tokenizer's keys);
 * general.architecture, the hyper-parameters and tensors are added, then the file is written and
 * committed. w stays the caller's.
 * Returns DU_OK, DU_EIO, DU_ENOMEM, DU_ECANCELLED, DU_EUNSUPPORTED. */
DU_NODISCARD
du_err du_convert_gguf(const du_model *model, du_gguf_writer *w, const char *path,
                       const du_convert_params *params, du_convert_stats *stats, du_diag *diag);

/* What Hugging Face's config.json says of the architecture and its hyper-parameters; json_decref
 * *out. Returns DU_OK, DU_ENOMEM, DU_EUNSUPPORTED (config.json cannot say it). */
DU_NODISCARD
du_err du_convert_config(json_t **out, const du_model *model, du_diag *diag);

/* Writes model.safetensors (or shards and their index) and config.json into dir, which is made.
 * extra is merged into config.json (token ids), may be NULL. Tokenizer files are the caller's.
 * Returns as above; DU_EUNSUPPORTED also for what config.json cannot say. */
DU_NODISCARD
du_err du_convert_hf(const du_model *model, const char *dir, const json_t *extra,
                     const du_convert_params *params, du_convert_stats *stats, du_diag *diag);

#endif
