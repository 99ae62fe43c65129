/* Training of tokenizers: against the plain definition, for any number of threads, and with short
 * memory. The reference library's results: e2e/test_tokenizer_train.py. */
#include "test.h"

#include <jansson.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "text/bpe_train.h"
#include "text/pretok.h"
#include "text/tokenizer_write.h"
#include "text/unicode.h"
#include "text/vocab.h"

enum { N_SPECIAL = 2, MAX_WORDS = 4000, MAX_LEN = 48, MAX_TOKENS = 600 };

static const du_sv special[N_SPECIAL] = {{"<s>", 3}, {"ab", 2}};

typedef struct {
    const du_sv *texts;
} text_list;

static du_err give_text(void *arg, int64_t i, du_bpe_counter *counter, du_diag *diag) {
    const text_list *list = arg;
    return du_bpe_count(counter, list->texts[i], diag);
}

static du_bpe_train_params params_of(int32_t n_vocab) {
    return (du_bpe_train_params){.n_vocab = n_vocab,
                                 .rule = "qwen2",
                                 .special = special,
                                 .n_special = N_SPECIAL,
                                 .bos = 0,
                                 .eos = -1,
                                 .pad = -1,
                                 .add_bos = true};
}

/* Trains on the texts in rounds of `round` each. */
static du_err train(du_tokenizer **out, const du_bpe_train_params *params, const du_sv *texts,
                    int64_t n, int64_t round, int64_t n_threads, du_bpe_train_stats *stats,
                    du_diag *diag) {
    du_pool *pool = NULL;
    du_bpe_trainer *trainer = NULL;
    du_err err = du_pool_new(&pool, n_threads, false, diag);
    err = err ? err : du_bpe_trainer_new(&trainer, params, pool, diag);
    for (int64_t i = 0; i < n && err == DU_OK; i += round) {
        text_list list = {texts + i};
        err = du_bpe_trainer_count(trainer, n - i < round ? n - i : round, give_text, &list, diag);
    }
    err = err ? err : du_bpe_trainer_run(trainer, NULL, NULL, out, diag);
    if (stats && err == DU_OK) {
        *stats = du_bpe_trainer_stats(trainer);
    }
    du_bpe_trainer_free(trainer);
    du_pool_free(pool);
    return err;
}

/* ---- the definition, without any cleverness ---- */

typedef struct {
    char text[MAX_LEN];
    size_t len;
    int64_t count;
    int32_t ids[MAX_LEN];
    size_t n;
} plain_word;

typedef struct {
    plain_word words[MAX_WORDS];
    size_t n_words;
    du_str tokens[MAX_TOKENS]; /* in GPT-2's alphabet */
    int32_t n_tokens;
    du_str merges; /* lines "left right" */
    int64_t counts[MAX_TOKENS][MAX_TOKENS];
} plain;

static du_err add_plain_word(void *arg, du_sv word) {
    plain *p = arg;
    assert_true(word.len <= MAX_LEN);
    for (size_t i = 0; i < p->n_words; i++) {
        if (du_sv_eq((du_sv){p->words[i].text, p->words[i].len}, word)) {
            p->words[i].count++;
            return DU_OK;
        }
    }
    assert_true(p->n_words < MAX_WORDS);
    plain_word *w = &p->words[p->n_words++];
    memcpy(w->text, word.s, word.len);
    w->len = word.len;
    w->count = 1;
    return DU_OK;
}

static void add_plain_token(plain *p, du_sv text) {
    assert_true(p->n_tokens < MAX_TOKENS);
    du_str_add_sv(&p->tokens[p->n_tokens++], text);
}

static int32_t find_plain(const plain *p, du_sv text) {
    for (int32_t i = 0; i < p->n_tokens; i++) {
        if (du_sv_eq(du_str_view(&p->tokens[i]), text)) {
            return i;
        }
    }
    return -1;
}

static void start_plain(plain *p, const du_sv *texts, int64_t n) {
    du_pretok *pretok = NULL;
    du_pretok_work *work = NULL;
    memset(p, 0, sizeof *p);
    assert_int_equal(du_pretok_from_rule(&pretok, NULL, du_sv_of("qwen2"), NULL), DU_OK);
    assert_int_equal(du_pretok_work_new(&work, pretok, NULL), DU_OK);
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(du_pretok_split(pretok, work, texts[i], add_plain_word, p, NULL), DU_OK);
    }
    du_pretok_work_free(work);
    du_pretok_free(pretok);
    for (int32_t i = 0; i < N_SPECIAL; i++) {
        add_plain_token(p, special[i]);
    }
    for (int32_t cp = 0; cp < 0x200; cp++) { /* bytes in the order of their characters */
        for (int32_t byte = 0; byte < 256; byte++) {
            if (du_byte_level_char((uint8_t)byte) != cp) {
                continue;
            }
            du_str text = {0};
            du_utf8_add(&text, cp);
            for (size_t w = 0; w < p->n_words; w++) {
                for (size_t k = 0; k < p->words[w].len; k++) {
                    if ((uint8_t)p->words[w].text[k] == byte) {
                        p->words[w].ids[k] = p->n_tokens;
                    }
                }
                p->words[w].n = p->words[w].len;
            }
            add_plain_token(p, du_str_view(&text));
            du_str_done(&text);
        }
    }
}

/* The best pair that may be joined; false: there is none. */
static bool best_pair(plain *p, int32_t *left, int32_t *right, du_str *text) {
    memset(p->counts, 0, sizeof p->counts);
    for (size_t w = 0; w < p->n_words; w++) {
        for (size_t k = 0; k + 1 < p->words[w].n; k++) {
            p->counts[p->words[w].ids[k]][p->words[w].ids[k + 1]] += p->words[w].count;
        }
    }
    int64_t best = 1;
    for (int32_t a = 0; a < p->n_tokens; a++) {
        for (int32_t b = 0; b < p->n_tokens; b++) {
            if (p->counts[a][b] <= best) {
                continue;
            }
            du_str both = {0};
            du_str_add_sv(&both, du_str_view(&p->tokens[a]));
            du_str_add_sv(&both, du_str_view(&p->tokens[b]));
            if (find_plain(p, du_str_view(&both)) < 0) {
                best = p->counts[a][b];
                *left = a;
                *right = b;
                du_str_reset(text);
                du_str_add_sv(text, du_str_view(&both));
            }
            du_str_done(&both);
        }
    }
    return best > 1;
}

static void train_plainly(plain *p, const du_sv *texts, int64_t n, int32_t n_vocab) {
    start_plain(p, texts, n);
    du_str text = {0};
    int32_t a = 0, b = 0;
    while (p->n_tokens < n_vocab && best_pair(p, &a, &b, &text)) {
        for (size_t w = 0; w < p->n_words; w++) {
            plain_word *word = &p->words[w];
            size_t out = 0;
            for (size_t k = 0; k < word->n; k++) {
                bool joins = word->ids[k] == a && k + 1 < word->n && word->ids[k + 1] == b;
                word->ids[out++] = joins ? p->n_tokens : word->ids[k];
                k += joins;
            }
            word->n = out;
        }
        du_str_addf(&p->merges, "%s %s\n", du_str_get(&p->tokens[a]), du_str_get(&p->tokens[b]));
        add_plain_token(p, du_str_view(&text));
    }
    du_str_done(&text);
}

static void plain_done(plain *p) {
    for (int32_t i = 0; i < p->n_tokens; i++) {
        du_str_done(&p->tokens[i]);
    }
    du_str_done(&p->merges);
}

/* ---- texts ---- */

enum { N_TEXTS = 60 };

/* Words of few letters, so that pairs repeat, overlap (aaa) and tie. */
static void make_texts(du_str *storage, du_sv *texts, uint64_t seed) {
    static const char *const letters[] = {"a", "b", "c", " ", "  ", "1", "가", "나", "\n", "a"};
    du_rng rng;
    du_rng_init(&rng, seed);
    size_t starts[N_TEXTS + 1];
    for (int i = 0; i < N_TEXTS; i++) {
        starts[i] = storage->len;
        uint64_t n = du_rng_below(&rng, 60);
        for (uint64_t k = 0; k < n; k++) {
            /* Short words: what naive counting is quick enough for. */
            du_str_add_s(storage,
                         k % 12 == 11 ? " " : letters[du_rng_below(&rng, seed % 3 ? 10 : 4)]);
        }
    }
    starts[N_TEXTS] = storage->len;
    for (int i = 0; i < N_TEXTS; i++) {
        texts[i] = (du_sv){storage->data + starts[i], starts[i + 1] - starts[i]};
    }
}

static void merges_of(const du_tokenizer *tok, du_str *out) {
    du_tokenizer_tables t;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_tokenizer_tables_make(&t, tok, du_tokenizer_get_info(tok)->n_vocab, &diag), &diag);
    for (int64_t i = 0; i < t.n_merges; i++) {
        du_str_add_sv(out, t.merges[i]);
        du_str_add_c(out, '\n');
    }
    du_tokenizer_tables_done(&t);
}

static void follows_the_definition(void **state) {
    (void)state;
    plain *p = du_alloc(sizeof *p);
    for (uint64_t seed = 1; seed <= 12; seed++) {
        du_str storage = {0}, merges = {0};
        du_sv texts[N_TEXTS];
        make_texts(&storage, texts, seed);
        du_diag diag;
        du_diag_reset(&diag);
        du_tokenizer *tok = NULL;
        du_bpe_train_stats stats;
        int32_t n_vocab = seed % 2 ? 300 : 330;
        du_bpe_train_params params = params_of(n_vocab);
        assert_ok(train(&tok, &params, texts, N_TEXTS, 7, 2, &stats, &diag), &diag);
        train_plainly(p, texts, N_TEXTS, n_vocab);
        merges_of(tok, &merges);
        assert_string_equal(du_str_get(&merges), du_str_get(&p->merges));
        assert_int_equal(du_tokenizer_get_info(tok)->n_vocab, p->n_tokens);
        for (int32_t id = 0; id < p->n_tokens; id++) {
            assert_true(du_sv_eq(du_tokenizer_text(tok, id), du_str_view(&p->tokens[id])));
        }
        /* Encoding the texts gives as many tokens as training says. */
        du_ids ids = {0};
        for (int i = 0; i < N_TEXTS; i++) {
            assert_ok(du_tokenizer_encode(tok, texts[i], 0, &ids, &diag), &diag);
        }
        assert_int_equal(ids.n, stats.n_tokens);
        assert_int_equal(storage.len, stats.n_bytes);
        assert_int_equal(storage.len, stats.n_token_bytes);
        assert_int_equal(stats.n_merges, p->n_tokens - N_SPECIAL - 256);
        assert_int_equal(stats.n_different, p->n_words);
        du_ids_done(&ids);
        du_tokenizer_free(tok);
        plain_done(p);
        du_str_done(&merges);
        du_str_done(&storage);
    }
    du_free(p);
}

static char *json_of(const du_tokenizer *tok) {
    json_t *json = NULL;
    assert_int_equal(du_tokenizer_to_json(tok, &json, NULL), DU_OK);
    char *text = json_dumps(json, 0);
    json_decref(json);
    return text;
}

/* Also when words are forgotten, which happens behind each round. */
static void threads_change_nothing(void **state) {
    (void)state;
    du_str storage = {0};
    du_sv texts[N_TEXTS];
    make_texts(&storage, texts, 4);
    for (int64_t words_max = 0; words_max <= 100; words_max += 100) {
        char *first = NULL;
        static const int64_t threads[] = {1, 2, 3, 7};
        for (size_t k = 0; k < 4; k++) {
            du_diag diag;
            du_diag_reset(&diag);
            du_tokenizer *tok = NULL;
            du_bpe_train_stats stats;
            du_bpe_train_params params = params_of(320);
            params.words_max = words_max;
            assert_ok(train(&tok, &params, texts, N_TEXTS, 10, threads[k], &stats, &diag), &diag);
            assert_int_equal(stats.n_forgotten > 0, words_max > 0);
            if (words_max > 0) {
                assert_in_range(stats.n_different, 1, words_max);
            }
            char *json = json_of(tok);
            if (first) {
                assert_string_equal(json, first);
                du_free(json);
            } else {
                first = json;
            }
            du_tokenizer_free(tok);
        }
        du_free(first);
    }
    du_str_done(&storage);
}

static void the_tokenizer_is_whole(void **state) {
    (void)state;
    static const char text[] =
        "두레는 함께 일한다. 두레는 2024년에도. <s>ab abab \xf0\x9f\x8c\xbe\n";
    du_sv texts[] = {du_sv_of(text), du_sv_of(text)};
    du_diag diag;
    du_diag_reset(&diag);
    du_tokenizer *tok = NULL, *back = NULL;
    du_bpe_train_params params = params_of(400);
    assert_ok(train(&tok, &params, texts, 2, 2, 1, NULL, &diag), &diag);
    const du_tokenizer_info *info = du_tokenizer_get_info(tok);
    assert_int_equal(info->bos, 0);
    assert_int_equal(info->eos, -1);
    assert_true(info->add_bos);
    assert_string_equal(info->pre, "qwen2");
    assert_int_equal(du_tokenizer_type(tok, 1), DU_TOKEN_CONTROL);
    /* No learned token has the text of a special one, and digits stay alone. */
    for (int32_t id = N_SPECIAL + 256; id < info->n_vocab; id++) {
        du_sv piece = du_tokenizer_piece(tok, id, 0);
        assert_false(du_sv_is(piece, "ab"));
        for (size_t i = 0; i < piece.len; i++) {
            assert_false(piece.s[i] >= '0' && piece.s[i] <= '9');
        }
    }
    json_t *json = NULL, *config = NULL;
    assert_ok(du_tokenizer_to_json(tok, &json, &diag), &diag);
    assert_ok(du_tokenizer_config_to_json(tok, &config, &diag), &diag);
    assert_ok(du_tokenizer_from_json(&back, json, config, &diag), &diag);
    for (unsigned flags = 0; flags <= DU_ENCODE_SPECIAL; flags++) {
        du_ids a = {0}, b = {0};
        assert_ok(du_tokenizer_encode_prompt(tok, texts[0], flags, &a, &diag), &diag);
        assert_ok(du_tokenizer_encode_prompt(back, texts[0], flags, &b, &diag), &diag);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.ids, b.ids, a.n * sizeof a.ids[0]);
        du_ids_done(&a);
        du_ids_done(&b);
    }
    json_decref(json);
    json_decref(config);
    du_tokenizer_free(back);
    du_tokenizer_free(tok);
}

static void long_words_are_left_out(void **state) {
    (void)state;
    du_str text = {0};
    for (int i = 0; i < DU_BPE_WORD_BYTES_MAX + 1; i++) {
        du_str_add_c(&text, 'x');
    }
    du_str_add_s(&text, "\n\nyy yy");
    du_sv texts[] = {du_str_view(&text)};
    du_diag diag;
    du_diag_reset(&diag);
    du_tokenizer *tok = NULL;
    du_bpe_train_stats stats;
    du_bpe_train_params params = params_of(300);
    assert_ok(train(&tok, &params, texts, 1, 1, 1, &stats, &diag), &diag);
    assert_int_equal(stats.n_long_bytes, DU_BPE_WORD_BYTES_MAX + 1);
    assert_int_equal(stats.n_merges, 1); /* y y */
    du_tokenizer_free(tok);
    du_str_done(&text);
}

static void nothing_to_learn_from(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    du_tokenizer *tok = NULL;
    du_bpe_train_params params = params_of(300);
    assert_ok(train(&tok, &params, NULL, 0, 1, 1, NULL, &diag), &diag);
    assert_int_equal(du_tokenizer_get_info(tok)->n_vocab, N_SPECIAL + 256);
    du_tokenizer_free(tok);
}

static void mistakes(void **state) {
    (void)state;
    du_diag diag;
    du_bpe_trainer *trainer = NULL;
    du_bpe_train_params params = params_of(257);
    assert_fails(du_bpe_trainer_new(&trainer, &params, NULL, &diag), DU_EINVAL, &diag, "258");
    params = params_of(300);
    params.rule = "nonsense";
    assert_fails(du_bpe_trainer_new(&trainer, &params, NULL, &diag), DU_EUNSUPPORTED, &diag,
                 "nonsense");
    static const struct {
        du_sv text;
        const char *why;
    } bad[] = {{{"", 0}, "empty"},
               {{"<s>", 3}, "twice"},
               {{"a", 1}, "byte's token"},
               {{"\xff!", 2}, "UTF-8"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        du_sv list[] = {{"<s>", 3}, bad[i].text};
        params = params_of(300);
        params.special = list;
        assert_fails(du_bpe_trainer_new(&trainer, &params, NULL, &diag), DU_EINVAL, &diag,
                     bad[i].why);
    }
    assert_null(trainer);
}

static bool stop_at_270(void *arg, int64_t n_tokens) {
    *(int64_t *)arg = n_tokens;
    return n_tokens >= 270;
}

static void can_be_stopped(void **state) {
    (void)state;
    du_str storage = {0};
    du_sv texts[N_TEXTS];
    make_texts(&storage, texts, 1);
    du_diag diag;
    du_diag_reset(&diag);
    du_bpe_trainer *trainer = NULL;
    du_tokenizer *tok = NULL;
    du_bpe_train_params params = params_of(300);
    text_list list = {texts};
    int64_t seen = 0;
    assert_ok(du_bpe_trainer_new(&trainer, &params, NULL, &diag), &diag);
    assert_ok(du_bpe_trainer_count(trainer, N_TEXTS, give_text, &list, &diag), &diag);
    assert_fails(du_bpe_trainer_run(trainer, stop_at_270, &seen, &tok, &diag), DU_ECANCELLED, &diag,
                 "stopped");
    assert_int_equal(seen, 270);
    assert_null(tok);
    du_bpe_trainer_free(trainer);
    du_str_done(&storage);
}

static void short_memory_is_told(void **state) {
    (void)state;
    du_str storage = {0};
    du_sv texts[N_TEXTS];
    make_texts(&storage, texts, 2);
    int64_t live = du_mem_get_stats().n_live;
    bool done = false;
    for (int64_t n = 1; !done; n += 1 + n / 20) {
        du_diag diag;
        du_diag_reset(&diag);
        du_tokenizer *tok = NULL;
        du_bpe_train_params params = params_of(280);
        params.words_max = 150;
        du_mem_fail_at(n, false);
        du_err err = train(&tok, &params, texts, N_TEXTS, 30, 1, NULL, &diag);
        du_mem_fail_at(0, false);
        done = err == DU_OK;
        assert_true(done || (err == DU_ENOMEM && !tok && diag.msg[0]));
        du_tokenizer_free(tok);
        assert_int_equal(du_mem_get_stats().n_live, live);
        assert_true(n < 100000);
    }
    du_str_done(&storage);
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_definition), cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(the_tokenizer_is_whole), cmocka_unit_test(long_words_are_left_out),
        cmocka_unit_test(nothing_to_learn_from),  cmocka_unit_test(mistakes),
        cmocka_unit_test(can_be_stopped),         cmocka_unit_test(short_memory_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
