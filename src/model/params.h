/* The weights of a model as F32 numbers in one block of memory: what training changes. Gradients,
 * moments and running means are further blocks of the same length, so that a tensor's are found by
 * one offset.
 *
 * The model in it computes and is saved as any other (du_convert_hf); its tensors are those of
 * Hugging Face's container, in the order of the weight table. Rotated rows of queries and keys are
 * in Hugging Face's order.
 *
 *     | all but the routed experts, in the order of the table | expert 0, all layers | 1 | ... |
 *
 * so that what one of several processes holds of the experts is one range. What it does not hold
 * has its place in the block, which is never touched and so takes no memory. */
#ifndef DU_MODEL_PARAMS_H
#define DU_MODEL_PARAMS_H

#include "model/model.h"

/* A tensor. A vector has one row. */
typedef struct {
    const du_weight_def *def;
    int64_t layer;  /* 0 outside the layers */
    int64_t expert; /* -1 outside the routed experts */
    int64_t rows, cols;
    int64_t offset; /* of its first value in the block; a multiple of 16 */
    char name[DU_WEIGHT_NAME_BYTES];
} du_param;

typedef struct {
    du_model *model;             /* its matrices lie in `shown`; with adapters, in its files */
    const float *shown;          /* `values`, or another block of the same layout */
    float *values;               /* [n_values], 64-byte aligned; between tensors zeros */
    int64_t n_values, n_weights; /* with and without what lies between */
    int64_t n_common;            /* values before those of the routed experts */
    int64_t e_first, e_end;      /* experts that are here; others have no data */
    du_param *at;
    int64_t n;
    /* Of a frozen model (model/lora.h): [n_adapters], that of at[2 i] and at[2 i + 1], A and B;
     * behind them are biases of routers. NULL: the values are the model's own */
    du_adapter *adapters;
    int64_t n_adapters;
    int64_t n_nextn; /* layers behind the trunk that are computed */
} du_params;

/* A model of zeros with the shape that a Hugging Face config.json says; also for gradients, which
 * have it too. Returns DU_OK, DU_ELIMIT (more tensors or weights than any model has), DU_ENOMEM,
 * and the errors of an architecture's read_hf. Free with du_params_free. */
DU_NODISCARD
du_err du_params_new(du_params **out, const json_t *config, du_diag *diag);

void du_params_free(du_params *params); /* takes NULL */

/* Leaves part i of n of the routed experts here (du_spread_first). */
void du_params_spread(du_params *params, int64_t i, int64_t n);

/* Are experts missing here? */
static inline bool du_params_is_spread(const du_params *params) {
    return params->e_end - params->e_first < params->model->hp.router.n_expert && !params->adapters;
}

/* Is the tensor here? */
static inline bool du_params_holds(const du_params *params, const du_param *t) {
    return params->adapters || t->expert < 0 ||
           (t->expert >= params->e_first && t->expert < params->e_end);
}

/* Values of the block that are here. */
int64_t du_params_n_here(const du_params *params);

/* The values of a model of the same shape, of whatever container and number types, as far as they
 * are here. Optional tensors and layers behind the trunk that it lacks keep theirs.
 * Returns DU_OK, DU_EFORMAT (a tensor is missing there), DU_ENOMEM. */
DU_NODISCARD
du_err du_params_load(du_params *params, const du_model *from, du_diag *diag);

/* Lets the model's matrices and vectors lie in another block [n_values], borrowed; params->values:
 * in their own again. Adapters stay where they are. */
void du_params_point(du_params *params, const float *block);

/* Fills the matrices that are here with normal numbers of that standard deviation, norms with 1,
 * biases with 0. A tensor's numbers depend on the seed and its name alone. */
void du_params_init(du_params *params, double deviation, uint64_t seed);

#endif
