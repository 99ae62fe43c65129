#include "plot/series.h"

#include <math.h>

#include "base/mem.h"
#include "test.h"

static du_diag diag;

static void make(du_series *s, int64_t cap) {
    assert_ok(du_series_init(s, cap, &diag), &diag);
}

/* What no chart could show is left out; the rest is kept as it is while there is room. */
static void test_few(void **state) {
    (void)state;
    du_series s;
    make(&s, 8);
    assert_int_equal(du_series_n_bins(&s), 0);
    du_series_add(&s, 2, 5);
    du_series_add(&s, 3, NAN);
    du_series_add(&s, 4, INFINITY);
    du_series_add(&s, 5, -2e30);
    du_series_add(&s, 6, -1);
    du_series_add(&s, 8, -1);
    assert_int_equal(s.width, 1);
    assert_int_equal(s.n, 3);
    assert_int_equal(du_series_n_bins(&s), 8);
    assert_int_equal(s.first_step, 2);
    assert_int_equal(s.last_step, 8);
    assert_int_equal(s.min_step, 6);
    assert_true(s.first == 5 && s.last == -1 && s.min == -1 && s.max == 5);
    assert_int_equal(s.bins[0].n, 0);
    assert_int_equal(s.bins[1].n, 1);
    assert_int_equal(s.bins[2].n, 0);
    assert_true(du_series_step(&s, 7) == 8);
    du_series_done(&s);
}

/* However long a series, each bin has the least, the most and the sum of its own steps. */
static void test_thinned(void **state) {
    (void)state;
    enum { CAP = 8 };
    for (int64_t n = 1; n <= 200; n++) {
        du_series s;
        make(&s, CAP);
        for (int64_t step = 1; step <= n; step++) {
            du_series_add(&s, step, (double)(step * 37 % 101));
        }
        int64_t n_bins = du_series_n_bins(&s);
        assert_true(n_bins <= CAP && (n <= CAP || n_bins > CAP / 2));
        assert_true((s.width & (s.width - 1)) == 0);
        for (int64_t i = 0; i < n_bins; i++) {
            double min = 1e9, max = -1e9, sum = 0;
            int64_t first = i * s.width + 1, last = (i + 1) * s.width < n ? (i + 1) * s.width : n;
            for (int64_t step = first; step <= last; step++) {
                double v = (double)(step * 37 % 101);
                min = fmin(min, v);
                max = fmax(max, v);
                sum += v;
            }
            assert_true(s.bins[i].min == min && s.bins[i].max == max && s.bins[i].sum == sum);
            assert_int_equal(s.bins[i].n, last - first + 1);
            assert_true(du_series_step(&s, i) == (double)(first + last) / 2);
        }
        du_series_done(&s);
    }
}

static void test_far_step(void **state) {
    (void)state;
    du_series s;
    make(&s, 8);
    du_series_add(&s, 1, 1);
    du_series_add(&s, (int64_t)1 << 50, 2);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.bins[0].n, 1);
    assert_int_equal(s.bins[7].n, 1);
    du_series_done(&s);
}

static void test_smooth(void **state) {
    (void)state;
    enum { N = 400 };
    static double out[512];
    du_series s;
    make(&s, 512);
    for (int64_t step = 1; step <= N; step++) { /* a line with alternating noise */
        du_series_add(&s, step, (double)step + (step % 2 == 0 ? 10 : -10));
    }
    du_series_smooth(&s, out);
    assert_true(out[0] == -9); /* nothing lies before */
    for (int64_t i = 10; i < N - 10; i++) {
        assert_true(fabs(out[i] - (double)(i + 1)) < 1.5);
    }
    du_series_done(&s);
    make(&s, 8);
    du_series_add(&s, 1, 3);
    du_series_add(&s, 3, 3);
    du_series_smooth(&s, out);
    assert_true(out[0] == 3 && isnan(out[1]) && out[2] == 3);
    du_series_done(&s);
}

static void test_no_memory(void **state) {
    (void)state;
    du_series s;
    du_mem_fail_at(1, false);
    assert_fails(du_series_init(&s, 8, &diag), DU_ENOMEM, &diag, "a chart");
    du_series_done(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_few), cmocka_unit_test(test_thinned), cmocka_unit_test(test_far_step),
        cmocka_unit_test(test_smooth), cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
