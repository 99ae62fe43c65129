/* The routed experts of one layer, computed for the tokens that chose them. */
#ifndef DU_NN_EXPERTS_H
#define DU_NN_EXPERTS_H

#include "nn/ctx.h"
#include "tensor/mat.h"

/* One expert's feed-forward: gate, up [F,D], down [D,F]. */
typedef struct {
    du_mat gate, up, down;
} du_expert;

/* Where a layer's experts come from. The layer never assumes that weights are resident:
 *   prefetch  hint that these n experts will be acquired soon
 *   acquire   makes expert e readable until its release; DU_OK or an error of the source
 *   release   the expert is not read any more
 * prefetch and release may be NULL. Called from the layer's own thread only. */
typedef struct du_expert_source du_expert_source;
struct du_expert_source {
    void (*prefetch)(const du_expert_source *src, int64_t layer, const int32_t *experts, int64_t n);
    du_err (*acquire)(const du_expert_source *src, int64_t layer, int32_t expert, du_expert *out);
    void (*release)(const du_expert_source *src, int64_t layer, int32_t expert);
    void *user;
};

/* y[t] = sum_k weights[t,k] * down_e (silu(gate_e x[t]) * up_e x[t]), e = ids[t,k], k ascending,
 *        + down_s (silu(gate_s x[t]) * up_s x[t]) of the shared experts s, if there are any
 * y [T,D] f32 out; x [T,D] f32; ids, weights [T,K]; shared NULL: none
 * Every (token, expert) pair is computed by itself, so that a token's result does not depend on its
 * neighbours. Returns DU_OK, DU_ENOMEM (scratch), or the source's error. */
DU_NODISCARD
du_err du_experts_fwd(du_ctx *ctx, float *y, const float *x, const int32_t *ids,
                      const float *weights, const du_expert_source *src, const du_expert *shared,
                      int64_t layer, int64_t n_expert, int64_t K, int64_t T, int64_t D, int64_t F);

#endif
