/* Safetensors: named tensors in one file, or in shards that an index names; read in place, and
 * written as a stream. The format is described in safetensors.c. */
#ifndef DU_FORMATS_SAFETENSORS_H
#define DU_FORMATS_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "tensor/dtype.h"

/* Number types of the format. X(name in the file, bytes, type of weights or DU_DTYPE_COUNT) */
#define DU_ST_TYPE_LIST(X)                                                                         \
    X("F64", 8, DU_DTYPE_COUNT)                                                                    \
    X("F32", 4, DU_F32)                                                                            \
    X("F16", 2, DU_F16)                                                                            \
    X("BF16", 2, DU_BF16)                                                                          \
    X("F8_E4M3", 1, DU_F8_E4M3)                                                                    \
    X("F8_E5M2", 1, DU_DTYPE_COUNT)                                                                \
    X("F8_E8M0", 1, DU_DTYPE_COUNT)                                                                \
    X("I64", 8, DU_DTYPE_COUNT)                                                                    \
    X("I32", 4, DU_DTYPE_COUNT)                                                                    \
    X("I16", 2, DU_DTYPE_COUNT)                                                                    \
    X("I8", 1, DU_DTYPE_COUNT)                                                                     \
    X("U64", 8, DU_DTYPE_COUNT)                                                                    \
    X("U32", 4, DU_DTYPE_COUNT)                                                                    \
    X("U16", 2, DU_DTYPE_COUNT)                                                                    \
    X("U8", 1, DU_DTYPE_COUNT)                                                                     \
    X("BOOL", 1, DU_DTYPE_COUNT)

enum {
    DU_ST_DIMS_MAX = 8,
    DU_ST_HEADER_BYTES_MAX = 100000000, /* the format's limit */
    DU_ST_INDEX_BYTES_MAX = 100000000,
    DU_ST_NAME_BYTES_MAX = 1024, /* of a tensor */
    DU_ST_TENSORS_MAX = 1 << 20, /* per file and in all */
    DU_ST_SHARDS_MAX = 4096,
};

typedef struct {
    const char *name; /* terminated, holds no NUL */
    const char *type_name;
    du_dtype dtype; /* DU_DTYPE_COUNT: numbers that are no weights */
    size_t elem_bytes;
    int32_t n_dims;               /* 0: one number */
    int64_t dims[DU_ST_DIMS_MAX]; /* outermost first; a 0 makes the tensor empty */
    const void *data;             /* in the map; a file may leave it aligned to nothing */
    size_t n_bytes;
    int32_t i_shard;
    int64_t offset; /* of data in that file, bytes */
} du_st_tensor;

typedef struct du_st du_st;

/* Opens one file, or with a path that ends in .json an index and all its shards (beside it), and
 * maps them read-only. After DU_OK each tensor's data lies inside its file, overlapping no other,
 * with as many bytes as its shape and type need.
 * out   new handle, free with du_st_close; untouched on failure
 * diag  may be NULL; on failure the file, the place and the reason
 * Returns DU_OK, DU_ENOENT, DU_EIO, DU_EFORMAT, DU_EUNSUPPORTED (number type), DU_ELIMIT,
 * DU_ENOMEM. Thread-safe on different handles. */
DU_NODISCARD
du_err du_st_open(du_st **out, const char *path, du_diag *diag);

/* The same for one whole file in memory, borrowed until the close; what names it in messages. */
DU_NODISCARD
du_err du_st_parse(du_st **out, const void *bytes, size_t len, const char *what, du_diag *diag);

void du_st_close(du_st *st); /* takes NULL */

const char *du_st_path(const du_st *st); /* as opened */
int32_t du_st_n_shards(const du_st *st);
int64_t du_st_file_bytes(const du_st *st); /* all shards */
int64_t du_st_n_tensors(const du_st *st);
const du_st_tensor *du_st_tensor_at(const du_st *st, int64_t i); /* by shard, then by offset */
const du_st_tensor *du_st_tensor_find(const du_st *st, const char *name); /* NULL: absent */

/* Writing a model's tensors into a folder: model.safetensors, or, when they are larger than
 * shard_bytes, model-00001-of-000NN.safetensors and model.safetensors.index.json.
 *
 *     du_st_writer_new(&w, diag);
 *     du_st_put_tensor(w, "model.embed_tokens.weight", DU_BF16, 2, dims);      all of them
 *     du_st_writer_begin(w, dir, DU_ST_SHARD_BYTES, diag);
 *     while ((i = du_st_writer_next(w)) >= 0) {
 *         du_st_write(w, bytes, n);            all bytes of tensor i, in pieces
 *     }
 *     du_st_writer_commit(w, diag);
 *     du_st_writer_close(w);
 *
 * The writer chooses the order, so that every tensor is aligned to its numbers without holes. Each
 * file appears under its name when it is whole, the index last. */
#define DU_ST_SHARD_BYTES ((int64_t)5000000000)

typedef struct du_st_writer du_st_writer;

/* Returns DU_OK, DU_ENOMEM. Free with du_st_writer_close. */
DU_NODISCARD
du_err du_st_writer_new(du_st_writer **out, du_diag *diag);

/* The files are called STEM.safetensors and so on, "model" unless this says otherwise. stem is
 * borrowed until the close. */
void du_st_writer_name(du_st_writer *w, const char *stem);

/* Declares a tensor; its number is the count of those before. dtype F32, F16, BF16 or F8_E4M3.
 * Failures are sticky and told by _begin. */
void du_st_put_tensor(du_st_writer *w, const char *name, du_dtype dtype, int32_t n_dims,
                      const int64_t *dims);

/* Returns DU_OK, DU_EINVAL (a declaration that is no safetensors: type, name, shape), DU_EIO,
 * DU_ELIMIT, DU_ENOMEM. dir exists and is borrowed for the call. */
DU_NODISCARD
du_err du_st_writer_begin(du_st_writer *w, const char *dir, int64_t shard_bytes, du_diag *diag);

/* The number of the tensor whose bytes come next; -1 when all were given or writing failed. The
 * tensor before must be whole. */
int64_t du_st_writer_next(du_st_writer *w);
void du_st_write(du_st_writer *w, const void *bytes, size_t n);

/* Returns DU_OK, DU_EINVAL (bytes missing), DU_EIO, DU_ENOMEM: also those of any earlier step. */
DU_NODISCARD
du_err du_st_writer_commit(du_st_writer *w, du_diag *diag);
void du_st_writer_close(du_st_writer *w); /* takes NULL; an unfinished file does not remain */

#endif
