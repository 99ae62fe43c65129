/* The load of routed experts over a step: the biases of routers that move against it, and what is
 * told of it. counts are those of du_grad_counts. */
#ifndef DU_TRAIN_EXPERT_LOAD_H
#define DU_TRAIN_EXPERT_LOAD_H

#include "model/params.h"
#include "train/metrics.h"

/* For metrics; empty for dense models. */
typedef struct {
    du_metrics_experts told; /* of the last step that tells of them */
    float *biases;           /* its biases [layers, n_expert]; NULL: the model has none */
} du_expert_load;

/* n_counts: of du_grad_counts. Returns DU_OK, DU_ENOMEM. Free with du_expert_load_done, which takes
 * an empty one. */
DU_NODISCARD
du_err du_expert_load_init(du_expert_load *load, const du_params *params, int64_t n_counts,
                           du_diag *diag);
void du_expert_load_done(du_expert_load *load);

/* Has the model a bias that only chooses experts? */
bool du_expert_load_has_bias(const du_params *params);

/* Experts that got more than their share of the step's tokens become less likely to be chosen, the
 * others more: their biases move by `step` (DeepSeek-V3, arXiv 2412.19437, section 2.1.2). */
void du_expert_load_balance(du_params *params, const int64_t *counts, double step);

/* Max over mean of an expert's tokens, less 1, meaned over the layers that have experts: MaxVio of
 * arXiv 2408.15664, eq. 4. NAN: there are none. */
double du_expert_load_overload(const du_params *params, const int64_t *counts);

/* What the line of a step tells of experts, until the next call; NULL: nothing. */
const du_metrics_experts *du_expert_load_tell(du_expert_load *load, const du_params *params,
                                              const int64_t *counts, int64_t step);

#endif
