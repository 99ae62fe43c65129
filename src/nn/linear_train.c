#include "nn/linear_train.h"

enum { OUT_MAX = 8 };

typedef struct {
    const du_kern *kern;
    const du_linear_out *out;
} bias_job;

static void add_bias(void *arg, int64_t t, int64_t i_thread) {
    (void)i_thread;
    const bias_job *job = arg;
    job->kern->add(job->out->y + t * job->out->ldy, job->out->bias, job->out->w->rows);
}

du_err du_linear_train_fwd(du_ctx *ctx, const du_train *tr, const du_linear_out *outs,
                           int64_t n_out, const float *x, int64_t ldx, int64_t T) {
    DU_CHECK(n_out >= 1 && n_out <= OUT_MAX);
    du_train_job jobs[OUT_MAX];
    for (int64_t i = 0; i < n_out; i++) {
        jobs[i] = (du_train_job){outs[i].w, outs[i].y, outs[i].ldy, du_gemm_rows(x, ldx), T, false};
    }
    du_err err = du_train_fwd(ctx, tr->kind, jobs, n_out);
    for (int64_t i = 0; err == DU_OK && i < n_out; i++) {
        bias_job job = {ctx->kern, &outs[i]};
        du_pool_run(ctx->pool, add_bias, &job, outs[i].bias ? T : 0);
    }
    return err;
}

du_err du_linear_train_bwd(du_ctx *ctx, const du_train *tr, const du_linear_grad *outs,
                           int64_t n_out, float *dx, int64_t lddx, bool add, const float *x,
                           int64_t ldx, int64_t T) {
    DU_CHECK(n_out <= OUT_MAX);
    du_train_pair pairs[OUT_MAX];
    du_train_job jobs[OUT_MAX];
    du_err err = DU_OK;
    for (int64_t i = 0; i < n_out && err == DU_OK; i++) {
        const du_linear_grad *o = &outs[i];
        du_gemm_src dy = du_gemm_rows(o->dy, o->ldy);
        pairs[i] = (du_train_pair){o->w, dy, du_gemm_rows(x, ldx), T, tr->end};
        err = du_sums_bias(ctx, &tr->sums, du_sums_grad(&tr->sums, o->bias), o->dy, o->ldy, T,
                           o->w->rows);
        jobs[i] = (du_train_job){o->w, dx, lddx, dy, T, add || i > 0};
    }
    if (err == DU_OK && dx) {
        err = du_train_dgrad(ctx, tr->kind, jobs, n_out);
    }
    return err ? err : du_train_wgrad(ctx, tr, pairs, n_out);
}
