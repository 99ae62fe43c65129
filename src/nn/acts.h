/* Rows of activations prepared for matrix products (kern/kern.h's du_acts). */
#ifndef DU_NN_ACTS_H
#define DU_NN_ACTS_H

#include "nn/ctx.h"

/* Describes x [T, cols], rows ldx apart, and, when with_q8, makes its 8-bit form in the scratch
 * arena (needed by block-quantised weights; cols is then a multiple of 32). Returns DU_OK,
 * DU_ENOMEM. */
DU_NODISCARD
du_err du_acts_make(du_ctx *ctx, du_acts *out, const float *x, int64_t ldx, int64_t T, int64_t cols,
                    bool with_q8);

/* As with q8, and behind the T rows of the 8-bit form T more: what the rounding of each left, in 8
 * bits too. The sum of both has 15 bits. The f32 form has T rows as before. */
DU_NODISCARD
du_err du_acts_make_fine(du_ctx *ctx, du_acts *out, const float *x, int64_t ldx, int64_t T,
                         int64_t cols);

/* Rows [row0, row0 + n) of acts, sharing its storage. */
du_acts du_acts_slice(const du_acts *acts, int64_t row0, int64_t n);

#endif
