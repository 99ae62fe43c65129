/* The tokenizer keys of GGUF files: what loads can be used. */
#include "fuzz.h"

#include "formats/gguf.h"
#include "text/tokenizer.h"

static const char text[] = "The 두레 <s>abc</s> 12345, e\u0301 \xff\xea\xb0 \U0001fa77\n\n  x";

static void use(const du_tokenizer *tok) {
    du_ids ids = {0};
    du_str out = {0};
    du_detok d;
    const du_tokenizer_info *info = du_tokenizer_get_info(tok);
    FUZZ_CHECK(du_tokenizer_encode_prompt(tok, du_sv_of(text), DU_ENCODE_SPECIAL, &ids, NULL) ==
               DU_OK);
    du_detok_init(&d, tok, DU_DECODE_SPECIAL | DU_DECODE_START | DU_DECODE_REPLACE);
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *bytes = du_alloc_aligned(size + 1);
    if (!bytes) {
        return 0;
    }
    memcpy(bytes, data, size);
    du_gguf *gguf = NULL;
    if (du_gguf_parse(&gguf, bytes, size, "input", NULL) == DU_OK) {
        du_tokenizer *tok = NULL;
        du_diag diag;
        du_diag_reset(&diag);
        du_err err = du_tokenizer_from_gguf(&tok, gguf, &diag);
        FUZZ_CHECK(err == DU_OK ? tok != NULL : !tok && diag.msg[0] != '\0');
        du_gguf_close(gguf); /* the tokenizer stands alone */
        if (tok) {
            memset(bytes, 0, size);
            use(tok);
        }
        du_tokenizer_free(tok);
    }
    du_free(bytes);
    return 0;
}
