/* A task is a head and a segment of the context. It unpacks the head's weights, and then for one
 * step of the context after the other
 *
 *     latents c, r  ->  keys [K c | r], values V c  ->  scores, softmax and sums of all rows
 *
 * so that nothing grows with the context but time. With one segment the task divides its sums by
 * their normaliser; otherwise sums of segments are merged in order by a second region. How many
 * segments there are follows from the context and the number of heads alone.
 *
 * Two ways, as in attention.c: exactly, page by page, with keys transposed, so that scores and
 * weighted sums are the same kind of product (kern.h's pv), or rounded, in tiles of 16 rows. */
#include "nn/expanded.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    STEP_PAGES = DU_ATTN_STEP / DU_KV_PAGE,
    SEGMENT_STEPS = 8, /* at least: a segment unpacks the head's weights */
    MIN_TASKS = 64,    /* wanted of a long context */
    TILE = DU_ATTN_QUERIES,
    N_TILES = 4, /* whose sums of a step are merged while they are in the first-level cache */
    N_ROWS = 48, /* whose scores are computed together exactly */
    PAD = 16,    /* floats that keep rows out of each other's sets of the caches */
    LD_K = DU_KV_PAGE + PAD,
};

/* What a thread works in. */
typedef struct {
    float *w;    /* K [nope, R], then V [v_dim, R] */
    float *sums; /* of all rows, while there is one segment */
    /* exact */
    float *latents;     /* [DU_KV_PAGE, R+P] */
    float *k_t, *v;     /* [k_dim, LD_K], [DU_KV_PAGE, v_dim + PAD] */
    float *q, *weights; /* [T, k_dim] times scale, [N_ROWS, DU_KV_PAGE] */
    /* rounded */
    uint16_t *w_tiles, *latent_rows, *k_rows, *v_pages, *q_tiles;
    float *step; /* sums of N_TILES tiles */
} bench;

typedef struct {
    const du_kern *kern;
    const du_latent_weights *weights;
    const du_kv_layout *kv;
    const du_attn_rows *rows;
    int64_t layer, H, R, P, nope, k_dim, v_dim;
    float scale;
    bool rounded;
    const float *q;
    float *out;
    int64_t n_tiles, n_keys, n_segments, steps_per_segment;
    int64_t sums_len; /* floats of a head's sums of one segment */
    float *split;     /* [H, n_segments, sums_len], or NULL: there is one segment */
    bench *benches;   /* per thread */
} job;

static int64_t at_most(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t at_least(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* The weights of head h as f32, K from its transposed matrix. */
static void unpack_head(const job *j, int64_t h, const bench *b) {
    enum { N = 16 };
    const du_mat *k = &j->weights->k_heads[h], *v = &j->weights->v_heads[h];
    float *part = b->w + j->nope * j->R; /* room for N rows of K^T: V comes later */
    for (int64_t r = 0; r < j->R; r += N) {
        int64_t n = at_most(j->R - r, N);
        for (int64_t i = 0; i < n; i++) {
            du_mat_unpack_row(part + i * j->nope, k, r + i);
        }
        for (int64_t c = 0; c < j->nope; c++) {
            for (int64_t i = 0; i < n; i++) {
                b->w[c * j->R + r + i] = part[i * j->nope + c];
            }
        }
    }
    for (int64_t i = 0; i < j->v_dim; i++) {
        du_mat_unpack_row(b->w + (j->nope + i) * j->R, v, i);
    }
}

static const uint8_t *cached(const job *j, int64_t key) {
    uint8_t *page = j->rows->seq[0]->pages[key / DU_KV_PAGE];
    return du_kv_k(j->kv, page, j->layer, 0);
}

/* Keys from first_key on that row t sees, at most n */
static int64_t seen_by(const job *j, int64_t t, int64_t first_key, int64_t n) {
    int64_t seen = j->rows->pos[0] + t + 1 - first_key;
    return seen < 0 ? 0 : at_most(seen, n);
}

/* The first row that sees a key. */
static int64_t first_row(const job *j, int64_t key) {
    return at_least(key - j->rows->pos[0], 0);
}

typedef struct {
    float *m, *l, *acc; /* [T], [T], [T, v_dim] */
} exact_sums;

static exact_sums exact_of(const job *j, float *sums) {
    int64_t T = j->rows->T;
    return (exact_sums){sums, sums + T, sums + 2 * T};
}

static void exact_begin(const job *j, const bench *b, int64_t h, float *sums) {
    exact_sums x = exact_of(j, sums);
    for (int64_t t = 0; t < j->rows->T; t++) {
        x.m[t] = -INFINITY;
        x.l[t] = 0;
        memcpy(b->q + t * j->k_dim, j->q + (t * j->H + h) * j->k_dim,
               (size_t)j->k_dim * sizeof *b->q);
    }
    memset(x.acc, 0, (size_t)(j->rows->T * j->v_dim) * sizeof(float));
    j->kern->scale(b->q, j->scale, j->rows->T * j->k_dim);
}

/* Keys, transposed, and values of n cached rows. */
static void exact_expand(const job *j, const bench *b, const uint8_t *page, int64_t n) {
    int64_t row = j->R + j->P;
    for (int64_t i = 0; i < n; i++) {
        j->kern->kv_load[j->kv->dtype](b->latents + i * row, page + (size_t)i * j->kv->k_row_bytes,
                                       row);
    }
    size_t row_bytes = (size_t)j->R * sizeof(float);
    du_mat latents = {.data = b->latents,
                      .dtype = DU_F32,
                      .rows = n,
                      .cols = j->R,
                      .row_bytes = (size_t)row * sizeof(float)};
    du_acts k = {.x = b->w, .ldx = j->R, .T = j->nope, .cols = j->R};
    j->kern->mm[DU_F32](b->k_t, LD_K, &latents, 0, n, &k, NULL, j->nope);
    for (int64_t p = 0; p < j->P; p++) {
        for (int64_t i = 0; i < n; i++) {
            b->k_t[(j->nope + p) * LD_K + i] = b->latents[i * row + j->R + p];
        }
    }
    du_mat v = {.data = b->w + j->nope * j->R,
                .dtype = DU_F32,
                .rows = j->v_dim,
                .cols = j->R,
                .row_bytes = row_bytes};
    du_acts c = {.x = b->latents, .ldx = row, .T = n, .cols = j->R};
    j->kern->mm[DU_F32](b->v, j->v_dim + PAD, &v, 0, j->v_dim, &c, NULL, n);
}

/* Rows [t0, t0 + n_t) against n_keys expanded ones. */
static void exact_rows(const job *j, const bench *b, int64_t t0, int64_t n_t, int64_t first_key,
                       int64_t n_keys, exact_sums x) {
    memset(b->weights, 0, N_ROWS * DU_KV_PAGE * sizeof(float));
    j->kern->pv[DU_F32](b->weights, DU_KV_PAGE, b->q + t0 * j->k_dim, j->k_dim, n_t, b->k_t,
                        LD_K * sizeof(float), j->k_dim, n_keys);
    for (int64_t i = 0; i < n_t; i++) {
        int64_t t = t0 + i, seen = seen_by(j, t, first_key, n_keys);
        float *p = b->weights + i * DU_KV_PAGE;
        float keep = j->kern->softmax(p, seen, &x.m[t], &x.l[t]);
        memset(p + seen, 0, (size_t)(n_keys - seen) * sizeof *p);
        if (keep != 1.0f) {
            j->kern->scale(x.acc + t * j->v_dim, keep, j->v_dim);
        }
    }
    j->kern->pv[DU_F32](x.acc + t0 * j->v_dim, j->v_dim, b->weights, DU_KV_PAGE, n_t, b->v,
                        (size_t)(j->v_dim + PAD) * sizeof(float), n_keys, j->v_dim);
}

static void exact_step(const job *j, const bench *b, int64_t first_key, int64_t n_keys,
                       float *sums) {
    for (int64_t i = 0; i < n_keys; i += DU_KV_PAGE) {
        int64_t key = first_key + i, n = at_most(n_keys - i, DU_KV_PAGE);
        exact_expand(j, b, cached(j, key), n);
        for (int64_t t = first_row(j, key); t < j->rows->T; t += N_ROWS) {
            exact_rows(j, b, t, at_most(j->rows->T - t, N_ROWS), key, n, exact_of(j, sums));
        }
    }
}

/* out = the sums of segments, merged */
static void exact_fold(const job *j, int64_t h, float *sums) {
    for (int64_t t = 0; t < j->rows->T; t++) {
        float *y = j->out + (t * j->H + h) * j->v_dim, m = -INFINITY, l = 0;
        for (int64_t k = 0; k < j->n_segments; k++) {
            m = fmaxf(m, exact_of(j, sums + k * j->sums_len).m[t]);
        }
        memset(y, 0, (size_t)j->v_dim * sizeof *y);
        for (int64_t k = 0; k < j->n_segments; k++) {
            exact_sums x = exact_of(j, sums + k * j->sums_len);
            float a = expf(x.m[t] - m);
            l += a * x.l[t];
            j->kern->axpy(y, a, x.acc + t * j->v_dim, j->v_dim);
        }
        j->kern->scale(y, 1.0f / l, j->v_dim);
    }
}

static void rounded_begin(const job *j, const bench *b, int64_t h, float *sums) {
    const float *x[TILE];
    for (int64_t c = 0; c < j->nope + j->v_dim; c += TILE) {
        for (int64_t i = 0; i < TILE; i++) {
            x[i] = b->w + (c + i) * j->R;
        }
        j->kern->attn.queries(b->w_tiles + c * j->R, x, TILE, j->R, 1);
    }
    for (int64_t t = 0; t < j->rows->T; t += TILE) {
        int64_t n = at_most(j->rows->T - t, TILE);
        for (int64_t i = 0; i < n; i++) {
            x[i] = j->q + ((t + i) * j->H + h) * j->k_dim;
        }
        j->kern->attn.queries(b->q_tiles + t * j->k_dim, x, n, j->k_dim, j->scale * DU_ATTN_LOG2E);
    }
    memset(sums, 0, (size_t)j->sums_len * sizeof *sums);
    for (int64_t i = 0; i < j->n_tiles; i++) {
        for (int64_t k = 0; k < TILE; k++) {
            sums[i * du_attn_sums_len(j->v_dim) + k] = -INFINITY;
        }
    }
}

static void rounded_tiles(const job *j, const bench *b, int64_t i_tile, int64_t n,
                          int64_t first_key, int64_t n_keys, float *sums) {
    int64_t len = du_attn_sums_len(j->v_dim);
    int32_t seen[N_TILES * TILE];
    for (int64_t i = 0; i < n * TILE; i++) {
        seen[i] = (int32_t)seen_by(j, i_tile * TILE + i, first_key, n_keys);
    }
    j->kern->attn.step(b->step, b->q_tiles + i_tile * du_attn_queries_len(j->k_dim), n, b->k_rows,
                       b->v_pages, n_keys, j->k_dim, j->v_dim, seen);
    for (int64_t i = 0; i < n; i++) {
        j->kern->attn.merge(sums + (i_tile + i) * len, b->step + i * len, j->v_dim);
    }
}

static void rounded_step(const job *j, const bench *b, int64_t first_key, int64_t n_keys,
                         float *sums) {
    for (int64_t i = 0; i * DU_KV_PAGE < n_keys; i++) {
        int64_t n = at_most(n_keys - i * DU_KV_PAGE, DU_KV_PAGE);
        j->kern->attn.load[j->kv->dtype](b->latent_rows, NULL,
                                         cached(j, first_key + i * DU_KV_PAGE), j->kv->k_row_bytes,
                                         n, j->R + j->P, 0);
        j->kern->attn.expand(b->k_rows + i * DU_KV_PAGE * j->k_dim,
                             b->v_pages + i * du_attn_v_len(j->v_dim), b->latent_rows, b->w_tiles,
                             j->R, j->P, j->k_dim, j->v_dim);
    }
    for (int64_t i = first_row(j, first_key) / TILE; i < j->n_tiles; i += N_TILES) {
        rounded_tiles(j, b, i, at_most(j->n_tiles - i, N_TILES), first_key, n_keys, sums);
    }
}

static void rounded_fold(const job *j, int64_t h, const float *sums) {
    for (int64_t t = 0; t < j->rows->T; t += TILE) {
        int64_t n = at_most(j->rows->T - t, TILE);
        float *y[TILE];
        for (int64_t i = 0; i < n; i++) {
            y[i] = j->out + ((t + i) * j->H + h) * j->v_dim;
        }
        j->kern->attn.fold(y, n, sums + t / TILE * du_attn_sums_len(j->v_dim), j->n_segments,
                           j->sums_len, j->v_dim, 0, j->v_dim);
    }
}

static void fold_task(void *arg, int64_t h, int64_t i_thread) {
    const job *j = arg;
    float *sums = j->split ? j->split + h * j->n_segments * j->sums_len : j->benches[i_thread].sums;
    if (j->rounded) {
        rounded_fold(j, h, sums);
    } else {
        exact_fold(j, h, sums);
    }
}

static void segment_task(void *arg, int64_t i_task, int64_t i_thread) {
    const job *j = arg;
    const bench *b = &j->benches[i_thread];
    int64_t h = i_task / j->n_segments, length = j->steps_per_segment * DU_ATTN_STEP;
    int64_t first = i_task % j->n_segments * length, end = at_most(first + length, j->n_keys);
    float *sums = j->split ? j->split + i_task * j->sums_len : b->sums;
    unpack_head(j, h, b);
    (j->rounded ? rounded_begin : exact_begin)(j, b, h, sums);
    for (int64_t key = first; key < end; key += DU_ATTN_STEP) {
        (j->rounded ? rounded_step : exact_step)(j, b, key, at_most(end - key, DU_ATTN_STEP), sums);
    }
    if (!j->split) {
        fold_task(arg, h, i_thread);
    }
}

static bool make_bench(du_ctx *ctx, const job *j, bench *b) {
    int64_t T = j->rows->T;
    b->w = DU_SCRATCH(ctx, float, (j->nope + at_least(j->v_dim, 16)) * at_least(j->R, j->nope));
    b->sums = DU_SCRATCH(ctx, float, j->split ? 0 : j->sums_len);
    if (j->rounded) {
        b->w_tiles = DU_SCRATCH(ctx, uint16_t, (j->nope + j->v_dim) * j->R);
        b->latent_rows = DU_SCRATCH(ctx, uint16_t, DU_KV_PAGE * (j->R + j->P));
        b->k_rows = DU_SCRATCH(ctx, uint16_t, DU_ATTN_STEP * j->k_dim);
        b->v_pages = DU_SCRATCH(ctx, uint16_t, STEP_PAGES * du_attn_v_len(j->v_dim));
        b->q_tiles = DU_SCRATCH(ctx, uint16_t, j->n_tiles * du_attn_queries_len(j->k_dim));
        b->step = DU_SCRATCH(ctx, float, N_TILES *du_attn_sums_len(j->v_dim));
        return b->w && b->sums && b->w_tiles && b->latent_rows && b->k_rows && b->v_pages &&
               b->q_tiles && b->step;
    }
    b->latents = DU_SCRATCH(ctx, float, DU_KV_PAGE *(j->R + j->P));
    b->k_t = DU_SCRATCH(ctx, float, j->k_dim *LD_K);
    b->v = DU_SCRATCH(ctx, float, DU_KV_PAGE *(j->v_dim + PAD));
    b->q = DU_SCRATCH(ctx, float, T * j->k_dim);
    b->weights = DU_SCRATCH(ctx, float, N_ROWS *DU_KV_PAGE);
    return b->w && b->sums && b->latents && b->k_t && b->v && b->q && b->weights;
}

static du_err make_scratch(du_ctx *ctx, job *j) {
    int64_t n_threads = du_pool_n_threads(ctx->pool);
    j->benches = DU_SCRATCH(ctx, bench, n_threads);
    bool ok = j->benches;
    if (ok && j->n_segments > 1) {
        j->split = DU_SCRATCH(ctx, float, j->H * j->n_segments * j->sums_len);
        ok = j->split;
    }
    for (int64_t i = 0; ok && i < n_threads; i++) {
        ok = make_bench(ctx, j, &j->benches[i]);
    }
    return ok ? DU_OK : DU_ENOMEM;
}

static void make_segments(job *j) {
    int64_t n_steps = ceil_div(j->n_keys, DU_ATTN_STEP);
    int64_t n = at_most(ceil_div(MIN_TASKS, j->H), ceil_div(n_steps, SEGMENT_STEPS));
    n = at_most(n, DU_ATTN_SUMS);
    j->steps_per_segment = ceil_div(n_steps, n);
    j->n_segments = ceil_div(n_steps, j->steps_per_segment);
}

/* Values are read as they are stored, which nobody else does where products use strips; what lies
 * between the heads' are keys that were turned when the model was opened. */
static void unload_values(const du_ctx *ctx, const du_latent_weights *w, int64_t H) {
    const du_mat *first = &w->v_heads[0], *last = &w->v_heads[H - 1];
    if (ctx->unload && last->strips && atomic_load(&last->strips->state) == DU_STRIPS_READY) {
        const char *end = (const char *)last->data + (size_t)last->rows * last->row_bytes;
        ctx->unload(ctx->unload_user, first->data, (size_t)(end - (const char *)first->data));
    }
}

du_err du_expanded_fwd(du_ctx *ctx, float *out, const float *q, const du_latent_weights *w,
                       const du_kv_layout *kv, int64_t layer, const du_attn_rows *rows,
                       const du_attn_params *params) {
    job j = {.kern = ctx->kern,
             .weights = w,
             .kv = kv,
             .rows = rows,
             .layer = layer,
             .H = params->H,
             .R = w->k_heads->rows,
             .P = kv->k_dim - w->k_heads->rows,
             .nope = w->k_heads->cols,
             .v_dim = w->v_heads->rows,
             .scale = params->scale,
             .q = q,
             .out = out};
    bool fits = j.R % 32 == 0 && j.P % 32 == 0 && j.nope % 32 == 0 && j.v_dim % 32 == 0;
    j.rounded = fits && params->may_round && ctx->kern->attn.load[kv->dtype];
    j.k_dim = j.nope + j.P;
    j.n_tiles = ceil_div(rows->T, TILE);
    j.n_keys = rows->pos[rows->T - 1] + 1;
    j.sums_len = j.n_tiles * du_attn_sums_len(j.v_dim);
    make_segments(&j);
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    du_err err = make_scratch(ctx, &j);
    if (err == DU_OK) {
        du_pool_run(ctx->pool, segment_task, &j, j.H * j.n_segments);
    }
    if (err == DU_OK && j.split) {
        du_pool_run(ctx->pool, fold_task, &j, j.H);
    }
    unload_values(ctx, w, j.H);
    du_arena_release(ctx->scratch, mark);
    return err;
}
