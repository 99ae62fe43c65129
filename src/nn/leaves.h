/* The leaves of a step of training: the sequences whose gradients a step sums, numbered over ranks,
 * micro-batches and rows of a micro-batch. Whatever is summed over leaves is summed in one tree,
 *
 *     node(0, i) = leaf i        node(l, i) = node(l-1, 2i) + node(l-1, 2i+1)
 *
 * the left node alone where no leaf is in the right one, so that the bits do not depend on how the
 * leaves are spread over calls (docs/design/training.md). */
#ifndef DU_NN_LEAVES_H
#define DU_NN_LEAVES_H

#include <stdbool.h>
#include <stdint.h>

/* The leaves of a call: consecutive ones, [first, first + n). Between calls the nodes that wait for
 * their right neighbour, one of level l where bit l of the number of leaves so far is set, stand in
 * the caller's buffer of level l. */
typedef struct {
    int64_t first, n;
    bool last; /* the step's last: what waits is summed */
} du_leaves;

#endif
