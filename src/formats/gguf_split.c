/* GGUF models in one file or in several.
 *
 * A split model has the keys split.no (from 0) and split.count in every part, its other keys in
 * part 0, and files named PREFIX-00001-of-000NN.gguf, counted from 1. Whichever part is opened, the
 * set is read from part 0 on, and every part has to say that it is the one its name claims. */
#include "formats/gguf.h"

#include <inttypes.h>
#include <stdio.h>

#include "formats/gguf_int.h"

static void part_done(du_gguf_part *part) {
    du_free(part->path);
    du_map_close(&part->map);
    du_free(part->keys);
    du_hash_done(&part->key_index);
}

void du_gguf_close(du_gguf *g) {
    if (!g) {
        return;
    }
    for (int32_t i = 0; i < g->n_parts; i++) {
        part_done(&g->parts[i]);
    }
    du_free(g->parts);
    du_free(g->tensors);
    du_hash_done(&g->tensor_index);
    du_arena_free(g->names);
    du_free(g);
}

void du_gguf_unload(const du_gguf *g, const void *p, size_t n) {
    for (int32_t i = 0; i < g->n_parts; i++) {
        du_map_unload(&g->parts[i].map, p, n);
    }
}

/* Bytes of a part before its first tensor's. *i is the number of the part's first tensor, and then
 * of the next part's. */
static size_t header_bytes(const du_gguf *g, int32_t i_part, int64_t *i) {
    size_t n = g->parts[i_part].len;
    for (; *i < g->n_tensors && g->tensors[*i].i_part == i_part; ++*i) {
        size_t offset = (size_t)g->tensors[*i].offset;
        n = offset < n ? offset : n;
    }
    return n;
}

bool du_gguf_get_stamp(const du_gguf *g, du_gguf_stamp *out) {
    enum { N_SAMPLES = 64, SAMPLE_BYTES = 64 };
    if (!g->parts[0].map.data) {
        return false;
    }
    *out = (du_gguf_stamp){.n_bytes = (uint64_t)du_gguf_file_bytes(g)};
    int64_t next = 0;
    for (int32_t i = 0; i < g->n_parts; i++) {
        const du_gguf_part *part = &g->parts[i];
        out->changed = du_checksum(out->changed, &part->map.changed_ns, sizeof(int64_t));
        out->contents = du_checksum(out->contents, part->bytes, header_bytes(g, i, &next));
    }
    int64_t step = g->n_tensors / N_SAMPLES + 1;
    for (int64_t i = 0; i < g->n_tensors; i += step) {
        const du_gguf_tensor *t = &g->tensors[i];
        size_t n = t->n_bytes < SAMPLE_BYTES ? t->n_bytes : SAMPLE_BYTES;
        const uint8_t *middle = (const uint8_t *)t->data + (t->n_bytes - n) / 2;
        out->contents = du_checksum(out->contents, middle, n);
    }
    return true;
}

static du_err gguf_new(du_gguf **out, du_diag *diag) {
    du_gguf *g = du_alloc_zero(1, sizeof *g);
    if (g) {
        g->names = du_arena_new(0);
    }
    if (!g || !g->names) {
        du_free(g);
        return du_fail_nomem(diag, "a GGUF file");
    }
    *out = g;
    return DU_OK;
}

/* Puts an empty part behind the others. */
static du_err add_part(du_gguf *g, const char *path, du_diag *diag) {
    size_t n = (size_t)g->n_parts + 1;
    du_gguf_part *parts = du_realloc_array(g->parts, n, sizeof *parts);
    if (parts) {
        g->parts = parts;
        parts[n - 1] = (du_gguf_part){.path = du_strdup(path)};
        g->n_parts++;
    }
    return parts && parts[n - 1].path ? DU_OK : du_fail_nomem(diag, path);
}

/* Adds the file at path as the next part. */
static du_err open_part(du_gguf *g, const char *path, du_diag *diag) {
    du_err err = add_part(g, path, diag);
    if (err != DU_OK) {
        return err;
    }
    du_gguf_part *part = &g->parts[g->n_parts - 1];
    err = du_map_open(&part->map, path, diag);
    if (err != DU_OK) {
        return err;
    }
    part->bytes = part->map.data;
    part->len = part->map.len;
    err = du_gguf_parse_part(g, g->n_parts - 1, diag);
    if (err != DU_OK) {
        du_diag_context(diag, "%s", path);
    }
    return err;
}

/* What a part says of itself: part `no` (from 0) of `count`; 0 of 1 when it is no part. */
static du_err read_split(const du_gguf_part *part, int64_t *no, int64_t *count, du_diag *diag) {
    *no = 0;
    *count = 1;
    du_err err = du_gguf_part_get_i64(part, "split.count", 0, DU_GGUF_PARTS_MAX, count, diag);
    if (err == DU_OK && *count == 0) {
        *count = 1;
    }
    if (err == DU_OK) {
        err = du_gguf_part_get_i64(part, "split.no", 0, *count - 1, no, diag);
    }
    if (err != DU_OK) {
        du_diag_context(diag, "%s", part->path);
    }
    return err;
}

enum { SUFFIX_BYTES = 64 };

static void make_suffix(char suffix[SUFFIX_BYTES], int64_t no, int64_t count) {
    snprintf(suffix, SUFFIX_BYTES, "-%05" PRId64 "-of-%05" PRId64 ".gguf", no + 1, count);
}

/* Length of the path before the suffix of part `no`; fails when it has another name. */
static du_err find_prefix(size_t *out, const char *path, int64_t no, int64_t count, du_diag *diag) {
    char suffix[SUFFIX_BYTES];
    make_suffix(suffix, no, count);
    if (!du_sv_ends(du_sv_of(path), suffix)) {
        return du_fail(diag, DU_EFORMAT,
                       "%s: part %" PRId64 " of %" PRId64 " of a model; its name has to end in %s, "
                       "for the other parts to be found",
                       path, no + 1, count, suffix);
    }
    *out = strlen(path) - strlen(suffix);
    return DU_OK;
}

/* Opens part i of the set whose names begin with prefix, and checks that it is that. */
static du_err open_sibling(du_gguf *g, du_sv prefix, int64_t i, int64_t count, du_diag *diag) {
    char suffix[SUFFIX_BYTES];
    make_suffix(suffix, i, count);
    du_str path = {0};
    du_str_add_sv(&path, prefix);
    du_str_add_s(&path, suffix);
    int64_t no = 0, count_there = 0;
    du_err err =
        path.failed ? du_fail_nomem(diag, "a path") : open_part(g, du_str_get(&path), diag);
    if (err == DU_OK) {
        err = read_split(&g->parts[i], &no, &count_there, diag);
    } else {
        du_diag_context(diag, "part %" PRId64 " of %" PRId64, i + 1, count);
    }
    if (err == DU_OK && (no != i || count_there != count)) {
        err = du_fail(diag, DU_EFORMAT,
                      "%s: says that it is part %" PRId64 " of %" PRId64 ", unlike its name",
                      du_str_get(&path), no + 1, count_there);
    }
    du_str_done(&path);
    return err;
}

static du_err check_tensor_count(const du_gguf *g, du_diag *diag) {
    int64_t n = g->n_tensors;
    du_err err = du_gguf_get_i64(g, "split.tensors.count", 0, DU_GGUF_TENSORS_MAX, &n, diag);
    if (err == DU_OK && n != g->n_tensors) {
        err = du_fail(diag, DU_EFORMAT,
                      "%s: split.tensors.count: %" PRId64 " tensors, but its %" PRId32
                      " parts hold %" PRId64,
                      du_gguf_path(g), n, g->n_parts, g->n_tensors);
    }
    return err;
}

/* The whole set, from part 0 on, of which `path` is part `no`. */
static du_err open_set(du_gguf **g, const char *path, int64_t no, int64_t count, du_diag *diag) {
    size_t n_prefix = 0;
    du_err err = find_prefix(&n_prefix, path, no, count, diag);
    if (err == DU_OK && no != 0) {
        du_gguf_close(*g);
        *g = NULL;
        err = gguf_new(g, diag);
    }
    while (err == DU_OK && (*g)->n_parts < count) {
        err = open_sibling(*g, (du_sv){path, n_prefix}, (*g)->n_parts, count, diag);
    }
    return err == DU_OK ? check_tensor_count(*g, diag) : err;
}

du_err du_gguf_open(du_gguf **out, const char *path, du_diag *diag) {
    du_gguf *g = NULL;
    int64_t no = 0, count = 1;
    du_err err = gguf_new(&g, diag);
    if (err == DU_OK) {
        err = open_part(g, path, diag);
    }
    if (err == DU_OK) {
        err = read_split(&g->parts[0], &no, &count, diag);
    }
    if (err == DU_OK && count > 1) {
        err = open_set(&g, path, no, count, diag);
    }
    if (err != DU_OK) {
        du_gguf_close(g);
        return err;
    }
    *out = g;
    return DU_OK;
}

du_err du_gguf_parse(du_gguf **out, const void *bytes, size_t len, const char *what,
                     du_diag *diag) {
    du_gguf *g = NULL;
    int64_t no = 0, count = 1;
    du_err err = gguf_new(&g, diag);
    if (err == DU_OK) {
        err = add_part(g, what, diag);
    }
    if (err == DU_OK) {
        g->parts[0].bytes = bytes;
        g->parts[0].len = len;
        err = du_gguf_parse_part(g, 0, diag);
        if (err != DU_OK) {
            du_diag_context(diag, "%s", what);
        }
    }
    if (err == DU_OK) {
        err = read_split(&g->parts[0], &no, &count, diag);
    }
    if (err == DU_OK && count > 1) {
        err = du_fail(diag, DU_EFORMAT, "%s: one of %" PRId64 " parts of a model", what, count);
    }
    if (err != DU_OK) {
        du_gguf_close(g);
        return err;
    }
    *out = g;
    return DU_OK;
}
