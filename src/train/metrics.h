/* OUT/metrics.jsonl: a line of JSON per step, for scripts; its fields are a contract
 * (docs/TRAINING.md). */
#ifndef DU_TRAIN_METRICS_H
#define DU_TRAIN_METRICS_H

#include "train/lines.h"

#define DU_METRICS_FILE "metrics.jsonl"

/* How often experts were chosen in a step, and the biases that choose them after it. Rows of layers
 * without experts are not told. */
typedef struct {
    int64_t n_layers, n_experts;
    const int64_t *counts; /* [n_layers, n_experts] */
    const float *biases;   /* [n_layers, n_experts]; NULL: the model has none */
} du_metrics_experts;

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
    const du_metrics_experts *experts; /* until the next step; NULL: none, or no step that has it */
} du_metrics;

/* Does the line of a step tell of experts? Of steps to 127 all, later 64 in each doubling: the file
 * of a long run does not grow by them, and charts of it are as fine as those of a short one. */
bool du_metrics_has_experts(int64_t step);

/* Adds a line, whole or not at all. Returns DU_OK, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_metrics_add(du_lines *file, const du_metrics *m, du_diag *diag);

#endif
