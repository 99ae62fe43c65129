/* What gguf.c (one file), gguf_split.c (sets of files) and gguf_get.c (values) share. */
#ifndef DU_FORMATS_GGUF_INT_H
#define DU_FORMATS_GGUF_INT_H

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "formats/gguf.h"

/* One file of the set. */
typedef struct {
    char *path;
    du_map map;           /* empty when the bytes are borrowed */
    const uint8_t *bytes; /* the whole file */
    size_t len;
    uint32_t version;
    du_gguf_kv *keys;
    int64_t n_keys;
    du_hash key_index; /* name -> number in keys */
} du_gguf_part;

struct du_gguf {
    du_gguf_part *parts;
    int32_t n_parts;
    du_gguf_tensor *tensors; /* of all parts, in their order */
    int64_t n_tensors;
    du_hash tensor_index; /* name -> number in tensors */
    du_arena *names;      /* terminated copies of names */
};

/* Adds the bytes as the next part: its keys, and its tensors behind those there already. Takes over
 * nothing; the part's path, bytes and len are set. Messages name the place, not the file. */
DU_NODISCARD
du_err du_gguf_parse_part(du_gguf *g, int32_t i_part, du_diag *diag);

const du_gguf_kv *du_gguf_part_find(const du_gguf_part *part, const char *name);

/* An integer key of one part, as du_gguf_get_i64. */
DU_NODISCARD
du_err du_gguf_part_get_i64(const du_gguf_part *part, const char *key, int64_t min, int64_t max,
                            int64_t *out, du_diag *diag);

#endif
