/* A model in training: weights, optimizer, gradients and data, moved on by one step at a time. What
 * is written and when is left to train/run.h.
 *
 *     du_trainer_new
 *     du_trainer_begin, or du_saved_load into its params and optim, step set
 *     du_trainer_open_data
 *     while (...) du_trainer_step
 *     du_trainer_free */
#ifndef DU_TRAIN_TRAINER_H
#define DU_TRAIN_TRAINER_H

#include "data/loader.h"
#include "model/grad.h"
#include "train/metrics.h"
#include "train/optim.h"
#include "train/qat.h"

/* What a rank computes of a step's leaves: [first, first + n_seq) together, then those `step`
 * further on, before end. Those that are computed together are a node of the tree over all of them.
 *
 * Where experts are whole, all of a rank's leaves are one such node, too. Where they are spread,
 * all ranks compute together, and what they compute are neighbours:
 *
 *     leaves    0 1 | 2 3 | 4 5 | 6 7 | 8 9 | ...          n_seq = 2, 3 ranks
 *     rank       0     1     2     0     1
 *     round          first            second               each a call of du_grad_add */
typedef struct {
    int64_t before;           /* leaves of all steps before */
    int64_t n;                /* leaves of the step */
    int64_t first, step, end; /* its own, by their number in the step */
    int64_t n_seq;
    int64_t n_rounds;
    int64_t n_ranks; /* that have leaves, the first ones, where experts are whole */
} du_trainer_part;

/* What is measured of the leaves of a step. */
enum { DU_LEAF_LOSS, DU_LEAF_NEXT_LOSS, DU_LEAF_BALANCE, DU_LEAF_MEASURES };

typedef struct {
    const du_train_config *config; /* borrowed */
    du_ctx *ctx;                   /* borrowed */
    du_ranks *ranks;               /* borrowed */
    du_trainer_part part;
    bool spread;         /* routed experts are */
    du_spread_link link; /* where they are */
    du_diag *diag;       /* of the call at hand, for that */
    du_span *leaves;     /* [ranks]: the leaves of each, of a round where experts are spread */
    /* Sums of ranks that wait between rounds, of gradients and of what is added to them */
    float *wait[DU_LEAF_LEVELS], *term_wait[DU_GRAD_TERMS_MAX][DU_LEAF_LEVELS];
    double *measured[DU_LEAF_MEASURES]; /* [leaves of the largest step] */
    du_params *params;
    du_optim optim;
    du_qat qat; /* with qat.type, else empty */
    du_grad *grad;
    du_loader *data, *validation; /* validation NULL: none is given */
    du_loader_batch batch;
    double *losses; /* [rows of the batch] */
    /* Of the token behind the next, with mtp.weight; [rows of the batch] */
    int32_t *next_targets;
    double *next_losses;
    int64_t step;               /* steps done */
    du_metrics_experts experts; /* of the last step that tells of them */
    float *biases;              /* its biases */
    du_grad_flops flops;        /* per token */
    double lr;                  /* of steps without schedules; 0: theirs; set by the caller */
    double peak; /* operations per second of the machine, 0: unknown; set by the caller */
} du_trainer;

/* The config.json of the model that the configuration begins with: that of init, or model.*.
 * json_decref *out. NULL with lora.rank, where du_trainer_new opens init. Returns DU_OK, the errors
 * of du_model_open, DU_EINVAL (model.* do not make a model; seq_len is longer than its context),
 * DU_ENOMEM. */
DU_NODISCARD
du_err du_trainer_shape(json_t **out, const du_train_config *config, du_diag *diag);

/* Weights and moments are zeros, there is no data. Among ranks all call this function and those
 * below, and return the same.
 * shape  a config.json; not read with lora.rank
 * ranks  borrowed
 * Returns DU_OK, DU_EFORMAT (no model's config.json), DU_EUNSUPPORTED (an architecture without a
 * backward pass, a key that needs what the model has not), DU_ENOMEM (also where the plan of the
 * run does not fit; ctx->scratch grows to what it says); with lora.rank, for which no plan is made,
 * the errors of du_model_open and DU_EINVAL (lora.targets names no layer). */
DU_NODISCARD
du_err du_trainer_new(du_trainer **out, du_ctx *ctx, const du_train_config *config,
                      const json_t *shape, du_ranks *ranks, du_diag *diag);
void du_trainer_free(du_trainer *trainer); /* takes NULL */

/* The weights that a run begins with: those of init, random ones by the seed where it has none;
 * adapters that change nothing yet.
 * Returns DU_OK and the errors of du_model_open and du_params_load. */
DU_NODISCARD
du_err du_trainer_begin(du_trainer *trainer, du_diag *diag);

/* Opens the data that the configuration names. The errors of the loader. */
DU_NODISCARD
du_err du_trainer_open_data(du_trainer *trainer, du_diag *diag);

/* One step: `accumulate` micro-batches forward and backward, the update, the router's biases. What
 * it measured into *out, `validation` apart. Returns DU_OK, DU_EFORMAT (no targets), DU_ELIMIT
 * (numbers are not finite any more: names the first tensor; the weights are as before the step),
 * the loader's errors, DU_ENOMEM. */
DU_NODISCARD
du_err du_trainer_step(du_trainer *trainer, du_metrics *out, du_diag *diag);

/* Mean cross-entropy over the first validate.batches micro-batches of the validation data, or as
 * many as it has. The loader's errors, DU_ENOMEM. */
DU_NODISCARD
du_err du_trainer_validate(du_trainer *trainer, double *loss, du_diag *diag);

/* Are all weights finite? Otherwise DU_ELIMIT, naming the first tensor that is not; DU_EIO (a rank
 * is lost), DU_ENOMEM. */
DU_NODISCARD
du_err du_trainer_check_weights(const du_trainer *trainer, du_diag *diag);

#endif
