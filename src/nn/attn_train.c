/* Attention of training from the blocks of kern/gemm.h. A task is one head of keys of a sequence.
 *
 * Forward packs the head's keys and values once, as factors B of Q K^T and of P V. Then, for each
 * block of queries and each tile of KEYS keys: scores, one step of a running softmax per row, and
 * the weights, packed as a factor A, go on with the rows of `out`.
 *
 * Backward has tiles of keys outside and blocks of queries inside, so that the sums of a tile stay
 * in the second-level cache; dQ goes on from tile to tile in its place. Only the weights P and the
 * scores' gradients dS are large, [queries, keys], and the products are put so that these are
 * packed as they lie, without being transposed: as A with keys as the inner index in dQ = dS K, as
 * B with queries as the inner index in dV^T = dO^T P and dK^T = Q^T dS. The small sums [size of a
 * head, keys] are transposed when a tile is done.
 *
 *                  keys j0 .. j0+n
 *     query i0     p p p p 0 0 0     a row holds the part that it sees, [first[t], t], and zeros
 *           ..     0 p p p p 0 0     around it; columns begin at a multiple of `step`, not after
 *           i0+m   0 0 p p p p p     what any row sees first, and end with what the last row sees
 */
#include "nn/attn_train.h"

#include <math.h>
#include <string.h>

enum {
    QUERIES_F32 = 48, /* rows of a block */
    QUERIES = 64,     /* of the other kinds */
    KEYS = 256,       /* of a tile: not more than k_block, a multiple of every step */
    LD = KEYS + 16,   /* of buffers: no power of two, rows would share sets of the cache */
};

typedef struct {
    const du_kern *kern;
    const du_gemm *g;
    const du_attn_train *a;
    const float *q, *k, *v;
    int64_t n_queries; /* rows of a block */
    int64_t step;      /* where panels of columns, and lanes of k, begin */
    char *scratch;
    size_t scratch_bytes; /* per thread */
} work;

typedef struct {
    work w;
    float *out, *lse;
} fwd_work;

typedef struct {
    work w;
    const float *dout, *out, *lse;
    float *dq, *dk, *dv;
} bwd_work;

/* Rows [i0, i0 + m) of queries of head h, against keys [j0, j0 + n), of the sequence that begins
 * with row0; weights and scores' gradients stand in rows that lie ld apart, as plain panels of A do
 */
typedef struct {
    int64_t row0, h, i0, m, j0, n, ld;
} block;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* The next n_bytes of a room, counted in *at; NULL without a room. */
static void *take(char *room, size_t *at, size_t n_bytes) {
    void *p = room ? room + *at : NULL;
    *at += (n_bytes + DU_ALIGN - 1) / DU_ALIGN * DU_ALIGN;
    return p;
}

/* One head's vectors from row0 on */
static du_gemm_src head_of(const float *x, du_heads lie, int64_t row0, int64_t head, bool k_rows) {
    const float *data = x + row0 * lie.row + head * lie.head;
    return (du_gemm_src){.data = data, .ld = lie.row, .k_rows = k_rows};
}

/* Weights or gradients of a block as a factor A, [queries, keys]: as they lie, or packed to `to` */
static const void *as_a(const du_gemm *g, const block *b, const float *s, void *to) {
    du_gemm_src src = {.data = s, .ld = b->ld};
    if (g->a_plain) {
        return s;
    }
    g->pack_a(to, &src, 0, b->m, 0, b->n);
    return to;
}

/* C [m,n] (+)= A B, where of B's n_k inner indices those count that begin with k0, a multiple of
 * k_step. */
static void times_part(const du_gemm *g, float *c, int64_t ldc, const void *a, const char *b,
                       int64_t n_k, int64_t m, int64_t n, int64_t k0, int64_t k, bool go_on) {
    for (int64_t j = 0; j < n; j += g->n_panel) {
        const char *panel = b + du_gemm_b_bytes(g, j, n_k) + du_gemm_b_bytes(g, g->n_panel, k0);
        g->block(c + j, ldc, a, panel, m, least(g->n_panel, n - j), k, go_on);
    }
}

static int64_t first_of(const work *w, int64_t row) {
    return w->a->first ? w->a->first[row] : 0;
}

/* The first position that any row of the block sees */
static int64_t lowest(const work *w, const block *b) {
    int64_t low = b->i0;
    for (int64_t i = b->i0; i < b->i0 + b->m; i++) {
        low = least(low, first_of(w, b->row0 + i));
    }
    return low;
}

/* The columns of the tile [j_tile, j_tile + n_tile) that the block computes with */
static void cut_columns(const work *w, block *b, int64_t low, int64_t j_tile, int64_t n_tile) {
    b->j0 = most(j_tile, low / w->step * w->step);
    b->n = least(j_tile + n_tile, b->i0 + b->m) - b->j0;
    b->ld = (int64_t)(du_gemm_a_row_bytes(sizeof(float), true, b->n) / sizeof(float));
}

/* The columns [*begin, return value) that row r sees */
static int64_t seen(const work *w, const block *b, int64_t r, int64_t *begin) {
    int64_t i = b->i0 + r;
    *begin = least(most(first_of(w, b->row0 + i) - b->j0, 0), b->n);
    return most(least(i + 1 - b->j0, b->n), *begin);
}

static void clear_around(float *s, int64_t begin, int64_t end, int64_t n) {
    memset(s, 0, (size_t)begin * sizeof *s);
    memset(s + end, 0, (size_t)(n - end) * sizeof *s);
}

typedef struct {
    char *k_cols; /* B [dk, keys] */
    char *v_rows; /* for each tile of keys B [keys, dv] */
    void *q, *p;  /* A [queries, dk], [queries, keys] */
    float *s;     /* [queries, LD] */
    float *m, *l; /* [queries] maxima and sums so far */
} fwd_room;

static size_t lay_out_fwd(const work *w, fwd_room *f, char *room) {
    const du_gemm *g = w->g;
    const du_attn_train *a = w->a;
    size_t at = 0, n_tiles = (size_t)((a->seq_len + KEYS - 1) / KEYS);
    f->k_cols = take(room, &at, du_gemm_b_bytes(g, a->seq_len, a->dk));
    f->v_rows = take(room, &at, n_tiles * du_gemm_b_bytes(g, a->dv, KEYS));
    f->q = take(room, &at, du_gemm_a_bytes(g, w->n_queries, a->dk));
    f->p = take(room, &at, du_gemm_a_bytes(g, w->n_queries, KEYS));
    f->s = take(room, &at, (size_t)(w->n_queries * LD) * sizeof *f->s);
    f->m = take(room, &at, (size_t)w->n_queries * sizeof *f->m);
    f->l = take(room, &at, (size_t)w->n_queries * sizeof *f->l);
    return at;
}

/* A step of the rows' running softmax: scores become weights, what `out` holds is scaled. */
static void weigh(const work *w, const fwd_room *f, const block *b, float *out, bool go_on) {
    const du_attn_train *a = w->a;
    for (int64_t r = 0; r < b->m; r++) {
        float *s = f->s + r * b->ld;
        int64_t begin, end = seen(w, b, r, &begin);
        clear_around(s, begin, end, b->n);
        if (begin == end) {
            continue;
        }
        w->kern->scale(s + begin, a->scale, end - begin);
        float keep = w->kern->softmax(s + begin, end - begin, &f->m[r], &f->l[r]);
        if (go_on && keep != 1) {
            w->kern->scale(out + r * a->out.row, keep, a->dv);
        }
    }
}

static void fwd_block(const fwd_work *fw, const fwd_room *f, block *b) {
    const work *w = &fw->w;
    const du_attn_train *a = w->a;
    const du_gemm *g = w->g;
    int64_t row = b->row0 + b->i0, low = lowest(w, b);
    float *out = fw->out + row * a->out.row + b->h * a->out.head;
    du_gemm_src q = head_of(w->q, a->q, row, b->h, false);
    g->pack_a(f->q, &q, 0, b->m, 0, a->dk);
    for (int64_t r = 0; r < b->m; r++) {
        f->m[r] = -INFINITY;
        f->l[r] = 0;
    }
    for (int64_t j = low / KEYS * KEYS; j < b->i0 + b->m; j += KEYS) {
        int64_t n_tile = least(KEYS, a->seq_len - j);
        bool go_on = j > low;
        cut_columns(w, b, low, j, n_tile);
        g->block(f->s, b->ld, f->q, f->k_cols + du_gemm_b_bytes(g, b->j0, a->dk), b->m, b->n, a->dk,
                 false);
        weigh(w, f, b, out, go_on);
        times_part(g, out, a->out.row, as_a(g, b, f->s, f->p),
                   f->v_rows + j / KEYS * du_gemm_b_bytes(g, a->dv, KEYS), n_tile, b->m, a->dv,
                   b->j0 - j, b->n, go_on);
    }
    for (int64_t r = 0; r < b->m; r++) {
        w->kern->scale(out + r * a->out.row, 1 / f->l[r], a->dv);
        fw->lse[(row + r) * a->H + b->h] = f->m[r] + logf(f->l[r]);
    }
}

static int64_t n_tasks(const du_attn_train *a) {
    return a->n_seq * a->G;
}

static void fwd_task(void *arg, int64_t i_task, int64_t i_thread) {
    const fwd_work *fw = arg;
    const work *w = &fw->w;
    const du_attn_train *a = w->a;
    const du_gemm *g = w->g;
    int64_t row0 = i_task / a->G * a->seq_len, head = i_task % a->G, n_heads = a->H / a->G;
    fwd_room f;
    lay_out_fwd(w, &f, w->scratch + (size_t)i_thread * w->scratch_bytes);
    du_gemm_src k = head_of(w->k, a->k, row0, head, false);
    du_gemm_src v = head_of(w->v, a->v, row0, head, true);
    g->pack_b(f.k_cols, &k, 0, a->seq_len, 0, a->dk);
    for (int64_t j = 0; j < a->seq_len; j += KEYS) {
        g->pack_b(f.v_rows + j / KEYS * du_gemm_b_bytes(g, a->dv, KEYS), &v, 0, a->dv, j,
                  least(KEYS, a->seq_len - j));
    }
    for (int64_t h = head * n_heads; h < (head + 1) * n_heads; h++) {
        for (int64_t i = 0; i < a->seq_len; i += w->n_queries) {
            int64_t m = least(w->n_queries, a->seq_len - i);
            fwd_block(fw, &f, &(block){.row0 = row0, .h = h, .i0 = i, .m = m});
        }
    }
}

static work make_work(const du_ctx *ctx, du_gemm_kind kind, const du_attn_train *a, const float *q,
                      const float *k, const float *v) {
    const du_gemm *g = &ctx->kern->gemm[kind];
    int64_t step = most(g->n_panel, g->k_step); /* powers of two */
    DU_CHECK(a->dk > 0 && a->dk <= DU_ATTN_TRAIN_DIM_MAX && a->dv > 0 &&
             a->dv <= DU_ATTN_TRAIN_DIM_MAX && a->H % a->G == 0);
    DU_CHECK(g->k_block >= KEYS && g->k_block >= DU_ATTN_TRAIN_DIM_MAX && KEYS % step == 0);
    return (work){.kern = ctx->kern,
                  .g = g,
                  .a = a,
                  .q = q,
                  .k = k,
                  .v = v,
                  .n_queries = kind == DU_GEMM_F32 ? QUERIES_F32 : QUERIES,
                  .step = step};
}

/* Runs the tasks, with scratch_bytes for each thread. */
static du_err run(du_ctx *ctx, work *w, du_task_fn *task, void *arg) {
    double begin_s = du_products_begin(ctx);
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    int64_t n_threads = du_pool_n_threads(ctx->pool);
    w->scratch = DU_SCRATCH(ctx, char, n_threads *(int64_t)w->scratch_bytes);
    if (!w->scratch) {
        return DU_ENOMEM;
    }
    du_pool_run(ctx->pool, task, arg, n_tasks(w->a));
    du_arena_release(ctx->scratch, mark);
    du_products_end(ctx, begin_s);
    return DU_OK;
}

du_err du_attn_train_fwd(du_ctx *ctx, du_gemm_kind kind, const du_attn_train *a, float *out,
                         float *lse, const float *q, const float *k, const float *v) {
    fwd_work fw = {.w = make_work(ctx, kind, a, q, k, v), .out = out, .lse = lse};
    fwd_room f;
    fw.w.scratch_bytes = lay_out_fwd(&fw.w, &f, NULL);
    return run(ctx, &fw.w, fwd_task, &fw);
}

typedef struct {
    char *k_cols, *v_cols; /* B [dk, keys], [dv, keys] of the tile */
    char *k_rows;          /* B [keys, dk] */
    void *q, *dout;        /* A [queries, dk], [queries, dv] */
    void *q_t, *dout_t;    /* A [dk, queries], [dv, queries] */
    void *ds_a, *square_b; /* A [queries, keys]; B [queries, keys] of p, then of ds */
    float *p, *ds;         /* [queries, LD] */
    float *dk_t, *dv_t;    /* [dk, LD], [dv, LD] sums of the tile */
} bwd_room;

static size_t lay_out_bwd(const work *w, bwd_room *f, char *room) {
    const du_gemm *g = w->g;
    int64_t dk = w->a->dk, dv = w->a->dv, m = w->n_queries;
    size_t at = 0;
    f->k_cols = take(room, &at, du_gemm_b_bytes(g, KEYS, dk));
    f->v_cols = take(room, &at, du_gemm_b_bytes(g, KEYS, dv));
    f->k_rows = take(room, &at, du_gemm_b_bytes(g, dk, KEYS));
    f->q = take(room, &at, du_gemm_a_bytes(g, m, dk));
    f->dout = take(room, &at, du_gemm_a_bytes(g, m, dv));
    f->q_t = take(room, &at, du_gemm_a_bytes(g, dk, m));
    f->dout_t = take(room, &at, du_gemm_a_bytes(g, dv, m));
    f->ds_a = take(room, &at, du_gemm_a_bytes(g, m, KEYS));
    f->square_b = take(room, &at, du_gemm_b_bytes(g, KEYS, m));
    f->p = take(room, &at, (size_t)(m * LD) * sizeof *f->p);
    f->ds = take(room, &at, (size_t)(m * LD) * sizeof *f->ds);
    f->dk_t = take(room, &at, (size_t)(dk * LD) * sizeof *f->dk_t);
    f->dv_t = take(room, &at, (size_t)(dv * LD) * sizeof *f->dv_t);
    return at;
}

/* Scores become weights, what dout . v gave the scores' gradients. */
static void weigh_again(const bwd_work *bw, const bwd_room *f, const block *b) {
    const work *w = &bw->w;
    const du_attn_train *a = w->a;
    for (int64_t r = 0; r < b->m; r++) {
        int64_t row = b->row0 + b->i0 + r, at = row * a->out.row + b->h * a->out.head;
        float *p = f->p + r * b->ld, *ds = f->ds + r * b->ld;
        int64_t begin, end = seen(w, b, r, &begin), n = end - begin;
        clear_around(p, begin, end, b->n);
        clear_around(ds, begin, end, b->n);
        w->kern->scale(p + begin, a->scale, n);
        w->kern->softmax_again(p + begin, n, bw->lse[row * a->H + b->h]);
        float dot = w->kern->dot(bw->dout + at, bw->out + at, a->dv);
        w->kern->softmax_bwd(ds + begin, p + begin, n, dot, a->scale);
    }
}

/* What a block of queries gives to the tile's sums, and the tile to the block's dq */
static void bwd_block(const bwd_work *bw, const bwd_room *f, block *b, int64_t j_tile,
                      int64_t n_tile) {
    const work *w = &bw->w;
    const du_attn_train *a = w->a;
    const du_gemm *g = w->g;
    int64_t row = b->row0 + b->i0, low = lowest(w, b);
    if (low >= j_tile + n_tile) {
        return;
    }
    cut_columns(w, b, low, j_tile, n_tile);
    int64_t j = b->j0 - j_tile;
    du_gemm_src q = head_of(w->q, a->q, row, b->h, false);
    du_gemm_src dout = head_of(bw->dout, a->out, row, b->h, false);
    du_gemm_src q_t = head_of(w->q, a->q, row, b->h, true);
    du_gemm_src dout_t = head_of(bw->dout, a->out, row, b->h, true);
    du_gemm_src p = {.data = f->p, .ld = b->ld, .k_rows = true};
    du_gemm_src ds = {.data = f->ds, .ld = b->ld, .k_rows = true};
    g->pack_a(f->q, &q, 0, b->m, 0, a->dk);
    g->block(f->p, b->ld, f->q, f->k_cols + du_gemm_b_bytes(g, j, a->dk), b->m, b->n, a->dk, false);
    g->pack_a(f->dout, &dout, 0, b->m, 0, a->dv);
    g->block(f->ds, b->ld, f->dout, f->v_cols + du_gemm_b_bytes(g, j, a->dv), b->m, b->n, a->dv,
             false);
    weigh_again(bw, f, b);
    g->pack_a(f->dout_t, &dout_t, 0, a->dv, 0, b->m);
    g->pack_b(f->square_b, &p, 0, b->n, 0, b->m);
    g->block(f->dv_t + j, LD, f->dout_t, f->square_b, a->dv, b->n, b->m, true);
    g->pack_a(f->q_t, &q_t, 0, a->dk, 0, b->m);
    g->pack_b(f->square_b, &ds, 0, b->n, 0, b->m);
    g->block(f->dk_t + j, LD, f->q_t, f->square_b, a->dk, b->n, b->m, true);
    times_part(g, bw->dq + row * a->q.row + b->h * a->q.head, a->q.row, as_a(g, b, f->ds, f->ds_a),
               f->k_rows, n_tile, b->m, a->dk, j, b->n, j_tile > low);
}

/* to [n, d] from sums [d, LD] */
static void put_transposed(float *to, du_heads lie, int64_t row0, int64_t head, const float *sums,
                           int64_t n, int64_t d) {
    to += row0 * lie.row + head * lie.head;
    for (int64_t j = 0; j < n; j++) {
        for (int64_t c = 0; c < d; c++) {
            to[j * lie.row + c] = sums[c * LD + j];
        }
    }
}

static void bwd_tile(const bwd_work *bw, const bwd_room *f, int64_t row0, int64_t head, int64_t j,
                     int64_t n) {
    const work *w = &bw->w;
    const du_attn_train *a = w->a;
    const du_gemm *g = w->g;
    int64_t n_heads = a->H / a->G;
    du_gemm_src k = head_of(w->k, a->k, row0 + j, head, false);
    du_gemm_src v = head_of(w->v, a->v, row0 + j, head, false);
    du_gemm_src k_rows = head_of(w->k, a->k, row0 + j, head, true);
    g->pack_b(f->k_cols, &k, 0, n, 0, a->dk);
    g->pack_b(f->v_cols, &v, 0, n, 0, a->dv);
    g->pack_b(f->k_rows, &k_rows, 0, a->dk, 0, n);
    memset(f->dk_t, 0, (size_t)(a->dk * LD) * sizeof *f->dk_t);
    memset(f->dv_t, 0, (size_t)(a->dv * LD) * sizeof *f->dv_t);
    for (int64_t h = head * n_heads; h < (head + 1) * n_heads; h++) {
        for (int64_t i = j / w->n_queries * w->n_queries; i < a->seq_len; i += w->n_queries) {
            int64_t m = least(w->n_queries, a->seq_len - i);
            bwd_block(bw, f, &(block){.row0 = row0, .h = h, .i0 = i, .m = m}, j, n);
        }
    }
    put_transposed(bw->dk, a->k, row0 + j, head, f->dk_t, n, a->dk);
    put_transposed(bw->dv, a->v, row0 + j, head, f->dv_t, n, a->dv);
}

static void bwd_task(void *arg, int64_t i_task, int64_t i_thread) {
    const bwd_work *bw = arg;
    const work *w = &bw->w;
    const du_attn_train *a = w->a;
    int64_t row0 = i_task / a->G * a->seq_len, head = i_task % a->G;
    bwd_room f;
    lay_out_bwd(w, &f, w->scratch + (size_t)i_thread * w->scratch_bytes);
    for (int64_t j = 0; j < a->seq_len; j += KEYS) {
        bwd_tile(bw, &f, row0, head, j, least(KEYS, a->seq_len - j));
    }
}

du_err du_attn_train_bwd(du_ctx *ctx, du_gemm_kind kind, const du_attn_train *a, float *dq,
                         float *dk, float *dv, const float *dout, const float *out,
                         const float *lse, const float *q, const float *k, const float *v) {
    bwd_work bw = {.w = make_work(ctx, kind, a, q, k, v),
                   .dout = dout,
                   .out = out,
                   .lse = lse,
                   .dq = dq,
                   .dk = dk,
                   .dv = dv};
    bwd_room f;
    bw.w.scratch_bytes = lay_out_bwd(&bw.w, &f, NULL);
    return run(ctx, &bw.w, bwd_task, &bw);
}

size_t du_attn_train_bytes(const du_ctx *ctx, du_gemm_kind kind, const du_attn_train *attn) {
    work w = make_work(ctx, kind, attn, NULL, NULL, NULL);
    fwd_room fwd;
    bwd_room bwd;
    size_t a = lay_out_fwd(&w, &fwd, NULL), b = lay_out_bwd(&w, &bwd, NULL);
    return a > b ? a : b;
}
