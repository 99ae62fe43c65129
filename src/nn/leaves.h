/* Gradients of weights, summed over the leaves of a step of training: the sequences whose gradients
 * it sums, numbered over ranks, micro-batches and rows of a micro-batch. Whatever is summed over
 * leaves is summed in one tree,
 *
 *     node(0, i) = leaf i        node(l, i) = node(l-1, 2i) + node(l-1, 2i+1)
 *
 * the left node alone where no leaf is in the right one, so that the bits do not depend on how the
 * leaves are spread over calls (docs/design/training.md). A leaf's own sum has its rows in
 * ascending order, vectors' in segments of DU_LEAF_ROWS. */
#ifndef DU_NN_LEAVES_H
#define DU_NN_LEAVES_H

#include "nn/ctx.h"

/* The leaves of a call: consecutive ones, [first, first + n). Between calls the nodes that wait for
 * their right neighbour, one of level l where bit l of the number of leaves so far is set, stand in
 * the caller's buffer of level l. */
typedef struct {
    int64_t first, n;
    bool last; /* the step's last: what waits is summed */
} du_leaves;

enum { DU_LEAF_LEVELS = 48, DU_LEAF_ROWS = 64 };

/* A number of each leaf, ascending, summed in the tree. Start from {0}. */
typedef struct {
    double waiting[DU_LEAF_LEVELS];
    uint64_t n; /* leaves so far */
} du_leaf_sum;

void du_leaf_sum_add(du_leaf_sum *sum, double v);
double du_leaf_sum_get(const du_leaf_sum *sum); /* of the leaves so far; 0 of none */

/* Where the gradients of weights go: the block of all weights, one of gradients, and one per level
 * for what waits, all of one layout. A weight outside the block is frozen. */
typedef struct {
    du_leaves leaves;
    const float *values; /* [n_values] */
    float *grads;        /* [n_values], written when the leaves are the last */
    int64_t n_values;
    float *const *nodes; /* [DU_LEAF_LEVELS] of [n_values]; NULL where no node ever waits */
    bool add;            /* the sums are added to what grads hold, behind everything else */
} du_sums;

/* Where the gradient of a weight goes; NULL: frozen, or there is none. */
float *du_sums_grad(const du_sums *sums, const void *weight);

/* The places of that gradient in the levels, for du_gemm_grad. nodes [DU_LEAF_LEVELS] out. */
void du_sums_nodes(const du_sums *sums, const float *grad, float **nodes);

/* Buffers of n_values, by du_mem_reserve, for the nodes that wait after the first n leaves, where
 * nodes [DU_LEAF_LEVELS] has none yet. Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_sums_take_nodes(float **nodes, int64_t n_values, int64_t n_leaves);

/* One row of a gradient, [D] f32, leaf after leaf. begin takes work of
 * (DU_LEAF_LEVELS + 2) * D values. push takes the next leaf's sum: a buffer of du_leaf_row_take, or
 * NULL for zeros. finish writes the gradient, or what waits. */
typedef struct {
    const du_kern *kern;
    const du_sums *sums;
    float *grad;
    int64_t D, next; /* leaf */
    const float *waiting[DU_LEAF_LEVELS];
    float *work, *unused[DU_LEAF_LEVELS + 2];
    int64_t n_unused;
} du_leaf_row;

void du_leaf_row_begin(du_leaf_row *row, const du_kern *kern, const du_sums *sums, float *grad,
                       int64_t D, float *work);
float *du_leaf_row_take(du_leaf_row *row);
void du_leaf_row_push(du_leaf_row *row, const float *leaf);
void du_leaf_row_finish(du_leaf_row *row);

/* A vector's gradient from the sums over segments of DU_LEAF_ROWS rows of each leaf, the last one
 * shorter: segments [leaves.n, n_segments, D]. Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_sums_vector(du_ctx *ctx, const du_sums *sums, float *grad, const float *segments,
                      int64_t n_segments, int64_t D);

/* The gradient of a bias: of rows dy [T, D], ldy apart, T / leaves.n of each leaf; grad NULL:
 * nothing is done. Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_sums_bias(du_ctx *ctx, const du_sums *sums, float *grad, const float *dy, int64_t ldy,
                    int64_t T, int64_t D);

/* Segments of a leaf of so many rows. */
static inline int64_t du_leaf_segments(int64_t n_rows) {
    return (n_rows + DU_LEAF_ROWS - 1) / DU_LEAF_ROWS;
}

/* Rows [row0, row1) of segment i, numbered over the leaves of n_rows rows each. */
static inline void du_leaf_segment(int64_t i, int64_t n_rows, int64_t *row0, int64_t *row1) {
    int64_t n = du_leaf_segments(n_rows), leaf = i / n, end = (leaf + 1) * n_rows;
    *row0 = leaf * n_rows + i % n * DU_LEAF_ROWS;
    *row1 = *row0 + DU_LEAF_ROWS < end ? *row0 + DU_LEAF_ROWS : end;
}

#endif
