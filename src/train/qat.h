/* Training for a file of fewer bits: forward and backward passes see the weights rounded as `dure
 * quantize` would, gradients go to the weights themselves as if rounding were not there (the
 * straight-through estimator; Bengio et al. 2013, arXiv 1308.3432, section 4).
 *
 * Over a frozen model the rounded weights are those of the file that merging its adapters and
 * quantising gives: Q(W + s B A) where a matrix has an adapter (L4Q, Jeon et al. 2024, arXiv
 * 2402.04902; LR-QAT, Bondarenko et al. 2024, arXiv 2406.06385), Q(W) elsewhere, and W itself where
 * the file is of that type already. Both lie in memory packed. */
#ifndef DU_TRAIN_QAT_H
#define DU_TRAIN_QAT_H

#include "model/mix.h"
#include "model/params.h"
#include "nn/ctx.h"

/* Rows of a tensor that are rounded together. */
typedef struct {
    int64_t i, row0; /* of params->at, or of frozen */
} du_qat_part;

/* A matrix of a frozen model: with an adapter its sum is packed before passes, without one it is
 * packed once and used in the place of what the file has. */
typedef struct {
    du_mat *mat; /* of the model */
    du_mat from; /* what it was */
    du_mat packed;
} du_qat_frozen;

typedef struct {
    du_params *params;
    const du_mix *mix; /* NULL: F8_E4M3 in tiles of 128 x 128, as DeepSeek-V3 (arXiv 2412.19437,
                          section 3.3); embedding, output and router as they are */
    float *shown;      /* [params->n_values]; NULL over a frozen model */
    du_qat_frozen *frozen;
    int64_t n_frozen;
    uint8_t *packed; /* [packed_bytes + 1]: all that is packed */
    size_t packed_bytes;
    du_qat_part *parts;
    int64_t n_parts, cols_max;
    int64_t n_once; /* of the parts, the first ones: packed in the first pass alone */
} du_qat;

/* Is it a type that weights can be rounded to? Returns DU_OK, DU_EINVAL naming those that are. */
DU_NODISCARD
du_err du_qat_check_type(const char *type, du_diag *diag);

/* type  a name that `dure quantize` knows, or F8_E4M3; its rules say which tensor gets which type.
 * params is borrowed; a frozen model's matrices are the packed ones until du_qat_done. Returns
 * DU_OK, DU_EINVAL (an unknown type), DU_ENOMEM. Free with du_qat_done, which takes an empty one.
 */
DU_NODISCARD
du_err du_qat_init(du_qat *qat, const char *type, du_params *params, du_diag *diag);
void du_qat_done(du_qat *qat);

/* Rounds the weights as they are now and lets the model point to them, until du_params_point says
 * otherwise. Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_qat_show(du_ctx *ctx, du_qat *qat);

/* Memory in bytes. */
typedef struct {
    size_t rounded; /* the weights that are shown */
    size_t scratch; /* of du_qat_show */
} du_qat_memory;

du_qat_memory du_qat_measure(const du_qat *qat, int64_t n_threads);

#endif
