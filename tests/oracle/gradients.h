/* A micro-batch of random tokens, its gradients by the library, and the oracle of its loss. */
#ifndef DU_TESTS_ORACLE_GRADIENTS_H
#define DU_TESTS_ORACLE_GRADIENTS_H

#include "base/rng.h"
#include "ctx.h"
#include "model/grad.h"
#include "oracle/model.h"

enum { N_SEQ = 4, S = 6, T = N_SEQ * S, V = 11 };
enum { NEXT_PERMILLE = 15 }; /* weight of the loss behind the trunk */

static du_diag diag;

/* Documents begin at positions 0 and 2 of the second sequence. */
typedef struct {
    int32_t tokens[T], targets[T], first[T], next[T];
    float weights[T];
    double losses[T];
} data;

static inline data make_data(void) {
    data d;
    du_rng rng;
    du_rng_init(&rng, 11);
    for (int64_t t = 0; t < T; t++) {
        d.tokens[t] = (int32_t)du_rng_below(&rng, V);
        d.targets[t] = t % 7 == 3 ? -1 : (int32_t)du_rng_below(&rng, V);
        d.first[t] = t / S == 1 && t % S >= 2 ? 2 : 0;
        d.weights[t] = 0.5f + (float)(t % 3);
    }
    for (int64_t t = 0; t < T; t++) {
        d.next[t] = t % S == S - 1 ? -1 : d.targets[t + 1];
    }
    return d;
}

static inline du_cross_entropy objective_of(data *d) {
    return (du_cross_entropy){.base = {du_cross_entropy_rows},
                              .targets = d->targets,
                              .weights = d->weights,
                              .scale = 0.05,
                              .z = 0.01,
                              .smoothing = 0.1,
                              .losses = d->losses};
}

typedef struct {
    int64_t n_threads, n_calls; /* the sequences are spread over so many calls */
    du_grad_keep keep;
    bool bf16;
} way;

enum { BALANCE_PERCENT = 30 };

/* The gradients; free with du_free. */
static inline float *gradients(const du_params *p, data *d, way w) {
    du_grad *g;
    du_ctx ctx = test_ctx_make(w.n_threads);
    du_grad_params how = {w.bf16, w.keep, BALANCE_PERCENT / 100.0, N_SEQ, false, NULL};
    assert_ok(du_grad_new(&g, p, &how, &diag), &diag);
    for (int64_t i = 0, s = 0; i < w.n_calls; i++) {
        int64_t n = (N_SEQ - s) / (w.n_calls - i), t = s * S;
        data part = *d;
        du_cross_entropy ce = objective_of(&part);
        ce.targets = d->targets + t;
        ce.weights = d->weights + t;
        ce.losses = d->losses + t;
        du_cross_entropy next = ce;
        double losses[T];
        next.targets = d->next + t;
        next.scale = NEXT_PERMILLE / 1000.0;
        next.losses = losses;
        du_grad_rows rows = {n, S, d->tokens + t, d->first + t,
                             p->model->hp.n_nextn > 0 ? &next.base : NULL};
        du_leaves leaves = {s, n, s + n == N_SEQ};
        assert_ok(du_grad_add(&ctx, g, &rows, &ce.base, leaves, &diag), &diag);
        s += n;
    }
    float *out = du_alloc_array((size_t)p->n_values, sizeof *out);
    memcpy(out, du_grad_values(g), (size_t)p->n_values * sizeof *out);
    du_grad_free(g);
    test_ctx_drop(&ctx);
    return out;
}

static inline oracle open_oracle(const du_params *p, data *d) {
    oracle o = oracle_open(p);
    o.n_seq = N_SEQ;
    o.S = S;
    o.tokens = d->tokens;
    o.targets = d->targets;
    o.first = d->first;
    o.weights = d->weights;
    o.scale = 0.05;
    o.z = 0.01;
    o.smoothing = 0.1;
    o.balance = BALANCE_PERCENT / 100.0;
    o.next = p->model->hp.n_nextn > 0 ? d->next : NULL;
    o.next_scale = NEXT_PERMILLE / 1000.0;
    return o;
}

#endif
