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

static int64_t n_slots(const du_moe_kept *kept, int64_t e) {
    return kept->first[e + 1] - kept->first[e];
}

/* Rows of tokens [T, ld], in the order of expert e's slots. */
static du_gemm_src tokens_of(const du_moe_kept *kept, int64_t e, const float *x, int64_t ld) {
    return (du_gemm_src){.data = x, .ld = ld, .i_row = kept->i_token + kept->first[e]};
}

/* Rows of expert e's slots, [T*K, ld] */
static du_gemm_src slots_of(const du_moe_kept *kept, int64_t e, const float *x, int64_t ld) {
    return (du_gemm_src){.data = x + kept->first[e] * ld, .ld = ld};
}

/* A product of expert e's rows: y and x of its slots. */
static du_train_job job_of(const du_moe_kept *kept, int64_t e, const du_mat *w, du_gemm_src x,
                           float *y, int64_t ldy) {
    return (du_train_job){
        .w = w, .y = y + kept->first[e] * ldy, .ldy = ldy, .x = x, .T = n_slots(kept, e)};
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

du_err du_moe_train_fwd(du_ctx *ctx, const du_train *tr, float *y, const float *x,
                        const du_moe_weights *w, const du_moe_kept *kept, int64_t T) {
    int64_t E = w->router->rows, D = w->router->cols, F = w->gate[0].rows, K = w->rule->n_used;
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    du_train_job *jobs = DU_SCRATCH(ctx, du_train_job, 2 * E);
    float *hidden = kept->hidden ? kept->hidden : DU_SCRATCH(ctx, float, T *K *F);
    float *out = DU_SCRATCH(ctx, float, T *K *D);
    du_err err = jobs && hidden && out ? route(ctx, x, w, kept, T) : DU_ENOMEM;
    for (int64_t e = 0; err == DU_OK && e < E; e++) {
        du_gemm_src rows = tokens_of(kept, e, x, D);
        jobs[2 * e] = job_of(kept, e, &w->gate[e], rows, kept->gate, F);
        jobs[2 * e + 1] = job_of(kept, e, &w->up[e], rows, kept->up, F);
    }
    err = err ? err : du_train_fwd(ctx, tr->kind, jobs, 2 * E);
    if (err == DU_OK) {
        du_swiglu_fwd(ctx, hidden, kept->gate, kept->up, T * K, F);
        for (int64_t e = 0; e < E; e++) {
            jobs[e] = job_of(kept, e, &w->down[e], slots_of(kept, e, hidden, F), out, D);
        }
        err = du_train_fwd(ctx, tr->kind, jobs, E);
    }
    if (err == DU_OK) {
        sum_job sum = {ctx->kern, kept, y, out, K, D, true};
        du_pool_run(ctx->pool, sum_token, &sum, T);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}

/* Ends of the leaves' rows among each expert's slots, [E, n_leaves]. */
static void leaf_ends(int64_t *end, const du_train *tr, const du_moe_kept *kept, int64_t E,
                      int64_t T) {
    int64_t n = tr->sums.leaves.n, per_leaf = T / n;
    for (int64_t e = 0; e < E; e++) {
        int64_t i = 0, slots = n_slots(kept, e);
        const int32_t *token = kept->i_token + kept->first[e];
        for (int64_t leaf = 0; leaf < n; leaf++) {
            while (i < slots && token[i] < (leaf + 1) * per_leaf) {
                i++;
            }
            end[e * n + leaf] = i;
        }
    }
}

typedef struct {
    const du_kern *kern;
    const du_moe_kept *kept;
    float *hidden, *dh, *dweights;
    int64_t K, F;
} weigh_job;

/* Of a token's slots: dweight = e . h, then h = g h and e = g e. */
static void weigh_token(void *arg, int64_t t, int64_t i_thread) {
    (void)i_thread;
    const weigh_job *job = arg;
    for (int64_t i = t * job->K; i < (t + 1) * job->K; i++) {
        int64_t at = job->kept->slot_of[i] * job->F;
        float weight = job->kept->weights[i];
        job->dweights[i] = job->kern->dot(job->dh + at, job->hidden + at, job->F);
        job->kern->scale(job->hidden + at, weight, job->F);
        job->kern->scale(job->dh + at, weight, job->F);
    }
}

/* Buffers of a backward pass. */
typedef struct {
    du_train_job *jobs;        /* [2E] */
    du_train_pair *pairs;      /* [3E] */
    int64_t *end;              /* [E, n_leaves] */
    float *hidden, *dh;        /* [T*K, F] */
    float *dx_slots;           /* [T*K, D] */
    float *dweights, *dlogits; /* [T,K], [T,E] */
} bwd;

static bool take_bwd(du_ctx *ctx, bwd *b, const du_train *tr, const du_moe_weights *w,
                     const du_moe_kept *kept, int64_t T) {
    int64_t E = w->router->rows, D = w->router->cols, F = w->gate[0].rows, K = w->rule->n_used;
    b->jobs = DU_SCRATCH(ctx, du_train_job, 2 * E);
    b->pairs = DU_SCRATCH(ctx, du_train_pair, 3 * E);
    b->end = DU_SCRATCH(ctx, int64_t, E * tr->sums.leaves.n);
    b->hidden = hidden_again(ctx, kept->hidden, kept->gate, kept->up, T * K, F);
    b->dh = DU_SCRATCH(ctx, float, T *K *F);
    b->dx_slots = DU_SCRATCH(ctx, float, T *K *D);
    b->dweights = DU_SCRATCH(ctx, float, T *K);
    b->dlogits = DU_SCRATCH(ctx, float, T *E);
    return b->jobs && b->pairs && b->end && b->hidden && b->dh && b->dx_slots && b->dweights &&
           b->dlogits;
}

/* dh and dweights; hidden becomes what d(down) is made of. */
static du_err down_bwd(du_ctx *ctx, const du_train *tr, bwd *b, const float *dy,
                       const du_moe_weights *w, const du_moe_kept *kept, int64_t T) {
    int64_t E = w->router->rows, D = w->router->cols, F = w->gate[0].rows;
    for (int64_t e = 0; e < E; e++) {
        b->jobs[e] = job_of(kept, e, &w->down[e], tokens_of(kept, e, dy, D), b->dh, F);
    }
    du_err err = du_train_dgrad(ctx, tr->kind, b->jobs, E);
    weigh_job job = {ctx->kern, kept, b->hidden, b->dh, b->dweights, w->rule->n_used, F};
    du_pool_run(ctx->pool, weigh_token, &job, err ? 0 : T);
    return err;
}

/* dx of all slots through gate and up. */
static du_err in_bwd(du_ctx *ctx, const du_train *tr, bwd *b, const du_moe_weights *w,
                     const du_moe_kept *kept) {
    int64_t E = w->router->rows, D = w->router->cols, F = w->gate[0].rows;
    for (int64_t e = 0; e < E; e++) {
        du_train_job *job = &b->jobs[2 * e];
        job[0] = job_of(kept, e, &w->gate[e], slots_of(kept, e, kept->gate, F), b->dx_slots, D);
        job[1] = job_of(kept, e, &w->up[e], slots_of(kept, e, kept->up, F), b->dx_slots, D);
        job[1].add = true;
    }
    return du_train_dgrad(ctx, tr->kind, b->jobs, 2 * E);
}

static du_err weights_bwd(du_ctx *ctx, const du_train *tr, bwd *b, const float *dy, const float *x,
                          const du_moe_weights *w, const du_moe_kept *kept, int64_t T) {
    int64_t E = w->router->rows, D = w->router->cols, F = w->gate[0].rows, n = 0;
    leaf_ends(b->end, tr, kept, E, T);
    for (int64_t e = 0; e < E; e++) {
        const int64_t *end = b->end + e * tr->sums.leaves.n;
        du_gemm_src in = tokens_of(kept, e, x, D);
        int64_t n_rows = n_slots(kept, e);
        b->pairs[n++] = (du_train_pair){&w->down[e], tokens_of(kept, e, dy, D),
                                        slots_of(kept, e, b->hidden, F), n_rows, end};
        b->pairs[n++] =
            (du_train_pair){&w->gate[e], slots_of(kept, e, kept->gate, F), in, n_rows, end};
        b->pairs[n++] = (du_train_pair){&w->up[e], slots_of(kept, e, kept->up, F), in, n_rows, end};
    }
    return du_train_wgrad(ctx, tr, b->pairs, n);
}

/* The router's part: dx += , and its gradient. */
static du_err router_bwd(du_ctx *ctx, const du_train *tr, bwd *b, float *dx, const float *x,
                         const du_moe_weights *w, const du_moe_kept *kept,
                         const du_router_balance *balance, int64_t T) {
    int64_t E = w->router->rows, D = w->router->cols;
    du_router_bwd(ctx, b->dlogits, kept->scores, kept->ids, b->dweights, w->rule, balance);
    du_train exact = *tr;
    exact.kind = DU_GEMM_F32;
    du_linear_grad out = {b->dlogits, E, w->router, NULL};
    return du_linear_train_bwd(ctx, &exact, &out, 1, dx, D, true, x, D, T);
}

du_err du_moe_train_bwd(du_ctx *ctx, const du_train *tr, float *dx, const float *dy, const float *x,
                        const du_moe_weights *w, const du_moe_kept *kept,
                        const du_router_balance *balance, int64_t T) {
    int64_t D = w->router->cols, F = w->gate[0].rows, K = w->rule->n_used;
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    bwd b;
    du_err err = take_bwd(ctx, &b, tr, w, kept, T) ? DU_OK : DU_ENOMEM;
    err = err ? err : down_bwd(ctx, tr, &b, dy, w, kept, T);
    if (err == DU_OK) {
        du_swiglu_bwd(ctx, kept->gate, kept->up, b.dh, kept->gate, kept->up, T * K, F);
        err = in_bwd(ctx, tr, &b, w, kept);
    }
    if (err == DU_OK) {
        sum_job sum = {ctx->kern, kept, dx, b.dx_slots, K, D, false};
        du_pool_run(ctx->pool, sum_token, &sum, T);
        err = weights_bwd(ctx, tr, &b, dy, x, w, kept, T);
    }
    err = err ? err : router_bwd(ctx, tr, &b, dx, x, w, kept, balance, T);
    du_arena_release(ctx->scratch, mark);
    return err;
}
