/* `dure train --plan`: what a run will take and cost. */
#ifndef DU_CLI_TRAIN_PLAN_H
#define DU_CLI_TRAIN_PLAN_H

#include "nn/ctx.h"
#include "train/config.h"
#include "train/ranks.h"

/* Measures the plan, and prints it at rank 0. Returns the errors of du_trainable_shape,
 * du_trainable_new, du_train_plan_make and du_train_plan_probe, and those of du_train_plan_check
 * behind the plan where the run does not fit. */
DU_NODISCARD
du_err du_cli_train_plan(const du_train_config *config, du_ctx *ctx, du_ranks *ranks, bool as_json,
                         du_diag *diag);

#endif
