#include "test.h"

#include "base/mem.h"
#include "text/added.h"

static void add(du_added_set *set, const char *text, du_added token) {
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_added_add(set, du_sv_of(text), &token, &diag), &diag);
}

/* All tokens of text as "[id start end]". */
static void finds(const du_added_set *set, const char *text, bool special, const char *want) {
    du_str out = {0};
    du_added_match m = {.end = 0};
    while (du_added_find(set, du_sv_of(text), m.end, special, &m)) {
        du_str_addf(&out, "[%d %zu %zu]", m.token->id, m.start, m.end);
    }
    assert_string_equal(du_str_get(&out), want);
    du_str_done(&out);
}

static void leftmost_then_longest(void **state) {
    (void)state;
    du_added_set set = {0};
    finds(&set, "abc", true, "");
    add(&set, "<a", (du_added){.id = 1});
    add(&set, "<ab>", (du_added){.id = 2});
    add(&set, "b>c", (du_added){.id = 3});
    add(&set, "두레", (du_added){.id = 4});
    finds(&set, "x<ab>c", false, "[2 1 5]");
    finds(&set, "x<ab c b>c", false, "[1 1 3][3 7 10]");
    finds(&set, "두두레두레", false, "[4 3 9][4 9 15]");
    finds(&set, "<", false, "");
    finds(&set, "", false, "");
    du_added_done(&set);
}

static void special_ones_only_on_request(void **state) {
    (void)state;
    du_added_set set = {0};
    add(&set, "<s>", (du_added){.id = 1, .special = true});
    add(&set, "<s>x", (du_added){.id = 2});
    add(&set, "s>", (du_added){.id = 3});
    finds(&set, "a<s>b<s>x", true, "[1 1 4][2 5 9]");
    finds(&set, "a<s>b<s>x", false, "[3 2 4][2 5 9]");
    du_added_done(&set);
}

static void white_space_is_taken_in(void **state) {
    (void)state;
    du_added_set set = {0};
    add(&set, "<l>", (du_added){.id = 1, .lstrip = true});
    add(&set, "<r>", (du_added){.id = 2, .rstrip = true});
    finds(&set, "a \t\u3000<l> b", false, "[1 1 9]");
    finds(&set, "a <r> \u3000\nb", false, "[2 2 10]");
    finds(&set, "<r>  <l>", false, "[2 0 5][1 5 8]"); /* what is taken is not taken again */
    finds(&set, "\xff<l>\xff", false, "[1 1 4]");
    du_added_done(&set);
}

static void single_words_stand_alone(void **state) {
    (void)state;
    du_added_set set = {0};
    add(&set, "cat", (du_added){.id = 1, .single_word = true});
    finds(&set, "cat a cat, concat cats 고양이cat cat\xff", false, "[1 0 3][1 6 9][1 36 39]");
    du_added_done(&set);
}

static void bad_ones_are_refused(void **state) {
    (void)state;
    du_added_set set = {0};
    du_diag diag;
    char text[DU_ADDED_BYTES_MAX + 1];
    memset(text, 'a', sizeof text);
    du_added token = {.id = 5};
    assert_fails(du_added_add(&set, (du_sv){text, sizeof text}, &token, &diag), DU_ELIMIT, &diag,
                 "added token 5 has 1025 bytes");
    add(&set, "x", (du_added){.id = 1});
    assert_fails(du_added_add(&set, du_sv_of("x"), &token, &diag), DU_EFORMAT, &diag,
                 "1 and 5 are both found as 'x'");
    du_added_done(&set);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    const du_added token = {.id = 1};
    int64_t n = 1;
    for (du_err err = DU_ENOMEM; err != DU_OK; n++) {
        du_added_set set = {0};
        du_mem_fail_at(n, false);
        err = du_added_add(&set, du_sv_of("abcdefghijklmnopqrstuvwxyz"), &token, NULL);
        du_mem_fail_at(0, false);
        assert_true(err == DU_OK || err == DU_ENOMEM);
        du_added_done(&set);
    }
    assert_true(n > 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leftmost_then_longest),   cmocka_unit_test(special_ones_only_on_request),
        cmocka_unit_test(white_space_is_taken_in), cmocka_unit_test(single_words_stand_alone),
        cmocka_unit_test(bad_ones_are_refused),    cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
