/* One layer in training. */
#include "model/grad_int.h"
#include "nn/basic.h"

du_attn_train du_grad_attention(const du_grad_pass *p, int64_t H, int64_t G, int64_t dk,
                                int64_t dv) {
    return (du_attn_train){.n_seq = p->rows->n_seq,
                           .seq_len = p->rows->seq_len,
                           .H = H,
                           .G = G,
                           .dk = dk,
                           .dv = dv,
                           .q = {H * dk, dk},
                           .k = {G * dk, dk},
                           .v = {G * dv, dv},
                           .out = {H * dv, dv},
                           .first = p->rows->first,
                           .scale = p->model->attn_scale};
}

static du_moe_weights moe_of(const du_grad_run *r, const du_block *w) {
    return (du_moe_weights){.router = &w->router,
                            .bias = w->router_bias,
                            .gate = w->expert_gate,
                            .up = w->expert_up,
                            .down = w->expert_down,
                            .rule = &r->pass.model->hp.router,
                            .spread = r->grad->how.spread ? &r->spread : NULL};
}

void du_grad_norm_fwd(const du_grad_run *r, float *y, const float *x, const float *w) {
    const du_hparams *hp = &r->pass.model->hp;
    int64_t D = hp->d_model;
    du_rmsnorm_fwd(r->pass.ctx, y, D, x, D, w, r->pass.T, D, hp->eps);
}

du_err du_grad_norm_bwd(const du_grad_run *r, const float *x, const float *w) {
    const du_hparams *hp = &r->pass.model->hp;
    int64_t D = hp->d_model;
    return du_rmsnorm_bwd(r->pass.ctx, &r->train.sums, r->dx, D, r->dy, D, x, D, w, r->pass.T, D,
                          hp->eps);
}

/* r->dy = feed-forward of the layer's norm2 */
static du_err ffn_fwd(const du_grad_run *r, int64_t i) {
    const du_block *w = du_model_block(r->pass.model, i);
    const du_grad_layer *k = &r->grad->layers[i];
    du_ctx *ctx = r->pass.ctx;
    int64_t T = r->pass.T, D = r->pass.model->hp.d_model;
    if (!du_hparams_has_experts(&r->pass.model->hp, i)) {
        du_ffn_weights ffn = {&w->ffn_gate, &w->ffn_up, &w->ffn_down};
        return du_ffn_train_fwd(ctx, &r->train, r->dy, k->norm2, &ffn, &k->ffn, T);
    }
    du_moe_weights moe = moe_of(r, w);
    du_err err = du_moe_train_fwd(ctx, &r->train, r->dy, k->norm2, &moe, &k->moe, T);
    if (err != DU_OK || !w->shared_gate.data) {
        return err;
    }
    du_ffn_weights shared = {&w->shared_gate, &w->shared_up, &w->shared_down};
    err = du_ffn_train_fwd(ctx, &r->train, r->dx, k->norm2, &shared, &k->ffn, T);
    du_add_fwd(ctx, r->dy, r->dx, T, D);
    return err;
}

du_err du_grad_layer_fwd(const du_grad_run *r, int64_t i, float *out) {
    const du_block *w = du_model_block(r->pass.model, i);
    const du_grad_layer *k = &r->grad->layers[i];
    int64_t T = r->pass.T, D = r->pass.model->hp.d_model;
    du_grad_norm_fwd(r, k->norm1, k->x, w->attn_norm);
    du_err err = r->pass.model->arch->train->fwd(&r->pass, i, r->dy, k->norm1, k->attn);
    if (err != DU_OK) {
        return err;
    }
    du_sum_fwd(r->pass.ctx, k->mid, k->x, r->dy, T, D);
    du_grad_norm_fwd(r, k->norm2, k->mid, w->ffn_norm);
    err = ffn_fwd(r, i);
    if (err == DU_OK && out) {
        du_sum_fwd(r->pass.ctx, out, k->mid, r->dy, T, D);
    }
    return err;
}

/* r->dy = d(loss)/d(norm2) from r->dx */
static du_err ffn_bwd(const du_grad_run *r, int64_t i) {
    const du_block *w = du_model_block(r->pass.model, i);
    const du_grad_layer *k = &r->grad->layers[i];
    du_ctx *ctx = r->pass.ctx;
    int64_t T = r->pass.T, n_seq = r->pass.rows->n_seq;
    if (!du_hparams_has_experts(&r->pass.model->hp, i)) {
        du_ffn_weights ffn = {&w->ffn_gate, &w->ffn_up, &w->ffn_down};
        return du_ffn_train_bwd(ctx, &r->train, r->dy, false, r->dx, k->norm2, &ffn, &k->ffn, T);
    }
    double share = 1 / (double)r->grad->how.n_leaves;
    du_router_balance balance = {n_seq, r->pass.rows->seq_len, r->grad->how.seq_balance * share,
                                 NULL};
    balance.losses = DU_SCRATCH(ctx, double, n_seq);
    du_moe_weights moe = moe_of(r, w);
    du_err err = balance.losses ? du_moe_train_bwd(ctx, &r->train, r->dy, r->dx, k->norm2, &moe,
                                                   &k->moe, &balance, T)
                                : DU_ENOMEM;
    for (int64_t s = 0; err == DU_OK && balance.balance > 0 && s < n_seq; s++) {
        r->grad->balances[r->i_leaf + s] += balance.balance * balance.losses[s];
    }
    if (err != DU_OK || !w->shared_gate.data) {
        return err;
    }
    du_ffn_weights shared = {&w->shared_gate, &w->shared_up, &w->shared_down};
    return du_ffn_train_bwd(ctx, &r->train, r->dy, true, r->dx, k->norm2, &shared, &k->ffn, T);
}

static void count_experts(const du_grad_run *r, int64_t i) {
    const du_hparams *hp = &r->pass.model->hp;
    int64_t E = hp->router.n_expert;
    const int64_t *first = r->grad->layers[i].moe.first;
    for (int64_t e = 0; du_hparams_has_experts(hp, i) && e < E; e++) {
        r->grad->counts[i * E + e] += first[e + 1] - first[e];
    }
}

du_err du_grad_layer_bwd(const du_grad_run *r, int64_t i) {
    const du_block *w = du_model_block(r->pass.model, i);
    const du_grad_layer *k = &r->grad->layers[i];
    du_arena_mark mark = du_arena_get_mark(r->pass.ctx->scratch);
    if (r->grad->how.keep == DU_KEEP_SOME) {
        du_grad_norm_fwd(r, k->norm2, k->mid, w->ffn_norm);
    }
    count_experts(r, i);
    du_err err = ffn_bwd(r, i);
    err = err ? err : du_grad_norm_bwd(r, k->mid, w->ffn_norm);
    if (err == DU_OK && r->grad->how.keep == DU_KEEP_SOME) {
        du_grad_norm_fwd(r, k->norm1, k->x, w->attn_norm);
    }
    if (err == DU_OK) {
        err = r->pass.model->arch->train->bwd(&r->pass, i, r->dy, r->dx, k->norm1, k->attn);
    }
    err = err ? err : du_grad_norm_bwd(r, k->x, w->attn_norm);
    du_arena_release(r->pass.ctx->scratch, mark);
    return err;
}

du_err du_grad_layer_serve(const du_grad_run *r, int64_t i, bool backward) {
    const du_block *w = du_model_block(r->pass.model, i);
    const du_grad_layer *k = &r->grad->layers[i];
    if (!du_hparams_has_experts(&r->pass.model->hp, i)) {
        return DU_OK;
    }
    du_moe_weights moe = moe_of(r, w);
    du_router_balance none = {0};
    return backward ? du_moe_train_bwd(r->pass.ctx, &r->train, r->dy, r->dx, r->dx, &moe, &k->moe,
                                       &none, 0)
                    : du_moe_train_fwd(r->pass.ctx, &r->train, r->dy, r->dx, &moe, &k->moe, 0);
}
