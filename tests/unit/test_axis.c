#include "plot/axis.h"

#include <math.h>

#include "test.h"

/* The numbers of an axis, as people read them. */
static void assert_axis(double lo, double hi, bool log, int64_t wanted, const char *want) {
    double ticks[DU_AXIS_TICKS_MAX];
    du_axis a = du_axis_make(lo, hi, log, 0, 1);
    int64_t n = du_axis_ticks(&a, wanted, ticks);
    du_str text = {0};
    for (int64_t i = 0; i < n; i++) {
        du_str_add_s(&text, i > 0 ? " " : "");
        du_axis_add_number(&text, ticks[i], 4);
        assert_true(i == 0 || ticks[i] > ticks[i - 1]);
    }
    assert_string_equal(du_str_get(&text), want);
    du_str_done(&text);
}

static void test_ticks(void **state) {
    (void)state;
    assert_axis(1.05, 7.6, false, 5, "0 2 4 6 8");
    assert_axis(0, 3190, false, 5, "0 1000 2000 3000 4000");
    assert_axis(0, 0.004, false, 5, "0 0.001 0.002 0.003 0.004");
    assert_axis(-0.3, 0.2, false, 5, "-0.3 -0.2 -0.1 0 0.1 0.2");
    assert_axis(0, 1e6, false, 5, "0 200k 400k 600k 800k 1M");
    assert_axis(2.31, 2.33, false, 5, "2.31 2.315 2.32 2.325 2.33");
    assert_axis(5, 5, false, 5, "4.5 5 5.5");
    assert_axis(0, 0, false, 5, "-1 -0.5 0 0.5 1");
    assert_axis(0.6, 45, true, 5, "0.5 1 2 5 10 20 50");
    assert_axis(1e-6, 3e-3, true, 5, "1e-6 1e-5 1e-4 0.001");
    assert_axis(1e-9, 1e9, true, 6, "1e-9 1e-6 0.001 1 1000 1M 1G");
    assert_axis(2, 3, true, 5, "2 2.2 2.4 2.6 2.8 3");
    assert_axis(-1, 100, true, 5, "-50 0 50 100"); /* no logarithm of these */
}

/* Whatever the values, an axis holds them between its ends and has a few numbers. */
static void test_hostile_values(void **state) {
    (void)state;
    static const double values[] = {-1e30, -3.7, -1e-300,   0,    5e-324,
                                    1e-12, 1,    1 + 1e-12, 9.99, 1e30};
    const size_t n = sizeof values / sizeof *values;
    for (size_t i = 0; i < n * n * 2; i++) {
        double lo = values[i % n], hi = values[i / n % n], ticks[DU_AXIS_TICKS_MAX];
        if (lo > hi) {
            continue;
        }
        du_axis a = du_axis_make(lo, hi, i >= n * n, 10, 110);
        double slack = 1e-8 * (a.hi - a.lo);
        assert_true(a.lo <= lo + slack && a.hi >= hi - slack);
        assert_true(a.lo < a.hi && isfinite(a.lo) && isfinite(a.hi));
        assert_true(du_axis_at(&a, lo) >= 10 && du_axis_at(&a, hi) <= 110);
        int64_t n_ticks = du_axis_ticks(&a, 5, ticks);
        assert_true(n_ticks >= 1 && n_ticks <= DU_AXIS_TICKS_MAX);
    }
}

static void test_places(void **state) {
    (void)state;
    du_axis a = {.lo = 0, .hi = 4, .from = 200, .to = 0};
    assert_true(du_axis_at(&a, 1) == 150 && du_axis_at(&a, 9) == 0 && du_axis_at(&a, -9) == 200);
    du_axis log = du_axis_make(1, 100, true, 0, 2);
    assert_true(fabs(du_axis_at(&log, 10) - 1) < 1e-12);
}

static void test_numbers(void **state) {
    (void)state;
    static const struct {
        double v;
        int digits;
        const char *want;
    } cases[] = {{0, 4, "0"},
                 {1, 4, "1"},
                 {-2.5, 3, "-2.5"},
                 {0.0021, 3, "0.0021"},
                 {0.00012, 3, "1.2e-4"},
                 {3e-7, 3, "3e-7"},
                 {999.96, 3, "1000"},
                 {9999, 3, "9999"},
                 {12500, 3, "12.5k"},
                 {159744, 4, "159.7k"},
                 {1250000, 3, "1.25M"},
                 {671e9, 3, "671G"},
                 {14.8e12, 3, "14.8T"},
                 {1e18, 3, "1e18"},
                 {1.23456, 4, "1.235"},
                 {100, 4, "100"},
                 {2e-300, 4, "2e-300"},
                 {-9e299, 4, "-9e299"},
                 {1e-320, 4, "0"},
                 {-5e-324, 4, "0"},
                 {1e300, 4, "-"},
                 {1.7e308, 4, "-"},
                 {(double)INFINITY, 4, "-"},
                 {-(double)INFINITY, 4, "-"},
                 {(double)NAN, 4, "-"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        du_str text = {0};
        du_axis_add_number(&text, cases[i].v, cases[i].digits);
        assert_string_equal(du_str_get(&text), cases[i].want);
        du_str_done(&text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ticks), cmocka_unit_test(test_hostile_values),
        cmocka_unit_test(test_places), cmocka_unit_test(test_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
