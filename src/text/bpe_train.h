/* Training of a byte-level BPE tokenizer (Gage 1994; Sennrich et al. 2016).
 *
 * The texts are cut into words by a pre-tokenizer rule, and each different word is counted. It
 * starts as the tokens of its bytes. Then, until the vocabulary is full, the pair of neighbouring
 * tokens that occurs most often in all words together becomes a token:
 *
 *   - of pairs that occur equally often the one whose left token has the lower id, then the one
 *     whose right token has; this is the order of the reference library, huggingface/tokenizers
 *   - in a word from the left: aaa becomes (aa) a, and counts as two pairs before
 *   - a pair that occurs once is none, and neither is one whose text is a token already
 *
 * Ids: the special tokens in their order, the 256 bytes by their characters in GPT-2's alphabet,
 * then the pairs in the order in which they were found. The result depends on the texts alone: not
 * on threads, nor on the order of the texts unless words had to be forgotten. That happens when
 * there are more than DU_BPE_WORDS_MAX different ones behind a round: those that occur least often
 * go until half as many are left, so that memory stays bounded. */
#ifndef DU_TEXT_BPE_TRAIN_H
#define DU_TEXT_BPE_TRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/pool.h"
#include "base/str.h"
#include "text/tokenizer.h"

enum {
    DU_BPE_WORDS_MAX = 1 << 22,   /* different ones, some 150 bytes each */
    DU_BPE_WORD_BYTES_MAX = 1024, /* longer ones are no words and left out */
    DU_BPE_COUNT_MIN = 2          /* of a pair */
};

typedef struct {
    int32_t n_vocab;      /* tokens in all, at least n_special + 256 */
    const char *rule;     /* how texts are cut: a name that du_pretok_from_rule knows */
    const du_sv *special; /* [n_special] texts of the special tokens, each once */
    int32_t n_special;
    int32_t n_visible;     /* the last ones of them: found in every text, and print as their text */
    int32_t bos, eos, pad; /* which of them they are, -1: none */
    bool add_bos;          /* the tokenizer asks for BOS at the start of a text */
    int64_t words_max;     /* 0: DU_BPE_WORDS_MAX */
} du_bpe_train_params;

typedef struct {
    int64_t n_bytes;      /* of all texts */
    int64_t n_words;      /* in them */
    int64_t n_different;  /* of these, when counting ended */
    int64_t n_long_bytes; /* in words that were left out because they are too long */
    int64_t n_forgotten;  /* words that were forgotten, told again each time they came back */
    int64_t n_merges;
    int64_t n_tokens; /* that the words which were counted make, long and forgotten ones aside */
    int64_t n_token_bytes; /* bytes of the same words */
} du_bpe_train_stats;

typedef struct du_bpe_trainer du_bpe_trainer;

/* params are copied, but for the rule and the special tokens, which are borrowed until the free.
 * pool  borrowed; NULL: this thread
 * out   free with du_bpe_trainer_free (takes NULL); untouched on failure
 * Returns DU_OK, DU_EUNSUPPORTED (a rule that is not known), DU_EINVAL (a special token that is
 * empty, there twice, too long, no UTF-8 or the character of a byte; too small a vocabulary),
 * DU_ELIMIT, DU_ENOMEM. */
DU_NODISCARD
du_err du_bpe_trainer_new(du_bpe_trainer **out, const du_bpe_train_params *params, du_pool *pool,
                          du_diag *diag);
void du_bpe_trainer_free(du_bpe_trainer *trainer);

/* Where a thread counts. */
typedef struct du_bpe_counter du_bpe_counter;

/* Gives the i-th group of texts of a round to the counter, by du_bpe_count. */
typedef du_err du_bpe_texts_fn(void *arg, int64_t i, du_bpe_counter *counter, du_diag *diag);

/* Counts a round: n groups of texts, several threads at a time. Returns what the first group that
 * failed returned; DU_ENOMEM. */
DU_NODISCARD
du_err du_bpe_trainer_count(du_bpe_trainer *trainer, int64_t n, du_bpe_texts_fn *texts, void *arg,
                            du_diag *diag);

/* Counts the words of one text. Returns DU_OK, DU_ELIMIT (a regular expression gave up),
 * DU_ENOMEM. */
DU_NODISCARD
du_err du_bpe_count(du_bpe_counter *counter, du_sv text, du_diag *diag);

/* Tells how many tokens there are; true stops. */
typedef bool du_bpe_watch_fn(void *arg, int64_t n_tokens);

/* Finds the tokens, once, and makes the tokenizer, which has fewer of them than were asked for when
 * no pair is left. The counts are used up.
 * watch  may be NULL
 * Returns DU_OK, DU_ECANCELLED, DU_ENOMEM. */
DU_NODISCARD
du_err du_bpe_trainer_run(du_bpe_trainer *trainer, du_bpe_watch_fn *watch, void *arg,
                          du_tokenizer **out, du_diag *diag);

du_bpe_train_stats du_bpe_trainer_stats(const du_bpe_trainer *trainer);

#endif
