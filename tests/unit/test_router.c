/* The choice of experts, on scores that can be checked by hand. */
#include "test.h"

#include <math.h>

#include "nn/router.h"

enum { E = 8 };

static void route(const du_router *router, const float *logits, const float *bias, int32_t *ids,
                  float *weights) {
    float scores[E];
    du_ctx ctx = {0};
    memcpy(scores, logits, sizeof scores);
    du_router_fwd(&ctx, ids, weights, scores, bias, router, 1);
}

static float sigmoid(float x) {
    return 1 / (1 + expf(-x));
}

static void equal_scores_go_to_the_lower_index(void **state) {
    (void)state;
    static const float logits[E] = {0, 1, 2, 1, 2, 0, 1, 2};
    const du_router router = {.n_expert = E, .n_used = 5, .scale = 1};
    static const int32_t want[5] = {2, 4, 7, 1, 3};
    int32_t ids[5];
    float weights[5], sum = 0;
    route(&router, logits, NULL, ids, weights);
    assert_memory_equal(ids, want, sizeof want);
    for (int e = 0; e < E; e++) {
        sum += expf(logits[e]);
    }
    for (int k = 0; k < 5; k++) {
        assert_true(fabsf(weights[k] - expf(logits[ids[k]]) / sum) < 1e-6f);
    }
}

/* V3: the bias decides, the score alone is the weight; excluded groups lose to negative ones. */
static void groups_by_their_two_best(void **state) {
    (void)state;
    static const float logits[E] = {3, -3, 1, 1, -2, -2, 0.5f, 1.5f};
    static const float bias[E] = {-5, 0, -2, -2, 0.75f, 0, -1, -2};
    const du_router router = {.n_expert = E,
                              .n_used = 3,
                              .n_group = 4,
                              .n_group_used = 2,
                              .score = DU_SCORE_SIGMOID,
                              .group_rule = DU_GROUP_TOP2,
                              .normalise = true,
                              .scale = 2.5f};
    /* Biased: -4.05 0.05 | -1.27 -1.27 | 0.87 0.12 | -0.38 -1.18: groups 2 and 3. */
    static const int32_t want[3] = {4, 5, 6};
    int32_t ids[3];
    float weights[3];
    route(&router, logits, bias, ids, weights);
    assert_memory_equal(ids, want, sizeof want);
    float sum = sigmoid(-2) + sigmoid(-2) + sigmoid(0.5f);
    assert_true(fabsf(weights[0] - 2.5f * sigmoid(-2) / sum) < 1e-6f);
    assert_true(fabsf(weights[2] - 2.5f * sigmoid(0.5f) / sum) < 1e-6f);
}

/* V2 236B: a group counts as much as its best expert; weights are not divided. */
static void groups_by_their_best(void **state) {
    (void)state;
    static const float logits[E] = {3, 0, 2, 2, 1, 1, 2.5f, -4};
    const du_router router = {.n_expert = E,
                              .n_used = 3,
                              .n_group = 4,
                              .n_group_used = 2,
                              .group_rule = DU_GROUP_MAX,
                              .scale = 16};
    static const int32_t want[3] = {0, 6, 1}; /* groups 0 and 3, not 1 with the larger sum */
    int32_t ids[3];
    float weights[3], sum = 0;
    route(&router, logits, NULL, ids, weights);
    assert_memory_equal(ids, want, sizeof want);
    for (int e = 0; e < E; e++) {
        sum += expf(logits[e]);
    }
    assert_true(fabsf(weights[1] - 16 * expf(2.5f) / sum) < 1e-5f);
}

/* Whatever the numbers, a token has different experts that exist. */
static void no_score_leads_outside(void **state) {
    (void)state;
    const float odd[] = {NAN, INFINITY, -INFINITY, 0};
    for (int n = 0; n < 4 * 4 * 4; n++) {
        float logits[E], bias[E];
        for (int e = 0; e < E; e++) {
            logits[e] = odd[(n >> (e % 3 * 2)) % 4];
            bias[e] = odd[(n + e) % 4];
        }
        for (int kind = 0; kind < 4; kind++) {
            const du_router router = {.n_expert = E,
                                      .n_used = 4,
                                      .n_group = kind & 1 ? 4 : 0,
                                      .n_group_used = 2,
                                      .score = kind & 2 ? DU_SCORE_SIGMOID : DU_SCORE_SOFTMAX,
                                      .group_rule = kind & 2 ? DU_GROUP_TOP2 : DU_GROUP_MAX,
                                      .scale = 1};
            int32_t ids[4];
            float weights[4];
            bool seen[E] = {false};
            route(&router, logits, bias, ids, weights);
            for (int k = 0; k < 4; k++) {
                assert_true(ids[k] >= 0 && ids[k] < E && !seen[ids[k]]);
                seen[ids[k]] = true;
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_scores_go_to_the_lower_index),
        cmocka_unit_test(groups_by_their_two_best),
        cmocka_unit_test(groups_by_their_best),
        cmocka_unit_test(no_score_leads_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
