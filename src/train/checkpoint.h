/* Checkpoints: OUT/step-NNNNNN/, a Hugging Face directory that every command opens, or the adapters
 * of one, with what a run needs to go on as if it had never stopped. The layout is described in
 * checkpoint.c.
 *
 * One process at a time works in OUT; the callers hold its lock. */
#ifndef DU_TRAIN_CHECKPOINT_H
#define DU_TRAIN_CHECKPOINT_H

#include "train/checkpoint_dir.h"
#include "train/checkpoint_tensors.h"
#include "train/train_state.h"

/* Writes OUT/step-NNNNNN, which is there with all of its bytes on the disk or not at all. What has
 * the name already goes once the new one is whole. All ranks of the optimizer call it: rank 0
 * writes, the others send what they own.
 * Returns DU_OK, DU_EIO, DU_EEXIST (files of others in a folder of that name), DU_ENOMEM,
 * DU_EUNSUPPORTED (du_convert_hf); the same at all ranks. */
DU_NODISCARD
du_err du_checkpoint_save(const char *out, const du_checkpoint *c, const du_train_state *state,
                          du_diag *diag);

/* A checkpoint whose files have been found whole. */
typedef struct {
    char *dir;
    du_train_state state;
    json_t *config;       /* of the run, as du_train_config_kept gives it */
    json_t *model_config; /* config.json; NULL: the checkpoint holds adapters */
} du_saved;

/* Opens the checkpoint of a step and compares each file with its length and checksum.
 * out  for du_saved_close; untouched on failure
 * Returns DU_OK, DU_ENOENT (no state.json), DU_EFORMAT (truncated, damaged, no checkpoint),
 * DU_EUNSUPPORTED (of another version), DU_EIO, DU_ELIMIT, DU_ENOMEM; each names the folder. */
DU_NODISCARD
du_err du_saved_open(du_saved *out, const char *dir_of_run, int64_t step, du_diag *diag);
void du_saved_close(du_saved *saved);

#endif
