/* Checkpoints as folders of OUT: their names and those of their files, which there are, and
 * removing them. Nothing is read. One process at a time works in OUT; the callers hold its lock. */
#ifndef DU_TRAIN_CHECKPOINT_DIR_H
#define DU_TRAIN_CHECKPOINT_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { DU_CHECKPOINT_NAME_BYTES = 40 };
#define DU_CHECKPOINT_ADAPTER_CONFIG "adapter_config.json"

/* step-NNNNNN; out [DU_CHECKPOINT_NAME_BYTES]. Returns out. */
char *du_checkpoint_name(char *out, int64_t step);

/* OUT/step-NNNNNN with `ending` behind it, for du_free; NULL when memory is short. */
char *du_checkpoint_path(const char *out, int64_t step, const char *ending);

/* Is it the name of a file that a checkpoint has, or of a temporary one that becomes it? */
bool du_checkpoint_has_name(const char *name);

/* The steps that have a checkpoint, whole or not, ascending; du_free *steps. Returns DU_OK, DU_EIO,
 * DU_ENOENT, DU_ENOMEM. */
DU_NODISCARD
du_err du_checkpoint_list(int64_t **steps, size_t *n, const char *out, du_diag *diag);

/* Could the checkpoint of a step be removed? Returns DU_OK, DU_EIO, DU_ENOMEM, DU_ENOENT, DU_EEXIST
 * (a file in it belongs to no checkpoint, and is named). */
DU_NODISCARD
du_err du_checkpoint_check_ours(const char *out, int64_t step, du_diag *diag);

/* Removes the checkpoint of a step. Returns DU_OK, DU_EIO, DU_ENOMEM, DU_EEXIST (nothing is
 * removed: a file in it belongs to no checkpoint, and is named). */
DU_NODISCARD
du_err du_checkpoint_remove(const char *out, int64_t step, du_diag *diag);

/* Removes what a process that was killed has left half written or half removed. Returns DU_OK,
 * DU_EIO, DU_ENOENT, DU_EEXIST, DU_ENOMEM. */
DU_NODISCARD
du_err du_checkpoint_clean(const char *out, du_diag *diag);

/* Removes what lies behind step, and all before it but the last `keep` and best_step's. A folder
 * with files of others stays. Returns DU_OK, DU_EIO, DU_ENOENT, DU_ENOMEM. */
DU_NODISCARD
du_err du_checkpoint_prune(const char *out, int64_t step, int64_t best_step, int64_t keep,
                           du_diag *diag);

/* Removes a folder and its files; what is not there is no error. Returns DU_OK, DU_EIO, DU_ENOMEM,
 * DU_EEXIST as above. */
DU_NODISCARD
du_err du_checkpoint_remove_dir(const char *dir, du_diag *diag);

#endif
