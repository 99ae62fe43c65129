/* The layout of shards, for what writes and what reads them (docs/design/data.md).
 *
 *     0   8 bytes  "duredata"
 *     8   u32      version
 *     12  u32      bytes of a token: 2 or 4
 *     16  u64      tokens of a sequence, seq_len
 *     24  u64      sequences in this file
 *     32  u64      number of the first of them in its part
 *     40  u64      tokens are below this
 *     48  u64      the part's checksum up to here: of the checksums of its sequences from the
 *                  first to this file's last; in the index too, so that a file of another
 *                  set is told
 *     56  u64      checksum of the bytes before
 *     64           sequences, each of
 *                    seq_len + 1 tokens
 *                    a bit per token, the lowest first: a document begins here
 *                    a bit per token: it counts
 *                    zeros up to a multiple of 8 bytes
 *                    u64 checksum of the bytes before, begun with the number in its part
 *
 * Numbers are little-endian. */
#ifndef DU_DATA_SHARDS_INT_H
#define DU_DATA_SHARDS_INT_H

#include "data/shards.h"

#define DU_SHARDS_MAGIC   "duredata"
#define DU_SHARDS_VERSION 2
#define DU_SHARDS_FORMAT  "dure shards" /* "format" in the index */
#define DU_SHARDS_INDEX   "index.json"

enum { DU_SHARDS_HEADER_BYTES = 64 };

/* Names of the parts, in the index and of the files. */
extern const char *const du_shards_part_names[DU_SHARDS_PARTS];

typedef struct {
    int64_t seq_len, token_bytes;
    int64_t bits_at, counts_at; /* bytes from a sequence's beginning to its two rows of bits */
    int64_t sum_at, bytes;      /* to its checksum; of all of it */
} du_shards_layout;

/* seq_len in [1, DU_SHARDS_SEQ_LEN_MAX]. */
du_shards_layout du_shards_layout_of(int64_t seq_len, int64_t token_bytes);

typedef struct {
    uint32_t version, token_bytes;
    uint64_t seq_len, n_seqs, first, n_vocab, checksum;
} du_shards_header;

void du_shards_header_write(uint8_t out[DU_SHARDS_HEADER_BYTES], const du_shards_header *header);

/* "train-00003.bin"; name [32] out. */
void du_shards_name(char *name, du_shards_part part, int64_t i);

#endif
