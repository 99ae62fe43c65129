/* One GGUF file: the header's keys and tensor descriptions, checked and indexed.
 *
 * All numbers are little-endian (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md):
 *
 *     "GGUF" | u32 version | u64 n_tensors | u64 n_keys
 *     key:     string name | u32 type | value                       n_keys times
 *     tensor:  string name | u32 n_dims | u64 dims[n_dims], fastest first | u32 type | u64 offset
 *     zeros up to a multiple of the alignment
 *     tensor data: each tensor at its offset from here, a multiple of the alignment
 *
 *     string = u64 length, bytes        array value = u32 element type, u64 count, elements
 *
 * Versions 2 and 3 differ only in that 3 allows big-endian files, which are refused here. Version 1
 * had 32-bit lengths; no model that dure runs was published in it.
 *
 * A hostile file can ask for nothing that its own size does not pay for: a count is compared with
 * the bytes that are left before anything is allocated for it, and values stay in the map. */
#include "formats/gguf.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/reader.h"
#include "formats/gguf_int.h"

enum {
    MIN_KEY_BYTES = 8 + 1 + 4 + 1,            /* name of one letter, type, one byte */
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8, /* name of one letter, one dimension */
    SHOWN = 80,                               /* bytes of a bad name put into a message */
};

/* Numbers that are stored like weights but are none. X(name, GGUF id, bytes) */
#define OTHER_LIST(X)                                                                              \
    X("I8", 24, 1)                                                                                 \
    X("I16", 25, 2)                                                                                \
    X("I32", 26, 4)                                                                                \
    X("I64", 27, 8)                                                                                \
    X("F64", 28, 8)

static du_err truncated(const du_reader *r, const char *what, du_diag *diag) {
    return du_fail_at(diag, DU_EFORMAT, (int64_t)r->pos, "%s: the file ends too early", what);
}

/* A string of at most `limit` bytes, borrowed. */
static du_err read_str(du_reader *r, du_sv *out, uint64_t limit, const char *what, du_diag *diag) {
    int64_t at = (int64_t)r->pos;
    uint64_t len = du_read_u64(r);
    if (!r->bad && len > limit) {
        return du_fail_at(diag, len > du_reader_left(r) ? DU_EFORMAT : DU_ELIMIT, at,
                          "%s: a string of %" PRIu64 " bytes (at most %" PRIu64 ")", what, len,
                          limit);
    }
    const uint8_t *bytes = du_read_bytes(r, (size_t)len);
    if (r->bad) {
        return truncated(r, what, diag);
    }
    *out = (du_sv){(const char *)bytes, (size_t)len};
    return DU_OK;
}

/* A terminated copy of a name that stays as long as g; NULL when memory is short. */
static const char *keep_name(du_gguf *g, du_sv name) {
    char *copy = du_arena_alloc(g->names, name.len + 1, 1);
    if (copy) {
        memcpy(copy, name.s, name.len);
        copy[name.len] = '\0';
    }
    return copy;
}

/* A name: not empty, no NUL, at most `limit` bytes. */
static du_err read_name(du_gguf *g, du_reader *r, const char **out, uint64_t limit,
                        const char *what, du_diag *diag) {
    int64_t at = (int64_t)r->pos;
    du_sv name = {0};
    du_err err = read_str(r, &name, limit, what, diag);
    if (err != DU_OK) {
        return err;
    }
    if (name.len == 0 || memchr(name.s, '\0', name.len)) {
        return du_fail_at(diag, DU_EFORMAT, at, "%s: its name is empty or holds a NUL", what);
    }
    *out = keep_name(g, name);
    return *out ? DU_OK : du_fail_nomem(diag, "names");
}

static du_err index_name(du_hash *index, const char *name, int64_t i, int64_t at, du_diag *diag) {
    du_err err = du_hash_add(index, du_sv_of(name), i);
    if (err == DU_EEXIST) {
        return du_fail_at(diag, DU_EFORMAT, at, "%.*s: the name occurs twice", SHOWN, name);
    }
    return err == DU_OK ? DU_OK : du_fail_nomem(diag, "an index of names");
}

static du_err read_elements(du_reader *r, du_gguf_kv *kv, du_diag *diag) {
    size_t size = du_gguf_type_bytes(kv->type);
    kv->bytes = r->bytes + r->pos;
    if (size > 0) {
        kv->n_bytes = (size_t)kv->n * size;
        du_read_bytes(r, kv->n_bytes);
        return r->bad ? truncated(r, kv->name, diag) : DU_OK;
    }
    du_err err = DU_OK;
    for (int64_t i = 0; err == DU_OK && i < kv->n; i++) {
        du_sv text;
        err = read_str(r, &text, DU_GGUF_STR_BYTES_MAX, kv->name, diag);
    }
    kv->n_bytes = (size_t)(r->bytes + r->pos - kv->bytes);
    return err;
}

static du_err read_value(du_reader *r, du_gguf_kv *kv, du_diag *diag) {
    int64_t at = (int64_t)r->pos;
    uint32_t type = du_read_u32(r);
    uint64_t n = 1;
    kv->is_array = type == DU_GGUF_ARRAY;
    if (kv->is_array) {
        type = du_read_u32(r);
        n = du_read_u64(r);
    }
    if (r->bad) {
        return truncated(r, kv->name, diag);
    }
    if (kv->is_array && type == DU_GGUF_ARRAY) {
        return du_fail_at(diag, DU_EUNSUPPORTED, at, "%s: an array of arrays", kv->name);
    }
    if (type >= DU_GGUF_TYPE_COUNT) {
        return du_fail_at(diag, DU_EFORMAT, at, "%s: value type %" PRIu32 " is unknown", kv->name,
                          type);
    }
    kv->type = (du_gguf_type)type;
    size_t size = du_gguf_type_bytes(kv->type);
    if (n > du_reader_left(r) / (size ? size : sizeof(uint64_t))) {
        return du_fail_at(diag, DU_EFORMAT, at,
                          "%s: %" PRIu64 " values do not fit into the rest of the file", kv->name,
                          n);
    }
    if (n > DU_GGUF_ARRAY_MAX) {
        return du_fail_at(diag, DU_ELIMIT, at, "%s: an array of %" PRIu64 " values (at most %d)",
                          kv->name, n, DU_GGUF_ARRAY_MAX);
    }
    kv->n = (int64_t)n;
    return read_elements(r, kv, diag);
}

static du_err read_keys(du_gguf *g, du_gguf_part *part, du_reader *r, uint64_t n, du_diag *diag) {
    part->keys = du_alloc_zero((size_t)n, sizeof *part->keys);
    if (!part->keys || du_hash_reserve(&part->key_index, (size_t)n) != DU_OK) {
        return du_fail_nomem(diag, "keys");
    }
    for (uint64_t i = 0; i < n; i++) {
        du_gguf_kv *kv = &part->keys[i];
        int64_t at = (int64_t)r->pos;
        char what[64];
        snprintf(what, sizeof what, "key %" PRIu64 " of %" PRIu64, i + 1, n);
        du_err err = read_name(g, r, &kv->name, DU_GGUF_KEY_BYTES_MAX, what, diag);
        if (err == DU_OK) {
            err = index_name(&part->key_index, kv->name, (int64_t)i, at, diag);
        }
        if (err == DU_OK) {
            err = read_value(r, kv, diag);
        }
        if (err != DU_OK) {
            return err;
        }
        part->n_keys++;
    }
    return DU_OK;
}

/* Block layout of a tensor's number type; false when the type is unknown. */
static bool find_type(du_gguf_tensor *t, int64_t *block, size_t *block_bytes) {
    t->dtype = DU_DTYPE_COUNT;
    du_dtype dtype;
    if (du_dtype_of_gguf(&dtype, t->type)) {
        const du_dtype_info *info = du_dtype_get(dtype);
        t->dtype = dtype;
        t->type_name = info->name;
        *block = info->block;
        *block_bytes = info->block_bytes;
        return true;
    }
    *block = 1;
    switch (t->type) {
#define OTHER_CASE(name, id, bytes)                                                                \
    case id:                                                                                       \
        t->type_name = name;                                                                       \
        *block_bytes = bytes;                                                                      \
        return true;
        OTHER_LIST(OTHER_CASE)
#undef OTHER_CASE
    }
    return false;
}

/* t->n_bytes from shape and type. */
static du_err measure(du_gguf_tensor *t, int64_t at, du_diag *diag) {
    int64_t block, n = 1;
    size_t block_bytes;
    if (!find_type(t, &block, &block_bytes)) {
        return du_fail_at(diag, DU_EUNSUPPORTED, at,
                          "%s: number type %" PRIu32 " is none that dure reads", t->name, t->type);
    }
    for (int32_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] <= 0 || !du_mul_i64(n, t->dims[i], &n)) {
            return du_fail_at(diag, DU_EFORMAT, at, "%s: its shape is zero, negative or too large",
                              t->name);
        }
    }
    if (t->dims[0] % block != 0) {
        return du_fail_at(diag, DU_EFORMAT, at,
                          "%s: rows of %" PRId64 " numbers are no multiple of %s's block of "
                          "%" PRId64,
                          t->name, t->dims[0], t->type_name, block);
    }
    if (!du_mul_size((size_t)(n / block), block_bytes, &t->n_bytes)) {
        return du_fail_at(diag, DU_EFORMAT, at, "%s: its size overflows", t->name);
    }
    return DU_OK;
}

/* Reads one description; t->offset is still counted from the start of the data. */
static du_err read_tensor(du_gguf *g, du_reader *r, du_gguf_tensor *t, const char *what,
                          du_diag *diag) {
    du_err err = read_name(g, r, &t->name, DU_GGUF_NAME_BYTES_MAX, what, diag);
    if (err != DU_OK) {
        return err;
    }
    int64_t at = (int64_t)r->pos;
    uint32_t n_dims = du_read_u32(r);
    if (!r->bad && (n_dims < 1 || n_dims > DU_GGUF_DIMS_MAX)) {
        return du_fail_at(diag, DU_EFORMAT, at, "%s: %" PRIu32 " dimensions (1 to %d)", t->name,
                          n_dims, DU_GGUF_DIMS_MAX);
    }
    t->n_dims = (int32_t)n_dims;
    for (int32_t i = 0; i < DU_GGUF_DIMS_MAX; i++) {
        t->dims[i] = i < t->n_dims ? du_read_i64(r) : 1;
    }
    t->type = du_read_u32(r);
    t->offset = du_read_i64(r);
    return r->bad ? truncated(r, t->name, diag) : measure(t, at, diag);
}

static du_err read_tensors(du_gguf *g, int32_t i_part, du_reader *r, uint64_t n, du_diag *diag) {
    int64_t n_all = g->n_tensors + (int64_t)n;
    if (n_all > DU_GGUF_TENSORS_MAX) {
        return du_fail(diag, DU_ELIMIT, "more than %d tensors", DU_GGUF_TENSORS_MAX);
    }
    du_gguf_tensor *tensors = du_realloc_array(g->tensors, (size_t)n_all, sizeof *tensors);
    if (tensors) {
        g->tensors = tensors;
    }
    if (!tensors || du_hash_reserve(&g->tensor_index, (size_t)n_all) != DU_OK) {
        return du_fail_nomem(diag, "tensor descriptions");
    }
    for (uint64_t i = 0; i < n; i++) {
        du_gguf_tensor *t = &g->tensors[g->n_tensors];
        *t = (du_gguf_tensor){.i_part = i_part};
        int64_t at = (int64_t)r->pos;
        char what[64];
        snprintf(what, sizeof what, "tensor %" PRIu64 " of %" PRIu64, i + 1, n);
        du_err err = read_tensor(g, r, t, what, diag);
        if (err == DU_OK) {
            err = index_name(&g->tensor_index, t->name, g->n_tensors, at, diag);
        }
        if (err != DU_OK) {
            return err;
        }
        g->n_tensors++;
    }
    return DU_OK;
}

/* Finds the tensor's bytes in the part whose data starts at data_at. */
static du_err place(const du_gguf_part *part, du_gguf_tensor *t, uint64_t data_at,
                    uint64_t alignment, du_diag *diag) {
    uint64_t offset = (uint64_t)t->offset;
    if (offset % alignment != 0) {
        return du_fail(diag, DU_EFORMAT,
                       "%s: offset %" PRIu64 " is no multiple of the alignment %" PRIu64, t->name,
                       offset, alignment);
    }
    if (data_at > part->len || offset > part->len - data_at ||
        t->n_bytes > part->len - data_at - offset) {
        return du_fail(diag, DU_EFORMAT,
                       "%s: its %zu bytes at offset %" PRIu64 " reach beyond the end of the file "
                       "(%zu bytes): an incomplete download?",
                       t->name, t->n_bytes, offset, part->len);
    }
    t->offset = (int64_t)(data_at + offset);
    t->data = part->bytes + t->offset;
    return DU_OK;
}

static int by_offset(const void *x, const void *y) {
    const du_gguf_tensor *a = *(const du_gguf_tensor *const *)x;
    const du_gguf_tensor *b = *(const du_gguf_tensor *const *)y;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

static du_err check_overlap(const du_gguf_tensor *tensors, size_t n, du_diag *diag) {
    const du_gguf_tensor **sorted = du_alloc_array(n, sizeof *sorted);
    if (!sorted) {
        return du_fail_nomem(diag, "tensor offsets");
    }
    for (size_t i = 0; i < n; i++) {
        sorted[i] = &tensors[i];
    }
    qsort(sorted, n, sizeof *sorted, by_offset);
    du_err err = DU_OK;
    for (size_t i = 1; err == DU_OK && i < n; i++) {
        const du_gguf_tensor *a = sorted[i - 1], *b = sorted[i];
        if (b->offset - a->offset < (int64_t)a->n_bytes) {
            err = du_fail_at(diag, DU_EFORMAT, b->offset, "%s: its data overlaps %s", b->name,
                             a->name);
        }
    }
    du_free(sorted);
    return err;
}

static du_err place_all(du_gguf *g, const du_gguf_part *part, int64_t i_first, size_t header_end,
                        du_diag *diag) {
    int64_t alignment = DU_GGUF_ALIGNMENT;
    du_err err =
        du_gguf_part_get_i64(part, "general.alignment", 8, DU_GGUF_ALIGNMENT_MAX, &alignment, diag);
    if (err == DU_OK && (alignment & (alignment - 1)) != 0) {
        err = du_fail(diag, DU_EFORMAT, "general.alignment: %" PRId64 " is no power of two",
                      alignment);
    }
    uint64_t unit = (uint64_t)alignment;
    uint64_t data_at = (header_end + unit - 1) / unit * unit;
    for (int64_t i = i_first; err == DU_OK && i < g->n_tensors; i++) {
        err = place(part, &g->tensors[i], data_at, unit, diag);
    }
    if (err != DU_OK || i_first == g->n_tensors) {
        return err;
    }
    return check_overlap(g->tensors + i_first, (size_t)(g->n_tensors - i_first), diag);
}

static du_err check_version(uint32_t version, du_diag *diag) {
    if (version == 2 || version == 3) {
        return DU_OK;
    }
    if ((version & 0xffff) == 0) {
        return du_fail_at(diag, DU_EUNSUPPORTED, 4, "a big-endian GGUF file");
    }
    return du_fail_at(diag, DU_EUNSUPPORTED, 4,
                      "GGUF version %" PRIu32 "; dure reads versions 2 and 3", version);
}

/* The two counts of the header, against the bytes that follow and the limits. */
static du_err check_count(const du_reader *r, const char *what, uint64_t n, size_t min_bytes,
                          uint64_t limit, du_diag *diag) {
    if (n > du_reader_left(r) / min_bytes) {
        return du_fail_at(diag, DU_EFORMAT, (int64_t)r->pos,
                          "%" PRIu64 " %s do not fit into a file of %zu bytes", n, what, r->len);
    }
    if (n > limit) {
        return du_fail_at(diag, DU_ELIMIT, (int64_t)r->pos, "%" PRIu64 " %s (at most %" PRIu64 ")",
                          n, what, limit);
    }
    return DU_OK;
}

du_err du_gguf_parse_part(du_gguf *g, int32_t i_part, du_diag *diag) {
    du_gguf_part *part = &g->parts[i_part];
    du_reader r = du_reader_of(part->bytes, part->len);
    const uint8_t *magic = du_read_bytes(&r, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0) {
        return du_fail_at(diag, DU_EFORMAT, 0, "not a GGUF file");
    }
    part->version = du_read_u32(&r);
    uint64_t n_tensors = du_read_u64(&r), n_keys = du_read_u64(&r);
    if (r.bad) {
        return truncated(&r, "header", diag);
    }
    int64_t i_first = g->n_tensors;
    du_err err = check_version(part->version, diag);
    if (err == DU_OK) {
        err = check_count(&r, "keys", n_keys, MIN_KEY_BYTES, DU_GGUF_KEYS_MAX, diag);
    }
    if (err == DU_OK) {
        err = check_count(&r, "tensors", n_tensors, MIN_TENSOR_BYTES, DU_GGUF_TENSORS_MAX, diag);
    }
    if (err == DU_OK) {
        err = read_keys(g, part, &r, n_keys, diag);
    }
    if (err == DU_OK) {
        err = read_tensors(g, i_part, &r, n_tensors, diag);
    }
    return err == DU_OK ? place_all(g, part, i_first, r.pos, diag) : err;
}

const char *du_gguf_path(const du_gguf *g) {
    return g->parts[0].path;
}

uint32_t du_gguf_version(const du_gguf *g) {
    return g->parts[0].version;
}

int32_t du_gguf_n_parts(const du_gguf *g) {
    return g->n_parts;
}

int64_t du_gguf_file_bytes(const du_gguf *g) {
    int64_t n = 0;
    for (int32_t i = 0; i < g->n_parts; i++) {
        n += (int64_t)g->parts[i].len;
    }
    return n;
}

int64_t du_gguf_n_keys(const du_gguf *g) {
    return g->parts[0].n_keys;
}

const du_gguf_kv *du_gguf_key(const du_gguf *g, int64_t i) {
    return &g->parts[0].keys[i];
}

const du_gguf_kv *du_gguf_part_find(const du_gguf_part *part, const char *name) {
    const int64_t *i = du_hash_find(&part->key_index, du_sv_of(name));
    return i ? &part->keys[*i] : NULL;
}

const du_gguf_kv *du_gguf_key_find(const du_gguf *g, const char *name) {
    return du_gguf_part_find(&g->parts[0], name);
}

int64_t du_gguf_n_tensors(const du_gguf *g) {
    return g->n_tensors;
}

const du_gguf_tensor *du_gguf_tensor_at(const du_gguf *g, int64_t i) {
    return &g->tensors[i];
}

const du_gguf_tensor *du_gguf_tensor_find(const du_gguf *g, const char *name) {
    const int64_t *i = du_hash_find(&g->tensor_index, du_sv_of(name));
    return i ? &g->tensors[*i] : NULL;
}
