/* Checkpoints: OUT/step-NNNNNN/, a Hugging Face directory that every command opens, or the adapters
 * of one, with what a run needs to go on as if it had never stopped. The layout is described in
 * checkpoint.c.
 *
 * One process at a time works in OUT; the callers hold its lock. */
#ifndef DU_TRAIN_CHECKPOINT_H
#define DU_TRAIN_CHECKPOINT_H

#include "formats/companions.h"
#include "train/optim.h"
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

/* What goes into a checkpoint; borrowed. */
typedef struct {
    const du_train_config *config;
    const du_params *params;
    const du_optim *optim;
    const du_companions *companions;
    du_pool *pool; /* may be NULL */
} du_checkpoint;

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
 * Returns DU_OK, DU_ENOENT (no state.json), DU_EFORMAT (truncated, damaged, no checkpoint), DU_EIO,
 * DU_ELIMIT, DU_ENOMEM; each names the folder. */
DU_NODISCARD
du_err du_saved_open(du_saved *out, const char *dir_of_run, int64_t step, du_diag *diag);
void du_saved_close(du_saved *saved);

/* Its weights, and the moments that the optimizer owns, into a model of config.json's shape, or
 * adapters of the run's, and an optimizer of the run's kind. Returns DU_OK, DU_EFORMAT (tensors
 * missing, too many, of another shape or type), DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_saved_load(const du_saved *saved, du_params *params, du_optim *optim, du_diag *diag);

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

/* Removes what a process that was killed has left half written or half removed. */
DU_NODISCARD
du_err du_checkpoint_clean(const char *out, du_diag *diag);

/* Removes what lies behind state->step, and all before it but the last `keep` and the best one. A
 * folder with files of others stays. */
DU_NODISCARD
du_err du_checkpoint_prune(const char *out, const du_train_state *state, int64_t keep,
                           du_diag *diag);

enum { DU_CHECKPOINT_NAME_BYTES = 40 };

/* step-NNNNNN; out [DU_CHECKPOINT_NAME_BYTES]. Returns out. */
char *du_checkpoint_name(char *out, int64_t step);

#endif
