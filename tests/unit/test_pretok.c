#include "test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "text/pretok.h"

/* Joins the pieces with "|". */
static du_err collect(void *arg, du_sv piece) {
    du_str *out = arg;
    du_str_add_s(out, out->len ? "|" : "");
    du_str_add_sv(out, piece);
    return DU_OK;
}

static du_pretok *empty(void) {
    du_pretok *p = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_pretok_new(&p, &diag), &diag);
    return p;
}

static void add(du_pretok *p, const char *pattern, du_split split, bool invert) {
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_pretok_add(p, du_sv_of(pattern), false, split, invert, &diag), &diag);
}

/* Frees p. */
static void splits_sv(du_pretok *p, du_sv text, const char *want) {
    du_diag diag;
    du_diag_reset(&diag);
    du_pretok_work *work = NULL;
    du_str out = {0};
    assert_ok(du_pretok_work_new(&work, p, &diag), &diag);
    for (int round = 0; round < 2; round++) { /* working memory is used again */
        du_str_reset(&out);
        assert_ok(du_pretok_split(p, work, text, collect, &out, &diag), &diag);
        assert_string_equal(du_str_get(&out), want);
    }
    du_str_done(&out);
    du_pretok_work_free(work);
    du_pretok_free(p);
}

static void splits(du_pretok *p, const char *text, const char *want) {
    splits_sv(p, du_sv_of(text), want);
}

static du_pretok *one(const char *pattern, du_split split, bool invert) {
    du_pretok *p = empty();
    add(p, pattern, split, invert);
    return p;
}

static du_pretok *rule(const char *name) {
    du_pretok *p = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_pretok_from_rule(&p, NULL, du_sv_of(name), &diag), &diag);
    return p;
}

/* The example of the reference's own documentation. */
static void behaviours(void **state) {
    (void)state;
    const char *text = "The-final--countdown";
    splits(one("-", DU_SPLIT_REMOVED, false), text, "The|final|countdown");
    splits(one("-", DU_SPLIT_ISOLATED, false), text, "The|-|final|-|-|countdown");
    splits(one("-", DU_SPLIT_PREVIOUS, false), text, "The-|final-|-|countdown");
    splits(one("-", DU_SPLIT_NEXT, false), text, "The|-final|-|-countdown");
    splits(one("-", DU_SPLIT_CONTIGUOUS, false), text, "The|-|final|--|countdown");
    splits(one("-", DU_SPLIT_PREVIOUS, false), "-a-", "-|a-");
    splits(one("-", DU_SPLIT_NEXT, false), "-a-", "-a|-");
    splits(one("\\w+", DU_SPLIT_REMOVED, true), "ab, cd!", "ab|cd");
    splits(one("[^-]+", DU_SPLIT_PREVIOUS, true), text, "The-|final--|countdown");
}

static void empty_matches_cut(void **state) {
    (void)state;
    splits(one("(?=b)", DU_SPLIT_ISOLATED, false), "abcb", "a|bc|b");
    splits(one("x*", DU_SPLIT_ISOLATED, false), "axxb", "a|xx|b");
}

static void passes_cut_the_pieces_before(void **state) {
    (void)state;
    du_pretok *p = empty();
    add(p, "[0-9]", DU_SPLIT_ISOLATED, false);
    add(p, "\\s+(?!\\S)|\\S+", DU_SPLIT_ISOLATED, false);
    splits(p, "a  1 b", "a|  |1| |b"); /* the look-ahead does not see the 1 */
    p = empty();
    add(p, "-", DU_SPLIT_NEXT, false);
    add(p, "^-", DU_SPLIT_REMOVED, false);
    splits(p, "a-b-c", "a|b|c");
    splits(empty(), "a b", "a b");
}

static void what_is_not_utf8_is_a_piece(void **state) {
    (void)state;
    splits(rule("gpt-2"), "ab \xff\xfe cd", "ab| |\xff\xfe| cd");
    splits(rule("gpt-2"), "\xe3\x81", "\xe3\x81");
    splits(rule("qwen2"), "가\xea\xb0나", "가|\xea\xb0|나");
    splits_sv(rule("gpt-2"), (du_sv){"a\0b", 3}, "a|"); /* and NUL is an ordinary character */
    splits(rule("gpt-2"), "", "");
}

/* Assigned in Unicode 15 and 16: PCRE2 of Debian 12 knows Unicode 14. */
static void newer_characters_have_their_kind(void **state) {
    (void)state;
    splits(rule("deepseek-v3"), "I\U0001fa77you \U0001fae8!", "I|\U0001fa77|you| \U0001fae8!");
    splits(rule("kimi-k2"), "\U00031350\U000323afab", "\U00031350\U000323af|ab");
    splits(one("\\p{Nd}", DU_SPLIT_ISOLATED, false), "a\U0001e4f1\U0001e4f2b",
           "a|\U0001e4f1|\U0001e4f2|b");
}

/* The name of the rule that p is, "" for none. */
static const char *name_of(const du_pretok *p) {
    const du_pretok_rule *found = NULL;
    assert_int_equal(du_pretok_find_rule(p, &found, NULL), DU_OK);
    return found ? found->name : "";
}

static void rules_by_name_and_synonym(void **state) {
    (void)state;
    static const char *const synonyms[][2] = {
        {"deepseek-v3", "joyai-llm"}, {"qwen2", "deepseek-r1-qwen"}, {"llama-bpe", "llama3"},
        {"llama-bpe", "llama-v3"},    {"llama-bpe", "glm4"},         {"llama-bpe", "falcon3"},
        {"llama-bpe", "midm-2.0"},    {"llama-bpe", "pixtral"},      {"qwen2", "megrez"},
        {"gpt-2", "gigachat"},        {"gpt-2", "a.x-4.0"},
    };
    for (size_t i = 0; i < sizeof synonyms / sizeof synonyms[0]; i++) {
        du_pretok *p = rule(synonyms[i][1]);
        assert_string_equal(name_of(p), synonyms[i][0]);
        size_t n = 0;
        const char *const *patterns = du_pretok_rule_patterns(synonyms[i][0], &n);
        bool is = false, is_less = true;
        assert_int_equal(du_pretok_is(p, patterns, n, &is, NULL), DU_OK);
        assert_int_equal(du_pretok_is(p, patterns, n - 1, &is_less, NULL), DU_OK);
        assert_true(n >= 1 && is && !is_less);
        du_pretok_free(p);
    }
    du_pretok *p = empty();
    add(p, "\\p{N}", DU_SPLIT_ISOLATED, false);
    add(p, du_pretok_gpt2_pattern, DU_SPLIT_ISOLATED, false);
    assert_string_equal(name_of(p), "smollm");
    add(p, "x", DU_SPLIT_ISOLATED, false);
    assert_string_equal(name_of(p), "");
    du_pretok_free(p);
    p = one(du_pretok_gpt2_pattern, DU_SPLIT_REMOVED, false);
    assert_string_equal(name_of(p), "");
    du_pretok_free(p);
}

static void unknown_rule_is_named_with_the_known(void **state) {
    (void)state;
    du_pretok *p = NULL;
    du_diag diag;
    assert_fails(du_pretok_from_rule(&p, NULL, du_sv_of("tekken"), &diag), DU_EUNSUPPORTED, &diag,
                 "'tekken' is not known; known are deepseek-llm,");
    assert_non_null(strstr(diag.msg, "kimi-k2"));
    assert_null(p);
}

static void bad_passes_are_refused(void **state) {
    (void)state;
    du_pretok *p = empty();
    du_diag diag;
    assert_fails(du_pretok_add(p, du_sv_of(""), false, DU_SPLIT_ISOLATED, false, &diag),
                 DU_EUNSUPPORTED, &diag, "empty pattern");
    assert_fails(du_pretok_add(p, du_sv_of("a{3,1}"), false, DU_SPLIT_ISOLATED, false, &diag),
                 DU_EFORMAT, &diag, "numbers out of order");
    assert_fails(du_pretok_add(p, du_sv_of("(?<=a+)b"), false, DU_SPLIT_ISOLATED, false, &diag),
                 DU_EFORMAT, &diag, "regular expression: ");
    for (size_t i = 0; i < DU_PRETOK_PASSES_MAX; i++) {
        add(p, "a", DU_SPLIT_ISOLATED, false);
    }
    assert_fails(du_pretok_add(p, du_sv_of("a"), false, DU_SPLIT_ISOLATED, false, &diag), DU_ELIMIT,
                 &diag, "more than 16 passes");
    du_pretok_free(p);
}

static du_err count(void *arg, du_sv piece) {
    *(size_t *)arg += piece.len;
    return DU_OK;
}

/* One run of a megabyte, in front of what ends it, through every rule. */
static void long_runs_take_linear_time(void **state) {
    (void)state;
    static const char *const rules[] = {"deepseek-llm", "deepseek-coder", "deepseek-v3",
                                        "qwen2",        "llama-bpe",      "smollm",
                                        "gpt-2",        "kimi-k2",        "default"};
    static const char *const runs[] = {" ", "a",  "가",    "A",  "中",    "!",
                                       "7", "\n", "\r\n ", "a'", "\u0301"};
    double start = du_clock_s();
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        for (size_t k = 0; k < sizeof runs / sizeof runs[0]; k++) {
            du_pretok *p = rule(rules[i]);
            du_diag diag;
            du_diag_reset(&diag);
            du_pretok_work *work = NULL;
            du_str text = {0};
            while (text.len < 1 << 20) {
                du_str_add_s(&text, runs[k]);
            }
            du_str_add_s(&text, "5x");
            size_t n = 0;
            assert_ok(du_pretok_work_new(&work, p, &diag), &diag);
            assert_ok(du_pretok_split(p, work, du_str_view(&text), count, &n, &diag), &diag);
            assert_int_equal(n, text.len);
            du_str_done(&text);
            du_pretok_work_free(work);
            du_pretok_free(p);
        }
    }
    assert_true(du_clock_s() - start < 100); /* quadratic: 10^12 steps */
}

static void runaway_expressions_are_given_up(void **state) {
    (void)state;
    du_pretok *p = one("(?:a+)+b", DU_SPLIT_ISOLATED, false);
    du_diag diag;
    du_diag_reset(&diag);
    du_pretok_work *work = NULL;
    size_t n = 0;
    assert_ok(du_pretok_work_new(&work, p, &diag), &diag);
    assert_fails(du_pretok_split(p, work,
                                 du_sv_of("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac b"),
                                 count, &n, &diag),
                 DU_ELIMIT, &diag, "gave up");
    du_pretok_work_free(work);
    du_pretok_free(p);
}

static du_err stop(void *arg, du_sv piece) {
    (void)piece;
    return ++*(size_t *)arg == 2 ? DU_ECANCELLED : DU_OK;
}

static void the_receiver_ends_it(void **state) {
    (void)state;
    du_pretok *p = rule("gpt-2");
    du_pretok_work *work = NULL;
    size_t n = 0;
    assert_int_equal(du_pretok_work_new(&work, p, NULL), DU_OK);
    assert_int_equal(du_pretok_split(p, work, du_sv_of("a b c d"), stop, &n, NULL), DU_ECANCELLED);
    assert_int_equal(n, 2);
    du_pretok_work_free(work);
    du_pretok_free(p);
}

static du_err use(du_str *out) {
    du_pretok *p = NULL;
    du_pretok_work *work = NULL;
    du_err err = du_pretok_from_rule(&p, NULL, du_sv_of("kimi-k2"), NULL);
    if (err == DU_OK) {
        err = du_pretok_work_new(&work, p, NULL);
    }
    if (err == DU_OK) {
        err = du_pretok_split(p, work, du_sv_of("가A \U0001fa77 12"), collect, out, NULL);
    }
    du_pretok_work_free(work);
    du_pretok_free(p);
    return err == DU_OK && out->failed ? DU_ENOMEM : err;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    du_str out = {0};
    int64_t live = du_mem_get_stats().n_live, calls = du_mem_get_stats().n_calls;
    assert_int_equal(use(&out), DU_OK);
    int64_t n_calls = du_mem_get_stats().n_calls - calls;
    assert_true(n_calls > 10);
    du_str_done(&out);
    for (int64_t n = 1; n <= n_calls; n++) {
        du_mem_fail_at(n, false);
        du_err err = use(&out);
        du_mem_fail_at(0, false);
        assert_true(err == DU_OK || err == DU_ENOMEM);
        if (err == DU_OK) { /* the JIT compiler did without */
            assert_string_equal(du_str_get(&out), "가|A| \U0001fa77| |12");
        }
        du_str_done(&out);
        assert_int_equal(du_mem_get_stats().n_live, live);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(behaviours),
        cmocka_unit_test(empty_matches_cut),
        cmocka_unit_test(passes_cut_the_pieces_before),
        cmocka_unit_test(what_is_not_utf8_is_a_piece),
        cmocka_unit_test(newer_characters_have_their_kind),
        cmocka_unit_test(rules_by_name_and_synonym),
        cmocka_unit_test(unknown_rule_is_named_with_the_known),
        cmocka_unit_test(bad_passes_are_refused),
        cmocka_unit_test(long_runs_take_linear_time),
        cmocka_unit_test(runaway_expressions_are_given_up),
        cmocka_unit_test(the_receiver_ends_it),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
