/* metrics.jsonl: a line of JSON per step, for scripts; its fields are a contract
 * (docs/TRAINING.md). */
#ifndef DU_TRAIN_METRICS_H
#define DU_TRAIN_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* A step. NAN: was not measured. */
typedef struct {
    int64_t step;      /* from 1 */
    double loss;       /* mean cross-entropy of the step's targets, before the update */
    double grad_norm;  /* before clipping */
    double lr;         /* the learning rate of the step */
    int64_t tokens;    /* of all steps so far */
    double tok_s;      /* tokens per second of the step */
    double balance;    /* the balance loss */
    double overload;   /* max over mean of an expert's tokens, less 1, meaned over layers:
                          MaxVio_batch   of arXiv 2408.15664, eq. 4 */
    double mtp;        /* mean cross-entropy of the token behind the next */
    double products;   /* share of the step's time in products and attention */
    double peak;       /* operations of the step per second over what the machine can do */
    double validation; /* mean cross-entropy of the validation data, after the update */
} du_metrics;

typedef struct {
    int fd; /* -1: closed */
    char *path;
    int64_t n_bytes; /* of whole lines */
    du_str line;     /* the one that is being written */
} du_metrics_file;

/* Does the folder hold such a file, with something in it? */
bool du_metrics_exist(const char *dir);

/* Opens DIR/metrics.jsonl, which is made when it is missing, and cuts off what follows the line of
 * that step: later steps, and from where lines are not those of ascending steps.
 * out  for du_metrics_close, also after a failure
 * Returns DU_OK, DU_EIO, DU_ENOENT, DU_ENOMEM. */
DU_NODISCARD
du_err du_metrics_open(du_metrics_file *out, const char *dir, int64_t step, du_diag *diag);

/* Adds a line, whole or not at all. Returns DU_OK, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_metrics_add(du_metrics_file *file, const du_metrics *m, du_diag *diag);

/* Waits until the lines are on the disk. Returns DU_OK, DU_EIO. */
DU_NODISCARD
du_err du_metrics_sync(du_metrics_file *file, du_diag *diag);

void du_metrics_close(du_metrics_file *file);

#endif
