/* Training for a file of fewer bits: forward and backward passes see the weights rounded as `dure
 * quantize` would, gradients go to the weights themselves as if rounding were not there (the
 * straight-through estimator; Bengio et al. 2013, arXiv 1308.3432, section 4). */
#ifndef DU_TRAIN_QAT_H
#define DU_TRAIN_QAT_H

#include "model/mix.h"
#include "model/params.h"
#include "nn/ctx.h"

/* Rows of a tensor that are rounded together. */
typedef struct {
    int64_t i_param, row0;
} du_qat_part;

typedef struct {
    du_params *params;
    const du_mix *mix; /* NULL: F8_E4M3 in tiles of 128 x 128, as DeepSeek-V3 (arXiv 2412.19437,
                          section 3.3); embedding, output and router as they are */
    float *shown;      /* [params->n_values] */
    du_qat_part *parts;
    int64_t n_parts, cols_max;
} du_qat;

/* Is it a type that weights can be rounded to? Returns DU_OK, DU_EINVAL naming those that are. */
DU_NODISCARD
du_err du_qat_check_type(const char *type, du_diag *diag);

/* type  a name that `dure quantize` knows, or F8_E4M3; its rules say which tensor gets which type.
 * params is borrowed. Returns DU_OK, DU_EINVAL (an unknown type), DU_ENOMEM. Free with du_qat_done,
 * which takes an empty one. */
DU_NODISCARD
du_err du_qat_init(du_qat *qat, const char *type, du_params *params, du_diag *diag);
void du_qat_done(du_qat *qat);

/* Rounds the weights as they are now and lets the model point to them, until du_params_point says
 * otherwise. Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_qat_show(du_ctx *ctx, du_qat *qat);

#endif
