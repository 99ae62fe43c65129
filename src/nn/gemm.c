/* Products over a pool: what kern/gemm.h computes from panels, cut into tasks.
 *
 * Forward and gradient of the input. Weights are the factor B. They are packed whole, blocks of k
 * one after the other, by a first parallel region unless the caller did so before. A task of the
 * second region owns a tile of a result: it packs its rows of x for one block of k after the other
 * and goes on with its tile's chains. Where there are threads enough for it, tiles span all
 * columns, so that rows are packed once.
 *
 * Gradient of the weights. Both factors are packed whole by a first region, the rows of a leaf in
 * blocks of k of its own; products whose panels are large together take turns. A task of the second
 * region owns a tile of a gradient, computes the leaves' sums of it one after the other and adds
 * them up like a binary counter: level l of `waiting` holds the sum of 2^l leaves or nothing. */
#include "nn/gemm.h"

#include <string.h>

enum {
    M_TILE = 192,      /* rows of a task at most: its panels of A stay in the second-level cache */
    N_TILE_GRAD = 256, /* columns of a task of a gradient at most: several tiles of sums do too */
    GRADS_BYTES = 1 << 26, /* panels of gradients that are computed together, at most if several */
    TASKS = 4,             /* per thread, where tiles do not become too small */
    M_TILE_MIN = 48,
    N_TILE_MIN = 128,
    PACK_PANELS = 4, /* panels of B of a task */
    LEVELS = 63,
};

/* Rows [row, row + n_k) of both factors of a gradient, and where its panels lie */
typedef struct {
    int64_t row, n_k;
    size_t a_at, b_at;
} k_part;

/* A product in the terms of the kernels: C [m,n] from A [m,k] and B [k,n]. */
typedef struct {
    float *c;
    int64_t ldc;
    du_gemm_src a, b;
    char *b_panels;
    char *a_panels; /* gradients only; the others pack A on the way */
    bool pack_b, add;
    int64_t m, n, k;
    int64_t m_tile, n_tile;
    int64_t first_pack, first_tile; /* tasks */
    const du_gemm_grad *grad;
    const k_part *blocks; /* [n_blocks] of a gradient, leaf after leaf */
    int64_t n_blocks;
} product;

typedef struct {
    const du_gemm *gemm;
    du_gemm_add_fn *add;
    product *products;
    int64_t n_products;
    char *scratch; /* per thread scratch_bytes: panels of A; of gradients tiles of sums */
    size_t scratch_bytes;
    int64_t tile_len;
    du_leaves leaves;
} gemm_work;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t count(int64_t n, int64_t step) {
    return (n + step - 1) / step;
}

/* Sizes of the tiles of a product so that it makes its share of the tasks. */
static void cut(const du_gemm *g, product *p, int64_t n_tile_max, double work_of_task) {
    int64_t n_max = least(n_tile_max, du_gemm_round_up(p->n, g->n_panel));
    p->m_tile = du_gemm_round_up(count(p->m, count(p->m, M_TILE)), g->m_panel);
    p->n_tile = du_gemm_round_up(count(p->n, count(p->n, n_max)), g->n_panel);
    while ((double)p->m_tile * (double)p->n_tile * (double)p->k > work_of_task) {
        if (p->m_tile >= M_TILE) {
            p->m_tile = du_gemm_round_up(p->m_tile / 2, g->m_panel);
        } else if (p->n_tile >= 2 * N_TILE_MIN) {
            p->n_tile = du_gemm_round_up(p->n_tile / 2, g->n_panel);
        } else if (p->m_tile >= 2 * M_TILE_MIN) {
            p->m_tile = du_gemm_round_up(p->m_tile / 2, g->m_panel);
        } else {
            return;
        }
    }
}

/* Cuts all products; returns the number of tiles. */
static int64_t cut_all(const du_ctx *ctx, gemm_work *w, int64_t n_tile_max, int64_t *m_tile_max) {
    double work = 0;
    int64_t n_tiles = 0, n_threads = du_pool_n_threads(ctx->pool);
    for (int64_t i = 0; i < w->n_products; i++) {
        const product *p = &w->products[i];
        work += (double)p->m * (double)p->n * (double)p->k;
    }
    *m_tile_max = 0;
    for (int64_t i = 0; i < w->n_products; i++) {
        product *p = &w->products[i];
        p->first_tile = n_tiles;
        if (p->m == 0 || p->n == 0) {
            continue;
        }
        cut(w->gemm, p, n_tile_max, n_threads > 1 ? work / (double)(TASKS * n_threads) : work);
        n_tiles += count(p->m, p->m_tile) * count(p->n, p->n_tile);
        *m_tile_max = p->m_tile > *m_tile_max ? p->m_tile : *m_tile_max;
    }
    return n_tiles;
}

typedef struct {
    const product *p;
    int64_t i0, j0, m, n;
} tile;

static tile tile_of(const gemm_work *w, int64_t i_task) {
    const product *p = &w->products[w->n_products - 1];
    while (p->first_tile > i_task) {
        p--;
    }
    int64_t n_cols = count(p->n, p->n_tile), i = i_task - p->first_tile;
    tile t = {.p = p, .i0 = i / n_cols * p->m_tile, .j0 = i % n_cols * p->n_tile};
    t.m = least(p->m_tile, p->m - t.i0);
    t.n = least(p->n_tile, p->n - t.j0);
    return t;
}

/* Tasks of packing: for each block of k, groups of panels. */
static int64_t pack_tasks(const du_gemm *g, const product *p) {
    return count(p->n, PACK_PANELS * g->n_panel) * count(p->k, g->k_block);
}

static void pack_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const gemm_work *w = arg;
    const du_gemm *g = w->gemm;
    const product *p = &w->products[w->n_products - 1];
    while (p->first_pack > i_task) {
        p--;
    }
    int64_t n_group = PACK_PANELS * g->n_panel, n_groups = count(p->n, n_group);
    int64_t i = i_task - p->first_pack, j = i % n_groups * n_group, k = i / n_groups * g->k_block;
    int64_t n_k = least(g->k_block, p->k - k);
    char *to = p->b_panels + du_gemm_b_bytes(g, p->n, k) + du_gemm_b_bytes(g, j, n_k);
    g->pack_b(to, &p->b, j, least(n_group, p->n - j), k, n_k);
}

static void tile_task(void *arg, int64_t i_task, int64_t i_thread) {
    const gemm_work *w = arg;
    const du_gemm *g = w->gemm;
    tile t = tile_of(w, i_task);
    const product *p = t.p;
    char *a = w->scratch + (size_t)i_thread * w->scratch_bytes;
    for (int64_t k = 0; k == 0 || k < p->k; k += g->k_block) {
        int64_t n_k = least(g->k_block, p->k - k);
        const char *b = p->b_panels + du_gemm_b_bytes(g, p->n, k) + du_gemm_b_bytes(g, t.j0, n_k);
        g->pack_a(a, &p->a, t.i0, t.m, k, n_k);
        g->block(p->c + t.i0 * p->ldc + t.j0, p->ldc, a, b, t.m, t.n, n_k, p->add || k > 0);
    }
}

/* Packs what is to be packed, then computes. */
static du_err run(du_ctx *ctx, gemm_work *w) {
    int64_t m_tile_max, n_tiles = cut_all(ctx, w, INT64_MAX, &m_tile_max), n_packs = 0;
    for (int64_t i = 0; i < w->n_products; i++) {
        product *p = &w->products[i];
        p->first_pack = n_packs;
        if (!p->pack_b || p->m == 0) {
            continue;
        }
        p->b_panels = DU_SCRATCH(ctx, char, du_gemm_b_bytes(w->gemm, p->n, p->k));
        if (!p->b_panels) {
            return DU_ENOMEM;
        }
        n_packs += pack_tasks(w->gemm, p);
    }
    w->scratch_bytes = du_gemm_a_bytes(w->gemm, m_tile_max, w->gemm->k_block);
    w->scratch = DU_SCRATCH(ctx, char, du_pool_n_threads(ctx->pool) * (int64_t)w->scratch_bytes);
    if (!w->scratch) {
        return DU_ENOMEM;
    }
    du_pool_run(ctx->pool, pack_task, w, n_packs);
    du_pool_run(ctx->pool, tile_task, w, n_tiles);
    return DU_OK;
}

static du_gemm_src with_k_rows(du_gemm_src s, bool k_rows) {
    s.k_rows = k_rows;
    return s;
}

static du_err multiply(du_ctx *ctx, du_gemm_kind kind, const du_gemm_job *jobs, int64_t n_jobs,
                       bool dgrad) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    gemm_work w = {.gemm = &ctx->kern->gemm[kind], .n_products = n_jobs};
    w.products = DU_SCRATCH(ctx, product, n_jobs);
    du_err err = w.products ? DU_OK : DU_ENOMEM;
    for (int64_t i = 0; err == DU_OK && i < n_jobs; i++) {
        const du_gemm_job *job = &jobs[i];
        union {
            const void *in;
            char *out;
        } packed = {job->packed}; /* read only, as pack_b says */
        w.products[i] = (product){.c = job->y,
                                  .ldc = job->ldy,
                                  .a = with_k_rows(job->x, false),
                                  .b = with_k_rows(job->w, dgrad),
                                  .b_panels = packed.out,
                                  .pack_b = !job->packed,
                                  .add = job->add,
                                  .m = job->T,
                                  .n = dgrad ? job->K : job->N,
                                  .k = dgrad ? job->N : job->K};
    }
    err = err || n_jobs == 0 ? err : run(ctx, &w);
    du_arena_release(ctx->scratch, mark);
    return err;
}

du_err du_gemm_fwd(du_ctx *ctx, du_gemm_kind kind, const du_gemm_job *jobs, int64_t n_jobs) {
    return multiply(ctx, kind, jobs, n_jobs, false);
}

du_err du_gemm_dgrad(du_ctx *ctx, du_gemm_kind kind, const du_gemm_job *jobs, int64_t n_jobs) {
    return multiply(ctx, kind, jobs, n_jobs, true);
}

size_t du_gemm_packed_fwd_bytes(const du_kern *kern, du_gemm_kind kind, int64_t N, int64_t K) {
    return du_gemm_b_bytes(&kern->gemm[kind], N, K);
}

size_t du_gemm_packed_dgrad_bytes(const du_kern *kern, du_gemm_kind kind, int64_t N, int64_t K) {
    return du_gemm_b_bytes(&kern->gemm[kind], K, N);
}

static void pack_weights(du_ctx *ctx, du_gemm_kind kind, void *to, const du_gemm_src *src,
                         int64_t n, int64_t k, bool k_rows) {
    product p = {.b = with_k_rows(*src, k_rows), .b_panels = to, .n = n, .k = k};
    gemm_work w = {.gemm = &ctx->kern->gemm[kind], .products = &p, .n_products = 1};
    du_pool_run(ctx->pool, pack_task, &w, pack_tasks(w.gemm, &p));
}

void du_gemm_pack_fwd(du_ctx *ctx, du_gemm_kind kind, void *to, const du_gemm_src *w, int64_t N,
                      int64_t K) {
    pack_weights(ctx, kind, to, w, N, K, false);
}

void du_gemm_pack_dgrad(du_ctx *ctx, du_gemm_kind kind, void *to, const du_gemm_src *w, int64_t N,
                        int64_t K) {
    pack_weights(ctx, kind, to, w, K, N, true);
}

/* A sum over leaves of a tile: in a buffer of the task, or in the caller's nodes. */
typedef struct {
    float *sum; /* NULL: nothing waits */
    int64_t ld;
    bool zero, own; /* all zeros, whatever the buffer holds; a buffer of the task */
} node;

typedef struct {
    const gemm_work *w;
    tile t;
    node waiting[LEVELS];
    float *buffers[LEVELS + 1]; /* of the task, not in use */
    int64_t n_buffers;
} tree;

static node take_buffer(tree *tr, bool zero) {
    return (node){tr->buffers[--tr->n_buffers], tr->t.p->n_tile, zero, true};
}

static void give_buffer(tree *tr, node n) {
    if (n.own) {
        tr->buffers[tr->n_buffers++] = n.sum;
    }
}

/* left + right; right's buffer is given back, or left's where it is not the task's */
static node combine(tree *tr, node left, node right) {
    const tile *t = &tr->t;
    if (!left.own) { /* the sum is the same either way round */
        node n = left;
        left = right;
        right = n;
    }
    if (left.zero && right.zero) {
        give_buffer(tr, right);
        return left;
    }
    if (left.zero) {
        for (int64_t i = 0; i < t->m; i++) {
            memset(left.sum + i * left.ld, 0, (size_t)t->n * sizeof *left.sum);
        }
        left.zero = false;
    }
    tr->w->add(left.sum, left.ld, right.zero ? NULL : right.sum, right.ld, t->m, t->n);
    give_buffer(tr, right);
    return left;
}

/* The next leaf's sum joins the others. */
static void push(tree *tr, node n) {
    int64_t l = 0;
    for (; tr->waiting[l].sum; l++) {
        n = combine(tr, tr->waiting[l], n);
        tr->waiting[l].sum = NULL;
    }
    tr->waiting[l] = n;
}

/* The sum of rows up to `end` to c, from block *i on, which is advanced. */
static void leaf_sum(const gemm_work *w, const tile *t, float *c, int64_t ldc, int64_t *i,
                     int64_t end) {
    const du_gemm *g = w->gemm;
    const product *p = t->p;
    for (bool go_on = false; *i < p->n_blocks && p->blocks[*i].row < end; (*i)++, go_on = true) {
        const k_part *b = &p->blocks[*i];
        g->block(c, ldc, p->a_panels + b->a_at + du_gemm_a_bytes(g, t->i0, b->n_k),
                 p->b_panels + b->b_at + du_gemm_b_bytes(g, t->j0, b->n_k), t->m, t->n, b->n_k,
                 go_on);
    }
}

static void put_rows(float *to, int64_t ld, const node *n, const tile *t) {
    for (int64_t i = 0; i < t->m; i++) {
        if (n->zero) {
            memset(to + i * ld, 0, (size_t)t->n * sizeof *to);
        } else {
            memcpy(to + i * ld, n->sum + i * n->ld, (size_t)t->n * sizeof *to);
        }
    }
}

/* What waits goes to the caller: each to its node, or the sum of all, lowest level first. */
static void finish(tree *tr) {
    const tile *t = &tr->t;
    const product *p = t->p;
    int64_t at = t->i0 * p->ldc + t->j0;
    node sum = {0};
    for (int64_t l = 0; l < LEVELS; l++) {
        node n = tr->waiting[l];
        if (!n.sum) {
            continue;
        }
        if (tr->w->leaves.last) {
            sum = sum.sum ? combine(tr, n, sum) : n;
        } else if (n.own) {
            put_rows(p->grad->nodes[l] + at, p->ldc, &n, t);
        }
    }
    if (!tr->w->leaves.last) {
        return;
    }
    if (p->add) {
        tr->w->add(p->c + at, p->ldc, sum.zero ? NULL : sum.sum, sum.ld, t->m, t->n);
    } else if (sum.sum != p->c + at) { /* dw may be the place of the last node */
        put_rows(p->c + at, p->ldc, &sum, t);
    }
}

static void grad_task(void *arg, int64_t i_task, int64_t i_thread) {
    const gemm_work *w = arg;
    tree tr = {.w = w, .t = tile_of(w, i_task)};
    const product *p = tr.t.p;
    int64_t at = tr.t.i0 * p->ldc + tr.t.j0, first = w->leaves.first, n = w->leaves.n, block = 0;
    if (first == 0 && n == 1 && w->leaves.last && !p->add && p->k > 0) {
        leaf_sum(w, &tr.t, p->c + at, p->ldc, &block, p->k);
        return;
    }
    float *tiles = (float *)(void *)(w->scratch + (size_t)i_thread * w->scratch_bytes);
    for (int64_t l = 0; (first + n) >> l > 0; l++) {
        tr.buffers[tr.n_buffers++] = tiles + l * w->tile_len;
    }
    tr.buffers[tr.n_buffers] = tiles + tr.n_buffers * w->tile_len;
    tr.n_buffers++;
    for (int64_t l = 0; first >> l > 0; l++) {
        if (first >> l & 1) {
            tr.waiting[l] = (node){p->grad->nodes[l] + at, p->ldc, false, false};
        }
    }
    for (int64_t i = 0, row = 0; i < n; row = p->grad->end[i], i++) {
        node leaf = take_buffer(&tr, p->grad->end[i] == row);
        leaf_sum(w, &tr.t, leaf.sum, leaf.ld, &block, p->grad->end[i]);
        push(&tr, leaf);
    }
    finish(&tr);
}

static product product_of(const du_gemm_grad *grad, du_leaves leaves) {
    return (product){.c = grad->dw,
                     .ldc = grad->lddw,
                     .a = with_k_rows(grad->dy, true),
                     .b = with_k_rows(grad->x, true),
                     .add = grad->add,
                     .m = grad->N,
                     .n = grad->K,
                     .k = leaves.n > 0 ? grad->end[leaves.n - 1] : 0,
                     .grad = grad};
}

/* Lays out the panels of a gradient: blocks (NULL: only counted), and the bytes of both factors. */
static void lay_out(const du_gemm *g, product *p, int64_t n_leaves, k_part *blocks, size_t *a_bytes,
                    size_t *b_bytes) {
    *a_bytes = *b_bytes = 0;
    p->blocks = blocks;
    p->n_blocks = 0;
    for (int64_t i = 0, row = 0; i < n_leaves; i++) {
        for (int64_t n_k; row < p->grad->end[i]; row += n_k) {
            n_k = least(g->k_block, p->grad->end[i] - row);
            if (blocks) {
                blocks[p->n_blocks] = (k_part){row, n_k, *a_bytes, *b_bytes};
            }
            p->n_blocks++;
            *a_bytes += du_gemm_a_bytes(g, p->m, n_k);
            *b_bytes += du_gemm_b_bytes(g, p->n, n_k);
        }
    }
}

/* Tasks of packing: for each block, groups of panels of A, then of B. */
static int64_t n_groups(int64_t n, int64_t panel) {
    return count(n, PACK_PANELS * panel);
}

static void pack_grad_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const gemm_work *w = arg;
    const du_gemm *g = w->gemm;
    const product *p = &w->products[w->n_products - 1];
    while (p->first_pack > i_task) {
        p--;
    }
    int64_t n_a = n_groups(p->m, g->m_panel), n_b = n_groups(p->n, g->n_panel);
    const k_part *b = &p->blocks[(i_task - p->first_pack) / (n_a + n_b)];
    int64_t i = (i_task - p->first_pack) % (n_a + n_b);
    if (i < n_a) {
        int64_t group = PACK_PANELS * g->m_panel;
        g->pack_a(p->a_panels + b->a_at + du_gemm_a_bytes(g, i * group, b->n_k), &p->a, i * group,
                  least(group, p->m - i * group), b->row, b->n_k);
    } else {
        int64_t group = PACK_PANELS * g->n_panel, j = (i - n_a) * group;
        g->pack_b(p->b_panels + b->b_at + du_gemm_b_bytes(g, j, b->n_k), &p->b, j,
                  least(group, p->n - j), b->row, b->n_k);
    }
}

/* Room for the panels of all products, and their tasks; returns how many, -1 when memory is short.
 */
static int64_t make_panels(du_ctx *ctx, gemm_work *w) {
    int64_t n_packs = 0;
    for (int64_t i = 0; i < w->n_products; i++) {
        product *p = &w->products[i];
        size_t a_bytes, b_bytes;
        lay_out(w->gemm, p, w->leaves.n, NULL, &a_bytes, &b_bytes);
        k_part *blocks = DU_SCRATCH(ctx, k_part, p->n_blocks + 1);
        p->a_panels = DU_SCRATCH(ctx, char, a_bytes + b_bytes);
        if (!blocks || !p->a_panels) {
            return -1;
        }
        p->b_panels = p->a_panels + a_bytes;
        lay_out(w->gemm, p, w->leaves.n, blocks, &a_bytes, &b_bytes);
        p->first_pack = n_packs;
        n_packs +=
            p->n_blocks * (n_groups(p->m, w->gemm->m_panel) + n_groups(p->n, w->gemm->n_panel));
    }
    return n_packs;
}

/* How many gradients from the first on are computed together */
static int64_t n_together(const du_gemm *g, const du_gemm_grad *grads, int64_t n_grads,
                          du_leaves leaves) {
    size_t sum = 0;
    for (int64_t i = 0; i < n_grads; i++) {
        product p = product_of(&grads[i], leaves);
        size_t a_bytes, b_bytes;
        lay_out(g, &p, leaves.n, NULL, &a_bytes, &b_bytes);
        sum += a_bytes + b_bytes;
        if (i > 0 && sum > GRADS_BYTES) {
            return i;
        }
    }
    return n_grads;
}

static du_err compute_grads(du_ctx *ctx, du_gemm_kind kind, const du_gemm_grad *grads,
                            int64_t n_grads, du_leaves leaves) {
    gemm_work w = {.gemm = &ctx->kern->gemm[kind],
                   .add = ctx->kern->gemm_add,
                   .n_products = n_grads,
                   .leaves = leaves};
    w.products = DU_SCRATCH(ctx, product, n_grads);
    if (!w.products) {
        return DU_ENOMEM;
    }
    for (int64_t i = 0; i < n_grads; i++) {
        w.products[i] = product_of(&grads[i], leaves);
    }
    int64_t m_tile_max, n_tiles = cut_all(ctx, &w, N_TILE_GRAD, &m_tile_max), n_buffers = 2;
    int64_t n_packs = make_panels(ctx, &w);
    for (int64_t l = 0; (leaves.first + leaves.n) >> l > 0; l++) {
        n_buffers++;
    }
    w.tile_len = m_tile_max * du_gemm_round_up(N_TILE_GRAD, w.gemm->n_panel);
    w.scratch_bytes = (size_t)(n_buffers * w.tile_len) * sizeof(float);
    w.scratch = DU_SCRATCH(ctx, char, du_pool_n_threads(ctx->pool) * (int64_t)w.scratch_bytes);
    if (n_packs < 0 || !w.scratch) {
        return DU_ENOMEM;
    }
    du_pool_run(ctx->pool, pack_grad_task, &w, n_packs);
    du_pool_run(ctx->pool, grad_task, &w, n_tiles);
    return DU_OK;
}

du_err du_gemm_wgrad(du_ctx *ctx, du_gemm_kind kind, const du_gemm_grad *grads, int64_t n_grads,
                     du_leaves leaves) {
    DU_CHECK(leaves.first >= 0 && leaves.n >= 0 && leaves.first + leaves.n > 0);
    du_err err = DU_OK;
    for (int64_t n; err == DU_OK && n_grads > 0; grads += n, n_grads -= n) {
        du_arena_mark mark = du_arena_get_mark(ctx->scratch);
        n = n_together(&ctx->kern->gemm[kind], grads, n_grads, leaves);
        err = compute_grads(ctx, kind, grads, n, leaves);
        du_arena_release(ctx->scratch, mark);
    }
    return err;
}
