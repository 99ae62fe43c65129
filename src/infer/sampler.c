/* Choosing tokens.
 *
 * A vocabulary has some hundred thousand tokens of which a handful are likely, and a choice must
 * cost little beside the forward pass. So a cheap pass computes every weight exp((logit - max) / T)
 * in f32, up to a relative error of WEIGHT_ERROR, and tells which tokens can matter; these alone
 * get an exact weight, are sorted, and are drawn from. Where the cheap weights leave open which
 * token an exact computation would choose, it is done over the whole vocabulary: what is chosen
 * never depends on the cheap ones, which differ between machines. */
#include "infer/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "kern/kern.h"

typedef struct {
    int32_t id;
    float logit;
} candidate;

enum { BLOCK = 256 };

/* Of the cheap weights' sums: 2^-24 of an exponent up to 88 and of a few additions, 2 ulp of exp */
#define WEIGHT_ERROR 1e-5

struct du_sampler {
    du_sampler_params p;
    int64_t V;
    du_rng rng;
    const du_kern *kern;
    int32_t *n_generated; /* [V] */
    int32_t *n_window;    /* [V] */
    bool *is_seen;        /* [V] stands in seen */
    int32_t *seen;        /* [n_seen] the different tokens of the history */
    int32_t *history;     /* [n_max] prompt and answer, in order */
    int64_t n_seen, n_history, n_max;
    float *adjusted;       /* [V] logits after bias and penalties */
    float *weights;        /* [V] cheap ones */
    double *block_sums;    /* [ceil(V / BLOCK)] of the cheap weights */
    candidate *candidates; /* [V] */
};

/* What is drawn from: the logits, and their largest. */
typedef struct {
    const float *logits;
    float max;
    double temperature;
    double total; /* of the cheap weights */
} scores;

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
    s->kern = du_kern_get(du_isa_best());
    du_rng_init(&s->rng, params->seed);
    s->n_generated = du_alloc_zero((size_t)V, sizeof *s->n_generated);
    s->n_window = du_alloc_zero((size_t)V, sizeof *s->n_window);
    s->history = du_alloc_array((size_t)n_max, sizeof *s->history);
    s->is_seen = du_alloc_zero((size_t)V, sizeof *s->is_seen);
    s->seen = du_alloc_array((size_t)(V < n_max ? V : n_max), sizeof *s->seen);
    s->adjusted = du_alloc_array((size_t)V, sizeof *s->adjusted);
    s->weights = du_alloc_array((size_t)V, sizeof *s->weights);
    s->block_sums = du_alloc_array((size_t)(V / BLOCK + 1), sizeof *s->block_sums);
    s->candidates = du_alloc_array((size_t)V, sizeof *s->candidates);
    if (!s->n_generated || !s->n_window || !s->history || !s->is_seen || !s->seen || !s->adjusted ||
        !s->weights || !s->block_sums || !s->candidates) {
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
    du_free(s->is_seen);
    du_free(s->seen);
    du_free(s->adjusted);
    du_free(s->weights);
    du_free(s->block_sums);
    du_free(s->candidates);
    du_free(s);
}

void du_sampler_see(du_sampler *s, int32_t token, bool generated) {
    if (token < 0 || token >= s->V || s->n_history >= s->n_max) {
        return;
    }
    if (!s->is_seen[token]) {
        s->is_seen[token] = true;
        s->seen[s->n_seen++] = token;
    }
    s->n_generated[token] += generated;
    s->n_window[token]++;
    s->history[s->n_history++] = token;
    if (s->p.repeat_window > 0 && s->n_history > s->p.repeat_window) {
        s->n_window[s->history[s->n_history - 1 - s->p.repeat_window]]--;
    }
}

/* The logits after bias and penalties: the caller's own where there are none. */
static const float *adjust(du_sampler *s, const float *logits) {
    const du_sampler_params *p = &s->p;
    bool penalties =
        p->repeat_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
    if (!penalties && p->n_bias == 0) {
        return logits;
    }
    memcpy(s->adjusted, logits, (size_t)s->V * sizeof *logits);
    for (int64_t i = 0; i < p->n_bias; i++) {
        s->adjusted[p->bias[i].token] += p->bias[i].bias;
    }
    float repeat = (float)p->repeat_penalty;
    for (int64_t i = 0; penalties && i < s->n_seen; i++) {
        int32_t v = s->seen[i];
        float *l = &s->adjusted[v];
        if (s->n_window[v] > 0) {
            *l = *l > 0 ? *l / repeat : *l * repeat;
        }
        if (s->n_generated[v] > 0) {
            *l -= (float)(p->presence_penalty + p->frequency_penalty * s->n_generated[v]);
        }
    }
    return s->adjusted;
}

/* In lanes, which compilers turn into vectors: a reduction by comparison they may not reorder. */
static float block_max(const float *logits, int64_t n) {
    enum { LANES = 16 };
    float lanes[LANES], max = -INFINITY;
    for (int k = 0; k < LANES; k++) {
        lanes[k] = -INFINITY;
    }
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            lanes[k] = logits[i + k] > lanes[k] ? logits[i + k] : lanes[k];
        }
    }
    for (; i < n; i++) {
        max = logits[i] > max ? logits[i] : max;
    }
    for (int k = 0; k < LANES; k++) {
        max = lanes[k] > max ? lanes[k] : max;
    }
    return max;
}

/* The lowest id of the largest logit that is a number; 0 when there is none. */
static int32_t argmax(const float *logits, int64_t V) {
    float max = -INFINITY;
    int64_t v = 0;
    for (int64_t at = 0; at < V; at += BLOCK) {
        float here = block_max(logits + at, V - at < BLOCK ? V - at : BLOCK);
        if (here > max) {
            max = here;
            v = at;
        }
    }
    while (max > -INFINITY && logits[v] != max) {
        v++;
    }
    return (int32_t)v;
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

/* The logarithm of a token's share, up to a constant: 0 for the best one. The difference is
 * divided, not the logits, which a small temperature would make infinite. */
static double log_weight(const scores *x, float logit) {
    return ((double)logit - (double)x->max) / x->temperature;
}

static double weight(const scores *x, float logit) {
    return exp(log_weight(x, logit));
}

/* w[i] = (logits[i] - max) * scale, -INFINITY for what is no number */
static void scale_block(float *w, const float *logits, int64_t n, float max, double scale) {
    if (scale > 1e6) { /* f32 might lose what lies between the two */
        for (int64_t i = 0; i < n; i++) {
            double l = ((double)logits[i] - (double)max) * scale;
            w[i] = l > -1e30 ? (float)l : -INFINITY;
        }
        return;
    }
    float factor = (float)scale;
    for (int64_t i = 0; i < n; i++) {
        float l = (logits[i] - max) * factor;
        w[i] = l > -1e30f ? l : -INFINITY;
    }
}

/* The cheap weights, their sums block by block, and the sum of all. What is no number, and
 * -INFINITY, weighs nothing. */
static void weigh(du_sampler *s, scores *x) {
    x->total = 0;
    for (int64_t at = 0; at < s->V; at += BLOCK) {
        int64_t n = s->V - at < BLOCK ? s->V - at : BLOCK;
        float *w = s->weights + at, m = 0, sum = 0;
        scale_block(w, x->logits + at, n, x->max, 1 / x->temperature);
        (void)s->kern->softmax(w, n, &m, &sum);
        s->block_sums[at / BLOCK] = (double)sum;
        x->total += (double)sum;
    }
}

/* Puts the tokens whose cheap weight is at least `least` (0: all that weigh anything) among the
 * candidates, in the order of their ids. Returns how many, and their cheap weights' sum. */
static int64_t gather(du_sampler *s, const scores *x, float least, double *sum) {
    int64_t n = 0;
    double total = 0;
    for (int64_t at = 0; at < s->V; at += BLOCK) {
        if (s->block_sums[at / BLOCK] < (double)least * (1 - WEIGHT_ERROR)) {
            continue; /* nothing in it weighs so much */
        }
        int64_t end = s->V - at < BLOCK ? s->V : at + BLOCK;
        for (int64_t v = at; v < end; v++) {
            if (s->weights[v] >= least && x->logits[v] > -INFINITY) {
                total += (double)s->weights[v];
                s->candidates[n++] = (candidate){(int32_t)v, x->logits[v]};
            }
        }
    }
    *sum = total;
    return n;
}

/* Few candidates first, and more while they are too few: the first step, and the next after one;
 * the last is 0. */
#define FIRST_STEP 0x1p-6f

static float next_step(float least) {
    return least > 0x1p-60f ? least * FIRST_STEP : 0;
}

/* The k best tokens, sorted; fewer when fewer weigh anything. Returns how many. */
static int64_t keep_top_k(du_sampler *s, const scores *x, int64_t k) {
    double sum;
    float least = FIRST_STEP;
    int64_t n = gather(s, x, least, &sum);
    while (n < k && least > 0) {
        least = next_step(least);
        n = gather(s, x, least, &sum);
    }
    k = k < n ? k : n;
    select_best(s->candidates, n, k);
    qsort(s->candidates, (size_t)k, sizeof *s->candidates, by_logit);
    return k;
}

/* How many of the k best, sorted, top-p keeps. */
static int64_t cut_top_p(const du_sampler *s, const scores *x, int64_t k) {
    double total = 0, sum = 0;
    for (int64_t i = 0; i < k; i++) {
        total += weight(x, s->candidates[i].logit);
    }
    for (int64_t i = 0; i < k; i++) {
        sum += weight(x, s->candidates[i].logit);
        if (sum >= s->p.top_p * total) {
            return i + 1;
        }
    }
    return k;
}

/* The sum of all weights, in the order of ids. */
static double exact_total(const du_sampler *s, const scores *x) {
    double total = 0;
    for (int64_t v = 0; v < s->V; v++) {
        if (x->logits[v] > -INFINITY) {
            total += weight(x, x->logits[v]);
        }
    }
    return total;
}

/* How many of the n candidates top-p keeps; they are then first and sorted. Sorts only as many as
 * needed: first 64, then 8 times as many, and so on. The weights kept reach for a sum between
 * want_min and want_max; where that leaves open at which they stop, for the exact one. */
static int64_t count_top_p(const du_sampler *s, const scores *x, int64_t n, double want_min,
                           double want_max) {
    candidate *c = s->candidates;
    for (int64_t part = 64;; part *= 8) {
        int64_t k = part < n ? part : n;
        select_best(c, n, k);
        qsort(c, (size_t)k, sizeof *c, by_logit);
        double sum = 0;
        for (int64_t i = 0; i < k; i++) {
            sum += weight(x, c[i].logit);
            if (sum >= want_min && sum < want_max) {
                want_min = want_max = s->p.top_p * exact_total(s, x);
            }
            if (sum >= want_max) {
                return i + 1;
            }
        }
        if (k == n) {
            return n;
        }
    }
}

/* The candidates that top-p keeps of the whole vocabulary. */
static int64_t keep_top_p(du_sampler *s, const scores *x) {
    double want = s->p.top_p * x->total, sum;
    float least = FIRST_STEP;
    int64_t n = gather(s, x, least, &sum);
    while (sum < want * (1 + 4 * WEIGHT_ERROR) && least > 0) {
        least = next_step(least);
        n = gather(s, x, least, &sum);
    }
    return count_top_p(s, x, n, want * (1 - 2 * WEIGHT_ERROR), want * (1 + 2 * WEIGHT_ERROR));
}

/* Without filters: the token at a share of the total, by the cheap weights; -1: not sure. */
static int32_t find_share(const du_sampler *s, const scores *x, double share) {
    double want = share * x->total, slack = 2 * WEIGHT_ERROR * x->total, sum = 0;
    int64_t block = 0, n_blocks = (s->V + BLOCK - 1) / BLOCK;
    while (block < n_blocks && sum + s->block_sums[block] <= want) {
        sum += s->block_sums[block++];
    }
    for (int64_t v = block * BLOCK; v < s->V; v++) {
        double next = sum + (double)s->weights[v];
        if (next > want) {
            return want - sum > slack && next - want > slack ? (int32_t)v : -1;
        }
        sum = next;
    }
    return -1;
}

/* Draws one of the n candidates that min-p leaves. */
static int32_t draw_from(const du_sampler *s, const scores *x, int64_t n, double share) {
    candidate *c = s->candidates;
    double least = s->p.min_p > 0 ? log(s->p.min_p) : -INFINITY, total = 0;
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        double l = log_weight(x, c[i].logit);
        if (l >= least) {
            total += exp(l);
            c[kept++] = c[i];
        }
    }
    double at = share * total;
    for (int64_t i = 0; i < kept; i++) {
        at -= weight(x, c[i].logit);
        if (at < 0) {
            return c[i].id;
        }
    }
    return c[kept - 1].id; /* rounding left a crumb */
}

static int32_t draw(du_sampler *s, const float *logits, float max) {
    const du_sampler_params *p = &s->p;
    scores x = {.logits = logits, .max = max, .temperature = p->temperature};
    weigh(s, &x);
    double share = du_rng_uniform(&s->rng), sum;
    int64_t n;
    if (p->top_k > 0) {
        n = keep_top_k(s, &x, p->top_k);
        n = p->top_p < 1 ? cut_top_p(s, &x, n) : n;
    } else if (p->top_p < 1) {
        n = keep_top_p(s, &x);
    } else {
        int32_t v = p->min_p > 0 ? -1 : find_share(s, &x, share);
        if (v >= 0) {
            return v;
        }
        n = gather(s, &x, (float)p->min_p * (1 - (float)(4 * WEIGHT_ERROR)), &sum);
    }
    return draw_from(s, &x, n, share);
}

int32_t du_sampler_next(du_sampler *s, const float *logits) {
    const float *adjusted = adjust(s, logits);
    int32_t best = argmax(adjusted, s->V);
    float max = adjusted[best];
    bool one = s->p.temperature == 0 || !(max > -INFINITY) || max == INFINITY;
    int32_t token = one ? best : draw(s, adjusted, max);
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
