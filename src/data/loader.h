/* Sequences that a model is trained on, by the number of their micro-batch: that number is all the
 * state there is, so a run that goes on later reads what it would have read.
 *
 *     du_loader_open, du_loader_batch_init
 *     for s = 0 ..: du_loader_read
 *     du_loader_batch_done, du_loader_close
 *
 * Sequences are numbered q = s * batch_seqs + b, b being the row of micro-batch s. In a file of raw
 * tokens
 *
 *   sequential  sequence q begins at token q * seq_len; behind the last token comes the first
 *   shuffled    the file has n = (its tokens - 1) / seq_len whole sequences; pass q / n over them
 *               takes them in a permutation of its own, chosen by the seed and the pass
 *
 * Shards (data/shards.h) hold n sequences, or k times as many where they were packed k times as
 * long as wanted: sequence q is number q mod n in their order, or in the permutation of pass q / n.
 * Each row tells where its document begins, and only targets that count are given.
 *
 * Without data all tokens are random, of a vocabulary whose size alone is known: to try what a run
 * takes. */
#ifndef DU_DATA_LOADER_H
#define DU_DATA_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

typedef struct {
    const char *tokens;  /* borrowed for the call: a file of little-endian numbers of tokens */
    int64_t token_bytes; /* of each of them, 2 or 4 */
    const char *shards;  /* or a folder of shards, where tokens is NULL; both NULL: no data */
    bool validation;     /* of shards: their part for validation */
    int64_t n_vocab;     /* tokens are below this */
    int64_t seq_len, batch_seqs;
    bool shuffled;
    uint64_t seed;
} du_loader_params;

typedef struct du_loader du_loader;

/* out  new handle, free with du_loader_close (takes NULL); untouched on failure
 * Returns DU_OK, DU_ENOENT, DU_EIO, DU_EFORMAT (a size that is no multiple of token_bytes),
 * DU_ELIMIT (fewer tokens than a sequence and its last target take), DU_EINVAL (shards of another
 * length or with a larger vocabulary; none of the part), DU_ENOMEM, the errors of du_shards_open.
 */
DU_NODISCARD
du_err du_loader_open(du_loader **out, const du_loader_params *params, du_diag *diag);
void du_loader_close(du_loader *loader);

int64_t du_loader_n_tokens(const du_loader *loader); /* of all sequences of a pass */

/* Tells data apart by its size and samples of its bytes, so that a run does not go on with another
 * file under the same name. */
uint64_t du_loader_checksum(const du_loader *loader);

/* A micro-batch; rows lie sequence after sequence. */
typedef struct {
    int64_t n_seq, seq_len;
    int32_t *tokens;   /* [n_seq, seq_len] */
    int32_t *targets;  /* [n_seq, seq_len] the next tokens; -1: nothing to learn here */
    int32_t *first;    /* [n_seq, seq_len] where in its sequence a row's document begins; NULL: 0 */
    int64_t n_targets; /* that are not -1 */
} du_loader_batch;

/* Memory for what du_loader_read gives, by this loader or by another one of the same kind of data
 * and shape. Returns DU_OK, DU_ELIMIT, DU_ENOMEM. */
DU_NODISCARD
du_err du_loader_batch_init(du_loader_batch *out, const du_loader *loader, du_diag *diag);
void du_loader_batch_done(du_loader_batch *batch); /* frees and empties */

/* Fills the batch with micro-batch s, from 0. Allocates nothing. Thread-safe on different batches.
 * Returns DU_OK, DU_EFORMAT (a token outside the vocabulary, a damaged shard: names file and
 * offset), DU_EIO (the file has changed since it was opened), DU_ELIMIT (s is beyond all numbers of
 * tokens). */
DU_NODISCARD
du_err du_loader_read(const du_loader *loader, int64_t s, du_loader_batch *out, du_diag *diag);

#endif
