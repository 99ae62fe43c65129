/* Routed experts.
 *
 * The T*K chosen (token, expert) pairs are the rows of the work. They are sorted by expert, keeping
 * the order of tokens, so that expert e owns the consecutive slots [first[e], first[e+1]):
 *
 *     slot      0  1  2 | 3 | 4  5 ...
 *     expert    0  0  0 | 2 | 7  7
 *     i_token   1  4  9 | 0 | 4  5          which row of x the slot reads
 *
 *   1. gate and up products, gathered through i_token, tasks over (expert, rows of F)
 *   2. SwiGLU per slot, rounded to 8 bits where the down matrix wants it
 *   3. down product, tasks over (expert, rows of D)
 *   4. per token the weighted sum of its K slots, k ascending
 *
 * Steps 1 and 3 are one parallel region each over all experts, cut into tasks of about equal bytes.
 */
#include "nn/experts.h"

#include <string.h>

#include "nn/acts.h"
#include "nn/linear.h"

typedef struct {
    int32_t expert;
    int64_t slot0, n_slots;
    du_expert w;
} group;

typedef struct {
    const du_kern *kern;
    group *groups;
    int64_t n_groups;
    const int32_t *i_token;
    const du_acts *acts_x, *acts_h;
    float *gate, *up, *out; /* [slots, F], [slots, F], [slots, D] */
    int64_t F, D, rows_up, rows_down, n_blocks_up, n_blocks_down;
} experts_job;

static void up_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const experts_job *job = arg;
    const group *g = &job->groups[i_task / job->n_blocks_up];
    int64_t row0 = i_task % job->n_blocks_up * job->rows_up;
    int64_t row1 = row0 + job->rows_up < job->F ? row0 + job->rows_up : job->F;
    const int32_t *i_row = job->i_token + g->slot0;
    float *gate = job->gate + g->slot0 * job->F, *up = job->up + g->slot0 * job->F;
    job->kern->mm[g->w.gate.dtype](gate, job->F, &g->w.gate, row0, row1, job->acts_x, i_row,
                                   g->n_slots);
    job->kern->mm[g->w.up.dtype](up, job->F, &g->w.up, row0, row1, job->acts_x, i_row, g->n_slots);
    for (int64_t s = 0; s < g->n_slots; s++) {
        float *h = gate + s * job->F + row0;
        job->kern->swiglu(h, h, up + s * job->F + row0, row1 - row0);
    }
}

static void down_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const experts_job *job = arg;
    const group *g = &job->groups[i_task / job->n_blocks_down];
    int64_t row0 = i_task % job->n_blocks_down * job->rows_down;
    int64_t row1 = row0 + job->rows_down < job->D ? row0 + job->rows_down : job->D;
    du_acts acts = du_acts_slice(job->acts_h, g->slot0, g->n_slots);
    job->kern->mm[g->w.down.dtype](job->out + g->slot0 * job->D, job->D, &g->w.down, row0, row1,
                                   &acts, NULL, g->n_slots);
}

typedef struct {
    const du_kern *kern;
    float *y;
    const float *out, *weights;
    const int32_t *slot_of; /* [T,K] */
    int64_t K, D;
} combine_job;

static void combine_token(void *arg, int64_t t, int64_t i_thread) {
    (void)i_thread;
    const combine_job *job = arg;
    float *y = job->y + t * job->D;
    memset(y, 0, (size_t)job->D * sizeof *y);
    for (int64_t k = 0; k < job->K; k++) {
        int64_t i = t * job->K + k;
        job->kern->axpy(y, job->weights[i], job->out + job->slot_of[i] * job->D, job->D);
    }
}

/* Sorts the pairs by expert; i_token [T*K], slot_of [T,K] and the groups are filled.
 * Returns the number of groups (experts with at least one token). */
static int64_t sort_by_expert(group *groups, int32_t *i_token, int32_t *slot_of, int64_t *next,
                              const int32_t *ids, int64_t n_expert, int64_t K, int64_t T) {
    memset(next, 0, (size_t)n_expert * sizeof *next);
    for (int64_t i = 0; i < T * K; i++) {
        next[ids[i]]++;
    }
    int64_t n_groups = 0, slot = 0;
    for (int64_t e = 0; e < n_expert; e++) {
        int64_t n = next[e];
        next[e] = slot;
        if (n > 0) {
            groups[n_groups++] = (group){.expert = (int32_t)e, .slot0 = slot, .n_slots = n};
        }
        slot += n;
    }
    for (int64_t i = 0; i < T * K; i++) {
        int64_t s = next[ids[i]]++;
        i_token[s] = (int32_t)(i / K);
        slot_of[i] = (int32_t)s;
    }
    return n_groups;
}

static du_err acquire_all(const du_expert_source *src, int64_t layer, group *groups,
                          int64_t n_groups, int64_t *n_acquired) {
    for (*n_acquired = 0; *n_acquired < n_groups; (*n_acquired)++) {
        group *g = &groups[*n_acquired];
        du_err err = src->acquire(src, layer, g->expert, &g->w);
        if (err != DU_OK) {
            return err;
        }
    }
    return DU_OK;
}

static void release_all(const du_expert_source *src, int64_t layer, const group *groups,
                        int64_t n) {
    for (int64_t i = 0; src->release && i < n; i++) {
        src->release(src, layer, groups[i].expert);
    }
}

static bool any_block_type(const group *groups, int64_t n, bool down) {
    for (int64_t i = 0; i < n; i++) {
        const du_expert *w = &groups[i].w;
        if (down ? du_dtype_is_block(w->down.dtype)
                 : du_dtype_is_block(w->gate.dtype) || du_dtype_is_block(w->up.dtype)) {
            return true;
        }
    }
    return false;
}

/* Shows each expert's inputs, and what goes into its down matrix. */
static void tap_groups(const du_ctx *ctx, const experts_job *job, const float *x, int64_t layer) {
    for (int64_t i = 0; ctx->tap && i < job->n_groups; i++) {
        const group *g = &job->groups[i];
        for (int64_t s = g->slot0; s < g->slot0 + g->n_slots; s++) {
            ctx->tap(ctx->tap_user, "expert_in", layer, g->expert, x + job->i_token[s] * job->D, 1,
                     job->D);
        }
        ctx->tap(ctx->tap_user, "expert_hidden", layer, g->expert, job->gate + g->slot0 * job->F,
                 g->n_slots, job->F);
    }
}

/* Steps 1 to 3 into job->out. */
static du_err run_products(du_ctx *ctx, experts_job *job, const float *x, int64_t layer, int64_t T,
                           int64_t n_slots) {
    int64_t D = job->D, F = job->F;
    du_acts acts_x, acts_h;
    job->kern = ctx->kern;
    job->gate = DU_SCRATCH(ctx, float, n_slots *F);
    job->up = DU_SCRATCH(ctx, float, n_slots *F);
    if (!job->gate || !job->up) {
        return DU_ENOMEM;
    }
    du_err err =
        du_acts_make(ctx, &acts_x, x, D, T, D, any_block_type(job->groups, job->n_groups, false));
    if (err != DU_OK) {
        return err;
    }
    const group *first = &job->groups[0];
    job->acts_x = &acts_x;
    job->rows_up = du_linear_rows_per_task(ctx, &first->w.gate, n_slots / job->n_groups);
    job->n_blocks_up = (F + job->rows_up - 1) / job->rows_up;
    du_pool_run(ctx->pool, up_task, job, job->n_groups * job->n_blocks_up);
    tap_groups(ctx, job, x, layer);

    err = du_acts_make(ctx, &acts_h, job->gate, F, n_slots, F,
                       any_block_type(job->groups, job->n_groups, true));
    if (err != DU_OK) {
        return err;
    }
    job->acts_h = &acts_h;
    job->rows_down = du_linear_rows_per_task(ctx, &first->w.down, n_slots / job->n_groups);
    job->n_blocks_down = (D + job->rows_down - 1) / job->rows_down;
    du_pool_run(ctx->pool, down_task, job, job->n_groups * job->n_blocks_down);
    return DU_OK;
}

du_err du_experts_fwd(du_ctx *ctx, float *y, const float *x, const int32_t *ids,
                      const float *weights, const du_expert_source *src, int64_t layer,
                      int64_t n_expert, int64_t K, int64_t T, int64_t D, int64_t F) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    int64_t n_slots = T * K, n_acquired = 0;
    int32_t *i_token = DU_SCRATCH(ctx, int32_t, n_slots);
    int32_t *slot_of = DU_SCRATCH(ctx, int32_t, n_slots);
    int64_t *next = DU_SCRATCH(ctx, int64_t, n_expert);
    group *groups = DU_SCRATCH(ctx, group, n_expert);
    float *out = DU_SCRATCH(ctx, float, n_slots *D);
    du_err err = i_token && slot_of && next && groups && out ? DU_OK : DU_ENOMEM;
    if (err != DU_OK) {
        goto done;
    }
    experts_job job = {.groups = groups, .i_token = i_token, .out = out, .F = F, .D = D};
    job.n_groups = sort_by_expert(groups, i_token, slot_of, next, ids, n_expert, K, T);
    if (src->prefetch) {
        int32_t *wanted = DU_SCRATCH(ctx, int32_t, job.n_groups);
        for (int64_t i = 0; wanted && i < job.n_groups; i++) {
            wanted[i] = groups[i].expert;
        }
        if (wanted) {
            src->prefetch(src, layer, wanted, job.n_groups);
        }
    }
    err = acquire_all(src, layer, groups, job.n_groups, &n_acquired);
    if (err == DU_OK) {
        err = run_products(ctx, &job, x, layer, T, n_slots);
    }
    release_all(src, layer, groups, n_acquired);
    if (err == DU_OK) {
        combine_job combine = {ctx->kern, y, out, weights, slot_of, K, D};
        du_pool_run(T > 4 ? ctx->pool : NULL, combine_token, &combine, T);
    }
done:
    du_arena_release(ctx->scratch, mark);
    return err;
}
