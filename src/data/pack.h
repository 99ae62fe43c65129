/* From documents to shards: read, turned into tokens, mixed, shuffled, packed; in one pass and in
 * memory that the size of the data does not change. The bytes that come out depend on the documents
 * and the parameters, not on the number of threads. */
#ifndef DU_DATA_PACK_H
#define DU_DATA_PACK_H

#include "base/pool.h"
#include "data/example.h"
#include "data/shards.h"

/* Files that are read one after the other. */
typedef struct {
    const char *const *paths; /* [n_paths] borrowed */
    int64_t n_paths;
    double weight; /* its share of the tokens, beside those of the other sources */
} du_pack_source;

typedef struct {
    const du_pack_source *sources; /* [n_sources] borrowed */
    int64_t n_sources;
    du_docs_form form;
    const char *separator; /* du_docs_params */
    du_example_params example;
    const char *out; /* the folder */
    int64_t seq_len;
    int64_t n_tokens;      /* to stop at, sources that end before beginning anew; 0: until the first
                              source ends */
    int64_t shuffle_bytes; /* the window's, 0: the order of the documents */
    uint64_t seed;
    double validation; /* share of the documents, chosen by a hash of their text, that goes to the
                          validation part */
    int64_t shard_bytes;
} du_pack_params;

typedef struct {
    int64_t n_documents; /* packed ones, each time they came */
    int64_t n_tokens;    /* of them */
    int64_t n_passes;    /* over its files, begun ones too */
} du_pack_source_stats;

typedef struct {
    int64_t n_documents, n_tokens; /* packed */
    int64_t n_seqs, n_learned;     /* sequences; targets in them that count */
    int64_t n_fill;                /* rows without a document */
} du_pack_part_stats;

typedef struct {
    du_pack_part_stats parts[DU_SHARDS_PARTS];
    int64_t n_long;  /* prompts and chats left out because they are longer than a sequence */
    int64_t n_empty; /* documents left out because nothing in them counts */
} du_pack_stats;

/* Told of progress: bytes of files read and in all. true: stop. */
typedef bool du_pack_watch_fn(void *arg, int64_t done, int64_t total);

/* pool     borrowed, NULL: this thread
 * fn       called for each batch of texts and each sequence; may be NULL
 * stats    out; sources [n_sources] out
 * Returns DU_OK, DU_ECANCELLED, DU_EINVAL (nothing to train on; a source of a mixture without
 * documents), DU_EUNSUPPORTED (a tokenizer without EOS), the errors of docs.h, example.h and
 * shards.h. After a failure the folder is as it was. */
DU_NODISCARD
du_err du_pack(const du_pack_params *params, du_pool *pool, du_pack_watch_fn *fn, void *arg,
               du_pack_stats *stats, du_pack_source_stats *sources, du_diag *diag);

#endif
