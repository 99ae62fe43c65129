/* What a tokenizer is made of: filled by tokenizer_gguf.c and tokenizer_json.c, used by
 * tokenizer.c, encode.c, detok.c and tokenizer_write.c. */
#ifndef DU_TEXT_TOKENIZER_INT_H
#define DU_TEXT_TOKENIZER_INT_H

#include <pthread.h>

#include "text/added.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pretok.h"
#include "text/spm.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

/* How a piece becomes symbols, and what joins them. */
typedef enum {
    DU_TOKENIZE_BYTES, /* byte-level BPE: a symbol per byte; merges */
    DU_TOKENIZE_CHARS, /* BPE over characters, with bytes for those without a token; merges */
    DU_TOKENIZE_SPM    /* the same; scores */
} du_tokenize_kind;

typedef struct {
    int32_t left, right, merged; /* left -1: overruled by another merge of the same pair */
} du_merge;

/* Working memories of du_tokenizer_encode, each kept for the next call. */
typedef struct {
    pthread_mutex_t lock; /* guards idle */
    struct du_encode_work *idle;
} du_work_pool;

du_work_pool *du_work_pool_new(void);       /* NULL when memory is short */
void du_work_pool_free(du_work_pool *pool); /* takes NULL */

struct du_tokenizer {
    du_tokenizer_info info;
    du_tokenize_kind kind;
    du_vocab vocab;
    const du_pretok_rule *rule; /* the named rule that pretok is, NULL: none */
    du_pretok *pretok;
    du_bpe bpe;
    du_merge *merges; /* [n_merges] by rank; none for DU_TOKENIZE_SPM */
    size_t n_merges;
    du_spm spm;
    du_added_set added;            /* found in the text as it is */
    du_added_set added_normalized; /* found in normalised text */
    du_normalizer normalizer;      /* of what lies between added tokens */
    du_normalizer edits;           /* what the pre-tokenizer changes before it splits */
    du_hash whole;                 /* pieces to ids, for ignore_merges; empty: merges decide */
    bool ignore_merges;
    bool prefix_after_added; /* SentencePiece in GGUF: the blank goes before a text at the start and
                              * after an added token */
    int32_t unk;             /* what stands for text without a token, -1: nothing */
    bool fuse_unk;           /* neighbours without a token make one unknown token */
    bool cut_at_blank;       /* no token goes across the start of a run of U+2581 */
    bool strip_start;        /* decoding takes one blank from the start of a text */
    bool has_normalizer;     /* tokenizer.json rewrites text in a way that GGUF has no key for */
    du_work_pool *pool;
};

/* A tokenizer without tokens; the rest is for the loader. NULL when memory is short. */
du_tokenizer *du_tokenizer_new(void);

/* Memory for n merges, to be entered in order. Returns DU_OK, DU_ELIMIT, DU_ENOMEM. */
DU_NODISCARD
du_err du_tokenizer_begin_merges(du_tokenizer *tok, size_t n, du_diag *diag);

/* What both loaders end with: derives whole, cut_at_blank, eog and the ids that go by name. The
 * vocabulary is finished, merges entered. Returns DU_OK, DU_EFORMAT, DU_ENOMEM. */
DU_NODISCARD
du_err du_tokenizer_finish(du_tokenizer *tok, du_diag *diag);

/* Enters merge `rank`, the texts of whose parts are given; what they make must be a token.
 * replace: it overrules an earlier merge of the same pair instead of being overruled.
 * Returns DU_OK, DU_EFORMAT. */
DU_NODISCARD
du_err du_tokenizer_add_merge(du_tokenizer *tok, size_t rank, du_sv left, du_sv right, bool replace,
                              du_str *tmp, du_diag *diag);

/* The ids of one piece, by merges alone: ignore_merges and the cache are left out of it. */
DU_NODISCARD
du_err du_encode_merged(const du_tokenizer *tok, du_merge_work *work, du_sv piece, du_ids *out,
                        du_diag *diag);

#endif
