/* Every pre-tokenizer rule and SentencePiece against the reference tokenizers, read from
 * tokenizer.json and from GGUF: the ids of 514 texts, with and without control tokens, and the way
 * back. Made by tools/ref/make_tokenizers.py. */
#include "test.h"

#include <jansson.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/gguf.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

#define DIR_TOKENIZERS DURE_SOURCE_DIR "/tests/golden/tokenizers/"

enum { LINES_MAX = 1024 };

/* The lines of a JSONL file. */
typedef struct {
    json_t *lines[LINES_MAX];
    size_t n;
} jsonl;

static jsonl read_lines(const char *path) {
    jsonl out = {.n = 0};
    char *text = NULL;
    size_t len = 0;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_file_read(&text, &len, path, 64 << 20, &diag), &diag);
    for (size_t start = 0; start < len; out.n++) {
        const char *end = memchr(text + start, '\n', len - start);
        assert_non_null(end);
        assert_true(out.n < LINES_MAX);
        size_t n = (size_t)(end - text) - start;
        assert_ok(du_json_parse(&out.lines[out.n], text + start, n, path, &diag), &diag);
        start += n + 1;
    }
    du_free(text);
    return out;
}

static void done_lines(jsonl *file) {
    for (size_t i = 0; i < file->n; i++) {
        json_decref(file->lines[i]);
    }
}

static const char *in_folder(const char *rule, const char *file) {
    static char path[512];
    snprintf(path, sizeof path, DIR_TOKENIZERS "%s%s%s", rule, *file ? "/" : "", file);
    return path;
}

/* The text of a line: {"text": ...} or {"hex": ...}. */
static void text_of(du_str *out, const json_t *line) {
    du_str_reset(out);
    const char *text = json_string_value(json_object_get(line, "text"));
    if (text) {
        du_str_add(out, text, json_string_length(json_object_get(line, "text")));
        return;
    }
    const char *hex = json_string_value(json_object_get(line, "hex"));
    assert_non_null(hex);
    for (; *hex; hex += 2) {
        unsigned byte;
        assert_int_equal(sscanf(hex, "%2x", &byte), 1);
        du_str_add_c(out, (char)byte);
    }
}

static void same_ids(const du_ids *got, const json_t *want, const char *where, size_t line) {
    bool same = got->n == json_array_size(want);
    for (size_t i = 0; same && i < got->n; i++) {
        same = got->ids[i] == json_integer_value(json_array_get(want, i));
    }
    if (!same) {
        du_str ids = {0};
        for (size_t i = 0; i < got->n; i++) {
            du_str_addf(&ids, " %d", got->ids[i]);
        }
        char *text = json_dumps(want, JSON_COMPACT);
        fail_msg("%s, line %zu: got%s, want %s", where, line, du_str_get(&ids), text);
    }
}

static void decode(const du_tokenizer *tok, const du_ids *ids, du_str *out) {
    du_detok d;
    du_str_reset(out);
    du_detok_init(&d, tok, DU_DECODE_SPECIAL | DU_DECODE_START);
    for (size_t i = 0; i < ids->n; i++) {
        du_detok_push(&d, ids->ids[i], out);
    }
    du_detok_flush(&d, out);
}

/* What a text comes back as: the normaliser of some tokenizer.json is NFC, and SentencePiece cannot
 * tell U+2581 from a blank. */
static void add_expected(du_str *out, du_sv text, bool nfc, bool spm) {
    if (nfc) {
        du_utf8_add_nfc(out, text);
        return;
    }
    for (size_t i = 0; i < text.len; i++) {
        bool low_line = spm && text.len - i >= 3 && memcmp(text.s + i, "\xe2\x96\x81", 3) == 0;
        du_str_add_c(out, low_line ? ' ' : text.s[i]);
        i += low_line ? 2 : 0;
    }
}

static void comes_back(const du_tokenizer *tok, const du_ids *ids, du_sv text, bool nfc,
                       const char *where, size_t line) {
    du_str back = {0}, want = {0};
    decode(tok, ids, &back);
    add_expected(&want, text, nfc, strcmp(du_tokenizer_get_info(tok)->model, "llama") == 0);
    if (!du_sv_eq(du_str_view(&back), du_str_view(&want))) {
        fail_msg("%s, line %zu: '%s' comes back as '%s'", where, line, du_str_get(&want),
                 du_str_get(&back));
    }
    du_str_done(&back);
    du_str_done(&want);
}

static void check_line(const du_tokenizer *tok, const json_t *text_line, const json_t *want,
                       bool nfc, const char *where, size_t i) {
    du_str text = {0};
    du_ids ids = {0};
    du_diag diag;
    du_diag_reset(&diag);
    text_of(&text, text_line);
    bool spm = strcmp(du_tokenizer_get_info(tok)->model, "llama") == 0;
    const json_t *tokens = json_object_get(want, "tokens");
    const json_t *special = json_object_get(want, "special");
    assert_ok(du_tokenizer_encode(tok, du_str_view(&text), 0, &ids, &diag), &diag);
    if (tokens) {
        same_ids(&ids, tokens, where, i);
    }
    /* SentencePiece's blank after an added token stays. */
    if (!spm || !strstr(du_str_get(&text), "think>")) {
        comes_back(tok, &ids, du_str_view(&text), nfc, where, i);
    }
    ids.n = 0;
    assert_ok(du_tokenizer_encode(tok, du_str_view(&text), DU_ENCODE_SPECIAL, &ids, &diag), &diag);
    if (tokens) {
        same_ids(&ids, special ? special : tokens, where, i);
    }
    du_ids_done(&ids);
    du_str_done(&text);
}

static void check_info(const du_tokenizer *tok, const char *rule, bool json) {
    du_diag diag;
    du_diag_reset(&diag);
    json_t *meta = NULL;
    assert_ok(du_json_load(&meta, in_folder(rule, "meta.json"), 1 << 20, &diag), &diag);
    const du_tokenizer_info *info = du_tokenizer_get_info(tok);
    const char *bos = json_string_value(json_object_get(meta, "bos"));
    const char *eos = json_string_value(json_object_get(meta, "eos"));
    assert_string_equal(info->model, json_string_value(json_object_get(meta, "model")));
    assert_int_equal(info->n_vocab, json_integer_value(json_object_get(meta, "vocab_size")));
    assert_int_equal(info->add_bos, json_is_true(json_object_get(meta, "add_bos")));
    assert_false(info->add_eos);
    assert_int_equal(info->bos, bos ? du_tokenizer_find(tok, du_sv_of(bos))
                                : strcmp(rule, "llama-spm") == 0 ? 1
                                                                 : -1);
    assert_int_equal(info->eos, du_tokenizer_find(tok, du_sv_of(eos)));
    assert_true(du_tokenizer_is_eog(tok, info->eos));
    if (strcmp(info->model, "gpt2") == 0) {
        /* Rules with equal passes cannot be told apart by them. */
        const char *named = !json ? rule : strcmp(rule, "glm4") == 0 ? "llama-bpe" : rule;
        named = strcmp(rule, "deepseek-r1-qwen") == 0 ? "qwen2" : named;
        assert_string_equal(info->pre, named);
    }
    json_decref(meta);
}

static void check_tokenizer(const du_tokenizer *tok, const char *rule, bool json) {
    jsonl texts = read_lines(in_folder("texts.jsonl", ""));
    jsonl ids = read_lines(in_folder(rule, "ids.jsonl"));
    jsonl other = read_lines(in_folder(rule, "gguf.jsonl"));
    assert_true(texts.n >= 300);
    assert_int_equal(texts.n, ids.n);
    check_info(tok, rule, json);
    bool nfc = json && (strcmp(rule, "qwen2") == 0 || strcmp(rule, "deepseek-r1-qwen") == 0);
    char where[128];
    snprintf(where, sizeof where, "%s from %s", rule, json ? "tokenizer.json" : "GGUF");
    for (size_t i = 0, k = 0; i < texts.n; i++) {
        const json_t *want = ids.lines[i];
        if (k < other.n &&
            json_integer_value(json_object_get(other.lines[k], "line")) == (json_int_t)i) {
            want = json ? want : other.lines[k];
            k++;
        }
        check_line(tok, texts.lines[i], want, nfc, where, i);
    }
    done_lines(&texts);
    done_lines(&ids);
    done_lines(&other);
}

static void check_rule(const char *rule) {
    int64_t live = du_mem_get_stats().n_live;
    du_diag diag;
    du_diag_reset(&diag);
    du_tokenizer *tok = NULL;
    assert_ok(du_tokenizer_from_dir(&tok, in_folder(rule, ""), &diag), &diag);
    check_tokenizer(tok, rule, true);
    du_tokenizer_free(tok);

    du_gguf *gguf = NULL;
    assert_ok(du_gguf_open(&gguf, in_folder(rule, "vocab.gguf"), &diag), &diag);
    assert_ok(du_tokenizer_from_gguf(&tok, gguf, &diag), &diag);
    du_gguf_close(gguf);
    check_tokenizer(tok, rule, false);
    du_tokenizer_free(tok);
    assert_int_equal(du_mem_get_stats().n_live, live);
}

#define RULE_TEST(function, rule)                                                                  \
    static void function(void **state) {                                                           \
        (void)state;                                                                               \
        check_rule(rule);                                                                          \
    }
RULE_TEST(deepseek_llm, "deepseek-llm")
RULE_TEST(deepseek_coder, "deepseek-coder")
RULE_TEST(deepseek_v3, "deepseek-v3")
RULE_TEST(deepseek_r1_qwen, "deepseek-r1-qwen")
RULE_TEST(qwen2, "qwen2")
RULE_TEST(llama_bpe, "llama-bpe")
RULE_TEST(smollm, "smollm")
RULE_TEST(gpt_2, "gpt-2")
RULE_TEST(kimi_k2, "kimi-k2")
RULE_TEST(glm4, "glm4")
RULE_TEST(default_rule, "default")
RULE_TEST(llama_spm, "llama-spm")

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deepseek_llm), cmocka_unit_test(deepseek_coder),
        cmocka_unit_test(deepseek_v3),  cmocka_unit_test(deepseek_r1_qwen),
        cmocka_unit_test(qwen2),        cmocka_unit_test(llama_bpe),
        cmocka_unit_test(smollm),       cmocka_unit_test(gpt_2),
        cmocka_unit_test(kimi_k2),      cmocka_unit_test(glm4),
        cmocka_unit_test(default_rule), cmocka_unit_test(llama_spm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
