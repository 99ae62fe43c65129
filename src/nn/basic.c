#include "nn/basic.h"

#include <string.h>

#include "nn/linear.h"

/* Row-wise work is shared out in blocks of rows; a few rows stay in the calling thread, where they
 * are done before another thread would have woken. */
enum { ROWS_PER_TASK = 8 };

typedef struct {
    const du_kern *kern;
    float *y;
    const float *x, *x0, *w;
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

/* The rows of each token in ascending order: those of v at order[start[v]] .. order[start[v+1]-1].
 */
typedef struct {
    const du_kern *kern;
    const du_sums *sums;
    float *grad, *work; /* work: per thread (DU_LEAF_LEVELS + 2) * D */
    const float *dx;
    const int32_t *order;
    const int64_t *start;
    int64_t V, D, n_rows;
} embed_job;

enum { TOKENS_PER_TASK = 64 };

static void embed_token(const embed_job *job, int64_t v, float *work) {
    int64_t D = job->D, at = job->start[v], end = job->start[v + 1];
    du_leaf_row row;
    du_leaf_row_begin(&row, job->kern, job->sums, job->grad + v * D, D, work);
    for (int64_t i = 0; i < job->sums->leaves.n; i++) {
        float *leaf = NULL;
        for (; at < end && job->order[at] < (i + 1) * job->n_rows; at++) {
            if (!leaf) {
                leaf = du_leaf_row_take(&row);
                memset(leaf, 0, (size_t)D * sizeof *leaf);
            }
            job->kern->add(leaf, job->dx + job->order[at] * D, D);
        }
        du_leaf_row_push(&row, leaf);
    }
    du_leaf_row_finish(&row);
}

static void embed_tokens(void *arg, int64_t i_task, int64_t i_thread) {
    const embed_job *job = arg;
    int64_t v0 = i_task * TOKENS_PER_TASK;
    int64_t v1 = v0 + TOKENS_PER_TASK < job->V ? v0 + TOKENS_PER_TASK : job->V;
    for (int64_t v = v0; v < v1; v++) {
        embed_token(job, v, job->work + i_thread * (DU_LEAF_LEVELS + 2) * job->D);
    }
}

du_err du_embed_bwd(du_ctx *ctx, const du_sums *sums, float *grad, const float *dx,
                    const int32_t *tokens, int64_t T, int64_t V, int64_t D) {
    if (!grad) {
        return DU_OK;
    }
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    int32_t *order = DU_SCRATCH(ctx, int32_t, T);
    int64_t *start = DU_SCRATCH(ctx, int64_t, V + 2);
    embed_job job = {ctx->kern, sums, grad, NULL, dx, order, start, V, D, T / sums->leaves.n};
    job.work = DU_SCRATCH(ctx, float, du_pool_n_threads(ctx->pool) * (DU_LEAF_LEVELS + 2) * D);
    du_err err = order && start && job.work ? DU_OK : DU_ENOMEM;
    if (err == DU_OK) {
        memset(start, 0, (size_t)(V + 2) * sizeof *start);
        for (int64_t t = 0; t < T; t++) {
            start[tokens[t] + 2]++;
        }
        for (int64_t v = 0; v < V; v++) {
            start[v + 2] += start[v + 1];
        }
        for (int64_t t = 0; t < T; t++) {
            order[start[tokens[t] + 1]++] = (int32_t)t;
        }
        du_pool_run(ctx->pool, embed_tokens, &job, (V + TOKENS_PER_TASK - 1) / TOKENS_PER_TASK);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
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

typedef struct {
    const du_kern *kern;
    float *dx, *segments;
    const float *dy, *x, *w;
    int64_t lddx, lddy, ldx, n_rows, D;
    float eps;
} rmsnorm_job;

static void rmsnorm_segment(void *arg, int64_t i, int64_t i_thread) {
    (void)i_thread;
    const rmsnorm_job *job = arg;
    float *dw = job->segments + i * job->D;
    int64_t row0, row1;
    du_leaf_segment(i, job->n_rows, &row0, &row1);
    memset(dw, 0, (size_t)job->D * sizeof *dw);
    for (int64_t t = row0; t < row1; t++) {
        job->kern->rmsnorm_bwd(job->dx + t * job->lddx, dw, job->dy + t * job->lddy,
                               job->x + t * job->ldx, job->w, job->D, job->eps);
    }
}

du_err du_rmsnorm_bwd(du_ctx *ctx, const du_sums *sums, float *dx, int64_t lddx, const float *dy,
                      int64_t lddy, const float *x, int64_t ldx, const float *w, int64_t T,
                      int64_t D, float eps) {
    int64_t n_rows = T / sums->leaves.n, n = du_leaf_segments(n_rows);
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    rmsnorm_job job = {ctx->kern, dx, NULL, dy, x, w, lddx, lddy, ldx, n_rows, D, eps};
    job.segments = DU_SCRATCH(ctx, float, sums->leaves.n *n *D);
    du_err err = job.segments ? DU_OK : DU_ENOMEM;
    if (err == DU_OK) {
        float *grad = du_sums_grad(sums, w);
        du_pool_run(ctx->pool, rmsnorm_segment, &job, sums->leaves.n * n);
        err = grad ? du_sums_vector(ctx, sums, grad, job.segments, n, D) : DU_OK;
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}

static void add_rows(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const rows_job *job = arg;
    int64_t t0 = i_task * ROWS_PER_TASK, n = (row_end(job, i_task) - t0) * job->D;
    if (job->x0) {
        memcpy(job->y + t0 * job->D, job->x0 + t0 * job->D, (size_t)n * sizeof *job->y);
    }
    job->kern->add(job->y + t0 * job->D, job->x + t0 * job->D, n);
}

void du_add_fwd(du_ctx *ctx, float *y, const float *x, int64_t T, int64_t D) {
    rows_job job = {.y = y, .x = x, .T = T, .D = D};
    run_rows(ctx, add_rows, &job);
}

void du_sum_fwd(du_ctx *ctx, float *y, const float *a, const float *b, int64_t T, int64_t D) {
    rows_job job = {.y = y, .x = b, .x0 = a, .T = T, .D = D};
    run_rows(ctx, add_rows, &job);
}

typedef struct {
    const du_kern *kern;
    float *y, *dgate, *dup;
    const float *gate, *up, *dy;
    int64_t n;
} swiglu_job;

enum { VALUES_PER_TASK = 1 << 14 };

static void swiglu_fwd_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const swiglu_job *job = arg;
    int64_t i = i_task * VALUES_PER_TASK, left = job->n - i;
    job->kern->swiglu(job->y + i, job->gate + i, job->up + i,
                      left < VALUES_PER_TASK ? left : VALUES_PER_TASK);
}

static void swiglu_bwd_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const swiglu_job *job = arg;
    int64_t i = i_task * VALUES_PER_TASK, left = job->n - i;
    job->kern->swiglu_bwd(job->dgate + i, job->dup + i, job->dy + i, job->gate + i, job->up + i,
                          left < VALUES_PER_TASK ? left : VALUES_PER_TASK);
}

void du_swiglu_fwd(du_ctx *ctx, float *y, const float *gate, const float *up, int64_t T,
                   int64_t F) {
    swiglu_job job = {.kern = ctx->kern, .y = y, .gate = gate, .up = up, .n = T * F};
    du_pool_run(ctx->pool, swiglu_fwd_task, &job, (job.n + VALUES_PER_TASK - 1) / VALUES_PER_TASK);
}

void du_swiglu_bwd(du_ctx *ctx, float *dgate, float *dup, const float *dy, const float *gate,
                   const float *up, int64_t T, int64_t F) {
    swiglu_job job = {ctx->kern, NULL, dgate, dup, gate, up, dy, T * F};
    du_pool_run(ctx->pool, swiglu_bwd_task, &job, (job.n + VALUES_PER_TASK - 1) / VALUES_PER_TASK);
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
        du_swiglu_fwd(ctx, g, g, u, T, F);
        du_tap(ctx, tap, layer, g, T, F);
        err = du_linear_fwd(ctx, &(du_linear_out){y, D, down, NULL}, 1, g, F, T);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}
