/* Products over a pool: what kern/gemm.h computes from panels, cut into tasks.
 *
 * Neighbouring products that share a factor are a batch, whose tasks compute tiles of all of them.
 *
 * Forward and gradient of the input. Weights are the factor B. They are packed whole, blocks of k
 * one after the other, by a first parallel region unless the caller did so before. A task of the
 * second region owns the same rows of a batch's results: it packs those of x for one block of k
 * after the other, once for all products that share them, and goes on with its tiles' chains.
 * Where there are threads enough for it, tiles span all columns, so that rows are packed once.
 *
 * Gradient of the weights. A batch's gradients share x, the factor B, and stand one below the
 * other; a task owns some of these rows, part of one gradient or of several. It computes the
 * leaves' sums one after the other, each from factors packed in that task, x once, and adds them
 * up like a binary counter: level l of `waiting` holds the sum of 2^l leaves or nothing. */
#include "nn/gemm.h"

#include <string.h>

enum {
    M_TILE = 192, /* rows at most for which A is packed: they stay in the second-level cache */
    TASKS = 4,    /* per thread, where tiles do not become too small */
    M_TILE_MIN = 48,
    N_TILE_MIN = 128,
    PACK_PANELS = 4, /* panels of B of a task */
    BATCH_MAX = 8,   /* gradients */
    LEVELS = 63,
};

/* A product in the terms of the kernels: C [m,n] from A [m,k] and B [k,n]. */
typedef struct {
    float *c;
    int64_t ldc;
    du_gemm_src a, b;
    char *b_panels; /* fwd, dgrad */
    bool pack_b, add;
    int64_t m, n, k;
    int64_t first_pack; /* task */
    const du_gemm_grad *grad;
} product;

/* Neighbouring products with common tasks */
typedef struct {
    const product *p, *end;
    int64_t m, n; /* of each, n at most; of gradients m of all together */
    double work;  /* multiply-adds */
    int64_t m_tile, n_tile, first_tile;
} batch;

typedef struct {
    const du_gemm *gemm;
    du_gemm_add_fn *add;
    product *products;
    int64_t n_products;
    batch *batches;
    int64_t n_batches, n_tiles;
    char *scratch; /* per thread scratch_bytes: panels of A; for gradients of B too, then tiles */
    size_t scratch_bytes, b_at, tiles_at;
    du_leaves leaves;
} gemm_work;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t count(int64_t n, int64_t step) {
    return (n + step - 1) / step;
}

static bool same_rows(const du_gemm_src *a, const du_gemm_src *b) {
    return a->data == b->data && a->ld == b->ld && a->i_row == b->i_row && a->bf16 == b->bf16;
}

static bool same_a(const product *p, const product *q) {
    return same_rows(&p->a, &q->a) && p->m == q->m && p->k == q->k;
}

/* The chains of q go on where those of p end. */
static bool goes_on(const product *p, const product *q) {
    return q->add && p->c == q->c;
}

static bool same_b(const product *p, const product *q) {
    return same_rows(&p->b, &q->b) && p->grad->end == q->grad->end && p->n == q->n;
}

/* Puts products into batches; returns the work of all. */
static double make_batches(gemm_work *w, bool grads) {
    double work = 0;
    batch *b = NULL;
    for (const product *p = w->products; p < w->products + w->n_products; p++) {
        bool joins = false;
        if (b) {
            joins = grads ? same_b(p - 1, p) && p - b->p < BATCH_MAX
                          : same_a(p - 1, p) || goes_on(p - 1, p);
        }
        if (!joins) {
            b = &w->batches[w->n_batches++];
            *b = (batch){.p = p, .m = grads ? 0 : p->m};
        }
        b->end = p + 1;
        b->m += grads ? p->m : 0;
        b->n = p->n > b->n ? p->n : b->n;
        b->work += (double)p->m * (double)p->n * (double)p->k;
        work += (double)p->m * (double)p->n * (double)p->k;
    }
    return work;
}

/* Sizes of the tiles of a batch so that it makes its share of the tasks. */
static void cut(const du_gemm *g, batch *b, double work_of_task) {
    double work = b->work / ((double)b->m * (double)b->n);
    b->m_tile = du_gemm_round_up(count(b->m, count(b->m, M_TILE)), g->m_panel);
    b->n_tile = du_gemm_round_up(b->n, g->n_panel);
    while ((double)b->m_tile * (double)b->n_tile * work > work_of_task) {
        if (b->m_tile >= M_TILE) {
            b->m_tile = du_gemm_round_up(b->m_tile / 2, g->m_panel);
        } else if (b->n_tile >= 2 * N_TILE_MIN) {
            b->n_tile = du_gemm_round_up(b->n_tile / 2, g->n_panel);
        } else if (b->m_tile >= 2 * M_TILE_MIN) {
            b->m_tile = du_gemm_round_up(b->m_tile / 2, g->m_panel);
        } else {
            return;
        }
    }
}

/* The same of gradients: large tiles, since a task packs both factors, and where that matters as
 * many for each thread. */
static void cut_grads(const du_gemm *g, batch *b, int64_t n_threads, double work) {
    int64_t n_cols = count(b->n, DU_GEMM_GRAD_TILE), n_rows = count(b->m, DU_GEMM_GRAD_TILE);
    if (b->work * (double)(TASKS * n_threads) > work) {
        n_rows = count(du_gemm_round_up(n_rows * n_cols, n_threads), n_cols);
        n_rows = least(n_rows, count(b->m, M_TILE_MIN));
    }
    b->m_tile = du_gemm_round_up(count(b->m, n_rows), g->m_panel);
    b->n_tile = du_gemm_round_up(count(b->n, n_cols), g->n_panel);
}

/* Cuts all products; the largest tiles' sizes are told. */
static void cut_all(const du_ctx *ctx, gemm_work *w, bool grads, int64_t *m_max, int64_t *n_max) {
    int64_t n_threads = du_pool_n_threads(ctx->pool);
    double work = make_batches(w, grads);
    *m_max = *n_max = 0;
    for (batch *b = w->batches; b < w->batches + w->n_batches; b++) {
        b->first_tile = w->n_tiles;
        if (b->m == 0 || b->n == 0) {
            continue;
        }
        if (grads) {
            cut_grads(w->gemm, b, n_threads, work);
        } else {
            cut(w->gemm, b, n_threads > 1 ? work / (double)(TASKS * n_threads) : work);
        }
        w->n_tiles += count(b->m, b->m_tile) * count(b->n, b->n_tile);
        *m_max = b->m_tile > *m_max ? b->m_tile : *m_max;
        *n_max = b->n_tile > *n_max ? b->n_tile : *n_max;
    }
}

/* Rows from i0 on, columns from j0 on, of the product or of a batch */
typedef struct {
    const product *p;
    int64_t i0, j0, m, n;
} tile;

static const batch *tile_of(const gemm_work *w, int64_t i_task, tile *t) {
    const batch *b = &w->batches[w->n_batches - 1];
    while (b->first_tile > i_task) {
        b--;
    }
    int64_t n_cols = count(b->n, b->n_tile), i = i_task - b->first_tile;
    *t = (tile){.p = b->p, .i0 = i / n_cols * b->m_tile, .j0 = i % n_cols * b->n_tile};
    t->m = least(b->m_tile, b->m - t->i0);
    t->n = least(b->n_tile, b->n - t->j0);
    return b;
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

/* The tile of the products [p, end), which share A, of which `a` has room for a block */
static void multiply_rows(const du_gemm *g, char *a, const product *p, const product *end,
                          const tile *t) {
    for (int64_t k = 0; k == 0 || k < p->k; k += g->k_block) {
        int64_t n_k = least(g->k_block, p->k - k);
        g->pack_a(a, &p->a, t->i0, t->m, k, n_k);
        for (const product *q = p; q < end; q++) {
            int64_t n = least(t->n, q->n - t->j0);
            const char *b =
                q->b_panels + du_gemm_b_bytes(g, q->n, k) + du_gemm_b_bytes(g, t->j0, n_k);
            if (n > 0) {
                g->block(q->c + t->i0 * q->ldc + t->j0, q->ldc, a, b, t->m, n, n_k,
                         q->add || k > 0);
            }
        }
    }
}

static void tile_task(void *arg, int64_t i_task, int64_t i_thread) {
    const gemm_work *w = arg;
    tile t;
    const batch *b = tile_of(w, i_task, &t);
    char *a = w->scratch + (size_t)i_thread * w->scratch_bytes;
    for (const product *p = b->p, *end; p < b->end; p = end) {
        for (end = p + 1; end < b->end && same_a(p, end); end++) {
        }
        multiply_rows(w->gemm, a, p, end, &t);
    }
}

/* Packs what is to be packed, then computes. */
static du_err run(du_ctx *ctx, gemm_work *w) {
    int64_t m_max, n_max, n_packs = 0;
    cut_all(ctx, w, false, &m_max, &n_max);
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
    w->scratch_bytes = du_gemm_a_bytes(w->gemm, m_max, w->gemm->k_block);
    w->scratch = DU_SCRATCH(ctx, char, du_pool_n_threads(ctx->pool) * (int64_t)w->scratch_bytes);
    if (!w->scratch) {
        return DU_ENOMEM;
    }
    du_pool_run(ctx->pool, pack_task, w, n_packs);
    du_pool_run(ctx->pool, tile_task, w, w->n_tiles);
    return DU_OK;
}

static du_gemm_src with_k_rows(du_gemm_src s, bool k_rows) {
    s.k_rows = k_rows;
    return s;
}

static du_err multiply(du_ctx *ctx, du_gemm_kind kind, const du_gemm_job *jobs, int64_t n_jobs,
                       bool dgrad) {
    double begin_s = du_products_begin(ctx);
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    gemm_work w = {.gemm = &ctx->kern->gemm[kind], .n_products = n_jobs};
    w.products = DU_SCRATCH(ctx, product, n_jobs);
    w.batches = DU_SCRATCH(ctx, batch, n_jobs);
    du_err err = w.products && w.batches ? DU_OK : DU_ENOMEM;
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
    du_products_end(ctx, begin_s);
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
    return (node){tr->buffers[--tr->n_buffers], tr->t.n, zero, true};
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

/* The tree of a tile, with what waits; buffers from *tiles on, which is advanced. */
static void begin(tree *tr, const gemm_work *w, const tile *t, float **tiles) {
    const product *p = t->p;
    *tr = (tree){.w = w, .t = *t};
    int64_t at = t->i0 * p->ldc + t->j0, first = w->leaves.first, n = w->leaves.n;
    for (int64_t l = -1; l < 0 || (first + n) >> l > 0; l++, *tiles += t->m * t->n) {
        tr->buffers[tr->n_buffers++] = *tiles;
    }
    for (int64_t l = 0; first >> l > 0; l++) {
        if (first >> l & 1) {
            tr->waiting[l] = (node){p->grad->nodes[l] + at, p->ldc, false, false};
        }
    }
}

/* Trees of the parts of a batch's tile that lie in one gradient each; returns how many. */
static int64_t begin_trees(tree *trees, const gemm_work *w, const batch *b, const tile *t,
                           float *tiles) {
    int64_t n = 0, top = 0;
    for (const product *p = b->p; p < b->end; top += p->m, p++) {
        int64_t i0 = t->i0 > top ? t->i0 - top : 0, end = least(t->i0 + t->m - top, p->m);
        if (i0 < end) {
            begin(&trees[n++], w, &(tile){p, i0, t->j0, end - i0, t->n}, &tiles);
        }
    }
    return n;
}

/* Where the next leaf's sum goes: a buffer, or its place if it is the gradient */
static node place_of_leaf(tree *tr, bool zero) {
    const product *p = tr->t.p;
    const du_leaves *leaves = &tr->w->leaves;
    if (leaves->first == 0 && leaves->n == 1 && leaves->last && !p->add && !zero) {
        return (node){p->c + tr->t.i0 * p->ldc + tr->t.j0, p->ldc, false, false};
    }
    return take_buffer(tr, zero);
}

/* The sums of rows [row, end) to the trees' leaves */
static void leaf_sums(const gemm_work *w, char *scratch, const tree *trees, const node *leaves,
                      int64_t n_trees, int64_t row, int64_t end) {
    const du_gemm *g = w->gemm;
    const tile *t = &trees[0].t;
    char *b = scratch + w->b_at;
    for (int64_t k = row; k < end; k += g->k_block) {
        int64_t n_k = least(g->k_block, end - k);
        g->pack_b(b, &t->p->b, t->j0, t->n, k, n_k);
        for (int64_t i_tree = 0; i_tree < n_trees; i_tree++) {
            const node *leaf = &leaves[i_tree];
            t = &trees[i_tree].t;
            for (int64_t i = 0; i < t->m; i += M_TILE) {
                int64_t m = least(M_TILE, t->m - i);
                g->pack_a(scratch, &t->p->a, t->i0 + i, m, k, n_k);
                g->block(leaf->sum + i * leaf->ld, leaf->ld, scratch, b, m, t->n, n_k, k > row);
            }
        }
    }
}

static void grad_task(void *arg, int64_t i_task, int64_t i_thread) {
    const gemm_work *w = arg;
    char *scratch = w->scratch + (size_t)i_thread * w->scratch_bytes;
    tile t;
    const batch *b = tile_of(w, i_task, &t);
    tree trees[BATCH_MAX];
    int64_t n = begin_trees(trees, w, b, &t, (float *)(void *)(scratch + w->tiles_at));
    const int64_t *end = b->p->grad->end;
    for (int64_t leaf = 0, row = 0; leaf < w->leaves.n; row = end[leaf], leaf++) {
        node leaves[BATCH_MAX];
        for (int64_t i = 0; i < n; i++) {
            leaves[i] = place_of_leaf(&trees[i], end[leaf] == row);
        }
        leaf_sums(w, scratch, trees, leaves, n, row, end[leaf]);
        for (int64_t i = 0; i < n; i++) {
            push(&trees[i], leaves[i]);
        }
    }
    for (int64_t i = 0; i < n; i++) {
        finish(&trees[i]);
    }
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

static du_err compute_grads(du_ctx *ctx, gemm_work *w, const du_gemm_grad *grads) {
    w->products = DU_SCRATCH(ctx, product, w->n_products);
    w->batches = DU_SCRATCH(ctx, batch, w->n_products);
    if (!w->products || !w->batches) {
        return DU_ENOMEM;
    }
    for (int64_t i = 0; i < w->n_products; i++) {
        w->products[i] = product_of(&grads[i], w->leaves);
    }
    int64_t m_max, n_max, n_buffers = 1;
    cut_all(ctx, w, true, &m_max, &n_max);
    for (int64_t l = 0; (w->leaves.first + w->leaves.n) >> l > 0; l++) {
        n_buffers++;
    }
    w->b_at = du_gemm_a_bytes(w->gemm, least(m_max, M_TILE), w->gemm->k_block);
    w->tiles_at = w->b_at + du_gemm_b_bytes(w->gemm, n_max, w->gemm->k_block);
    w->scratch_bytes = w->tiles_at + (size_t)(n_buffers * m_max * n_max) * sizeof(float);
    w->scratch = DU_SCRATCH(ctx, char, du_pool_n_threads(ctx->pool) * (int64_t)w->scratch_bytes);
    if (!w->scratch) {
        return DU_ENOMEM;
    }
    du_pool_run(ctx->pool, grad_task, w, w->n_tiles);
    return DU_OK;
}

du_err du_gemm_wgrad(du_ctx *ctx, du_gemm_kind kind, const du_gemm_grad *grads, int64_t n_grads,
                     du_leaves leaves) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    gemm_work w = {.gemm = &ctx->kern->gemm[kind],
                   .add = ctx->kern->gemm_add,
                   .n_products = n_grads,
                   .leaves = leaves};
    DU_CHECK(leaves.first >= 0 && leaves.n >= 0 && leaves.first + leaves.n > 0);
    double begin_s = du_products_begin(ctx);
    du_err err = n_grads > 0 ? compute_grads(ctx, &w, grads) : DU_OK;
    du_arena_release(ctx->scratch, mark);
    du_products_end(ctx, begin_s);
    return err;
}
