/* A range test of the learning rate: steps from the weights that a run would begin with, each with
 * a larger rate, until the loss explodes (Smith, "Cyclical Learning Rates for Training Neural
 * Networks", arXiv 1506.01186, section 3.3; growing by a factor as in Gugger's and Howard's fastai,
 * arXiv 2002.04688). */
#ifndef DU_TRAIN_LR_FIND_H
#define DU_TRAIN_LR_FIND_H

#include "train/ranks.h"
#include "train/trainer.h"

/* Rates from the first to the last by equal factors. */
enum { DU_LR_FIND_STEPS = 120 };
#define DU_LR_FIND_FIRST 1e-7
#define DU_LR_FIND_LAST  10.0

typedef struct {
    double lr;
    double loss;   /* before the update with lr */
    double smooth; /* exponential mean of the losses, decay 0.9, its beginning corrected */
} du_lr_point;

typedef struct {
    du_lr_point points[DU_LR_FIND_STEPS];
    int64_t n;
    bool exploded;   /* the last loss was four times the least smooth one, or not finite */
    double steepest; /* the rate where the smoothed loss falls fastest against log lr */
    double lowest;   /* ... where it is least; both NAN: it never falls by more than it varies */
} du_lr_find;

typedef struct {
    const du_train_config *config;
    du_ctx *ctx;
    du_ranks *ranks; /* NULL: one process */
    /* Told of each step; another error than DU_OK ends the test. NULL: nobody is */
    du_err (*step)(void *user, const du_lr_find *so_far, du_diag *diag);
    void *user;
} du_lr_find_params;

/* Tests; nothing is written. All ranks call it. Returns DU_OK, what `step` returns, and the errors
 * of du_trainable_shape, du_trainer_new, du_trainer_begin, du_trainer_open_data, du_same_start,
 * du_trainer_step. */
DU_NODISCARD
du_err du_lr_find_run(du_lr_find *out, const du_lr_find_params *params, du_diag *diag);

/* Sets steepest and lowest from the points. */
void du_lr_find_judge(du_lr_find *find);

#endif
