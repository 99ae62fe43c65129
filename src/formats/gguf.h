/* GGUF files, version 2 and 3: keys with values, and named tensors, read in place.
 *
 * A model split over files NAME-00001-of-000NN.gguf is opened through any of its parts and seen as
 * one: the keys are those of the first part, the tensors those of all. Nothing here knows what a
 * key means to a model. The format is described in gguf.c. */
#ifndef DU_FORMATS_GGUF_H
#define DU_FORMATS_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "tensor/dtype.h"

/* Value types with the format's numbers. X(code, name, bytes of one value; 0: of varying size) */
#define DU_GGUF_TYPE_LIST(X)                                                                       \
    X(DU_GGUF_U8, "u8", 1)                                                                         \
    X(DU_GGUF_I8, "i8", 1)                                                                         \
    X(DU_GGUF_U16, "u16", 2)                                                                       \
    X(DU_GGUF_I16, "i16", 2)                                                                       \
    X(DU_GGUF_U32, "u32", 4)                                                                       \
    X(DU_GGUF_I32, "i32", 4)                                                                       \
    X(DU_GGUF_F32, "f32", 4)                                                                       \
    X(DU_GGUF_BOOL, "bool", 1)                                                                     \
    X(DU_GGUF_STR, "str", 0)                                                                       \
    X(DU_GGUF_ARRAY, "array", 0)                                                                   \
    X(DU_GGUF_U64, "u64", 8)                                                                       \
    X(DU_GGUF_I64, "i64", 8)                                                                       \
    X(DU_GGUF_F64, "f64", 8)

#define DU_GGUF_TYPE_ENUM(code, name, bytes) code,
typedef enum { DU_GGUF_TYPE_LIST(DU_GGUF_TYPE_ENUM) DU_GGUF_TYPE_COUNT } du_gguf_type;
#undef DU_GGUF_TYPE_ENUM

enum {
    DU_GGUF_DIMS_MAX = 4,
    DU_GGUF_ALIGNMENT = 32,           /* bytes, where general.alignment is absent */
    DU_GGUF_ALIGNMENT_MAX = 1 << 16,  /* bytes */
    DU_GGUF_KEY_BYTES_MAX = 65535,    /* the format's limit */
    DU_GGUF_NAME_BYTES_MAX = 255,     /* of a tensor; the format says 64 */
    DU_GGUF_STR_BYTES_MAX = 64 << 20, /* of one string value */
    DU_GGUF_ARRAY_MAX = 1 << 28,      /* elements */
    DU_GGUF_KEYS_MAX = 1 << 16,
    DU_GGUF_TENSORS_MAX = 1 << 20, /* per part and in all */
    DU_GGUF_PARTS_MAX = 4096,
};

/* A key and its value as it lies in the file. */
typedef struct {
    const char *name;     /* terminated, holds no NUL */
    du_gguf_type type;    /* of the value, of the elements when is_array */
    bool is_array;        /* arrays of arrays are refused */
    int64_t n;            /* elements; 1 when not an array */
    const uint8_t *bytes; /* the value without its type; of an array the elements, one by one */
    size_t n_bytes;
} du_gguf_kv;

typedef struct {
    const char *name;      /* terminated, holds no NUL */
    uint32_t type;         /* the format's number */
    const char *type_name; /* "Q4_K", "I32" */
    du_dtype dtype;        /* DU_DTYPE_COUNT: numbers that are no weights (integers, F64) */
    int32_t n_dims;
    int64_t dims[DU_GGUF_DIMS_MAX]; /* fastest first, as in the file; 1 from n_dims on */
    const void *data;               /* in the map, aligned to the file's alignment */
    size_t n_bytes;
    int32_t i_part;
    int64_t offset; /* of data in that part's file, bytes */
} du_gguf_tensor;

typedef struct du_gguf du_gguf;

/* Opens a GGUF file, or the set of files it is part of, and maps it read-only.
 * out   new handle, free with du_gguf_close; untouched on failure
 * path  borrowed for the call
 * diag  may be NULL; on failure the file, the place and the reason
 * Everything is checked here but the values of keys: afterwards each tensor's data lies inside its
 * file, aligned, overlapping no other.
 * Returns DU_OK, DU_ENOENT, DU_EIO, DU_EFORMAT, DU_EUNSUPPORTED (version, tensor type, big-endian),
 * DU_ELIMIT, DU_ENOMEM. Thread-safe on different handles. */
DU_NODISCARD
du_err du_gguf_open(du_gguf **out, const char *path, du_diag *diag);

/* The same for one whole file in memory, which is borrowed until the close; tensors are aligned as
 * the block is. what names it in messages. A part of a split set gives DU_EFORMAT. */
DU_NODISCARD
du_err du_gguf_parse(du_gguf **out, const void *bytes, size_t len, const char *what, du_diag *diag);

void du_gguf_close(du_gguf *g); /* takes NULL */

/* Bytes [p, p + n) of a tensor will not be read again soon (du_map_unload). */
void du_gguf_unload(const du_gguf *g, const void *p, size_t n);

/* What tells one model's files from another's, as far as that can be said without reading them. */
typedef struct {
    uint64_t n_bytes;  /* of all parts */
    uint64_t changed;  /* checksum of when each part was last written */
    uint64_t contents; /* checksum of the headers, and of a few bytes of some tensors */
} du_gguf_stamp;

/* False when the bytes are in no file (du_gguf_parse). */
bool du_gguf_get_stamp(const du_gguf *g, du_gguf_stamp *out);

const char *du_gguf_path(const du_gguf *g);    /* of the first part */
uint32_t du_gguf_version(const du_gguf *g);    /* 2 or 3 */
int32_t du_gguf_n_parts(const du_gguf *g);     /* 1 when not split */
int64_t du_gguf_file_bytes(const du_gguf *g);  /* all parts */
const char *du_gguf_type_name(du_gguf_type t); /* "u32" */
size_t du_gguf_type_bytes(du_gguf_type t);     /* of one value; 0 for strings and arrays */

int64_t du_gguf_n_keys(const du_gguf *g);
const du_gguf_kv *du_gguf_key(const du_gguf *g, int64_t i);             /* in the file's order */
const du_gguf_kv *du_gguf_key_find(const du_gguf *g, const char *name); /* NULL: absent */

int64_t du_gguf_n_tensors(const du_gguf *g);
const du_gguf_tensor *du_gguf_tensor_at(const du_gguf *g, int64_t i); /* in the file's order */
const du_gguf_tensor *du_gguf_tensor_find(const du_gguf *g, const char *name); /* NULL: absent */

/* Getters. Where the key is absent *out stays as it is and the result is DU_OK; a value of another
 * type or outside [min, max] gives DU_EFORMAT naming file and key.
 *   i64   any integer type
 *   f64   f32, f64 or any integer type; finite
 *   str   borrowed from the map, may hold any bytes, not terminated */
DU_NODISCARD
du_err du_gguf_get_i64(const du_gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                       du_diag *diag);
DU_NODISCARD
du_err du_gguf_get_f64(const du_gguf *g, const char *key, double *out, du_diag *diag);
DU_NODISCARD
du_err du_gguf_get_bool(const du_gguf *g, const char *key, bool *out, du_diag *diag);
DU_NODISCARD
du_err du_gguf_get_str(const du_gguf *g, const char *key, du_sv *out, du_diag *diag);

/* One value per layer: out [n] is filled from an array of n elements, or with the one scalar. The
 * integers may also be booleans, 0 and 1. */
DU_NODISCARD
du_err du_gguf_get_i64_per_layer(const du_gguf *g, const char *key, int64_t min, int64_t max,
                                 int64_t n, int64_t *out, du_diag *diag);
DU_NODISCARD
du_err du_gguf_get_f64_per_layer(const du_gguf *g, const char *key, int64_t n, double *out,
                                 du_diag *diag);

/* Arrays, copied to the heap: free *out with du_free. Where the key is absent, *out and *n stay.
 *   i32s  any integer type or bool, each within [min, max]
 *   f32s  f32, f64 or any integer type; NaN and infinity pass
 *   strs  views into the map
 * Also DU_ENOMEM. */
DU_NODISCARD
du_err du_gguf_get_i32s(const du_gguf *g, const char *key, int32_t min, int32_t max, int32_t **out,
                        int64_t *n, du_diag *diag);
DU_NODISCARD
du_err du_gguf_get_f32s(const du_gguf *g, const char *key, float **out, int64_t *n, du_diag *diag);
DU_NODISCARD
du_err du_gguf_get_strs(const du_gguf *g, const char *key, du_sv **out, int64_t *n, du_diag *diag);

#endif
