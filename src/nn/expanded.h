/* Latent attention with its keys and values expanded, for rows that are many enough to share
 * them. */
#ifndef DU_NN_EXPANDED_H
#define DU_NN_EXPANDED_H

#include "nn/latent.h"

/* As du_latent_fwd, all rows of one sequence at consecutive positions. A row's bits depend on the
 * number of heads, its own query, position and cache, and on the last row's position. Returns
 * DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_expanded_fwd(du_ctx *ctx, float *out, const float *q, const du_latent_weights *w,
                       const du_kv_layout *kv, int64_t layer, const du_attn_rows *rows,
                       const du_attn_params *params);

#endif
