/* Own slots are sorted by expert, so those that go to one process are neighbours, and their results
 * come back to where they were sent from without being moved. At the experts, slots come process by
 * process, each sorted by expert; they are brought into the order of experts:
 *
 *     came      p0: e0 e0 e1 e2 | p1: e0 e1 e1 e2
 *     wanted    e0: p0 p0 p1 | e1: p0 p1 p1 | e2: p0 p1
 *
 * Leaves are numbered over processes, so that is ascending leaves and tokens. */
#include "nn/spread.h"

#include <string.h>

static du_err move(const du_spread *s, du_err before, const du_guests *g) {
    return s->link->exchange(s->link->user, before, g->send, g->receive);
}

static int64_t n_experts_of(const du_spread *s, int64_t E, int64_t p) {
    return du_spread_first(E, p + 1, s->link->n) - du_spread_first(E, p, s->link->n);
}

/* What both sides need before any size is known. */
static bool take(du_ctx *ctx, const du_spread *s, du_guests *g, int64_t E) {
    int64_t n = s->link->n;
    g->e0 = du_spread_first(E, s->link->i, n);
    g->n_expert = n_experts_of(s, E, s->link->i);
    g->first = DU_SCRATCH(ctx, int64_t, g->n_expert + 1);
    g->counts = DU_SCRATCH(ctx, int64_t, n * g->n_expert);
    g->slots = DU_SCRATCH(ctx, int64_t, n + 1);
    g->rows = DU_SCRATCH(ctx, int64_t, n + 1);
    g->own = DU_SCRATCH(ctx, int64_t, n + 1);
    g->sent = DU_SCRATCH(ctx, int64_t, n + 1);
    g->send = DU_SCRATCH(ctx, du_spread_part, n);
    g->receive = DU_SCRATCH(ctx, du_spread_part, n);
    return g->first && g->counts && g->slots && g->rows && g->own && g->sent && g->send &&
           g->receive;
}

/* The rows that go to process p: its tokens, ascending, and the row of each slot.
 * row_of [T] work */
static void list_rows(du_guests *g, int64_t p, int32_t *i_row, int32_t *row_of,
                      const int32_t *i_token, int64_t T) {
    int32_t *tokens = g->tokens + g->sent[p];
    int32_t n = 0;
    memset(row_of, 0, (size_t)T * sizeof *row_of);
    for (int64_t i = g->own[p]; i < g->own[p + 1]; i++) {
        row_of[i_token[i]] = 1;
    }
    for (int64_t t = 0; t < T; t++) {
        if (row_of[t]) {
            tokens[n] = (int32_t)t;
            row_of[t] = n++;
        }
    }
    for (int64_t i = g->own[p]; i < g->own[p + 1]; i++) {
        i_row[i] = row_of[i_token[i]];
    }
    g->sent[p + 1] = g->sent[p] + n;
}

/* What goes to the others: per expert how many slots, and how many rows; the row of each slot; the
 * leaf of each row. */
typedef struct {
    int64_t *counts; /* [E + n]: of each process, its experts' and the rows' */
    int32_t *i_row;  /* [n_own] */
    int32_t *leaf;   /* [sent[n]] */
} notes;

static bool take_notes(du_ctx *ctx, const du_spread *s, du_guests *g, notes *mine,
                       const int64_t *first, const int32_t *i_token, int64_t E, int64_t T) {
    int64_t n = s->link->n, *at;
    g->n_own = first[E];
    /* A token is a row at most once per process. */
    mine->counts = DU_SCRATCH(ctx, int64_t, E + n);
    mine->i_row = DU_SCRATCH(ctx, int32_t, g->n_own);
    mine->leaf = DU_SCRATCH(ctx, int32_t, g->n_own);
    g->tokens = DU_SCRATCH(ctx, int32_t, g->n_own);
    int32_t *row_of = DU_SCRATCH(ctx, int32_t, T);
    if (!mine->counts || !mine->i_row || !mine->leaf || !g->tokens || !row_of) {
        return false;
    }
    at = mine->counts;
    g->sent[0] = 0;
    for (int64_t p = 0; p < n; p++) {
        int64_t e0 = du_spread_first(E, p, n), e1 = du_spread_first(E, p + 1, n);
        g->own[p] = first[e0];
        g->own[p + 1] = first[e1];
        list_rows(g, p, mine->i_row, row_of, i_token, T);
        for (int64_t e = e0; e < e1; e++) {
            *at++ = first[e + 1] - first[e];
        }
        *at++ = g->sent[p + 1] - g->sent[p];
    }
    for (int64_t i = 0; i < g->sent[n]; i++) {
        mine->leaf[i] = (int32_t)(s->i_leaf + g->tokens[i] / s->seq_len);
    }
    return true;
}

/* The counts of all processes to each. came [n, n_expert + 1] */
static du_err tell_counts(const du_spread *s, du_err before, const du_guests *g, const notes *mine,
                          int64_t *came, int64_t E) {
    int64_t *at = mine->counts;
    for (int64_t p = 0; before == DU_OK && p < s->link->n; p++) {
        int64_t n = n_experts_of(s, E, p) + 1;
        g->send[p] = (du_spread_part){at, (size_t)n * sizeof *at};
        g->receive[p] = (du_spread_part){came + p * (g->n_expert + 1),
                                         (size_t)(g->n_expert + 1) * sizeof *came};
        at += n;
    }
    return move(s, before, g);
}

/* Where slots and rows of each process begin. */
static void place(const du_spread *s, du_guests *g, const int64_t *came) {
    int64_t n = s->link->n, n_expert = g->n_expert;
    g->slots[0] = g->rows[0] = 0;
    memset(g->first, 0, (size_t)(n_expert + 1) * sizeof *g->first);
    for (int64_t p = 0; p < n; p++, came += n_expert + 1) {
        g->slots[p + 1] = g->slots[p];
        for (int64_t e = 0; e < n_expert; e++) {
            g->counts[p * n_expert + e] = came[e];
            g->slots[p + 1] += came[e];
            g->first[e + 1] += came[e];
        }
        g->rows[p + 1] = g->rows[p] + came[n_expert];
    }
    for (int64_t e = 0; e < n_expert; e++) {
        g->first[e + 1] += g->first[e];
    }
    g->n_slots = g->slots[n];
    g->n_rows = g->rows[n];
}

/* One exchange of items: own ones [n_own], those of the guests [n_slots], process by process. */
static void fill_parts(const du_spread *s, const du_guests *g, const int64_t *out, const void *send,
                       const int64_t *in, void *receive, size_t item_bytes) {
    for (int64_t p = 0; p < s->link->n; p++) {
        uint8_t *from = (uint8_t *)(uintptr_t)send + (size_t)out[p] * item_bytes;
        uint8_t *to = (uint8_t *)receive + (size_t)in[p] * item_bytes;
        g->send[p] = (du_spread_part){from, (size_t)(out[p + 1] - out[p]) * item_bytes};
        g->receive[p] = (du_spread_part){to, (size_t)(in[p + 1] - in[p]) * item_bytes};
    }
}

/* The run of slots of expert e that came from process p begins there among all slots. */
static int64_t run_at(const du_guests *g, int64_t p, int64_t e) {
    int64_t at = g->first[e];
    for (int64_t q = 0; q < p; q++) {
        at += g->counts[q * g->n_expert + e];
    }
    return at;
}

/* Rows of slots, numbered within the process they came from, to those among all. */
static void sort_rows(const du_spread *s, du_guests *g, const int32_t *came) {
    for (int64_t p = 0; p < s->link->n; p++) {
        for (int64_t e = 0; e < g->n_expert; e++) {
            int32_t *to = g->i_row + run_at(g, p, e);
            for (int64_t i = 0; i < g->counts[p * g->n_expert + e]; i++) {
                to[i] = (int32_t)(g->rows[p] + *came++);
            }
        }
    }
}

/* What of all processes' slots comes here. */
static du_err take_notice(du_ctx *ctx, const du_spread *s, du_guests *g, const notes *mine) {
    g->i_row = DU_SCRATCH(ctx, int32_t, g->n_slots);
    g->leaf = DU_SCRATCH(ctx, int32_t, g->n_rows);
    int32_t *came = DU_SCRATCH(ctx, int32_t, g->n_slots);
    du_err err = g->i_row && g->leaf && came ? DU_OK : DU_ENOMEM;
    if (err == DU_OK) {
        fill_parts(s, g, g->own, mine->i_row, g->slots, came, sizeof *came);
    }
    err = move(s, err, g);
    if (err == DU_OK) {
        sort_rows(s, g, came);
        fill_parts(s, g, g->sent, mine->leaf, g->rows, g->leaf, sizeof *g->leaf);
        err = move(s, DU_OK, g);
    }
    return err;
}

du_err du_spread_find(du_ctx *ctx, const du_spread *s, du_err before, du_guests *g,
                      const int64_t *first, const int32_t *i_token, int64_t E, int64_t T) {
    notes mine = {0};
    int64_t *came = NULL;
    *g = (du_guests){0};
    if (before == DU_OK) {
        bool good = take(ctx, s, g, E) && take_notes(ctx, s, g, &mine, first, i_token, E, T);
        came = good ? DU_SCRATCH(ctx, int64_t, (g->n_expert + 1) * s->link->n) : NULL;
        before = came ? DU_OK : DU_ENOMEM;
    }
    du_err err = tell_counts(s, before, g, &mine, came, E);
    if (err == DU_OK) {
        place(s, g, came);
        err = take_notice(ctx, s, g, &mine);
    }
    return err;
}

typedef struct {
    const du_guests *g;
    float *to;
    const float *const *x;
    int64_t n_x, D;
} gather_job;

static void gather_row(void *arg, int64_t i, int64_t i_thread) {
    (void)i_thread;
    const gather_job *job = arg;
    for (int64_t k = 0; k < job->n_x; k++) {
        memcpy(job->to + (i * job->n_x + k) * job->D, job->x[k] + job->g->tokens[i] * job->D,
               (size_t)job->D * sizeof *job->to);
    }
}

du_err du_spread_rows(du_ctx *ctx, const du_spread *s, du_err before, const du_guests *g, float *to,
                      const float *const *x, int64_t n_x, int64_t D) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    if (before == DU_OK) {
        int64_t n = g->sent[s->link->n];
        gather_job job = {g, DU_SCRATCH(ctx, float, n *n_x *D), x, n_x, D};
        before = job.to ? DU_OK : DU_ENOMEM;
        du_pool_run(ctx->pool, gather_row, &job, job.to ? n : 0);
        fill_parts(s, g, g->sent, job.to, g->rows, to, (size_t)(n_x * D) * sizeof *to);
    }
    du_err err = move(s, before, g);
    du_arena_release(ctx->scratch, mark);
    return err;
}

typedef struct {
    const du_guests *g;
    float *sorted, *came; /* [n_slots, W] */
    int64_t n, W;
    bool back;
} sort_job;

/* Process p's slots into their places, or from there. */
static void sort_process(void *arg, int64_t p, int64_t i_thread) {
    (void)i_thread;
    const sort_job *job = arg;
    float *came = job->came + job->g->slots[p] * job->W;
    for (int64_t e = 0; e < job->g->n_expert; e++) {
        int64_t n = job->g->counts[p * job->g->n_expert + e] * job->W;
        float *sorted = job->sorted + run_at(job->g, p, e) * job->W;
        if (n > 0) {
            memcpy(job->back ? came : sorted, job->back ? sorted : came,
                   (size_t)n * sizeof *sorted);
        }
        came += n;
    }
}

du_err du_spread_take(du_ctx *ctx, const du_spread *s, du_err before, const du_guests *g, float *to,
                      const float *own, int64_t W) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    sort_job job = {.g = g, .sorted = to, .n = s->link->n, .W = W};
    if (before == DU_OK) {
        job.came = DU_SCRATCH(ctx, float, g->n_slots *W);
        before = job.came ? DU_OK : DU_ENOMEM;
        fill_parts(s, g, g->own, own, g->slots, job.came, (size_t)W * sizeof *to);
    }
    du_err err = move(s, before, g);
    du_pool_run(ctx->pool, sort_process, &job, err ? 0 : job.n);
    du_arena_release(ctx->scratch, mark);
    return err;
}

du_err du_spread_return(du_ctx *ctx, const du_spread *s, du_err before, const du_guests *g,
                        float *own, const float *from, int64_t W) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    if (before == DU_OK) {
        sort_job job = {.g = g,
                        .sorted = (float *)(uintptr_t)from,
                        .came = DU_SCRATCH(ctx, float, g->n_slots *W),
                        .n = s->link->n,
                        .W = W,
                        .back = true};
        before = job.came ? DU_OK : DU_ENOMEM;
        du_pool_run(ctx->pool, sort_process, &job, before ? 0 : job.n);
        fill_parts(s, g, g->slots, job.came, g->own, own, (size_t)W * sizeof *own);
    }
    du_err err = move(s, before, g);
    du_arena_release(ctx->scratch, mark);
    return err;
}
