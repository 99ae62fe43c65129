#include "nn/linear.h"

#include <string.h>

#include "nn/acts.h"
#include "nn/product.h"

/* A task should read tens of kilobytes of weights: less is lost in handing out, more leaves a
 * thread waiting at the end. Rows are independent, so the split never changes a bit. */
int64_t du_linear_rows_per_task(const du_ctx *ctx, const du_mat *w, int64_t T) {
    int64_t n_threads = du_pool_n_threads(ctx->pool);
    if (n_threads == 1) {
        return w->rows;
    }
    int64_t share = w->rows / (n_threads * 8);
    int64_t bytes = T > 8 ? 16 << 10 : 48 << 10;
    int64_t enough = bytes / (int64_t)w->row_bytes;
    int64_t rows = share > enough ? share : enough;
    return rows < 32 ? 32 : rows / 32 * 32; /* what a kernel takes at once for many tokens */
}

typedef struct {
    const du_kern *kern;
    const du_linear_out *outs;
    const du_product *products; /* [n_out] */
    const du_acts *acts;       /* of x; when fine, of rows x and then of what their rounding left */
    const int64_t *first_task; /* [n_out] */
    const int64_t *rows;       /* [n_out] rows per task */
    int64_t n_out, T;
    /* When fine: per thread [2*T, ld_sums], behind room for a row of outputs, so that a product's
     * pointer to row 0 lies in it too; else NULL */
    float *sums;
    int64_t ld_sums;
} linear_job;

/* y = product with the rounded x + product with what the rounding left */
static void fine_product(const linear_job *job, int64_t i, int64_t row0, int64_t row1,
                         int64_t i_thread) {
    const du_linear_out *out = &job->outs[i];
    int64_t T = job->T, n = row1 - row0;
    float *sums = job->sums + i_thread * 2 * T * job->ld_sums;
    du_product_run(&job->products[i], sums - row0, job->ld_sums, row0, row1, job->acts, NULL,
                   2 * T);
    for (int64_t t = 0; t < T; t++) {
        float *y = out->y + t * out->ldy + row0;
        memcpy(y, sums + t * job->ld_sums, (size_t)n * sizeof *y);
        job->kern->add(y, sums + (T + t) * job->ld_sums, n);
    }
}

static void linear_task(void *arg, int64_t i_task, int64_t i_thread) {
    const linear_job *job = arg;
    int64_t i = job->n_out - 1;
    while (job->first_task[i] > i_task) {
        i--;
    }
    const du_linear_out *out = &job->outs[i];
    int64_t row0 = (i_task - job->first_task[i]) * job->rows[i];
    int64_t row1 = row0 + job->rows[i] < out->w->rows ? row0 + job->rows[i] : out->w->rows;
    if (job->sums && du_dtype_is_block(out->w->dtype)) {
        fine_product(job, i, row0, row1, i_thread);
    } else {
        du_product_run(&job->products[i], out->y, out->ldy, row0, row1, job->acts, NULL, job->T);
    }
    if (!out->bias) {
        return;
    }
    for (int64_t t = 0; t < job->T; t++) {
        job->kern->add(out->y + t * out->ldy + row0, out->bias + row0, row1 - row0);
    }
}

static du_err linear(du_ctx *ctx, const du_linear_out *outs, int64_t n_out, const float *x,
                     int64_t ldx, int64_t T, bool fine) {
    enum { MAX_OUT = 8 };
    DU_CHECK(n_out >= 1 && n_out <= MAX_OUT);
    du_product products[MAX_OUT];
    int64_t first_task[MAX_OUT], rows[MAX_OUT], n_tasks = 0, task_max = 0, rows_max = 0;
    int64_t cols = outs[0].w->cols;
    bool with_q8 = false;
    for (int64_t i = 0; i < n_out; i++) {
        with_q8 = with_q8 || du_dtype_is_block(outs[i].w->dtype);
        first_task[i] = n_tasks;
        rows[i] = du_linear_rows_per_task(ctx, outs[i].w, T);
        task_max = rows[i] > task_max ? rows[i] : task_max;
        rows_max = outs[i].w->rows > rows_max ? outs[i].w->rows : rows_max;
        n_tasks += (outs[i].w->rows + rows[i] - 1) / rows[i];
    }
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    du_acts acts;
    linear_job job = {ctx->kern, outs, products, &acts, first_task, rows, n_out, T, NULL, task_max};
    du_err err = DU_OK;
    fine = fine && with_q8;
    if (fine) {
        int64_t n_sums = du_pool_n_threads(ctx->pool) * 2 * T * task_max;
        job.sums = DU_SCRATCH(ctx, float, rows_max + n_sums);
        err = job.sums ? du_acts_make_fine(ctx, &acts, x, ldx, T, cols) : DU_ENOMEM;
        job.sums = job.sums ? job.sums + rows_max : NULL;
    } else {
        err = du_acts_make(ctx, &acts, x, ldx, T, cols, with_q8);
    }
    for (int64_t i = 0; err == DU_OK && i < n_out; i++) {
        products[i] = du_product_begin(ctx, outs[i].w);
    }
    if (err == DU_OK) {
        du_pool_run(ctx->pool, linear_task, &job, n_tasks);
    }
    for (int64_t i = 0; err == DU_OK && i < n_out; i++) {
        du_product_end(&products[i]);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}

du_err du_linear_fwd(du_ctx *ctx, const du_linear_out *outs, int64_t n_out, const float *x,
                     int64_t ldx, int64_t T) {
    return linear(ctx, outs, n_out, x, ldx, T, false);
}

du_err du_linear_fine_fwd(du_ctx *ctx, const du_linear_out *outs, int64_t n_out, const float *x,
                          int64_t ldx, int64_t T) {
    return linear(ctx, outs, n_out, x, ldx, T, true);
}

typedef struct {
    float *y;
    const du_product *products; /* [H] */
    const du_acts *acts;
    const int32_t *i_row; /* [H, T]: rows of acts that head h reads */
    int64_t ld_y, H, T, rows_per_task, n_blocks;
} heads_job;

static void heads_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const heads_job *job = arg;
    int64_t h = i_task / job->n_blocks, row0 = i_task % job->n_blocks * job->rows_per_task;
    const du_product *p = &job->products[h];
    int64_t row1 = row0 + job->rows_per_task < p->w->rows ? row0 + job->rows_per_task : p->w->rows;
    du_product_run(p, job->y + h * job->ld_y, job->H * job->ld_y, row0, row1, job->acts,
                   job->i_row + h * job->T, job->T);
}

du_err du_heads_fwd(du_ctx *ctx, float *y, int64_t ld_y, const du_mat *w, const float *x,
                    int64_t ld_x, int64_t H, int64_t T) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    du_acts acts;
    int32_t *i_row = DU_SCRATCH(ctx, int32_t, H * T);
    du_product *products = DU_SCRATCH(ctx, du_product, H);
    du_err err = i_row && products ? DU_OK : DU_ENOMEM;
    if (err == DU_OK) {
        err = du_acts_make(ctx, &acts, x, ld_x, T * H, w->cols, du_dtype_is_block(w->dtype));
    }
    if (err == DU_OK) {
        for (int64_t h = 0; h < H; h++) {
            products[h] = du_product_begin(ctx, &w[h]);
            for (int64_t t = 0; t < T; t++) {
                i_row[h * T + t] = (int32_t)(t * H + h);
            }
        }
        int64_t rows =
            H >= du_pool_n_threads(ctx->pool) * 4 ? w->rows : du_linear_rows_per_task(ctx, w, T);
        int64_t n_blocks = (w->rows + rows - 1) / rows;
        heads_job job = {y, products, &acts, i_row, ld_y, H, T, rows, n_blocks};
        du_pool_run(ctx->pool, heads_task, &job, H * n_blocks);
        for (int64_t h = 0; h < H; h++) {
            du_product_end(&products[h]);
        }
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}
