/* Training attention with latents, expanded (arch_deepseek2.c):
 *
 *     q_raw = W_q x, or W_qb norm(q_latent), q_latent = W_qa x       [T,H,nope+P]
 *     kv_raw = W_kva x                                               [T,R+P]
 *     kv = W_kvb norm(kv_raw[0..R))                                  [T,H,nope+v]
 *     k_h = [kv_h[0..nope) | rotated kv_raw[R..R+P)]     v_h = kv_h[nope..)
 *
 * The rotated key is one for all heads: its gradient is the sum over them, ascending. */
#include <string.h>

#include "model/arch_deepseek2.h"
#include "model/grad_int.h"
#include "nn/basic.h"

typedef struct {
    float *q;                 /* [T,H,nope+P], rotated */
    float *q_latent, *q_norm; /* [T,Rq]; q_norm NULL: computed again */
    float *kv_raw;            /* [T,R+P], its last P rotated */
    float *kv_norm;           /* [T,R]; NULL: computed again */
    float *k, *v;             /* [T,H,nope+P], [T,H,v]; NULL: computed again */
    float *heads, *lse;       /* [T,H,v], [T,H] */
} kept;

static void *take(du_arena *arena, const du_hparams *hp, int64_t T, bool all) {
    int64_t H = hp->n_head, Rq = hp->q_rank, R = hp->kv_rank, V = hp->v_dim;
    kept *k = DU_KEEP(arena, kept, 1);
    if (!k) {
        return NULL;
    }
    *k = (kept){.q = DU_KEEP(arena, float, T *H * hp->k_dim),
                .q_latent = DU_KEEP(arena, float, T *Rq),
                .q_norm = all ? DU_KEEP(arena, float, T *Rq) : NULL,
                .kv_raw = DU_KEEP(arena, float, T *(R + hp->rope_dim)),
                .kv_norm = all ? DU_KEEP(arena, float, T *R) : NULL,
                .k = all ? DU_KEEP(arena, float, T *H * hp->k_dim) : NULL,
                .v = all ? DU_KEEP(arena, float, T *H *V) : NULL,
                .heads = DU_KEEP(arena, float, T *H *V),
                .lse = DU_KEEP(arena, float, T *H)};
    bool good = k->q && k->q_latent && k->kv_raw && k->heads && k->lse;
    return good && (!all || (k->q_norm && k->kv_norm && k->k && k->v)) ? k : NULL;
}

/* What is kept or computed again: normalised latents, keys and values. */
typedef struct {
    float *q_norm, *kv_norm, *k, *v;
} expanded;

typedef struct {
    float *k, *v; /* [T,H,nope+P], [T,H,v] */
    float *kv;    /* [T,H,nope+v] */
    float *rope;  /* [T], R + P apart: the rotated key */
    int64_t H, nope, P, v_dim, ld_rope;
} heads_job;

/* Row t of keys and values from kv and the rotated key. */
static void split_row(void *arg, int64_t t, int64_t i_thread) {
    (void)i_thread;
    const heads_job *j = arg;
    const float *rope = j->rope + t * j->ld_rope;
    for (int64_t h = t * j->H; h < (t + 1) * j->H; h++) {
        const float *kv = j->kv + h * (j->nope + j->v_dim);
        float *k = j->k + h * (j->nope + j->P);
        memcpy(k, kv, (size_t)j->nope * sizeof *k);
        memcpy(k + j->nope, rope, (size_t)j->P * sizeof *k);
        memcpy(j->v + h * j->v_dim, kv + j->nope, (size_t)j->v_dim * sizeof *k);
    }
}

/* The other way, for gradients: the rotated key gets the sum over heads. */
static void join_row(void *arg, int64_t t, int64_t i_thread) {
    (void)i_thread;
    const heads_job *j = arg;
    float *rope = j->rope + t * j->ld_rope;
    memset(rope, 0, (size_t)j->P * sizeof *rope);
    for (int64_t h = t * j->H; h < (t + 1) * j->H; h++) {
        float *kv = j->kv + h * (j->nope + j->v_dim);
        const float *k = j->k + h * (j->nope + j->P);
        memcpy(kv, k, (size_t)j->nope * sizeof *k);
        memcpy(kv + j->nope, j->v + h * j->v_dim, (size_t)j->v_dim * sizeof *k);
        for (int64_t i = 0; i < j->P; i++) {
            rope[i] += k[j->nope + i];
        }
    }
}

static heads_job heads_of(const du_hparams *hp, float *k, float *v, float *kv, float *kv_raw) {
    return (heads_job){.k = k,
                       .v = v,
                       .kv = kv,
                       .rope = kv_raw + hp->kv_rank,
                       .H = hp->n_head,
                       .nope = du_hparams_nope(hp),
                       .P = hp->rope_dim,
                       .v_dim = hp->v_dim,
                       .ld_rope = hp->kv_rank + hp->rope_dim};
}

/* Fills the normalised latents, keys and values; buffers that are not kept come from scratch. */
static du_err expand(const du_grad_pass *p, const du_deepseek2_layer *w, const kept *k,
                     expanded *e) {
    const du_hparams *hp = &p->model->hp;
    int64_t T = p->T, H = hp->n_head, R = hp->kv_rank, row = R + hp->rope_dim;
    int64_t KV = H * (du_hparams_nope(hp) + hp->v_dim);
    *e = (expanded){k->q_norm, k->kv_norm ? k->kv_norm : DU_SCRATCH(p->ctx, float, T *R),
                    k->k ? k->k : DU_SCRATCH(p->ctx, float, T *H * hp->k_dim),
                    k->v ? k->v : DU_SCRATCH(p->ctx, float, T *H * hp->v_dim)};
    float *kv = DU_SCRATCH(p->ctx, float, T *KV);
    if (!e->kv_norm || !e->k || !e->v || !kv) {
        return DU_ENOMEM;
    }
    du_rmsnorm_fwd(p->ctx, e->kv_norm, R, k->kv_raw, row, w->kv_a_norm, T, R, hp->latent_eps);
    du_linear_out out = {kv, KV, &w->kv_b, NULL};
    du_err err = du_linear_train_fwd(p->ctx, p->train, &out, 1, e->kv_norm, R, T);
    if (err == DU_OK) {
        heads_job job = heads_of(hp, e->k, e->v, kv, k->kv_raw);
        du_pool_run(p->ctx->pool, split_row, &job, T);
    }
    return err;
}

static void normalise_q(const du_grad_pass *p, const du_deepseek2_layer *w, const kept *k,
                        float *q_norm) {
    const du_hparams *hp = &p->model->hp;
    int64_t Rq = hp->q_rank;
    du_rmsnorm_fwd(p->ctx, q_norm, Rq, k->q_latent, Rq, w->q_a_norm, p->T, Rq, hp->latent_eps);
}

static void rotate_q(const du_grad_pass *p, float *q, const float *sin) {
    const du_hparams *hp = &p->model->hp;
    du_rope_fwd(p->ctx, q + du_hparams_nope(hp), hp->n_head * hp->k_dim, hp->n_head, hp->k_dim,
                p->cos, sin, hp->rope_layout, p->T, hp->rope_dim / 2);
}

static void rotate_k(const du_grad_pass *p, float *kv_raw, const float *sin) {
    const du_hparams *hp = &p->model->hp;
    int64_t row = hp->kv_rank + hp->rope_dim;
    du_rope_fwd(p->ctx, kv_raw + hp->kv_rank, row, 1, row, p->cos, sin, hp->rope_layout, p->T,
                hp->rope_dim / 2);
}

/* q and kv_raw, rotated. */
static du_err project(const du_grad_pass *p, const du_deepseek2_layer *w, const float *x,
                      const kept *k) {
    const du_hparams *hp = &p->model->hp;
    int64_t T = p->T, D = hp->d_model, Q = hp->n_head * hp->k_dim, Rq = hp->q_rank;
    bool factored = Rq > 0;
    du_linear_out in[] = {
        {factored ? k->q_latent : k->q, factored ? Rq : Q, factored ? &w->q_a : &w->q, NULL},
        {k->kv_raw, hp->kv_rank + hp->rope_dim, &w->kv_a, NULL}};
    du_err err = du_linear_train_fwd(p->ctx, p->train, in, 2, x, D, T);
    if (err == DU_OK && factored) {
        float *q_norm = k->q_norm ? k->q_norm : DU_SCRATCH(p->ctx, float, T *Rq);
        du_linear_out q = {k->q, Q, &w->q_b, NULL};
        if (!q_norm) {
            return DU_ENOMEM;
        }
        normalise_q(p, w, k, q_norm);
        err = du_linear_train_fwd(p->ctx, p->train, &q, 1, q_norm, Rq, T);
    }
    rotate_q(p, k->q, p->sin);
    rotate_k(p, k->kv_raw, p->sin);
    return err;
}

static du_err fwd(const du_grad_pass *p, int64_t layer, float *y, const float *x, void *of_layer) {
    const du_hparams *hp = &p->model->hp;
    const du_deepseek2_layer *w = du_model_layer(p->model, layer);
    const kept *k = of_layer;
    int64_t H = hp->n_head;
    du_arena_mark mark = du_arena_get_mark(p->ctx->scratch);
    expanded e;
    du_err err = project(p, w, x, k);
    err = err ? err : expand(p, w, k, &e);
    if (err == DU_OK) {
        du_attn_train attn = du_grad_attention(p, H, H, hp->k_dim, hp->v_dim);
        err = du_attn_train_fwd(p->ctx, p->train->kind, &attn, k->heads, k->lse, k->q, e.k, e.v);
    }
    if (err == DU_OK) {
        du_linear_out out = {y, hp->d_model, &w->attn_out, NULL};
        err = du_linear_train_fwd(p->ctx, p->train, &out, 1, k->heads, H * hp->v_dim, p->T);
    }
    du_arena_release(p->ctx->scratch, mark);
    return err;
}

typedef struct {
    float *heads, *q, *k, *v; /* as kept */
    float *kv;                /* [T,H,nope+v] */
    float *kv_raw, *kv_norm;  /* [T,R+P], [T,R] */
    float *q_latent, *q_norm; /* [T,Rq] */
} grads;

static bool take_grads(const du_grad_pass *p, grads *g) {
    const du_hparams *hp = &p->model->hp;
    int64_t T = p->T, H = hp->n_head, R = hp->kv_rank, Rq = hp->q_rank;
    g->heads = DU_SCRATCH(p->ctx, float, T *H * hp->v_dim);
    g->q = DU_SCRATCH(p->ctx, float, T *H * hp->k_dim);
    g->k = DU_SCRATCH(p->ctx, float, T *H * hp->k_dim);
    g->v = DU_SCRATCH(p->ctx, float, T *H * hp->v_dim);
    g->kv = DU_SCRATCH(p->ctx, float, T *H *(du_hparams_nope(hp) + hp->v_dim));
    g->kv_raw = DU_SCRATCH(p->ctx, float, T *(R + hp->rope_dim));
    g->kv_norm = DU_SCRATCH(p->ctx, float, T *R);
    g->q_latent = DU_SCRATCH(p->ctx, float, T *Rq);
    g->q_norm = DU_SCRATCH(p->ctx, float, T *Rq);
    return g->heads && g->q && g->k && g->v && g->kv && g->kv_raw && g->kv_norm && g->q_latent &&
           g->q_norm;
}

/* From keys and values to kv_raw */
static du_err kv_bwd(const du_grad_pass *p, const du_deepseek2_layer *w, const kept *k,
                     const expanded *e, const grads *g) {
    const du_hparams *hp = &p->model->hp;
    int64_t T = p->T, R = hp->kv_rank, row = R + hp->rope_dim;
    int64_t KV = hp->n_head * (du_hparams_nope(hp) + hp->v_dim);
    memset(g->kv_raw, 0, (size_t)(T * row) * sizeof *g->kv_raw);
    heads_job job = heads_of(hp, g->k, g->v, g->kv, g->kv_raw);
    du_pool_run(p->ctx->pool, join_row, &job, T);
    rotate_k(p, g->kv_raw, p->sin_back);
    du_linear_grad out = {g->kv, KV, &w->kv_b, NULL};
    du_err err =
        du_linear_train_bwd(p->ctx, p->train, &out, 1, g->kv_norm, R, false, e->kv_norm, R, T);
    return err ? err
               : du_rmsnorm_bwd(p->ctx, &p->train->sums, g->kv_raw, row, g->kv_norm, R, k->kv_raw,
                                row, w->kv_a_norm, T, R, hp->latent_eps);
}

/* From q to the latent of queries */
static du_err q_bwd(const du_grad_pass *p, const du_deepseek2_layer *w, const kept *k,
                    const grads *g) {
    const du_hparams *hp = &p->model->hp;
    int64_t T = p->T, Rq = hp->q_rank, Q = hp->n_head * hp->k_dim;
    float *q_norm = k->q_norm ? k->q_norm : DU_SCRATCH(p->ctx, float, T *Rq);
    if (!q_norm) {
        return DU_ENOMEM;
    }
    if (!k->q_norm) {
        normalise_q(p, w, k, q_norm);
    }
    du_linear_grad out = {g->q, Q, &w->q_b, NULL};
    du_err err =
        du_linear_train_bwd(p->ctx, p->train, &out, 1, g->q_norm, Rq, false, q_norm, Rq, T);
    memset(g->q_latent, 0, (size_t)(T * Rq) * sizeof *g->q_latent);
    return err ? err
               : du_rmsnorm_bwd(p->ctx, &p->train->sums, g->q_latent, Rq, g->q_norm, Rq,
                                k->q_latent, Rq, w->q_a_norm, T, Rq, hp->latent_eps);
}

/* From the layer's output to q, k, v */
static du_err heads_bwd(const du_grad_pass *p, const du_deepseek2_layer *w, const float *dy,
                        const kept *k, const expanded *e, const grads *g) {
    const du_hparams *hp = &p->model->hp;
    int64_t H = hp->n_head, O = H * hp->v_dim, D = hp->d_model;
    du_linear_grad out = {dy, D, &w->attn_out, NULL};
    du_err err =
        du_linear_train_bwd(p->ctx, p->train, &out, 1, g->heads, O, false, k->heads, O, p->T);
    if (err == DU_OK) {
        du_attn_train attn = du_grad_attention(p, H, H, hp->k_dim, hp->v_dim);
        err = du_attn_train_bwd(p->ctx, p->train->kind, &attn, g->q, g->k, g->v, g->heads, k->heads,
                                k->lse, k->q, e->k, e->v);
    }
    return err;
}

static du_err bwd(const du_grad_pass *p, int64_t layer, float *dx, const float *dy, const float *x,
                  void *of_layer) {
    const du_hparams *hp = &p->model->hp;
    const du_deepseek2_layer *w = du_model_layer(p->model, layer);
    const kept *k = of_layer;
    int64_t D = hp->d_model, Q = hp->n_head * hp->k_dim, row = hp->kv_rank + hp->rope_dim;
    bool factored = hp->q_rank > 0;
    du_arena_mark mark = du_arena_get_mark(p->ctx->scratch);
    grads g;
    expanded e = {k->q_norm, k->kv_norm, k->k, k->v};
    du_err err = take_grads(p, &g) ? DU_OK : DU_ENOMEM;
    if (err == DU_OK && !k->k) {
        err = expand(p, w, k, &e);
    }
    err = err ? err : heads_bwd(p, w, dy, k, &e, &g);
    if (err == DU_OK) {
        rotate_q(p, g.q, p->sin_back);
        err = kv_bwd(p, w, k, &e, &g);
    }
    if (err == DU_OK && factored) {
        err = q_bwd(p, w, k, &g);
    }
    if (err == DU_OK) {
        du_linear_grad in[] = {{factored ? g.q_latent : g.q, factored ? hp->q_rank : Q,
                                factored ? &w->q_a : &w->q, NULL},
                               {g.kv_raw, row, &w->kv_a, NULL}};
        err = du_linear_train_bwd(p->ctx, p->train, in, 2, dx, D, false, x, D, p->T);
    }
    du_arena_release(p->ctx->scratch, mark);
    return err;
}

/* take_grads and expand */
static du_attn_scratch scratch(const du_hparams *hp, bool all) {
    int64_t Q = hp->n_head * hp->k_dim, O = hp->n_head * hp->v_dim, R = hp->kv_rank;
    int64_t KV = hp->n_head * (du_hparams_nope(hp) + hp->v_dim), Rq = hp->q_rank;
    int64_t of_grads = 2 * (O + Q) + KV + R + hp->rope_dim + R + 2 * Rq;
    return (du_attn_scratch){.row_values = of_grads + (all ? 0 : R + Q + O + KV + Rq),
                             .again = all ? 0 : KV * R};
}

const struct du_arch_train du_deepseek2_train = {take, scratch, fwd, bwd};
