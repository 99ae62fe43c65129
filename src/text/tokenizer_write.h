/* A tokenizer as other programs' files say it: the keys of GGUF, and tokenizer.json. What a format
 * cannot say is refused, or named where the difference is small. */
#ifndef DU_TEXT_TOKENIZER_WRITE_H
#define DU_TEXT_TOKENIZER_WRITE_H

#include <jansson.h>

#include "text/tokenizer.h"

/* The keys tokenizer.ggml.*; ids and flags are those of du_tokenizer_get_info. */
typedef struct {
    const char *model; /* static */
    const char *pre;   /* static */
    int64_t n_tokens, n_merges;
    du_sv *tokens;  /* [n_tokens] */
    int32_t *types; /* [n_tokens] du_token_type */
    float *scores;  /* [n_tokens], NULL for "gpt2" */
    du_sv *merges;  /* [n_merges] "left right", none for "llama" */
    const char
        *lost;     /* what GGUF has no key for and is left out ("the normaliser"), NULL: nothing */
    char *storage; /* what merges and padding point to */
} du_tokenizer_tables;

/* Makes the tables for a model with n_tokens rows in its embedding: ids that tok does not have
 * become unused tokens "[PADn]". Added tokens that look like control tokens ("<|...|>") become
 * ones, as other converters write them.
 * out  free with du_tokenizer_tables_done; empty after a failure. Texts are borrowed from tok.
 * Returns DU_OK, DU_EINVAL (fewer rows than tokens), DU_EUNSUPPORTED (nothing in GGUF says what
 * this tokenizer does), DU_ENOMEM. */
DU_NODISCARD
du_err du_tokenizer_tables_make(du_tokenizer_tables *out, const du_tokenizer *tok, int64_t n_tokens,
                                du_diag *diag);
void du_tokenizer_tables_done(du_tokenizer_tables *tables);

/* The value of a tokenizer.json, and of the tokenizer_config.json beside it, to json_decref.
 * Returns DU_OK, DU_EUNSUPPORTED (passes or steps without a name), DU_ENOMEM. */
DU_NODISCARD
du_err du_tokenizer_to_json(const du_tokenizer *tok, json_t **out, du_diag *diag);
DU_NODISCARD
du_err du_tokenizer_config_to_json(const du_tokenizer *tok, json_t **out, du_diag *diag);

#endif
