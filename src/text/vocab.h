/* The token table of a tokenizer: texts, the bytes they stand for, types, scores. */
#ifndef DU_TEXT_VOCAB_H
#define DU_TEXT_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/str.h"
#include "text/tokenizer.h"

enum {
    DU_VOCAB_TOKENS_MAX = 1 << 24,
    DU_VOCAB_TOKEN_BYTES_MAX = 1 << 16, /* of one token's text */
    DU_VOCAB_MERGES_MAX = 1 << 24,
};

typedef struct {
    int32_t n;          /* ids are 0 .. n-1 */
    du_sv *texts;       /* [n] own text, as the file has it */
    du_sv *pieces;      /* [n] the bytes the token stands for */
    uint8_t *types;     /* [n] du_token_type */
    float *scores;      /* [n] NULL where the file has none */
    bool *eog;          /* [n] ends generation */
    du_hash ids;        /* texts to ids */
    int32_t bytes[256]; /* the token of a single byte, -1: none */
    char *storage;      /* what texts and pieces point to */
    size_t n_storage, n_stored;
} du_vocab;

/* Makes a table of n unused, empty tokens with room for text_bytes of texts. Free with _done. */
DU_NODISCARD
du_err du_vocab_init(du_vocab *v, int32_t n, size_t text_bytes, du_diag *diag);
void du_vocab_done(du_vocab *v); /* also of a zeroed one */

/* Gives the id its text (copied) and type. Returns DU_OK, DU_EFORMAT (an id given twice, a text
 * that another id has, an empty one), DU_ELIMIT. */
DU_NODISCARD
du_err du_vocab_set(du_vocab *v, int32_t id, du_sv text, du_token_type type, du_diag *diag);

/* The same for files that give several ids one text: the first is found by it, the others are
 * twins, which are only ever decoded. Returns DU_OK, DU_EFORMAT (an id given twice, an empty text),
 * DU_ELIMIT. */
DU_NODISCARD
du_err du_vocab_set_twin(du_vocab *v, int32_t id, du_sv text, du_token_type type, du_diag *diag);

int32_t du_vocab_find(const du_vocab *v, du_sv text); /* -1: absent */

/* Whether the text of id finds another. */
bool du_vocab_is_twin(const du_vocab *v, int32_t id);

/* How texts stand for bytes. */
typedef enum {
    DU_VOCAB_BYTE_LEVEL, /* normal tokens in the GPT-2 byte alphabet */
    DU_VOCAB_SPM         /* U+2581 for a blank, <0xXX> for a byte */
} du_vocab_alphabet;

/* Fills pieces and bytes, once all texts are set. Ids without a token become unused ones named
 * "[PADn]". Returns DU_OK, DU_EFORMAT, DU_ENOMEM. */
DU_NODISCARD
du_err du_vocab_finish(du_vocab *v, du_vocab_alphabet alphabet, du_diag *diag);

/* The character that stands for a byte in GPT-2's alphabet: printable ones for themselves, the rest
 * from U+0100 on. */
int32_t du_byte_level_char(uint8_t byte);

#endif
