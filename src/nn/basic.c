#include "nn/basic.h"

#include "nn/linear.h"

/* Row-wise work is shared out in blocks of rows; a few rows stay in the calling thread, where they
 * are done before another thread would have woken. */
enum { ROWS_PER_TASK = 8 };

typedef struct {
    const du_kern *kern;
    float *y;
    const float *x, *w;
    int64_t ldy, ldx, T, D;
    float eps;
    const du_mat *table;
    const int32_t *tokens;
} rows_job;

static void run_rows(du_ctx *ctx, du_task_fn *fn, rows_job *job) {
    job->kern = ctx->kern;
    int64_t n_tasks = (job->T + ROWS_PER_TASK - 1) / ROWS_PER_TASK;
    du_pool_run(ctx->pool, fn, job, n_tasks);
}

static int64_t row_end(const rows_job *job, int64_t i_task) {
    int64_t end = (i_task + 1) * ROWS_PER_TASK;
    return end < job->T ? end : job->T;
}

static void embed_rows(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const rows_job *job = arg;
    for (int64_t t = i_task * ROWS_PER_TASK; t < row_end(job, i_task); t++) {
        du_mat_unpack_row(job->y + t * job->D, job->table, job->tokens[t]);
    }
}

void du_embed_fwd(du_ctx *ctx, float *y, const du_mat *w, const int32_t *tokens, int64_t T) {
    rows_job job = {.y = y, .T = T, .D = w->cols, .table = w, .tokens = tokens};
    run_rows(ctx, embed_rows, &job);
}

static void rmsnorm_rows(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const rows_job *job = arg;
    for (int64_t t = i_task * ROWS_PER_TASK; t < row_end(job, i_task); t++) {
        job->kern->rmsnorm(job->y + t * job->ldy, job->x + t * job->ldx, job->w, job->D, job->eps);
    }
}

void du_rmsnorm_fwd(du_ctx *ctx, float *y, int64_t ldy, const float *x, int64_t ldx, const float *w,
                    int64_t T, int64_t D, float eps) {
    rows_job job = {.y = y, .ldy = ldy, .x = x, .ldx = ldx, .w = w, .T = T, .D = D, .eps = eps};
    run_rows(ctx, rmsnorm_rows, &job);
}

static void add_rows(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const rows_job *job = arg;
    int64_t t0 = i_task * ROWS_PER_TASK, n = (row_end(job, i_task) - t0) * job->D;
    job->kern->add(job->y + t0 * job->D, job->x + t0 * job->D, n);
}

void du_add_fwd(du_ctx *ctx, float *y, const float *x, int64_t T, int64_t D) {
    rows_job job = {.y = y, .x = x, .T = T, .D = D};
    run_rows(ctx, add_rows, &job);
}

static void swiglu_rows(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const rows_job *job = arg;
    int64_t t0 = i_task * ROWS_PER_TASK, n = (row_end(job, i_task) - t0) * job->D;
    job->kern->swiglu(job->y + t0 * job->D, job->y + t0 * job->D, job->x + t0 * job->D, n);
}

du_err du_ffn_fwd(du_ctx *ctx, float *y, const float *x, const du_mat *gate, const du_mat *up,
                  const du_mat *down, const char *tap, int64_t layer, int64_t T) {
    int64_t D = gate->cols, F = gate->rows;
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    float *g = DU_SCRATCH(ctx, float, T *F);
    float *u = DU_SCRATCH(ctx, float, T *F);
    du_err err = g && u ? DU_OK : DU_ENOMEM;
    if (err == DU_OK) {
        du_linear_out outs[] = {{g, F, gate, NULL}, {u, F, up, NULL}};
        err = du_linear_fwd(ctx, outs, 2, x, D, T);
    }
    if (err == DU_OK) {
        rows_job job = {.y = g, .x = u, .T = T, .D = F};
        run_rows(ctx, swiglu_rows, &job);
        du_tap(ctx, tap, layer, g, T, F);
        err = du_linear_fwd(ctx, &(du_linear_out){y, D, down, NULL}, 1, g, F, T);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}
