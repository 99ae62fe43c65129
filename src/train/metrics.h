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

/* What is measured of a step, in the order of a line:
 * X(name in metrics.jsonl, in event files, points of it that a report keeps)
 *
 *     loss        mean cross-entropy of the step's targets, before the update
 *     grad_norm   before clipping
 *     lr          the learning rate of the step
 *     tok_s       tokens per second of the step
 *     products    share of the step's time in products and attention
 *     peak        operations of the step per second over what the machine can do
 *     balance     the balance loss
 *     mtp_loss    mean cross-entropy of the token behind the next
 *     overload    max over mean of an expert's tokens, less 1, meaned over layers: MaxVio_batch of
 *                 arXiv 2408.15664, eq. 4
 *     validation  mean cross-entropy of the validation data, after the update */
#define DU_METRICS_LIST(X)                                                                         \
    X(loss, "loss", 1024)                                                                          \
    X(grad_norm, "grad_norm", 512)                                                                 \
    X(lr, "lr", 512)                                                                               \
    X(tok_s, "speed/tok_s", 512)                                                                   \
    X(products, "speed/products", 512)                                                             \
    X(peak, "speed/peak", 512)                                                                     \
    X(balance, "balance", 512)                                                                     \
    X(mtp_loss, "mtp_loss", 512)                                                                   \
    X(overload, "overload", 512)                                                                   \
    X(validation, "validation", 512)

/* A step. NAN: was not measured. */
typedef struct {
    int64_t step;   /* from 1 */
    int64_t tokens; /* of all steps so far */
#define DU_METRICS_FIELD(name, tag, n_points) double name;
    DU_METRICS_LIST(DU_METRICS_FIELD)
#undef DU_METRICS_FIELD
    const du_metrics_experts *experts; /* until the next step; NULL: none, or no step that has it */
} du_metrics;

/* Does the line of a step tell of experts? Of steps to 127 all, later 64 in each doubling: the file
 * of a long run does not grow by them, and charts of it are as fine as those of a short one. */
bool du_metrics_has_experts(int64_t step);

/* Adds a line, whole or not at all. Returns DU_OK, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_metrics_add(du_lines *file, const du_metrics *m, du_diag *diag);

#endif
