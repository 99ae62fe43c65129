/* What the products with block-quantised weights share at every level: 256 columns ("a super") of a
 * row and of a token, the last of which may be short of some groups of 32. */
#ifndef DU_KERN_CPU_SUPER_H
#define DU_KERN_CPU_SUPER_H

#include <string.h>

#include "kern/cpu/inline.h"
#include "kern/kern.h"

enum { SUPER_COPY_BYTES = 8 * 34 }; /* 256 columns in the largest block of 32, Q8_0 */

/* Bytes of 256 columns in blocks of 32 or 256. */
INLINE size_t super_bytes(int64_t block, size_t block_bytes) {
    return block == 256 ? block_bytes : 8 * block_bytes;
}

/* The end of the last row. */
INLINE const uint8_t *super_end(const du_mat *w, int64_t block, size_t block_bytes) {
    const uint8_t *last = du_mat_row(w, w->rows - 1);
    return last + (size_t)(w->cols / block) * block_bytes;
}

/* p, where 8 blocks of 32 columns may be read though only n_groups (1 .. 8) of them belong to the
 * row; where the matrix ends before, a copy of those with zeros behind them. */
INLINE const uint8_t *super_readable(uint8_t copy[SUPER_COPY_BYTES], const uint8_t *p,
                                     const uint8_t *end, size_t block_bytes, int64_t n_groups) {
    if (n_groups == 8 || (size_t)(end - p) >= 8 * block_bytes) {
        return p;
    }
    memset(copy, 0, SUPER_COPY_BYTES);
    memcpy(copy, p, (size_t)n_groups * block_bytes);
    return copy;
}

/* Where 256 columns of a token lie: q [256], d [8], sum [16] as in du_acts. */
typedef struct {
    const int8_t *q;
    const float *d;
    const int16_t *sum;
} super_token;

/* A whole token; its last, partial 256 columns stand in the copy with zeros behind them. It is not
 * moved: tail points into it. */
typedef struct {
    super_token start, tail;
    struct {
        int8_t q[256];
        float d[8];
        int16_t sum[16];
    } copy;
} tile_token;

INLINE super_token super_token_move(super_token t, int64_t c) {
    return (super_token){t.q + c, t.d + c / 32, t.sum + c / 16};
}

/* Row `row` of x. */
INLINE void tile_token_set(tile_token *t, const du_acts *x, int64_t row) {
    super_token first = {x->q, x->d, x->sum};
    t->start = super_token_move(first, row * x->cols);
    super_token tail = super_token_move(t->start, x->cols / 256 * 256);
    size_t n_groups = (size_t)(x->cols % 256 / 32);
    t->tail = (super_token){t->copy.q, t->copy.d, t->copy.sum};
    memset(&t->copy, 0, sizeof t->copy);
    memcpy(t->copy.q, tail.q, 32 * n_groups);
    memcpy(t->copy.d, tail.d, sizeof(float) * n_groups);
    memcpy(t->copy.sum, tail.sum, 2 * sizeof(int16_t) * n_groups);
}

/* The columns from c on, of which n_groups groups of 32 are there. */
INLINE super_token tile_token_at(const tile_token *t, int64_t c, int64_t n_groups) {
    return n_groups < 8 ? t->tail : super_token_move(t->start, c);
}

#endif
