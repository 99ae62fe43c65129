/* Experts, routed and shared.
 *
 * The T*K chosen (token, expert) pairs are the rows of the work, sorted by expert (nn/slots.h).
 * The shared experts, one feed-forward of the width FS, own T slots of their own, one per token.
 *
 *   1. gate and up products, gathered through i_token, and SwiGLU; tasks over (expert, rows of F)
 *   2. what comes out is rounded to 8 bits where the down matrix wants it
 *   3. down product, tasks over (expert, rows of D)
 *   4. per token the weighted sum of its K slots, k ascending, and the shared experts' slot
 *
 * Steps 1 and 3 are one parallel region each over all experts, routed and shared. */
#include "nn/experts.h"

#include <string.h>

#include "nn/acts.h"
#include "nn/linear.h"
#include "nn/product.h"
#include "nn/slots.h"

/* The slots of one expert. Their rows of x are i_token[0 .. n_slots), NULL: the tokens in order. */
typedef struct {
    int32_t expert; /* -1: the shared ones */
    int64_t n_slots, F;
    const int32_t *i_token;
    du_expert w;
    du_product gate_mm, up_mm, down_mm;
    float *gate;           /* [n_slots, F] */
    float *out;            /* [n_slots, D] */
    const du_acts *acts_h; /* of its rows [slot0, slot0 + n_slots) */
    int64_t slot0;
    int64_t first_up, first_down; /* its first tasks */
} group;

typedef struct {
    const du_kern *kern;
    group *groups;
    int64_t n_groups, D;
    const du_acts *acts_x;
    int64_t rows_up, rows_down; /* per task */
    /* Per thread [slots_max, rows_up]: no more of it is ever needed. There is room for a row of F
     * before it, so that a product's pointer to row 0 lies in it too. */
    float *up;
    int64_t slots_max;
} experts_job;

static int64_t end_of_rows(int64_t row0, int64_t n, int64_t n_rows) {
    return row0 + n < n_rows ? row0 + n : n_rows;
}

static void up_task(void *arg, int64_t i_task, int64_t i_thread) {
    const experts_job *job = arg;
    const group *g = &job->groups[job->n_groups - 1];
    while (g->first_up > i_task) {
        g--;
    }
    int64_t row0 = (i_task - g->first_up) * job->rows_up;
    int64_t row1 = end_of_rows(row0, job->rows_up, g->F);
    du_product_run(&g->gate_mm, g->gate, g->F, row0, row1, job->acts_x, g->i_token, g->n_slots);
    int64_t ld = job->rows_up;
    float *up = job->up + i_thread * job->slots_max * ld;
    du_product_run(&g->up_mm, up - row0, ld, row0, row1, job->acts_x, g->i_token, g->n_slots);
    for (int64_t s = 0; s < g->n_slots; s++) {
        float *h = g->gate + s * g->F + row0;
        job->kern->swiglu(h, h, up + s * ld, row1 - row0);
    }
}

static void down_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const experts_job *job = arg;
    const group *g = &job->groups[job->n_groups - 1];
    while (g->first_down > i_task) {
        g--;
    }
    int64_t row0 = (i_task - g->first_down) * job->rows_down;
    int64_t row1 = end_of_rows(row0, job->rows_down, job->D);
    du_acts acts = du_acts_slice(g->acts_h, g->slot0, g->n_slots);
    du_product_run(&g->down_mm, g->out, job->D, row0, row1, &acts, NULL, g->n_slots);
}

typedef struct {
    const du_kern *kern;
    float *y;
    const float *out, *weights, *shared; /* shared [T,D] or NULL */
    const int32_t *slot_of;              /* [T,K] */
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
    if (job->shared) {
        job->kern->add(y, job->shared + t * job->D, job->D);
    }
}

/* The groups of the experts with at least one token; returns their number. */
static int64_t make_groups(group *groups, const int64_t *first, const int32_t *i_token,
                           int64_t n_expert) {
    int64_t n = 0;
    for (int64_t e = 0; e < n_expert; e++) {
        if (first[e + 1] > first[e]) {
            groups[n++] = (group){.expert = (int32_t)e,
                                  .slot0 = first[e],
                                  .n_slots = first[e + 1] - first[e],
                                  .i_token = i_token + first[e]};
        }
    }
    return n;
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
        if (g->expert < 0) {
            du_tap(ctx, "shared_hidden", layer, g->gate, g->n_slots, g->F);
            continue;
        }
        for (int64_t s = 0; s < g->n_slots; s++) {
            ctx->tap(ctx->tap_user, "expert_in", layer, g->expert, x + g->i_token[s] * job->D, 1,
                     job->D);
        }
        ctx->tap(ctx->tap_user, "expert_hidden", layer, g->expert, g->gate, g->n_slots, g->F);
    }
}

/* Rows per task so that every thread gets many tasks of one size: about 16, more when they would
 * become long. */
static int64_t rows_per_task(const du_ctx *ctx, int64_t all_rows) {
    enum { ROWS_MAX = 512 };
    int64_t share = all_rows / (16 * du_pool_n_threads(ctx->pool));
    return share < 32 ? 32 : share > ROWS_MAX ? ROWS_MAX : share / 32 * 32;
}

/* Step 1 over all groups. */
static du_err run_up(du_ctx *ctx, experts_job *job) {
    int64_t all_rows = 0, rows_max = 0, n_tasks = 0;
    for (int64_t i = 0; i < job->n_groups; i++) {
        const group *g = &job->groups[i];
        all_rows += g->F;
        rows_max = g->F > rows_max ? g->F : rows_max;
        job->slots_max = g->n_slots > job->slots_max ? g->n_slots : job->slots_max;
    }
    job->rows_up = rows_per_task(ctx, all_rows);
    int64_t n_up = du_pool_n_threads(ctx->pool) * job->slots_max * job->rows_up;
    job->up = DU_SCRATCH(ctx, float, rows_max + n_up);
    if (!job->up) {
        return DU_ENOMEM;
    }
    job->up += rows_max;
    for (int64_t i = 0; i < job->n_groups; i++) {
        group *g = &job->groups[i];
        g->first_up = n_tasks;
        n_tasks += (g->F + job->rows_up - 1) / job->rows_up;
        g->gate_mm = du_product_begin(ctx, &g->w.gate);
        g->up_mm = du_product_begin(ctx, &g->w.up);
    }
    du_pool_run(ctx->pool, up_task, job, n_tasks);
    for (int64_t i = 0; i < job->n_groups; i++) {
        du_product_end(&job->groups[i].gate_mm);
        du_product_end(&job->groups[i].up_mm);
    }
    return DU_OK;
}

/* Step 3 over all groups. */
static void run_down(du_ctx *ctx, experts_job *job) {
    int64_t n_tasks = 0;
    job->rows_down = rows_per_task(ctx, job->n_groups * job->D);
    for (int64_t i = 0; i < job->n_groups; i++) {
        group *g = &job->groups[i];
        g->first_down = n_tasks;
        n_tasks += (job->D + job->rows_down - 1) / job->rows_down;
        g->down_mm = du_product_begin(ctx, &g->w.down);
    }
    du_pool_run(ctx->pool, down_task, job, n_tasks);
    for (int64_t i = 0; i < job->n_groups; i++) {
        du_product_end(&job->groups[i].down_mm);
    }
}

/* The hidden rows of `n` groups from `groups` on, all of one width, as what their down matrices
 * read. */
typedef struct {
    float *gate, *out; /* [n_slots, F], [n_slots, D] */
    int64_t n_slots, F;
    du_acts acts;
} hidden;

static du_err take_hidden(du_ctx *ctx, hidden *h, group *groups, int64_t n, int64_t D) {
    h->gate = DU_SCRATCH(ctx, float, h->n_slots * h->F);
    h->out = DU_SCRATCH(ctx, float, h->n_slots *D);
    if (!h->gate || !h->out) {
        return DU_ENOMEM;
    }
    for (int64_t i = 0; i < n; i++) {
        group *g = &groups[i];
        g->F = h->F;
        g->gate = h->gate + g->slot0 * h->F;
        g->out = h->out + g->slot0 * D;
        g->acts_h = &h->acts;
    }
    return DU_OK;
}

static du_err round_hidden(du_ctx *ctx, hidden *h, const group *groups, int64_t n) {
    return du_acts_make(ctx, &h->acts, h->gate, h->F, h->n_slots, h->F,
                        any_block_type(groups, n, true));
}

/* Steps 1 to 3; the shared experts are the last group. */
static du_err run_products(du_ctx *ctx, experts_job *job, hidden *routed, hidden *shared,
                           const float *x, int64_t layer, int64_t T) {
    int64_t n_shared = shared->F > 0 ? 1 : 0, n_routed = job->n_groups - n_shared, D = job->D;
    group *groups = job->groups, *last = groups + n_routed;
    du_acts acts_x;
    du_err err = take_hidden(ctx, routed, groups, n_routed, D);
    err = err ? err : take_hidden(ctx, shared, last, n_shared, D);
    err =
        err ? err
            : du_acts_make(ctx, &acts_x, x, D, T, D, any_block_type(groups, job->n_groups, false));
    if (err != DU_OK) {
        return err;
    }
    job->kern = ctx->kern;
    job->acts_x = &acts_x;
    err = run_up(ctx, job);
    if (err != DU_OK) {
        return err;
    }
    tap_groups(ctx, job, x, layer);
    err = round_hidden(ctx, routed, groups, n_routed);
    if (err == DU_OK && n_shared > 0) {
        err = round_hidden(ctx, shared, last, n_shared);
    }
    if (err == DU_OK) {
        run_down(ctx, job);
    }
    return err;
}

static void prefetch(du_ctx *ctx, const du_expert_source *src, int64_t layer, const group *groups,
                     int64_t n) {
    int32_t *wanted = src->prefetch ? DU_SCRATCH(ctx, int32_t, n) : NULL;
    for (int64_t i = 0; wanted && i < n; i++) {
        wanted[i] = groups[i].expert;
    }
    if (wanted) {
        src->prefetch(src, layer, wanted, n);
    }
}

du_err du_experts_fwd(du_ctx *ctx, float *y, const float *x, const int32_t *ids,
                      const float *weights, const du_expert_source *src, const du_expert *shared,
                      int64_t layer, int64_t n_expert, int64_t K, int64_t T, int64_t D, int64_t F) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    hidden routed_h = {.n_slots = T * K, .F = F};
    hidden shared_h = {.n_slots = T, .F = shared ? shared->gate.rows : 0};
    int32_t *i_token = DU_SCRATCH(ctx, int32_t, T * K);
    int32_t *slot_of = DU_SCRATCH(ctx, int32_t, T * K);
    int64_t *first = DU_SCRATCH(ctx, int64_t, n_expert + 1);
    group *groups = DU_SCRATCH(ctx, group, n_expert + 1);
    du_err err = i_token && slot_of && first && groups ? DU_OK : DU_ENOMEM;
    if (err != DU_OK) {
        goto done;
    }
    du_slots_sort(first, i_token, slot_of, ids, n_expert, K, T);
    int64_t n_acquired = 0, n = make_groups(groups, first, i_token, n_expert);
    experts_job job = {.groups = groups, .n_groups = n + (shared ? 1 : 0), .D = D};
    if (shared) {
        groups[n] = (group){.expert = -1, .n_slots = T, .w = *shared};
    }
    prefetch(ctx, src, layer, groups, n);
    err = acquire_all(src, layer, groups, n, &n_acquired);
    if (err == DU_OK) {
        err = run_products(ctx, &job, &routed_h, &shared_h, x, layer, T);
    }
    release_all(src, layer, groups, n_acquired);
    if (err == DU_OK) {
        const float *of_shared = shared ? shared_h.out : NULL;
        combine_job combine = {ctx->kern, y, routed_h.out, weights, of_shared, slot_of, K, D};
        du_pool_run(T > 4 ? ctx->pool : NULL, combine_token, &combine, T);
    }
done:
    du_arena_release(ctx->scratch, mark);
    return err;
}
