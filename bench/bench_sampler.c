/* What choosing a token costs beside computing its logits: microseconds of processor time per call
 * of du_sampler_next at a vocabulary of 129,280, for the ways people sample, on logits as a model
 * gives them (a few likely tokens before a bell of unlikely ones) and on flat ones.
 *
 *   bench_sampler [VOCABULARY] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/mem.h"
#include "base/rng.h"
#include "infer/sampler.h"

enum { N_LOGITS = 8, N_CALLS = 200 };

static const struct {
    const char *name;
    du_sampler_params params;
} ways[] = {
    {"greedy", {.top_p = 1, .repeat_penalty = 1}},
    {"greedy, penalties", {.top_p = 1, .repeat_penalty = 1.1, .frequency_penalty = 0.1}},
    {"top-p 0.95", {.temperature = 0.6, .top_p = 0.95, .repeat_penalty = 1}},
    {"top-k 40, top-p 0.95", {.temperature = 0.6, .top_k = 40, .top_p = 0.95, .repeat_penalty = 1}},
    {"top-k 40", {.temperature = 0.6, .top_k = 40, .top_p = 1, .repeat_penalty = 1}},
    {"min-p 0.05", {.temperature = 1, .top_p = 1, .min_p = 0.05, .repeat_penalty = 1}},
    {"temperature alone", {.temperature = 1, .top_p = 1, .repeat_penalty = 1}},
};

static double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Microseconds per token; the sum of the ids in *sum shows whether two versions choose alike. */
static double measure(const du_sampler_params *params, float *const logits[N_LOGITS], int64_t V,
                      uint64_t *sum) {
    du_sampler *s;
    du_diag diag;
    du_diag_reset(&diag);
    if (du_sampler_new(&s, params, V, N_CALLS + 1, &diag) != DU_OK) {
        fprintf(stderr, "%s\n", diag.msg);
        exit(1);
    }
    double start = cpu_s();
    *sum = 0;
    for (int64_t i = 0; i < N_CALLS; i++) {
        *sum = *sum * 31 + (uint64_t)du_sampler_next(s, logits[i % N_LOGITS]);
    }
    double took = cpu_s() - start;
    du_sampler_free(s);
    return took / N_CALLS * 1e6;
}

int main(int argc, char **argv) {
    int64_t V = argc > 1 ? strtoll(argv[1], NULL, 10) : 129280;
    float *logits[N_LOGITS];
    du_rng rng;
    du_rng_init(&rng, 1);
    for (int flat = 0; flat < 2; flat++) {
        for (int i = 0; i < N_LOGITS; i++) {
            logits[i] = du_alloc_array((size_t)V, sizeof **logits);
            if (!logits[i]) {
                fprintf(stderr, "out of memory\n");
                return 1;
            }
            for (int64_t v = 0; v < V; v++) {
                logits[i][v] = (float)du_rng_normal(&rng) * (flat ? 1 : 2);
            }
            for (int k = 0; !flat && k < 20; k++) {
                logits[i][du_rng_below(&rng, (uint64_t)V)] = 18 - (float)k / 2;
            }
        }
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            uint64_t sum;
            double us = measure(&ways[w].params, logits, V, &sum);
            printf("%-6s %-22s %9.1f us  %016llx\n", flat ? "flat" : "model", ways[w].name, us,
                   (unsigned long long)sum);
        }
        for (int i = 0; i < N_LOGITS; i++) {
            du_free(logits[i]);
        }
    }
    return 0;
}
