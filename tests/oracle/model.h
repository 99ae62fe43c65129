/* The loss of a model over whole sequences in double, written from the published formulas and not
 * from the layers under test. Every weight is a double that a test may move; choices of experts are
 * held at those of the first pass. */
#ifndef DU_TESTS_ORACLE_MODEL_H
#define DU_TESTS_ORACLE_MODEL_H

#include <math.h>

#include "base/mem.h"
#include "model/params.h"
#include "test.h"

enum { ORACLE_MAX = 2048 }; /* values of a sequence's queries, and of all else at once */

typedef struct {
    const du_params *params;
    double *w; /* [n_values], the weights; start from oracle_open */
    int64_t n_seq, S;
    const int32_t *tokens, *targets, *first; /* [n_seq*S]; first or NULL */
    const int32_t *next;                     /* targets of the block behind the trunk, or NULL */
    double next_scale;
    const float *weights; /* of targets, or NULL */
    double scale, z, smoothing, balance;
    int32_t *ids; /* [n_layer + 1, n_seq*S, K] */
    bool chosen;  /* ids are held */
} oracle;

static inline oracle oracle_open(const du_params *params) {
    const du_hparams *hp = &params->model->hp;
    oracle o = {.params = params};
    assert_true(hp->n_vocab <= ORACLE_MAX && hp->d_ff <= ORACLE_MAX);
    o.w = du_alloc_array((size_t)params->n_values, sizeof *o.w);
    for (int64_t i = 0; i < params->n_values; i++) {
        o.w[i] = (double)params->values[i];
    }
    return o;
}

static inline void oracle_close(oracle *o) {
    du_free(o->w);
    du_free(o->ids);
}

/* The weight of that Hugging Face name, NULL where there is none. */
static inline const double *oracle_weight(const oracle *o, const char *pattern, int64_t layer,
                                          int64_t expert) {
    char name[DU_WEIGHT_NAME_BYTES];
    du_weight_name(name, sizeof name, pattern, layer, expert);
    for (int64_t i = 0; i < o->params->n; i++) {
        if (strcmp(o->params->at[i].name, name) == 0) {
            return o->w + o->params->at[i].offset;
        }
    }
    return NULL;
}

#define LAYER(o, name, layer) oracle_weight(o, "model.layers.%d." name, layer, 0)

/* y [rows] = w x + bias */
static inline void oracle_linear(double *y, const double *w, const double *bias, const double *x,
                                 int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r++) {
        y[r] = bias ? bias[r] : 0;
        for (int64_t c = 0; c < cols; c++) {
            y[r] += w[r * cols + c] * x[c];
        }
    }
}

static inline void oracle_norm(double *y, const double *x, const double *w, int64_t n, double eps) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i] * x[i];
    }
    double r = 1 / sqrt(sum / (double)n + eps);
    for (int64_t i = 0; i < n; i++) {
        y[i] = x[i] * r * w[i];
    }
}

/* Rotates n values at position pos: pairs of neighbours, or of halves. */
static inline void oracle_rope(double *x, int64_t n, int64_t pos, double theta, bool neighbours) {
    for (int64_t i = 0; i < n / 2; i++) {
        double angle = (double)pos * pow(theta, -2.0 * (double)i / (double)n);
        int64_t a = neighbours ? 2 * i : i, b = neighbours ? 2 * i + 1 : i + n / 2;
        double xa = x[a], xb = x[b];
        x[a] = xa * cos(angle) - xb * sin(angle);
        x[b] = xa * sin(angle) + xb * cos(angle);
    }
}

static inline void oracle_ffn(double *y, const double *gate, const double *up, const double *down,
                              const double *x, int64_t F, int64_t D) {
    double g[ORACLE_MAX], u[ORACLE_MAX];
    oracle_linear(g, gate, NULL, x, F, D);
    oracle_linear(u, up, NULL, x, F, D);
    for (int64_t i = 0; i < F; i++) {
        g[i] = g[i] / (1 + exp(-g[i])) * u[i];
    }
    oracle_linear(y, down, NULL, g, D, F);
}

/* Queries, keys and values of a row, rotated; q [H,Dk], k [H,Dk], v [H,Dv]. */
static inline void oracle_qkv(const oracle *o, int64_t layer, int64_t pos, const double *x,
                              double *q, double *k, double *v) {
    const du_hparams *hp = &o->params->model->hp;
    int64_t D = hp->d_model, H = hp->n_head, G = hp->n_head_kv, Dk = hp->k_dim, Dv = hp->v_dim;
    int64_t P = hp->rope_dim, R = hp->kv_rank, nope = Dk - P, Rq = hp->q_rank;
    if (R == 0) {
        double ks[ORACLE_MAX], vs[ORACLE_MAX];
        const double *q_norm = LAYER(o, "self_attn.q_norm.weight", layer);
        const double *k_norm = LAYER(o, "self_attn.k_norm.weight", layer);
        oracle_linear(q, LAYER(o, "self_attn.q_proj.weight", layer),
                      LAYER(o, "self_attn.q_proj.bias", layer), x, H * Dk, D);
        oracle_linear(ks, LAYER(o, "self_attn.k_proj.weight", layer),
                      LAYER(o, "self_attn.k_proj.bias", layer), x, G * Dk, D);
        oracle_linear(vs, LAYER(o, "self_attn.v_proj.weight", layer),
                      LAYER(o, "self_attn.v_proj.bias", layer), x, G * Dv, D);
        for (int64_t h = 0; h < H; h++) {
            int64_t g = h / (H / G);
            memcpy(k + h * Dk, ks + g * Dk, (size_t)Dk * sizeof *k);
            memcpy(v + h * Dv, vs + g * Dv, (size_t)Dv * sizeof *v);
            if (q_norm) {
                oracle_norm(q + h * Dk, q + h * Dk, q_norm, Dk, (double)hp->eps);
                oracle_norm(k + h * Dk, k + h * Dk, k_norm, Dk, (double)hp->eps);
            }
            oracle_rope(q + h * Dk, P, pos, hp->rope_theta, false);
            oracle_rope(k + h * Dk, P, pos, hp->rope_theta, false);
        }
        return;
    }
    double c[ORACLE_MAX], latent[ORACLE_MAX], kv[ORACLE_MAX];
    if (Rq > 0) {
        double a[ORACLE_MAX];
        oracle_linear(a, LAYER(o, "self_attn.q_a_proj.weight", layer), NULL, x, Rq, D);
        oracle_norm(a, a, LAYER(o, "self_attn.q_a_layernorm.weight", layer), Rq,
                    (double)hp->latent_eps);
        oracle_linear(q, LAYER(o, "self_attn.q_b_proj.weight", layer), NULL, a, H * Dk, Rq);
    } else {
        oracle_linear(q, LAYER(o, "self_attn.q_proj.weight", layer), NULL, x, H * Dk, D);
    }
    oracle_linear(c, LAYER(o, "self_attn.kv_a_proj_with_mqa.weight", layer), NULL, x, R + P, D);
    oracle_norm(latent, c, LAYER(o, "self_attn.kv_a_layernorm.weight", layer), R,
                (double)hp->latent_eps);
    oracle_linear(kv, LAYER(o, "self_attn.kv_b_proj.weight", layer), NULL, latent, H * (nope + Dv),
                  R);
    oracle_rope(c + R, P, pos, hp->rope_theta, true);
    for (int64_t h = 0; h < H; h++) {
        oracle_rope(q + h * Dk + nope, P, pos, hp->rope_theta, true);
        memcpy(k + h * Dk, kv + h * (nope + Dv), (size_t)nope * sizeof *k);
        memcpy(k + h * Dk + nope, c + R, (size_t)P * sizeof *k);
        memcpy(v + h * Dv, kv + h * (nope + Dv) + nope, (size_t)Dv * sizeof *v);
    }
}

/* out [H*Dv] of row t among the S rows of its sequence. */
static inline void oracle_attend(const oracle *o, int64_t t, int64_t first, const double *q,
                                 const double *k, const double *v, double *out) {
    const du_hparams *hp = &o->params->model->hp;
    int64_t H = hp->n_head, Dk = hp->k_dim, Dv = hp->v_dim;
    for (int64_t h = 0; h < H; h++) {
        double p[ORACLE_MAX], sum = 0;
        for (int64_t s = first; s <= t; s++) {
            double dot = 0;
            for (int64_t i = 0; i < Dk; i++) {
                dot += q[(t * H + h) * Dk + i] * k[(s * H + h) * Dk + i];
            }
            p[s] = exp(dot * (double)o->params->model->attn_scale);
            sum += p[s];
        }
        for (int64_t i = 0; i < Dv; i++) {
            out[h * Dv + i] = 0;
            for (int64_t s = first; s <= t; s++) {
                out[h * Dv + i] += p[s] / sum * v[(s * H + h) * Dv + i];
            }
        }
    }
}

static inline double oracle_score_group(const double *choice, int64_t n, du_group_rule rule) {
    double best = -INFINITY, second = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        second = choice[i] > best ? best : fmax(second, choice[i]);
        best = fmax(best, choice[i]);
    }
    return rule == DU_GROUP_MAX ? best : best + second;
}

/* The K experts of a row (DeepSeek-V3, arXiv 2412.19437, eqs. 14-16). */
static inline void oracle_choose(const oracle *o, const double *s, const double *bias,
                                 int32_t *ids) {
    const du_router *r = &o->params->model->hp.router;
    int64_t E = r->n_expert, n_group = r->n_group > 1 ? r->n_group : 1, size = E / n_group;
    double choice[ORACLE_MAX], groups[ORACLE_MAX];
    for (int64_t e = 0; e < E; e++) {
        choice[e] = s[e] + (bias ? bias[e] : 0);
    }
    for (int64_t g = 0; g < n_group; g++) {
        groups[g] = oracle_score_group(choice + g * size, size, r->group_rule);
    }
    for (int64_t e = 0; n_group > 1 && e < E; e++) {
        int64_t better = 0;
        for (int64_t g = 0; g < n_group; g++) {
            better += groups[g] > groups[e / size];
        }
        if (better >= r->n_group_used) {
            choice[e] = -INFINITY;
        }
    }
    for (int64_t k = 0; k < r->n_used; k++) {
        int64_t best = 0;
        for (int64_t e = 0; e < E; e++) {
            best = choice[e] > choice[best] ? e : best;
        }
        ids[k] = (int32_t)best;
        choice[best] = -INFINITY;
    }
}

/* y of a layer of experts; q [E] gets s / sum of s. */
static inline void oracle_moe(oracle *o, int64_t layer, int64_t row, const double *x, double *y,
                              double *q) {
    const du_hparams *hp = &o->params->model->hp;
    const du_router *r = &hp->router;
    int64_t D = hp->d_model, E = r->n_expert, K = r->n_used, F = hp->d_ff_expert;
    int32_t *ids = o->ids + (layer * o->n_seq * o->S + row) * K;
    double s[ORACLE_MAX], sum = 0, all = 0;
    oracle_linear(s, LAYER(o, "mlp.gate.weight", layer), NULL, x, E, D);
    for (int64_t e = 0; e < E; e++) {
        s[e] = r->score == DU_SCORE_SIGMOID ? 1 / (1 + exp(-s[e])) : exp(s[e]);
        all += s[e];
    }
    for (int64_t e = 0; e < E; e++) {
        q[e] = s[e] / all;
        s[e] = r->score == DU_SCORE_SOFTMAX ? q[e] : s[e];
    }
    if (!o->chosen) {
        oracle_choose(o, s, LAYER(o, "mlp.gate.e_score_correction_bias", layer), ids);
    }
    for (int64_t k = 0; k < K; k++) {
        sum += s[ids[k]];
    }
    memset(y, 0, (size_t)D * sizeof *y);
    for (int64_t k = 0; k < K; k++) {
        double out[ORACLE_MAX], g = s[ids[k]] / (r->normalise ? sum : 1) * (double)r->scale;
        oracle_ffn(
            out, oracle_weight(o, "model.layers.%d.mlp.experts.%d.gate_proj.weight", layer, ids[k]),
            oracle_weight(o, "model.layers.%d.mlp.experts.%d.up_proj.weight", layer, ids[k]),
            oracle_weight(o, "model.layers.%d.mlp.experts.%d.down_proj.weight", layer, ids[k]), x,
            F, D);
        for (int64_t i = 0; i < D; i++) {
            y[i] += g * out[i];
        }
    }
    const double *shared = LAYER(o, "mlp.shared_experts.gate_proj.weight", layer);
    if (shared) {
        double out[ORACLE_MAX];
        oracle_ffn(out, shared, LAYER(o, "mlp.shared_experts.up_proj.weight", layer),
                   LAYER(o, "mlp.shared_experts.down_proj.weight", layer), x,
                   F * hp->n_shared_expert, D);
        for (int64_t i = 0; i < D; i++) {
            y[i] += out[i];
        }
    }
}

/* Layer over the rows of one sequence; returns its balance loss. */
static inline double oracle_layer(oracle *o, int64_t layer, int64_t seq, double *x) {
    const du_hparams *hp = &o->params->model->hp;
    int64_t S = o->S, D = hp->d_model, H = hp->n_head, Dk = hp->k_dim, Dv = hp->v_dim;
    int64_t E = hp->router.n_expert > 0 ? hp->router.n_expert : 1;
    double q[ORACLE_MAX], k[ORACLE_MAX], v[ORACLE_MAX], n[ORACLE_MAX], heads[ORACLE_MAX];
    double y[ORACLE_MAX];
    double P[ORACLE_MAX] = {0}, f[ORACLE_MAX] = {0}, balance = 0;
    for (int64_t t = 0; t < S; t++) {
        oracle_norm(n, x + t * D, LAYER(o, "input_layernorm.weight", layer), D, (double)hp->eps);
        oracle_qkv(o, layer, t, n, q + t * H * Dk, k + t * H * Dk, v + t * H * Dv);
    }
    for (int64_t t = 0; t < S; t++) {
        int64_t first = o->first ? o->first[seq * S + t] : 0;
        oracle_attend(o, t, first, q, k, v, heads);
        oracle_linear(y, LAYER(o, "self_attn.o_proj.weight", layer), NULL, heads, D, H * Dv);
        for (int64_t i = 0; i < D; i++) {
            x[t * D + i] += y[i];
        }
        oracle_norm(n, x + t * D, LAYER(o, "post_attention_layernorm.weight", layer), D,
                    (double)hp->eps);
        if (layer < hp->n_dense_layer) {
            oracle_ffn(y, LAYER(o, "mlp.gate_proj.weight", layer),
                       LAYER(o, "mlp.up_proj.weight", layer),
                       LAYER(o, "mlp.down_proj.weight", layer), n, hp->d_ff, D);
        } else {
            double scores[ORACLE_MAX];
            int64_t K = hp->router.n_used, row = seq * S + t;
            oracle_moe(o, layer, row, n, y, scores);
            for (int64_t e = 0; e < E; e++) {
                P[e] += scores[e] / (double)S;
            }
            for (int64_t i = 0; i < K; i++) {
                f[o->ids[(layer * o->n_seq * S + row) * K + i]] += (double)E / (double)(K * S);
            }
        }
        for (int64_t i = 0; i < D; i++) {
            x[t * D + i] += y[i];
        }
    }
    for (int64_t e = 0; layer >= hp->n_dense_layer && e < E; e++) {
        balance += f[e] * P[e];
    }
    return balance;
}

/* Cross-entropy of a row with smoothing and z-loss, times its weight; x normalised by `norm`. */
static inline double oracle_row_loss(const oracle *o, int64_t row, const double *x,
                                     const double *norm, const int32_t *targets) {
    const du_hparams *hp = &o->params->model->hp;
    int64_t D = hp->d_model, V = hp->n_vocab;
    const double *out = oracle_weight(o, "lm_head.weight", 0, 0);
    double n[ORACLE_MAX], logits[ORACLE_MAX], sum = 0, mean = 0;
    if (targets[row] < 0) {
        return 0;
    }
    oracle_norm(n, x, norm, D, (double)hp->eps);
    oracle_linear(logits, out ? out : oracle_weight(o, "model.embed_tokens.weight", 0, 0), NULL, n,
                  V, D);
    for (int64_t i = 0; i < V; i++) {
        sum += exp(logits[i]);
        mean += logits[i] / (double)V;
    }
    double lse = log(sum), target = logits[targets[row]];
    double ce = lse - (1 - o->smoothing) * target - o->smoothing * mean;
    return (ce + o->z * lse * lse) * (o->weights ? (double)o->weights[row] : 1);
}

/* The rows of the block behind the trunk (DeepSeek-V3, arXiv 2412.19437, eqs. 21-24), from those of
 * the trunk; returns its balance loss. */
static inline double oracle_next(oracle *o, int64_t seq, double *x) {
    const du_hparams *hp = &o->params->model->hp;
    int64_t S = o->S, D = hp->d_model, layer = hp->n_layer;
    const double *embed = oracle_weight(o, "model.embed_tokens.weight", 0, 0);
    for (int64_t t = 0; t < S; t++) {
        double in[ORACLE_MAX], h[ORACLE_MAX];
        int32_t token = o->tokens[seq * S + (t + 1 < S ? t + 1 : t)];
        oracle_norm(in, embed + token * D, LAYER(o, "enorm.weight", layer), D, (double)hp->eps);
        oracle_norm(h, x + t * D, oracle_weight(o, "model.norm.weight", 0, 0), D, (double)hp->eps);
        oracle_norm(in + D, h, LAYER(o, "hnorm.weight", layer), D, (double)hp->eps);
        oracle_linear(x + t * D, LAYER(o, "eh_proj.weight", layer), NULL, in, D, 2 * D);
    }
    return oracle_layer(o, layer, seq, x);
}

/* scale * sum of rows' losses + balance / n_seq * sum of balance losses */
static inline double oracle_loss(oracle *o) {
    const du_hparams *hp = &o->params->model->hp;
    int64_t S = o->S, D = hp->d_model;
    const double *embed = oracle_weight(o, "model.embed_tokens.weight", 0, 0);
    double loss = 0, x[ORACLE_MAX];
    assert_true(S * hp->n_head * (hp->k_dim + hp->v_dim) <= ORACLE_MAX && S * D <= ORACLE_MAX);
    if (!o->ids) {
        int64_t K = hp->router.n_used > 0 ? hp->router.n_used : 1;
        o->ids = du_alloc_zero((size_t)((hp->n_layer + 1) * o->n_seq * S * K), sizeof *o->ids);
    }
    for (int64_t seq = 0; seq < o->n_seq; seq++) {
        for (int64_t t = 0; t < S; t++) {
            memcpy(x + t * D, embed + o->tokens[seq * S + t] * D, (size_t)D * sizeof *x);
        }
        for (int64_t layer = 0; layer < hp->n_layer; layer++) {
            loss += o->balance / (double)o->n_seq * oracle_layer(o, layer, seq, x);
        }
        for (int64_t t = 0; t < S; t++) {
            loss +=
                o->scale * oracle_row_loss(o, seq * S + t, x + t * D,
                                           oracle_weight(o, "model.norm.weight", 0, 0), o->targets);
        }
        loss += o->next ? o->balance / (double)o->n_seq * oracle_next(o, seq, x) : 0;
        for (int64_t t = 0; o->next && t < S; t++) {
            loss += o->next_scale *
                    oracle_row_loss(o, seq * S + t, x + t * D,
                                    LAYER(o, "shared_head.norm.weight", hp->n_layer), o->next);
        }
    }
    o->chosen = true;
    return loss;
}

#endif
