/* The probes at every level: they do the multiply-adds that they count, and read what they time. */
#include "kern_test.h"

/* Every product is 1: the sum of n rounds is n times the sum of one, which is a whole number. */
static void check_counts(void) {
    for (int i = 0; i < DU_PROBE_COUNT; i++) {
        du_probe_fn *probe = kern->probe[i];
        if (!probe) {
            continue;
        }
        double one = probe(1);
        assert_true(one >= 16 && one == floor(one));
        assert_true(probe(0) == 0);
        assert_true(probe(2) == 2 * one);
        assert_true(probe(12345) == 12345 * one);
    }
    assert_non_null(kern->probe[DU_PROBE_INT8]);
    assert_non_null(kern->probe[DU_PROBE_F32]);
}

static void check_read_sum(void) {
    for (int64_t n = 0; n <= 8192; n += 256) {
        guard_at_end = n % 512 == 0;
        uint64_t *words = guard(0, (size_t)n), sum = 0;
        for (int64_t i = 0; i < n / 8; i++) {
            words[i] = (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u;
            sum += words[i];
        }
        seal(0);
        assert_true(kern->read_sum(words, n) == sum);
    }
}

static void test_counts(void **state) {
    (void)state;
    each_level(check_counts);
}

static void test_read_sum(void **state) {
    (void)state;
    each_level(check_read_sum);
}

int main(int argc, char **argv) {
    choose_level(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counts),
                                       cmocka_unit_test(test_read_sum)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
