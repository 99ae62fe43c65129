/* The choice of experts per token. */
#ifndef DU_NN_ROUTER_H
#define DU_NN_ROUTER_H

#include "nn/ctx.h"

typedef enum {
    DU_SCORE_SOFTMAX, /* DeepSeek-V2, qwen3moe: over all experts */
    DU_SCORE_SIGMOID  /* DeepSeek-V3 on */
} du_score_func;

typedef enum {
    DU_GROUP_MAX, /* DeepSeek-V2 236B: a group's score is its best; others count as score 0 */
    DU_GROUP_TOP2 /* DeepSeek-V3: the sum of its two best (biased) scores; others are excluded */
} du_group_rule;

typedef struct {
    int64_t n_expert, n_used;
    int64_t n_group, n_group_used; /* n_group <= 1: no groups */
    du_score_func score;
    du_group_rule group_rule;
    bool normalise; /* divide the chosen weights by their sum + 1e-20 */
    float scale;    /* routed_scaling_factor, after the division */
} du_router;

/* Chooses K = n_used experts for each of T tokens (DeepSeek-V2, arXiv 2405.04434, section 2.2.2;
 * DeepSeek-V3, arXiv 2412.19437, eqs. 13-16).
 *   s = score(logits); choose the K best of s + bias (equal ones: lower index first)
 *   weight = s of the chosen (without bias), normalised and scaled as configured
 * ids     [T,K] i32 out, best first      weights [T,K] f32 out
 * logits  [T,E] f32, overwritten by the scores
 * bias    [E] f32 or NULL                n_expert <= DU_MAX_EXPERTS */
void du_router_fwd(du_ctx *ctx, int32_t *ids, float *weights, float *logits, const float *bias,
                   const du_router *router, int64_t T);

#define DU_MAX_EXPERTS 1024

/* d(loss)/d(logits) of du_router_fwd, whose choice is held fixed, from dweights [T,K]:
 *
 *     normalised, S = sum of the chosen s, g = s / S:
 *         ds_k = scale / S (dweight_k - sum_j g_j dweight_j)    otherwise ds_k = scale dweight_k
 *     sigmoid: dz = ds s (1 - s)          softmax: dz_e = s_e (ds_e - sum_j ds_j s_j)
 *
 * balance: weight of each sequence's balance loss (DeepSeek-V3, arXiv 2412.19437, eqs. 17-20), T =
 * n_seq * seq_len rows, sequence after sequence, which ds gets in addition:
 *
 *     loss = sum_e f_e P_e,  f_e = E / (K seq_len) times chosen,  P_e = mean over rows of q_e,
 *     q = s / sum of s;  ds_e += balance / (seq_len sum of s) (f_e - sum_j f_j q_j)
 *
 * dlogits [T,E] f32 out; scores [T,E] and ids [T,K] as du_router_fwd left them
 * losses  [n_seq] out: sum_e f_e P_e; NULL with balance 0 */
typedef struct {
    int64_t n_seq, seq_len;
    double balance;
    double *losses;
} du_router_balance;

void du_router_bwd(du_ctx *ctx, float *dlogits, const float *scores, const int32_t *ids,
                   const float *dweights, const du_router *router,
                   const du_router_balance *balance);

#endif
