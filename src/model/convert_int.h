/* Inside model/: producing the rows of output tensors, shared by the two container writers. */
#ifndef DU_MODEL_CONVERT_INT_H
#define DU_MODEL_CONVERT_INT_H

#include "model/convert.h"

/* An output tensor and where its rows come from. */
typedef struct {
    du_out_tensor out;
    du_dtype type;       /* to write */
    const float *vector; /* VEC */
    const du_mat *mats;  /* [n], or NULL: composed by the architecture */
    bool permute;        /* rows of each head change between halves and interleaved */
    bool to_interleaved;
    int64_t n_bytes;
    char name[DU_WEIGHT_NAME_BYTES];
} du_plan_entry;

typedef struct {
    const du_model *model;
    const du_convert_params *params;
    du_plan_entry *entries;
    size_t n, cap;
    int64_t bytes_all, bytes_done;
    du_convert_stats *stats;
} du_plan;

/* Rows 2i and 2i+1 of an interleaved head are rows i and i + Dh/2 of its halves: the row of one
 * order that is row r of the other. */
static inline int64_t du_rope_row(const du_hparams *hp, int64_t r, bool to_interleaved) {
    int64_t Dh = hp->k_dim, head = r / Dh * Dh, i = r % Dh;
    return head + (to_interleaved ? i / 2 + i % 2 * (Dh / 2) : i % (Dh / 2) * 2 + i / (Dh / 2));
}

typedef void du_put_bytes_fn(void *writer, const void *bytes, size_t n);

/* Lists every tensor that the container gets, in the order of the table, layer by layer. */
DU_NODISCARD
du_err du_plan_make(du_plan *plan, const du_model *model, const du_convert_params *params,
                    bool gguf, du_convert_stats *stats, du_diag *diag);
void du_plan_done(du_plan *plan);

/* Produces one tensor's bytes in order and hands them to put.
 * Returns DU_OK, DU_ENOMEM, DU_ECANCELLED. */
DU_NODISCARD
du_err du_plan_write(du_plan *plan, const du_plan_entry *entry, du_put_bytes_fn *put, void *writer,
                     du_diag *diag);

#endif
