/* Importance matrices: how large the inputs of every weight matrix are, column by column, over a
 * text. A quantiser then spends its accuracy where inputs are large.
 *
 * The file is the GGUF form that llama.cpp reads and writes: per tensor NAME two F32 tensors,
 * NAME.in_sum2 [n_matrices, cols], sums of squared inputs, and NAME.counts [n_matrices, 1], how
 * many rows were summed. */
#ifndef DU_MODEL_IMATRIX_H
#define DU_MODEL_IMATRIX_H

#include "model/convert.h"

typedef struct du_imatrix du_imatrix;

/* Empty, for a model (borrowed). Returns DU_OK, DU_ENOMEM. Free with du_imatrix_free. */
DU_NODISCARD
du_err du_imatrix_new(du_imatrix **out, const du_model *model, du_diag *diag);
void du_imatrix_free(du_imatrix *im); /* takes NULL */

/* A du_tap_fn, with the imatrix as its user: adds what passes by. */
void du_imatrix_tap(void *user, const char *name, int64_t layer, int64_t expert, const float *x,
                    int64_t T, int64_t D);

/* Writes what was collected. dataset names the text; chunks of n_chunk_tokens were run.
 * Returns DU_OK, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_imatrix_save(const du_imatrix *im, const char *path, const char *dataset,
                       int64_t n_chunks, int64_t n_chunk_tokens, du_diag *diag);

/* Reads a file into an empty imatrix. Tensors that the model does not have are ignored.
 * Returns DU_OK, the errors of du_gguf_open, DU_EFORMAT (no importance matrix, a wrong shape, or
 * none of the model's tensors in it). */
DU_NODISCARD
du_err du_imatrix_load(du_imatrix *im, const char *path, du_diag *diag);

/* Mean squared input per column of matrix i_matrix of a tensor, [cols]; NULL when it was never
 * used: for du_convert_params.importance. */
const float *du_imatrix_find(const du_imatrix *im, const du_out_tensor *t, int64_t i_matrix);

/* Expert matrices of the model, and those of them that the text never used. */
void du_imatrix_experts(const du_imatrix *im, int64_t *n_experts, int64_t *n_unused);

#endif
