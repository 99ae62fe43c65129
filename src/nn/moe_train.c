/* With h the hidden row of a slot, g its weight, o = down h: y += g o. Backward, from the token's
 * dy:
 *
 *     e = down^T dy         dg = dy . o = e . h         d(down) = dy (g h)^T          dh = g e
 *
 * so that neither o is kept nor dy copied: both factors with dy gather the token's row. */
#include "nn/moe_train.h"

#include <string.h>

#include "nn/basic.h"
#include "nn/slots.h"

du_err du_ffn_train_fwd(du_ctx *ctx, const du_train *tr, float *y, const float *x,
                        const du_ffn_weights *w, const du_ffn_kept *kept, int64_t T) {
    int64_t D = w->gate->cols, F = w->gate->rows;
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    float *hidden = kept->hidden ? kept->hidden : DU_SCRATCH(ctx, float, T *F);
    du_linear_out in[] = {{kept->gate, F, w->gate, NULL}, {kept->up, F, w->up, NULL}};
    du_linear_out out = {y, D, w->down, NULL};
    du_err err = hidden ? du_linear_train_fwd(ctx, tr, in, 2, x, D, T) : DU_ENOMEM;
    if (err == DU_OK) {
        du_swiglu_fwd(ctx, hidden, kept->gate, kept->up, T, F);
        err = du_linear_train_fwd(ctx, tr, &out, 1, hidden, F, T);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}

/* The hidden rows as they were, in scratch where they were not kept; NULL: no memory. */
static float *hidden_again(du_ctx *ctx, float *kept, const float *gate, const float *up, int64_t n,
                           int64_t F) {
    if (kept) {
        return kept;
    }
    float *hidden = DU_SCRATCH(ctx, float, n *F);
    if (hidden) {
        du_swiglu_fwd(ctx, hidden, gate, up, n, F);
    }
    return hidden;
}

du_err du_ffn_train_bwd(du_ctx *ctx, const du_train *tr, float *dx, bool add, const float *dy,
                        const float *x, const du_ffn_weights *w, const du_ffn_kept *kept,
                        int64_t T) {
    int64_t D = w->gate->cols, F = w->gate->rows;
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    float *dh = DU_SCRATCH(ctx, float, T *F);
    float *hidden = hidden_again(ctx, kept->hidden, kept->gate, kept->up, T, F);
    du_linear_grad out = {dy, D, w->down, NULL};
    du_err err = dh && hidden ? du_linear_train_bwd(ctx, tr, &out, 1, dh, F, false, hidden, F, T)
                              : DU_ENOMEM;
    if (err == DU_OK) {
        du_swiglu_bwd(ctx, kept->gate, kept->up, dh, kept->gate, kept->up, T, F);
        du_linear_grad in[] = {{kept->gate, F, w->gate, NULL}, {kept->up, F, w->up, NULL}};
        err = du_linear_train_bwd(ctx, tr, in, 2, dx, D, add, x, D, T);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}

/* The experts that are computed here, and the rows that they get: of this process's tokens, or of
 * all processes' (nn/spread.h). */
typedef struct {
    int64_t e0, n;        /* experts [e0, e0 + n) */
    int64_t n_slots;      /* of all of them */
    const int64_t *first; /* [n+1] slots of each */
    const int32_t *i_row; /* [n_slots] a slot's row of x and dy */
    const int32_t *leaf;  /* of a row; NULL: rows_per_leaf each */
    int64_t rows_per_leaf;
    const float *x, *dy; /* rows ld apart; dy backward alone */
    int64_t ld;
    float *gate, *up, *hidden; /* [n_slots, F]; hidden NULL: not kept */
} hosts;

static hosts all_here(const du_moe_kept *kept, const float *x, const float *dy, int64_t E,
                      int64_t D, int64_t rows_per_leaf) {
    return (hosts){.n = E,
                   .n_slots = kept->first[E],
                   .first = kept->first,
                   .i_row = kept->i_token,
                   .rows_per_leaf = rows_per_leaf,
                   .x = x,
                   .dy = dy,
                   .ld = D,
                   .gate = kept->gate,
                   .up = kept->up,
                   .hidden = kept->hidden};
}

void du_moe_room_done(du_moe_room *room) {
    du_mem_unreserve(room->values, room->n_bytes);
    *room = (du_moe_room){0};
}

/* Room for so many slots, what it held is lost. */
static du_err make_room(du_moe_room *room, int64_t n_slots, int64_t wide) {
    size_t n_bytes = (size_t)(n_slots * wide) * sizeof(float);
    if (n_bytes > room->n_bytes) {
        n_bytes += n_bytes / 8; /* the next micro-batch may have some more */
        du_moe_room_done(room);
        room->values = du_mem_reserve(n_bytes);
        room->n_bytes = room->values ? n_bytes : 0;
    }
    return n_slots == 0 || room->values ? DU_OK : DU_ENOMEM;
}

/* The experts here and their guests. x and dy [T,D] of this process; dy NULL: forward. */
static du_err meet(du_ctx *ctx, const du_moe_weights *w, const du_moe_kept *kept, du_err before,
                   du_guests *g, hosts *h, const float *x, const float *dy, int64_t T) {
    int64_t E = w->router->rows, D = w->router->cols, F = w->gate[0].rows, n_x = dy ? 2 : 1;
    const float *const of[] = {x, dy};
    du_err err = du_spread_find(ctx, w->spread, before, g, kept->first, kept->i_token, E, T);
    if (err != DU_OK) {
        return err;
    }
    float *rows = DU_SCRATCH(ctx, float, g->n_rows *n_x *D);
    err = rows ? DU_OK : DU_ENOMEM;
    if (err == DU_OK && !dy) {
        err = make_room(kept->room, g->n_slots, (kept->keeps_hidden ? 3 : 2) * F);
    }
    err = du_spread_rows(ctx, w->spread, err, g, rows, of, n_x, D);
    float *gate = kept->room->values;
    *h = (hosts){.e0 = g->e0,
                 .n = g->n_expert,
                 .n_slots = g->n_slots,
                 .first = g->first,
                 .i_row = g->i_row,
                 .leaf = g->leaf,
                 .x = rows,
                 .dy = dy ? rows + D : NULL,
                 .ld = n_x * D,
                 .gate = gate};
    if (err == DU_OK && gate) {
        h->up = gate + g->n_slots * F;
        h->hidden = kept->keeps_hidden ? h->up + g->n_slots * F : NULL;
    }
    return err;
}

static int64_t n_slots(const hosts *h, int64_t e) {
    return h->first[e + 1] - h->first[e];
}

/* Rows of x or dy, in the order of expert e's slots. */
static du_gemm_src rows_of(const hosts *h, int64_t e, const float *x) {
    return (du_gemm_src){.data = x, .ld = h->ld, .i_row = h->i_row + h->first[e]};
}

/* Rows of expert e's slots, [n_slots, ld] */
static du_gemm_src slots_of(const hosts *h, int64_t e, const float *x, int64_t ld) {
    return (du_gemm_src){.data = x + h->first[e] * ld, .ld = ld};
}

/* A product of expert e's rows: y and x of its slots. */
static du_train_job job_of(const hosts *h, int64_t e, const du_mat *w, du_gemm_src x, float *y,
                           int64_t ldy) {
    return (du_train_job){
        .w = &w[h->e0 + e], .y = y + h->first[e] * ldy, .ldy = ldy, .x = x, .T = n_slots(h, e)};
}

typedef struct {
    const du_kern *kern;
    const du_moe_kept *kept;
    float *y;
    const float *rows; /* [T*K, D] of slots */
    int64_t K, D;
    bool weighted;
} sum_job;

/* y[t] = sum_k (weight *) rows of the token's slots, k ascending */
static void sum_token(void *arg, int64_t t, int64_t i_thread) {
    (void)i_thread;
    const sum_job *job = arg;
    float *y = job->y + t * job->D;
    memset(y, 0, (size_t)job->D * sizeof *y);
    for (int64_t k = 0; k < job->K; k++) {
        int64_t i = t * job->K + k;
        float weight = job->weighted ? job->kept->weights[i] : 1;
        job->kern->axpy(y, weight, job->rows + job->kept->slot_of[i] * job->D, job->D);
    }
}

static du_err route(du_ctx *ctx, const float *x, const du_moe_weights *w, const du_moe_kept *kept,
                    int64_t T) {
    int64_t E = w->router->rows, D = w->router->cols;
    du_train_job job = {w->router, kept->scores, E, {.data = x, .ld = D}, T, false};
    du_err err = du_train_fwd(ctx, DU_GEMM_F32, &job, 1);
    if (err == DU_OK) {
        du_router_fwd(ctx, kept->ids, kept->weights, kept->scores, w->bias, w->rule, T);
        du_slots_sort(kept->first, kept->i_token, kept->slot_of, kept->ids, E, w->rule->n_used, T);
    }
    return err;
}

/* out [n_slots, D] of the experts here. */
static du_err experts_fwd(du_ctx *ctx, du_gemm_kind kind, const du_moe_weights *w, const hosts *h,
                          float *out) {
    int64_t D = w->router->cols, F = w->gate[0].rows;
    du_train_job *jobs = DU_SCRATCH(ctx, du_train_job, 2 * h->n);
    float *hidden = h->hidden ? h->hidden : DU_SCRATCH(ctx, float, h->n_slots *F);
    if (!jobs || !hidden) {
        return DU_ENOMEM;
    }
    for (int64_t e = 0; e < h->n; e++) {
        jobs[2 * e] = job_of(h, e, w->gate, rows_of(h, e, h->x), h->gate, F);
        jobs[2 * e + 1] = job_of(h, e, w->up, rows_of(h, e, h->x), h->up, F);
    }
    du_err err = du_train_fwd(ctx, kind, jobs, 2 * h->n);
    if (err == DU_OK) {
        du_swiglu_fwd(ctx, hidden, h->gate, h->up, h->n_slots, F);
        for (int64_t e = 0; e < h->n; e++) {
            jobs[e] = job_of(h, e, w->down, slots_of(h, e, hidden, F), out, D);
        }
        err = du_train_fwd(ctx, kind, jobs, h->n);
    }
    return err;
}

/* The same by the experts of all processes, out [T*K, D] of the own slots. */
static du_err spread_fwd(du_ctx *ctx, du_gemm_kind kind, const float *x, const du_moe_weights *w,
                         const du_moe_kept *kept, du_err before, float *out, int64_t T) {
    du_guests g;
    hosts h;
    du_err err = meet(ctx, w, kept, before, &g, &h, x, NULL, T);
    if (err != DU_OK) {
        return err;
    }
    float *theirs = DU_SCRATCH(ctx, float, g.n_slots * w->router->cols);
    err = theirs ? experts_fwd(ctx, kind, w, &h, theirs) : DU_ENOMEM;
    return du_spread_return(ctx, w->spread, err, &g, out, theirs, w->router->cols);
}

du_err du_moe_train_fwd(du_ctx *ctx, const du_train *tr, float *y, const float *x,
                        const du_moe_weights *w, const du_moe_kept *kept, int64_t T) {
    int64_t E = w->router->rows, D = w->router->cols, K = w->rule->n_used;
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    float *out = DU_SCRATCH(ctx, float, T *K *D);
    du_err err = out ? route(ctx, x, w, kept, T) : DU_ENOMEM;
    if (w->spread) {
        err = spread_fwd(ctx, tr->kind, x, w, kept, err, out, T);
    } else if (err == DU_OK) {
        hosts h = all_here(kept, x, NULL, E, D, T);
        err = experts_fwd(ctx, tr->kind, w, &h, out);
    }
    if (err == DU_OK) {
        sum_job sum = {ctx->kern, kept, y, out, K, D, true};
        du_pool_run(ctx->pool, sum_token, &sum, T);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}

/* Ends of the leaves' rows among each expert's slots, [n experts, n leaves]. */
static void leaf_ends(int64_t *end, const hosts *h, int64_t n) {
    for (int64_t e = 0; e < h->n; e++) {
        int64_t i = 0, slots = n_slots(h, e);
        const int32_t *row = h->i_row + h->first[e];
        for (int64_t leaf = 0; leaf < n; leaf++) {
            while (i < slots && (h->leaf ? h->leaf[row[i]] : row[i] / h->rows_per_leaf) <= leaf) {
                i++;
            }
            end[e * n + leaf] = i;
        }
    }
}

/* Of slots of the experts here. */
typedef struct {
    const du_kern *kern;
    float *hidden, *dh; /* [n_slots, F] */
    const float *weights;
    float *dweights; /* [n_slots] */
    int64_t n_slots, F;
} weigh_job;

enum { WEIGH_SLOTS = 16 };

/* dweight = e . h, then h = g h and e = g e. */
static void weigh_slots(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const weigh_job *job = arg;
    int64_t i = i_task * WEIGH_SLOTS, end = i + WEIGH_SLOTS;
    for (; i < end && i < job->n_slots; i++) {
        float *hidden = job->hidden + i * job->F, *dh = job->dh + i * job->F;
        job->dweights[i] = job->kern->dot(dh, hidden, job->F);
        job->kern->scale(hidden, job->weights[i], job->F);
        job->kern->scale(dh, job->weights[i], job->F);
    }
}

/* Buffers of the experts' backward pass. */
typedef struct {
    du_train_job *jobs;   /* [2n] */
    du_train_pair *pairs; /* [3n] */
    int64_t *end;         /* [n, n_leaves] */
    float *hidden, *dh;   /* [n_slots, F] */
} bwd;

static bool take_bwd(du_ctx *ctx, bwd *b, const hosts *h, int64_t n_leaves, int64_t F) {
    b->jobs = DU_SCRATCH(ctx, du_train_job, 2 * h->n);
    b->pairs = DU_SCRATCH(ctx, du_train_pair, 3 * h->n);
    b->end = DU_SCRATCH(ctx, int64_t, h->n * n_leaves);
    b->hidden = hidden_again(ctx, h->hidden, h->gate, h->up, h->n_slots, F);
    b->dh = DU_SCRATCH(ctx, float, h->n_slots *F);
    return b->jobs && b->pairs && b->end && b->hidden && b->dh;
}

/* dh and dweights; hidden becomes what d(down) is made of. */
static du_err down_bwd(du_ctx *ctx, const du_train *tr, bwd *b, const du_moe_weights *w,
                       const hosts *h, const float *weights, float *dweights) {
    int64_t F = w->gate[0].rows;
    for (int64_t e = 0; e < h->n; e++) {
        b->jobs[e] = job_of(h, e, w->down, rows_of(h, e, h->dy), b->dh, F);
    }
    du_err err = du_train_dgrad(ctx, tr->kind, b->jobs, h->n);
    weigh_job job = {ctx->kern, b->hidden, b->dh, weights, dweights, h->n_slots, F};
    du_pool_run(ctx->pool, weigh_slots, &job,
                err ? 0 : (h->n_slots + WEIGH_SLOTS - 1) / WEIGH_SLOTS);
    return err;
}

/* dx of all slots through gate and up. */
static du_err in_bwd(du_ctx *ctx, const du_train *tr, bwd *b, const du_moe_weights *w,
                     const hosts *h, float *dx) {
    int64_t D = w->router->cols, F = w->gate[0].rows;
    for (int64_t e = 0; e < h->n; e++) {
        du_train_job *job = &b->jobs[2 * e];
        job[0] = job_of(h, e, w->gate, slots_of(h, e, h->gate, F), dx, D);
        job[1] = job_of(h, e, w->up, slots_of(h, e, h->up, F), dx, D);
        job[1].add = true;
    }
    return du_train_dgrad(ctx, tr->kind, b->jobs, 2 * h->n);
}

static du_err weights_bwd(du_ctx *ctx, const du_train *tr, bwd *b, const du_moe_weights *w,
                          const hosts *h) {
    int64_t F = w->gate[0].rows, n = 0;
    leaf_ends(b->end, h, tr->sums.leaves.n);
    for (int64_t e = 0; e < h->n; e++) {
        const int64_t *end = b->end + e * tr->sums.leaves.n;
        du_gemm_src x = rows_of(h, e, h->x), dy = rows_of(h, e, h->dy);
        du_gemm_src hidden = slots_of(h, e, b->hidden, F), up = slots_of(h, e, h->up, F);
        int64_t i = h->e0 + e, n_rows = n_slots(h, e);
        b->pairs[n++] = (du_train_pair){&w->down[i], dy, hidden, n_rows, end};
        b->pairs[n++] = (du_train_pair){&w->gate[i], slots_of(h, e, h->gate, F), x, n_rows, end};
        b->pairs[n++] = (du_train_pair){&w->up[i], up, x, n_rows, end};
    }
    return du_train_wgrad(ctx, tr, b->pairs, n);
}

/* Gradients of the experts here; dx [n_slots, D] and dweights [n_slots] from weights [n_slots]. */
static du_err experts_bwd(du_ctx *ctx, const du_train *tr, const du_moe_weights *w, const hosts *h,
                          float *dx, const float *weights, float *dweights) {
    int64_t F = w->gate[0].rows;
    bwd b;
    du_err err = take_bwd(ctx, &b, h, tr->sums.leaves.n, F) ? DU_OK : DU_ENOMEM;
    err = err ? err : down_bwd(ctx, tr, &b, w, h, weights, dweights);
    if (err == DU_OK) {
        du_swiglu_bwd(ctx, h->gate, h->up, b.dh, h->gate, h->up, h->n_slots, F);
        err = in_bwd(ctx, tr, &b, w, h, dx);
    }
    return err ? err : weights_bwd(ctx, tr, &b, w, h);
}

/* Of the own slots, in their order. */
typedef struct {
    float *dx;                 /* [T*K, D] */
    float *weights, *dweights; /* [T*K] */
} slot_rows;

/* The same by the experts of all processes. */
static du_err spread_bwd(du_ctx *ctx, const du_train *tr, const float *dy, const float *x,
                         const du_moe_weights *w, const du_moe_kept *kept, du_err before,
                         const slot_rows *own, int64_t T) {
    const du_spread *s = w->spread;
    int64_t D = w->router->cols;
    du_guests g;
    hosts h;
    du_err err = meet(ctx, w, kept, before, &g, &h, x, dy, T);
    if (err != DU_OK) {
        return err;
    }
    slot_rows theirs = {DU_SCRATCH(ctx, float, g.n_slots *D), DU_SCRATCH(ctx, float, g.n_slots),
                        DU_SCRATCH(ctx, float, g.n_slots)};
    du_train of_all = *tr;
    of_all.sums.leaves = s->leaves;
    err = theirs.dx && theirs.weights && theirs.dweights ? DU_OK : DU_ENOMEM;
    err = du_spread_take(ctx, s, err, &g, theirs.weights, own->weights, 1);
    if (err == DU_OK) {
        err = experts_bwd(ctx, &of_all, w, &h, theirs.dx, theirs.weights, theirs.dweights);
    }
    err = du_spread_return(ctx, s, err, &g, own->dweights, theirs.dweights, 1);
    return err ? err : du_spread_return(ctx, s, DU_OK, &g, own->dx, theirs.dx, D);
}

/* The router's part: dx += , and its gradient. */
static du_err router_bwd(du_ctx *ctx, const du_train *tr, const float *dweights, float *dx,
                         const float *x, const du_moe_weights *w, const du_moe_kept *kept,
                         const du_router_balance *balance, int64_t T) {
    int64_t E = w->router->rows, D = w->router->cols;
    float *dlogits = DU_SCRATCH(ctx, float, T *E);
    if (!dlogits) {
        return DU_ENOMEM;
    }
    du_router_bwd(ctx, dlogits, kept->scores, kept->ids, dweights, w->rule, balance);
    du_train exact = *tr;
    exact.kind = DU_GEMM_F32;
    du_linear_grad out = {dlogits, E, w->router, NULL};
    return du_linear_train_bwd(ctx, &exact, &out, 1, dx, D, true, x, D, T);
}

du_err du_moe_train_bwd(du_ctx *ctx, const du_train *tr, float *dx, const float *dy, const float *x,
                        const du_moe_weights *w, const du_moe_kept *kept,
                        const du_router_balance *balance, int64_t T) {
    int64_t E = w->router->rows, D = w->router->cols, K = w->rule->n_used;
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    float *dweights = DU_SCRATCH(ctx, float, T *K);
    slot_rows own = {DU_SCRATCH(ctx, float, T *K *D), DU_SCRATCH(ctx, float, T *K),
                     DU_SCRATCH(ctx, float, T *K)};
    du_err err = dweights && own.dx && own.weights && own.dweights ? DU_OK : DU_ENOMEM;
    for (int64_t i = 0; err == DU_OK && i < T * K; i++) {
        own.weights[kept->slot_of[i]] = kept->weights[i];
    }
    if (w->spread) {
        err = spread_bwd(ctx, tr, dy, x, w, kept, err, &own, T);
    } else if (err == DU_OK) {
        hosts h = all_here(kept, x, dy, E, D, T / tr->sums.leaves.n);
        err = experts_bwd(ctx, tr, w, &h, own.dx, own.weights, own.dweights);
    }
    for (int64_t i = 0; err == DU_OK && i < T * K; i++) {
        dweights[i] = own.dweights[kept->slot_of[i]];
    }
    if (err == DU_OK && T > 0) {
        sum_job sum = {ctx->kern, kept, dx, own.dx, K, D, false};
        du_pool_run(ctx->pool, sum_token, &sum, T);
        err = router_bwd(ctx, tr, dweights, dx, x, w, kept, balance, T);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}
