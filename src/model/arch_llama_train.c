/* Training attention of the decoders with grouped-query attention (arch_llama.c). */
#include <string.h>

#include "model/arch_llama.h"
#include "model/grad_int.h"
#include "nn/basic.h"

typedef struct {
    float *q, *k, *v;     /* [T,H,Dh], [T,G,Dh], [T,G,v]: as attention reads them */
    float *q_raw, *k_raw; /* before the norms of heads */
    float *heads, *lse;   /* [T,H,v], [T,H] */
} kept;

static void *take(du_arena *arena, const du_hparams *hp, int64_t T, bool all) {
    (void)all; /* everything is the input of some product */
    int64_t H = hp->n_head, G = hp->n_head_kv, Dh = hp->k_dim, V = hp->v_dim;
    kept *k = DU_KEEP(arena, kept, 1);
    if (!k) {
        return NULL;
    }
    *k = (kept){DU_KEEP(arena, float, T *H *Dh), DU_KEEP(arena, float, T *G *Dh),
                DU_KEEP(arena, float, T *G *V),  DU_KEEP(arena, float, T *H *Dh),
                DU_KEEP(arena, float, T *G *Dh), DU_KEEP(arena, float, T *H *V),
                DU_KEEP(arena, float, T *H)};
    bool good = k->q && k->k && k->v && k->q_raw && k->k_raw && k->heads && k->lse;
    return good ? k : NULL;
}

static void rotate(const du_grad_pass *p, float *x, int64_t n_head, const float *sin) {
    const du_hparams *hp = &p->model->hp;
    du_rope_fwd(p->ctx, x, n_head * hp->k_dim, n_head, hp->k_dim, p->cos, sin, hp->rope_layout,
                p->T, hp->rope_dim / 2);
}

static du_err fwd(const du_grad_pass *p, int64_t layer, float *y, const float *x, void *of_layer) {
    const du_hparams *hp = &p->model->hp;
    const du_llama_layer *w = du_model_layer(p->model, layer);
    const kept *k = of_layer;
    int64_t T = p->T, D = hp->d_model, H = hp->n_head, G = hp->n_head_kv, Dh = hp->k_dim;
    bool norms = w->q_norm != NULL;
    du_linear_out qkv[] = {{norms ? k->q_raw : k->q, H * Dh, &w->q, w->q_bias},
                           {norms ? k->k_raw : k->k, G * Dh, &w->k, w->k_bias},
                           {k->v, G * hp->v_dim, &w->v, w->v_bias}};
    du_err err = du_linear_train_fwd(p->ctx, p->train, qkv, 3, x, D, T);
    if (err != DU_OK) {
        return err;
    }
    if (norms) {
        du_rmsnorm_fwd(p->ctx, k->q, Dh, k->q_raw, Dh, w->q_norm, T * H, Dh, hp->eps);
        du_rmsnorm_fwd(p->ctx, k->k, Dh, k->k_raw, Dh, w->k_norm, T * G, Dh, hp->eps);
    }
    rotate(p, k->q, H, p->sin);
    rotate(p, k->k, G, p->sin);
    du_attn_train attn = du_grad_attention(p, H, G, Dh, hp->v_dim);
    err = du_attn_train_fwd(p->ctx, p->train->kind, &attn, k->heads, k->lse, k->q, k->k, k->v);
    du_linear_out out = {y, D, &w->attn_out, NULL};
    return err ? err : du_linear_train_fwd(p->ctx, p->train, &out, 1, k->heads, H * hp->v_dim, T);
}

/* Gradients in the order of what is computed backward. */
typedef struct {
    float *heads, *q, *k, *v;
    float *q_raw, *k_raw; /* q, k where heads have no norms */
} grads;

static bool take_grads(const du_grad_pass *p, grads *g, bool norms) {
    const du_hparams *hp = &p->model->hp;
    int64_t T = p->T, H = hp->n_head, G = hp->n_head_kv, Dh = hp->k_dim, V = hp->v_dim;
    g->heads = DU_SCRATCH(p->ctx, float, T *H *V);
    g->q = DU_SCRATCH(p->ctx, float, T *H *Dh);
    g->k = DU_SCRATCH(p->ctx, float, T *G *Dh);
    g->v = DU_SCRATCH(p->ctx, float, T *G *V);
    g->q_raw = norms ? DU_SCRATCH(p->ctx, float, T *H *Dh) : g->q;
    g->k_raw = norms ? DU_SCRATCH(p->ctx, float, T *G *Dh) : g->k;
    return g->heads && g->q && g->k && g->v && g->q_raw && g->k_raw;
}

static du_err head_norms_bwd(const du_grad_pass *p, const du_llama_layer *w, const kept *k,
                             const grads *g) {
    const du_hparams *hp = &p->model->hp;
    const du_sums *sums = &p->train->sums;
    int64_t Dh = hp->k_dim, n_q = p->T * hp->n_head, n_k = p->T * hp->n_head_kv;
    memset(g->q_raw, 0, (size_t)(n_q * Dh) * sizeof *g->q_raw);
    memset(g->k_raw, 0, (size_t)(n_k * Dh) * sizeof *g->k_raw);
    du_err err = du_rmsnorm_bwd(p->ctx, sums, g->q_raw, Dh, g->q, Dh, k->q_raw, Dh, w->q_norm, n_q,
                                Dh, hp->eps);
    return err ? err
               : du_rmsnorm_bwd(p->ctx, sums, g->k_raw, Dh, g->k, Dh, k->k_raw, Dh, w->k_norm, n_k,
                                Dh, hp->eps);
}

static du_err bwd(const du_grad_pass *p, int64_t layer, float *dx, const float *dy, const float *x,
                  void *of_layer) {
    const du_hparams *hp = &p->model->hp;
    const du_llama_layer *w = du_model_layer(p->model, layer);
    const kept *k = of_layer;
    int64_t T = p->T, D = hp->d_model, H = hp->n_head, G = hp->n_head_kv, Dh = hp->k_dim;
    int64_t O = H * hp->v_dim;
    du_arena_mark mark = du_arena_get_mark(p->ctx->scratch);
    grads g;
    du_err err = take_grads(p, &g, w->q_norm != NULL) ? DU_OK : DU_ENOMEM;
    if (err == DU_OK) {
        du_linear_grad out = {dy, D, &w->attn_out, NULL};
        err = du_linear_train_bwd(p->ctx, p->train, &out, 1, g.heads, O, false, k->heads, O, T);
    }
    if (err == DU_OK) {
        du_attn_train attn = du_grad_attention(p, H, G, Dh, hp->v_dim);
        err = du_attn_train_bwd(p->ctx, p->train->kind, &attn, g.q, g.k, g.v, g.heads, k->heads,
                                k->lse, k->q, k->k, k->v);
    }
    if (err == DU_OK) {
        rotate(p, g.q, H, p->sin_back);
        rotate(p, g.k, G, p->sin_back);
        err = w->q_norm ? head_norms_bwd(p, w, k, &g) : DU_OK;
    }
    if (err == DU_OK) {
        du_linear_grad qkv[] = {{g.q_raw, H * Dh, &w->q, w->q_bias},
                                {g.k_raw, G * Dh, &w->k, w->k_bias},
                                {g.v, G * hp->v_dim, &w->v, w->v_bias}};
        err = du_linear_train_bwd(p->ctx, p->train, qkv, 3, dx, D, false, x, D, T);
    }
    du_arena_release(p->ctx->scratch, mark);
    return err;
}

/* take_grads */
static du_attn_scratch scratch(const du_hparams *hp, bool all) {
    (void)all;
    int64_t Q = hp->n_head * hp->k_dim, K = hp->n_head_kv * hp->k_dim;
    int64_t V = hp->n_head_kv * hp->v_dim, O = hp->n_head * hp->v_dim;
    return (du_attn_scratch){.row_values = O + 2 * (Q + K) + V};
}

const struct du_arch_train du_llama_train = {take, scratch, fwd, bwd};
