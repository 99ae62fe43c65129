/* state.json of a checkpoint: where the run stands, and what its other files are.
 *
 *     {"format": "dure training state", "version": 1, "step", "micro_batch", "data": a checksum,
 *      "base": a checksum, with adapters, "best": {"step", "loss"} or null,
 *      "smooth": {"sum", "weight", "seen", "high"} (train/spike.h),
 *      "config": {key: text}, the keys that alter results,
 *      "files": {name: {"bytes", "checksum"}}, "checksum": of all of this but itself} */
#ifndef DU_TRAIN_TRAIN_STATE_H
#define DU_TRAIN_TRAIN_STATE_H

#include "train/config.h"
#include "train/spike.h"

/* Where a run stands, beside its weights and moments. */
typedef struct {
    int64_t step;        /* steps done */
    int64_t micro_batch; /* the number of the next one of the training data */
    uint64_t data;       /* checksum of the training data */
    uint64_t base;       /* du_lora_base_sum of the frozen model; 0: there is none */
    int64_t best_step;   /* the checkpoint with the lowest validation loss, 0: none */
    double best_loss;    /* of that */
    du_spike spike;      /* the smoothed loss of all steps */
} du_train_state;

/* Writes dir/state.json, behind all other files of the folder. Returns DU_OK, DU_EIO, DU_ENOENT,
 * DU_ENOMEM. */
DU_NODISCARD
du_err du_train_state_write(const du_train_state *state, const du_train_config *config,
                            const char *dir, du_diag *diag);

/* Reads dir/state.json, that of the step, and compares each file that it names with its length and
 * checksum. All out are untouched on failure.
 * config  its keys, for json_decref
 * model   is there a config.json, or the adapters of a model?
 * Returns DU_OK, DU_ENOENT, DU_EFORMAT (damaged, truncated, no such state), DU_EUNSUPPORTED (of
 * another version), DU_EIO, DU_ELIMIT, DU_ENOMEM. */
DU_NODISCARD
du_err du_train_state_read(du_train_state *out, json_t **config, bool *model, const char *dir,
                           int64_t step, du_diag *diag);

#endif
