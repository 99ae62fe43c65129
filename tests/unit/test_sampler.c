#include "test.h"

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "infer/sampler.h"

enum { V = 5 };
static const float logits[V] = {1.0f, 3.0f, 2.0f, 3.0f, -1.0f};

static du_sampler *open_sampler(du_sampler_params p) {
    du_diag diag;
    du_diag_reset(&diag);
    du_sampler *s;
    assert_ok(du_sampler_new(&s, &p, V, 100000, &diag), &diag);
    return s;
}

/* How often each token comes in n draws. Penalties are off, so draws are independent. */
static void count(du_sampler_params p, int n, int *counts) {
    du_sampler *s = open_sampler(p);
    memset(counts, 0, V * sizeof *counts);
    for (int i = 0; i < n; i++) {
        counts[du_sampler_next(s, logits)]++;
    }
    du_sampler_free(s);
}

static void greedy_takes_the_lowest_of_equals(void **state) {
    (void)state;
    du_sampler *s = open_sampler(du_sampler_defaults());
    assert_int_equal(du_sampler_next(s, logits), 1);
    du_sampler_free(s);
    float nan_row[V] = {NAN, NAN, NAN, NAN, NAN};
    du_sampler_params p = du_sampler_defaults();
    p.temperature = 1;
    s = open_sampler(p);
    assert_int_equal(du_sampler_next(s, nan_row), 0);
    nan_row[3] = INFINITY;
    assert_int_equal(du_sampler_next(s, nan_row), 3);
    du_sampler_free(s);
}

/* Logits divided by it would be infinite. */
static void tiny_temperatures_take_the_best(void **state) {
    (void)state;
    static const double temperatures[] = {1e-6, 1e-30, 1e-300};
    for (int k = 0; k < 3; k++) {
        du_sampler_params p = du_sampler_defaults();
        p.temperature = temperatures[k];
        p.top_p = 0.9;
        int counts[V];
        count(p, 200, counts);
        assert_int_equal(counts[1] + counts[3], 200);
        p.min_p = 0.5;
        p.top_p = 1;
        count(p, 200, counts);
        assert_true(counts[1] > 50 && counts[3] > 50 && counts[1] + counts[3] == 200);
    }
}

static void frequencies_follow_the_softmax(void **state) {
    (void)state;
    enum { DRAWS = 100000 };
    static const double temperatures[] = {0.5, 1, 2};
    for (int k = 0; k < 3; k++) {
        du_sampler_params p = du_sampler_defaults();
        p.temperature = temperatures[k];
        p.seed = 7;
        int counts[V];
        count(p, DRAWS, counts);
        double total = 0;
        for (int v = 0; v < V; v++) {
            total += exp((double)logits[v] / p.temperature);
        }
        for (int v = 0; v < V; v++) {
            double share = exp((double)logits[v] / p.temperature) / total;
            double deviation = sqrt(share * (1 - share) / DRAWS);
            assert_true(fabs((double)counts[v] / DRAWS - share) < 5 * deviation + 1e-9);
        }
    }
}

static void filters_leave_what_they_should(void **state) {
    (void)state;
    du_sampler_params p = du_sampler_defaults();
    int counts[V];
    p.temperature = 1;
    p.top_k = 3;
    count(p, 3000, counts);
    assert_true(counts[1] && counts[2] && counts[3] && !counts[0] && !counts[4]);
    p.top_k = 0;
    p.top_p = 0.5; /* the two best hold 0.42 each */
    count(p, 3000, counts);
    assert_true(counts[1] && counts[3] && !counts[0] && !counts[2] && !counts[4]);
    p.top_p = 0.3;
    count(p, 3000, counts);
    assert_true(counts[1] == 3000);
    p.top_p = 1;
    p.min_p = 0.3; /* token 2 has exp(-1) = 0.37 of the best, token 0 exp(-2) = 0.14 */
    count(p, 3000, counts);
    assert_true(counts[1] && counts[2] && counts[3] && !counts[0] && !counts[4]);
}

static void top_p_on_a_large_vocabulary(void **state) {
    (void)state;
    enum { LARGE = 5000 };
    static float flat[LARGE];
    static int seen[LARGE];
    for (int i = 0; i < LARGE; i++) {
        flat[i] = -(float)(i * 7919 % LARGE) / LARGE; /* a slope, permuted */
    }
    du_diag diag;
    du_diag_reset(&diag);
    du_sampler_params p = du_sampler_defaults();
    p.temperature = 1;
    p.top_p = 0.5;
    du_sampler *s;
    assert_ok(du_sampler_new(&s, &p, LARGE, 10, &diag), &diag);
    double total = 0, sum = 0;
    for (int i = 0; i < LARGE; i++) {
        total += exp(-(double)i / LARGE);
    }
    int n_kept = 0; /* ranks 0 .. n_kept-1 hold half of the mass */
    while (sum < 0.5 * total) {
        sum += exp(-(double)n_kept++ / LARGE);
    }
    int highest = 0;
    for (int i = 0; i < 3000; i++) {
        int32_t id = du_sampler_next(s, flat);
        int rank = (int)lround(-(double)flat[id] * LARGE);
        seen[rank]++;
        highest = rank > highest ? rank : highest;
    }
    assert_true(highest < n_kept + 1 && highest > n_kept - 20);
    du_sampler_free(s);
}

enum { REF_V = 3000 };

static const float *ref_logits;

static int ref_order(const void *a, const void *b) {
    float x = ref_logits[*(const int *)a], y = ref_logits[*(const int *)b];
    return x != y ? (x > y ? -1 : 1) : *(const int *)a - *(const int *)b;
}

/* The choice as sampler.h says it, with nothing left out: all weights in double, all sorted. */
static int32_t ref_next(const float *row, const du_sampler_params *p, du_rng *rng) {
    static int ids[REF_V];
    static double w[REF_V];
    int n = 0;
    ref_logits = row;
    double max = -INFINITY, total = 0, sum = 0;
    for (int v = 0; v < REF_V; v++) {
        if (row[v] > -INFINITY) {
            ids[n++] = v;
            max = fmax(max, (double)row[v]);
        }
    }
    if (p->top_k > 0 || p->top_p < 1) {
        qsort(ids, (size_t)n, sizeof *ids, ref_order);
    }
    n = p->top_k > 0 && p->top_k < n ? (int)p->top_k : n;
    for (int i = 0; i < n; i++) {
        w[i] = exp(((double)row[ids[i]] - max) / p->temperature);
        total += w[i];
    }
    for (int i = 0; i < n && p->top_p < 1; i++) {
        sum += w[i];
        n = sum >= p->top_p * total ? i + 1 : n;
    }
    total = 0;
    for (int i = 0; i < n; i++) {
        w[i] = w[i] >= p->min_p ? w[i] : 0;
        total += w[i];
    }
    double at = du_rng_uniform(rng) * total;
    for (int i = 0; i < n; i++) {
        at -= w[i];
        if (at < 0) {
            return ids[i];
        }
    }
    return -1; /* rounding: no test comes here */
}

/* Logits of several shapes: a few likely ones, flat, rounded so that many are equal, steep, with
 * forbidden and broken ones. */
static void ref_fill(float *row, du_rng *rng, int shape) {
    for (int v = 0; v < REF_V; v++) {
        float x = (float)du_rng_normal(rng);
        row[v] = shape == 1 ? x / 100 : shape == 2 ? roundf(x * 2) / 2 : shape == 3 ? x * 30 : x;
        if (shape == 0 && v % 300 == 7) {
            row[v] += 12;
        } else if (shape == 4 && v % 3 == 1) {
            row[v] = v % 2 ? -INFINITY : NAN;
        }
    }
}

static void choices_are_those_of_the_plain_rule(void **state) {
    (void)state;
    static float row[REF_V];
    static const struct {
        int64_t top_k;
        double top_p, min_p;
    } ways[] = {{0, 1, 0},     {0, 0.95, 0},       {0, 0.5, 0},    {0, 0.9999, 0},
                {40, 1, 0},    {40, 0.9, 0},       {1, 1, 0},      {0, 1, 0.05},
                {0, 0.9, 0.1}, {2999, 0.99, 0.01}, {9000, 0.7, 0}, {7, 1, 0.2}};
    static const double temperatures[] = {0.01, 0.6, 1, 5, 90};
    du_rng rng;
    du_rng_init(&rng, 5);
    for (int shape = 0; shape < 5; shape++) {
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            for (size_t t = 0; t < sizeof temperatures / sizeof *temperatures; t++) {
                du_sampler_params p = du_sampler_defaults();
                p.top_k = ways[w].top_k, p.top_p = ways[w].top_p, p.min_p = ways[w].min_p;
                p.temperature = temperatures[t];
                p.seed = du_rng_u64(&rng);
                du_sampler *s;
                du_diag diag;
                du_diag_reset(&diag);
                assert_ok(du_sampler_new(&s, &p, REF_V, 100, &diag), &diag);
                du_rng same;
                du_rng_init(&same, p.seed);
                for (int i = 0; i < 4; i++) {
                    ref_fill(row, &rng, shape);
                    assert_int_equal(du_sampler_next(s, row), ref_next(row, &p, &same));
                }
                du_sampler_free(s);
            }
        }
    }
}

/* Penalties of tokens that leave the window and come back. */
static void penalties_of_a_window(void **state) {
    (void)state;
    du_sampler_params p = du_sampler_defaults();
    p.repeat_penalty = 2;
    p.repeat_window = 2;
    static const float row[V] = {3.5f, 3, 2, 1.9f, -1};
    static const int expected[] = {0, 1, 2, 0, 1, 2, 0};
    du_sampler *s = open_sampler(p);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(du_sampler_next(s, row), expected[i]);
    }
    du_sampler_free(s);
}

static void penalties_and_bias(void **state) {
    (void)state;
    du_sampler_params p = du_sampler_defaults();
    p.presence_penalty = 1.5;
    du_sampler *s = open_sampler(p);
    du_sampler_see(s, 3, false); /* the prompt does not count here */
    assert_int_equal(du_sampler_next(s, logits), 1);
    assert_int_equal(du_sampler_next(s, logits), 3);
    assert_int_equal(du_sampler_next(s, logits), 2);
    du_sampler_free(s);

    p = du_sampler_defaults();
    p.repeat_penalty = 2;
    p.repeat_window = 2;
    s = open_sampler(p);
    du_sampler_see(s, 1, false);
    assert_int_equal(du_sampler_next(s, logits), 3);
    assert_int_equal(du_sampler_next(s, logits), 2); /* 1 and 3 are in the window */
    assert_int_equal(du_sampler_next(s, logits), 1); /* 1 has left it */
    du_sampler_free(s);

    du_logit_bias bias[] = {{1, -INFINITY}, {3, -INFINITY}, {4, 100}};
    p = du_sampler_defaults();
    p.bias = bias;
    p.n_bias = 3;
    s = open_sampler(p);
    assert_int_equal(du_sampler_next(s, logits), 4);
    du_sampler_free(s);
}

static void bad_parameters_are_named(void **state) {
    (void)state;
    du_diag diag;
    du_sampler *s;
    du_sampler_params p = du_sampler_defaults();
    p.top_p = 1.5;
    assert_fails(du_sampler_new(&s, &p, V, 1, &diag), DU_EINVAL, &diag, "top-p: 1.5");
    p = du_sampler_defaults();
    p.temperature = NAN;
    assert_fails(du_sampler_new(&s, &p, V, 1, &diag), DU_EINVAL, &diag, "temperature");
    du_logit_bias bias = {V, 0};
    p = du_sampler_defaults();
    p.bias = &bias;
    p.n_bias = 1;
    assert_fails(du_sampler_new(&s, &p, V, 1, &diag), DU_EINVAL, &diag, "token 5");
}

static void log_probabilities(void **state) {
    (void)state;
    int32_t ids[3];
    double lp[3], total = 0;
    du_top_log_probs(logits, V, 3, ids, lp);
    for (int v = 0; v < V; v++) {
        total += exp((double)logits[v]);
    }
    static const int32_t want[] = {1, 3, 2};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ids[i], want[i]);
        assert_true(fabs(lp[i] - ((double)logits[want[i]] - log(total))) < 1e-12);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(tiny_temperatures_take_the_best),
        cmocka_unit_test(frequencies_follow_the_softmax),
        cmocka_unit_test(filters_leave_what_they_should),
        cmocka_unit_test(top_p_on_a_large_vocabulary),
        cmocka_unit_test(choices_are_those_of_the_plain_rule),
        cmocka_unit_test(penalties_of_a_window),
        cmocka_unit_test(penalties_and_bias),
        cmocka_unit_test(bad_parameters_are_named),
        cmocka_unit_test(log_probabilities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
