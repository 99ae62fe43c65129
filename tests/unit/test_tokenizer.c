/* The facade: prompts, properties, streaming, threads, short memory; and the keys of GGUF files. */
#include "test.h"

#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"
#include "formats/gguf.h"
#include "formats/gguf_write.h"
#include "text/tokenizer.h"
#include "text/tokenizer_write.h"

#define GOLDEN DURE_SOURCE_DIR "/tests/golden/tokenizers/"

static du_tokenizer *open_dir(const char *rule) {
    char path[512];
    snprintf(path, sizeof path, GOLDEN "%s", rule);
    du_tokenizer *tok = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_tokenizer_from_dir(&tok, path, &diag), &diag);
    return tok;
}

/* What a test changes in a small vocabulary before it is written: keys put again, or dropped. */
typedef struct {
    const char *model, *pre;
    const char *dropped; /* a key, without tokenizer.ggml. */
    void (*change)(du_gguf_writer *w);
} variant;

#define KEY(name) "tokenizer.ggml." name

static void put_keys(du_gguf_writer *w, const variant *v) {
    const du_sv tokens[] = {du_sv_of("<unk>"),  du_sv_of("<s>"),    du_sv_of("</s>"),
                            du_sv_of("a"),      du_sv_of("b"),      du_sv_of("ab"),
                            du_sv_of("▁"),      du_sv_of("<0x41>"), du_sv_of("<|im_end|>"),
                            du_sv_of("<think>")};
    const int32_t types[] = {2, 3, 3, 1, 1, 1, 1, 6, 3, 4};
    const float scores[] = {0, 0, 0, -1, -2, -3, -4, 0, 0, 0};
    const du_sv merges[] = {du_sv_of("a b")};
    int64_t n = sizeof tokens / sizeof tokens[0];
    du_gguf_put_str(w, "general.architecture", du_sv_of("llama"));
    du_gguf_put_str(w, KEY("model"), du_sv_of(v->model ? v->model : "llama"));
    if (v->pre) {
        du_gguf_put_str(w, KEY("pre"), du_sv_of(v->pre));
    }
    du_gguf_put_strs(w, KEY("tokens"), tokens, n);
    du_gguf_put_array(w, KEY("token_type"), DU_GGUF_I32, types, n);
    du_gguf_put_array(w, KEY("scores"), DU_GGUF_F32, scores, n);
    du_gguf_put_strs(w, KEY("merges"), merges, 1);
    if (v->change) {
        v->change(w);
    }
    if (v->dropped) {
        char key[64];
        snprintf(key, sizeof key, KEY("%s"), v->dropped);
        du_gguf_drop(w, key);
    }
}

/* Writes, opens and loads; *tok stays NULL on failure. */
static du_err load(const variant *v, du_tokenizer **tok, du_diag *diag) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/dure-test-tokenizer-%d.gguf", (int)getpid());
    du_gguf_writer *w = NULL;
    du_gguf *gguf = NULL;
    du_diag_reset(diag);
    assert_ok(du_gguf_writer_new(&w, diag), diag);
    put_keys(w, v);
    assert_ok(du_gguf_writer_begin(w, path, diag), diag);
    assert_ok(du_gguf_writer_commit(w, diag), diag);
    du_gguf_writer_close(w);
    assert_ok(du_gguf_open(&gguf, path, diag), diag);
    du_err err = du_tokenizer_from_gguf(tok, gguf, diag);
    du_gguf_close(gguf);
    unlink(path);
    return err;
}

static du_tokenizer *loaded(variant v) {
    du_tokenizer *tok = NULL;
    du_diag diag;
    assert_ok(load(&v, &tok, &diag), &diag);
    return tok;
}

static void refused(variant v, du_err code, const char *part) {
    du_tokenizer *tok = NULL;
    du_diag diag;
    int64_t live = du_mem_get_stats().n_live;
    assert_fails(load(&v, &tok, &diag), code, &diag, part);
    assert_null(tok);
    assert_int_equal(du_mem_get_stats().n_live, live);
}

static void encodes(const du_tokenizer *tok, const char *text, unsigned flags, const char *want) {
    du_ids ids = {0};
    du_str out = {0};
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_tokenizer_encode(tok, du_sv_of(text), flags, &ids, &diag), &diag);
    for (size_t i = 0; i < ids.n; i++) {
        du_str_addf(&out, " %d", ids.ids[i]);
    }
    assert_string_equal(du_str_get(&out), want);
    du_str_done(&out);
    du_ids_done(&ids);
}

static void gguf_defaults_of_sentencepiece(void **state) {
    (void)state;
    du_tokenizer *tok = loaded((variant){0});
    const du_tokenizer_info *info = du_tokenizer_get_info(tok);
    assert_int_equal(info->unk, 0);
    assert_int_equal(info->bos, 1);
    assert_int_equal(info->eos, 2);
    assert_int_equal(info->eot, 8);
    assert_true(info->add_bos && !info->add_eos && info->add_space_prefix);
    assert_null(info->pre);
    assert_true(du_tokenizer_is_eog(tok, 2) && du_tokenizer_is_eog(tok, 8));
    assert_false(du_tokenizer_is_eog(tok, 5));
    encodes(tok, "ab", 0, " 6 5");
    encodes(tok, "<think>ab</s>a", 0, " 9 6 5 0 0 0 0 3");
    encodes(tok, "<think>ab</s>a", DU_ENCODE_SPECIAL, " 9 6 5 2 6 3");
    encodes(tok, "A", 0, " 6 7");
    encodes(tok, "", 0, "");
    du_tokenizer_free(tok);
}

static void no_prefix(du_gguf_writer *w) {
    du_gguf_put_bool(w, KEY("add_space_prefix"), false);
    du_gguf_put_bool(w, KEY("add_bos_token"), false);
    du_gguf_put_u32(w, KEY("eos_token_id"), 5);
    du_gguf_put_u32(w, KEY("padding_token_id"), 4000000000u);
}

static void gguf_keys_overrule_defaults(void **state) {
    (void)state;
    du_tokenizer *tok = loaded((variant){.change = no_prefix});
    assert_false(du_tokenizer_get_info(tok)->add_bos);
    assert_int_equal(du_tokenizer_get_info(tok)->eos, 5);
    assert_int_equal(du_tokenizer_get_info(tok)->pad, -1); /* outside: no such token */
    encodes(tok, "ab", 0, " 5");
    du_tokenizer_free(tok);
    tok = loaded((variant){.model = "gpt2"});
    assert_string_equal(du_tokenizer_get_info(tok)->pre, "default");
    assert_int_equal(du_tokenizer_get_info(tok)->bos, -1);
    assert_false(du_tokenizer_get_info(tok)->add_bos);
    encodes(tok, "ab", 0, " 5");
    du_tokenizer_free(tok);
    tok = loaded((variant){.model = "gpt2", .pre = "llama-v3"});
    assert_string_equal(du_tokenizer_get_info(tok)->pre, "llama-bpe");
    assert_true(du_tokenizer_get_info(tok)->add_bos);
    du_tokenizer_free(tok);
    tok = loaded((variant){.dropped = "token_type"}); /* all normal, but for the bytes */
    assert_int_equal(du_tokenizer_type(tok, 1), DU_TOKEN_NORMAL);
    assert_int_equal(du_tokenizer_type(tok, 7), DU_TOKEN_BYTE);
    du_tokenizer_free(tok);
}

/* <s>, a, ab and <think> once more, an empty text, and one that the empty one would be named by. */
static void repeated_texts(du_gguf_writer *w) {
    const du_sv tokens[] = {du_sv_of("<unk>"),   du_sv_of("<s>"),    du_sv_of("<s>"),
                            du_sv_of("a"),       du_sv_of("b"),      du_sv_of("ab"),
                            du_sv_of("▁"),       du_sv_of("<0x41>"), du_sv_of("<think>"),
                            du_sv_of("a"),       du_sv_of("ab"),     du_sv_of("<think>"),
                            du_sv_of("[PAD13]"), du_sv_of("")};
    const int32_t types[] = {2, 3, 3, 1, 1, 1, 1, 6, 4, 1, 1, 4, 5, 5};
    const float scores[] = {0, 0, 0, -1, -2, -3, -4, 0, 0, 0, 0, 0, 0, 0};
    du_gguf_put_strs(w, KEY("tokens"), tokens, 14);
    du_gguf_put_array(w, KEY("token_type"), DU_GGUF_I32, types, 14);
    du_gguf_put_array(w, KEY("scores"), DU_GGUF_F32, scores, 14);
}

/* The tokenizer as tokenizer.json and back; frees tok. */
static du_tokenizer *through_json(du_tokenizer *tok) {
    json_t *json = NULL;
    du_tokenizer *again = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_tokenizer_to_json(tok, &json, &diag), &diag);
    assert_ok(du_tokenizer_from_json(&again, json, NULL, &diag), &diag);
    json_decref(json);
    du_tokenizer_free(tok);
    return again;
}

/* Published files hold such vocabularies: the first of equal texts is found, all are decoded. */
static void gguf_texts_may_repeat(void **state) {
    (void)state;
    static const char *const models[] = {"llama", "gpt2"};
    for (size_t i = 0; i < 2; i++) {
        du_tokenizer *tok = loaded((variant){.model = models[i], .change = repeated_texts});
        encodes(tok, "aab<think>", 0, i ? " 3 5 8" : " 6 3 5 8");
        encodes(tok, "<s>b", DU_ENCODE_SPECIAL, i ? " 1 4" : " 1 6 4");
        assert_true(du_sv_is(du_tokenizer_piece(tok, 9, 0), "a"));
        assert_true(du_sv_is(du_tokenizer_piece(tok, 10, 0), "ab"));
        assert_true(du_sv_is(du_tokenizer_piece(tok, 11, 0), "<think>"));
        assert_int_equal(du_tokenizer_type(tok, 13), DU_TOKEN_UNUSED);
        tok = through_json(tok); /* which has no place for them */
        encodes(tok, "aab<think>", 0, i ? " 3 5 8" : " 6 3 5 8");
        assert_int_equal(du_tokenizer_type(tok, 10), DU_TOKEN_UNUSED);
        du_tokenizer_free(tok);
    }
}

static void far_ids(du_gguf_writer *w) {
    du_gguf_put_u32(w, KEY("eos_token_id"), 10);
    du_gguf_put_u32(w, KEY("eot_token_id"), 4294967295u);
    du_gguf_put_u32(w, KEY("unknown_token_id"), 4294967295u);
}

/* Ids that converters write for want of one: what is known without the key stands. */
static void gguf_ids_outside_say_nothing(void **state) {
    (void)state;
    du_tokenizer *tok = loaded((variant){.change = far_ids});
    assert_int_equal(du_tokenizer_get_info(tok)->eos, 2);
    assert_int_equal(du_tokenizer_get_info(tok)->eot, 8);
    assert_int_equal(du_tokenizer_get_info(tok)->unk, 0);
    du_tokenizer_free(tok);
    tok = loaded((variant){.model = "gpt2", .change = far_ids});
    assert_int_equal(du_tokenizer_get_info(tok)->eos, -1);
    assert_true(du_tokenizer_is_eog(tok, 8));
    assert_int_equal(du_tokenizer_type(tok, 7),
                     DU_TOKEN_NORMAL); /* byte tokens are SentencePiece's */
    du_tokenizer_free(tok);
}

static void no_score(du_gguf_writer *w) {
    const float scores[] = {0, 0, 0, NAN, 0, 0, 0, 0, 0, 0};
    du_gguf_put_array(w, KEY("scores"), DU_GGUF_F32, scores, 10);
}
static void few_scores(du_gguf_writer *w) {
    const float scores[] = {0, 0};
    du_gguf_put_array(w, KEY("scores"), DU_GGUF_F32, scores, 2);
}
static void few_types(du_gguf_writer *w) {
    const int32_t types[] = {1};
    du_gguf_put_array(w, KEY("token_type"), DU_GGUF_I32, types, 1);
}
static void wrong_type(du_gguf_writer *w) {
    const int32_t types[] = {1, 1, 1, 7, 1, 1, 1, 1, 1, 1};
    du_gguf_put_array(w, KEY("token_type"), DU_GGUF_I32, types, 10);
}
static void tokens_as_numbers(du_gguf_writer *w) {
    const int32_t tokens[] = {1, 1};
    du_gguf_put_array(w, KEY("tokens"), DU_GGUF_I32, tokens, 2);
}
static void bad_merge(du_gguf_writer *w) {
    const du_sv merges[] = {du_sv_of("a b"), du_sv_of("ab")};
    du_gguf_put_strs(w, KEY("merges"), merges, 2);
}
static void strange_merge(du_gguf_writer *w) {
    const du_sv merges[] = {du_sv_of("a c")};
    du_gguf_put_strs(w, KEY("merges"), merges, 1);
}
static void far_bos(du_gguf_writer *w) {
    du_gguf_put_u32(w, KEY("bos_token_id"), 10);
}

static void wrong_gguf_keys_are_named(void **state) {
    (void)state;
    refused((variant){.dropped = "model"}, DU_EFORMAT, "tokenizer.ggml.model: missing");
    refused((variant){.model = "t5"}, DU_EUNSUPPORTED,
            "tokenizer.ggml.model: 't5' is not supported");
    refused((variant){.model = "gpt2", .pre = "tekken"}, DU_EUNSUPPORTED,
            "tokenizer.ggml.pre: pre-tokenizer rule 'tekken' is not known");
    refused((variant){.dropped = "tokens"}, DU_EFORMAT, "tokenizer.ggml.tokens: missing");
    refused((variant){.dropped = "scores"}, DU_EFORMAT, "tokenizer.ggml.scores: missing");
    refused((variant){.model = "gpt2", .dropped = "merges"}, DU_EFORMAT, "merges: missing");
    refused((variant){.change = no_score}, DU_EFORMAT, "scores: not a finite number");
    refused((variant){.change = few_scores}, DU_EFORMAT, "scores: not as many as tokens");
    refused((variant){.change = few_types}, DU_EFORMAT, "token_type: not as many as tokens");
    refused((variant){.change = wrong_type}, DU_EFORMAT, "tokenizer.ggml.token_type");
    refused((variant){.change = tokens_as_numbers}, DU_EFORMAT, "tokenizer.ggml.tokens");
    refused((variant){.model = "gpt2", .change = bad_merge}, DU_EFORMAT,
            "tokenizer.ggml.merges: merge 1 has no blank");
    refused((variant){.model = "gpt2", .change = strange_merge}, DU_EFORMAT,
            "merge 0: its right part, 'c', is no token");
    refused((variant){.change = far_bos}, DU_EFORMAT, "tokenizer.ggml.bos_token_id");
}

/* The ids of a prompt begin with BOS once, whatever the text begins with. */
static void bos_comes_once(void **state) {
    (void)state;
    du_tokenizer *tok = open_dir("deepseek-v3");
    int32_t bos = du_tokenizer_get_info(tok)->bos;
    static const char *const texts[] = {"", "a", "<｜begin▁of▁sentence｜>",
                                        "<｜begin▁of▁sentence｜>a"};
    for (size_t i = 0; i < 4; i++) {
        du_ids ids = {0}, plain = {0};
        assert_true(du_ids_add(&ids, 7)); /* what was there before stays */
        assert_int_equal(
            du_tokenizer_encode_prompt(tok, du_sv_of(texts[i]), DU_ENCODE_SPECIAL, &ids, NULL),
            DU_OK);
        assert_int_equal(
            du_tokenizer_encode(tok, du_sv_of(texts[i]), DU_ENCODE_SPECIAL, &plain, NULL), DU_OK);
        assert_int_equal(ids.ids[0], 7);
        assert_int_equal(ids.ids[1], bos);
        assert_true(ids.n < 3 || ids.ids[2] != bos);
        assert_int_equal(ids.n, plain.n + (plain.n && plain.ids[0] == bos ? 1 : 2));
        du_ids_done(&ids);
        du_ids_done(&plain);
    }
    du_tokenizer_free(tok);
    tok = open_dir("qwen2");
    du_ids ids = {0};
    assert_int_equal(du_tokenizer_encode_prompt(tok, du_sv_of("a"), 0, &ids, NULL), DU_OK);
    assert_int_equal(ids.n, 1);
    du_ids_done(&ids);
    du_tokenizer_free(tok);
}

static void special_tokens_have_their_places(void **state) {
    (void)state;
    du_tokenizer *tok = open_dir("deepseek-v3");
    const du_tokenizer_info *info = du_tokenizer_get_info(tok);
    assert_int_equal(info->fim_prefix, du_tokenizer_find(tok, du_sv_of("<｜fim▁begin｜>")));
    assert_int_equal(info->fim_suffix, du_tokenizer_find(tok, du_sv_of("<｜fim▁hole｜>")));
    assert_int_equal(info->fim_middle, du_tokenizer_find(tok, du_sv_of("<｜fim▁end｜>")));
    assert_true(info->fim_prefix >= 0 && info->fim_suffix >= 0 && info->fim_middle >= 0);
    assert_true(du_tokenizer_is_eog(tok, du_tokenizer_find(tok, du_sv_of("<|EOT|>"))));
    du_sv text = du_tokenizer_text(tok, info->eos);
    assert_true(du_sv_is(text, "<｜end▁of▁sentence｜>"));
    assert_int_equal(du_tokenizer_text(tok, -1).len, 0);
    assert_int_equal(du_tokenizer_piece(tok, info->n_vocab, DU_DECODE_SPECIAL).len, 0);
    assert_int_equal(du_tokenizer_type(tok, info->n_vocab), DU_TOKEN_UNUSED);
    du_tokenizer_free(tok);
    du_tokenizer_free(NULL);
}

/* Ids of single bytes, pushed one by one. */
static void streams(const char *bytes, unsigned flags, const char *const *want) {
    du_tokenizer *tok = open_dir("gpt-2");
    du_detok d;
    du_str out = {0};
    du_detok_init(&d, tok, flags);
    size_t n = strlen(bytes);
    for (size_t i = 0; i <= n; i++) {
        du_str_reset(&out);
        if (i < n) {
            du_ids ids = {0};
            char one[2] = {bytes[i], '\0'};
            assert_int_equal(du_tokenizer_encode(tok, (du_sv){one, 1}, 0, &ids, NULL), DU_OK);
            assert_int_equal(ids.n, 1);
            du_detok_push(&d, ids.ids[0], &out);
            du_ids_done(&ids);
        } else {
            du_detok_flush(&d, &out);
        }
        assert_string_equal(du_str_get(&out), want[i]);
    }
    du_str_done(&out);
    du_tokenizer_free(tok);
}

static void characters_come_whole(void **state) {
    (void)state;
    streams("a가😀", 0, (const char *[]){"a", "", "", "가", "", "", "", "😀", ""});
    streams("\xea\xb0", 0, (const char *[]){"", "", "\xea\xb0"});
    streams("\xea\xb0", DU_DECODE_REPLACE, (const char *[]){"", "", "\ufffd"});
    streams("\xeaz", 0, (const char *[]){"", "\xeaz", ""});
    streams("\xea\xb0z", DU_DECODE_REPLACE, (const char *[]){"", "", "\ufffdz", ""});
    streams("\xff\xe4\xb8\xad", DU_DECODE_REPLACE, (const char *[]){"\ufffd", "", "", "中", ""});
    streams("\xe4\xe4\xb8\xad", DU_DECODE_REPLACE, (const char *[]){"", "\ufffd", "", "中", ""});
    streams("\xf0\x9f\x98\xe4\xb8\xad", 0,
            (const char *[]){"", "", "", "\xf0\x9f\x98", "", "中", ""});
}

static void control_tokens_print_on_request(void **state) {
    (void)state;
    du_tokenizer *tok = open_dir("deepseek-v3");
    du_ids ids = {0};
    assert_int_equal(du_tokenizer_encode(tok, du_sv_of("a<｜end▁of▁sentence｜><think>"),
                                         DU_ENCODE_SPECIAL, &ids, NULL),
                     DU_OK);
    assert_int_equal(ids.n, 3);
    for (unsigned flags = 0; flags <= DU_DECODE_SPECIAL; flags++) {
        du_detok d;
        du_str out = {0};
        du_detok_init(&d, tok, flags);
        for (size_t i = 0; i < ids.n; i++) {
            du_detok_push(&d, ids.ids[i], &out);
        }
        du_detok_push(&d, -5, &out); /* ids from outside may be anything */
        du_detok_push(&d, INT32_MAX, &out);
        du_detok_flush(&d, &out);
        assert_string_equal(du_str_get(&out), flags ? "a<｜end▁of▁sentence｜><think>" : "a<think>");
        du_str_done(&out);
    }
    du_ids_done(&ids);
    du_tokenizer_free(tok);
}

static void a_blank_at_the_start_is_taken_back(void **state) {
    (void)state;
    du_tokenizer *tok = loaded((variant){0});
    for (unsigned flags = 0; flags <= DU_DECODE_START; flags += DU_DECODE_START) {
        du_detok d;
        du_str out = {0};
        du_detok_init(&d, tok, flags);
        for (int round = 0; round < 2; round++) { /* a flush starts anew */
            du_detok_push(&d, 1, &out);
            du_detok_push(&d, 6, &out);
            du_detok_push(&d, 6, &out);
            du_detok_push(&d, 5, &out);
            du_detok_flush(&d, &out);
        }
        assert_string_equal(du_str_get(&out), flags ? " ab ab" : "  ab  ab");
        du_str_done(&out);
    }
    du_tokenizer_free(tok);
}

enum { N_THREADS = 4 };

typedef struct {
    const du_tokenizer *tok;
    bool same;
} job;

static const char job_text[] =
    "두레는 마을 사람들이 함께 일하던 풍습입니다. It costs $12.50, doesn't it?\n";

static void *encode_often(void *arg) {
    job *j = arg;
    du_ids first = {0};
    j->same =
        du_tokenizer_encode(j->tok, du_sv_of(job_text), 0, &first, NULL) == DU_OK && first.n > 9;
    for (int i = 0; i < 200; i++) {
        du_ids ids = {0};
        j->same = j->same &&
                  du_tokenizer_encode(j->tok, du_sv_of(job_text), 0, &ids, NULL) == DU_OK &&
                  ids.n == first.n && memcmp(ids.ids, first.ids, ids.n * sizeof ids.ids[0]) == 0;
        du_ids_done(&ids);
    }
    du_ids_done(&first);
    return NULL;
}

static void threads_may_share_a_tokenizer(void **state) {
    (void)state;
    du_tokenizer *tok = open_dir("kimi-k2");
    pthread_t threads[N_THREADS];
    job jobs[N_THREADS];
    for (size_t i = 0; i < N_THREADS; i++) {
        jobs[i] = (job){tok, false};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &jobs[i]), 0);
    }
    for (size_t i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(jobs[i].same);
    }
    du_tokenizer_free(tok);
}

/* Loading, encoding and decoding with the n-th allocation failing, for every n. */
static du_err use(const json_t *json, const json_t *config, du_ids *ids, du_str *out) {
    du_tokenizer *tok = NULL;
    du_err err = du_tokenizer_from_json(&tok, json, config, NULL);
    if (err == DU_OK) {
        err = du_tokenizer_encode_prompt(tok, du_sv_of("가 e\u0301 <think>12 \U0001fa77 \xff"),
                                         DU_ENCODE_SPECIAL, ids, NULL);
    }
    for (size_t i = 0; err == DU_OK && i < ids->n; i++) {
        du_detok d;
        du_detok_init(&d, tok, 0);
        du_detok_push(&d, ids->ids[i], out);
        du_detok_flush(&d, out);
    }
    du_tokenizer_free(tok);
    return err == DU_OK && out->failed ? DU_ENOMEM : err;
}

static json_t *parsed(const char *rule, const char *file) {
    char path[512];
    json_t *json = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    snprintf(path, sizeof path, GOLDEN "%s/%s", rule, file);
    assert_ok(du_json_load(&json, path, 1 << 20, &diag), &diag);
    return json;
}

/* Either the failure is told or, where memory only makes things quicker (machine code for regular
 * expressions), the result is the same. */
static void survives_every_failure(const char *rule) {
    json_t *json = parsed(rule, "tokenizer.json"), *config = parsed(rule, "tokenizer_config.json");
    du_ids want = {0};
    du_str want_text = {0};
    int64_t calls = du_mem_get_stats().n_calls;
    assert_int_equal(use(json, config, &want, &want_text), DU_OK);
    int64_t n_calls = du_mem_get_stats().n_calls - calls;
    int64_t live = du_mem_get_stats().n_live;
    assert_true(n_calls > 20);
    for (int64_t n = 1; n <= n_calls; n++) {
        du_ids ids = {0};
        du_str out = {0};
        du_mem_fail_at(n, false);
        du_err err = use(json, config, &ids, &out);
        du_mem_fail_at(0, false);
        if (err == DU_OK) {
            assert_int_equal(ids.n, want.n);
            assert_memory_equal(ids.ids, want.ids, want.n * sizeof want.ids[0]);
            assert_string_equal(du_str_get(&out), du_str_get(&want_text));
        } else {
            assert_int_equal(err, DU_ENOMEM);
            assert_true(out.failed || ids.n == 0);
        }
        du_ids_done(&ids);
        du_str_done(&out);
        assert_int_equal(du_mem_get_stats().n_live, live);
    }
    du_ids_done(&want);
    du_str_done(&want_text);
    json_decref(json);
    json_decref(config);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    survives_every_failure("deepseek-r1-qwen");
    survives_every_failure("deepseek-v3");
    survives_every_failure("llama-spm");
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_defaults_of_sentencepiece),
        cmocka_unit_test(gguf_keys_overrule_defaults),
        cmocka_unit_test(gguf_texts_may_repeat),
        cmocka_unit_test(gguf_ids_outside_say_nothing),
        cmocka_unit_test(wrong_gguf_keys_are_named),
        cmocka_unit_test(bos_comes_once),
        cmocka_unit_test(special_tokens_have_their_places),
        cmocka_unit_test(characters_come_whole),
        cmocka_unit_test(control_tokens_print_on_request),
        cmocka_unit_test(a_blank_at_the_start_is_taken_back),
        cmocka_unit_test(threads_may_share_a_tokenizer),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
