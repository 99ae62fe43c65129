/* One product with a weight matrix in whichever layout it has: as it lies in the file, or in strips
 * (kern/strips.h), which the first product writes, each task the rows it is about to use. Where
 * the bits would not be the same, callers who want them to be always get rows. */
#ifndef DU_NN_PRODUCT_H
#define DU_NN_PRODUCT_H

#include "kern/kern.h"
#include "nn/ctx.h"

typedef struct {
    const du_mat *w;
    du_mm_fn *mm;
    /* Not NULL: this product writes the strips, and gives up what was stored as it goes. */
    void (*write)(const du_mat *w, int64_t row0, int64_t row1);
    const du_ctx *ctx; /* borrowed until the end */
} du_product;

/* Before a parallel region whose tasks cover every row of w; rows are cut at multiples of 16. */
du_product du_product_begin(du_ctx *ctx, const du_mat *w);

/* As du_mm_fn, for rows [row0, row1); from any task of the region. */
void du_product_run(const du_product *p, float *y, int64_t ldy, int64_t row0, int64_t row1,
                    const du_acts *x, const int32_t *i_row, int64_t n_rows);

/* After the region. */
void du_product_end(const du_product *p);

#endif
