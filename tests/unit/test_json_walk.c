#include "test.h"

#include "base/json_walk.h"
#include "base/mem.h"

static du_json_walk walk_of(const char *text) {
    return (du_json_walk){.text = du_sv_of(text), .what = "t.json", .offset = 100};
}

static void members_come_one_by_one(void **state) {
    (void)state;
    static const char text[] = " { \"a\" : 1 ,\"b\":{\"x\":[1,2,{}],\"y\":\"}],{\"},\n"
                               "\"c\\\"}\":\"\\\\\"} \n";
    static const char *const members[] = {"\"a\" : 1 ", "\"b\":{\"x\":[1,2,{}],\"y\":\"}],{\"}",
                                          "\"c\\\"}\":\"\\\\\""};
    static const char *const names[] = {"a", "b", "c\"}"};
    du_json_walk w = walk_of(text);
    du_diag diag;
    du_sv member;
    for (int i = 0; i < 3; i++) {
        assert_ok(du_json_walk_next(&w, &member, &diag), &diag);
        assert_true(du_sv_is(member, members[i]));
        json_t *value = NULL;
        assert_ok(du_json_walk_parse(&value, &w, member, &diag), &diag);
        assert_string_equal(json_object_iter_key(json_object_iter(value)), names[i]);
        json_decref(value);
    }
    assert_ok(du_json_walk_next(&w, &member, &diag), &diag);
    assert_int_equal(member.len, 0);
    w = walk_of("{ }");
    assert_ok(du_json_walk_next(&w, &member, &diag), &diag);
    assert_int_equal(member.len, 0);
}

/* Walks to the end, parsing every member. */
static du_err walk_all(const char *text, du_diag *diag) {
    du_json_walk w = walk_of(text);
    for (;;) {
        du_sv member;
        json_t *value = NULL;
        du_err err = du_json_walk_next(&w, &member, diag);
        if (err != DU_OK || member.len == 0) {
            return err;
        }
        err = du_json_walk_parse(&value, &w, member, diag);
        if (err != DU_OK) {
            return err;
        }
        json_decref(value);
    }
}

static void malformed_objects_are_refused(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",           " ",          "[]",          "1",          "{",           "{\"a\"",
        "{\"a\":",    "{\"a\":1",   "{\"a\":1,",   "{\"a\":1,}", "{,\"a\":1}",  "{\"a\":1}x",
        "{\"a\":1}}", "{\"a\"}",    "{\"a\":}",    "{a:1}",      "{\"a\":1;}",  "{\"a\":[}",
        "{\"a\":1]}", "{\"a\":]1}", "{\"a\":{]}}", "{\"a\\",     "{\"a\":\"\\", "{\"a\":\"",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        du_diag diag;
        assert_fails(walk_all(texts[i], &diag), DU_EFORMAT, &diag, "t.json: ");
    }
    du_diag diag;
    assert_fails(walk_all("{\"a\":1,\"b\":x}", &diag), DU_EFORMAT, &diag,
                 "t.json: entry at byte 107: ");
    assert_fails(walk_all("{\"a\":1 , b}", &diag), DU_EFORMAT, &diag, "t.json: JSON: a name");
    assert_int_equal(diag.offset, 109);
}

/* With memory short at any one place a parse says so, and never gives another value. */
static void failed_allocations_are_told(void **state) {
    (void)state;
    static const char text[] = "{\"a long enough name to grow buffers\": [1, 2.5, true, null, "
                               "\"a string that is longer than sixteen bytes\", {\"b\": {}}]}";
    int64_t live = du_mem_get_stats().n_live;
    json_t *whole = NULL;
    du_diag diag;
    assert_ok(du_json_parse(&whole, text, sizeof text - 1, "t", &diag), &diag);
    int n = 1;
    for (bool parsed = false; !parsed; n++) {
        json_t *value = NULL;
        du_diag_reset(&diag);
        du_mem_fail_at(n, false);
        du_err err = du_json_parse(&value, text, sizeof text - 1, "t", &diag);
        du_mem_fail_at(0, false);
        parsed = err == DU_OK;
        assert_true(parsed ? json_equal(value, whole) : err == DU_ENOMEM && !value);
        json_decref(value);
    }
    assert_true(n > 10);
    json_decref(whole);
    assert_int_equal(du_mem_get_stats().n_live, live);
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_come_one_by_one),
        cmocka_unit_test(malformed_objects_are_refused),
        cmocka_unit_test(failed_allocations_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
