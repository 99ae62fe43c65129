#include "nn/acts.h"

typedef struct {
    const du_kern *kern;
    const float *x;
    int64_t ldx, cols;
    int8_t *q;
    float *d;
    int16_t *sum;
} quantize_job;

static void quantize_row(void *arg, int64_t t, int64_t i_thread) {
    (void)i_thread;
    const quantize_job *job = arg;
    job->kern->quantize(job->q + t * job->cols, job->d + t * (job->cols / 32),
                        job->sum + t * (job->cols / 16), job->x + t * job->ldx, job->cols);
}

du_err du_acts_make(du_ctx *ctx, du_acts *out, const float *x, int64_t ldx, int64_t T, int64_t cols,
                    bool with_q8) {
    *out = (du_acts){.x = x, .ldx = ldx, .T = T, .cols = cols};
    if (!with_q8) {
        return DU_OK;
    }
    quantize_job job = {ctx->kern, x, ldx, cols, NULL, NULL, NULL};
    job.q = DU_SCRATCH(ctx, int8_t, T * cols);
    job.d = DU_SCRATCH(ctx, float, T *(cols / 32));
    job.sum = DU_SCRATCH(ctx, int16_t, T * (cols / 16));
    if (!job.q || !job.d || !job.sum) {
        return DU_ENOMEM;
    }
    /* One row is less work than waking a thread. */
    du_pool_run(T > 4 ? ctx->pool : NULL, quantize_row, &job, T);
    out->q = job.q;
    out->d = job.d;
    out->sum = job.sum;
    return DU_OK;
}

du_acts du_acts_slice(const du_acts *acts, int64_t row0, int64_t n) {
    du_acts s = *acts;
    s.x += row0 * acts->ldx;
    s.T = n;
    if (acts->q) {
        s.q += row0 * acts->cols;
        s.d += row0 * (acts->cols / 32);
        s.sum += row0 * (acts->cols / 16);
    }
    return s;
}
