#include "test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "text/spm.h"
#include "text/unicode.h"

typedef struct {
    const char *text;
    float score;
    du_token_type type;
} entry;

static du_vocab vocab_of(const entry *entries, int32_t n) {
    du_vocab v;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_vocab_init(&v, n, 1000, &diag), &diag);
    v.scores = du_alloc_array((size_t)n, sizeof v.scores[0]);
    for (int32_t id = 0; id < n; id++) {
        assert_ok(du_vocab_set(&v, id, du_sv_of(entries[id].text), entries[id].type, &diag), &diag);
        v.scores[id] = entries[id].score;
    }
    assert_ok(du_vocab_finish(&v, DU_VOCAB_SPM, &diag), &diag);
    return v;
}

/* The ids of a text, -1 for a symbol without one. */
static void merges_to(const du_vocab *v, const char *text, const int32_t *want, size_t n_want) {
    du_spm spm;
    du_merge_work w = {0};
    size_t len = strlen(text);
    assert_true(du_spm_init(&spm, v));
    assert_true(du_merge_reserve(&w, len));
    for (size_t i = 0; i < len;) {
        int32_t cp;
        w.symbols[w.n++].start = (uint32_t)i;
        i += du_utf8_next(text + i, len - i, &cp);
    }
    w.symbols[w.n].start = (uint32_t)len;
    assert_true(du_spm_merge(&spm, &w, text));
    assert_int_equal(w.n, n_want);
    for (size_t i = 0; i < n_want; i++) {
        assert_int_equal(w.symbols[i].id, want[i]);
    }
    du_merge_work_done(&w);
    du_spm_done(&spm);
}

static void the_highest_score_goes_first(void **state) {
    (void)state;
    const entry entries[] = {{"a", -10, DU_TOKEN_NORMAL}, {"b", -10, DU_TOKEN_NORMAL},
                             {"c", -10, DU_TOKEN_NORMAL}, {"ab", -2, DU_TOKEN_NORMAL},
                             {"bc", -1, DU_TOKEN_NORMAL}, {"abc", -3, DU_TOKEN_NORMAL},
                             {"aa", -1, DU_TOKEN_NORMAL}};
    du_vocab v = vocab_of(entries, 7);
    merges_to(&v, "abc", (int32_t[]){5}, 1);
    merges_to(&v, "abcab", (int32_t[]){5, 3}, 2);
    merges_to(&v, "aaa", (int32_t[]){6, 0}, 2); /* the leftmost of equals */
    merges_to(&v, "aabc", (int32_t[]){6, 4}, 2);
    du_vocab_done(&v);
}

static void characters_without_a_token_still_join(void **state) {
    (void)state;
    const entry entries[] = {{"가나", -1, DU_TOKEN_NORMAL}, {"다", -2, DU_TOKEN_NORMAL}};
    du_vocab v = vocab_of(entries, 2);
    merges_to(&v, "가나다라", (int32_t[]){0, 1, -1}, 3);
    du_vocab_done(&v);
}

/* The text "<s>" must not become the token, though "s>" is one. */
static void control_tokens_do_not_come_out(void **state) {
    (void)state;
    const entry entries[] = {{"<", -5, DU_TOKEN_NORMAL},   {"s", -6, DU_TOKEN_NORMAL},
                             {">", -7, DU_TOKEN_NORMAL},   {"s>", -1, DU_TOKEN_NORMAL},
                             {"<s>", 0, DU_TOKEN_CONTROL}, {"<0x0A>", 0, DU_TOKEN_BYTE}};
    du_vocab v = vocab_of(entries, 6);
    merges_to(&v, "<s>", (int32_t[]){0, 3}, 2);
    assert_int_equal(v.bytes['\n'], 5);
    assert_int_equal(v.bytes['a'], -1);
    du_vocab_done(&v);
}

static void a_megabyte_in_one_piece(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    const entry entries[] = {{"a", -9, DU_TOKEN_NORMAL},
                             {"aa", -1, DU_TOKEN_NORMAL},
                             {"aaaa", -2, DU_TOKEN_NORMAL},
                             {"aaaaaaaa", -3, DU_TOKEN_NORMAL}};
    du_vocab v = vocab_of(entries, 4);
    char *text = du_alloc(N + 1);
    memset(text, 'a', N);
    text[N] = '\0';
    du_spm spm;
    du_merge_work w = {0};
    assert_true(du_spm_init(&spm, &v) && du_merge_reserve(&w, N));
    for (w.n = 0; w.n < N; w.n++) {
        w.symbols[w.n].start = (uint32_t)w.n;
    }
    w.symbols[N].start = N;
    double start = du_clock_s();
    assert_true(du_spm_merge(&spm, &w, text));
    assert_true(du_clock_s() - start < 60);
    assert_int_equal(w.n, N / 8);
    du_merge_work_done(&w);
    du_spm_done(&spm);
    du_free(text);
    du_vocab_done(&v);
}

static void short_memory_is_told(void **state) {
    (void)state;
    const entry entries[] = {{"a", -1, DU_TOKEN_NORMAL}};
    du_vocab v = vocab_of(entries, 1);
    for (int64_t n = 1; n <= 2; n++) {
        du_spm spm;
        du_mem_fail_at(n, false);
        assert_false(du_spm_init(&spm, &v));
        du_mem_fail_at(0, false);
    }
    du_vocab_done(&v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_highest_score_goes_first),
        cmocka_unit_test(characters_without_a_token_still_join),
        cmocka_unit_test(control_tokens_do_not_come_out),
        cmocka_unit_test(a_megabyte_in_one_piece),
        cmocka_unit_test(short_memory_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
