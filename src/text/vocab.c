#include "text/vocab.h"

#include <stdio.h>

#include "base/mem.h"
#include "text/unicode.h"

enum { PAD_TEXT_BYTES = 20 }; /* "[PAD16777215]" */

du_err du_vocab_init(du_vocab *v, int32_t n, size_t text_bytes, du_diag *diag) {
    size_t n_tokens = (size_t)n;
    *v = (du_vocab){.n = n};
    v->texts = du_alloc_zero(n_tokens, sizeof v->texts[0]);
    v->pieces = du_alloc_zero(n_tokens, sizeof v->pieces[0]);
    v->types = du_alloc_zero(n_tokens, sizeof v->types[0]);
    v->eog = du_alloc_zero(n_tokens, sizeof v->eog[0]);
    /* A piece is never longer than its text. */
    if (du_mul_size(text_bytes, 2, &v->n_storage) &&
        du_add_size(v->n_storage, n_tokens * PAD_TEXT_BYTES, &v->n_storage)) {
        v->storage = du_alloc(v->n_storage);
    }
    if (!v->texts || !v->pieces || !v->types || !v->eog || !v->storage ||
        du_hash_reserve(&v->ids, n_tokens) != DU_OK) {
        du_vocab_done(v);
        return du_fail_nomem(diag, "the vocabulary");
    }
    memset(v->types, DU_TOKEN_UNUSED, n_tokens);
    memset(v->bytes, 0xff, sizeof v->bytes);
    return DU_OK;
}

void du_vocab_done(du_vocab *v) {
    du_free(v->texts);
    du_free(v->pieces);
    du_free(v->types);
    du_free(v->scores);
    du_free(v->eog);
    du_free(v->storage);
    du_hash_done(&v->ids);
    *v = (du_vocab){0};
}

/* Copies bytes to the storage, which du_vocab_init made large enough. */
static du_sv store(du_vocab *v, du_sv bytes) {
    DU_CHECK(bytes.len <= v->n_storage - v->n_stored);
    char *to = v->storage + v->n_stored;
    if (bytes.len) {
        memcpy(to, bytes.s, bytes.len);
    }
    v->n_stored += bytes.len;
    return (du_sv){to, bytes.len};
}

/* Stores the text of an id that has none yet. */
static du_err set_text(du_vocab *v, int32_t id, du_sv text, du_token_type type, du_diag *diag) {
    if (text.len > DU_VOCAB_TOKEN_BYTES_MAX) {
        return du_fail(diag, DU_ELIMIT, "token %d has %zu bytes, more than %d", id, text.len,
                       DU_VOCAB_TOKEN_BYTES_MAX);
    }
    if (text.len == 0) {
        return du_fail(diag, DU_EFORMAT, "token %d is empty", id);
    }
    if (v->texts[id].s) {
        return du_fail(diag, DU_EFORMAT, "token %d is both '%.*s' and '%.*s'", id,
                       (int)v->texts[id].len, v->texts[id].s, (int)text.len, text.s);
    }
    v->texts[id] = store(v, text);
    v->types[id] = (uint8_t)type;
    return DU_OK;
}

/* The room is there: the only failure is that another id has the text. */
static bool make_findable(du_vocab *v, int32_t id) {
    return du_hash_add(&v->ids, v->texts[id], id) == DU_OK;
}

du_err du_vocab_set(du_vocab *v, int32_t id, du_sv text, du_token_type type, du_diag *diag) {
    du_err err = set_text(v, id, text, type, diag);
    return err != DU_OK || make_findable(v, id)
               ? err
               : du_fail(diag, DU_EFORMAT, "tokens %d and %d are both '%.*s'",
                         du_vocab_find(v, text), id, (int)text.len, text.s);
}

du_err du_vocab_set_twin(du_vocab *v, int32_t id, du_sv text, du_token_type type, du_diag *diag) {
    du_err err = set_text(v, id, text, type, diag);
    if (err == DU_OK) {
        make_findable(v, id);
    }
    return err;
}

int32_t du_vocab_find(const du_vocab *v, du_sv text) {
    const int64_t *id = text.len ? du_hash_find(&v->ids, text) : NULL;
    return id ? (int32_t)*id : -1;
}

bool du_vocab_is_twin(const du_vocab *v, int32_t id) {
    return du_vocab_find(v, v->texts[id]) != id;
}

int32_t du_byte_level_char(uint8_t byte) {
    if (byte <= 0x20) {
        return 0x100 + byte;
    }
    if (byte >= 0x7f && byte <= 0xa0) {
        return 0x121 + (byte - 0x7f);
    }
    return byte == 0xad ? 0x143 : byte;
}

/* The byte a character of GPT-2's alphabet stands for, -1: none. */
static int32_t byte_of_char(int32_t cp) {
    int32_t byte = cp < 0x100    ? cp
                   : cp <= 0x120 ? cp - 0x100
                   : cp <= 0x142 ? cp - 0x121 + 0x7f
                   : cp == 0x143 ? 0xad
                                 : -1;
    return byte >= 0 && du_byte_level_char((uint8_t)byte) == cp ? byte : -1;
}

/* The bytes of a text in GPT-2's alphabet, written to out (at most text.len); -1 when a character
 * is outside it. */
static int64_t decode_byte_level(char *out, du_sv text) {
    int64_t n = 0;
    for (size_t i = 0; i < text.len;) {
        int32_t cp;
        i += du_utf8_next(text.s + i, text.len - i, &cp);
        int32_t byte = cp < 0 ? -1 : byte_of_char(cp);
        if (byte < 0) {
            return -1;
        }
        out[n++] = (char)byte;
    }
    return n;
}

/* U+2581 back to blanks; written to out (at most text.len). */
static int64_t decode_spm(char *out, du_sv text) {
    int64_t n = 0;
    for (size_t i = 0; i < text.len;) {
        if (text.len - i >= 3 && memcmp(text.s + i, "\xe2\x96\x81", 3) == 0) {
            out[n++] = ' ';
            i += 3;
        } else {
            out[n++] = text.s[i++];
        }
    }
    return n;
}

/* The value of "<0xXX>", -1 when the text is none. */
static int32_t byte_token_value(du_sv text) {
    if (text.len != 6 || memcmp(text.s, "<0x", 3) != 0 || text.s[5] != '>') {
        return -1;
    }
    int32_t v = 0;
    for (size_t i = 3; i < 5; i++) {
        char c = text.s[i];
        int32_t digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) {
            return -1;
        }
        v = v * 16 + digit;
    }
    return v;
}

/* Of several tokens for a byte the first is its token. */
static void set_byte(du_vocab *v, uint8_t byte, int32_t id) {
    v->bytes[byte] = v->bytes[byte] < 0 ? id : v->bytes[byte];
}

static du_err finish_token(du_vocab *v, int32_t id, du_vocab_alphabet alphabet, du_diag *diag) {
    du_sv text = v->texts[id];
    char *out = v->storage + v->n_stored;
    DU_CHECK(text.len <= v->n_storage - v->n_stored);
    int64_t n = -1;
    if (v->types[id] == DU_TOKEN_BYTE) {
        int32_t byte = byte_token_value(text);
        if (byte < 0) {
            return du_fail(diag, DU_EFORMAT, "token %d '%.*s' is a byte token but not '<0xXX>'", id,
                           (int)text.len, text.s);
        }
        out[0] = (char)byte;
        n = 1;
        set_byte(v, (uint8_t)byte, id);
    } else if (v->types[id] == DU_TOKEN_NORMAL) {
        n = alphabet == DU_VOCAB_SPM ? decode_spm(out, text) : decode_byte_level(out, text);
    }
    v->pieces[id] = text;
    if (n >= 0) {
        v->pieces[id] = (du_sv){out, (size_t)n};
        v->n_stored += (size_t)n;
    }
    if (alphabet == DU_VOCAB_BYTE_LEVEL && v->types[id] == DU_TOKEN_NORMAL && n == 1) {
        set_byte(v, (uint8_t)out[0], id);
    }
    return DU_OK;
}

du_err du_vocab_finish(du_vocab *v, du_vocab_alphabet alphabet, du_diag *diag) {
    for (int32_t id = 0; id < v->n; id++) {
        du_err err = DU_OK;
        if (!v->texts[id].s) {
            char pad[PAD_TEXT_BYTES];
            int len = snprintf(pad, sizeof pad, "[PAD%d]", id);
            err = du_vocab_set_twin(v, id, (du_sv){pad, (size_t)len}, DU_TOKEN_UNUSED, diag);
        }
        if (err == DU_OK) {
            err = finish_token(v, id, alphabet, diag);
        }
        if (err != DU_OK) {
            return err;
        }
    }
    return DU_OK;
}
