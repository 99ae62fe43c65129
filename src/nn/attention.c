/* Attention over pages.
 *
 * The context of a row is cut into steps of DU_ATTN_STEP positions, and those into at most
 * MAX_SEGMENTS segments of equally many steps, a power of two that follows from the row's position
 * alone:
 *
 *     segment 0                  | segment 1            ...
 *     step 0 | step 1 | ...      | step n | ...
 *
 * A step gives the greatest score m, l = sum exp(s - m) and acc = sum exp(s - m) v of each query.
 * The sums of a segment are those of its steps merged in order, a row's those of its segments
 * merged in order. So it does not matter for a bit who computes a segment, and when.
 *
 * A unit of work is a tile of rows of one sequence times a block of query heads that share one key
 * head. With enough units for the threads each is one task, which walks all segments; otherwise
 * each segment of a unit is a task, and a second parallel region merges them by columns.
 *
 * Two ways to compute a step: exactly, by qk, softmax and pv over its pages, one after the other;
 * or rounded, in tiles of 16 queries (kern/attn_tiles.h), where the level has that, the model may
 * be rounded and the shape fits. */
#include "nn/attention.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    STEP_PAGES = DU_ATTN_STEP / DU_KV_PAGE,
    MAX_SEGMENTS = DU_ATTN_SUMS,
    TILE = DU_ATTN_QUERIES,
    MAX_QUERIES = 256, /* of a unit */
    MAX_QUERIES_EXACT = 64,
    MIN_QUERIES_EXACT = 8,
    SPLIT_BYTES = 8 << 20, /* per thread, for the sums of segments */
};

static_assert(DU_ATTN_PAGE == DU_KV_PAGE, "kernels bring whole pages into form");

/* Rows of one sequence at consecutive positions, with segments of one length. */
typedef struct {
    int64_t row0, n;
    int64_t n_steps, steps_per_segment, n_segments;
} tile;

/* What a thread works in. */
typedef struct {
    float *total, *segment, *step; /* sums of a unit */
    float *scores, *queries;       /* exact: [n_q, DU_KV_PAGE], [n_q, k_dim] */
    uint16_t *tiles, *k, *v;       /* rounded: queries; pages of a step */
} bench;

typedef struct {
    const du_kern *kern;
    const du_kv_layout *kv;
    const du_attn_rows *rows;
    int64_t layer, H, group; /* group: query heads per key head */
    float scale;
    bool rounded;
    const float *q;
    float *out;
    int64_t max_queries, heads, n_blocks; /* of a unit; blocks of heads per group */
    const tile *tiles;
    int64_t n_units, max_segments;
    int64_t sums_len;  /* floats of a unit's sums */
    float *split;      /* [n_units, MAX_SEGMENTS, sums_len], or NULL: units are tasks */
    bench *benches;    /* per thread */
    int64_t n_columns; /* of a task that merges */
} attn_job;

/* A unit of work: n_q queries, number i being row i / n_heads of the tile. */
typedef struct {
    const tile *tile;
    int64_t g, head0, n_heads, n_q;
} unit;

typedef struct {
    const du_kern *kern;
    const du_kv_layout *kv;
    const du_attn_rows *rows;
    int64_t layer;
    const float *k, *v;
} append_job;

static void append_row(void *arg, int64_t t, int64_t i_thread) {
    (void)i_thread;
    const append_job *job = arg;
    const du_kv_layout *kv = job->kv;
    int64_t pos = job->rows->pos[t];
    uint8_t *page = job->rows->seq[t]->pages[pos / DU_KV_PAGE];
    size_t slot = (size_t)(pos % DU_KV_PAGE);
    for (int64_t g = 0; g < kv->n_head; g++) {
        uint8_t *k_row = du_kv_k(kv, page, job->layer, g) + slot * kv->k_row_bytes;
        job->kern->kv_store[kv->dtype](k_row, job->k + (t * kv->n_head + g) * kv->k_dim, kv->k_dim);
        if (!kv->latent) {
            uint8_t *v_row = du_kv_v(kv, page, job->layer, g) + slot * kv->v_row_bytes;
            job->kern->kv_store[kv->dtype](v_row, job->v + (t * kv->n_head + g) * kv->v_dim,
                                           kv->v_dim);
        }
    }
}

void du_kv_append(du_ctx *ctx, const du_kv_layout *kv, int64_t layer, const du_attn_rows *rows,
                  const float *k, const float *v) {
    append_job job = {ctx->kern, kv, rows, layer, k, v};
    du_pool_run(rows->T > 16 ? ctx->pool : NULL, append_row, &job, rows->T);
}

static int64_t at_most(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Positions of the row, counted from first_key, that query i sees: at most n_keys, perhaps none */
static int64_t seen_by(const attn_job *job, const unit *u, int64_t i, int64_t first_key,
                       int64_t n_keys) {
    int64_t seen = job->rows->pos[u->tile->row0 + i / u->n_heads] + 1 - first_key;
    return seen < 0 ? 0 : at_most(seen, n_keys);
}

/* Keys from first_key on that the last row of the unit sees */
static int64_t keys_from(const attn_job *job, const unit *u, int64_t first_key) {
    return job->rows->pos[u->tile->row0 + u->tile->n - 1] + 1 - first_key;
}

static const float *query(const attn_job *job, const unit *u, int64_t i) {
    int64_t t = u->tile->row0 + i / u->n_heads, h = u->head0 + i % u->n_heads;
    return job->q + (t * job->H + h) * job->kv->k_dim;
}

static float *output(const attn_job *job, const unit *u, int64_t i) {
    int64_t t = u->tile->row0 + i / u->n_heads, h = u->head0 + i % u->n_heads;
    return job->out + (t * job->H + h) * job->kv->v_dim;
}

/* Exact sums of a unit: m [max_queries], l [max_queries], acc [max_queries, v_dim]. */
typedef struct {
    float *m, *l, *acc;
} exact_sums;

static exact_sums exact_of(const attn_job *job, float *sums) {
    int64_t n = job->max_queries;
    return (exact_sums){sums, sums + n, sums + 2 * n};
}

static void exact_page(const attn_job *job, const unit *u, const bench *b, int64_t i_page,
                       exact_sums sums) {
    const du_kv_layout *kv = job->kv;
    uint8_t *page = job->rows->seq[u->tile->row0]->pages[i_page];
    int64_t first_key = i_page * DU_KV_PAGE;
    int64_t n_keys = at_most(keys_from(job, u, first_key), DU_KV_PAGE);
    job->kern->qk[kv->dtype](b->scores, DU_KV_PAGE, b->queries, kv->k_dim, u->n_q,
                             du_kv_k(kv, page, job->layer, u->g), kv->k_row_bytes, n_keys,
                             kv->k_dim, job->scale);
    for (int64_t i = 0; i < u->n_q; i++) {
        int64_t seen = seen_by(job, u, i, first_key, n_keys);
        float *p = b->scores + i * DU_KV_PAGE;
        float keep = seen > 0 ? job->kern->softmax(p, seen, &sums.m[i], &sums.l[i]) : 1;
        memset(p + seen, 0, (size_t)(n_keys - seen) * sizeof *p);
        if (keep != 1.0f) {
            job->kern->scale(sums.acc + i * kv->v_dim, keep, kv->v_dim);
        }
    }
    job->kern->pv[kv->dtype](sums.acc, kv->v_dim, b->scores, DU_KV_PAGE, u->n_q,
                             du_kv_v(kv, page, job->layer, u->g), kv->v_row_bytes, n_keys,
                             kv->v_dim);
}

static void exact_step(const attn_job *job, const unit *u, const bench *b, int64_t i_step,
                       float *out) {
    exact_sums sums = exact_of(job, out);
    for (int64_t i = 0; i < u->n_q; i++) {
        sums.m[i] = -INFINITY;
        sums.l[i] = 0;
    }
    memset(sums.acc, 0, (size_t)(u->n_q * job->kv->v_dim) * sizeof(float));
    int64_t page0 = i_step * STEP_PAGES;
    int64_t n_pages = ceil_div(keys_from(job, u, page0 * DU_KV_PAGE), DU_KV_PAGE);
    for (int64_t i = 0; i < at_most(n_pages, STEP_PAGES); i++) {
        exact_page(job, u, b, page0 + i, sums);
    }
}

/* The factors of two sums that become one, and m and l of that one. */
static void exact_factors(float *m, float *l, float m1, float l1, float *a, float *b) {
    float m_new = fmaxf(*m, m1), base = m_new == -INFINITY ? 0 : m_new;
    *a = expf(*m - base);
    *b = expf(m1 - base);
    *l = *l * *a + l1 * *b;
    *m = m_new;
}

static void exact_merge(const attn_job *job, int64_t n_q, float *to, float *from) {
    exact_sums x = exact_of(job, to), y = exact_of(job, from);
    int64_t n = job->kv->v_dim;
    for (int64_t i = 0; i < n_q; i++) {
        float a, b;
        exact_factors(&x.m[i], &x.l[i], y.m[i], y.l[i], &a, &b);
        job->kern->scale(x.acc + i * n, a, n);
        job->kern->axpy(x.acc + i * n, b, y.acc + i * n, n);
    }
}

/* out = the merged sums of n_sums segments, columns [c0, c1) */
static void exact_fold(const attn_job *job, const unit *u, float *sums, int64_t n_sums, int64_t c0,
                       int64_t c1) {
    for (int64_t i = 0; i < u->n_q; i++) {
        float *y = output(job, u, i) + c0;
        exact_sums x = exact_of(job, sums);
        float m = x.m[i], l = x.l[i];
        memcpy(y, x.acc + i * job->kv->v_dim + c0, (size_t)(c1 - c0) * sizeof *y);
        for (int64_t k = 1; k < n_sums; k++) {
            float a, b;
            x = exact_of(job, sums + k * job->sums_len);
            exact_factors(&m, &l, x.m[i], x.l[i], &a, &b);
            job->kern->scale(y, a, c1 - c0);
            job->kern->axpy(y, b, x.acc + i * job->kv->v_dim + c0, c1 - c0);
        }
        job->kern->scale(y, 1.0f / l, c1 - c0);
    }
}

/* The pages of a step in the kernels' form. */
static void load_step(const attn_job *job, const unit *u, const bench *b, int64_t page0,
                      int64_t n_keys) {
    const du_kv_layout *kv = job->kv;
    uint8_t **pages = job->rows->seq[u->tile->row0]->pages + page0;
    du_attn_load_fn *load = job->kern->attn.load[kv->dtype];
    for (int64_t i = 0; i * DU_KV_PAGE < n_keys; i++) {
        int64_t n = at_most(n_keys - i * DU_KV_PAGE, DU_KV_PAGE);
        uint16_t *k = b->k + i * DU_KV_PAGE * kv->k_dim, *v = b->v + i * du_attn_v_len(kv->v_dim);
        const uint8_t *k_rows = du_kv_k(kv, pages[i], job->layer, u->g);
        if (kv->latent) {
            load(k, v, k_rows, kv->k_row_bytes, n, kv->k_dim, kv->v_dim);
        } else {
            load(k, NULL, k_rows, kv->k_row_bytes, n, kv->k_dim, 0);
            load(NULL, v, du_kv_v(kv, pages[i], job->layer, u->g), kv->v_row_bytes, n, 0,
                 kv->v_dim);
        }
    }
}

static void rounded_step(const attn_job *job, const unit *u, const bench *b, int64_t i_step,
                         float *out) {
    int64_t first_key = i_step * DU_ATTN_STEP;
    int64_t n_keys = at_most(keys_from(job, u, first_key), DU_ATTN_STEP);
    int64_t n_tiles = ceil_div(u->n_q, TILE);
    int32_t seen[MAX_QUERIES];
    for (int64_t i = 0; i < n_tiles * TILE; i++) {
        seen[i] = (int32_t)(i < u->n_q ? seen_by(job, u, i, first_key, n_keys) : n_keys);
    }
    load_step(job, u, b, i_step * STEP_PAGES, n_keys);
    job->kern->attn.step(out, b->tiles, n_tiles, b->k, b->v, n_keys, job->kv->k_dim, job->kv->v_dim,
                         seen);
}

static void rounded_merge(const attn_job *job, int64_t n_q, float *to, const float *from) {
    int64_t n = du_attn_sums_len(job->kv->v_dim);
    for (int64_t i = 0; i < ceil_div(n_q, TILE); i++) {
        job->kern->attn.merge(to + i * n, from + i * n, job->kv->v_dim);
    }
}

static void rounded_fold(const attn_job *job, const unit *u, const float *sums, int64_t n_sums,
                         int64_t c0, int64_t c1) {
    int64_t v_dim = job->kv->v_dim;
    for (int64_t i = 0; i < u->n_q; i += TILE, sums += du_attn_sums_len(v_dim)) {
        int64_t n = at_most(u->n_q - i, TILE);
        float *y[TILE];
        for (int64_t k = 0; k < n; k++) {
            y[k] = output(job, u, i + k);
        }
        job->kern->attn.fold(y, n, sums, n_sums, job->sums_len, v_dim, c0, c1);
    }
}

static void take_queries(const attn_job *job, const unit *u, const bench *b) {
    int64_t k_dim = job->kv->k_dim;
    for (int64_t i = 0; i < u->n_q && !job->rounded; i++) {
        memcpy(b->queries + i * k_dim, query(job, u, i), (size_t)k_dim * sizeof(float));
    }
    for (int64_t i = 0; i < u->n_q && job->rounded; i += TILE) {
        int64_t n = at_most(u->n_q - i, TILE);
        const float *q[TILE];
        for (int64_t k = 0; k < n; k++) {
            q[k] = query(job, u, i + k);
        }
        job->kern->attn.queries(b->tiles + i * k_dim, q, n, k_dim, job->scale * DU_ATTN_LOG2E);
    }
}

static void merge(const attn_job *job, const unit *u, float *to, float *from) {
    if (job->rounded) {
        rounded_merge(job, u->n_q, to, from);
    } else {
        exact_merge(job, u->n_q, to, from);
    }
}

static void fold(const attn_job *job, const unit *u, float *sums, int64_t n_sums, int64_t c0,
                 int64_t c1) {
    if (job->rounded) {
        rounded_fold(job, u, sums, n_sums, c0, c1);
    } else {
        exact_fold(job, u, sums, n_sums, c0, c1);
    }
}

/* The sums of a segment. */
static void walk_segment(const attn_job *job, const unit *u, const bench *b, int64_t i_segment,
                         float *out) {
    int64_t first = i_segment * u->tile->steps_per_segment;
    int64_t end = at_most(first + u->tile->steps_per_segment, u->tile->n_steps);
    for (int64_t i = first; i < end; i++) {
        float *sums = i == first ? out : b->step;
        if (job->rounded) {
            rounded_step(job, u, b, i, sums);
        } else {
            exact_step(job, u, b, i, sums);
        }
        if (i > first) {
            merge(job, u, out, sums);
        }
    }
}

static unit unit_at(const attn_job *job, int64_t i_unit) {
    int64_t blocks = job->kv->n_head * job->n_blocks, block = i_unit % blocks;
    unit u = {.tile = &job->tiles[i_unit / blocks], .g = block / job->n_blocks};
    int64_t in_group = block % job->n_blocks * job->heads;
    u.head0 = u.g * job->group + in_group;
    u.n_heads = at_most(job->group - in_group, job->heads);
    u.n_q = u.tile->n * u.n_heads;
    return u;
}

/* A whole unit. The last tiles of a prompt see most: they come first. */
static void unit_task(void *arg, int64_t i_task, int64_t i_thread) {
    const attn_job *job = arg;
    const bench *b = &job->benches[i_thread];
    unit u = unit_at(job, job->n_units - 1 - i_task);
    take_queries(job, &u, b);
    for (int64_t i = 0; i < u.tile->n_segments; i++) {
        float *sums = i == 0 ? b->total : b->segment;
        walk_segment(job, &u, b, i, sums);
        if (i > 0) {
            merge(job, &u, b->total, sums);
        }
    }
    fold(job, &u, b->total, 1, 0, job->kv->v_dim);
}

static float *split_sums(const attn_job *job, int64_t i_unit, int64_t i_segment) {
    return job->split + (i_unit * MAX_SEGMENTS + i_segment) * job->sums_len;
}

static void segment_task(void *arg, int64_t i_task, int64_t i_thread) {
    const attn_job *job = arg;
    int64_t i_unit = i_task / job->max_segments, i_segment = i_task % job->max_segments;
    unit u = unit_at(job, i_unit);
    if (i_segment < u.tile->n_segments) {
        take_queries(job, &u, &job->benches[i_thread]);
        walk_segment(job, &u, &job->benches[i_thread], i_segment,
                     split_sums(job, i_unit, i_segment));
    }
}

static void fold_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const attn_job *job = arg;
    int64_t n_parts = ceil_div(job->kv->v_dim, job->n_columns), i_unit = i_task / n_parts;
    int64_t c0 = i_task % n_parts * job->n_columns;
    unit u = unit_at(job, i_unit);
    fold(job, &u, split_sums(job, i_unit, 0), u.tile->n_segments, c0,
         at_most(c0 + job->n_columns, job->kv->v_dim));
}

static int64_t steps_per_segment(int64_t n_steps) {
    int64_t n = 1;
    while (n * MAX_SEGMENTS < n_steps) {
        n *= 2;
    }
    return n;
}

/* Cuts the batch into tiles of at most n_max rows. */
static int64_t make_tiles(tile *tiles, const du_attn_rows *rows, int64_t n_max) {
    int64_t n = 0;
    for (int64_t t = 0; t < rows->T; t++) {
        tile *last = n > 0 ? &tiles[n - 1] : NULL;
        int64_t n_steps = rows->pos[t] / DU_ATTN_STEP + 1, length = steps_per_segment(n_steps);
        if (last && last->n < n_max && rows->seq[t] == rows->seq[t - 1] &&
            rows->pos[t] == rows->pos[t - 1] + 1 && length == last->steps_per_segment) {
            last->n++;
        } else {
            last = &tiles[n++];
            *last = (tile){.row0 = t, .n = 1, .steps_per_segment = length};
        }
        last->n_steps = n_steps;
        last->n_segments = ceil_div(n_steps, length);
    }
    return n;
}

static bool fits_tiles(const du_attn_tiles *attn, const du_kv_layout *kv, int64_t group) {
    return attn->load[kv->dtype] && kv->k_dim % 32 == 0 && kv->v_dim % 32 == 0 &&
           group >= attn->min_queries;
}

/* Units as large as leaves enough of them for the threads, with their segments. */
static void make_units(attn_job *job, tile *tiles, int64_t n_threads) {
    int64_t n_tiles, least = job->rounded ? TILE : MIN_QUERIES_EXACT;
    job->max_queries = job->rounded ? MAX_QUERIES : MAX_QUERIES_EXACT;
    for (;; job->max_queries /= 2) {
        job->heads = at_most(job->group, job->max_queries);
        job->n_blocks = ceil_div(job->group, job->heads);
        n_tiles = make_tiles(tiles, job->rows, job->max_queries / job->heads);
        job->n_units = n_tiles * job->kv->n_head * job->n_blocks;
        job->max_segments = 1;
        for (int64_t i = 0; i < n_tiles; i++) {
            int64_t n = tiles[i].n_segments;
            job->max_segments = n > job->max_segments ? n : job->max_segments;
        }
        if (job->n_units * job->max_segments >= n_threads || job->max_queries == least) {
            break;
        }
    }
    job->tiles = tiles;
    int64_t n_q = at_most(job->max_queries, job->rows->T * job->heads);
    job->max_queries = ceil_div(n_q, TILE) * TILE;
    job->sums_len = job->max_queries / TILE * du_attn_sums_len(job->kv->v_dim);
}

static bool make_bench(du_ctx *ctx, const attn_job *job, bench *b) {
    const du_kv_layout *kv = job->kv;
    int64_t n_q = job->max_queries;
    b->total = DU_SCRATCH(ctx, float, 3 * job->sums_len);
    if (!b->total) {
        return false;
    }
    b->segment = b->total + job->sums_len;
    b->step = b->segment + job->sums_len;
    if (job->rounded) {
        b->tiles = DU_SCRATCH(ctx, uint16_t, n_q * kv->k_dim);
        b->k = DU_SCRATCH(ctx, uint16_t, DU_ATTN_STEP * kv->k_dim);
        b->v = DU_SCRATCH(ctx, uint16_t, STEP_PAGES * du_attn_v_len(kv->v_dim));
        return b->tiles && b->k && b->v;
    }
    b->scores = DU_SCRATCH(ctx, float, n_q *DU_KV_PAGE);
    b->queries = DU_SCRATCH(ctx, float, n_q * kv->k_dim);
    return b->scores && b->queries;
}

static du_err make_scratch(du_ctx *ctx, attn_job *job, int64_t n_threads) {
    job->benches = DU_SCRATCH(ctx, bench, n_threads);
    bool ok = job->benches;
    for (int64_t i = 0; ok && i < n_threads; i++) {
        ok = make_bench(ctx, job, &job->benches[i]);
    }
    /* Taken also while there is one segment, so that a longer context allocates nothing. */
    int64_t n_split = job->n_units * MAX_SEGMENTS * job->sums_len;
    bool split = n_threads > 1 && job->n_units < 4 * n_threads &&
                 n_split * (int64_t)sizeof(float) <= n_threads * SPLIT_BYTES;
    if (ok && split) {
        job->split = DU_SCRATCH(ctx, float, n_split);
        ok = job->split;
    }
    return ok ? DU_OK : DU_ENOMEM;
}

static void run(du_ctx *ctx, attn_job *job, int64_t n_threads) {
    if (!job->split || job->max_segments == 1) {
        du_pool_run(ctx->pool, unit_task, job, job->n_units);
        return;
    }
    du_pool_run(ctx->pool, segment_task, job, job->n_units * job->max_segments);
    int64_t n = ceil_div(job->kv->v_dim * job->n_units, 2 * n_threads);
    job->n_columns = at_most(ceil_div(n, 64) * 64, job->kv->v_dim);
    du_pool_run(ctx->pool, fold_task, job, job->n_units * ceil_div(job->kv->v_dim, job->n_columns));
}

du_err du_attn_fwd(du_ctx *ctx, float *out, const float *q, const du_kv_layout *kv, int64_t layer,
                   const du_attn_rows *rows, const du_attn_params *params) {
    int64_t n_threads = du_pool_n_threads(ctx->pool), group = params->H / kv->n_head;
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    tile *tiles = DU_SCRATCH(ctx, tile, rows->T);
    attn_job job = {.kern = ctx->kern,
                    .kv = kv,
                    .rows = rows,
                    .layer = layer,
                    .H = params->H,
                    .group = group,
                    .scale = params->scale,
                    .rounded = params->may_round && fits_tiles(&ctx->kern->attn, kv, group),
                    .q = q,
                    .out = out};
    du_err err = tiles ? DU_OK : DU_ENOMEM;
    if (err == DU_OK) {
        make_units(&job, tiles, n_threads);
        err = make_scratch(ctx, &job, n_threads);
    }
    if (err == DU_OK) {
        run(ctx, &job, n_threads);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}
