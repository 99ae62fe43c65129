#include "nn/router.h"

#include <math.h>

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
