/* A model in training: weights, optimizer, gradients and data, moved on by one step at a time. What
 * is written and when is left to train/run.h.
 *
 *     du_trainer_new
 *     du_trainer_begin, or du_checkpoint_load into its params and optim, step set
 *     du_trainer_open_data
 *     while (...) du_trainer_step
 *     du_trainer_free */
#ifndef DU_TRAIN_TRAINER_H
#define DU_TRAIN_TRAINER_H

#include "train/expert_load.h"
#include "train/passes.h"

typedef struct {
    const du_train_config *config; /* borrowed */
    du_ctx *ctx;                   /* borrowed */
    du_ranks *ranks;               /* borrowed */
    du_batch_split split;          /* of the step at hand */
    du_params *params;
    du_optim optim;
    du_passes passes;
    du_expert_load load;
    int64_t step;        /* steps done */
    du_grad_flops flops; /* per token */
    double lr;           /* of steps without schedules; 0: theirs; set by the caller */
    double peak;         /* operations per second of the machine, 0: unknown; set by the caller */
} du_trainer;

/* Moments are zeros, there is no data. Among ranks all call this function and those below, and
 * return the same.
 * params  of du_trainable_new; taken over, also on failure
 * ranks   borrowed
 * Returns DU_OK, DU_ENOMEM (also where the plan of the run does not fit; ctx->scratch grows to what
 * it says), and the errors of du_train_plan_make. */
DU_NODISCARD
du_err du_trainer_of(du_trainer **out, du_ctx *ctx, const du_train_config *config,
                     du_params *params, du_ranks *ranks, du_diag *diag);

/* The same of what a shape makes (du_trainable_shape). Also the errors of du_trainable_new. */
DU_NODISCARD
du_err du_trainer_new(du_trainer **out, du_ctx *ctx, const du_train_config *config,
                      const json_t *shape, du_ranks *ranks, du_diag *diag);
void du_trainer_free(du_trainer *trainer); /* takes NULL */

/* The weights that a run begins with. The errors of du_trainable_begin. */
DU_NODISCARD
du_err du_trainer_begin(du_trainer *trainer, du_diag *diag);

/* Opens the data. The errors of du_passes_open. */
DU_NODISCARD
du_err du_trainer_open_data(du_trainer *trainer, du_diag *diag);

/* One step: `accumulate` micro-batches forward and backward, the update, the router's biases. What
 * it measured into *out, `validation` apart. Returns DU_OK, DU_EFORMAT (no targets), DU_ELIMIT
 * (numbers are not finite any more: names the first tensor; the weights are as before the step),
 * the loader's errors, DU_EIO (a rank is lost), DU_ENOMEM. */
DU_NODISCARD
du_err du_trainer_step(du_trainer *trainer, du_metrics *out, du_diag *diag);

/* The validation loss. The errors of du_passes_validate. */
DU_NODISCARD
du_err du_trainer_validate(du_trainer *trainer, double *loss, du_diag *diag);

/* Are all weights finite? Otherwise DU_ELIMIT, naming the first tensor that is not; DU_EIO (a rank
 * is lost), DU_ENOMEM. */
DU_NODISCARD
du_err du_trainer_check_weights(const du_trainer *trainer, du_diag *diag);

#endif
