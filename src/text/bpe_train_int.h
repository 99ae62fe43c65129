/* What counting words (bpe_count.c), joining pairs (bpe_join.c) and making the tokenizer
 * (bpe_train.c) share. */
#ifndef DU_TEXT_BPE_TRAIN_INT_H
#define DU_TEXT_BPE_TRAIN_INT_H

#include "base/mem.h"
#include "text/bpe_train.h"
#include "text/pretok.h"
#include "text/word_table_int.h"

/* The counted words lie in several tables, by a hash of their bytes, so that threads can join what
 * they have counted. */
enum { DU_BPE_TABLES = 64 };

struct du_bpe_counter {
    const du_pretok *pretok;
    du_pretok_work *work;
    du_word_table tables[DU_BPE_TABLES];
    int64_t n_bytes, n_words, n_long_bytes;
};

struct du_bpe_trainer {
    du_bpe_train_params params;
    du_pool *pool;
    du_pretok *pretok;
    const du_pretok_rule *rule;
    du_bpe_counter **counters; /* [n_counters] one per thread */
    int64_t n_counters;
    du_word_table tables[DU_BPE_TABLES]; /* all rounds together */
    du_bpe_train_stats stats;
};

typedef struct {
    int32_t left, right;
} du_bpe_parts;

/* The tokens that were found. */
typedef struct {
    du_arena *arena;     /* what texts lie in */
    du_sv *texts;        /* [n] in GPT-2's alphabet, special ones as they are */
    du_bpe_parts *parts; /* [n] of those behind special tokens and bytes */
    int32_t n;
    int64_t n_in_words; /* how many the words of two bytes and more are, all together */
} du_bpe_tokens;

void du_bpe_tokens_done(du_bpe_tokens *t);

/* Joins pairs until there are params->n_vocab tokens or no pair is left. Empties the tables.
 * out  free with du_bpe_tokens_done, also after a failure; special texts are borrowed from params
 * Returns DU_OK, DU_ECANCELLED, DU_ENOMEM. */
DU_NODISCARD
du_err du_bpe_join(du_bpe_tokens *out, const du_bpe_train_params *params, du_word_table *tables,
                   du_bpe_watch_fn *watch, void *arg, du_diag *diag);

#endif
