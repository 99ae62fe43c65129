/* The files that tell of a run: metrics.jsonl, events.*, samples.jsonl, run.json, report.html. One
 * process writes them, rank 0. */
#ifndef DU_TRAIN_JOURNAL_H
#define DU_TRAIN_JOURNAL_H

#include "train/events.h"
#include "train/report.h"
#include "train/trainer.h"

typedef struct {
    const char *dir; /* borrowed until the close */
    du_lines metrics;
    du_events events;
    du_lines samples; /* closed where there are none */
    json_t *prompts;  /* of samples, an array; NULL: none are wanted */
    du_report *report;
    int64_t reported; /* the step of the page that this process wrote; 0: it is to be written */
} du_journal;

#define DU_JOURNAL_CLOSED                                                                          \
    (du_journal) {                                                                                 \
        .metrics.fd = -1, .events.fd = -1, .samples.fd = -1                                        \
    }

/* Does the folder hold metrics of a run? */
bool du_journal_exists(const char *dir);

/* Removes the files. Returns DU_OK, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_journal_remove(const char *dir, du_diag *diag);

/* Opens the files of the folder that the trainer's configuration names, cuts off what they tell of
 * steps behind the trainer's, and adds this process to run.json.
 * out  for du_journal_close, also after a failure
 * Returns DU_OK, DU_EINVAL (sample.prompt), DU_EIO, DU_ENOENT, DU_ENOMEM. */
DU_NODISCARD
du_err du_journal_open(du_journal *out, const du_trainer *trainer, du_diag *diag);
void du_journal_close(du_journal *journal);

/* The line of a step in metrics.jsonl, whole or not at all, and its event. Returns DU_OK, DU_EIO,
 * DU_ENOMEM. */
DU_NODISCARD
du_err du_journal_add(du_journal *journal, const du_metrics *m, du_diag *diag);

/* Waits until the lines of metrics and samples are on the disk. Returns DU_OK, DU_EIO. */
DU_NODISCARD
du_err du_journal_sync(du_journal *journal, du_diag *diag);

/* Are samples wanted that samples.jsonl does not have yet? */
bool du_journal_wants_samples(const du_journal *journal, int64_t step);

/* The line of a step in samples.jsonl. texts: an array as long as `prompts`. Returns DU_OK, DU_EIO,
 * DU_ENOMEM. */
DU_NODISCARD
du_err du_journal_add_samples(du_journal *journal, int64_t step, const json_t *texts,
                              du_diag *diag);

/* Writes report.html, unless it shows all lines. Returns the errors of du_report_write. */
DU_NODISCARD
du_err du_journal_report(du_journal *journal, du_diag *diag);

#endif
