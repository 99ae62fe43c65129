#include "test.h"

#include "base/mem.h"
#include "text/pattern.h"

static void becomes(const char *pattern, const char *want) {
    du_str out = {0};
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_pattern_translate(&out, du_sv_of(pattern), &diag), &diag);
    assert_string_equal(du_str_get(&out), want);
    du_str_done(&out);
}

static void same(const char *a, const char *b) {
    du_str x = {0}, y = {0};
    assert_int_equal(du_pattern_translate(&x, du_sv_of(a), NULL), DU_OK);
    assert_int_equal(du_pattern_translate(&y, du_sv_of(b), NULL), DU_OK);
    assert_string_equal(du_str_get(&x), du_str_get(&y));
    du_str_done(&x);
    du_str_done(&y);
}

static void fails(const char *pattern, du_err code, const char *part) {
    du_str out = {0};
    du_diag diag;
    assert_fails(du_pattern_translate(&out, du_sv_of(pattern), &diag), code, &diag, part);
    du_str_done(&out);
}

static void what_means_the_same_passes(void **state) {
    (void)state;
    becomes("", "");
    becomes("ab|c*d+?e?+", "ab|c*d+?e?+");
    becomes("(?:a|b)(?=c)(?!d)(?>e)(?<=f)(?<!g)", "(?:a|b)(?=c)(?!d)(?>e)(?<=f)(?<!g)");
    becomes("\\p{L}+\\P{N}\\p{^Zs}", "\\p{L}+\\P{N}\\P{Zs}");
    becomes("[a-z가-힣]", "[a-z가-힣]");
    becomes("^a.$\\A\\z\\Z", "^a.$\\A\\z\\Z");
    becomes("a{2}b{1,}c{1,3}?", "a{2}b{1,}c{1,3}?");
}

static void what_differs_is_written_out(void **state) {
    (void)state;
    becomes("(a)", "(?:a)");
    becomes("(?m:.)", "(?s:.)");
    becomes("\\v", "\\x{b}");
    becomes("\\h", "[0-9A-Fa-f]");
    becomes("\\p{Han}", "\\p{sc:Han}");
    becomes("\\p{uppercase_letter}", "\\p{Lu}");
    becomes("a{,3}", "a{0,3}");
    becomes("a{1,2}+", "(?:a{1,2})+");
    becomes("xa{1,2}+", "x(?:a{1,2})+");
    becomes("[ab]{1,2}+", "(?:[ab]{1,2})+");
    becomes("[\\p{L}&&[^\\p{Han}]]+", "(?:(?=[^\\p{sc:Han}])[\\p{L}])+");
    becomes("[a-z&&b-y&&[c-x]]", "(?:(?=[b-y])(?=[c-x])[a-z])");
    becomes("{a}", "\\x{7b}a\\x{7d}");
    becomes("#  a", "\\x{23}\\x{20}\\x{20}a");
}

static void spelling_does_not_matter(void **state) {
    (void)state;
    same("[\\r\\n]", "[\r\n]");
    same("\\u4e00", "一");
    same("\\x{ac00}", "가");
    same("\\x41", "A");
    same("\\-\\/", "-/");
    same("'s", "\\'s");
}

static void the_rest_is_refused(void **state) {
    (void)state;
    fails("a\\bc", DU_EUNSUPPORTED, "byte 1: the escape \\b");
    fails("(a)\\1", DU_EUNSUPPORTED, "the escape \\1");
    fails("\\R", DU_EUNSUPPORTED, "the escape \\R");
    fails("\\K", DU_EUNSUPPORTED, "the escape \\K");
    fails("(?<n>a)", DU_EUNSUPPORTED, "this kind of group");
    fails("(?#a)", DU_EUNSUPPORTED, "this kind of group");
    fails("(?~a)", DU_EUNSUPPORTED, "this kind of group");
    fails("a(?i)b", DU_EUNSUPPORTED, "this kind of group");
    fails("(?x:a)", DU_EUNSUPPORTED, "this kind of group");
    fails("[[:alpha:]]", DU_EUNSUPPORTED, "POSIX");
    fails("[a[bc]]", DU_EUNSUPPORTED, "a class within a class");
    fails("[^a&&b]", DU_EUNSUPPORTED, "&& in a negated class");
    fails("[]a]", DU_EUNSUPPORTED, "empty class");
    fails("[\\W]", DU_EUNSUPPORTED, "the escape \\W");
    fails("\\p{Klingon}", DU_EUNSUPPORTED, "the property");
    fails("a{2}?", DU_EUNSUPPORTED, "{n}?");
    fails("a+*", DU_EUNSUPPORTED, "a quantifier behind a quantifier");
    fails("\\xff", DU_EUNSUPPORTED, "a byte of a character");
    fails("(?i:stop)", DU_EUNSUPPORTED, "ss, st, ff, fi or fl");
    fails("(?i)é", DU_EUNSUPPORTED, "outside ASCII");
    fails("(?i:\\p{Lu})", DU_EUNSUPPORTED, "cased letters");
}

static void caseless_flags_end_with_their_group(void **state) {
    (void)state;
    becomes("(?i:'s|s|t)st", "(?i:\\x{27}s|s|t)st");
    becomes("(?i:a(?-i:ss)b)é", "(?i:a(?-i:ss)b)é");
    becomes("(?i)ab", "(?i)ab");
}

static void syntax_errors_name_the_place(void **state) {
    (void)state;
    fails("ab(c", DU_EFORMAT, "byte 2: a group without its )");
    fails("ab)c", DU_EFORMAT, "byte 2: a ) without its (");
    fails("ab[c", DU_EFORMAT, "byte 2: a class without its ]");
    fails("*a", DU_EFORMAT, "byte 0: a quantifier");
    fails("a\\", DU_EFORMAT, "byte 1: a backslash at the end");
    fails("[z-a]", DU_EFORMAT, "a range that does not go up");
    fails("[a-\\s]", DU_EFORMAT, "a range that does not go up");
    fails("\\p{L", DU_EFORMAT, "not the name of a property");
    fails("\\pL", DU_EFORMAT, "without a property in braces");
    fails("\\x{110000}", DU_EFORMAT, "not the number of a character");
    fails("\\x{d800}", DU_EFORMAT, "not the number of a character");
    fails("a\xff", DU_EFORMAT, "byte 1: not UTF-8");
}

static void depth_and_length_are_limited(void **state) {
    (void)state;
    du_str deep = {0};
    for (int i = 0; i < 10000; i++) {
        du_str_add_c(&deep, '(');
    }
    fails(du_str_get(&deep), DU_ELIMIT, "nested more than 64 deep");
    du_str_reset(&deep);
    for (int i = 0; i < 1000; i++) {
        du_str_add_s(&deep, "[a&&");
    }
    fails(du_str_get(&deep), DU_ELIMIT, "nested more than 64 deep");
    du_str_reset(&deep);
    for (int i = 0; i <= DU_PATTERN_BYTES_MAX; i++) {
        du_str_add_c(&deep, 'a');
    }
    fails(du_str_get(&deep), DU_ELIMIT, "bytes, more than");
    du_str_done(&deep);
}

static void short_memory_is_told(void **state) {
    (void)state;
    for (int64_t n = 1; n < 100; n++) {
        du_str out = {0};
        du_mem_fail_at(n, false);
        du_err err = du_pattern_translate(
            &out, du_sv_of("[\\p{L}&&[^\\p{Han}]&&[a-z]]{1,3}+|(?:\\s+abcdefghijklmnopqrst)"),
            NULL);
        du_mem_fail_at(0, false);
        du_str_done(&out);
        if (err == DU_OK) {
            assert_true(n > 4);
            return;
        }
        assert_int_equal(err, DU_ENOMEM);
    }
    fail();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_means_the_same_passes),
        cmocka_unit_test(what_differs_is_written_out),
        cmocka_unit_test(spelling_does_not_matter),
        cmocka_unit_test(the_rest_is_refused),
        cmocka_unit_test(caseless_flags_end_with_their_group),
        cmocka_unit_test(syntax_errors_name_the_place),
        cmocka_unit_test(depth_and_length_are_limited),
        cmocka_unit_test(short_memory_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
