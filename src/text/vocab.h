/* The token table of a tokenizer: texts, the bytes they stand for, types, scores. */
#ifndef DU_TEXT_VOCAB_H
#define DU_TEXT_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/str.h"
#include "text/tokenizer.h"

enum {
    DU_VOCAB_TOKENS_MAX = 1 << 24,
    DU_VOCAB_TOKEN_BYTES_MAX = 1 << 16, /* of one token's text */
    DU_VOCAB_MERGES_MAX = 1 << 24,
};

/* A hash table from byte strings to their index in an array that the caller holds. */
typedef struct {
    struct du_textmap_slot *slots;
    size_t n_slots; /* a power of two, 0 before _init */
} du_textmap;

/* Room for n strings. Returns false when memory is short. */
DU_NODISCARD
bool du_textmap_init(du_textmap *map, size_t n);
void du_textmap_done(du_textmap *map);

/* Enters keys[i] and returns -1; or, when an equal key is there, changes nothing and returns its
 * index. At most n entries. */
int32_t du_textmap_add(du_textmap *map, const du_sv *keys, int32_t i);
int32_t du_textmap_find(const du_textmap *map, const du_sv *keys, du_sv key); /* -1: absent */

/* A 64-bit hash, all of whose bits may be used. */
static inline uint64_t du_text_hash(const char *s, size_t len) {
    uint64_t h = 0x9e3779b97f4a7c15 ^ len, word = 0;
    for (; len > 8; s += 8, len -= 8) {
        memcpy(&word, s, sizeof word);
        h = (h ^ word) * 0xff51afd7ed558ccd;
        h ^= h >> 32;
    }
    if (len >= 4) { /* two loads that overlap: shorter than a copy of len bytes */
        uint32_t first, last;
        memcpy(&first, s, sizeof first);
        memcpy(&last, s + len - sizeof last, sizeof last);
        word = (uint64_t)first << 32 | last;
    } else if (len) {
        word = (uint64_t)(uint8_t)s[0] << 16 | (uint64_t)(uint8_t)s[len / 2] << 8 |
               (uint8_t)s[len - 1];
    }
    h = (h ^ word) * 0xff51afd7ed558ccd;
    h = (h ^ (h >> 32)) * 0xc4ceb9fe1a85ec53;
    return h ^ (h >> 29);
}

typedef struct {
    int32_t n;          /* ids are 0 .. n-1 */
    du_sv *texts;       /* [n] own text, as the file has it */
    du_sv *pieces;      /* [n] the bytes the token stands for */
    uint8_t *types;     /* [n] du_token_type */
    float *scores;      /* [n] NULL where the file has none */
    bool *eog;          /* [n] ends generation */
    du_textmap ids;     /* texts to ids */
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
