/* `dure train --plan`: what a run will take and cost. */
#ifndef DU_CLI_TRAIN_PLAN_H
#define DU_CLI_TRAIN_PLAN_H

#include "nn/ctx.h"
#include "train/config.h"

/* Measures and prints the plan. Returns DU_OK, DU_EUNSUPPORTED (lora.rank), the errors of
 * du_trainable_shape and du_train_plan_make, and those of du_train_plan_check behind the plan where
 * the run does not fit.
 */
DU_NODISCARD
du_err du_cli_train_plan(const du_train_config *config, du_ctx *ctx, bool as_json, du_diag *diag);

#endif
