/* `dure train --lr-find`: which learning rates a run can bear. */
#ifndef DU_CLI_TRAIN_LR_FIND_H
#define DU_CLI_TRAIN_LR_FIND_H

#include "train/lr_find.h"

/* Tests and prints. Returns DU_ECANCELLED behind a signal, where nothing is printed, DU_ELIMIT (no
 * rate lowers the loss), and the errors of du_lr_find_run. */
DU_NODISCARD
du_err du_cli_train_lr_find(const du_train_config *config, du_ctx *ctx, du_ranks *ranks,
                            bool as_json, bool quiet, du_diag *diag);

#endif
