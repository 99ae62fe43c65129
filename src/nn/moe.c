#include "nn/moe.h"

#include "nn/linear.h"

du_err du_moe_fwd(du_ctx *ctx, float *y, const float *x, const du_mat *gate, const float *bias,
                  const du_router *router, const du_expert_source *src, const du_expert *shared,
                  int64_t layer, int64_t T, int64_t F) {
    int64_t D = gate->cols, E = router->n_expert, K = router->n_used;
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    float *logits = DU_SCRATCH(ctx, float, T *E);
    float *weights = DU_SCRATCH(ctx, float, T *K);
    int32_t *ids = DU_SCRATCH(ctx, int32_t, T * K);
    du_err err = logits && weights && ids ? DU_OK : DU_ENOMEM;
    if (err == DU_OK) {
        err = du_linear_fwd(ctx, &(du_linear_out){logits, E, gate, NULL}, 1, x, D, T);
    }
    if (err == DU_OK) {
        du_tap(ctx, "router_logits", layer, logits, T, E);
        du_router_fwd(ctx, ids, weights, logits, bias, router, T);
        err = du_experts_fwd(ctx, y, x, ids, weights, src, shared, layer, E, K, T, D, F);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}
