/* One safetensors file: its JSON header, checked and indexed.
 *
 * The layout (https://github.com/huggingface/safetensors, "Format"):
 *
 *     u64 n, little-endian | n bytes of JSON | tensor data up to the end of the file
 *
 *     {"__metadata__": {"format": "pt"},
 *      "name": {"dtype": "BF16", "shape": [576, 192], "data_offsets": [0, 221184]}, ...}
 *
 * Offsets count from the end of the header. The tensors cover the data from its first byte to its
 * last without holes or overlaps; numbers are row-major and little-endian. The header may be padded
 * with spaces.
 *
 * A header is walked entry by entry, so that what it makes us allocate is bounded by its tensors
 * and not by what else its JSON can express. The values of __metadata__ are passed over. */
#include "formats/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/json_walk.h"
#include "base/reader.h"
#include "formats/safetensors_int.h"

enum { ENTRY_BYTES_MAX = 8 * DU_ST_NAME_BYTES_MAX }; /* escapes take six bytes for one */

#define TYPE_ROW(name, bytes, dtype) {name, bytes, dtype},
static const du_st_type types[] = {DU_ST_TYPE_LIST(TYPE_ROW)};
#undef TYPE_ROW
enum { N_TYPES = sizeof types / sizeof *types };

const du_st_type *du_st_type_find(const char *name) {
    for (size_t i = 0; i < N_TYPES; i++) {
        if (strcmp(name, types[i].name) == 0) {
            return &types[i];
        }
    }
    return NULL;
}

const du_st_type *du_st_type_of(du_dtype dtype) {
    for (size_t i = 0; i < N_TYPES; i++) {
        if (types[i].dtype == dtype && dtype != DU_DTYPE_COUNT) {
            return &types[i];
        }
    }
    return NULL;
}

static du_err set_type(du_st_tensor *t, const json_t *entry, du_diag *diag) {
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    if (!name) {
        return du_fail(diag, DU_EFORMAT, "%s: no dtype", t->name);
    }
    const du_st_type *type = du_st_type_find(name);
    if (!type) {
        return du_fail(diag, DU_EUNSUPPORTED, "%s: number type %.20s is none that dure reads",
                       t->name, name);
    }
    t->type_name = type->name;
    t->elem_bytes = type->bytes;
    t->dtype = type->dtype;
    return DU_OK;
}

/* A JSON integer that is not negative. */
static bool get_count(const json_t *value, int64_t *out) {
    *out = json_integer_value(value);
    return json_is_integer(value) && *out >= 0;
}

/* Shape, and the bytes that shape and type need. */
static du_err set_shape(du_st_tensor *t, const json_t *entry, du_diag *diag) {
    const json_t *shape = json_object_get(entry, "shape");
    size_t n_dims = json_array_size(shape);
    if (!json_is_array(shape) || n_dims > DU_ST_DIMS_MAX) {
        return du_fail(diag, DU_EFORMAT, "%s: its shape is no list of 0 to %d numbers", t->name,
                       DU_ST_DIMS_MAX);
    }
    t->n_dims = (int32_t)n_dims;
    t->n_bytes = t->elem_bytes;
    for (size_t i = 0; i < DU_ST_DIMS_MAX; i++) {
        t->dims[i] = 1;
        if (i < n_dims && !get_count(json_array_get(shape, i), &t->dims[i])) {
            return du_fail(diag, DU_EFORMAT, "%s: its shape holds something other than counts",
                           t->name);
        }
        if (!du_mul_size(t->n_bytes, (size_t)t->dims[i], &t->n_bytes)) {
            return du_fail(diag, DU_EFORMAT, "%s: its size overflows", t->name);
        }
    }
    return DU_OK;
}

/* The tensor's place; t->offset is still counted from the start of the data. */
static du_err set_place(du_st_tensor *t, const json_t *entry, uint64_t n_data, du_diag *diag) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    int64_t begin, end;
    if (json_array_size(offsets) != 2 || !get_count(json_array_get(offsets, 0), &begin) ||
        !get_count(json_array_get(offsets, 1), &end) || end < begin) {
        return du_fail(diag, DU_EFORMAT, "%s: its data_offsets are no begin and end", t->name);
    }
    if ((uint64_t)end > n_data) {
        return du_fail(diag, DU_EFORMAT,
                       "%s: its data ends at %" PRId64 ", beyond the file's %" PRIu64
                       " bytes of data: an incomplete download?",
                       t->name, end, n_data);
    }
    if ((uint64_t)(end - begin) != t->n_bytes) {
        return du_fail(diag, DU_EFORMAT,
                       "%s: %" PRId64 " bytes of data, but its shape and type %s need %zu", t->name,
                       end - begin, t->type_name, t->n_bytes);
    }
    t->offset = begin;
    return DU_OK;
}

static du_err keep_name(du_st *st, du_st_tensor *t, const char *name, du_diag *diag) {
    size_t len = strlen(name);
    if (len == 0 || len > DU_ST_NAME_BYTES_MAX) {
        return du_fail(diag, len ? DU_ELIMIT : DU_EFORMAT, "a tensor's name of %zu bytes (1 to %d)",
                       len, DU_ST_NAME_BYTES_MAX);
    }
    char *copy = du_arena_alloc(st->names, len + 1, 1);
    if (!copy) {
        return du_fail_nomem(diag, "names");
    }
    memcpy(copy, name, len + 1);
    t->name = copy;
    return DU_OK;
}

/* Adds the tensor that a header entry {name: {...}} describes. */
static du_err add_tensor(du_st *st, json_t *entry, uint64_t n_data, du_diag *diag) {
    if (st->n_tensors >= DU_ST_TENSORS_MAX) {
        return du_fail(diag, DU_ELIMIT, "more than %d tensors", DU_ST_TENSORS_MAX);
    }
    void *tensors = st->tensors;
    if (!du_grow(&tensors, &st->cap_tensors, st->n_tensors, sizeof *st->tensors)) {
        return du_fail_nomem(diag, "tensor descriptions");
    }
    st->tensors = tensors;
    void *member = json_object_iter(entry);
    const json_t *value = json_object_iter_value(member);
    du_st_tensor t = {.i_shard = st->n_shards - 1};
    du_err err = keep_name(st, &t, json_object_iter_key(member), diag);
    if (err == DU_OK) {
        err = set_type(&t, value, diag);
    }
    if (err == DU_OK) {
        err = set_shape(&t, value, diag);
    }
    if (err == DU_OK) {
        err = set_place(&t, value, n_data, diag);
    }
    if (err == DU_OK) {
        st->tensors[st->n_tensors++] = t;
    }
    return err;
}

static du_err walk_header(du_st *st, du_sv header, uint64_t n_data, du_diag *diag) {
    du_json_walk walk = {.text = header, .what = "header", .offset = 8};
    for (;;) {
        du_sv member;
        du_err err = du_json_walk_next(&walk, &member, diag);
        if (err != DU_OK || member.len == 0) {
            return err;
        }
        if (du_sv_starts(member, "\"__metadata__\"")) {
            continue;
        }
        if (member.len > ENTRY_BYTES_MAX) {
            return du_fail_at(diag, DU_ELIMIT, 8 + (member.s - header.s),
                              "header: an entry of %zu bytes (at most %d)", member.len,
                              ENTRY_BYTES_MAX);
        }
        json_t *entry = NULL;
        err = du_json_walk_parse(&entry, &walk, member, diag);
        if (err == DU_OK) {
            err = add_tensor(st, entry, n_data, diag);
        }
        json_decref(entry);
        if (err != DU_OK) {
            return err;
        }
    }
}

static int by_place(const void *x, const void *y) {
    const du_st_tensor *a = x, *b = y;
    if (a->offset != b->offset) {
        return a->offset < b->offset ? -1 : 1;
    }
    return (a->n_bytes > b->n_bytes) - (a->n_bytes < b->n_bytes);
}

/* Sorts the newest shard's tensors and checks that they cover its data exactly. */
static du_err check_cover(du_st *st, size_t i_first, uint64_t n_data, du_diag *diag) {
    if (st->n_tensors > i_first) {
        qsort(&st->tensors[i_first], st->n_tensors - i_first, sizeof *st->tensors, by_place);
    }
    uint64_t end = 0;
    for (size_t i = i_first; i < st->n_tensors; i++) {
        const du_st_tensor *t = &st->tensors[i];
        if ((uint64_t)t->offset != end) {
            return du_fail(diag, DU_EFORMAT, "%s: its data %s", t->name,
                           (uint64_t)t->offset < end ? "overlaps another tensor's"
                                                     : "begins behind a hole");
        }
        end += t->n_bytes;
    }
    if (end != n_data) {
        return du_fail(diag, DU_EFORMAT, "%" PRIu64 " bytes of data belong to no tensor",
                       n_data - end);
    }
    return DU_OK;
}

static du_err index_tensors(du_st *st, size_t i_first, size_t data_at, du_diag *diag) {
    if (du_hash_reserve(&st->index, st->n_tensors) != DU_OK) {
        return du_fail_nomem(diag, "an index of names");
    }
    for (size_t i = i_first; i < st->n_tensors; i++) {
        du_st_tensor *t = &st->tensors[i];
        t->offset += (int64_t)data_at;
        t->data = st->shards[t->i_shard].bytes + t->offset;
        if (du_hash_add(&st->index, du_sv_of(t->name), (int64_t)i) != DU_OK) {
            return du_fail(diag, DU_EFORMAT, "%s: the name occurs twice", t->name);
        }
    }
    return DU_OK;
}

/* Reads the newest shard. Messages name the place, not the file. */
static du_err parse_shard(du_st *st, du_diag *diag) {
    const du_st_shard *shard = &st->shards[st->n_shards - 1];
    du_reader r = du_reader_of(shard->bytes, shard->len);
    uint64_t n_header = du_read_u64(&r);
    if (r.bad) {
        return du_fail_at(diag, DU_EFORMAT, 0, "no safetensors file: shorter than 8 bytes");
    }
    if (n_header > du_reader_left(&r)) {
        return du_fail_at(diag, DU_EFORMAT, 0,
                          "no safetensors file, or cut short: a header of %" PRIu64
                          " bytes in a file of %zu",
                          n_header, shard->len);
    }
    if (n_header > DU_ST_HEADER_BYTES_MAX) {
        return du_fail_at(diag, DU_ELIMIT, 0, "a header of %" PRIu64 " bytes (at most %d)",
                          n_header, DU_ST_HEADER_BYTES_MAX);
    }
    du_sv header = {(const char *)du_read_bytes(&r, (size_t)n_header), (size_t)n_header};
    uint64_t n_data = du_reader_left(&r);
    size_t i_first = st->n_tensors;
    du_err err = walk_header(st, header, n_data, diag);
    if (err == DU_OK) {
        err = check_cover(st, i_first, n_data, diag);
    }
    return err == DU_OK ? index_tensors(st, i_first, r.pos, diag) : err;
}

/* Puts an empty shard behind the others. */
static du_err add_shard(du_st *st, const char *path, du_diag *diag) {
    void *shards = st->shards;
    char *copy = du_strdup(path);
    if (!copy || !du_grow(&shards, &st->cap_shards, (size_t)st->n_shards, sizeof *st->shards)) {
        du_free(copy);
        return du_fail_nomem(diag, path);
    }
    st->shards = shards;
    st->shards[st->n_shards++] = (du_st_shard){.path = copy};
    return DU_OK;
}

du_err du_st_add_file(du_st *st, const char *path, du_diag *diag) {
    du_err err = add_shard(st, path, diag);
    if (err != DU_OK) {
        return err;
    }
    du_st_shard *shard = &st->shards[st->n_shards - 1];
    err = du_map_open(&shard->map, path, diag);
    if (err != DU_OK) {
        return err;
    }
    shard->bytes = shard->map.data;
    shard->len = shard->map.len;
    err = parse_shard(st, diag);
    if (err != DU_OK) {
        du_diag_context(diag, "%s", path);
    }
    return err;
}

static du_err st_new(du_st **out, const char *path, du_diag *diag) {
    du_st *st = du_alloc_zero(1, sizeof *st);
    if (st) {
        st->path = du_strdup(path);
        st->names = du_arena_new(0);
    }
    if (!st || !st->path || !st->names) {
        du_st_close(st);
        return du_fail_nomem(diag, path);
    }
    *out = st;
    return DU_OK;
}

void du_st_close(du_st *st) {
    if (!st) {
        return;
    }
    for (int32_t i = 0; i < st->n_shards; i++) {
        du_free(st->shards[i].path);
        du_map_close(&st->shards[i].map);
    }
    du_free(st->path);
    du_free(st->shards);
    du_free(st->tensors);
    du_hash_done(&st->index);
    du_arena_free(st->names);
    du_free(st);
}

du_err du_st_open(du_st **out, const char *path, du_diag *diag) {
    du_st *st = NULL;
    du_err err = st_new(&st, path, diag);
    if (err == DU_OK && du_sv_ends(du_sv_of(path), ".json")) {
        err = du_st_add_indexed(st, diag);
    } else if (err == DU_OK) {
        err = du_st_add_file(st, path, diag);
    }
    if (err != DU_OK) {
        du_st_close(st);
        return err;
    }
    *out = st;
    return DU_OK;
}

du_err du_st_parse(du_st **out, const void *bytes, size_t len, const char *what, du_diag *diag) {
    du_st *st = NULL;
    du_err err = st_new(&st, what, diag);
    if (err == DU_OK) {
        err = add_shard(st, what, diag);
    }
    if (err == DU_OK) {
        st->shards[0].bytes = bytes;
        st->shards[0].len = len;
        err = parse_shard(st, diag);
        if (err != DU_OK) {
            du_diag_context(diag, "%s", what);
        }
    }
    if (err != DU_OK) {
        du_st_close(st);
        return err;
    }
    *out = st;
    return DU_OK;
}

const char *du_st_path(const du_st *st) {
    return st->path;
}

int32_t du_st_n_shards(const du_st *st) {
    return st->n_shards;
}

int64_t du_st_file_bytes(const du_st *st) {
    int64_t n = 0;
    for (int32_t i = 0; i < st->n_shards; i++) {
        n += (int64_t)st->shards[i].len;
    }
    return n;
}

int64_t du_st_n_tensors(const du_st *st) {
    return (int64_t)st->n_tensors;
}

const du_st_tensor *du_st_tensor_at(const du_st *st, int64_t i) {
    return &st->tensors[i];
}

const du_st_tensor *du_st_tensor_find(const du_st *st, const char *name) {
    const int64_t *i = du_hash_find(&st->index, du_sv_of(name));
    return i ? &st->tensors[*i] : NULL;
}
