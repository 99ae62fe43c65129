/* A weight matrix of any number type, as it lies in the mapped file.
 *
 *   data  row 0 | row 1 | ...      each row_bytes long, cols weights of dtype
 *   aux   F8_E4M3 only: one f32 scale per 128 x 128 tile, [ceil(rows/128), aux_cols]
 *
 * y = W x takes a vector of `cols` values to one of `rows`. */
#ifndef DU_TENSOR_MAT_H
#define DU_TENSOR_MAT_H

#include <stdint.h>

#include "tensor/dtype.h"

#define DU_F8_TILE 128 /* DeepSeek-V3's quantization_config.weight_block_size */

/* The same weights in the layout that products like best (kern/strips.h), written by the first
 * product with them (nn/product.h). */
typedef enum { DU_STRIPS_EMPTY, DU_STRIPS_WRITING, DU_STRIPS_READY } du_strips_state;
typedef struct {
    uint8_t *data; /* NULL: no room was given, the weights are used as they lie */
    _Atomic int state;
} du_strips;

/* A low-rank change of a frozen matrix [N,K]: W + scale B A (Hu et al. 2021, arXiv 2106.09685). */
typedef struct {
    const float *a, *b; /* [rank,K], [N,rank] */
    int64_t rank;
    float scale;
    /* The sum in fewer bits, which products of training use instead of W and the adapter; borrowed.
     * NULL: none */
    const struct du_mat *sum;
} du_adapter;

typedef struct du_mat {
    const void *data; /* NULL: the matrix is absent */
    du_dtype dtype;
    int64_t rows, cols;
    size_t row_bytes;
    const float *aux;
    int64_t aux_cols;
    int64_t aux_row0;          /* row of the tensor that row 0 is, for views into an F8 tensor */
    du_strips *strips;         /* NULL: always used as it lies */
    const du_adapter *adapter; /* NULL: none; training and conversion heed it, inference does not */
} du_mat;

static inline const void *du_mat_row(const du_mat *m, int64_t row) {
    return (const char *)m->data + (size_t)row * m->row_bytes;
}

/* Rows [row0, row0 + rows) of m, sharing its storage. */
static inline du_mat du_mat_slice(const du_mat *m, int64_t row0, int64_t rows) {
    du_mat s = *m;
    s.data = du_mat_row(m, row0);
    s.rows = rows;
    s.aux_row0 = m->aux_row0 + row0;
    s.strips = NULL;
    s.adapter = NULL;
    return s;
}

/* One row as f32, without the adapter. y [cols] out */
void du_mat_unpack_row(float *y, const du_mat *m, int64_t row);

/* y [cols] += the adapter's part of a row; nothing where there is none. */
void du_mat_adapt_row(float *y, const du_mat *m, int64_t row);

/* Whole rows of tiles as F8_E4M3: x [rows, cols] and scale [ceil(rows/128), ceil(cols/128)] out,
 * the largest weight of a tile at 448  <-  y [rows, cols] f32. rows is a multiple of 128 or ends
 * the matrix. */
void du_mat_pack_f8(uint8_t *x, float *scale, const float *y, int64_t rows, int64_t cols);

#endif
