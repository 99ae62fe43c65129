/* A training run in its folder: metrics.jsonl, checkpoints, a report, going on where it stopped.
 *
 *     du_run_open
 *     while (!du_run_done(run)) du_run_step
 *     du_run_save          when it is to stop before
 *     du_run_close
 *
 * A run that was stopped at any time and resumed writes the bytes of one that never was, tok_s
 * apart, and so do several ranks, which all call these functions and get the same errors. */
#ifndef DU_TRAIN_RUN_H
#define DU_TRAIN_RUN_H

#include "train/checkpoint.h"
#include "train/trainer.h"

/* What to do with a folder that holds a run: refuse it, go on from its last whole checkpoint,
 * remove what it wrote. */
typedef enum { DU_RUN_NEW, DU_RUN_RESUME, DU_RUN_OVERWRITE } du_run_how;

typedef struct {
    const du_train_config *config; /* checked; borrowed until the close */
    du_run_how how;
    du_ctx *ctx;     /* borrowed until the close */
    du_ranks *ranks; /* borrowed until the close; all see the same folder; rank 0 alone writes */
    double peak; /* operations per second of the machine (`peak` of metrics.jsonl); 0: unknown */
    /* Adds what checkpoints hold beside the model; called for a run that begins, and for one that
     * goes on when the configuration names a tokenizer. NULL: nothing */
    du_err (*companions)(void *user, const du_train_config *config, du_companions *c,
                         du_diag *diag);
    /* Asks a checkpoint, rank 0 alone: appends to `texts` an answer to each of the prompts of
     * sample.prompt, of at most sample.tokens tokens, that depends on the checkpoint alone. NULL:
     * there are no samples */
    du_err (*sample)(void *user, const du_train_config *config, const char *checkpoint,
                     const json_t *prompts, json_t *texts, du_diag *diag);
    void (*note)(void *user, const char *text); /* a line for people; NULL: nobody listens */
    void *user;
} du_run_params;

typedef struct du_run du_run;

/* Takes the folder for this process, opens the data, and makes the model or loads it.
 * out  new handle, free with du_run_close (takes NULL); untouched on failure
 * Returns DU_OK, DU_EEXIST (the folder holds a run, or another process works in it), DU_EINVAL (a
 * run cannot go on with a changed key, other data or another model under its adapters),
 * DU_EUNSUPPORTED (a checkpoint of another version), DU_EIO, DU_ENOMEM, and the errors of
 * du_checkpoint_clean, du_trainer_new, du_trainer_open_data, du_trainer_begin, du_same_start,
 * du_journal_open and `companions`. A checkpoint that is not whole is told by a note and passed
 * over. */
DU_NODISCARD
du_err du_run_open(du_run **out, const du_run_params *params, du_diag *diag);
void du_run_close(du_run *run);

const du_trainer *du_run_trainer(const du_run *run);
bool du_run_done(const du_run *run); /* all steps are */

/* The smoothed loss of all steps (train/spike.h), those before a resumption too. */
double du_run_smooth(const du_run *run);

/* A step, its line in metrics.jsonl, and the checkpoint when one is due, with samples and report.
 * *out as in that line. Returns the errors of du_trainer_step, du_trainer_validate, du_journal_add
 * and du_run_save, DU_ELIMIT where the loss stays above spike.factor times the smoothed one
 * (checkpoints before it stay); the run cannot go on after one, its last checkpoint is whole. */
DU_NODISCARD
du_err du_run_step(du_run *run, du_metrics *out, du_diag *diag);

/* A checkpoint of the last step, and the report, unless it has them. Returns the errors of
 * du_trainer_check_weights, du_journal_sync, du_checkpoint_save and du_checkpoint_prune. */
DU_NODISCARD
du_err du_run_save(du_run *run, du_diag *diag);

/* The folder of the last checkpoint that this process has written or begun with; NULL: none. */
const char *du_run_saved(const du_run *run);

#endif
