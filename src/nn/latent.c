#include "nn/latent.h"

#include <string.h>

#include "nn/expanded.h"
#include "nn/linear.h"

du_err du_latent_absorbed_fwd(du_ctx *ctx, float *out, const float *q, const du_latent_weights *w,
                              const du_kv_layout *kv, int64_t layer, const du_attn_rows *rows,
                              const du_attn_params *params) {
    int64_t T = rows->T, H = params->H, R = w->k_heads->rows, nope = w->k_heads->cols;
    int64_t row = kv->k_dim, P = row - R, k_dim = nope + P;
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    float *absorbed = DU_SCRATCH(ctx, float, T *H *row); /* [T,H,R+P] */
    float *latent = DU_SCRATCH(ctx, float, T *H *R);     /* [T,H,R] */
    du_err err = absorbed && latent ? DU_OK : DU_ENOMEM;
    if (err == DU_OK) {
        err = du_heads_fwd(ctx, absorbed, row, w->k_heads, q, k_dim, H, T);
    }
    if (err == DU_OK) {
        for (int64_t i = 0; i < T * H; i++) {
            memcpy(absorbed + i * row + R, q + i * k_dim + nope, (size_t)P * sizeof(float));
        }
        err = du_attn_fwd(ctx, latent, absorbed, kv, layer, rows, params);
    }
    if (err == DU_OK) {
        du_tap(ctx, "attn_latent", layer, latent, T, H * R);
        err = du_heads_fwd(ctx, out, w->v_heads->rows, w->v_heads, latent, R, H, T);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}

/* What multiply-adds cost, one of absorbed scores and weighted sums being 1: those with the heads'
 * weights, for a row in absorbed form or a position in expanded form; expanded scores and sums; and
 * unpacking a weight. Fitted to bench_latent on a Granite Rapids core (docs/KERNELS.md). */
typedef struct {
    double absorb, expand, score, unpack;
} costs;

static const costs exact = {0.44, 0.41, 0.9, 6};
static const costs exact_avx512 = {0.32, 0.52, 0.85, 10};
static const costs tiles = {0.65, 0.88, 1.37, 49};       /* vdpbf16ps */
static const costs matrix_unit = {3.6, 0.55, 2.45, 150}; /* AMX */

static const costs *costs_of(const du_kern *kern, bool rounded) {
    if (rounded) {
        return kern->attn.matrix_unit ? &matrix_unit : &tiles;
    }
    return kern->isa == DU_ISA_AVX512 ? &exact_avx512 : &exact;
}

bool du_latent_expands(const du_kern *kern, const du_latent_dims *dims, du_dtype cache,
                       bool may_round, int64_t n_rows, int64_t n_cached) {
    const costs *c = costs_of(kern, may_round && kern->attn.load[cache]);
    double n = (double)n_rows, keys = n + (double)n_cached, pairs = n * (keys - (n - 1) / 2);
    double weights = (double)((dims->nope + dims->v_dim) * dims->R);
    double absorbed = c->absorb * n * weights + pairs * (double)(2 * dims->R + dims->P);
    double expanded = (c->unpack + c->expand * keys) * weights +
                      c->score * pairs * (double)(dims->nope + dims->P + dims->v_dim);
    return expanded < absorbed;
}

typedef struct {
    du_ctx *ctx;
    const du_attn_rows *rows;
    du_latent_dims dims;
    du_dtype cache;
    bool may_round;
} choice;

/* Rows from t on that are of one sequence and follow each other, and whether they expand. */
static int64_t run_at(const choice *c, int64_t t, bool *expands) {
    const du_attn_rows *rows = c->rows;
    int64_t n = 1;
    while (t + n < rows->T && rows->seq[t + n] == rows->seq[t] &&
           rows->pos[t + n] == rows->pos[t] + n) {
        n++;
    }
    *expands = !c->ctx->same_bits && !c->ctx->tap &&
               du_latent_expands(c->ctx->kern, &c->dims, c->cache, c->may_round, n, rows->pos[t]);
    return n;
}

/* Rows from t on that are computed together: a run that expands, or all before the next of those.
 */
static int64_t part_at(const choice *c, int64_t t, bool *expands) {
    bool next = false;
    int64_t n = run_at(c, t, expands);
    while (!*expands && t + n < c->rows->T) {
        int64_t run = run_at(c, t + n, &next);
        if (next) {
            break;
        }
        n += run;
    }
    return n;
}

du_err du_latent_fwd(du_ctx *ctx, float *out, const float *q, const du_latent_weights *w,
                     const du_kv_layout *kv, int64_t layer, const du_attn_rows *rows,
                     const du_attn_params *params) {
    int64_t R = w->k_heads->rows, P = kv->k_dim - R, nope = w->k_heads->cols;
    int64_t v_dim = w->v_heads->rows, H = params->H;
    choice c = {ctx, rows, {R, P, nope, v_dim}, kv->dtype, params->may_round};
    du_err err = DU_OK;
    for (int64_t t = 0, n; err == DU_OK && t < rows->T; t += n) {
        bool expands;
        n = part_at(&c, t, &expands);
        du_attn_rows part = {n, rows->seq + t, rows->pos + t};
        err = (expands ? du_expanded_fwd : du_latent_absorbed_fwd)(
            ctx, out + t * H * v_dim, q + t * H * (nope + P), w, kv, layer, &part, params);
    }
    return err;
}
