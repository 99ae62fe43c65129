/* Tokenizers written as GGUF keys and as tokenizer.json, and read again, say the same of every
 * golden text. */
#include "test.h"

#include <jansson.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/gguf.h"
#include "formats/gguf_write.h"
#include "text/tokenizer.h"
#include "text/tokenizer_write.h"

#define DIR_TOKENIZERS DURE_SOURCE_DIR "/tests/golden/tokenizers/"
#define KEY(name)      "tokenizer.ggml." name

static const char *const rules[] = {"deepseek-llm", "deepseek-coder", "deepseek-v3", "qwen2",
                                    "llama-bpe",    "smollm",         "gpt-2",       "kimi-k2",
                                    "glm4",         "default",        "llama-spm"};
enum { N_RULES = sizeof rules / sizeof rules[0] };

static const char *in_folder(const char *rule, const char *file) {
    static char path[512];
    snprintf(path, sizeof path, DIR_TOKENIZERS "%s/%s", rule, file);
    return path;
}

static du_tokenizer *from_gguf(const char *path) {
    du_gguf *gguf = NULL;
    du_tokenizer *tok = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_gguf_open(&gguf, path, &diag), &diag);
    assert_ok(du_tokenizer_from_gguf(&tok, gguf, &diag), &diag);
    du_gguf_close(gguf);
    return tok;
}

static du_tokenizer *from_dir(const char *rule) {
    du_tokenizer *tok = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_tokenizer_from_dir(&tok, in_folder(rule, ""), &diag), &diag);
    return tok;
}

/* Writes the tables as a GGUF file and reads that. */
static du_tokenizer *through_gguf(const du_tokenizer *tok, int64_t n_tokens) {
    du_tokenizer_tables t;
    du_gguf_writer *w = NULL;
    du_diag diag;
    char path[64];
    snprintf(path, sizeof path, "/tmp/dure-test-write-%d.gguf", (int)getpid());
    du_diag_reset(&diag);
    assert_ok(du_tokenizer_tables_make(&t, tok, n_tokens, &diag), &diag);
    assert_int_equal(t.n_tokens, n_tokens);
    assert_ok(du_gguf_writer_new(&w, &diag), &diag);
    const du_tokenizer_info *info = du_tokenizer_get_info(tok);
    du_gguf_put_str(w, "general.architecture", du_sv_of("llama"));
    du_gguf_put_str(w, KEY("model"), du_sv_of(t.model));
    du_gguf_put_str(w, KEY("pre"), du_sv_of(t.pre));
    du_gguf_put_strs(w, KEY("tokens"), t.tokens, t.n_tokens);
    du_gguf_put_array(w, KEY("token_type"), DU_GGUF_I32, t.types, t.n_tokens);
    if (t.scores) {
        du_gguf_put_array(w, KEY("scores"), DU_GGUF_F32, t.scores, t.n_tokens);
    } else {
        du_gguf_put_strs(w, KEY("merges"), t.merges, t.n_merges);
    }
    if (info->bos >= 0) {
        du_gguf_put_u32(w, KEY("bos_token_id"), (uint32_t)info->bos);
    }
    if (info->eos >= 0) {
        du_gguf_put_u32(w, KEY("eos_token_id"), (uint32_t)info->eos);
    }
    du_gguf_put_bool(w, KEY("add_bos_token"), info->add_bos);
    assert_ok(du_gguf_writer_begin(w, path, &diag), &diag);
    assert_ok(du_gguf_writer_commit(w, &diag), &diag);
    du_gguf_writer_close(w);
    du_tokenizer_tables_done(&t);
    du_tokenizer *back = from_gguf(path);
    unlink(path);
    return back;
}

static du_tokenizer *through_json(const du_tokenizer *tok) {
    json_t *json = NULL, *config = NULL;
    du_tokenizer *back = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_tokenizer_to_json(tok, &json, &diag), &diag);
    assert_ok(du_tokenizer_config_to_json(tok, &config, &diag), &diag);
    assert_ok(du_tokenizer_from_json(&back, json, config, &diag), &diag);
    json_decref(json);
    json_decref(config);
    return back;
}

static void same_text(const du_tokenizer *a, const du_tokenizer *b, du_sv text, const char *rule) {
    for (unsigned flags = 0; flags <= DU_ENCODE_SPECIAL; flags++) {
        du_ids x = {0}, y = {0};
        assert_int_equal(du_tokenizer_encode_prompt(a, text, flags, &x, NULL), DU_OK);
        assert_int_equal(du_tokenizer_encode_prompt(b, text, flags, &y, NULL), DU_OK);
        bool same = x.n == y.n && (x.n == 0 || memcmp(x.ids, y.ids, x.n * sizeof x.ids[0]) == 0);
        if (!same) {
            fail_msg("%s: '%.*s', flags %u: %zu and %zu ids, or other ones", rule, (int)text.len,
                     text.s, flags, x.n, y.n);
        }
        du_ids_done(&x);
        du_ids_done(&y);
    }
}

/* Both give the same ids for every golden text without `but`, bytes that are not UTF-8 included. */
static void same_tokenizers(const du_tokenizer *a, const du_tokenizer *b, const char *rule,
                            const char *but) {
    char *lines = NULL;
    size_t len = 0, n = 0;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_file_read(&lines, &len, DIR_TOKENIZERS "texts.jsonl", 1 << 20, &diag), &diag);
    for (char *line = lines, *end; (end = strchr(line, '\n')); line = end + 1) {
        json_t *json = NULL;
        assert_ok(du_json_parse(&json, line, (size_t)(end - line), "texts", &diag), &diag);
        const json_t *text = json_object_get(json, "text");
        du_sv view = {json_string_value(text), json_string_length(text)};
        if (text && du_sv_find(view, du_sv_of(but), 0) < 0) {
            same_text(a, b, view, rule);
            n++;
        }
        json_decref(json);
    }
    assert_true(n > 300);
    same_text(a, b, du_sv_of("\xff a\xea\xb0 \x80"), rule);
    du_free(lines);
}

static void gguf_of_every_rule(void **state) {
    (void)state;
    for (size_t i = 0; i < N_RULES; i++) {
        du_tokenizer *dir = from_dir(rules[i]),
                     *gguf = from_gguf(in_folder(rules[i], "vocab.gguf"));
        int32_t n = du_tokenizer_get_info(dir)->n_vocab;
        du_tokenizer *back = through_gguf(dir, n + 9);
        assert_int_equal(du_tokenizer_get_info(back)->n_vocab, n + 9);
        assert_int_equal(du_tokenizer_type(back, n + 8), DU_TOKEN_UNUSED);
        /* The golden file takes it for a control token, published converters do not. */
        same_tokenizers(gguf, back, rules[i], "｜DSML｜");
        for (int32_t id = 0; id < n; id++) {
            assert_true(du_sv_eq(du_tokenizer_text(dir, id), du_tokenizer_text(back, id)));
        }
        du_tokenizer_free(dir);
        du_tokenizer_free(gguf);
        du_tokenizer_free(back);
    }
}

static void json_of_every_rule(void **state) {
    (void)state;
    for (size_t i = 0; i < N_RULES; i++) {
        du_tokenizer *gguf = from_gguf(in_folder(rules[i], "vocab.gguf"));
        du_tokenizer *back = through_json(gguf);
        const du_tokenizer_info *a = du_tokenizer_get_info(gguf), *b = du_tokenizer_get_info(back);
        same_tokenizers(gguf, back, rules[i], "\n no text has this \n");
        assert_int_equal(a->n_vocab, b->n_vocab);
        assert_int_equal(a->bos, b->bos);
        assert_int_equal(a->eos, b->eos);
        assert_int_equal(a->add_bos, b->add_bos);
        du_tokenizer *again = through_gguf(back, b->n_vocab);
        same_tokenizers(gguf, again, rules[i], "\n no text has this \n");
        du_tokenizer_free(gguf);
        du_tokenizer_free(back);
        du_tokenizer_free(again);
    }
}

static void what_is_lost_is_named(void **state) {
    (void)state;
    du_tokenizer_tables t;
    du_diag diag;
    du_diag_reset(&diag);
    du_tokenizer *tok = from_dir("qwen2");
    assert_ok(du_tokenizer_tables_make(&t, tok, 2000, &diag), &diag);
    assert_string_equal(t.lost, "the normaliser");
    du_tokenizer_tables_done(&t);
    assert_fails(du_tokenizer_tables_make(&t, tok, 100, &diag), DU_EINVAL, &diag,
                 "100 rows for a vocabulary of");
    du_tokenizer_tables_done(&t);
    du_tokenizer_free(tok);
    tok = from_dir("deepseek-v3");
    assert_ok(du_tokenizer_tables_make(&t, tok, 2000, &diag), &diag);
    assert_null(t.lost);
    du_tokenizer_tables_done(&t);
    du_tokenizer_free(tok);
}

/* A change to a golden tokenizer.json that GGUF cannot say. */
static void refused(const char *rule, const char *part, void (*change)(json_t *json)) {
    json_t *json = NULL;
    du_tokenizer *tok = NULL;
    du_tokenizer_tables t;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_json_load(&json, in_folder(rule, "tokenizer.json"), 1 << 20, &diag), &diag);
    change(json);
    assert_ok(du_tokenizer_from_json(&tok, json, NULL, &diag), &diag);
    assert_fails(du_tokenizer_tables_make(&t, tok, 5000, &diag), DU_EUNSUPPORTED, &diag, part);
    du_tokenizer_free(tok);
    json_decref(json);
}

static void no_pre_tokenizer_name(json_t *json) {
    json_t *list = json_object_get(json_object_get(json, "pre_tokenizer"), "pretokenizers");
    json_array_remove(list, 0);
}
static void takes_whole(json_t *json) {
    json_object_set_new(json_object_get(json, "model"), "ignore_merges", json_true());
}
static void other_normalizer(json_t *json) {
    json_object_set_new(json, "normalizer", json_null());
}
static void fewer_merges(json_t *json) {
    json_t *merges = json_object_get(json_object_get(json, "model"), "merges");
    json_array_remove(merges, json_array_size(merges) - 1);
}
static void no_bytes(json_t *json) {
    json_object_set_new(json_object_get(json, "model"), "byte_fallback", json_false());
}

static void what_gguf_cannot_say_is_refused(void **state) {
    (void)state;
    refused("deepseek-v3", "none that has a name", no_pre_tokenizer_name);
    refused("deepseek-v3", "its use of ignore_merges", takes_whole);
    refused("llama-spm", "its normaliser is not SentencePiece's", other_normalizer);
    refused("llama-spm", "not those of scores", fewer_merges);
    refused("llama-spm", "no tokens for all bytes", no_bytes);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    static const char *const names[] = {"deepseek-v3", "llama-spm"};
    for (size_t i = 0; i < 2; i++) {
        du_tokenizer *dir = from_dir(names[i]),
                     *gguf = from_gguf(in_folder(names[i], "vocab.gguf"));
        int64_t live = du_mem_get_stats().n_live;
        for (int64_t n = 1, step = 1;; n += step, step += n > 200 ? 37 : 0) {
            du_tokenizer_tables t;
            json_t *json = NULL, *config = NULL;
            du_mem_fail_at(n, false);
            du_err err = du_tokenizer_tables_make(&t, dir, 2000, NULL);
            if (err == DU_OK) {
                err = du_tokenizer_to_json(gguf, &json, NULL);
            }
            if (err == DU_OK) {
                err = du_tokenizer_config_to_json(gguf, &config, NULL);
            }
            du_mem_fail_at(0, false);
            du_tokenizer_tables_done(&t);
            json_decref(json);
            json_decref(config);
            assert_int_equal(du_mem_get_stats().n_live, live);
            if (err == DU_OK) {
                assert_true(n > 200);
                break;
            }
            assert_int_equal(err, DU_ENOMEM);
        }
        du_tokenizer_free(dir);
        du_tokenizer_free(gguf);
    }
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_of_every_rule),
        cmocka_unit_test(json_of_every_rule),
        cmocka_unit_test(what_is_lost_is_named),
        cmocka_unit_test(what_gguf_cannot_say_is_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
