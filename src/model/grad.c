/* The training pass of every architecture:
 *
 *     x = embedding
 *     each layer:  mid = x + attention(norm(x)),  x' = mid + ffn(norm(mid))
 *     a few hundred rows at a time: logits, objective, gradients of the output matrix
 *     the layers backward, then the embedding
 *
 * What a layer keeps lies in an arena that stays for the next micro-batch. */
#include "model/grad.h"

#include <string.h>

#include "model/grad_int.h"
#include "nn/basic.h"

enum { ARENA_CHUNK = 64 << 20 };

static int64_t n_experts(const du_grad *g) {
    return g->params->model->hp.router.n_expert;
}

static int64_t out_values(const du_grad *g) {
    const du_mat *w = &g->params->model->top.output;
    return w->rows * w->cols;
}

static bool take_terms(du_grad *g) {
    const du_model *model = g->params->model;
    bool next = g->params->n_nextn > 0;
    const bool wanted[DU_GRAD_TERMS_MAX] = {next, model->hp.tied, next};
    bool good = true;
    for (int i = 0; i < DU_GRAD_TERMS_MAX && g->how.apart && !g->params->adapters; i++) {
        if (wanted[i]) {
            g->terms[i] = du_mem_reserve((size_t)out_values(g) * sizeof(float));
            good = good && g->terms[i];
        }
    }
    return good;
}

/* key: of config.json */
static du_err check_head(const char *key, int64_t n_values, du_diag *diag) {
    return n_values <= DU_ATTN_TRAIN_DIM_MAX
               ? DU_OK
               : du_fail(diag, DU_EUNSUPPORTED,
                         "%s = %lld: training takes heads of at most %d values", key,
                         (long long)n_values, DU_ATTN_TRAIN_DIM_MAX);
}

du_err du_grad_check(const du_params *params, du_diag *diag) {
    const du_model *model = params->model;
    const du_hparams *hp = &model->hp;
    bool latent = hp->kv_rank > 0;
    if (!model->arch->train) {
        return du_fail(diag, DU_EUNSUPPORTED, "%s: no training of this architecture",
                       model->arch->name);
    }
    if (params->n_nextn > 1) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "num_nextn_predict_layers is %lld: one such layer can be trained",
                       (long long)hp->n_nextn);
    }
    du_err err =
        check_head(latent ? "qk_nope_head_dim + qk_rope_head_dim" : "head_dim", hp->k_dim, diag);
    return err ? err : check_head(latent ? "v_head_dim" : "head_dim", hp->v_dim, diag);
}

du_err du_grad_new(du_grad **out, const du_params *params, const du_grad_params *how,
                   du_diag *diag) {
    const du_model *model = params->model;
    du_err err = du_grad_check(params, diag);
    if (err != DU_OK) {
        return err;
    }
    du_grad *g = du_alloc_zero(1, sizeof *g);
    if (!g) {
        return du_fail_nomem(diag, "the gradients");
    }
    g->params = params;
    g->how = *how;
    g->values = du_mem_reserve((size_t)params->n_values * sizeof(float));
    g->n_layers = model->hp.n_layer + params->n_nextn;
    g->counts = du_alloc_zero((size_t)(g->n_layers * n_experts(g)), sizeof *g->counts);
    g->layers = du_alloc_zero((size_t)g->n_layers, sizeof *g->layers);
    g->rooms = du_alloc_zero((size_t)g->n_layers, sizeof *g->rooms);
    g->balances = du_alloc_zero((size_t)how->n_leaves + 1, sizeof *g->balances);
    if (!g->values || !g->counts || !g->layers || !g->rooms || !g->balances || !take_terms(g)) {
        du_grad_free(g);
        return du_fail_nomem(diag, "the gradients");
    }
    *out = g;
    return DU_OK;
}

void du_grad_free(du_grad *g) {
    if (!g) {
        return;
    }
    for (int64_t l = 0; l < DU_LEAF_LEVELS; l++) {
        du_mem_unreserve(g->nodes[l], (size_t)g->params->n_values * sizeof(float));
        du_mem_unreserve(g->out_nodes[0][l], (size_t)out_values(g) * sizeof(float));
        du_mem_unreserve(g->out_nodes[1][l], (size_t)out_values(g) * sizeof(float));
        du_mem_unreserve(g->next_nodes[l], (size_t)out_values(g) * sizeof(float));
    }
    for (int i = 0; i < DU_GRAD_TERMS_MAX; i++) {
        du_mem_unreserve(g->terms[i], (size_t)out_values(g) * sizeof(float));
    }
    du_mem_unreserve(g->values, (size_t)g->params->n_values * sizeof(float));
    for (int64_t i = 0; g->rooms && i < g->n_layers; i++) {
        du_moe_room_done(&g->rooms[i]);
    }
    du_free(g->rooms);
    du_arena_free(g->arena);
    du_free(g->counts);
    du_free(g->balances);
    du_free(g->layers);
    du_free(g);
}

static bool take_ffn(du_arena *a, du_ffn_kept *kept, int64_t T, int64_t F, bool all) {
    *kept = (du_ffn_kept){DU_KEEP(a, float, T *F), DU_KEEP(a, float, T *F),
                          all ? DU_KEEP(a, float, T *F) : NULL};
    return kept->gate && kept->up && (!all || kept->hidden);
}

/* room  NULL: all experts are here */
static bool take_moe(du_arena *a, du_moe_kept *kept, const du_hparams *hp, int64_t T, bool all,
                     du_moe_room *room) {
    int64_t E = hp->router.n_expert, K = hp->router.n_used, F = hp->d_ff_expert;
    *kept = (du_moe_kept){.scores = DU_KEEP(a, float, T *E),
                          .weights = DU_KEEP(a, float, T *K),
                          .ids = DU_KEEP(a, int32_t, T * K),
                          .slot_of = DU_KEEP(a, int32_t, T * K),
                          .i_token = DU_KEEP(a, int32_t, T * K),
                          .first = DU_KEEP(a, int64_t, E + 1),
                          .gate = room ? NULL : DU_KEEP(a, float, T *K *F),
                          .up = room ? NULL : DU_KEEP(a, float, T *K *F),
                          .hidden = all && !room ? DU_KEEP(a, float, T *K *F) : NULL,
                          .room = room,
                          .keeps_hidden = all};
    bool good =
        kept->scores && kept->weights && kept->ids && kept->slot_of && kept->i_token && kept->first;
    return good && (room || (kept->gate && kept->up && (!all || kept->hidden)));
}

/* What layer i keeps beside its input; norms may be shared by layers. */
static bool take_layer(du_grad *g, int64_t i, int64_t T, float *norm1, float *norm2) {
    const du_hparams *hp = &g->params->model->hp;
    bool all = g->how.keep == DU_KEEP_ALL;
    du_grad_layer *k = &g->layers[i];
    int64_t D = hp->d_model;
    k->norm1 = norm1 ? norm1 : DU_KEEP(g->arena, float, T *D);
    k->norm2 = norm2 ? norm2 : DU_KEEP(g->arena, float, T *D);
    k->mid = DU_KEEP(g->arena, float, T *D);
    k->attn = g->params->model->arch->train->take(g->arena, hp, T, all);
    bool good = k->norm1 && k->norm2 && k->mid && k->attn;
    if (!du_hparams_has_experts(hp, i)) {
        return good && take_ffn(g->arena, &k->ffn, T, hp->d_ff, all);
    }
    int64_t FS = hp->n_shared_expert * hp->d_ff_expert;
    du_moe_room *room = g->how.spread ? &g->rooms[i] : NULL;
    return good && take_moe(g->arena, &k->moe, hp, T, all, room) &&
           (FS == 0 || take_ffn(g->arena, &k->ffn, T, FS, all));
}

/* Layers of one kind share what they keep when only inputs are. */
static const du_grad_layer *same_kind_before(const du_grad *g, int64_t i) {
    const du_hparams *hp = &g->params->model->hp;
    bool same = i > 0 && du_hparams_has_experts(hp, i) == du_hparams_has_experts(hp, i - 1);
    return same ? &g->layers[i - 1] : NULL;
}

static bool take_next(du_grad *g, int64_t T) {
    int64_t D = g->params->model->hp.d_model;
    g->next_embed = DU_KEEP(g->arena, float, T *D);
    g->next_in = DU_KEEP(g->arena, float, T * 2 * D);
    g->next_x = DU_KEEP(g->arena, float, T *D);
    g->next_norm = DU_KEEP(g->arena, float, T *D);
    return g->next_embed && g->next_in && g->next_x && g->next_norm;
}

bool du_grad_take_kept(du_grad *g, int64_t T) {
    const du_hparams *hp = &g->params->model->hp;
    int64_t D = hp->d_model;
    bool shared = g->how.keep != DU_KEEP_ALL;
    g->x = DU_KEEP(g->arena, float, T *D);
    g->norm = DU_KEEP(g->arena, float, T *D);
    float *norm1 = shared ? DU_KEEP(g->arena, float, T *D) : NULL;
    float *norm2 = shared ? DU_KEEP(g->arena, float, T *D) : NULL;
    bool good = g->x && g->norm && (!shared || (norm1 && norm2));
    for (int64_t i = 0; good && i < g->n_layers; i++) {
        const du_grad_layer *before = same_kind_before(g, i);
        if (g->how.keep == DU_KEEP_INPUTS && before) {
            g->layers[i] = *before;
        } else {
            good = take_layer(g, i, T, norm1, norm2);
        }
        g->layers[i].x = DU_KEEP(g->arena, float, T *D);
        good = good && g->layers[i].x;
    }
    return good && (g->n_layers == hp->n_layer || take_next(g, T));
}

static du_err take_kept(du_grad *g, int64_t T) {
    if (T <= g->T) {
        return DU_OK;
    }
    du_arena_free(g->arena);
    g->T = 0;
    g->arena = du_arena_new(ARENA_CHUNK);
    bool good = g->arena && du_grad_take_kept(g, T);
    g->T = good ? T : 0;
    return good ? DU_OK : DU_ENOMEM;
}

static float *layer_out(const du_grad_run *r, int64_t i) {
    return i + 1 < r->pass.model->hp.n_layer ? r->grad->layers[i + 1].x : r->grad->x;
}

static du_err layers_fwd(const du_grad_run *r) {
    const du_model *model = r->pass.model;
    du_embed_fwd(r->pass.ctx, r->grad->layers[0].x, &model->top.embed, r->pass.rows->tokens,
                 r->pass.T);
    du_err err = DU_OK;
    for (int64_t i = 0; err == DU_OK && i < model->hp.n_layer; i++) {
        err = du_grad_layer_fwd(r, i, layer_out(r, i));
    }
    return err;
}

static du_err layers_bwd(const du_grad_run *r) {
    const du_model *model = r->pass.model;
    size_t n_bytes = (size_t)(r->pass.T * model->hp.d_model) * sizeof(float);
    du_err err = du_grad_norm_bwd(r, r->grad->x, model->top.norm);
    for (int64_t i = model->hp.n_layer - 1; err == DU_OK && i >= 0; i--) {
        if (r->grad->how.keep == DU_KEEP_INPUTS && i + 1 < r->grad->n_layers) {
            memcpy(r->grad->x, r->dx, n_bytes); /* dx is overwritten */
            err = du_grad_layer_fwd(r, i, NULL);
            memcpy(r->dx, r->grad->x, n_bytes);
        }
        err = err ? err : du_grad_layer_bwd(r, i);
    }
    if (err != DU_OK) {
        return err;
    }
    du_sums sums = r->train.sums;
    float *grad = du_sums_grad(&sums, model->top.embed.data), *nodes[DU_LEAF_LEVELS];
    if (model->hp.tied && grad) { /* behind the output matrix's */
        du_sums_nodes(&sums, grad, nodes);
        sums =
            du_grad_term_sums(r->grad, DU_TERM_EMBED, &model->top.embed, grad, sums.leaves, nodes);
        grad = sums.grads;
    }
    return du_embed_bwd(r->pass.ctx, &sums, grad, r->dx, r->pass.rows->tokens, r->pass.T,
                        model->hp.n_vocab, model->hp.d_model);
}

/* The part of experts in a pass, for a process that has no rows of it: as layers_fwd, du_grad_nextn
 * and layers_bwd call their layers. */
static du_err serve(const du_grad_run *r) {
    const du_grad *g = r->grad;
    int64_t n_layer = r->pass.model->hp.n_layer;
    bool again = g->how.keep == DU_KEEP_INPUTS;
    du_err err = DU_OK;
    for (int64_t i = 0; err == DU_OK && i < n_layer; i++) {
        err = du_grad_layer_serve(r, i, false);
    }
    if (!r->backward || err != DU_OK) {
        return err;
    }
    if (r->pass.rows->next) {
        err = du_grad_layer_serve(r, n_layer, false);
        err = err ? err : du_grad_layer_serve(r, n_layer, true);
    }
    for (int64_t i = n_layer - 1; err == DU_OK && i >= 0; i--) {
        err = again && i + 1 < g->n_layers ? du_grad_layer_serve(r, i, false) : DU_OK;
        err = err ? err : du_grad_layer_serve(r, i, true);
    }
    return err;
}

/* cos, sin and -sin of all rows. */
static du_err take_rope(du_grad_pass *p) {
    const du_hparams *hp = &p->model->hp;
    int64_t T = p->T, n = hp->rope_dim / 2;
    float *cos = DU_SCRATCH(p->ctx, float, T *n), *sin = DU_SCRATCH(p->ctx, float, T *n);
    float *back = DU_SCRATCH(p->ctx, float, T *n);
    int64_t S = p->rows->seq_len, *pos = DU_SCRATCH(p->ctx, int64_t, S);
    if (!cos || !sin || !back || !pos) {
        return DU_ENOMEM;
    }
    for (int64_t t = 0; t < S; t++) {
        pos[t] = t;
    }
    du_rope_table(cos, sin, pos, p->model->rope_freq, p->model->rope_magnitude, S, n);
    for (int64_t i = S * n; i < T * n; i++) { /* every sequence begins at position 0 */
        cos[i] = cos[i - S * n];
        sin[i] = sin[i - S * n];
    }
    for (int64_t i = 0; i < T * n; i++) {
        back[i] = -sin[i];
    }
    p->cos = cos;
    p->sin = sin;
    p->sin_back = back;
    return DU_OK;
}

static du_err begin(du_grad_run *r, du_ctx *ctx, du_grad *g, const du_grad_rows *rows,
                    du_leaves leaves) {
    const du_model *model = g->params->model;
    int64_t T = rows->n_seq * rows->seq_len, D = model->hp.d_model;
    int64_t *end = DU_SCRATCH(ctx, int64_t, rows->n_seq);
    r->dx = DU_SCRATCH(ctx, float, T *D);
    r->dy = DU_SCRATCH(ctx, float, T *D);
    if (!end || !r->dx || !r->dy) {
        return DU_ENOMEM;
    }
    for (int64_t i = 0; i < rows->n_seq; i++) {
        end[i] = (i + 1) * rows->seq_len;
    }
    r->grad = g;
    r->i_leaf = leaves.first;
    if (g->how.spread) { /* all but experts is summed over the rows alone */
        r->i_leaf += g->how.spread->i * rows->n_seq;
        r->spread = (du_spread){g->how.spread, leaves, r->i_leaf - leaves.first, rows->seq_len};
        leaves = (du_leaves){0, rows->n_seq, true};
    }
    r->train.kind = du_kern_gemm_kind(ctx->kern, g->how.bf16);
    r->train.end = end;
    r->train.sums =
        (du_sums){leaves, g->params->shown, g->values, g->params->n_values, g->nodes, false};
    r->pass.ctx = ctx;
    r->pass.model = model;
    r->pass.train = &r->train;
    r->pass.rows = rows;
    r->pass.T = T;
    du_err err = take_kept(g, T > 0 ? T : 1);
    return err || T == 0 ? err : take_rope(&r->pass);
}

static void norm_out(const du_grad_run *r) {
    du_grad_norm_fwd(r, r->grad->norm, r->grad->x, r->pass.model->top.norm);
}

/* From the rows behind the last layer to the gradients of all weights. */
static du_err backward(du_grad_run *r, du_objective *objective) {
    du_grad *g = r->grad;
    int64_t n_values = r->pass.T * g->params->model->hp.d_model;
    du_objective *next = r->pass.rows->next;
    float *dnext = next ? DU_SCRATCH(r->pass.ctx, float, n_values) : NULL;
    du_err err = next && !dnext ? DU_ENOMEM : DU_OK;
    norm_out(r);
    err = err ? err : du_grad_out(r, g->norm, objective, 0);
    if (err == DU_OK && next) {
        err = du_grad_nextn(r, dnext);
    }
    memset(r->dx, 0, (size_t)n_values * sizeof *r->dx);
    err = err ? err : layers_bwd(r);
    return err == DU_OK && next ? du_grad_nextn_embed(r, dnext) : err;
}

/* Of a process that has rows. */
static du_err compute(du_grad_run *r, du_objective *objective) {
    du_err err = layers_fwd(r);
    if (err != DU_OK || r->backward) {
        return err ? err : backward(r, objective);
    }
    norm_out(r);
    return du_grad_out(r, r->grad->norm, objective, 0);
}

static du_err pass(du_ctx *ctx, du_grad *g, const du_grad_rows *rows, du_objective *objective,
                   du_leaves leaves, bool backwards, du_diag *diag) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    du_grad_run r = {.backward = backwards};
    du_err err = begin(&r, ctx, g, rows, leaves);
    if (err == DU_OK && backwards && !leaves.last) {
        err = du_sums_take_nodes(g->nodes, g->params->n_values, leaves.first + leaves.n);
    }
    if (err == DU_OK) {
        err = rows->n_seq > 0 ? compute(&r, objective) : serve(&r);
    }
    du_arena_release(ctx->scratch, mark);
    return err == DU_ENOMEM ? du_fail_nomem(diag, "a micro-batch") : err;
}

du_err du_grad_add(du_ctx *ctx, du_grad *g, const du_grad_rows *rows, du_objective *objective,
                   du_leaves leaves, du_diag *diag) {
    DU_CHECK(g->how.spread ? leaves.n >= rows->n_seq : leaves.n == rows->n_seq);
    if (leaves.first == 0) {
        memset(g->counts, 0, (size_t)(g->n_layers * n_experts(g)) * sizeof *g->counts);
        memset(g->balances, 0, (size_t)g->how.n_leaves * sizeof *g->balances);
    }
    return pass(ctx, g, rows, objective, leaves, true, diag);
}

du_err du_grad_loss(du_ctx *ctx, du_grad *g, const du_grad_rows *rows, du_objective *objective,
                    du_diag *diag) {
    return pass(ctx, g, rows, objective, (du_leaves){0, rows->n_seq, true}, false, diag);
}

const float *du_grad_values(const du_grad *g) {
    return g->values;
}

const int64_t *du_grad_counts(const du_grad *g) {
    return n_experts(g) > 0 ? g->counts : NULL;
}

const double *du_grad_balances(const du_grad *g) {
    return g->balances;
}

void du_grad_set_leaves(du_grad *g, int64_t n_leaves) {
    g->how.n_leaves = n_leaves;
}

du_grad_parts du_grad_get_parts(du_grad *g) {
    const du_mat *embed = &g->params->model->top.embed, *out = &g->params->model->top.output;
    const du_mat *const of[DU_GRAD_TERMS_MAX] = {out, embed, embed};
    du_grad_parts parts = {
        .values = g->values, .counts = g->counts, .n_counts = g->n_layers * n_experts(g)};
    for (int i = 0; i < DU_GRAD_TERMS_MAX; i++) {
        if (g->terms[i]) {
            int64_t offset = (const float *)of[i]->data - g->params->shown;
            parts.terms[parts.n_terms++] = (du_grad_term){g->terms[i], offset, out_values(g)};
        }
    }
    return parts;
}
