#include "test.h"

#include "base/mem.h"
#include "base/rng.h"
#include "text/reasoning.h"

static const struct {
    du_reasoning_start start;
    const char *text, *reasoning, *content;
} cases[] = {
    {DU_REASONING_AUTO, "", "", ""},
    {DU_REASONING_AUTO, "Hello", "", "Hello"},
    {DU_REASONING_AUTO, "  Hello \n", "", "  Hello \n"},
    {DU_REASONING_AUTO, "2 <", "", "2 <"},
    {DU_REASONING_AUTO, "<", "", "<"},
    {DU_REASONING_AUTO, " <thin", "", " <thin"},
    {DU_REASONING_AUTO, "<think>a</think>b", "a", "b"},
    {DU_REASONING_AUTO, "\n<think>\n a\n b \n</think>\n\nb c\n", "a\n b", "b c\n"},
    {DU_REASONING_AUTO, "<think></think>b", "", "b"},
    {DU_REASONING_AUTO, "<think>\n\n</think>\n\n", "", ""},
    {DU_REASONING_AUTO, "<think>never closed </thin", "never closed </thin", ""},
    {DU_REASONING_AUTO, "<think>a <think> b</think>c", "a <think> b", "c"},
    {DU_REASONING_AUTO, "<think>a</think>b</think>c<think>d", "a", "b</think>c<think>d"},
    {DU_REASONING_AUTO, "x <think>a", "", "x <think>a"},
    {DU_REASONING_AUTO, " no opening tag \n</think>\n answer", "no opening tag", "answer"},
    {DU_REASONING_AUTO, "</think>answer", "", "answer"},
    {DU_REASONING_AUTO, "a <</think>b", "a <", "b"},
    {DU_REASONING_AUTO, "두레<think>\xff", "", "두레<think>\xff"},
    {DU_REASONING_OPEN, "a</think>b", "a", "b"},
    {DU_REASONING_OPEN, "\na \n\n</think>\n\n b ", "a", "b "},
    {DU_REASONING_OPEN, "all of it is reasoning\n", "all of it is reasoning", ""},
    {DU_REASONING_OPEN, "<think>\nagain</think>b", "again", "b"},
    {DU_REASONING_OPEN, "a</thi</think>b", "a</thi", "b"},
    {DU_REASONING_OPEN, "a</think", "a</think", ""},
    {DU_REASONING_OPEN, "</think>", "", ""},
    {DU_REASONING_OPEN, "a < b </ c", "a < b </ c", ""},
    {DU_REASONING_OPEN, "<thi", "<thi", ""},
    {DU_REASONING_CLOSED, "<think>a</think> b", "", "<think>a</think> b"},
    {DU_REASONING_CLOSED, "\n b </", "", "\n b </"},
};

enum { N_CASES = sizeof cases / sizeof cases[0] };

static void assert_split(size_t i, const du_reasoning *r) {
    if (strcmp(du_str_get(&r->reasoning), cases[i].reasoning) != 0 ||
        strcmp(du_str_get(&r->content), cases[i].content) != 0) {
        fail_msg("'%s': '%s' | '%s'", cases[i].text, du_str_get(&r->reasoning),
                 du_str_get(&r->content));
    }
}

static void splits(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        du_reasoning r;
        du_reasoning_init(&r, cases[i].start);
        assert_int_equal(du_reasoning_feed(&r, cases[i].text, strlen(cases[i].text)), DU_OK);
        assert_int_equal(du_reasoning_finish(&r), DU_OK);
        assert_split(i, &r);
        du_reasoning_done(&r);
    }
}

/* Feeds the text cut where the bits of `cuts` say, and collects what is handed out. */
static void feed_in_pieces(size_t i, uint64_t cuts) {
    const char *text = cases[i].text;
    size_t len = strlen(text), from = 0;
    du_str reasoning = {0}, content = {0};
    du_reasoning r;
    du_reasoning_init(&r, cases[i].start);
    for (size_t at = 1; at <= len + 1; at++) {
        if (at <= len && at < len && !(cuts >> (at % 64) & 1)) {
            continue;
        }
        if (at <= len) {
            assert_int_equal(du_reasoning_feed(&r, text + from, at - from), DU_OK);
            from = at;
        } else {
            assert_int_equal(du_reasoning_finish(&r), DU_OK);
        }
        du_str_add_sv(&reasoning, du_reasoning_take_reasoning(&r));
        du_str_add_sv(&content, du_reasoning_take_content(&r));
    }
    assert_split(i, &r);
    bool closed_only =
        cases[i].start == DU_REASONING_AUTO && !strstr(text, "<think>") && strstr(text, "</think>");
    if (!closed_only) { /* handed out exactly once, in order */
        assert_string_equal(du_str_get(&reasoning), cases[i].reasoning);
        assert_string_equal(du_str_get(&content), cases[i].content);
    }
    du_str_done(&reasoning);
    du_str_done(&content);
    du_reasoning_done(&r);
}

static void pieces_do_not_matter(void **state) {
    (void)state;
    du_rng rng;
    du_rng_init(&rng, 1);
    for (size_t i = 0; i < N_CASES; i++) {
        size_t len = strlen(cases[i].text);
        for (uint64_t cuts = 0; len <= 12 && cuts < (uint64_t)1 << len; cuts++) {
            feed_in_pieces(i, cuts);
        }
        feed_in_pieces(i, UINT64_MAX);
        for (int k = 0; k < 300; k++) {
            feed_in_pieces(i, du_rng_u64(&rng) & du_rng_u64(&rng));
        }
    }
}

/* Nothing is held back that cannot become part of a tag or be dropped. */
static void text_is_given_out_at_once(void **state) {
    (void)state;
    du_reasoning r;
    du_reasoning_init(&r, DU_REASONING_OPEN);
    assert_int_equal(du_reasoning_feed(&r, "ab c", 4), DU_OK);
    assert_string_equal(du_str_get(&r.reasoning), "ab c");
    assert_int_equal(du_reasoning_feed(&r, " <", 2), DU_OK);
    assert_string_equal(du_str_get(&r.reasoning), "ab c");
    assert_int_equal(du_reasoning_feed(&r, "=", 1), DU_OK);
    assert_string_equal(du_str_get(&r.reasoning), "ab c <=");
    assert_int_equal(du_reasoning_feed(&r, "</think>x <", 11), DU_OK);
    assert_string_equal(du_str_get(&r.content), "x <");
    du_reasoning_done(&r);
    du_reasoning_init(&r, DU_REASONING_AUTO);
    assert_int_equal(du_reasoning_feed(&r, "2 <", 3), DU_OK);
    assert_string_equal(du_str_get(&r.content), "2 ");
    assert_int_equal(du_reasoning_feed(&r, " 3", 2), DU_OK);
    assert_string_equal(du_str_get(&r.content), "2 < 3");
    du_reasoning_done(&r);
}

/* Content that turns out to be reasoning is not handed out twice. */
static void moved_text_is_handed_out_once(void **state) {
    (void)state;
    static const char text[] = " thoughts </think> answer";
    for (size_t cut = 0; cut < sizeof " thoughts </think>" - 1; cut++) {
        du_str all = {0};
        du_reasoning r;
        du_reasoning_init(&r, DU_REASONING_AUTO);
        assert_int_equal(du_reasoning_feed(&r, text, cut), DU_OK);
        du_str_add_sv(&all, du_reasoning_take_content(&r));
        assert_int_equal(du_reasoning_feed(&r, text + cut, sizeof text - 1 - cut), DU_OK);
        assert_int_equal(du_reasoning_finish(&r), DU_OK);
        assert_string_equal(du_str_get(&r.reasoning), "thoughts");
        du_str_add_sv(&all, du_reasoning_take_reasoning(&r));
        const char *shown = du_str_get(&all);
        assert_string_equal(shown + strspn(shown, " "), cut < 10 ? "thoughts" : "thoughts ");
        du_sv rest = du_reasoning_take_content(&r);
        assert_true(du_sv_is(rest, "answer"));
        du_str_done(&all);
        du_reasoning_done(&r);
    }
}

static void prompt_says_how_the_text_starts(void **state) {
    (void)state;
    static const struct {
        const char *prompt;
        du_reasoning_start start;
    } prompts[] = {
        {"<｜Assistant｜><think>\n", DU_REASONING_OPEN},
        {"<｜Assistant｜><think>", DU_REASONING_OPEN},
        {"<｜Assistant｜></think>", DU_REASONING_CLOSED},
        {"<|im_start|>assistant\n<think>\n\n</think>\n\n", DU_REASONING_CLOSED},
        {"<|im_start|>assistant\n", DU_REASONING_AUTO},
        {"a <think> b", DU_REASONING_AUTO},
        {"", DU_REASONING_AUTO},
    };
    for (size_t i = 0; i < sizeof prompts / sizeof prompts[0]; i++) {
        assert_int_equal(du_reasoning_start_of(prompts[i].prompt, strlen(prompts[i].prompt)),
                         prompts[i].start);
    }
}

static void allocation_failures_are_survived(void **state) {
    (void)state;
    int64_t live = du_mem_get_stats().n_live;
    for (size_t i = 0; i < N_CASES; i++) {
        bool done = false;
        for (int64_t n = 1; !done; n++) {
            du_reasoning r;
            du_reasoning_init(&r, cases[i].start);
            du_mem_fail_at(n, false);
            du_err err = du_reasoning_feed(&r, cases[i].text, strlen(cases[i].text));
            err = err == DU_OK ? du_reasoning_finish(&r) : err;
            du_mem_fail_at(0, false);
            assert_true(err == DU_OK || err == DU_ENOMEM);
            if (err == DU_OK) {
                assert_split(i, &r);
                done = true;
            }
            du_reasoning_done(&r);
            assert_int_equal(du_mem_get_stats().n_live, live);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits),
        cmocka_unit_test(pieces_do_not_matter),
        cmocka_unit_test(text_is_given_out_at_once),
        cmocka_unit_test(moved_text_is_handed_out_once),
        cmocka_unit_test(prompt_says_how_the_text_starts),
        cmocka_unit_test(allocation_failures_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
