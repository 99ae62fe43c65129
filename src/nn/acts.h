/* Rows of activations prepared for matrix products (kern/kern.h's du_acts). */
#ifndef DU_NN_ACTS_H
#define DU_NN_ACTS_H

#include "nn/ctx.h"

/* Describes x [T, cols], rows ldx apart, and, when for_blocks, makes in the scratch arena the forms
 * that products with block-quantised weights read (cols is then a multiple of 32): 8 bits, and bf16
 * where there may be strips, many rows are faster so and bits may depend on their number. Returns
 * DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_acts_make(du_ctx *ctx, du_acts *out, const float *x, int64_t ldx, int64_t T, int64_t cols,
                    bool for_blocks);

/* As with q8, and behind the T rows of the 8-bit form T more: what the rounding of each left, in 8
 * bits too. The sum of both has 15 bits. The f32 form has T rows as before. */
DU_NODISCARD
du_err du_acts_make_fine(du_ctx *ctx, du_acts *out, const float *x, int64_t ldx, int64_t T,
                         int64_t cols);

/* Rows [row0, row0 + n) of acts, sharing its storage. */
du_acts du_acts_slice(const du_acts *acts, int64_t row0, int64_t n);

#endif
