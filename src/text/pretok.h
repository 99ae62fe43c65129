/* Pre-tokenizers: rules that cut a text into the pieces that are tokenised one by one.
 *
 * A rule is a list of passes. Each pass is a regular expression and cuts every piece of the pass
 * before on its own: look-around sees the piece and nothing beside it. A piece that is not UTF-8
 * is cut at the bytes that are not; those make pieces that no pass touches. */
#ifndef DU_TEXT_PRETOK_H
#define DU_TEXT_PRETOK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

/* What becomes of the matches (and with `invert` of what is between them). X(code, name) with the
 * names of tokenizer.json. */
#define DU_SPLIT_LIST(X)                                                                           \
    X(DU_SPLIT_ISOLATED, "Isolated")           /* a piece each, and what is between them */        \
    X(DU_SPLIT_REMOVED, "Removed")             /* left out */                                      \
    X(DU_SPLIT_PREVIOUS, "MergedWithPrevious") /* the end of the piece before */                   \
    X(DU_SPLIT_NEXT, "MergedWithNext")         /* the start of the piece behind */                 \
    X(DU_SPLIT_CONTIGUOUS, "Contiguous")       /* neighbours become one piece */

#define DU_SPLIT_ENUM(code, name) code,
typedef enum { DU_SPLIT_LIST(DU_SPLIT_ENUM) DU_SPLIT_COUNT } du_split;
#undef DU_SPLIT_ENUM

enum { DU_PRETOK_PASSES_MAX = 16 };

typedef struct du_pretok du_pretok;

/* Makes a rule without passes (the text is one piece). Free with du_pretok_free (takes NULL). */
DU_NODISCARD
du_err du_pretok_new(du_pretok **out, du_diag *diag);
void du_pretok_free(du_pretok *p);

/* Adds a pass behind the others.
 * pattern  a regular expression in Oniguruma's syntax (text/pattern.h), or a text when `literal`
 * Returns DU_OK, DU_EFORMAT, DU_EUNSUPPORTED, DU_ELIMIT, DU_ENOMEM. */
DU_NODISCARD
du_err du_pretok_add(du_pretok *p, du_sv pattern, bool literal, du_split split, bool invert,
                     du_diag *diag);

/* A rule that GGUF names in tokenizer.ggml.pre. */
typedef struct {
    const char *name;
    bool ignore_merges; /* a piece that is itself a token is taken whole */
    bool add_bos;       /* where tokenizer.ggml.add_bos_token is absent */
} du_pretok_rule;

/* Makes the rule of that name or synonym. *rule, which may be NULL, is static.
 * Returns DU_OK, DU_EUNSUPPORTED (naming it and those known), DU_ENOMEM. */
DU_NODISCARD
du_err du_pretok_from_rule(du_pretok **out, const du_pretok_rule **rule, du_sv name, du_diag *diag);

/* Whether the passes are these regular expressions, all Isolated. Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_pretok_is(const du_pretok *p, const char *const *patterns, size_t n, bool *is,
                    du_diag *diag);

/* The named rule whose passes these are into *rule, NULL when there is none.
 * Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_pretok_find_rule(const du_pretok *p, const du_pretok_rule **rule, du_diag *diag);

/* The regular expressions of a named rule, one per pass, all Isolated; *n of them, static. NULL
 * when the name is not known. */
const char *const *du_pretok_rule_patterns(const char *name, size_t *n);

/* What GPT-2's byte-level pre-tokenizer splits by. */
extern const char *const du_pretok_gpt2_pattern;

/* Working memory of one thread at a time. */
typedef struct du_pretok_work du_pretok_work;
DU_NODISCARD
du_err du_pretok_work_new(du_pretok_work **out, const du_pretok *p, du_diag *diag);
void du_pretok_work_free(du_pretok_work *work);

/* Takes the pieces in their order; what it returns, when not DU_OK, ends the splitting. */
typedef du_err du_piece_fn(void *arg, du_sv piece);

/* Cuts text and hands each piece, none of them empty, to fn.
 * Returns what fn returned; DU_ELIMIT (a regular expression gave up), DU_ENOMEM. */
DU_NODISCARD
du_err du_pretok_split(const du_pretok *p, du_pretok_work *work, du_sv text, du_piece_fn *fn,
                       void *arg, du_diag *diag);

#endif
