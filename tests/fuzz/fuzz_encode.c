/* Any text through the golden tokenizers: it comes back byte for byte, twice the same, with no
 * control token that was not asked for. The first byte says which tokenizer. */
#include "fuzz.h"

#include "base/json.h"
#include "formats/gguf.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

#define DIR_TOKENIZERS DURE_SOURCE_DIR "/tests/golden/tokenizers/"

static const char *const names[] = {"deepseek-v3", "deepseek-llm", "deepseek-coder", "kimi-k2",
                                    "qwen2",       "llama-bpe",    "llama-spm",      "default"};
enum { N_NAMES = sizeof names / sizeof *names };

/* From tokenizer.json and from GGUF. */
static du_tokenizer *tokenizers[2 * N_NAMES];

static void check(du_err err, const du_diag *diag) {
    if (err != DU_OK) {
        fprintf(stderr, "%s\n", diag->msg);
        abort();
    }
}

/* A text that makes every buffer of a tokenizer's working memory, so that later ones allocate
 * nothing that stays. */
static void warm_up(const du_tokenizer *tok) {
    du_str text = {0};
    du_ids ids = {0};
    du_str_add_s(&text, "e\u0301 \U0001fa77 \u212b \u2126 ");
    for (int i = 0; i < 3000; i++) {
        du_str_add_s(&text, "abracadabra");
    }
    FUZZ_CHECK(du_tokenizer_encode(tok, du_str_view(&text), 0, &ids, NULL) == DU_OK);
    du_ids_done(&ids);
    du_str_done(&text);
}

/* Before main: what is loaded here is no leak of the first input. */
__attribute__((constructor)) static void set_up(void) {
    du_diag diag;
    du_diag_reset(&diag);
    du_json_use_counted_heap();
    for (size_t i = 0; i < N_NAMES; i++) {
        char path[512];
        du_gguf *gguf = NULL;
        snprintf(path, sizeof path, DIR_TOKENIZERS "%s", names[i]);
        check(du_tokenizer_from_dir(&tokenizers[2 * i], path, &diag), &diag);
        snprintf(path, sizeof path, DIR_TOKENIZERS "%s/vocab.gguf", names[i]);
        check(du_gguf_open(&gguf, path, &diag), &diag);
        check(du_tokenizer_from_gguf(&tokenizers[2 * i + 1], gguf, &diag), &diag);
        du_gguf_close(gguf);
        warm_up(tokenizers[2 * i]);
        warm_up(tokenizers[2 * i + 1]);
    }
}

static void check_ids(const du_tokenizer *tok, const du_ids *ids, unsigned flags) {
    for (size_t i = 0; i < ids->n; i++) {
        FUZZ_CHECK(ids->ids[i] >= 0 && ids->ids[i] < du_tokenizer_get_info(tok)->n_vocab);
        du_token_type type = du_tokenizer_type(tok, ids->ids[i]);
        FUZZ_CHECK(type != DU_TOKEN_UNUSED);
        FUZZ_CHECK(type != DU_TOKEN_CONTROL || (flags & DU_ENCODE_SPECIAL));
    }
}

static void decode(const du_tokenizer *tok, const du_ids *ids, unsigned flags, du_str *out) {
    du_detok d;
    du_detok_init(&d, tok, flags);
    for (size_t i = 0; i < ids->n; i++) {
        du_detok_push(&d, ids->ids[i], out);
        /* Without invalid bytes in it, what is given out is whole characters. */
        FUZZ_CHECK(!(flags & DU_DECODE_REPLACE) ||
                   du_utf8_valid(du_str_get(out), out->len) == out->len);
    }
    du_detok_flush(&d, out);
}

/* SentencePiece cannot tell U+2581 from a blank and keeps the blank after an added token, and NFC
 * changes text; the rest comes back as it was. */
static void check_way_back(const du_tokenizer *tok, const du_ids *ids, du_sv text, size_t i) {
    const char *name = names[i / 2];
    bool from_json = i % 2 == 0;
    if (strcmp(name, "llama-spm") == 0) {
        if (du_sv_find(text, du_sv_of("\xe2\x96\x81"), 0) >= 0 ||
            du_sv_find(text, du_sv_of("<"), 0) >= 0) {
            return;
        }
    }
    du_str back = {0}, want = {0};
    decode(tok, ids, DU_DECODE_SPECIAL | DU_DECODE_START, &back);
    if (from_json && strcmp(name, "qwen2") == 0) {
        du_str nfc = {0};
        du_utf8_add_nfc(&want, text);
        du_utf8_add_nfc(&nfc, du_str_view(&back)); /* added tokens part what is normalised */
        FUZZ_CHECK(du_sv_eq(du_str_view(&nfc), du_str_view(&want)));
        du_str_done(&nfc);
    } else {
        FUZZ_CHECK(du_sv_eq(du_str_view(&back), text));
    }
    du_str_done(&back);
    du_str_done(&want);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    size_t i = data[0] % (2 * N_NAMES);
    const du_tokenizer *tok = tokenizers[i];
    du_sv text = {(const char *)data + 1, size - 1};
    for (unsigned flags = 0; flags <= DU_ENCODE_SPECIAL; flags++) {
        du_ids ids = {0}, again = {0};
        du_str replaced = {0};
        FUZZ_CHECK(du_tokenizer_encode(tok, text, flags, &ids, NULL) == DU_OK);
        FUZZ_CHECK(du_tokenizer_encode(tok, text, flags, &again, NULL) == DU_OK);
        FUZZ_CHECK(ids.n == again.n &&
                   (ids.n == 0 || memcmp(ids.ids, again.ids, ids.n * sizeof ids.ids[0]) == 0));
        check_ids(tok, &ids, flags);
        check_way_back(tok, &ids, text, i);
        decode(tok, &ids, DU_DECODE_REPLACE, &replaced);
        du_ids_done(&ids);
        du_ids_done(&again);
        du_str_done(&replaced);
    }
    return 0;
}
