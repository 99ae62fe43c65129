#include "train/spike.h"

#include "test.h"

static void add_quiet(du_spike *s, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        assert_false(du_spike_add(s, 2, 1.5, 3));
    }
}

static void test_losses_that_stay_high_end_the_run(void **state) {
    (void)state;
    du_spike s = {0};
    add_quiet(&s, DU_SPIKE_STEPS_MIN);
    assert_float_equal(du_spike_smooth(&s), 2, 1e-12);
    assert_false(du_spike_add(&s, 3.1, 1.5, 3));
    assert_false(du_spike_add(&s, 30, 1.5, 3));
    assert_true(du_spike_add(&s, 3.1, 1.5, 3));
    assert_float_equal(du_spike_smooth(&s), 2, 1e-12); /* spikes do not move it */
}

/* What docs/TRAINING.md says of `smooth`: after two losses 0.98 of the first one's share is left.
 */
static void test_decay(void **state) {
    (void)state;
    du_spike s = {0};
    assert_false(du_spike_add(&s, 1, 0, 1));
    assert_float_equal(du_spike_smooth(&s), 1, 1e-12);
    assert_false(du_spike_add(&s, 2, 0, 1));
    assert_float_equal(du_spike_smooth(&s), (0.98 * 1 + 2) / (0.98 + 1), 1e-12);
}

static void test_a_single_one_does_not(void **state) {
    (void)state;
    du_spike s = {0};
    add_quiet(&s, DU_SPIKE_STEPS_MIN);
    for (int i = 0; i < 10; i++) {
        assert_false(du_spike_add(&s, 100, 1.5, 3));
        assert_false(du_spike_add(&s, 100, 1.5, 3));
        assert_false(du_spike_add(&s, 2, 1.5, 3));
    }
}

static void test_first_losses_and_factor_0_are_not_judged(void **state) {
    (void)state;
    du_spike s = {0};
    add_quiet(&s, DU_SPIKE_STEPS_MIN - 1);
    assert_false(du_spike_add(&s, 1000, 1.5, 1));
    du_spike off = {0};
    add_quiet(&off, 2 * DU_SPIKE_STEPS_MIN);
    assert_false(du_spike_add(&off, 1000, 0, 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_losses_that_stay_high_end_the_run),
        cmocka_unit_test(test_decay),
        cmocka_unit_test(test_a_single_one_does_not),
        cmocka_unit_test(test_first_losses_and_factor_0_are_not_judged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
