/* OUT/report.html: a run on one page, without scripts and without anything from outside: curves of
 * metrics.jsonl, the load of experts, samples, the configuration.
 *
 * What is drawn is kept in bounded memory and fed line by line (plot/series.h), so writing the
 * page takes no longer late in a run than early, and depends on the files alone. */
#ifndef DU_TRAIN_REPORT_H
#define DU_TRAIN_REPORT_H

#include <jansson.h>

#include "base/err.h"
#include "base/str.h"

#define DU_REPORT_FILE "report.html"

typedef struct du_report du_report;

/* Reads what the folder has of a run.
 * out  new handle, free with du_report_free; untouched on failure
 * dir  copied
 * Returns DU_OK, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_report_open(du_report **out, const char *dir, du_diag *diag);
void du_report_free(du_report *report); /* takes NULL */

/* A line that was added to metrics.jsonl, or to samples.jsonl. Shortness of memory is told by
 * du_report_write. */
void du_report_add(du_report *report, du_sv line);
void du_report_add_samples(du_report *report, du_sv line);

/* The step of the last line of metrics.jsonl; 0: there is none. */
int64_t du_report_step(const du_report *report);

/* Writes the page to path, whole or not at all. Also reads DIR/run.json and the names of the
 * checkpoints. Returns DU_OK, DU_EIO, DU_ENOENT, DU_ENOMEM. */
DU_NODISCARD
du_err du_report_write(const du_report *report, const char *path, du_diag *diag);

#endif
