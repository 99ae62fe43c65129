/* What all architectures share of the forward pass, and counts from the weight table. */
#include "model/model.h"
#include "nn/basic.h"
#include "nn/linear.h"

du_err du_model_forward(du_ctx *ctx, const du_model *model, const du_batch *batch) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    du_err err = model->arch->forward(ctx, model, batch);
    du_arena_release(ctx->scratch, mark);
    return err;
}

void du_model_embed(du_ctx *ctx, const du_model *model, const du_batch *batch, float *x) {
    du_embed_fwd(ctx, x, &model->top.embed, batch->tokens, batch->T);
    du_tap(ctx, "embed", -1, x, batch->T, model->hp.d_model);
}

du_err du_model_logits(du_ctx *ctx, const du_model *model, const du_batch *batch, const float *x) {
    const du_hparams *hp = &model->hp;
    int64_t D = hp->d_model, n = batch->n_out;
    if (n == 0) {
        return DU_OK;
    }
    float *rows = DU_SCRATCH(ctx, float, n *D);
    if (!rows) {
        return DU_ENOMEM;
    }
    for (int64_t i = 0; i < n; i++) {
        memcpy(rows + i * D, x + batch->out_rows[i] * D, (size_t)D * sizeof *rows);
    }
    du_rmsnorm_fwd(ctx, rows, D, rows, D, model->top.norm, n, D, hp->eps);
    du_tap(ctx, "output_norm", -1, rows, n, D);
    du_linear_out out = {batch->logits, hp->n_vocab, &model->top.output, NULL};
    return du_linear_fine_fwd(ctx, &out, 1, rows, D, n);
}

/* Bytes and weights of one entry in one layer; what one token uses of it. */
static void count_entry(const du_model *model, const du_weight_def *def, int64_t layer,
                        du_model_counts *sum) {
    const du_hparams *hp = &model->hp;
    const void *field = du_model_field(model, def, layer);
    int64_t n = du_weight_def_n(def, hp);
    int64_t used = def->kind == DU_WEIGHT_EXPERTS ? hp->router.n_used : n;
    du_mat m = {0};
    if (def->kind == DU_WEIGHT_VEC) {
        m = (du_mat){.data = *(const float *const *)field,
                     .rows = du_dim_value(hp, def->rows),
                     .cols = 1,
                     .row_bytes = sizeof(float)};
    } else if (def->kind == DU_WEIGHT_MAT) {
        m = *(const du_mat *)field;
    } else if (*(du_mat *const *)field) {
        m = (*(du_mat *const *)field)[0];
    }
    if (!m.data) {
        return;
    }
    int64_t params = m.rows * m.cols, bytes = m.rows * (int64_t)m.row_bytes;
    bool lookup = def->role == DU_ROLE_EMBED && !hp->tied;
    sum->n_params += n * params;
    sum->bytes += n * bytes;
    sum->n_params_active += lookup ? m.cols : used * params;
    sum->bytes_per_token += lookup ? (int64_t)m.row_bytes : used * bytes;
    sum->expert_bytes_per_token += def->kind == DU_WEIGHT_EXPERTS ? used * bytes : 0;
    sum->macs_per_token += lookup || def->kind == DU_WEIGHT_VEC ? 0 : used * params;
    bool output = def->role == DU_ROLE_OUTPUT || (def->role == DU_ROLE_EMBED && hp->tied);
    sum->output_macs += output ? params : 0;
}

du_model_counts du_model_count(const du_model *model) {
    du_model_counts sum = {0};
    for (int64_t i = 0; i < model->arch->n_weights; i++) {
        const du_weight_def *def = &model->arch->weights[i];
        if (def->read_only || (def->role == DU_ROLE_OUTPUT && model->hp.tied)) {
            continue; /* counted in the form that is used, and as the embedding */
        }
        for (int64_t layer = 0; layer < (def->in_layer ? model->hp.n_layer : 1); layer++) {
            if (du_weight_def_in(def, &model->hp, layer)) {
                count_entry(model, def, layer, &sum);
            }
        }
    }
    return sum;
}
