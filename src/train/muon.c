#include "train/muon.h"

#include <math.h>
#include <string.h>

/* A matrix at work: x [r,c], r <= c, its transpose where the weight has more rows than columns. */
typedef struct {
    const du_muon_matrix *of;
    int64_t r, c;
    float *x, *bx; /* [r,c] */
    float *a, *b;  /* [r,r] */
} work;

typedef struct {
    const du_kern *kern;
    const du_muon *how;
    work *works;
} muon_job;

static bool is_turned(const work *k) {
    return k->of->rows > k->of->cols;
}

/* m, and x = u turned so that it has no more rows than columns. */
static void begin_task(void *arg, int64_t i, int64_t i_thread) {
    (void)i_thread;
    const muon_job *job = arg;
    const work *k = &job->works[i];
    const du_muon_matrix *of = k->of;
    float mu = job->how->momentum, fresh = (1 - mu) * job->how->clip;
    int64_t n = of->rows * of->cols;
    float *u = k->bx;
    job->kern->scale(of->m, mu, n);
    job->kern->axpy(of->m, fresh, of->g, n);
    memset(u, 0, (size_t)n * sizeof *u);
    job->kern->axpy(u, fresh, of->g, n);
    job->kern->axpy(u, mu, of->m, n);
    double squares = 0;
    for (int64_t row = 0; row < of->rows; row++) {
        const float *at = u + row * of->cols;
        squares += (double)job->kern->dot(at, at, of->cols);
    }
    job->kern->scale(u, (float)(1 / fmax(sqrt(squares), 1e-7)), n);
    for (int64_t row = 0; is_turned(k) && row < of->rows; row++) {
        for (int64_t col = 0; col < of->cols; col++) {
            k->x[col * k->c + row] = u[row * of->cols + col];
        }
    }
    if (!is_turned(k)) {
        memcpy(k->x, u, (size_t)n * sizeof *u);
    }
}

/* b = c A^2 + b A */
static void polynomial_task(void *arg, int64_t i, int64_t i_thread) {
    (void)i_thread;
    const muon_job *job = arg;
    const work *k = &job->works[i];
    job->kern->scale(k->b, 2.0315f, k->r * k->r);
    job->kern->axpy(k->b, -4.7750f, k->a, k->r * k->r);
}

/* x = a x + b x */
static void update_task(void *arg, int64_t i, int64_t i_thread) {
    (void)i_thread;
    const muon_job *job = arg;
    const work *k = &job->works[i];
    job->kern->scale(k->x, 3.4445f, k->r * k->c);
    job->kern->add(k->x, k->bx, k->r * k->c);
}

static float scale_of(const du_muon *how, const du_muon_matrix *of) {
    double rows = (double)of->rows, cols = (double)of->cols;
    return (float)(how->moonlight ? 0.2 * sqrt(fmax(rows, cols)) : sqrt(fmax(1, rows / cols)));
}

static void finish_task(void *arg, int64_t i, int64_t i_thread) {
    (void)i_thread;
    const muon_job *job = arg;
    const work *k = &job->works[i];
    const du_muon_matrix *of = k->of;
    const du_muon *how = job->how;
    float *x = k->x;
    for (int64_t row = 0; is_turned(k) && row < of->rows; row++) {
        x = k->bx;
        for (int64_t col = 0; col < of->cols; col++) {
            x[row * of->cols + col] = k->x[col * k->c + row];
        }
    }
    job->kern->scale(of->w, 1 - how->lr * how->decay, of->rows * of->cols);
    job->kern->axpy(of->w, -how->lr * scale_of(how, of), x, of->rows * of->cols);
}

static bool take(du_ctx *ctx, work *k, const du_muon_matrix *of) {
    *k = (work){.of = of};
    k->r = of->rows < of->cols ? of->rows : of->cols;
    k->c = of->rows < of->cols ? of->cols : of->rows;
    k->x = DU_SCRATCH(ctx, float, k->r * k->c);
    k->bx = DU_SCRATCH(ctx, float, k->r * k->c);
    k->a = DU_SCRATCH(ctx, float, k->r * k->r);
    k->b = DU_SCRATCH(ctx, float, k->r * k->r);
    return k->x && k->bx && k->a && k->b;
}

/* y [rows, .] from x and w, all of them rows of their own length side by side */
static du_gemm_job product(float *y, int64_t ldy, const float *x, int64_t ldx, const float *w,
                           int64_t ldw, int64_t T, int64_t N, int64_t K) {
    return (du_gemm_job){.y = y,
                         .ldy = ldy,
                         .x = {.data = x, .ld = ldx},
                         .w = {.data = w, .ld = ldw},
                         .T = T,
                         .N = N,
                         .K = K};
}

static du_err iterate(du_ctx *ctx, muon_job *job, du_gemm_job *jobs, int64_t n) {
    const du_muon *how = job->how;
    for (int64_t i = 0; i < n; i++) { /* A = X X^T */
        const work *k = &job->works[i];
        jobs[i] = product(k->a, k->r, k->x, k->c, k->x, k->c, k->r, k->r, k->c);
    }
    du_err err = du_gemm_fwd(ctx, how->kind, jobs, n);
    for (int64_t i = 0; i < n; i++) { /* A^2, A being its own transpose */
        const work *k = &job->works[i];
        jobs[i] = product(k->b, k->r, k->a, k->r, k->a, k->r, k->r, k->r, k->r);
    }
    err = err ? err : du_gemm_fwd(ctx, how->kind, jobs, n);
    if (err != DU_OK) {
        return err;
    }
    du_pool_run(ctx->pool, polynomial_task, job, n);
    for (int64_t i = 0; i < n; i++) {
        const work *k = &job->works[i];
        jobs[i] = product(k->bx, k->c, k->b, k->r, k->x, k->c, k->r, k->r, k->c);
    }
    err = du_gemm_dgrad(ctx, how->kind, jobs, n);
    du_pool_run(ctx->pool, update_task, job, err ? 0 : n);
    return err;
}

du_err du_muon_step(du_ctx *ctx, const du_muon *how, const du_muon_matrix *matrices, int64_t n) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    muon_job job = {ctx->kern, how, DU_SCRATCH(ctx, work, n)};
    du_gemm_job *jobs = DU_SCRATCH(ctx, du_gemm_job, n);
    bool good = job.works && jobs;
    for (int64_t i = 0; good && i < n; i++) {
        good = take(ctx, &job.works[i], &matrices[i]);
    }
    du_err err = good ? DU_OK : DU_ENOMEM;
    du_pool_run(ctx->pool, begin_task, &job, good ? n : 0);
    for (int64_t i = 0; err == DU_OK && i < DU_MUON_STEPS; i++) {
        err = iterate(ctx, &job, jobs, n);
    }
    du_pool_run(ctx->pool, finish_task, &job, err ? 0 : n);
    du_arena_release(ctx->scratch, mark);
    return err;
}
