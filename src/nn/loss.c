#include "nn/loss.h"

#include <math.h>
#include <string.h>

typedef struct {
    const du_kern *kern;
    const du_cross_entropy *ce;
    float *logits;
    int64_t row0, V;
} rows_job;

/* The gradient of a row over itself; returns its cross-entropy. */
static double row_loss(const rows_job *job, float *logits, int64_t target, double weight) {
    const du_cross_entropy *ce = job->ce;
    float max = -INFINITY, sum = 0, at_target = logits[target];
    job->kern->softmax(logits, job->V, &max, &sum);
    double lse = (double)max + log((double)sum), all = ce->scale * weight;
    job->kern->scale(logits, (float)(all * (1 + 2 * ce->z * lse) / (double)sum), job->V);
    logits[target] -= (float)(all * (1 - ce->smoothing));
    float spread = (float)(all * ce->smoothing / (double)job->V);
    for (int64_t v = 0; spread > 0 && v < job->V; v++) {
        logits[v] -= spread;
    }
    return weight * (lse - (double)at_target);
}

static void loss_row(void *arg, int64_t i, int64_t i_thread) {
    (void)i_thread;
    const rows_job *job = arg;
    const du_cross_entropy *ce = job->ce;
    float *logits = job->logits + i * job->V;
    int64_t t = job->row0 + i;
    double weight = ce->weights ? (double)ce->weights[t] : 1;
    if (ce->targets[t] < 0) {
        memset(logits, 0, (size_t)job->V * sizeof *logits);
        ce->losses[t] = 0;
    } else {
        ce->losses[t] = row_loss(job, logits, ce->targets[t], weight);
    }
}

du_err du_cross_entropy_rows(du_objective *self, du_ctx *ctx, float *logits, int64_t row0,
                             int64_t n, int64_t V) {
    rows_job job = {ctx->kern, (const du_cross_entropy *)self, logits, row0, V};
    du_pool_run(ctx->pool, loss_row, &job, n);
    return DU_OK;
}
