/* What safetensors.c (one file, handles) and safetensors_index.c (shards) share. */
#ifndef DU_FORMATS_SAFETENSORS_INT_H
#define DU_FORMATS_SAFETENSORS_INT_H

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "formats/safetensors.h"

/* A number type of the format. */
typedef struct {
    const char *name;
    size_t bytes;
    du_dtype dtype; /* DU_DTYPE_COUNT: no weights */
} du_st_type;

/* NULL when there is none. */
const du_st_type *du_st_type_find(const char *name);
const du_st_type *du_st_type_of(du_dtype dtype);

typedef struct {
    char *path;
    du_map map;           /* empty when the bytes are borrowed */
    const uint8_t *bytes; /* the whole file */
    size_t len;
} du_st_shard;

struct du_st {
    char *path; /* as opened */
    du_st_shard *shards;
    int32_t n_shards;
    size_t cap_shards;
    du_st_tensor *tensors; /* of all shards, in their order */
    size_t n_tensors, cap_tensors;
    du_hash index;   /* name -> number in tensors */
    du_arena *names; /* terminated copies of names */
};

/* Maps the file at path and adds it as the next shard with its tensors. */
DU_NODISCARD
du_err du_st_add_file(du_st *st, const char *path, du_diag *diag);

/* Adds every shard that the index at st->path names, and checks that each holds what it should. */
DU_NODISCARD
du_err du_st_add_indexed(du_st *st, du_diag *diag);

#endif
