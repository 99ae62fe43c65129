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
#include "nn/moe_train.h"

enum {
    OUT_VALUES = 2 << 20, /* logits that exist at once, about */
    OUT_ROWS_MIN = 128,
    OUT_ROWS_MAX = 1024,
    ARENA_CHUNK = 64 << 20,
};

typedef struct {
    float *x, *norm1, *mid, *norm2; /* [T,D] */
    void *attn;
    du_ffn_kept ffn; /* dense, or the shared experts */
    du_moe_kept moe;
} layer_kept;

struct du_grad {
    const du_params *params;
    du_grad_params how;
    float *values; /* gradients [n_values] */
    float *nodes[DU_LEAF_LEVELS];
    float
        *out_nodes[DU_LEAF_LEVELS]; /* of the output matrix, whose leaves are parts of sequences */
    int64_t *counts;                /* [n_layer, E] */
    double balance;
    du_arena *arena;
    layer_kept *layers; /* [n_layer] */
    float *x;           /* [T,D] behind the last layer */
    float *norm;        /* [T,D] */
    int64_t T;          /* rows there is room for */
};

/* A pass over one micro-batch. */
typedef struct {
    du_grad_pass pass;
    du_train train;
    du_grad *grad;
    du_objective *objective;
    bool backward;
    float *dx, *dy; /* [T,D]; dy also receives what layers put out in the forward pass */
} run;

static int64_t n_experts(const du_grad *g) {
    return g->params->model->hp.router.n_expert;
}

static const du_block *block_of(const du_model *model, int64_t layer) {
    return du_model_layer(model, layer); /* every architecture's layer begins with it */
}

du_err du_grad_new(du_grad **out, const du_params *params, const du_grad_params *how,
                   du_diag *diag) {
    const du_model *model = params->model;
    if (!model->arch->train) {
        return du_fail(diag, DU_EUNSUPPORTED, "%s: no training of this architecture",
                       model->arch->name);
    }
    du_grad *g = du_alloc_zero(1, sizeof *g);
    if (!g) {
        return du_fail_nomem(diag, "the gradients");
    }
    g->params = params;
    g->how = *how;
    g->values = du_mem_reserve((size_t)params->n_values * sizeof(float));
    g->counts = du_alloc_zero((size_t)(model->hp.n_layer * n_experts(g)), sizeof *g->counts);
    g->layers = du_alloc_zero((size_t)model->hp.n_layer, sizeof *g->layers);
    if (!g->values || !g->counts || !g->layers) {
        du_grad_free(g);
        return du_fail_nomem(diag, "the gradients");
    }
    *out = g;
    return DU_OK;
}

static int64_t out_values(const du_grad *g) {
    const du_mat *w = &g->params->model->top.output;
    return w->rows * w->cols;
}

void du_grad_free(du_grad *g) {
    if (!g) {
        return;
    }
    for (int64_t l = 0; l < DU_LEAF_LEVELS; l++) {
        du_mem_unreserve(g->nodes[l], (size_t)g->params->n_values * sizeof(float));
        du_mem_unreserve(g->out_nodes[l], (size_t)out_values(g) * sizeof(float));
    }
    du_mem_unreserve(g->values, (size_t)g->params->n_values * sizeof(float));
    du_arena_free(g->arena);
    du_free(g->counts);
    du_free(g->layers);
    du_free(g);
}

/* Buffers for the nodes that wait after the first n leaves. */
static du_err take_nodes(float **nodes, int64_t n_values, int64_t n_leaves) {
    for (int64_t l = 0; l < DU_LEAF_LEVELS; l++) {
        if (n_leaves >> l & 1 && !nodes[l]) {
            nodes[l] = du_mem_reserve((size_t)n_values * sizeof(float));
            if (!nodes[l]) {
                return DU_ENOMEM;
            }
        }
    }
    return DU_OK;
}

static bool take_ffn(du_arena *a, du_ffn_kept *kept, int64_t T, int64_t F, bool all) {
    *kept = (du_ffn_kept){DU_KEEP(a, float, T *F), DU_KEEP(a, float, T *F),
                          all ? DU_KEEP(a, float, T *F) : NULL};
    return kept->gate && kept->up && (!all || kept->hidden);
}

static bool take_moe(du_arena *a, du_moe_kept *kept, const du_hparams *hp, int64_t T, bool all) {
    int64_t E = hp->router.n_expert, K = hp->router.n_used, F = hp->d_ff_expert;
    *kept = (du_moe_kept){.scores = DU_KEEP(a, float, T *E),
                          .weights = DU_KEEP(a, float, T *K),
                          .ids = DU_KEEP(a, int32_t, T * K),
                          .slot_of = DU_KEEP(a, int32_t, T * K),
                          .i_token = DU_KEEP(a, int32_t, T * K),
                          .first = DU_KEEP(a, int64_t, E + 1),
                          .gate = DU_KEEP(a, float, T *K *F),
                          .up = DU_KEEP(a, float, T *K *F),
                          .hidden = all ? DU_KEEP(a, float, T *K *F) : NULL};
    return kept->scores && kept->weights && kept->ids && kept->slot_of && kept->i_token &&
           kept->first && kept->gate && kept->up && (!all || kept->hidden);
}

/* What layer i keeps beside its input; norms may be shared by layers. */
static bool take_layer(du_grad *g, int64_t i, int64_t T, float *norm1, float *norm2) {
    const du_hparams *hp = &g->params->model->hp;
    bool all = g->how.keep == DU_KEEP_ALL;
    layer_kept *k = &g->layers[i];
    int64_t D = hp->d_model;
    k->norm1 = norm1 ? norm1 : DU_KEEP(g->arena, float, T *D);
    k->norm2 = norm2 ? norm2 : DU_KEEP(g->arena, float, T *D);
    k->mid = DU_KEEP(g->arena, float, T *D);
    k->attn = g->params->model->arch->train->take(g->arena, hp, T, all);
    bool good = k->norm1 && k->norm2 && k->mid && k->attn;
    if (i < hp->n_dense_layer) {
        return good && take_ffn(g->arena, &k->ffn, T, hp->d_ff, all);
    }
    int64_t FS = hp->n_shared_expert * hp->d_ff_expert;
    return good && take_moe(g->arena, &k->moe, hp, T, all) &&
           (FS == 0 || take_ffn(g->arena, &k->ffn, T, FS, all));
}

/* Layers of one kind share what they keep when only inputs are. */
static const layer_kept *same_kind_before(const du_grad *g, int64_t i) {
    int64_t dense = g->params->model->hp.n_dense_layer;
    return i == 0 || i == dense ? NULL : &g->layers[i - 1];
}

static du_err take_kept(du_grad *g, int64_t T) {
    if (T <= g->T) {
        return DU_OK;
    }
    const du_hparams *hp = &g->params->model->hp;
    int64_t D = hp->d_model;
    du_arena_free(g->arena);
    g->T = 0;
    g->arena = du_arena_new(ARENA_CHUNK);
    if (!g->arena) {
        return DU_ENOMEM;
    }
    bool shared = g->how.keep != DU_KEEP_ALL;
    g->x = DU_KEEP(g->arena, float, T *D);
    g->norm = DU_KEEP(g->arena, float, T *D);
    float *norm1 = shared ? DU_KEEP(g->arena, float, T *D) : NULL;
    float *norm2 = shared ? DU_KEEP(g->arena, float, T *D) : NULL;
    bool good = g->x && g->norm && (!shared || (norm1 && norm2));
    for (int64_t i = 0; good && i < hp->n_layer; i++) {
        const layer_kept *before = same_kind_before(g, i);
        if (g->how.keep == DU_KEEP_INPUTS && before) {
            g->layers[i] = *before;
        } else {
            good = take_layer(g, i, T, norm1, norm2);
        }
        g->layers[i].x = DU_KEEP(g->arena, float, T *D);
        good = good && g->layers[i].x;
    }
    g->T = good ? T : 0;
    return good ? DU_OK : DU_ENOMEM;
}

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

static du_moe_weights moe_of(const du_model *model, const du_block *w) {
    return (du_moe_weights){&w->router,   w->router_bias, w->expert_gate,
                            w->expert_up, w->expert_down, &model->hp.router};
}

static void norm_fwd(const run *r, float *y, const float *x, const float *w) {
    const du_hparams *hp = &r->pass.model->hp;
    int64_t D = hp->d_model;
    du_rmsnorm_fwd(r->pass.ctx, y, D, x, D, w, r->pass.T, D, hp->eps);
}

static du_err norm_bwd(const run *r, const float *dy, const float *x, const float *w) {
    const du_hparams *hp = &r->pass.model->hp;
    int64_t D = hp->d_model;
    return du_rmsnorm_bwd(r->pass.ctx, &r->train.sums, r->dx, D, dy, D, x, D, w, r->pass.T, D,
                          hp->eps);
}

/* r->dy = feed-forward of the layer's norm2 */
static du_err ffn_fwd(const run *r, int64_t i) {
    const du_block *w = block_of(r->pass.model, i);
    const layer_kept *k = &r->grad->layers[i];
    du_ctx *ctx = r->pass.ctx;
    int64_t T = r->pass.T, D = r->pass.model->hp.d_model;
    if (i < r->pass.model->hp.n_dense_layer) {
        du_ffn_weights ffn = {&w->ffn_gate, &w->ffn_up, &w->ffn_down};
        return du_ffn_train_fwd(ctx, &r->train, r->dy, k->norm2, &ffn, &k->ffn, T);
    }
    du_moe_weights moe = moe_of(r->pass.model, w);
    du_err err = du_moe_train_fwd(ctx, &r->train, r->dy, k->norm2, &moe, &k->moe, T);
    if (err != DU_OK || !w->shared_gate.data) {
        return err;
    }
    du_ffn_weights shared = {&w->shared_gate, &w->shared_up, &w->shared_down};
    err = du_ffn_train_fwd(ctx, &r->train, r->dx, k->norm2, &shared, &k->ffn, T);
    du_add_fwd(ctx, r->dy, r->dx, T, D);
    return err;
}

static void copy_rows(float *to, const float *from, int64_t n) {
    memcpy(to, from, (size_t)n * sizeof *to);
}

/* From the layer's input to its output, which is the next one's input. */
static du_err layer_fwd(const run *r, int64_t i, float *out) {
    const du_block *w = block_of(r->pass.model, i);
    const layer_kept *k = &r->grad->layers[i];
    int64_t T = r->pass.T, D = r->pass.model->hp.d_model;
    norm_fwd(r, k->norm1, k->x, w->attn_norm);
    du_err err = r->pass.model->arch->train->fwd(&r->pass, i, r->dy, k->norm1, k->attn);
    if (err != DU_OK) {
        return err;
    }
    copy_rows(k->mid, k->x, T * D);
    du_add_fwd(r->pass.ctx, k->mid, r->dy, T, D);
    norm_fwd(r, k->norm2, k->mid, w->ffn_norm);
    err = ffn_fwd(r, i);
    if (err == DU_OK && out) {
        copy_rows(out, k->mid, T * D);
        du_add_fwd(r->pass.ctx, out, r->dy, T, D);
    }
    return err;
}

/* r->dy = d(loss)/d(norm2) from r->dx */
static du_err ffn_bwd(const run *r, int64_t i) {
    const du_block *w = block_of(r->pass.model, i);
    const layer_kept *k = &r->grad->layers[i];
    du_ctx *ctx = r->pass.ctx;
    int64_t T = r->pass.T, n_seq = r->pass.rows->n_seq;
    if (i < r->pass.model->hp.n_dense_layer) {
        du_ffn_weights ffn = {&w->ffn_gate, &w->ffn_up, &w->ffn_down};
        return du_ffn_train_bwd(ctx, &r->train, r->dy, false, r->dx, k->norm2, &ffn, &k->ffn, T);
    }
    double share = 1 / (double)r->grad->how.n_leaves;
    du_router_balance balance = {n_seq, r->pass.rows->seq_len, r->grad->how.seq_balance * share,
                                 NULL};
    balance.losses = DU_SCRATCH(ctx, double, n_seq);
    du_moe_weights moe = moe_of(r->pass.model, w);
    du_err err = balance.losses ? du_moe_train_bwd(ctx, &r->train, r->dy, r->dx, k->norm2, &moe,
                                                   &k->moe, &balance, T)
                                : DU_ENOMEM;
    for (int64_t s = 0; err == DU_OK && balance.balance > 0 && s < n_seq; s++) {
        r->grad->balance += balance.balance * balance.losses[s];
    }
    if (err != DU_OK || !w->shared_gate.data) {
        return err;
    }
    du_ffn_weights shared = {&w->shared_gate, &w->shared_up, &w->shared_down};
    return du_ffn_train_bwd(ctx, &r->train, r->dy, true, r->dx, k->norm2, &shared, &k->ffn, T);
}

static void count_experts(const run *r, int64_t i) {
    const du_hparams *hp = &r->pass.model->hp;
    int64_t E = hp->router.n_expert;
    const int64_t *first = r->grad->layers[i].moe.first;
    for (int64_t e = 0; i >= hp->n_dense_layer && e < E; e++) {
        r->grad->counts[i * E + e] += first[e + 1] - first[e];
    }
}

/* r->dx: from d(loss)/d(output) to d(loss)/d(input) */
static du_err layer_bwd(const run *r, int64_t i) {
    const du_block *w = block_of(r->pass.model, i);
    const layer_kept *k = &r->grad->layers[i];
    du_arena_mark mark = du_arena_get_mark(r->pass.ctx->scratch);
    if (r->grad->how.keep == DU_KEEP_SOME) {
        norm_fwd(r, k->norm2, k->mid, w->ffn_norm);
    }
    count_experts(r, i);
    du_err err = ffn_bwd(r, i);
    err = err ? err : norm_bwd(r, r->dy, k->mid, w->ffn_norm);
    if (err == DU_OK && r->grad->how.keep == DU_KEEP_SOME) {
        norm_fwd(r, k->norm1, k->x, w->attn_norm);
    }
    if (err == DU_OK) {
        err = r->pass.model->arch->train->bwd(&r->pass, i, r->dy, r->dx, k->norm1, k->attn);
    }
    err = err ? err : norm_bwd(r, r->dy, k->x, w->attn_norm);
    du_arena_release(r->pass.ctx->scratch, mark);
    return err;
}

static float *layer_out(const run *r, int64_t i) {
    return i + 1 < r->pass.model->hp.n_layer ? r->grad->layers[i + 1].x : r->grad->x;
}

static du_err layers_fwd(const run *r) {
    const du_model *model = r->pass.model;
    du_embed_fwd(r->pass.ctx, r->grad->layers[0].x, &model->top.embed, r->pass.rows->tokens,
                 r->pass.T);
    du_err err = DU_OK;
    for (int64_t i = 0; err == DU_OK && i < model->hp.n_layer; i++) {
        err = layer_fwd(r, i, layer_out(r, i));
    }
    return err;
}

static du_err layers_bwd(const run *r) {
    const du_model *model = r->pass.model;
    du_err err = norm_bwd(r, r->dy, r->grad->x, model->top.norm);
    for (int64_t i = model->hp.n_layer - 1; err == DU_OK && i >= 0; i--) {
        if (r->grad->how.keep == DU_KEEP_INPUTS && i + 1 < model->hp.n_layer) {
            copy_rows(r->grad->x, r->dx, r->pass.T * model->hp.d_model); /* dx is overwritten */
            err = layer_fwd(r, i, NULL);
            copy_rows(r->dx, r->grad->x, r->pass.T * model->hp.d_model);
        }
        err = err ? err : layer_bwd(r, i);
    }
    if (err != DU_OK) {
        return err;
    }
    return du_embed_bwd(r->pass.ctx, &r->train.sums,
                        du_sums_grad(&r->train.sums, model->top.embed.data), model->hp.tied, r->dx,
                        r->pass.rows->tokens, r->pass.T, model->hp.n_vocab, model->hp.d_model);
}

/* Rows whose logits exist at once: whole sequences, a power of two of them, or one of a power of
 * two of parts of a sequence. Each sequence of a step, or part of one, is a leaf of the output
 * matrix's gradient. */
typedef struct {
    int64_t parts;  /* of a sequence */
    int64_t n_seqs; /* at once, 1 where there are parts */
} out_plan;

static out_plan plan_out(const du_hparams *hp, int64_t seq_len) {
    int64_t n = OUT_VALUES / hp->n_vocab;
    n = n < OUT_ROWS_MIN ? OUT_ROWS_MIN : n > OUT_ROWS_MAX ? OUT_ROWS_MAX : n;
    out_plan p = {1, 1};
    while (seq_len > p.parts * n) {
        p.parts *= 2;
    }
    while (p.parts == 1 && 2 * p.n_seqs * seq_len <= n) {
        p.n_seqs *= 2;
    }
    return p;
}

/* Logits of rows [row0, row0 + n), the objective, and what follows from its gradient: dy, and the
 * output matrix's. `end` are the rows' leaves. */
static du_err out_rows(const run *r, float *logits, int64_t row0, int64_t n, du_leaves leaves,
                       const int64_t *end) {
    const du_model *model = r->pass.model;
    const du_mat *w = &model->top.output;
    du_ctx *ctx = r->pass.ctx;
    int64_t V = w->rows, D = w->cols;
    const float *x = r->grad->norm + row0 * D;
    du_linear_out out = {logits, V, w, NULL};
    du_err err = du_linear_train_fwd(ctx, &r->train, &out, 1, x, D, n);
    err = err ? err : r->objective->rows(r->objective, ctx, logits, row0, n, V);
    if (err != DU_OK || !r->backward) {
        return err;
    }
    float *grad = du_sums_grad(&r->train.sums, w->data);
    du_train train = {
        r->train.kind, {leaves, w->data, grad, grad ? V * D : 0, r->grad->out_nodes}, end};
    err = leaves.last ? DU_OK : take_nodes(r->grad->out_nodes, V * D, leaves.first + leaves.n);
    du_linear_grad dout = {logits, V, w, NULL};
    return err ? err
               : du_linear_train_bwd(ctx, &train, &dout, 1, r->dy + row0 * D, D, false, x, D, n);
}

/* The output matrix over all rows: r->dy = d(loss)/d(norm). */
static du_err out_all(const run *r) {
    const du_grad_rows *rows = r->pass.rows;
    const du_leaves *leaves = &r->train.sums.leaves;
    out_plan p = plan_out(&r->pass.model->hp, rows->seq_len);
    int64_t S = rows->seq_len, part = (S + p.parts - 1) / p.parts, n_max = p.n_seqs * part;
    norm_fwd(r, r->grad->norm, r->grad->x, r->pass.model->top.norm);
    float *logits = DU_SCRATCH(r->pass.ctx, float, n_max * r->pass.model->hp.n_vocab);
    int64_t *end = DU_SCRATCH(r->pass.ctx, int64_t, p.n_seqs);
    du_err err = logits && end ? DU_OK : DU_ENOMEM;
    for (int64_t s = 0; s < rows->n_seq && err == DU_OK; s += p.n_seqs) {
        int64_t n_seqs = s + p.n_seqs < rows->n_seq ? p.n_seqs : rows->n_seq - s;
        for (int64_t i = 0; i < p.parts && err == DU_OK; i++) {
            int64_t row0 = i * part < S ? i * part : S, row1 = row0 + part < S ? row0 + part : S;
            int64_t n = n_seqs == 1 ? row1 - row0 : n_seqs * S;
            for (int64_t k = 0; k < n_seqs; k++) {
                end[k] = n_seqs == 1 ? n : (k + 1) * S;
            }
            bool last = leaves->last && s + n_seqs == rows->n_seq && i + 1 == p.parts;
            du_leaves of_out = {(leaves->first + s) * p.parts + i, n_seqs, last};
            err = out_rows(r, logits, s * S + row0, n, of_out, end);
        }
    }
    return err;
}

/* cos, sin and -sin of all rows. */
static du_err take_rope(du_grad_pass *p) {
    const du_hparams *hp = &p->model->hp;
    int64_t T = p->T, n = hp->rope_dim / 2;
    float *cos = DU_SCRATCH(p->ctx, float, T *n), *sin = DU_SCRATCH(p->ctx, float, T *n);
    float *back = DU_SCRATCH(p->ctx, float, T *n);
    int64_t *pos = DU_SCRATCH(p->ctx, int64_t, T);
    if (!cos || !sin || !back || !pos) {
        return DU_ENOMEM;
    }
    for (int64_t t = 0; t < T; t++) {
        pos[t] = t % p->rows->seq_len;
    }
    du_rope_table(cos, sin, pos, p->model->rope_freq, p->model->rope_magnitude, T, n);
    for (int64_t i = 0; i < T * n; i++) {
        back[i] = -sin[i];
    }
    p->cos = cos;
    p->sin = sin;
    p->sin_back = back;
    return DU_OK;
}

static du_err begin(run *r, du_ctx *ctx, du_grad *g, const du_grad_rows *rows, du_leaves leaves) {
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
    r->train.kind = g->how.bf16 ? ctx->kern->gemm_bf16 : DU_GEMM_F32;
    r->train.end = end;
    r->train.sums = (du_sums){leaves, g->params->values, g->values, g->params->n_values, g->nodes};
    r->pass.ctx = ctx;
    r->pass.model = model;
    r->pass.train = &r->train;
    r->pass.rows = rows;
    r->pass.T = T;
    du_err err = take_kept(g, T);
    return err ? err : take_rope(&r->pass);
}

static du_err backward(run *r) {
    du_grad *g = r->grad;
    const du_leaves *leaves = &r->train.sums.leaves;
    if (leaves->first == 0) {
        const du_hparams *hp = &g->params->model->hp;
        memset(g->counts, 0, (size_t)(hp->n_layer * n_experts(g)) * sizeof *g->counts);
        g->balance = 0;
    }
    du_err err =
        leaves->last ? DU_OK : take_nodes(g->nodes, g->params->n_values, leaves->first + leaves->n);
    err = err ? err : out_all(r);
    memset(r->dx, 0, (size_t)(r->pass.T * g->params->model->hp.d_model) * sizeof *r->dx);
    return err ? err : layers_bwd(r);
}

static du_err pass(du_ctx *ctx, du_grad *g, const du_grad_rows *rows, du_objective *objective,
                   du_leaves leaves, bool backwards, du_diag *diag) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    run r = {.objective = objective, .backward = backwards};
    du_err err = begin(&r, ctx, g, rows, leaves);
    err = err ? err : layers_fwd(&r);
    if (err == DU_OK) {
        err = backwards ? backward(&r) : out_all(&r);
    }
    du_arena_release(ctx->scratch, mark);
    return err == DU_ENOMEM ? du_fail_nomem(diag, "a micro-batch") : err;
}

du_err du_grad_add(du_ctx *ctx, du_grad *g, const du_grad_rows *rows, du_objective *objective,
                   du_leaves leaves, du_diag *diag) {
    DU_CHECK(leaves.n == rows->n_seq);
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

double du_grad_balance(const du_grad *g) {
    return g->balance;
}
