#include "test.h"

#include "base/mem.h"
#include "text/normalizer.h"

static void add(du_normalizer *z, du_normalize_kind kind, const char *from, const char *to) {
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_normalizer_add(z, kind, du_sv_of(from), du_sv_of(to), &diag), &diag);
}

static void makes(const du_normalizer *z, const char *text, bool at_start, const char *want) {
    du_str buffers[2] = {0};
    du_sv out;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_normalizer_run(z, du_sv_of(text), at_start, buffers, &out, &diag), &diag);
    assert_int_equal(out.len, strlen(want));
    assert_memory_equal(out.s, want, out.len);
    if (strcmp(text, want) == 0) {
        assert_ptr_equal(out.s, text); /* what stays is not copied */
    }
    du_str_done(&buffers[0]);
    du_str_done(&buffers[1]);
}

static void steps_follow_one_another(void **state) {
    (void)state;
    du_normalizer z = {0};
    makes(&z, "a b", true, "a b");
    add(&z, DU_NORMALIZE_PREPEND, "", "▁");
    add(&z, DU_NORMALIZE_REPLACE, " ", "▁");
    add(&z, DU_NORMALIZE_NFC, "", "");
    add(&z, DU_NORMALIZE_REPLACE, "é", "e");
    makes(&z, "a e\u0301", false, "▁a▁e");
    makes(&z, "", true, "");
    makes(&z, "▁a", true, "▁▁a");
    du_normalizer_done(&z);
}

static void prefixes_know_when(void **state) {
    (void)state;
    du_normalizer once = {0}, first = {0};
    add(&once, DU_NORMALIZE_PREPEND_ONCE, "", " ");
    add(&first, DU_NORMALIZE_PREPEND_FIRST, "", "▁");
    makes(&once, "a", false, " a");
    makes(&once, " a", false, " a");
    makes(&first, "a", true, "▁a");
    makes(&first, "a", false, "a");
    makes(&first, "▁a", true, "▁a");
    du_normalizer_done(&once);
    du_normalizer_done(&first);
}

static void growth_is_limited(void **state) {
    (void)state;
    du_normalizer z = {0};
    add(&z, DU_NORMALIZE_REPLACE, "a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    du_str buffers[2] = {0};
    du_sv out;
    du_diag diag;
    char text[1000];
    memset(text, 'a', sizeof text);
    assert_fails(du_normalizer_run(&z, (du_sv){text, sizeof text}, true, buffers, &out, &diag),
                 DU_ELIMIT, &diag, "over 16 times as long");
    du_str_done(&buffers[0]);
    du_str_done(&buffers[1]);
    du_normalizer_done(&z);
}

static void bad_steps_are_refused(void **state) {
    (void)state;
    du_normalizer z = {0};
    du_diag diag;
    char text[DU_NORMALIZE_BYTES_MAX + 1] = {0};
    assert_fails(du_normalizer_add(&z, DU_NORMALIZE_REPLACE, du_sv_of(""), du_sv_of("a"), &diag),
                 DU_EUNSUPPORTED, &diag, "empty pattern");
    assert_fails(du_normalizer_add(&z, DU_NORMALIZE_PREPEND, du_sv_of(""),
                                   (du_sv){text, sizeof text}, &diag),
                 DU_ELIMIT, &diag, "more than 64 bytes");
    for (int i = 0; i < DU_NORMALIZE_STEPS_MAX; i++) {
        add(&z, DU_NORMALIZE_NFC, "", "");
    }
    assert_fails(du_normalizer_add(&z, DU_NORMALIZE_NFC, du_sv_of(""), du_sv_of(""), &diag),
                 DU_ELIMIT, &diag, "more than 16 steps");
    du_normalizer_done(&z);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    int64_t live = du_mem_get_stats().n_live, n = 1;
    for (du_err err = DU_ENOMEM; err != DU_OK; n++) {
        du_normalizer z = {0};
        du_str buffers[2] = {0};
        du_sv out;
        du_mem_fail_at(n, false);
        err = du_normalizer_add(&z, DU_NORMALIZE_PREPEND, du_sv_of(""), du_sv_of("a"), NULL);
        if (err == DU_OK) {
            err = du_normalizer_add(&z, DU_NORMALIZE_REPLACE, du_sv_of(" "), du_sv_of("b"), NULL);
        }
        if (err == DU_OK) {
            err = du_normalizer_run(&z, du_sv_of("x y"), true, buffers, &out, NULL);
        }
        du_mem_fail_at(0, false);
        assert_true(err == DU_OK || err == DU_ENOMEM);
        du_str_done(&buffers[0]);
        du_str_done(&buffers[1]);
        du_normalizer_done(&z);
        assert_int_equal(du_mem_get_stats().n_live, live);
    }
    assert_true(n > 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_follow_one_another),  cmocka_unit_test(prefixes_know_when),
        cmocka_unit_test(growth_is_limited),         cmocka_unit_test(bad_steps_are_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
