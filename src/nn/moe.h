/* A layer of routed experts: the router's choice and the experts it chose. */
#ifndef DU_NN_MOE_H
#define DU_NN_MOE_H

#include "nn/experts.h"
#include "nn/router.h"

/* y = experts(x, choice(gate x)) + shared(x)       (du_router_fwd, du_experts_fwd)
 * y [T,D] f32 out; x [T,D] f32; gate [E,D]; bias [E] f32 or NULL; shared NULL: none; F width of an
 * expert
 * Returns DU_OK, DU_ENOMEM (scratch), or the source's error. */
DU_NODISCARD
du_err du_moe_fwd(du_ctx *ctx, float *y, const float *x, const du_mat *gate, const float *bias,
                  const du_router *router, const du_expert_source *src, const du_expert *shared,
                  int64_t layer, int64_t T, int64_t F);

#endif
