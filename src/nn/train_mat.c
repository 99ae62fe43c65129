/* A frozen matrix that products cannot read as it lies is unpacked to F32 in scratch: several small
 * ones (experts) at a time, a large one in pieces of rows, whose size depends on its shape alone. A
 * piece is a part of the columns of a result forward; backward it is a part of the inner index, so
 * the chains go on from what the piece before it left. */
#include "nn/train_mat.h"

enum {
    UNPACK_VALUES = 8 << 20, /* at a time, about */
    PIECE_ROWS = 128,        /* a piece has a multiple of them: of k_step, of the tiles of F8 */
    TASK_ROWS = 16
};

/* Rows of a matrix on their way to scratch. */
typedef struct {
    const du_mat *w;
    int64_t row0, n_rows;
    float *to; /* [n_rows, cols] */
    int64_t first_task;
} part;

typedef struct {
    const part *parts;
    int64_t n_parts;
} unpack_job;

static void unpack_rows(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const unpack_job *job = arg;
    const part *p = &job->parts[job->n_parts - 1];
    while (p->first_task > i_task) {
        p--;
    }
    int64_t row = (i_task - p->first_task) * TASK_ROWS, end = row + TASK_ROWS;
    for (; row < end && row < p->n_rows; row++) {
        du_mat_unpack_row(p->to + row * p->w->cols, p->w, p->row0 + row);
    }
}

static void unpack(du_ctx *ctx, part *parts, int64_t n_parts) {
    unpack_job job = {parts, n_parts};
    int64_t n_tasks = 0;
    for (int64_t i = 0; i < n_parts; i++) {
        parts[i].first_task = n_tasks;
        n_tasks += (parts[i].n_rows + TASK_ROWS - 1) / TASK_ROWS;
    }
    du_pool_run(ctx->pool, unpack_rows, &job, n_tasks);
}

/* What products with a matrix are computed with. */
static const du_mat *seen(const du_mat *w) {
    return w->adapter && w->adapter->sum ? w->adapter->sum : w;
}

static bool is_used_as_it_lies(const du_mat *w) {
    return w->dtype == DU_F32 || w->dtype == DU_BF16;
}

static du_gemm_job gemm_of(const du_train_job *job, du_gemm_src w) {
    return (du_gemm_job){.y = job->y,
                         .ldy = job->ldy,
                         .x = job->x,
                         .w = w,
                         .T = job->T,
                         .N = job->w->rows,
                         .K = job->w->cols,
                         .add = job->add};
}

static du_err multiply(du_ctx *ctx, du_gemm_kind kind, const du_gemm_job *jobs, int64_t n,
                       bool dgrad) {
    return n == 0  ? DU_OK
           : dgrad ? du_gemm_dgrad(ctx, kind, jobs, n)
                   : du_gemm_fwd(ctx, kind, jobs, n);
}

static int64_t rows_of_piece(const du_mat *w) {
    int64_t n_rows = UNPACK_VALUES / w->cols / PIECE_ROWS * PIECE_ROWS;
    return n_rows > 0 ? n_rows : PIECE_ROWS;
}

/* A product with a matrix that is unpacked piece by piece. */
static du_err in_pieces(du_ctx *ctx, du_gemm_kind kind, const du_train_job *job, bool dgrad) {
    const du_mat *w = seen(job->w);
    int64_t n_rows = rows_of_piece(w);
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    float *to = DU_SCRATCH(ctx, float, n_rows * w->cols);
    du_err err = to ? DU_OK : DU_ENOMEM;
    for (int64_t row = 0; row < w->rows && err == DU_OK; row += n_rows) {
        int64_t n = w->rows - row < n_rows ? w->rows - row : n_rows;
        part p = {w, row, n, to, 0};
        unpack(ctx, &p, 1);
        du_gemm_job g = gemm_of(job, du_gemm_rows(to, w->cols));
        g.N = n;
        if (dgrad) {
            g.x.data = (const float *)g.x.data + row;
            g.add = job->add || row > 0;
        } else {
            g.y += row;
        }
        err = multiply(ctx, kind, &g, 1, dgrad);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}

/* Products that are computed together, and what is unpacked for them. */
typedef struct {
    du_gemm_job *jobs;
    part *parts;
    int64_t n_jobs, n_parts, n_values;
} batch;

static du_err compute_batch(du_ctx *ctx, du_gemm_kind kind, batch *b, bool dgrad) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    float *to = b->n_values > 0 ? DU_SCRATCH(ctx, float, b->n_values) : NULL;
    du_err err = to || b->n_values == 0 ? DU_OK : DU_ENOMEM;
    for (int64_t i = 0, k = 0; i < b->n_jobs && err == DU_OK; i++) {
        if (!b->jobs[i].w.data) {
            part *p = &b->parts[k++];
            b->jobs[i].w.data = p->to = to;
            to += p->w->rows * p->w->cols;
        }
    }
    if (err == DU_OK && b->n_parts > 0) {
        unpack(ctx, b->parts, b->n_parts);
    }
    err = err ? err : multiply(ctx, kind, b->jobs, b->n_jobs, dgrad);
    b->n_jobs = b->n_parts = b->n_values = 0;
    du_arena_release(ctx->scratch, mark);
    return err;
}

/* The products with the matrices themselves. */
static du_err base_products(du_ctx *ctx, du_gemm_kind kind, const du_train_job *jobs,
                            int64_t n_jobs, bool dgrad) {
    batch b = {DU_SCRATCH(ctx, du_gemm_job, n_jobs), DU_SCRATCH(ctx, part, n_jobs), 0, 0, 0};
    du_err err = b.jobs && b.parts ? DU_OK : DU_ENOMEM;
    for (int64_t i = 0; i < n_jobs && err == DU_OK; i++) {
        const du_train_job *job = &jobs[i];
        const du_mat *w = seen(job->w);
        int64_t n_values = w->rows * w->cols;
        if (job->T == 0) {
            continue;
        }
        if (is_used_as_it_lies(w)) {
            b.jobs[b.n_jobs++] = gemm_of(
                job, (du_gemm_src){.data = w->data, .ld = w->cols, .bf16 = w->dtype == DU_BF16});
            continue;
        }
        if (b.n_values + n_values > UNPACK_VALUES) { /* in order: a job may go on with a y */
            err = compute_batch(ctx, kind, &b, dgrad);
        }
        if (n_values > UNPACK_VALUES) {
            err = err ? err : in_pieces(ctx, kind, job, dgrad);
            continue;
        }
        b.jobs[b.n_jobs++] = gemm_of(job, du_gemm_rows(NULL, w->cols));
        b.parts[b.n_parts++] = (part){w, 0, w->rows, NULL, 0};
        b.n_values += n_values;
    }
    return err ? err : compute_batch(ctx, kind, &b, dgrad);
}

typedef struct {
    const du_kern *kern;
    float *x;
    float scale;
    int64_t n;
} scale_job;

enum { SCALE_VALUES = 1 << 14 };

static void scale_part(void *arg, int64_t i, int64_t i_thread) {
    (void)i_thread;
    const scale_job *job = arg;
    int64_t at = i * SCALE_VALUES, left = job->n - at;
    job->kern->scale(job->x + at, job->scale, left < SCALE_VALUES ? left : SCALE_VALUES);
}

/* The narrow side of an adapter: u [T,rank] = s x A^T, or v = s dy B. */
static du_gemm_job narrow_of(const du_mat *w, du_gemm_src x, int64_t T, float *y, bool dgrad) {
    const du_adapter *d = w->adapter;
    return (du_gemm_job){.y = y,
                         .ldy = d->rank,
                         .x = x,
                         .w = dgrad ? du_gemm_rows(d->b, d->rank) : du_gemm_rows(d->a, w->cols),
                         .T = T,
                         .N = dgrad ? w->rows : d->rank,
                         .K = dgrad ? d->rank : w->cols};
}

static du_err narrow_products(du_ctx *ctx, du_gemm_kind kind, const du_gemm_job *jobs,
                              const du_mat *const *mats, int64_t n, bool dgrad) {
    du_err err = multiply(ctx, kind, jobs, n, dgrad);
    for (int64_t i = 0; i < n && err == DU_OK; i++) {
        const du_adapter *d = mats[i]->adapter;
        scale_job job = {ctx->kern, jobs[i].y, d->scale, jobs[i].T * d->rank};
        du_pool_run(ctx->pool, scale_part, &job, (job.n + SCALE_VALUES - 1) / SCALE_VALUES);
    }
    return err;
}

/* What adapters add to the results. */
static du_err adapter_products(du_ctx *ctx, du_gemm_kind kind, const du_train_job *jobs,
                               int64_t n_jobs, bool dgrad) {
    du_gemm_job *narrow = DU_SCRATCH(ctx, du_gemm_job, n_jobs);
    du_gemm_job *wide = DU_SCRATCH(ctx, du_gemm_job, n_jobs);
    const du_mat **mats = DU_SCRATCH(ctx, const du_mat *, n_jobs);
    int64_t n = 0;
    if (!narrow || !wide || !mats) {
        return DU_ENOMEM;
    }
    for (int64_t i = 0; i < n_jobs; i++) {
        const du_train_job *job = &jobs[i];
        const du_adapter *d = job->w->adapter;
        if (!d || d->sum || job->T == 0) {
            continue;
        }
        float *low = DU_SCRATCH(ctx, float, job->T * d->rank);
        if (!low) {
            return DU_ENOMEM;
        }
        narrow[n] = narrow_of(job->w, job->x, job->T, low, dgrad);
        wide[n] =
            gemm_of(job, dgrad ? du_gemm_rows(d->a, job->w->cols) : du_gemm_rows(d->b, d->rank));
        wide[n].x = du_gemm_rows(low, d->rank);
        wide[n].add = true;
        *(dgrad ? &wide[n].N : &wide[n].K) = d->rank;
        mats[n++] = job->w;
    }
    du_err err = narrow_products(ctx, kind, narrow, mats, n, dgrad);
    return err ? err : multiply(ctx, kind, wide, n, dgrad);
}

static du_err products(du_ctx *ctx, du_gemm_kind kind, const du_train_job *jobs, int64_t n_jobs,
                       bool dgrad) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    du_err err = base_products(ctx, kind, jobs, n_jobs, dgrad);
    err = err ? err : adapter_products(ctx, kind, jobs, n_jobs, dgrad);
    du_arena_release(ctx->scratch, mark);
    return err;
}

du_err du_train_fwd(du_ctx *ctx, du_gemm_kind kind, const du_train_job *jobs, int64_t n_jobs) {
    return products(ctx, kind, jobs, n_jobs, false);
}

du_err du_train_dgrad(du_ctx *ctx, du_gemm_kind kind, const du_train_job *jobs, int64_t n_jobs) {
    return products(ctx, kind, jobs, n_jobs, true);
}

typedef struct {
    du_gemm_grad *grads;             /* [2n] */
    float *(*nodes)[DU_LEAF_LEVELS]; /* [2n] */
    du_gemm_job *u, *v;              /* [n] of the pairs with adapters */
    const du_mat **mats;             /* [n] of those */
    int64_t n_grads, n_adapters;
} gradients;

static void add_grad(gradients *g, const du_train *tr, float *dw, int64_t N, int64_t K,
                     du_gemm_src dy, du_gemm_src x, const int64_t *end) {
    float **nodes = g->nodes[g->n_grads];
    du_sums_nodes(&tr->sums, dw, nodes);
    g->grads[g->n_grads++] = (du_gemm_grad){.dw = dw,
                                            .lddw = K,
                                            .dy = dy,
                                            .x = x,
                                            .end = end,
                                            .nodes = nodes,
                                            .N = N,
                                            .K = K,
                                            .add = tr->sums.add};
}

static du_err add_adapter(du_ctx *ctx, gradients *g, const du_train *tr, const du_train_pair *p) {
    const du_adapter *d = p->w->adapter;
    float *da = du_sums_grad(&tr->sums, d->a), *db = du_sums_grad(&tr->sums, d->b);
    if (!da || !db) {
        return DU_OK;
    }
    float *u = DU_SCRATCH(ctx, float, p->T * d->rank + 1);
    float *v = DU_SCRATCH(ctx, float, p->T * d->rank + 1);
    if (!u || !v) {
        return DU_ENOMEM;
    }
    g->u[g->n_adapters] = narrow_of(p->w, p->x, p->T, u, false);
    g->v[g->n_adapters] = narrow_of(p->w, p->dy, p->T, v, true);
    g->mats[g->n_adapters++] = p->w;
    add_grad(g, tr, da, d->rank, p->w->cols, du_gemm_rows(v, d->rank), p->x, p->end);
    add_grad(g, tr, db, p->w->rows, d->rank, p->dy, du_gemm_rows(u, d->rank), p->end);
    return DU_OK;
}

static bool take_gradients(du_ctx *ctx, gradients *g, int64_t n) {
    g->grads = DU_SCRATCH(ctx, du_gemm_grad, 2 * n);
    g->nodes = du_arena_alloc(ctx->scratch, (size_t)(2 * n), sizeof *g->nodes);
    g->u = DU_SCRATCH(ctx, du_gemm_job, n);
    g->v = DU_SCRATCH(ctx, du_gemm_job, n);
    g->mats = DU_SCRATCH(ctx, const du_mat *, n);
    return g->grads && g->nodes && g->u && g->v && g->mats;
}

du_err du_train_wgrad(du_ctx *ctx, const du_train *tr, const du_train_pair *pairs,
                      int64_t n_pairs) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    gradients g = {0};
    du_err err = take_gradients(ctx, &g, n_pairs) ? DU_OK : DU_ENOMEM;
    for (int64_t i = 0; i < n_pairs && err == DU_OK; i++) {
        const du_train_pair *p = &pairs[i];
        float *dw = du_sums_grad(&tr->sums, p->w->data);
        if (dw) {
            add_grad(&g, tr, dw, p->w->rows, p->w->cols, p->dy, p->x, p->end);
        } else if (p->w->adapter) {
            err = add_adapter(ctx, &g, tr, p);
        }
    }
    err = err ? err : narrow_products(ctx, tr->kind, g.u, g.mats, g.n_adapters, false);
    err = err ? err : narrow_products(ctx, tr->kind, g.v, g.mats, g.n_adapters, true);
    err = err ? err : du_gemm_wgrad(ctx, tr->kind, g.grads, g.n_grads, tr->sums.leaves);
    du_arena_release(ctx->scratch, mark);
    return err;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Of the factor that is packed whole, forward or backward. */
static size_t panels_of(const du_gemm *g, int64_t N, int64_t K) {
    return larger(du_gemm_b_bytes(g, N, K), du_gemm_b_bytes(g, K, N));
}

static size_t floats(int64_t n) {
    return (size_t)n * sizeof(float);
}

/* As base_products cuts them. */
static void add_matrix(du_train_room *room, const du_mat *w) {
    int64_t n_values = w->rows * w->cols;
    if (is_used_as_it_lies(w)) {
        room->panels += panels_of(room->gemm, w->rows, w->cols);
        return;
    }
    if (room->n_unpacked + n_values > UNPACK_VALUES) {
        room->most = larger(room->most, room->panels + floats(room->n_unpacked));
        room->panels = 0;
        room->n_unpacked = 0;
    }
    if (n_values > UNPACK_VALUES) {
        int64_t n_rows = rows_of_piece(w);
        size_t piece = floats(n_rows * w->cols) + panels_of(room->gemm, n_rows, w->cols);
        room->most = larger(room->most, piece);
        return;
    }
    room->panels += panels_of(room->gemm, w->rows, w->cols);
    room->n_unpacked += n_values;
}

void du_train_room_add(du_train_room *room, const du_mat *w, int64_t T) {
    const du_adapter *d = w->adapter;
    add_matrix(room, seen(w));
    if (d) {
        size_t of_a = panels_of(room->gemm, d->rank, w->cols);
        size_t of_b = panels_of(room->gemm, w->rows, d->rank);
        room->u += floats(T * d->rank);
        room->low += d->sum ? 0 : floats(T * d->rank);
        room->narrow += larger(of_a, of_b);
    }
}

size_t du_train_room_products(const du_train_room *room) {
    size_t last = room->panels + floats(room->n_unpacked);
    return larger(larger(room->most, last), room->low > 0 ? room->low + room->narrow : 0);
}

size_t du_train_room_gradients(const du_train_room *room) {
    return 2 * room->u + room->narrow;
}
