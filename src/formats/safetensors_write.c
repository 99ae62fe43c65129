/* Writing safetensors (the layouts are in safetensors.c and safetensors_index.c).
 *
 * Tensors go to shards in the order of declaration, each shard as full as its limit allows. Within
 * a shard they are sorted by the size of their numbers, largest first: data starts at a multiple of
 * 8 and may have no holes, so this order alone aligns every tensor. That is why the writer tells
 * the caller which tensor comes next. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/str.h"
#include "formats/safetensors_int.h"

typedef struct {
    char *name;
    const du_st_type *type;
    size_t n_bytes;
    int32_t n_dims;
    int64_t dims[DU_ST_DIMS_MAX]; /* outermost first */
    int64_t i_shard;
    int64_t i; /* number by declaration */
} entry;

struct du_st_writer {
    entry *entries; /* as declared; from _begin on as written */
    size_t n, cap;
    du_hash index; /* name -> number; to find names that occur twice */
    char *dir;
    const char *stem; /* of the files' names */
    int64_t n_shards;
    du_writer *file;  /* of the tensor that is being written; NULL before the first */
    size_t i_next;    /* entries handed out by _next */
    size_t n_written; /* bytes of the newest of them */
    du_diag trouble;  /* the first failure */
};

du_err du_st_writer_new(du_st_writer **out, du_diag *diag) {
    du_st_writer *w = du_alloc_zero(1, sizeof *w);
    if (!w) {
        return du_fail_nomem(diag, "a safetensors writer");
    }
    du_diag_reset(&w->trouble);
    w->stem = "model";
    *out = w;
    return DU_OK;
}

void du_st_writer_name(du_st_writer *w, const char *stem) {
    w->stem = stem;
}

void du_st_writer_close(du_st_writer *w) {
    if (!w) {
        return;
    }
    for (size_t i = 0; i < w->n; i++) {
        du_free(w->entries[i].name);
    }
    du_free(w->entries);
    du_hash_done(&w->index);
    du_free(w->dir);
    du_writer_close(w->file);
    du_free(w);
}

/* Names are written into JSON as they are: printable ASCII without quote and backslash. */
static bool good_name(const char *name) {
    size_t n = 0;
    for (; name[n]; n++) {
        if (name[n] < 0x20 || name[n] > 0x7e || name[n] == '"' || name[n] == '\\') {
            return false;
        }
    }
    return n > 0 && n <= DU_ST_NAME_BYTES_MAX && strcmp(name, "__metadata__") != 0;
}

static bool set_shape(entry *e, int32_t n_dims, const int64_t *dims) {
    if (n_dims < 0 || n_dims > DU_ST_DIMS_MAX) {
        return false;
    }
    e->n_dims = n_dims;
    e->n_bytes = e->type->bytes;
    for (int32_t i = 0; i < n_dims; i++) {
        e->dims[i] = dims[i];
        if (dims[i] < 0 || !du_mul_size(e->n_bytes, (size_t)dims[i], &e->n_bytes)) {
            return false;
        }
    }
    return true;
}

void du_st_put_tensor(du_st_writer *w, const char *name, du_dtype dtype, int32_t n_dims,
                      const int64_t *dims) {
    void *entries = w->entries;
    bool grown = du_grow(&entries, &w->cap, w->n, sizeof *w->entries);
    w->entries = entries;
    entry e = {.name = du_strdup(name), .type = du_st_type_of(dtype), .i = (int64_t)w->n};
    if (!grown || !e.name) {
        du_fail_nomem(&w->trouble, name);
    } else if (!good_name(name) || w->n >= DU_ST_TENSORS_MAX) {
        du_fail(&w->trouble, DU_EINVAL, "%.80s: too many tensors, or no name for one", name);
    } else if (!e.type) {
        du_fail(&w->trouble, DU_EINVAL, "%.80s: safetensors has no number type %s", name,
                du_dtype_get(dtype)->name);
    } else if (!set_shape(&e, n_dims, dims)) {
        du_fail(&w->trouble, DU_EINVAL, "%.80s: no shape for a tensor", name);
    } else {
        du_err err = du_hash_add(&w->index, du_sv_of(e.name), e.i);
        if (err == DU_OK) {
            w->entries[w->n++] = e;
            return;
        }
        du_fail(&w->trouble, err == DU_EEXIST ? DU_EINVAL : err, "%.80s: %s", name,
                du_err_text(err));
    }
    du_free(e.name);
}

static int by_layout(const void *x, const void *y) {
    const entry *a = x, *b = y;
    if (a->i_shard != b->i_shard) {
        return a->i_shard < b->i_shard ? -1 : 1;
    }
    if (a->type->bytes != b->type->bytes) {
        return a->type->bytes > b->type->bytes ? -1 : 1;
    }
    return (a->i > b->i) - (a->i < b->i);
}

static void lay_out(du_st_writer *w, int64_t shard_bytes) {
    size_t in_shard = 0;
    w->n_shards = 1;
    for (size_t i = 0; i < w->n; i++) {
        entry *e = &w->entries[i];
        if (in_shard > 0 && e->n_bytes > (size_t)shard_bytes - in_shard) {
            w->n_shards++;
            in_shard = 0;
        }
        e->i_shard = w->n_shards - 1;
        in_shard = e->n_bytes > (size_t)shard_bytes ? (size_t)shard_bytes : in_shard + e->n_bytes;
    }
    qsort(w->entries, w->n, sizeof *w->entries, by_layout);
}

du_err du_st_writer_begin(du_st_writer *w, const char *dir, int64_t shard_bytes, du_diag *diag) {
    if (w->trouble.code == DU_OK && w->n == 0) {
        du_fail(&w->trouble, DU_EINVAL, "no tensors");
    }
    if (w->trouble.code == DU_OK) {
        w->dir = du_strdup(dir);
        if (!w->dir) {
            du_fail_nomem(&w->trouble, dir);
        }
    }
    if (w->trouble.code != DU_OK) {
        return du_fail(diag, w->trouble.code, "%s: %s", dir, w->trouble.msg);
    }
    lay_out(w, shard_bytes);
    if (w->n_shards > DU_ST_SHARDS_MAX) {
        du_fail(&w->trouble, DU_ELIMIT, "more than %d files", DU_ST_SHARDS_MAX);
        return du_fail(diag, w->trouble.code, "%s: %s", dir, w->trouble.msg);
    }
    return DU_OK;
}

static void add_file_name(du_str *s, const du_st_writer *w, int64_t i_shard) {
    if (w->n_shards == 1) {
        du_str_addf(s, "%s.safetensors", w->stem);
    } else {
        du_str_addf(s, "%s-%05" PRId64 "-of-%05" PRId64 ".safetensors", w->stem, i_shard + 1,
                    w->n_shards);
    }
}

/* Entries of the shard that begins at entry `first`, as JSON padded to a multiple of 8 bytes. */
static void add_header(du_str *s, const du_st_writer *w, size_t first) {
    size_t at = 0;
    du_str_add_s(s, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = first; i < w->n && w->entries[i].i_shard == w->entries[first].i_shard; i++) {
        const entry *e = &w->entries[i];
        du_str_addf(s, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", e->name, e->type->name);
        for (int32_t j = 0; j < e->n_dims; j++) {
            du_str_addf(s, "%s%" PRId64, j ? "," : "", e->dims[j]);
        }
        du_str_addf(s, "],\"data_offsets\":[%zu,%zu]}", at, at + e->n_bytes);
        at += e->n_bytes;
    }
    du_str_add_c(s, '}');
    while (s->len % 8 != 0 && !s->failed) {
        du_str_add_c(s, ' ');
    }
}

/* Opens the file of the shard that begins at entry `first` and writes its header. */
static du_err open_shard(du_st_writer *w, size_t first) {
    du_str name = {0}, header = {0};
    add_file_name(&name, w, w->entries[first].i_shard);
    add_header(&header, w, first);
    char *path = name.failed ? NULL : du_path_join(w->dir, name.data);
    du_err err = DU_OK;
    if (!path || header.failed) {
        err = du_fail_nomem(&w->trouble, w->dir);
    } else {
        err = du_writer_open(&w->file, path, &w->trouble);
    }
    if (err == DU_OK) {
        uint64_t n = header.len;
        du_write(w->file, &n, sizeof n);
        du_write(w->file, header.data, header.len);
    }
    du_free(path);
    du_str_done(&name);
    du_str_done(&header);
    return err;
}

static bool file_failed(const du_st_writer *w) {
    return w->file && du_writer_failed(w->file);
}

static du_err finish_file(du_st_writer *w) {
    du_err err = w->file ? du_writer_commit(w->file, &w->trouble) : DU_OK;
    du_writer_close(w->file);
    w->file = NULL;
    return err;
}

/* The tensor handed out last is whole; otherwise a sticky failure. */
static bool newest_is_whole(du_st_writer *w) {
    if (w->i_next > 0 && w->n_written != w->entries[w->i_next - 1].n_bytes) {
        const entry *e = &w->entries[w->i_next - 1];
        du_fail(&w->trouble, DU_EINVAL, "%.80s: %zu bytes written of %zu", e->name, w->n_written,
                e->n_bytes);
        return false;
    }
    return true;
}

int64_t du_st_writer_next(du_st_writer *w) {
    if (w->trouble.code != DU_OK || file_failed(w) || !newest_is_whole(w) || w->i_next == w->n) {
        return -1;
    }
    const entry *e = &w->entries[w->i_next];
    if (w->i_next == 0 || e->i_shard != e[-1].i_shard) {
        if (finish_file(w) != DU_OK || open_shard(w, w->i_next) != DU_OK) {
            return -1;
        }
    }
    w->i_next++;
    w->n_written = 0;
    return e->i;
}

void du_st_write(du_st_writer *w, const void *bytes, size_t n) {
    if (!w->file || w->trouble.code != DU_OK) {
        return;
    }
    size_t left = w->entries[w->i_next - 1].n_bytes - w->n_written;
    if (n > left) {
        du_fail(&w->trouble, DU_EINVAL, "%.80s: more bytes than its shape needs",
                w->entries[w->i_next - 1].name);
        return;
    }
    du_write(w->file, bytes, n);
    w->n_written += n;
}

static du_err write_index(const du_st_writer *w, du_diag *diag) {
    uint64_t total = 0;
    for (size_t i = 0; i < w->n; i++) {
        total += w->entries[i].n_bytes;
    }
    du_str s = {0};
    du_str_addf(&s, "{\n  \"metadata\": {\"total_size\": %" PRIu64 "},\n  \"weight_map\": {",
                total);
    for (size_t i = 0; i < w->n; i++) {
        du_str_addf(&s, "%s\n    \"%s\": \"", i ? "," : "", w->entries[i].name);
        add_file_name(&s, w, w->entries[i].i_shard);
        du_str_add_c(&s, '"');
    }
    du_str_add_s(&s, "\n  }\n}\n");
    du_str name = {0};
    du_str_addf(&name, "%s.safetensors.index.json", w->stem);
    char *path = name.failed ? NULL : du_path_join(w->dir, name.data);
    du_writer *file = NULL;
    du_err err =
        s.failed || !path ? du_fail_nomem(diag, w->dir) : du_writer_open(&file, path, diag);
    if (err == DU_OK) {
        du_write(file, s.data, s.len);
        err = du_writer_commit(file, diag);
    }
    du_writer_close(file);
    du_free(path);
    du_str_done(&name);
    du_str_done(&s);
    return err;
}

du_err du_st_writer_commit(du_st_writer *w, du_diag *diag) {
    if (w->trouble.code == DU_OK && !file_failed(w) && newest_is_whole(w) && w->i_next < w->n) {
        du_fail(&w->trouble, DU_EINVAL, "%.80s: its data is missing", w->entries[w->i_next].name);
    }
    if (w->trouble.code == DU_OK) {
        finish_file(w);
    }
    if (w->trouble.code != DU_OK) {
        return du_fail(diag, w->trouble.code, "%s", w->trouble.msg);
    }
    return w->n_shards > 1 ? write_index(w, diag) : DU_OK;
}
