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

static du_gemm_src rows_of(const float *x, int64_t ld) {
    return (du_gemm_src){.data = x, .ld = ld};
}

du_err du_linear_train_fwd(du_ctx *ctx, const du_train *tr, const du_linear_out *outs,
                           int64_t n_out, const float *x, int64_t ldx, int64_t T) {
    DU_CHECK(n_out >= 1 && n_out <= OUT_MAX);
    du_gemm_job jobs[OUT_MAX];
    for (int64_t i = 0; i < n_out; i++) {
        const du_mat *w = outs[i].w;
        jobs[i] = (du_gemm_job){.y = outs[i].y,
                                .ldy = outs[i].ldy,
                                .x = rows_of(x, ldx),
                                .w = rows_of(w->data, w->cols),
                                .T = T,
                                .N = w->rows,
                                .K = w->cols};
    }
    du_err err = du_gemm_fwd(ctx, tr->kind, jobs, n_out);
    for (int64_t i = 0; err == DU_OK && i < n_out; i++) {
        bias_job job = {ctx->kern, &outs[i]};
        du_pool_run(ctx->pool, add_bias, &job, outs[i].bias ? T : 0);
    }
    return err;
}

bool du_train_grad(const du_train *tr, du_gemm_grad *out, float **nodes, const du_mat *w,
                   du_gemm_src dy, du_gemm_src x, const int64_t *end) {
    float *grad = du_sums_grad(&tr->sums, w->data);
    if (!grad) {
        return false;
    }
    du_sums_nodes(&tr->sums, grad, nodes);
    *out = (du_gemm_grad){.dw = grad,
                          .lddw = w->cols,
                          .dy = dy,
                          .x = x,
                          .end = end,
                          .nodes = nodes,
                          .N = w->rows,
                          .K = w->cols,
                          .add = tr->sums.add};
    return true;
}

du_err du_linear_train_bwd(du_ctx *ctx, const du_train *tr, const du_linear_grad *outs,
                           int64_t n_out, float *dx, int64_t lddx, bool add, const float *x,
                           int64_t ldx, int64_t T) {
    DU_CHECK(n_out <= OUT_MAX);
    du_gemm_grad grads[OUT_MAX];
    float *nodes[OUT_MAX][DU_LEAF_LEVELS];
    du_gemm_job jobs[OUT_MAX];
    int64_t n_grads = 0;
    du_err err = DU_OK;
    for (int64_t i = 0; i < n_out && err == DU_OK; i++) {
        const du_linear_grad *o = &outs[i];
        du_gemm_src dy = rows_of(o->dy, o->ldy);
        n_grads +=
            du_train_grad(tr, &grads[n_grads], nodes[n_grads], o->w, dy, rows_of(x, ldx), tr->end);
        err = du_sums_bias(ctx, &tr->sums, du_sums_grad(&tr->sums, o->bias), o->dy, o->ldy, T,
                           o->w->rows);
        jobs[i] = (du_gemm_job){.y = dx,
                                .ldy = lddx,
                                .x = dy,
                                .w = rows_of(o->w->data, o->w->cols),
                                .T = T,
                                .N = o->w->rows,
                                .K = o->w->cols,
                                .add = add || i > 0};
    }
    if (err == DU_OK && dx) {
        err = du_gemm_dgrad(ctx, tr->kind, jobs, n_out);
    }
    return err ? err : du_gemm_wgrad(ctx, tr->kind, grads, n_grads, tr->sums.leaves);
}
