/* Attention over pages.
 *
 * A task is a tile of up to TILE_ROWS rows of one sequence times a block of query heads that share
 * one key head. It walks the pages of the sequence once, each page being one tile of the running
 * softmax:
 *
 *     s   = scale * Q K_page^T          [queries, <= DU_KV_PAGE]
 *     p   = exp(s - max), rescale what was summed before
 *     acc = acc + p V_page              [queries, v_dim]
 *
 * A query of the tile that may not see a key yet (the causal edge inside the tile) gets p = 0
 * there. The steps that a query sees are the same whatever the tile holds besides, hence the same
 * bits. */
#include "nn/attention.h"

#include <math.h>
#include <string.h>

enum { TILE_ROWS = 8, MAX_HEADS_PER_TASK = 8 };

typedef struct {
    int64_t row0, n; /* rows of one sequence, consecutive positions */
} tile;

typedef struct {
    const du_kern *kern;
    const du_kv_layout *kv;
    const du_attn_rows *rows;
    int64_t layer, H, heads_per_task, blocks_per_group;
    float scale;
    const float *q;
    float *out;
    const tile *tiles;
    int64_t n_blocks; /* head blocks per tile */
    float *scores;    /* per thread [TILE_ROWS * heads_per_task, DU_KV_PAGE] */
    float *acc;       /* per thread [TILE_ROWS * heads_per_task, v_dim] */
    float *queries;   /* per thread [TILE_ROWS * heads_per_task, k_dim] */
} attn_job;

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

/* One page for all queries of the tile. Query i is row i / n_heads of the tile. */
static void attend_page(const attn_job *job, const tile *w, int64_t n_heads, int64_t g,
                        int64_t i_page, const float *q, float *s, float *acc, float *m, float *l) {
    const du_kv_layout *kv = job->kv;
    uint8_t *page = job->rows->seq[w->row0]->pages[i_page];
    int64_t first_key = i_page * DU_KV_PAGE;
    int64_t n_keys = job->rows->pos[w->row0 + w->n - 1] + 1 - first_key;
    n_keys = n_keys < DU_KV_PAGE ? n_keys : DU_KV_PAGE;
    int64_t n_q = w->n * n_heads;
    job->kern->qk[kv->dtype](s, DU_KV_PAGE, q, kv->k_dim, n_q, du_kv_k(kv, page, job->layer, g),
                             kv->k_row_bytes, n_keys, kv->k_dim, job->scale);
    for (int64_t i = 0; i < n_q; i++) {
        int64_t seen = job->rows->pos[w->row0 + i / n_heads] + 1 - first_key;
        seen = seen < n_keys ? seen : n_keys;
        float *p = s + i * DU_KV_PAGE;
        if (seen <= 0) {
            memset(p, 0, (size_t)n_keys * sizeof *p);
            continue;
        }
        float keep = job->kern->softmax(p, seen, &m[i], &l[i]);
        memset(p + seen, 0, (size_t)(n_keys - seen) * sizeof *p);
        if (keep != 1.0f) {
            job->kern->scale(acc + i * kv->v_dim, keep, kv->v_dim);
        }
    }
    job->kern->pv[kv->dtype](acc, kv->v_dim, s, DU_KV_PAGE, n_q, du_kv_v(kv, page, job->layer, g),
                             kv->v_row_bytes, n_keys, kv->v_dim);
}

static void attend_task(void *arg, int64_t i_task, int64_t i_thread) {
    const attn_job *job = arg;
    const du_kv_layout *kv = job->kv;
    const tile *w = &job->tiles[i_task / job->n_blocks];
    int64_t block = i_task % job->n_blocks;
    int64_t g = block / job->blocks_per_group, group_size = job->H / kv->n_head;
    int64_t in_group = block % job->blocks_per_group * job->heads_per_task;
    int64_t head0 = g * group_size + in_group;
    int64_t n_heads = group_size - in_group;
    n_heads = n_heads < job->heads_per_task ? n_heads : job->heads_per_task;

    int64_t max_q = TILE_ROWS * job->heads_per_task, n_q = w->n * n_heads;
    float *s = job->scores + i_thread * max_q * DU_KV_PAGE;
    float *acc = job->acc + i_thread * max_q * kv->v_dim;
    float *q = job->queries + i_thread * max_q * kv->k_dim;
    float m[TILE_ROWS * MAX_HEADS_PER_TASK], l[TILE_ROWS * MAX_HEADS_PER_TASK];
    for (int64_t i = 0; i < n_q; i++) {
        int64_t t = w->row0 + i / n_heads, h = head0 + i % n_heads;
        memcpy(q + i * kv->k_dim, job->q + (t * job->H + h) * kv->k_dim,
               (size_t)kv->k_dim * sizeof *q);
        m[i] = -INFINITY;
        l[i] = 0;
    }
    memset(acc, 0, (size_t)(n_q * kv->v_dim) * sizeof *acc);
    int64_t n_pages = job->rows->pos[w->row0 + w->n - 1] / DU_KV_PAGE + 1;
    for (int64_t i_page = 0; i_page < n_pages; i_page++) {
        attend_page(job, w, n_heads, g, i_page, q, s, acc, m, l);
    }
    for (int64_t i = 0; i < n_q; i++) {
        int64_t t = w->row0 + i / n_heads, h = head0 + i % n_heads;
        float *y = job->out + (t * job->H + h) * kv->v_dim;
        memcpy(y, acc + i * kv->v_dim, (size_t)kv->v_dim * sizeof *y);
        job->kern->scale(y, 1.0f / l[i], kv->v_dim);
    }
}

/* Cuts the batch into tiles of consecutive positions of one sequence. */
static int64_t make_tiles(tile *tiles, const du_attn_rows *rows) {
    int64_t n = 0;
    for (int64_t t = 0; t < rows->T; t++) {
        tile *last = n > 0 ? &tiles[n - 1] : NULL;
        if (last && last->n < TILE_ROWS && rows->seq[t] == rows->seq[t - 1] &&
            rows->pos[t] == rows->pos[t - 1] + 1) {
            last->n++;
        } else {
            tiles[n++] = (tile){t, 1};
        }
    }
    return n;
}

du_err du_attn_fwd(du_ctx *ctx, float *out, const float *q, const du_kv_layout *kv, int64_t layer,
                   const du_attn_rows *rows, int64_t H, float scale) {
    int64_t group_size = H / kv->n_head;
    int64_t heads = group_size < MAX_HEADS_PER_TASK ? group_size : MAX_HEADS_PER_TASK;
    int64_t n_threads = du_pool_n_threads(ctx->pool), max_q = TILE_ROWS * heads;
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    tile *tiles = DU_SCRATCH(ctx, tile, rows->T);
    attn_job job = {.kern = ctx->kern,
                    .kv = kv,
                    .rows = rows,
                    .layer = layer,
                    .H = H,
                    .heads_per_task = heads,
                    .blocks_per_group = (group_size + heads - 1) / heads,
                    .scale = scale,
                    .q = q,
                    .out = out,
                    .tiles = tiles};
    job.n_blocks = kv->n_head * job.blocks_per_group;
    job.scores = DU_SCRATCH(ctx, float, n_threads *max_q *DU_KV_PAGE);
    job.acc = DU_SCRATCH(ctx, float, n_threads *max_q * kv->v_dim);
    job.queries = DU_SCRATCH(ctx, float, n_threads *max_q * kv->k_dim);
    du_err err = tiles && job.scores && job.acc && job.queries ? DU_OK : DU_ENOMEM;
    if (err == DU_OK) {
        du_pool_run(ctx->pool, attend_task, &job, make_tiles(tiles, rows) * job.n_blocks);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}
