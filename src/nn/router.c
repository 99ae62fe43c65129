#include "nn/router.h"

#include <math.h>
#include <string.h>

typedef struct {
    int32_t *ids;
    float *weights, *logits;
    const float *bias;
    const du_router *router;
} router_job;

/* Softmax or sigmoid in place. Sums in f32, in order, as the reference does. */
static void score_row(float *s, const du_router *r) {
    if (r->score == DU_SCORE_SIGMOID) {
        for (int64_t e = 0; e < r->n_expert; e++) {
            s[e] = 1.0f / (1.0f + expf(-s[e]));
        }
        return;
    }
    float max = -INFINITY, sum = 0;
    for (int64_t e = 0; e < r->n_expert; e++) {
        max = fmaxf(max, s[e]);
    }
    for (int64_t e = 0; e < r->n_expert; e++) {
        s[e] = expf(s[e] - max);
        sum += s[e];
    }
    for (int64_t e = 0; e < r->n_expert; e++) {
        s[e] /= sum;
    }
}

/* The index of the largest value not yet taken (which is then marked with -INFINITY); the lower
 * index of equals. NaN never wins, and the first free index is taken when nothing else is left. */
static int64_t take_best(float *v, bool *taken, int64_t n) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++) {
        if (!taken[i] && (best < 0 || v[i] > v[best] || isnan(v[best]))) {
            best = i;
        }
    }
    taken[best] = true;
    return best;
}

static float group_score(const float *choice, int64_t n, du_group_rule rule) {
    float first = -INFINITY, second = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (choice[i] > first) {
            second = first;
            first = choice[i];
        } else if (choice[i] > second) {
            second = choice[i];
        }
    }
    return rule == DU_GROUP_MAX ? first : n > 1 ? first + second : first;
}

/* Lowers the choice values of all groups but the best n_group_used. */
static void mask_groups(float *choice, const du_router *r) {
    float scores[DU_MAX_EXPERTS];
    bool kept[DU_MAX_EXPERTS] = {false};
    int64_t size = r->n_expert / r->n_group;
    for (int64_t g = 0; g < r->n_group; g++) {
        scores[g] = group_score(choice + g * size, size, r->group_rule);
    }
    for (int64_t k = 0; k < r->n_group_used; k++) {
        take_best(scores, kept, r->n_group);
    }
    for (int64_t e = 0; e < r->n_group * size; e++) {
        if (!kept[e / size]) {
            choice[e] = r->group_rule == DU_GROUP_MAX ? 0 : -INFINITY;
        }
    }
}

static void route_row(void *arg, int64_t t, int64_t i_thread) {
    (void)i_thread;
    const router_job *job = arg;
    const du_router *r = job->router;
    float *s = job->logits + t * r->n_expert;
    float choice[DU_MAX_EXPERTS];
    bool taken[DU_MAX_EXPERTS] = {false};
    score_row(s, r);
    for (int64_t e = 0; e < r->n_expert; e++) {
        choice[e] = job->bias ? s[e] + job->bias[e] : s[e];
    }
    if (r->n_group > 1) {
        mask_groups(choice, r);
    }
    float sum = 0;
    for (int64_t k = 0; k < r->n_used; k++) {
        int64_t e = take_best(choice, taken, r->n_expert);
        job->ids[t * r->n_used + k] = (int32_t)e;
        job->weights[t * r->n_used + k] = s[e];
        sum += s[e];
    }
    for (int64_t k = 0; k < r->n_used; k++) {
        float *w = &job->weights[t * r->n_used + k];
        if (r->normalise) {
            *w /= sum + 1e-20f;
        }
        *w *= r->scale;
    }
}

void du_router_fwd(du_ctx *ctx, int32_t *ids, float *weights, float *logits, const float *bias,
                   const du_router *router, int64_t T) {
    DU_CHECK(router->n_expert <= DU_MAX_EXPERTS && router->n_used <= router->n_expert);
    router_job job = {ids, weights, logits, bias, router};
    du_pool_run(T > 16 ? ctx->pool : NULL, route_row, &job, T);
}

typedef struct {
    float *dlogits;
    const float *scores, *dweights;
    const int32_t *ids;
    const du_router *router;
    const du_router_balance *balance;
} router_bwd_job;

/* ds of the chosen experts of a row; the others stay 0. */
static void choice_bwd(float *ds, const float *s, const int32_t *ids, const float *dweights,
                       const du_router *r) {
    float sum = 1, mean = 0;
    if (r->normalise) {
        sum = 1e-20f;
        for (int64_t k = 0; k < r->n_used; k++) {
            sum += s[ids[k]];
        }
        for (int64_t k = 0; k < r->n_used; k++) {
            mean += s[ids[k]] / sum * dweights[k];
        }
    }
    for (int64_t k = 0; k < r->n_used; k++) {
        ds[ids[k]] = r->scale / sum * (dweights[k] - mean);
    }
}

/* dz from ds, in place */
static void score_bwd(float *ds, const float *s, const du_router *r) {
    float mean = 0;
    for (int64_t e = 0; r->score == DU_SCORE_SOFTMAX && e < r->n_expert; e++) {
        mean += ds[e] * s[e];
    }
    for (int64_t e = 0; e < r->n_expert; e++) {
        ds[e] = r->score == DU_SCORE_SIGMOID ? ds[e] * s[e] * (1 - s[e]) : s[e] * (ds[e] - mean);
    }
}

static double sum_of(const float *s, int64_t n) {
    double sum = 0;
    for (int64_t e = 0; e < n; e++) {
        sum += s[e];
    }
    return sum;
}

/* f [E] and the loss of sequence i */
static double balance_fwd(const router_bwd_job *job, int64_t i, double *f) {
    const du_router *r = job->router;
    int64_t E = r->n_expert, K = r->n_used, n = job->balance->seq_len;
    double P[DU_MAX_EXPERTS] = {0}, loss = 0;
    memset(f, 0, (size_t)E * sizeof *f);
    for (int64_t t = i * n; t < (i + 1) * n; t++) {
        const float *s = job->scores + t * E;
        double sum = sum_of(s, E);
        for (int64_t e = 0; e < E; e++) {
            P[e] += s[e] / sum / (double)n;
        }
        for (int64_t k = 0; k < K; k++) {
            f[job->ids[t * K + k]] += (double)E / (double)(K * n);
        }
    }
    for (int64_t e = 0; e < E; e++) {
        loss += f[e] * P[e];
    }
    return loss;
}

static void balance_bwd(float *ds, const float *s, const double *f, const router_bwd_job *job) {
    int64_t E = job->router->n_expert;
    double sum = sum_of(s, E), mean = 0;
    for (int64_t e = 0; e < E; e++) {
        mean += f[e] * s[e] / sum;
    }
    double scale = job->balance->balance / ((double)job->balance->seq_len * sum);
    for (int64_t e = 0; e < E; e++) {
        ds[e] += (float)(scale * (f[e] - mean));
    }
}

static void route_bwd_sequence(void *arg, int64_t i, int64_t i_thread) {
    (void)i_thread;
    const router_bwd_job *job = arg;
    const du_router *r = job->router;
    int64_t E = r->n_expert, K = r->n_used, n = job->balance->seq_len;
    bool balanced = job->balance->balance > 0;
    double f[DU_MAX_EXPERTS];
    if (balanced) {
        job->balance->losses[i] = balance_fwd(job, i, f);
    }
    for (int64_t t = i * n; t < (i + 1) * n; t++) {
        float *ds = job->dlogits + t * E;
        const float *s = job->scores + t * E;
        memset(ds, 0, (size_t)E * sizeof *ds);
        choice_bwd(ds, s, job->ids + t * K, job->dweights + t * K, r);
        if (balanced) {
            balance_bwd(ds, s, f, job);
        }
        score_bwd(ds, s, r);
    }
}

void du_router_bwd(du_ctx *ctx, float *dlogits, const float *scores, const int32_t *ids,
                   const float *dweights, const du_router *router,
                   const du_router_balance *balance) {
    router_bwd_job job = {dlogits, scores, dweights, ids, router, balance};
    du_pool_run(ctx->pool, route_bwd_sequence, &job, balance->n_seq);
}
