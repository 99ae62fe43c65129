#include "plot/html.h"

#include "test.h"

static void assert_html(du_sv text, const char *want) {
    du_str out = {0};
    du_html_add(&out, text);
    assert_string_equal(du_str_get(&out), want);
    du_str_done(&out);
}

static void test_escapes(void **state) {
    (void)state;
    assert_html(du_sv_of(""), "");
    assert_html(du_sv_of("두레 34 + 25 = 59"), "두레 34 + 25 = 59");
    assert_html(du_sv_of("<script>alert('x')</script>"),
                "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;");
    assert_html(du_sv_of("\" onload=\"x"), "&quot; onload=&quot;x");
    assert_html(du_sv_of("&lt; &amp;"), "&amp;lt; &amp;amp;");
    assert_html(du_sv_of("a\tb\nc"), "a\tb\nc");
    assert_html((du_sv){"a\0b\x1b[31m\x7f", 9}, "a\xef\xbf\xbd"
                                                "b\xef\xbf\xbd[31m\xef\xbf\xbd");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_escapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
