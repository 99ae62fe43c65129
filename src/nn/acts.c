#include "nn/acts.h"

typedef struct {
    const du_kern *kern;
    const float *x;
    int64_t ldx, cols;
    int8_t *q;
    float *d;
    int16_t *sum;
    int64_t T;
    float *left; /* when fine: per thread [cols] for what was rounded away, else NULL */
} quantize_job;

static void quantize_row(void *arg, int64_t t, int64_t i_thread) {
    const quantize_job *job = arg;
    int64_t cols = job->cols, fine = job->T + t;
    const float *x = job->x + t * job->ldx;
    int8_t *q = job->q + t * cols;
    float *d = job->d + t * (cols / 32);
    job->kern->quantize(q, d, job->sum + t * (cols / 16), x, cols);
    if (job->left) {
        float *left = job->left + i_thread * cols;
        job->kern->residue(left, x, q, d, cols);
        job->kern->quantize(job->q + fine * cols, job->d + fine * (cols / 32),
                            job->sum + fine * (cols / 16), left, cols);
    }
}

static du_err quantize(du_ctx *ctx, du_acts *out, bool fine) {
    int64_t T = out->T, cols = out->cols, n = fine ? 2 * T : T;
    quantize_job job = {.kern = ctx->kern, .x = out->x, .ldx = out->ldx, .cols = cols, .T = T};
    job.q = DU_SCRATCH(ctx, int8_t, n * cols);
    job.d = DU_SCRATCH(ctx, float, n *(cols / 32));
    job.sum = DU_SCRATCH(ctx, int16_t, n * (cols / 16));
    job.left = fine ? DU_SCRATCH(ctx, float, du_pool_n_threads(ctx->pool) * cols) : NULL;
    if (!job.q || !job.d || !job.sum || (fine && !job.left)) {
        return DU_ENOMEM;
    }
    /* One row is less work than waking a thread. */
    du_pool_run(T > 4 ? ctx->pool : NULL, quantize_row, &job, T);
    out->q = job.q;
    out->d = job.d;
    out->sum = job.sum;
    return DU_OK;
}

typedef struct {
    const du_kern *kern;
    const du_acts *acts;
    uint16_t *h;
} bf16_job;

static void bf16_row(void *arg, int64_t t, int64_t i_thread) {
    (void)i_thread;
    const bf16_job *job = arg;
    const du_acts *a = job->acts;
    job->kern->kv_store[DU_BF16](job->h + t * a->ldh, a->x + t * a->ldx, a->cols);
}

/* Rows a little apart from a power of two, so that they do not share few sets of the caches. */
static du_err make_bf16(du_ctx *ctx, du_acts *out) {
    out->ldh = out->cols + 32;
    bf16_job job = {ctx->kern, out, DU_SCRATCH(ctx, uint16_t, out->T * out->ldh)};
    if (!job.h) {
        return DU_ENOMEM;
    }
    du_pool_run(ctx->pool, bf16_row, &job, out->T);
    out->h = job.h;
    return DU_OK;
}

du_err du_acts_make(du_ctx *ctx, du_acts *out, const float *x, int64_t ldx, int64_t T, int64_t cols,
                    bool for_blocks) {
    *out = (du_acts){.x = x, .ldx = ldx, .T = T, .cols = cols};
    if (!for_blocks) {
        return DU_OK;
    }
    const int64_t from = ctx->kern->n_bf16; /* strips alone are multiplied so */
    bool with_bf16 = ctx->strips && !ctx->same_bits && from > 0 && T >= from;
    du_err err = quantize(ctx, out, false);
    return err == DU_OK && with_bf16 ? make_bf16(ctx, out) : err;
}

du_err du_acts_make_fine(du_ctx *ctx, du_acts *out, const float *x, int64_t ldx, int64_t T,
                         int64_t cols) {
    *out = (du_acts){.x = x, .ldx = ldx, .T = T, .cols = cols};
    return quantize(ctx, out, true);
}

du_acts du_acts_slice(const du_acts *acts, int64_t row0, int64_t n) {
    du_acts s = *acts;
    s.x += row0 * acts->ldx;
    s.T = n;
    if (acts->h) {
        s.h += row0 * acts->ldh;
    }
    if (acts->q) {
        s.q += row0 * acts->cols;
        s.d += row0 * (acts->cols / 32);
        s.sum += row0 * (acts->cols / 16);
    }
    return s;
}
