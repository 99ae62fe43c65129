/* Writing GGUF version 3 (the layout is in gguf.c).
 *
 * Keys are kept encoded, each as the bytes that follow its name in the file; tensors as their
 * descriptions with the offsets that follow from the order. Tensor data passes straight through:
 * only how much of the current tensor is still to come is remembered. */
#include "formats/gguf_write.h"

#include <inttypes.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

enum {
    VERSION = 3,
    HEADER_BYTES = 4 + 4 + 8 + 8,
    NAME_BYTES_MAX = 63, /* GGML_MAX_NAME less the NUL, in ggml.h: longer names do not open there */
};

typedef struct {
    char *name;
    char *value; /* type and value, encoded; NULL: dropped */
    size_t n_value;
} key_entry;

typedef struct {
    char *name;
    du_dtype dtype;
    int32_t n_dims;
    int64_t dims[DU_GGUF_DIMS_MAX]; /* fastest first */
    size_t n_bytes;
    uint64_t offset; /* from the start of the data */
} tensor_entry;

struct du_gguf_writer {
    key_entry *keys;
    size_t n_keys, cap_keys;
    tensor_entry *tensors;
    size_t n_tensors, cap_tensors;
    du_hash key_index, tensor_index; /* name -> number */
    uint64_t data_bytes;             /* of all tensors, padded */
    du_writer *file;                 /* NULL before _begin */
    size_t i_tensor;                 /* whose bytes come next */
    size_t n_written;                /* of its bytes */
    bool too_many;                   /* bytes came after the last tensor */
    du_diag trouble;                 /* the first failure of a declaration */
};

static uint64_t padded(uint64_t n) {
    return (n + DU_GGUF_ALIGNMENT - 1) / DU_GGUF_ALIGNMENT * DU_GGUF_ALIGNMENT;
}

du_err du_gguf_writer_new(du_gguf_writer **out, du_diag *diag) {
    du_gguf_writer *w = du_alloc_zero(1, sizeof *w);
    if (!w) {
        return du_fail_nomem(diag, "a GGUF writer");
    }
    du_diag_reset(&w->trouble);
    *out = w;
    return DU_OK;
}

void du_gguf_writer_close(du_gguf_writer *w) {
    if (!w) {
        return;
    }
    for (size_t i = 0; i < w->n_keys; i++) {
        du_free(w->keys[i].name);
        du_free(w->keys[i].value);
    }
    for (size_t i = 0; i < w->n_tensors; i++) {
        du_free(w->tensors[i].name);
    }
    du_free(w->keys);
    du_free(w->tensors);
    du_hash_done(&w->key_index);
    du_hash_done(&w->tensor_index);
    du_writer_close(w->file);
    du_free(w);
}

/* The entry of this key, made when it is not there; NULL after a failure. */
static key_entry *entry_of(du_gguf_writer *w, const char *key) {
    int64_t *there = du_hash_find(&w->key_index, du_sv_of(key));
    if (there) {
        return &w->keys[*there];
    }
    void *keys = w->keys;
    char *name = du_strdup(key);
    bool grown = du_grow(&keys, &w->cap_keys, w->n_keys, sizeof *w->keys);
    w->keys = keys;
    if (!name || !grown ||
        du_hash_add(&w->key_index, du_sv_of(name), (int64_t)w->n_keys) != DU_OK) {
        du_free(name);
        du_fail_nomem(&w->trouble, key);
        return NULL;
    }
    key_entry *entry = &w->keys[w->n_keys++];
    *entry = (key_entry){.name = name};
    return entry;
}

/* Sets a key to its encoded value. */
static void put(du_gguf_writer *w, const char *key, du_str *value) {
    size_t len = strlen(key);
    if (len == 0 || len > DU_GGUF_KEY_BYTES_MAX || w->n_keys >= DU_GGUF_KEYS_MAX) {
        du_fail(&w->trouble, DU_EINVAL, "%.80s: too many keys, or a name of %zu bytes", key, len);
    } else if (strcmp(key, "general.alignment") == 0) {
        du_fail(&w->trouble, DU_EINVAL, "%s is chosen by the writer", key);
    }
    key_entry *entry = w->trouble.code == DU_OK ? entry_of(w, key) : NULL;
    size_t n = value->len;
    char *bytes = du_str_take(value);
    if (!bytes) {
        du_fail_nomem(&w->trouble, key);
    }
    if (!entry || !bytes) {
        du_free(bytes);
        return;
    }
    du_free(entry->value);
    entry->value = bytes;
    entry->n_value = n;
}

static void add_u32(du_str *s, uint32_t v) {
    du_str_add(s, &v, sizeof v);
}

static void add_u64(du_str *s, uint64_t v) {
    du_str_add(s, &v, sizeof v);
}

static void add_text(du_str *s, du_sv text) {
    add_u64(s, text.len);
    du_str_add_sv(s, text);
}

static void add_array_head(du_str *s, du_gguf_type type, int64_t n) {
    add_u32(s, DU_GGUF_ARRAY);
    add_u32(s, type);
    add_u64(s, (uint64_t)n);
}

void du_gguf_put_value(du_gguf_writer *w, const char *key, du_gguf_type type, const void *value) {
    DU_CHECK(du_gguf_type_bytes(type) > 0);
    du_str s = {0};
    add_u32(&s, type);
    du_str_add(&s, value, du_gguf_type_bytes(type));
    put(w, key, &s);
}

void du_gguf_put_array(du_gguf_writer *w, const char *key, du_gguf_type type, const void *values,
                       int64_t n) {
    DU_CHECK(du_gguf_type_bytes(type) > 0 && n >= 0);
    du_str s = {0};
    add_array_head(&s, type, n);
    du_str_add(&s, values, (size_t)n * du_gguf_type_bytes(type));
    put(w, key, &s);
}

void du_gguf_put_u32(du_gguf_writer *w, const char *key, uint32_t value) {
    du_gguf_put_value(w, key, DU_GGUF_U32, &value);
}

void du_gguf_put_i32(du_gguf_writer *w, const char *key, int32_t value) {
    du_gguf_put_value(w, key, DU_GGUF_I32, &value);
}

void du_gguf_put_u64(du_gguf_writer *w, const char *key, uint64_t value) {
    du_gguf_put_value(w, key, DU_GGUF_U64, &value);
}

void du_gguf_put_f32(du_gguf_writer *w, const char *key, float value) {
    du_gguf_put_value(w, key, DU_GGUF_F32, &value);
}

void du_gguf_put_bool(du_gguf_writer *w, const char *key, bool value) {
    uint8_t byte = value;
    du_gguf_put_value(w, key, DU_GGUF_BOOL, &byte);
}

void du_gguf_put_str(du_gguf_writer *w, const char *key, du_sv value) {
    du_str s = {0};
    add_u32(&s, DU_GGUF_STR);
    add_text(&s, value);
    put(w, key, &s);
}

void du_gguf_put_strs(du_gguf_writer *w, const char *key, const du_sv *values, int64_t n) {
    du_str s = {0};
    add_array_head(&s, DU_GGUF_STR, n);
    for (int64_t i = 0; i < n; i++) {
        add_text(&s, values[i]);
    }
    put(w, key, &s);
}

void du_gguf_put_kv(du_gguf_writer *w, const du_gguf_kv *kv) {
    du_sv name = du_sv_of(kv->name);
    if (du_sv_is(name, "general.alignment") || du_sv_starts(name, "split.")) {
        return;
    }
    du_str s = {0};
    if (kv->is_array) {
        add_array_head(&s, kv->type, kv->n);
    } else {
        add_u32(&s, kv->type);
    }
    du_str_add(&s, kv->bytes, kv->n_bytes);
    put(w, kv->name, &s);
}

void du_gguf_drop(du_gguf_writer *w, const char *key) {
    const int64_t *i = du_hash_find(&w->key_index, du_sv_of(key));
    if (i) {
        du_free(w->keys[*i].value);
        w->keys[*i].value = NULL;
    }
}

/* The tensor's description from its declaration, or the reason why it is none. */
static bool describe(tensor_entry *t, du_diag *trouble) {
    const du_dtype_info *info = du_dtype_get(t->dtype);
    int64_t n = 1;
    bool fits = t->n_dims >= 1 && t->n_dims <= DU_GGUF_DIMS_MAX;
    for (int32_t i = 0; fits && i < t->n_dims; i++) {
        fits = t->dims[i] > 0 && du_mul_i64(n, t->dims[i], &n);
    }
    if (!fits || t->dims[0] % info->block != 0 ||
        !du_mul_size((size_t)(n / info->block), info->block_bytes, &t->n_bytes)) {
        du_fail(trouble, DU_EINVAL, "%.80s: no shape for a tensor of %s", t->name, info->name);
        return false;
    }
    if (info->gguf_id < 0) {
        du_fail(trouble, DU_EINVAL, "%.80s: GGUF has no number type %s", t->name, info->name);
        return false;
    }
    if (t->name[0] == '\0' || strlen(t->name) > NAME_BYTES_MAX) {
        du_fail(trouble, DU_EINVAL, "%.80s: a tensor's name has 1 to %d bytes", t->name,
                NAME_BYTES_MAX);
        return false;
    }
    return true;
}

void du_gguf_put_tensor(du_gguf_writer *w, const char *name, du_dtype dtype, int32_t n_dims,
                        const int64_t *dims) {
    void *tensors = w->tensors;
    bool grown = du_grow(&tensors, &w->cap_tensors, w->n_tensors, sizeof *w->tensors);
    w->tensors = tensors;
    tensor_entry t = {
        .name = du_strdup(name), .dtype = dtype, .n_dims = n_dims, .offset = w->data_bytes};
    for (int32_t i = 0; i < n_dims && i < DU_GGUF_DIMS_MAX; i++) {
        t.dims[i] = dims[i];
    }
    if (!t.name || !grown) {
        du_fail_nomem(&w->trouble, name);
    } else if (describe(&t, &w->trouble)) {
        du_err err = du_hash_add(&w->tensor_index, du_sv_of(t.name), (int64_t)w->n_tensors);
        if (err == DU_OK) {
            w->data_bytes += padded(t.n_bytes);
            w->tensors[w->n_tensors++] = t;
            return;
        }
        du_fail(&w->trouble, err == DU_EEXIST ? DU_EINVAL : err, "%.80s: %s", name,
                du_err_text(err));
    }
    du_free(t.name);
}

static uint64_t header_bytes(const du_gguf_writer *w) {
    uint64_t n = HEADER_BYTES;
    for (size_t i = 0; i < w->n_keys; i++) {
        if (w->keys[i].value) {
            n += 8 + strlen(w->keys[i].name) + w->keys[i].n_value;
        }
    }
    for (size_t i = 0; i < w->n_tensors; i++) {
        n += 8 + strlen(w->tensors[i].name) + 4 + 8 * (uint64_t)w->tensors[i].n_dims + 4 + 8;
    }
    return n;
}

int64_t du_gguf_writer_bytes(const du_gguf_writer *w) {
    return (int64_t)(padded(header_bytes(w)) + w->data_bytes);
}

static void write_u32(du_writer *file, uint32_t v) {
    du_write(file, &v, sizeof v);
}

static void write_u64(du_writer *file, uint64_t v) {
    du_write(file, &v, sizeof v);
}

static void write_name(du_writer *file, const char *name) {
    size_t len = strlen(name);
    write_u64(file, len);
    du_write(file, name, len);
}

static void write_header(const du_gguf_writer *w) {
    uint64_t n_keys = 0;
    for (size_t i = 0; i < w->n_keys; i++) {
        n_keys += w->keys[i].value != NULL;
    }
    du_write(w->file, "GGUF", 4);
    write_u32(w->file, VERSION);
    write_u64(w->file, w->n_tensors);
    write_u64(w->file, n_keys);
    for (size_t i = 0; i < w->n_keys; i++) {
        if (w->keys[i].value) {
            write_name(w->file, w->keys[i].name);
            du_write(w->file, w->keys[i].value, w->keys[i].n_value);
        }
    }
    for (size_t i = 0; i < w->n_tensors; i++) {
        const tensor_entry *t = &w->tensors[i];
        write_name(w->file, t->name);
        write_u32(w->file, (uint32_t)t->n_dims);
        du_write(w->file, t->dims, (size_t)t->n_dims * sizeof *t->dims);
        write_u32(w->file, (uint32_t)du_dtype_get(t->dtype)->gguf_id);
        write_u64(w->file, t->offset);
    }
    uint64_t n = header_bytes(w);
    du_write_zeros(w->file, (size_t)(padded(n) - n));
}

du_err du_gguf_writer_begin(du_gguf_writer *w, const char *path, du_diag *diag) {
    if (w->trouble.code != DU_OK) {
        return du_fail(diag, w->trouble.code, "%s: %s", path, w->trouble.msg);
    }
    du_err err = du_writer_open(&w->file, path, diag);
    if (err == DU_OK) {
        write_header(w);
    }
    return err;
}

void du_gguf_write(du_gguf_writer *w, const void *bytes, size_t n) {
    const uint8_t *from = bytes;
    while (n > 0) {
        if (w->i_tensor == w->n_tensors) {
            w->too_many = true;
            return;
        }
        const tensor_entry *t = &w->tensors[w->i_tensor];
        size_t left = t->n_bytes - w->n_written;
        size_t take = n < left ? n : left;
        du_write(w->file, from, take);
        from += take;
        n -= take;
        w->n_written += take;
        if (take == left) {
            du_write_zeros(w->file, (size_t)(padded(t->n_bytes) - t->n_bytes));
            w->i_tensor++;
            w->n_written = 0;
        }
    }
}

bool du_gguf_writer_failed(const du_gguf_writer *w) {
    return w->too_many || du_writer_failed(w->file);
}

du_err du_gguf_writer_commit(du_gguf_writer *w, du_diag *diag) {
    if (w->too_many) {
        return du_fail(diag, DU_EINVAL, "more tensor data than declared");
    }
    if (w->i_tensor < w->n_tensors && !du_writer_failed(w->file)) {
        return du_fail(diag, DU_EINVAL, "%s: its data is missing", w->tensors[w->i_tensor].name);
    }
    return du_writer_commit(w->file, diag);
}
