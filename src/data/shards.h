/* Shards: files of packed sequences, each of as many tokens, in a folder with an index. They are
 * what `dure data pack` leaves for `dure train`, made anew with each of the two programs' versions
 * if need be, and no format to exchange data in. Their bytes: docs/design/data.md.
 *
 * A sequence is seq_len + 1 tokens, the last of which is only a target, with two marks each. */
#ifndef DU_DATA_SHARDS_H
#define DU_DATA_SHARDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum {
    DU_MARK_BEGINS = 1, /* a document, or the part of one that lies here, begins with this token */
    DU_MARK_COUNTS = 2, /* the token before it learns to predict it */
    DU_SHARDS_SEQ_LEN_MAX = 1 << 20
};

/* The two parts of a folder: what is trained on, and what is only looked at. */
typedef enum { DU_SHARDS_TRAIN, DU_SHARDS_VALIDATION, DU_SHARDS_PARTS } du_shards_part;

typedef struct {
    int64_t seq_len;     /* at most DU_SHARDS_SEQ_LEN_MAX */
    int64_t n_vocab;     /* tokens are below; decides whether they take 2 or 4 bytes */
    int64_t shard_bytes; /* a shard that has reached this size is the last sequence's */
} du_shards_params;

/* ---- writing ----------------------------------------------------------------------------------
 */

typedef struct du_shards_writer du_shards_writer;

/* Makes the folder where there is none. Nothing in it is a set of shards before
 * du_shards_writer_commit.
 * dir  borrowed for the call
 * out  free with du_shards_writer_close (takes NULL), which removes what has not been committed
 * Returns DU_OK, DU_EEXIST (the folder holds an index), DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_shards_writer_open(du_shards_writer **out, const char *dir,
                             const du_shards_params *params, du_diag *diag);

/* Appends a sequence to a part.
 * tokens, marks  [seq_len + 1]
 * Returns DU_OK, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_shards_write(du_shards_writer *w, du_shards_part part, const int32_t *tokens,
                       const uint8_t *marks, du_diag *diag);

/* Finishes the files, the index last. about: an object of what people may want to know of the set,
 * borrowed; kept in the index, read by nothing. Returns DU_OK, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_shards_writer_commit(du_shards_writer *w, const json_t *about, du_diag *diag);
void du_shards_writer_close(du_shards_writer *w);

/* ---- reading ----------------------------------------------------------------------------------
 */

typedef struct du_shards du_shards;

/* Maps the shards of a part.
 * out  free with du_shards_close (takes NULL); untouched on failure
 * Returns DU_OK, DU_ENOENT, DU_EIO, DU_EFORMAT (damaged or cut off), DU_EUNSUPPORTED (another
 * version), DU_ELIMIT, DU_ENOMEM. */
DU_NODISCARD
du_err du_shards_open(du_shards **out, const char *dir, du_shards_part part, du_diag *diag);
void du_shards_close(du_shards *shards);

int64_t du_shards_n_seqs(const du_shards *shards); /* of the part; may be 0 */
int64_t du_shards_seq_len(const du_shards *shards);
int64_t du_shards_n_vocab(const du_shards *shards);
uint64_t du_shards_checksum(const du_shards *shards); /* of all sequences, as the index tells it */

/* Rows of a sequence, as a model learns from them. */
typedef struct {
    int32_t *tokens;   /* [n] */
    int32_t *targets;  /* [n] the next tokens; -1: nothing to learn here */
    int32_t *first;    /* [n] where among these rows a row's document begins */
    int64_t n_targets; /* that are not -1 */
} du_shards_rows;

/* Reads rows [from, from + n) of sequence i, within seq_len. Allocates nothing; thread-safe.
 * Returns DU_OK, DU_EFORMAT (its bytes are not those that were written), DU_EIO (the file has
 * changed since it was opened). */
DU_NODISCARD
du_err du_shards_read(const du_shards *shards, int64_t i, int64_t from, int64_t n,
                      du_shards_rows *out, du_diag *diag);

#endif
