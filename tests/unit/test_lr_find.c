#include <math.h>

#include "test.h"
#include "train/lr_find.h"

static double lr_at(int64_t i) {
    return 1e-7 * pow(1e8, (double)i / (DU_LR_FIND_STEPS - 1));
}

/* A loss that varies by +-noise, falls from step 40 to 80 as half a cosine, and rises from 90. */
static du_lr_find curve(double fall, double noise) {
    du_lr_find f = {0};
    for (int64_t i = 0; i < 100; i++) {
        double u = i < 40 ? 0 : i > 80 ? 1 : (double)(i - 40) / 40;
        double loss =
            5 - fall * (1 - cos(acos(-1) * u)) / 2 + (i > 90 ? 0.2 * (double)(i - 90) : 0);
        f.points[f.n++] = (du_lr_point){lr_at(i), loss + (i % 2 ? noise : -noise), loss};
    }
    return f;
}

static void test_curve(void **state) {
    (void)state;
    du_lr_find f = curve(2, 0.1);
    du_lr_find_judge(&f);
    assert_true(fabs(log(f.steepest / lr_at(60))) < 1e-6);
    assert_true(f.lowest >= lr_at(80) && f.lowest <= lr_at(90));
}

/* What falls by less than it varies tells nothing. */
static void test_noise(void **state) {
    (void)state;
    for (double fall = -1; fall < 0.09; fall += 0.09) {
        du_lr_find f = curve(fall, 0.1);
        du_lr_find_judge(&f);
        assert_true(isnan(f.steepest) && isnan(f.lowest));
    }
}

static void test_few(void **state) {
    (void)state;
    du_lr_find f = curve(2, 0);
    for (f.n = 0; f.n <= 10; f.n++) {
        du_lr_find_judge(&f);
        assert_true(isnan(f.steepest) && isnan(f.lowest));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_curve),
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
