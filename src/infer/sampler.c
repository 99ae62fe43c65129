#include "infer/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

typedef struct {
    int32_t id;
    float logit;
} candidate;

struct du_sampler {
    du_sampler_params p;
    int64_t V;
    du_rng rng;
    int32_t *n_generated; /* [V] */
    int32_t *n_window;    /* [V] */
    int32_t *history;     /* [n_max] prompt and answer, in order */
    int64_t n_history, n_max;
    float *logits;         /* [V] after bias and penalties */
    candidate *candidates; /* [V] */
};

du_sampler_params du_sampler_defaults(void) {
    return (du_sampler_params){.top_p = 1, .repeat_penalty = 1};
}

static du_err check(const du_sampler_params *p, int64_t V, du_diag *diag) {
    const struct {
        const char *name;
        double value, min, max;
    } ranges[] = {
        {"temperature", p->temperature, 0, 100},
        {"top-k", (double)p->top_k, 0, 1e9},
        {"top-p", p->top_p, 0, 1},
        {"min-p", p->min_p, 0, 1},
        {"repeat penalty", p->repeat_penalty, 1e-3, 1e3},
        {"repeat window", (double)p->repeat_window, 0, 1e9},
        {"presence penalty", p->presence_penalty, -100, 100},
        {"frequency penalty", p->frequency_penalty, -100, 100},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (!(ranges[i].value >= ranges[i].min && ranges[i].value <= ranges[i].max)) {
            return du_fail(diag, DU_EINVAL, "%s: %g is not between %g and %g", ranges[i].name,
                           ranges[i].value, ranges[i].min, ranges[i].max);
        }
    }
    for (int64_t i = 0; i < p->n_bias; i++) {
        if (p->bias[i].token < 0 || p->bias[i].token >= V || isnan(p->bias[i].bias)) {
            return du_fail(diag, DU_EINVAL, "logit bias: token %d is not in the vocabulary of %lld",
                           p->bias[i].token, (long long)V);
        }
    }
    return DU_OK;
}

du_err du_sampler_new(du_sampler **out, const du_sampler_params *params, int64_t V, int64_t n_max,
                      du_diag *diag) {
    du_err err = check(params, V, diag);
    if (err != DU_OK) {
        return err;
    }
    du_sampler *s = du_alloc_zero(1, sizeof *s);
    if (!s) {
        return du_fail_nomem(diag, "the sampler");
    }
    s->p = *params;
    s->V = V;
    s->n_max = n_max;
    du_rng_init(&s->rng, params->seed);
    s->n_generated = du_alloc_zero((size_t)V, sizeof *s->n_generated);
    s->n_window = du_alloc_zero((size_t)V, sizeof *s->n_window);
    s->history = du_alloc_array((size_t)n_max, sizeof *s->history);
    s->logits = du_alloc_array((size_t)V, sizeof *s->logits);
    s->candidates = du_alloc_array((size_t)V, sizeof *s->candidates);
    if (!s->n_generated || !s->n_window || !s->history || !s->logits || !s->candidates) {
        du_sampler_free(s);
        return du_fail_nomem(diag, "the sampler");
    }
    *out = s;
    return DU_OK;
}

void du_sampler_free(du_sampler *s) {
    if (!s) {
        return;
    }
    du_free(s->n_generated);
    du_free(s->n_window);
    du_free(s->history);
    du_free(s->logits);
    du_free(s->candidates);
    du_free(s);
}

void du_sampler_see(du_sampler *s, int32_t token, bool generated) {
    if (token < 0 || token >= s->V || s->n_history >= s->n_max) {
        return;
    }
    s->n_generated[token] += generated;
    s->n_window[token]++;
    s->history[s->n_history++] = token;
    if (s->p.repeat_window > 0 && s->n_history > s->p.repeat_window) {
        s->n_window[s->history[s->n_history - 1 - s->p.repeat_window]]--;
    }
}

static void adjust(du_sampler *s, const float *logits) {
    const du_sampler_params *p = &s->p;
    memcpy(s->logits, logits, (size_t)s->V * sizeof *logits);
    for (int64_t i = 0; i < p->n_bias; i++) {
        s->logits[p->bias[i].token] += p->bias[i].bias;
    }
    if (p->repeat_penalty == 1 && p->presence_penalty == 0 && p->frequency_penalty == 0) {
        return;
    }
    float repeat = (float)p->repeat_penalty;
    for (int64_t v = 0; v < s->V; v++) {
        float *l = &s->logits[v];
        if (s->n_window[v] > 0) {
            *l = *l > 0 ? *l / repeat : *l * repeat;
        }
        if (s->n_generated[v] > 0) {
            *l -= (float)(p->presence_penalty + p->frequency_penalty * s->n_generated[v]);
        }
    }
}

static int32_t argmax(const float *logits, int64_t V) {
    int32_t best = 0;
    for (int32_t v = 1; v < V; v++) {
        if (logits[v] > logits[best] || (isnan(logits[best]) && !isnan(logits[v]))) {
            best = v;
        }
    }
    return best;
}

/* Better first: higher logit, then lower id. */
static int by_logit(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) {
        return x->logit > y->logit ? -1 : 1;
    }
    return x->id < y->id ? -1 : 1;
}

/* Moves the k best of n to the front, in no order: quickselect around a middle element. */
static void select_best(candidate *c, int64_t n, int64_t k) {
    int64_t lo = 0, hi = n - 1;
    while (lo < hi) {
        candidate pivot = c[lo + (hi - lo) / 2];
        int64_t i = lo, j = hi;
        while (i <= j) {
            while (by_logit(&c[i], &pivot) < 0 && c[i].id != pivot.id) {
                i++;
            }
            while (by_logit(&c[j], &pivot) > 0 && c[j].id != pivot.id) {
                j--;
            }
            if (i <= j) {
                candidate swap = c[i];
                c[i++] = c[j];
                c[j--] = swap;
            }
        }
        if (k - 1 <= j) {
            hi = j;
        } else if (k - 1 >= i) {
            lo = i;
        } else {
            return;
        }
    }
}

/* The logarithm of a candidate's share, up to a constant: 0 for the best one. The difference is
 * divided, not the logits, which a small temperature would make infinite. */
static double log_weight(const candidate *c, float max, double temperature) {
    return ((double)c->logit - (double)max) / temperature;
}

/* How many of the n candidates top-p keeps; they are then first and sorted. Sorts only as many as
 * needed: first 64, then 8 times as many, and so on. */
static int64_t keep_top_p(candidate *c, int64_t n, float max, double temperature, double top_p) {
    double total = 0;
    for (int64_t i = 0; i < n; i++) {
        total += exp(log_weight(&c[i], max, temperature));
    }
    double want = top_p * total;
    for (int64_t part = 64;; part *= 8) {
        int64_t k = part < n ? part : n;
        select_best(c, n, k);
        qsort(c, (size_t)k, sizeof *c, by_logit);
        double sum = 0;
        for (int64_t i = 0; i < k; i++) {
            sum += exp(log_weight(&c[i], max, temperature));
            if (sum >= want) {
                return i + 1;
            }
        }
        if (k == n) {
            return n;
        }
    }
}

static int32_t draw(du_sampler *s, float max) {
    const du_sampler_params *p = &s->p;
    candidate *c = s->candidates;
    int64_t n = 0;
    for (int32_t v = 0; v < s->V; v++) {
        if (s->logits[v] > -INFINITY) {
            c[n++] = (candidate){v, s->logits[v]};
        }
    }
    if (p->top_k > 0 && p->top_k < n) {
        select_best(c, n, p->top_k);
        n = p->top_k;
    }
    if (p->top_p < 1) {
        n = keep_top_p(c, n, max, p->temperature, p->top_p);
    }
    double least = p->min_p > 0 ? log(p->min_p) : -INFINITY, total = 0;
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        double weight = log_weight(&c[i], max, p->temperature);
        if (weight >= least) {
            total += exp(weight);
            c[kept++] = c[i];
        }
    }
    double at = du_rng_uniform(&s->rng) * total;
    for (int64_t i = 0; i < kept; i++) {
        at -= exp(log_weight(&c[i], max, p->temperature));
        if (at < 0) {
            return c[i].id;
        }
    }
    return c[kept - 1].id; /* rounding left a crumb */
}

int32_t du_sampler_next(du_sampler *s, const float *logits) {
    adjust(s, logits);
    int32_t best = argmax(s->logits, s->V);
    bool one =
        s->p.temperature == 0 || !(s->logits[best] > -INFINITY) || s->logits[best] == INFINITY;
    int32_t token = one ? best : draw(s, s->logits[best]);
    du_sampler_see(s, token, true);
    return token;
}

void du_top_log_probs(const float *logits, int64_t V, int64_t n, int32_t *ids, double *log_probs) {
    float max = logits[argmax(logits, V)];
    double sum = 0;
    for (int64_t v = 0; v < V; v++) {
        sum += exp((double)logits[v] - (double)max);
    }
    /* n is small: keep the best n sorted by insertion. */
    int64_t have = 0;
    for (int32_t v = 0; v < V; v++) {
        if (have == n && !(n > 0 && logits[v] > logits[ids[n - 1]])) {
            continue;
        }
        int64_t at = have < n ? have++ : n - 1;
        for (; at > 0 && logits[v] > logits[ids[at - 1]]; at--) {
            ids[at] = ids[at - 1];
        }
        ids[at] = v;
    }
    for (int64_t i = 0; i < n; i++) {
        log_probs[i] = (double)logits[ids[i]] - (double)max - log(sum);
    }
}
