#include "nn/leaves.h"

#include <string.h>

void du_leaf_sum_add(du_leaf_sum *sum, double v) {
    int level = 0;
    for (; sum->n >> level & 1; level++) {
        v = sum->waiting[level] + v;
    }
    sum->waiting[level] = v;
    sum->n++;
}

double du_leaf_sum_get(const du_leaf_sum *sum) {
    double all = 0;
    bool any = false;
    for (int level = 0; level < DU_LEAF_LEVELS; level++) {
        if (sum->n >> level & 1) {
            all = any ? sum->waiting[level] + all : sum->waiting[level];
            any = true;
        }
    }
    return all;
}

float *du_sums_grad(const du_sums *sums, const void *weight) {
    uintptr_t at = (uintptr_t)weight, block = (uintptr_t)sums->values;
    bool inside = weight && at >= block && at < block + (size_t)sums->n_values * sizeof(float);
    return inside ? sums->grads + (at - block) / sizeof(float) : NULL;
}

static float *node_of(const du_sums *sums, const float *grad, int64_t level) {
    float *block = sums->nodes ? sums->nodes[level] : NULL;
    return block ? block + (grad - sums->grads) : NULL;
}

void du_sums_nodes(const du_sums *sums, const float *grad, float **nodes) {
    for (int64_t l = 0; l < DU_LEAF_LEVELS; l++) {
        nodes[l] = node_of(sums, grad, l);
    }
}

du_err du_sums_take_nodes(float **nodes, int64_t n_values, int64_t n_leaves) {
    for (int64_t l = 0; l < DU_LEAF_LEVELS; l++) {
        if (n_leaves >> l & 1 && !nodes[l]) {
            nodes[l] = du_mem_reserve((size_t)n_values * sizeof(float));
            if (!nodes[l]) {
                return DU_ENOMEM;
            }
        }
    }
    return DU_OK;
}

void du_leaf_row_begin(du_leaf_row *row, const du_kern *kern, const du_sums *sums, float *grad,
                       int64_t D, float *work) {
    *row = (du_leaf_row){.kern = kern, .sums = sums, .grad = grad, .D = D, .work = work};
    row->next = sums->leaves.first;
    for (int64_t l = 0; l < DU_LEAF_LEVELS; l++) {
        bool waits = row->next >> l & 1;
        row->waiting[l] = waits ? node_of(sums, grad, l) : NULL;
    }
    for (int64_t i = 0; i < DU_LEAF_LEVELS + 2; i++) {
        row->unused[row->n_unused++] = work + i * D;
    }
}

float *du_leaf_row_take(du_leaf_row *row) {
    return row->unused[--row->n_unused];
}

/* The buffer that a sum stands in; NULL: a node of the caller's. */
static float *buffer_of(const du_leaf_row *row, const float *sum) {
    ptrdiff_t at = (uintptr_t)sum >= (uintptr_t)row->work ? sum - row->work : -1;
    return at >= 0 && at < (DU_LEAF_LEVELS + 2) * row->D ? row->work + at : NULL;
}

/* a + b, NULL standing for zeros; a sum never is -0, so that adding zeros changes no bit. */
static const float *combine(du_leaf_row *row, const float *a, const float *b) {
    if (!a || !b) {
        return a ? a : b;
    }
    float *to = buffer_of(row, a), *other = buffer_of(row, b);
    if (!to && !other) {
        to = du_leaf_row_take(row);
        memcpy(to, a, (size_t)row->D * sizeof *to);
    } else if (!to) {
        to = other;
        b = a;
        other = NULL;
    }
    row->kern->add(to, b, row->D);
    if (other) {
        row->unused[row->n_unused++] = other;
    }
    return to;
}

void du_leaf_row_push(du_leaf_row *row, const float *leaf) {
    int64_t l = 0;
    for (; row->next >> l & 1; l++) {
        leaf = combine(row, row->waiting[l], leaf);
        row->waiting[l] = NULL;
    }
    row->waiting[l] = leaf;
    row->next++;
}

static void put_row(float *to, const float *sum, int64_t D) {
    if (!sum) {
        memset(to, 0, (size_t)D * sizeof *to);
    } else if (to != sum) {
        memcpy(to, sum, (size_t)D * sizeof *to);
    }
}

void du_leaf_row_finish(du_leaf_row *row) {
    const float *sum = NULL;
    for (int64_t l = 0; l < DU_LEAF_LEVELS; l++) {
        if (row->sums->leaves.last) {
            sum = combine(row, row->waiting[l], sum);
        } else if (row->next >> l & 1) {
            put_row(node_of(row->sums, row->grad, l), row->waiting[l], row->D);
        }
    }
    if (!row->sums->leaves.last) {
        return;
    }
    if (row->sums->add && sum) {
        row->kern->add(row->grad, sum, row->D);
    } else if (!row->sums->add) {
        put_row(row->grad, sum, row->D);
    }
}

du_err du_sums_vector(du_ctx *ctx, const du_sums *sums, float *grad, const float *segments,
                      int64_t n_segments, int64_t D) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    float *work = DU_SCRATCH(ctx, float, (DU_LEAF_LEVELS + 2) * D);
    if (!work) {
        return DU_ENOMEM;
    }
    du_leaf_row row;
    du_leaf_row_begin(&row, ctx->kern, sums, grad, D, work);
    for (int64_t i = 0; i < sums->leaves.n; i++) {
        float *leaf = du_leaf_row_take(&row);
        memset(leaf, 0, (size_t)D * sizeof *leaf);
        for (int64_t s = 0; s < n_segments; s++) {
            ctx->kern->add(leaf, segments + (i * n_segments + s) * D, D);
        }
        du_leaf_row_push(&row, leaf);
    }
    du_leaf_row_finish(&row);
    du_arena_release(ctx->scratch, mark);
    return DU_OK;
}

typedef struct {
    const du_kern *kern;
    const float *dy;
    float *segments;
    int64_t ldy, n_rows, D;
} bias_job;

static void bias_segment(void *arg, int64_t i, int64_t i_thread) {
    (void)i_thread;
    const bias_job *job = arg;
    float *sum = job->segments + i * job->D;
    int64_t row0, row1;
    du_leaf_segment(i, job->n_rows, &row0, &row1);
    memset(sum, 0, (size_t)job->D * sizeof *sum);
    for (int64_t t = row0; t < row1; t++) {
        job->kern->add(sum, job->dy + t * job->ldy, job->D);
    }
}

du_err du_sums_bias(du_ctx *ctx, const du_sums *sums, float *grad, const float *dy, int64_t ldy,
                    int64_t T, int64_t D) {
    if (!grad) {
        return DU_OK;
    }
    int64_t n_rows = T / sums->leaves.n, n = du_leaf_segments(n_rows);
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    bias_job job = {ctx->kern, dy, NULL, ldy, n_rows, D};
    job.segments = DU_SCRATCH(ctx, float, sums->leaves.n *n *D);
    du_err err = job.segments ? DU_OK : DU_ENOMEM;
    if (err == DU_OK) {
        du_pool_run(ctx->pool, bias_segment, &job, sums->leaves.n * n);
        err = du_sums_vector(ctx, sums, grad, job.segments, n, D);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}
