/* Predicting one token further (DeepSeek-V3, arXiv 2412.19437, section 2.2, depth 1):
 *
 *     x = W [norm_e(embedding of the next token) | norm_h(h)],  a layer, a norm, the output matrix
 *
 * h is the trunk's normalised output, and the halves stand in this order, as published weights and
 * the programs that run them have it. Embedding and output matrix are the trunk's. */
#include <string.h>

#include "model/grad_int.h"
#include "nn/basic.h"

static int64_t index_of(const du_grad_run *r) {
    return r->pass.model->hp.n_layer;
}

/* The token behind each row's; a sequence's last row, which has no target, repeats its own. */
static int32_t *next_tokens(const du_grad_run *r) {
    int64_t T = r->pass.T, S = r->pass.rows->seq_len;
    int32_t *next = DU_SCRATCH(r->pass.ctx, int32_t, T);
    for (int64_t t = 0; next && t < T; t++) {
        next[t] = r->pass.rows->tokens[t % S == S - 1 ? t : t + 1];
    }
    return next;
}

static du_err next_fwd(const du_grad_run *r) {
    const du_hparams *hp = &r->pass.model->hp;
    const du_block *w = du_model_block(r->pass.model, index_of(r));
    du_grad *g = r->grad;
    du_ctx *ctx = r->pass.ctx;
    int64_t T = r->pass.T, D = hp->d_model;
    const int32_t *next = next_tokens(r);
    if (!next) {
        return DU_ENOMEM;
    }
    du_embed_fwd(ctx, g->next_embed, &r->pass.model->top.embed, next, T);
    du_rmsnorm_fwd(ctx, g->next_in, 2 * D, g->next_embed, D, w->nextn_embed_norm, T, D, hp->eps);
    du_rmsnorm_fwd(ctx, g->next_in + D, 2 * D, g->norm, D, w->nextn_hidden_norm, T, D, hp->eps);
    du_linear_out out = {g->layers[index_of(r)].x, D, &w->nextn_proj, NULL};
    du_err err = du_linear_train_fwd(ctx, &r->train, &out, 1, g->next_in, 2 * D, T);
    err = err ? err : du_grad_layer_fwd(r, index_of(r), g->next_x);
    du_grad_norm_fwd(r, g->next_norm, g->next_x, w->nextn_norm);
    return err;
}

/* From r->dx, the gradient of the layer's input: dmain += , dnext. */
static du_err in_bwd(const du_grad_run *r, float *dmain, float *dnext) {
    const du_hparams *hp = &r->pass.model->hp;
    const du_block *w = du_model_block(r->pass.model, index_of(r));
    du_grad *g = r->grad;
    du_ctx *ctx = r->pass.ctx;
    int64_t T = r->pass.T, D = hp->d_model;
    float *din = DU_SCRATCH(ctx, float, T * 2 * D);
    if (!din) {
        return DU_ENOMEM;
    }
    du_linear_grad out = {r->dx, D, &w->nextn_proj, NULL};
    du_err err =
        du_linear_train_bwd(ctx, &r->train, &out, 1, din, 2 * D, false, g->next_in, 2 * D, T);
    memset(dnext, 0, (size_t)(T * D) * sizeof *dnext);
    err = err ? err
              : du_rmsnorm_bwd(ctx, &r->train.sums, dnext, D, din, 2 * D, g->next_embed, D,
                               w->nextn_embed_norm, T, D, hp->eps);
    return err ? err
               : du_rmsnorm_bwd(ctx, &r->train.sums, dmain, D, din + D, 2 * D, g->norm, D,
                                w->nextn_hidden_norm, T, D, hp->eps);
}

du_err du_grad_nextn(const du_grad_run *r, float *dnext) {
    int64_t n = r->pass.T * r->pass.model->hp.d_model;
    const du_block *w = du_model_block(r->pass.model, index_of(r));
    du_arena_mark mark = du_arena_get_mark(r->pass.ctx->scratch);
    float *dmain = DU_SCRATCH(r->pass.ctx, float, n);
    du_err err = dmain ? DU_OK : DU_ENOMEM;
    if (err == DU_OK) {
        memcpy(dmain, r->dy, (size_t)n * sizeof *dmain);
        err = next_fwd(r);
    }
    err = err ? err : du_grad_out(r, r->grad->next_norm, r->pass.rows->next, 1);
    memset(r->dx, 0, (size_t)n * sizeof *r->dx);
    err = err ? err : du_grad_norm_bwd(r, r->grad->next_x, w->nextn_norm);
    err = err ? err : du_grad_layer_bwd(r, index_of(r));
    err = err ? err : in_bwd(r, dmain, dnext);
    if (err == DU_OK) {
        memcpy(r->dy, dmain, (size_t)n * sizeof *dmain);
    }
    du_arena_release(r->pass.ctx->scratch, mark);
    return err;
}

du_err du_grad_nextn_embed(const du_grad_run *r, const float *dnext) {
    const du_model *model = r->pass.model;
    const du_mat *embed = &model->top.embed;
    du_arena_mark mark = du_arena_get_mark(r->pass.ctx->scratch);
    float *grad = du_sums_grad(&r->train.sums, embed->data);
    int64_t n_values = embed->rows * embed->cols;
    du_leaves leaves = r->train.sums.leaves;
    du_sums sums =
        du_grad_term_sums(r->grad, DU_TERM_NEXT_EMBED, embed, grad, leaves, r->grad->next_nodes);
    const int32_t *next = next_tokens(r);
    du_err err = next ? DU_OK : DU_ENOMEM;
    if (err == DU_OK && grad && !leaves.last) {
        err = du_sums_take_nodes(r->grad->next_nodes, n_values, leaves.first + leaves.n);
    }
    if (err == DU_OK) {
        err = du_embed_bwd(r->pass.ctx, &sums, sums.grads, dnext, next, r->pass.T, embed->rows,
                           embed->cols);
    }
    du_arena_release(r->pass.ctx->scratch, mark);
    return err;
}
