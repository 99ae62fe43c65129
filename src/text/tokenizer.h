/* Tokenizers: text to token ids and back.
 *
 * One opaque handle for byte-level BPE and SentencePiece-style BPE, loaded from the keys of a GGUF
 * file or from a Hugging Face directory. A loaded tokenizer does not change: every function that
 * takes it const may be called from several threads at once.
 *
 * Text is bytes. What is not valid UTF-8 is tokenised byte by byte and comes back byte for byte, as
 * long as the vocabulary has a token for the byte; a byte without one becomes the unknown token, or
 * is left out when there is none. */
#ifndef DU_TEXT_TOKENIZER_H
#define DU_TEXT_TOKENIZER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

typedef struct du_tokenizer du_tokenizer;
typedef struct du_gguf du_gguf; /* formats/gguf.h */

/* The numbers are those of tokenizer.ggml.token_type. */
typedef enum {
    DU_TOKEN_NORMAL = 1,
    DU_TOKEN_UNKNOWN = 2,
    DU_TOKEN_CONTROL = 3,      /* found in text only on request, prints as nothing */
    DU_TOKEN_USER_DEFINED = 4, /* found in text always, prints as its text */
    DU_TOKEN_UNUSED = 5,       /* an id without a token; never produced */
    DU_TOKEN_BYTE = 6          /* <0xXX> of SentencePiece vocabularies */
} du_token_type;

/* What is known of a tokenizer as a whole. An id is -1 where there is none. */
typedef struct {
    const char
        *model;      /* tokenizer.ggml.model: "gpt2" (byte-level BPE) or "llama" (SentencePiece) */
    const char *pre; /* tokenizer.ggml.pre: the named pre-tokenizer rule, NULL when it has none */
    int32_t n_vocab; /* ids are 0 .. n_vocab-1 */
    int32_t bos, eos, eot, eom, pad, unk;
    int32_t fim_prefix, fim_suffix, fim_middle;
    bool add_bos, add_eos;
    bool add_space_prefix; /* SentencePiece: a blank goes before the text */
} du_tokenizer_info;

/* Loads from the keys tokenizer.ggml.* of an open GGUF file, which may be closed afterwards.
 * out   free with du_tokenizer_free; untouched on failure
 * diag  may be NULL; on failure the key and the reason
 * Returns DU_OK, DU_EFORMAT, DU_EUNSUPPORTED (a model or pre-tokenizer rule that is not known),
 * DU_ELIMIT, DU_ENOMEM. */
DU_NODISCARD
du_err du_tokenizer_from_gguf(du_tokenizer **out, const du_gguf *gguf, du_diag *diag);

/* Loads DIR/tokenizer.json and, where it exists, DIR/tokenizer_config.json. Errors as above, their
 * messages beginning with the file; DU_ENOENT when there is no tokenizer.json. */
DU_NODISCARD
du_err du_tokenizer_from_dir(du_tokenizer **out, const char *dir, du_diag *diag);

/* Loads from parsed JSON: the value of a tokenizer.json and of its tokenizer_config.json (NULL when
 * there is none); both are borrowed for the call. Messages name the place ("model.merges[3]"). */
DU_NODISCARD
du_err du_tokenizer_from_json(du_tokenizer **out, const json_t *json, const json_t *config,
                              du_diag *diag);

void du_tokenizer_free(du_tokenizer *tok);

const du_tokenizer_info *du_tokenizer_get_info(const du_tokenizer *tok);

/* The token's own text, as the vocabulary writes it (byte-level BPE: in the GPT-2 byte alphabet).
 * Borrowed from tok; empty for an id outside the vocabulary. */
du_sv du_tokenizer_text(const du_tokenizer *tok, int32_t id);
du_token_type du_tokenizer_type(const du_tokenizer *tok, int32_t id);

/* The id whose own text this is, -1 when there is none. */
int32_t du_tokenizer_find(const du_tokenizer *tok, du_sv text);

/* Whether generation ends with this token: eos, eot, eom, added tokens with the name of one
 * ("<|im_end|>", "<|eot_id|>", ...), and what du_tokenizer_add_eog named. */
bool du_tokenizer_is_eog(const du_tokenizer *tok, int32_t id);

/* Declares another end of generation (generation_config.json may list several). Not while other
 * threads use tok. An id outside the vocabulary changes nothing. */
void du_tokenizer_add_eog(du_tokenizer *tok, int32_t id);

/* A growing list of token ids. Start from {0}. */
typedef struct {
    int32_t *ids;
    size_t n, cap;
} du_ids;

void du_ids_done(du_ids *list); /* frees and empties */
DU_NODISCARD
bool du_ids_add(du_ids *list, int32_t id); /* false: memory is short, list unchanged */

enum {
    DU_ENCODE_SPECIAL = 1 /* control tokens in the text are tokens, not letters (templates) */
};

/* Appends the ids of text to out; no BOS, no EOS. Added tokens are found first: the leftmost, of
 * several there the longest.
 * Returns DU_OK, DU_ENOMEM, DU_ELIMIT (a regular expression gave up, or more than 1 GiB of text);
 * on failure out is as it was. */
DU_NODISCARD
du_err du_tokenizer_encode(const du_tokenizer *tok, du_sv text, unsigned flags, du_ids *out,
                           du_diag *diag);

/* As du_tokenizer_encode for the start of a sequence: BOS comes first, exactly once, when the
 * tokenizer asks for it (info.add_bos), also where the text itself begins with it. */
DU_NODISCARD
du_err du_tokenizer_encode_prompt(const du_tokenizer *tok, du_sv text, unsigned flags, du_ids *out,
                                  du_diag *diag);

enum {
    DU_DECODE_SPECIAL = 1, /* control tokens print as their text */
    DU_DECODE_REPLACE = 2, /* du_detok: what is not UTF-8 becomes U+FFFD */
    DU_DECODE_START = 4    /* du_detok: the first token begins the text, so that the blank of
                            * add_space_prefix is taken away again */
};

/* The bytes a token stands for, borrowed from tok; empty for an id outside the vocabulary. They
 * need not be whole characters: du_detok joins them. flags: DU_DECODE_SPECIAL. */
du_sv du_tokenizer_piece(const du_tokenizer *tok, int32_t id, unsigned flags);

/* A detokenizer for streaming: gives out whole characters, and holds back the first bytes of one
 * that is not complete yet. Allocates nothing but what `out` grows by. */
typedef struct {
    const du_tokenizer *tok;
    unsigned flags;
    bool at_start;   /* nothing given out yet */
    uint8_t n_held;  /* bytes of an incomplete character */
    uint8_t held[4]; /* those bytes */
} du_detok;

void du_detok_init(du_detok *d, const du_tokenizer *tok, unsigned flags);

/* Appends what the token completes; `out->failed` tells of short memory. */
void du_detok_push(du_detok *d, int32_t id, du_str *out);

/* Appends what is still held (as it is, or U+FFFD), and starts anew. */
void du_detok_flush(du_detok *d, du_str *out);

#endif
