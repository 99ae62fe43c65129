/* The Jinja interpreter: what its goldens (golden.templates) do not hold. Expected texts are those
 * of Jinja2 3.1.6 with trim_blocks, lstrip_blocks and loop controls. */
#include "test.h"

#include <stdlib.h>
#include <time.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "text/jinja.h"
#include "text/unicode.h"

static const char vars_text[] =
    "{\"x\": 5, \"s\": \"두레 Dure\", \"l\": [3, 1, 2], \"d\": {\"a\": 1, \"b\": [1, 2]},"
    " \"n\": null, \"big\": 9007199254740993}";

static json_t *vars_make(void) {
    json_t *vars = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_json_parse(&vars, vars_text, strlen(vars_text), "vars", &diag), &diag);
    return vars;
}

static du_err render(const char *template, const json_t *vars, const du_jinja_options *options,
                     du_str *out, du_diag *diag) {
    du_jinja *t = NULL;
    du_err err = du_jinja_parse(&t, template, strlen(template), "t", diag);
    if (err == DU_OK) {
        err = du_jinja_render(t, vars, options, out, diag);
    }
    du_jinja_free(t);
    return err;
}

static void assert_renders(const char *template, const char *expected) {
    json_t *vars = vars_make();
    du_str out = {0};
    du_diag diag;
    du_diag_reset(&diag);
    du_err err = render(template, vars, NULL, &out, &diag);
    if (err != DU_OK || strcmp(du_str_get(&out), expected) != 0) {
        fail_msg("%s: %s\n  got      %s\n  expected %s", template, diag.msg, du_str_get(&out),
                 expected);
    }
    du_str_done(&out);
    json_decref(vars);
}

static void assert_error(const char *template, du_err code, const char *part) {
    json_t *vars = vars_make();
    du_str out = {0};
    du_str_add_s(&out, "before");
    du_diag diag;
    du_diag_reset(&diag);
    du_err err = render(template, vars, NULL, &out, &diag);
    if (err != code || !strstr(diag.msg, part)) {
        fail_msg("%s: %s: %s, not %s with '%s'", template, du_err_text(err), diag.msg,
                 du_err_text(code), part);
    }
    assert_string_equal(du_str_get(&out), "before");
    du_str_done(&out);
    json_decref(vars);
}

static void scopes_are_those_of_jinja2(void **state) {
    (void)state;
    /* a write in a loop stays in its round, and starts from the value outside */
    assert_renders("{% for i in l %}{% set x = x + i %}{{ x }};{% endfor %}{{ x }}", "8;6;7;5");
    /* a name that the template sets later has no value before, even if the caller gave one */
    assert_renders("{% for i in l %}{{ x }}{% endfor %}{% set x = 9 %}{{ x }}", "9");
    /* but a branch of an if takes the caller's */
    assert_renders("{% if n %}{% set x = 9 %}{% endif %}{{ x }}", "5");
    assert_renders("{% macro m() %}{{ z }}{% endmacro %}{% set z = 7 %}{{ m() }}", "7");
    assert_renders("{% with x = 2, a = x %}{{ a }}{{ x }}{% endwith %}{{ x }}", "525");
    assert_renders("{% for i in l %}{% if i == 1 %}{% set w = i %}{% endif %}[{{ w }}]{% endfor %}",
                   "[][1][]");
    assert_renders("{% set ns = namespace(v=0) %}{% for i in l %}{% set ns.v = ns.v + i %}"
                   "{% endfor %}{{ ns.v }}",
                   "6");
    assert_renders("{% for i in [1, [2, [3]]] recursive %}{% set q = loop.depth %}"
                   "{{ '(' ~ loop(i) ~ ')' if i is iterable else i }}{{ q }}{% endfor %}",
                   "11(22(33)2)1");
}

static void else_runs_when_no_round_was_finished(void **state) {
    (void)state;
    assert_renders("{% for i in l %}{% break %}{% else %}none{% endfor %}", "none");
    assert_renders("{% for i in l %}{% continue %}{% else %}none{% endfor %}", "none");
    assert_renders("{% for i in l %}{{ i }}{% else %}none{% endfor %}", "312");
}

static void lazy_sequences_are_walked_once(void **state) {
    (void)state;
    assert_renders("{% set g = l|select('odd') %}{{ g|list }}{{ g|list }}", "[3, 1][]");
    assert_renders("{{ 'yes' if l|select('gt', 100) else 'no' }}", "yes");
    assert_renders("{{ []|map('nope')|list }}", "[]");
    assert_renders("{% for i in l if i > 1 %}{{ loop.index }}/{{ loop.length }};{% endfor %}",
                   "1/2;2/2;");
}

static void numbers_are_pythons(void **state) {
    (void)state;
    assert_renders("{{ -7 // 2 }} {{ -7 % 3 }} {{ 7.5 // -2 }} {{ 2 ** -1 }} {{ -2 ** 2 }}",
                   "-4 2 -4.0 0.5 4");
    assert_renders("{{ 1e16 }} {{ 1e15 }} {{ 0.1 + 0.2 }} {{ 1e-5 }} {{ 2.0 ** -44 }} {{ -0.0 }}",
                   "1e+16 1000000000000000.0 0.30000000000000004 1e-05 5.684341886080802e-14 -0.0");
    assert_renders("{{ big == 9007199254740992.0 }} {{ big / 3 }} {{ 1 == 1.0 == true }}",
                   "False 3002399751580331.0 True");
    assert_renders("{{ {1: 'a', 1.0: 'b', true: 'c'} }}", "{1: 'c'}");
    assert_renders(
        "{{ 2.675|round(2) }} {{ 2.5|round }} {{ 25|round(-1) }} {{ 42.55|round(1, 'ceil') }}",
        "2.67 2.0 20 42.6");
    assert_error("{{ 9223372036854775807 + 1 }}", DU_EUNSUPPORTED, "beyond 64 bits");
    assert_error("{{ 9223372036854775808 }}", DU_EUNSUPPORTED, "beyond 64 bits");
    assert_error("{{ 2 ** 63 }}", DU_EUNSUPPORTED, "beyond 64 bits");
    assert_error("{{ (-9223372036854775807 - 1) // -1 }}", DU_EUNSUPPORTED, "beyond 64 bits");
    assert_error("{{ 1 // 0 }}", DU_EFORMAT, "division by zero");
}

static void text_is_counted_in_code_points(void **state) {
    (void)state;
    assert_renders("{{ s|length }} {{ s[0] }} {{ s[-1] }} {{ s[1:4] }} {{ s[::-1] }} {{ s[::3] }}",
                   "7 두 e 레 D eruD 레두 두De");
    assert_renders("{{ s.find('Dure') }} {{ s.rfind('레') }} {{ s.count('') }}", "3 1 8");
    assert_renders("{{ 'ß ﬁ ŉ ΑΣ'.title() }} {{ 'ΑΣ ΑΣΑ'.lower() }} {{ 'ßﬁ'.upper() }}",
                   "Ss Fi ʼN Ας ας ασα SSFI");
    assert_renders("{{ ['\\u200b', '\\n', '😀', '\\xad', \"it's\"] }}",
                   "['\\u200b', '\\n', '😀', '\\xad', \"it's\"]");
    assert_renders("{{ '\\x41\\101\\u00e9\\U0001F600\\q' }}", "AAé😀\\q");
}

/* Texts that were grown by appending share bytes; none may see the other's end. */
static void appended_texts_stay_apart(void **state) {
    (void)state;
    assert_renders("{% set a = 'a' * 300 %}{% set p = a ~ 'b' %}{% set q = a ~ 'c' %}"
                   "{% set r = p ~ 'd' %}{% set w = p ~ 'e' %}"
                   "{{ p[-2:] }} {{ q[-2:] }} {{ r[-3:] }} {{ w[-3:] }} {{ r|length }}",
                   "ab ac abd abe 302");
    assert_renders("{% set ns = namespace(t='') %}{% for i in range(5000) %}"
                   "{% set ns.t = ns.t ~ i ~ ',' %}{% endfor %}{{ ns.t|length }}{{ ns.t[-6:] }}",
                   "23890,4999,");
}

static void markup_escapes_what_is_joined_to_it(void **state) {
    (void)state;
    assert_renders("{{ ('<'|e) + '<' }} {{ '<' + ('<'|safe) }} {{ ('<'|e) ~ '<' }}",
                   "&lt;&lt; &lt;< &lt;<");
    assert_renders("{{ ('%s'|safe) % '<' }} {{ [','|safe] }}", "&lt; [Markup(',')]");
}

static void mistakes_name_line_and_construct(void **state) {
    (void)state;
    assert_error("a\n{% if x %}\n", DU_EFORMAT,
                 "t: line 2: the template ends inside the 'if' of line 2");
    assert_error("a\n\n{{ x | nope }}", DU_EFORMAT, "t: line 3: unknown filter nope");
    assert_error("{% for i in l %}\n{% endif %}", DU_EFORMAT,
                 "line 2: unexpected tag 'endif': the 'for' of line 1 is still open");
    assert_error("{% include 'a' %}", DU_EUNSUPPORTED,
                 "line 1: the tag 'include' is not supported");
    assert_error("{% nope %}", DU_EFORMAT, "unknown tag 'nope'");
    assert_error("{{ x y }}", DU_EFORMAT, "unexpected 'y'");
    assert_error("{{ (x] }}", DU_EFORMAT, "']' closes no bracket");
    assert_error("{{ 'abc }}", DU_EFORMAT, "no closing quote");
    assert_error("{{ '\\ud800' }}", DU_EFORMAT, "wrong escape");
    assert_error("{# a\n", DU_EFORMAT, "comment has no end");
    assert_error("{% raw %} a\n", DU_EFORMAT, "no endraw");
    assert_error("{{ x ? }}", DU_EFORMAT, "unexpected character '?' (U+003F)");
    assert_error("{% break %}", DU_EFORMAT, "break outside of a loop");
    assert_error("{% set 1 = 2 %}", DU_EFORMAT, "cannot be assigned to");
    assert_error("\xff", DU_EFORMAT, "no valid UTF-8");
    assert_error("{{ d.zz.yy }}", DU_EFORMAT, "t: line 1: dict has no attribute 'zz'");
    assert_error("\n{{ nothing.a }}", DU_EFORMAT, "t: line 2: 'nothing' is undefined");
    assert_error("{{ nothing + 1 }}", DU_EFORMAT, "'nothing' is undefined");
    assert_error("{{ 'a' + 1 }}", DU_EFORMAT, "+ does not go between str and int");
    assert_error("{{ 1 < 'a' }}", DU_EFORMAT, "int and str cannot be compared with <");
    assert_error("{{ l.append(1) }}", DU_EFORMAT, "templates cannot change lists");
    assert_error("{{ x|int(zz=1) }}", DU_EFORMAT, "int has no parameter zz");
    assert_error("{{ l|pprint }}", DU_EUNSUPPORTED, "line 1: pprint is not supported");
    assert_error("{{ s.encode() }}", DU_EUNSUPPORTED, "encode is not supported");
    assert_error("{% for a, b in [[1]] %}{% endfor %}", DU_EFORMAT, "1 values for 2 variables");
    assert_error("{{ {[]: 1} }}", DU_EFORMAT, "list cannot be a key");
    /* inside an if only when it is reached */
    assert_renders("{% if n %}{{ x | nope }}{% endif %}ok", "ok");
    assert_error("{% if x %}{{ x | nope }}{% endif %}", DU_EFORMAT,
                 "there is no filter named nope");
}

static void raised_text_is_the_message(void **state) {
    (void)state;
    json_t *vars = vars_make();
    du_str out = {0};
    du_diag diag;
    du_diag_reset(&diag);
    assert_int_equal(
        render("a{{ raise_exception('Roles must ' ~ 'alternate!') }}", vars, NULL, &out, &diag),
        DU_EINVAL);
    assert_string_equal(diag.msg, "Roles must alternate!");
    assert_int_equal(out.len, 0);
    /* a long one is cut between characters */
    du_diag_reset(&diag);
    assert_int_equal(render("{{ raise_exception('a' ~ '레' * 400) }}", vars, NULL, &out, &diag),
                     DU_EINVAL);
    assert_int_equal(du_utf8_valid(diag.msg, strlen(diag.msg)), strlen(diag.msg));
    assert_true(strlen(diag.msg) > 300);
    du_diag_reset(&diag);
    assert_int_equal(
        render("{{ x | a레레레레레레레레레레레레레레레레레레레레레 }}", vars, NULL, &out, &diag),
        DU_EFORMAT);
    assert_int_equal(du_utf8_valid(diag.msg, strlen(diag.msg)), strlen(diag.msg));
    du_str_done(&out);
    json_decref(vars);
}

static void limits_hold(void **state) {
    (void)state;
    static const char endless[] = "{% for i in range(100000) %}{% for j in range(100000) %}"
                                  "{% set a = i %}{% endfor %}{% endfor %}";
    assert_error(endless, DU_ELIMIT, "too many steps");
    assert_error("{% macro r(n) %}{{ r(n) }}{% endmacro %}{{ r(1) }}", DU_ELIMIT, "levels deep");
    assert_error("{{ 'a' * 1000000000000 }}", DU_ELIMIT, "bytes of memory");
    assert_error("{{ [1] * 1000000000000 }}", DU_ELIMIT, "too many steps");
    assert_error("{{ range(100001) }}", DU_ELIMIT, "range of more than 100000");
    assert_error("{% set ns = namespace(l=[]) %}{% for i in range(1000) %}"
                 "{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
                 DU_ELIMIT, "levels deep");
    assert_error("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}", DU_ELIMIT,
                 "levels deep");
    assert_error("{{ 'a' * 60000000 }}{{ 'a' * 60000000 }}", DU_ELIMIT, "bytes");
    assert_error("{{ '%2000000d' % 1 }}", DU_ELIMIT, "width");

    du_jinja_options small = {
        .steps_max = 1000, .output_bytes_max = 100, .memory_bytes_max = 100000};
    du_str out = {0};
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(render("{% for i in range(30) %}{{ i }}{% endfor %}", NULL, &small, &out, &diag),
              &diag);
    assert_fails(render("{% for i in range(3000) %}{% endfor %}", NULL, &small, &out, &diag),
                 DU_ELIMIT, &diag, "steps");
    assert_fails(render("{{ 'a' * 101 }}", NULL, &small, &out, &diag), DU_ELIMIT, &diag,
                 "longer than 100 bytes");
    assert_fails(render("{{ ('a' * 100000)|length }}", NULL, &small, &out, &diag), DU_ELIMIT, &diag,
                 "100000 bytes of memory");
    du_str_done(&out);
}

static void deep_nesting_is_refused(void **state) {
    (void)state;
    static const char *const openings[] = {
        "{{ ((((",      "{{ - - - ",   "{{ not not not ", "{% if x %}{% if x %}",       "{{ [[[[",
        "{{ x.a.a.a.a", "{{ 1+1+1+1+", "{{ x|e|e|e",      "{{ a if b else a if b else "};
    for (size_t i = 0; i < sizeof openings / sizeof openings[0]; i++) {
        du_str text = {0};
        for (int k = 0; k < 20000; k++) {
            du_str_add_s(&text, k ? openings[i] + 3 : openings[i]);
        }
        if (strncmp(openings[i], "{%", 2) == 0) {
            du_str_reset(&text);
            for (int k = 0; k < 20000; k++) {
                du_str_add_s(&text, openings[i]);
            }
        }
        du_diag diag;
        du_diag_reset(&diag);
        du_jinja *t = NULL;
        assert_int_not_equal(du_jinja_parse(&t, du_str_get(&text), text.len, "t", &diag), DU_OK);
        assert_null(t);
        du_str_done(&text);
    }
    du_str towers = {0}; /* each bracket within bounds, each chain too, but not the tree */
    du_str_add_s(&towers, "{% for i in l %}{{ ");
    for (int k = 0; k < 90; k++) {
        du_str_add_c(&towers, '(');
    }
    du_str_add_c(&towers, '1');
    for (int k = 0; k < 90; k++) {
        for (int n = 0; n < 90; n++) {
            du_str_add_s(&towers, "+1");
        }
        du_str_add_c(&towers, ')');
    }
    du_str_add_s(&towers, " }}{% endfor %}");
    assert_error(du_str_get(&towers), DU_ELIMIT, "line 1: nested more than");
    du_str_done(&towers);

    du_str flat = {0}; /* what is long but not deep is fine */
    for (int k = 0; k < 20000; k++) {
        du_str_add_s(&flat, "{% if x %}{{ x ~ 'a' ~ 'b' }}{% endif %}");
    }
    json_t *vars = vars_make();
    du_str out = {0};
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(render(du_str_get(&flat), vars, NULL, &out, &diag), &diag);
    assert_int_equal(out.len, 3 * 20000);
    du_str_done(&flat);
    du_str_done(&out);
    json_decref(vars);
}

static void clock_can_be_stopped(void **state) {
    (void)state;
    du_jinja_options options = {.now_s = 1721995200};
    du_str out = {0};
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(
        render("{{ strftime_now('%d %b %Y %H:%M:%S %f%z %-d%%') }}", NULL, &options, &out, &diag),
        &diag);
    assert_string_equal(du_str_get(&out), "26 Jul 2024 12:00:00 000000 26%");
    du_str_done(&out);
}

static void reads_tells_variables(void **state) {
    (void)state;
    static const char text[] = "{% set a = b %}{% for c in d.e %}{{ f(g=h)|join(i) }}{% endfor %}"
                               "{% macro j(k=l) %}{{ k }}{% endmacro %}";
    du_jinja *t = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_jinja_parse(&t, text, strlen(text), "t", &diag), &diag);
    for (const char *p = "bdfhikl"; *p; p++) {
        assert_true(du_jinja_reads(t, (char[]){*p, 0}));
    }
    for (const char *p = "acegjz"; *p; p++) {
        assert_false(du_jinja_reads(t, (char[]){*p, 0}));
    }
    du_jinja_free(t);
}

/* Every place where memory can run out, parsing and rendering. */
static void allocation_failures_are_survived(void **state) {
    (void)state;
    static const char text[] =
        "{% macro m(a, b=2) %}{{ a }}{{ caller() if caller }}{{ kwargs }}{% endmacro %}"
        "{% set ns = namespace(t='', l=[1, 2.5, none]) %}"
        "{% for k, v in d.items() if v %}{% set ns.t = ns.t ~ k ~ loop.length %}{% endfor %}"
        "{% call m(1, c=3) %}x{% endcall %}{{ l|sort|map('string')|join(',') }}"
        "{{ d|tojson(indent=2) }}{{ '%s %5.2f' % (s, 1.5) }}{{ '{:>5}'.format(x) }}{{ [s, d] }}"
        "{{ s.upper().split() }}{{ s|replace('u', 'o')|indent }}{{ 'a' * 5000 ~ 'b' }}"
        "{{ {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 8: 8, 9: 9, 10: 10}[9] }}"
        "{% filter upper %}{% raw %}{{ raw }}{% endraw %}{% endfilter %}{{ '<'|e }}";
    json_t *vars = vars_make();
    du_str expected = {0};
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(render(text, vars, NULL, &expected, &diag), &diag);
    int64_t live = du_mem_get_stats().n_live;
    bool done = false;
    for (int64_t n = 1; !done; n++) {
        du_str out = {0};
        du_diag_reset(&diag);
        du_mem_fail_at(n, n % 2);
        du_err err = render(text, vars, NULL, &out, &diag);
        int64_t calls_left = du_mem_get_stats().n_calls;
        du_mem_fail_at(0, false);
        (void)calls_left;
        done = err == DU_OK;
        if (done) {
            assert_string_equal(du_str_get(&out), du_str_get(&expected));
            assert_true(n > 20);
        } else {
            assert_int_equal(err, DU_ENOMEM);
            assert_int_equal(diag.code, DU_ENOMEM);
            assert_int_equal(out.len, 0);
        }
        du_str_done(&out);
        assert_int_equal(du_mem_get_stats().n_live, live);
    }
    du_str_done(&expected);
    json_decref(vars);
}

int main(void) {
    setenv("TZ", "UTC", 1);
    tzset();
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scopes_are_those_of_jinja2),
        cmocka_unit_test(else_runs_when_no_round_was_finished),
        cmocka_unit_test(lazy_sequences_are_walked_once),
        cmocka_unit_test(numbers_are_pythons),
        cmocka_unit_test(text_is_counted_in_code_points),
        cmocka_unit_test(appended_texts_stay_apart),
        cmocka_unit_test(markup_escapes_what_is_joined_to_it),
        cmocka_unit_test(mistakes_name_line_and_construct),
        cmocka_unit_test(raised_text_is_the_message),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(clock_can_be_stopped),
        cmocka_unit_test(reads_tells_variables),
        cmocka_unit_test(allocation_failures_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
