/* tokenizer.json: what loads can be used and written. */
#include "fuzz.h"

#include "base/json.h"
#include "text/tokenizer.h"
#include "text/tokenizer_write.h"

static const char text[] = "The 두레 <s>abc</s> 12345, e\u0301 \xff\xea\xb0 \U0001fa77\n\n  x";

static void use(const du_tokenizer *tok) {
    du_ids ids = {0};
    du_str out = {0};
    du_detok d;
    const du_tokenizer_info *info = du_tokenizer_get_info(tok);
    FUZZ_CHECK(info->n_vocab > 0 && info->model);
    du_err err = du_tokenizer_encode_prompt(tok, du_sv_of(text), DU_ENCODE_SPECIAL, &ids, NULL);
    FUZZ_CHECK(err == DU_OK || err == DU_ELIMIT);
    du_detok_init(&d, tok, DU_DECODE_SPECIAL);
    for (size_t i = 0; i < ids.n; i++) {
        FUZZ_CHECK(ids.ids[i] >= 0 && ids.ids[i] < info->n_vocab);
        du_detok_push(&d, ids.ids[i], &out);
    }
    du_detok_flush(&d, &out);
    for (int32_t id = -1; id <= info->n_vocab && id < 1000; id++) {
        du_sv own = du_tokenizer_text(tok, id), piece = du_tokenizer_piece(tok, id, 0);
        fuzz_touch(own.s, own.len);
        fuzz_touch(piece.s, piece.len);
    }
    du_ids_done(&ids);
    du_str_done(&out);
}

static void write(const du_tokenizer *tok) {
    du_tokenizer_tables t;
    json_t *json = NULL;
    du_err err = du_tokenizer_tables_make(&t, tok, du_tokenizer_get_info(tok)->n_vocab + 3, NULL);
    for (int64_t i = 0; err == DU_OK && i < t.n_tokens && i < 1000; i++) {
        fuzz_touch(t.tokens[i].s, t.tokens[i].len);
    }
    for (int64_t i = 0; err == DU_OK && i < t.n_merges; i++) {
        fuzz_touch(t.merges[i].s, t.merges[i].len);
    }
    du_tokenizer_tables_done(&t);
    if (du_tokenizer_to_json(tok, &json, NULL) == DU_OK) {
        du_tokenizer *again = NULL;
        FUZZ_CHECK(du_tokenizer_from_json(&again, json, NULL, NULL) == DU_OK);
        du_tokenizer_free(again);
        json_decref(json);
    }
    if (du_tokenizer_config_to_json(tok, &json, NULL) == DU_OK) {
        json_decref(json);
    }
}

/* The input is a tokenizer.json, or {"tokenizer": that, "config": a tokenizer_config.json}. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *json = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    du_json_use_counted_heap();
    if (du_json_parse(&json, (const char *)data, size, "input", &diag) != DU_OK) {
        return 0;
    }
    const json_t *both = json_object_get(json, "tokenizer");
    du_tokenizer *tok = NULL;
    du_err err =
        du_tokenizer_from_json(&tok, both ? both : json, json_object_get(json, "config"), &diag);
    FUZZ_CHECK(err == DU_OK ? tok != NULL : !tok && diag.msg[0] != '\0');
    if (tok) {
        use(tok);
        write(tok);
    }
    du_tokenizer_free(tok);
    json_decref(json);
    return 0;
}
