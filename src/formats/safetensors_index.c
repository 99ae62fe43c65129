/* A safetensors model in shards: model.safetensors.index.json, which says where each tensor lies.
 *
 *     {"metadata": {"total_size": 28}, "weight_map": {"name": "model-00001-of-00002.safetensors"}}
 *
 * The map is walked twice: first each file it names is opened, once, in the order of its first
 * mention; then every tensor has to be in the file that the map says. The files lie beside the
 * index: a name that leads elsewhere is refused. */
#include <inttypes.h>

#include "base/json_walk.h"
#include "formats/safetensors_int.h"

enum { ENTRY_BYTES_MAX = 8 * DU_ST_NAME_BYTES_MAX };

/* The next name and file of the map, borrowed from *entry, which the caller releases; NULL at the
 * end. */
static du_err next_pair(du_json_walk *walk, json_t **entry, const char **name, const char **file,
                        du_diag *diag) {
    du_sv member;
    du_err err = du_json_walk_next(walk, &member, diag);
    *entry = NULL;
    if (err != DU_OK || member.len == 0) {
        return err;
    }
    if (member.len > ENTRY_BYTES_MAX) {
        return du_fail(diag, DU_ELIMIT, "%s: an entry of %zu bytes (at most %d)", walk->what,
                       member.len, ENTRY_BYTES_MAX);
    }
    err = du_json_walk_parse(entry, walk, member, diag);
    if (err != DU_OK) {
        return err;
    }
    void *at = json_object_iter(*entry);
    *name = json_object_iter_key(at);
    *file = json_string_value(json_object_iter_value(at));
    if (!*file || strchr(*file, '/') || !du_sv_ends(du_sv_of(*file), ".safetensors")) {
        err = du_fail(diag, DU_EFORMAT,
                      "%s: %.200s: lies in something that is no .safetensors file beside the index",
                      walk->what, *name);
        json_decref(*entry);
        *entry = NULL;
    }
    return err;
}

/* The text of the object under "weight_map". */
static du_err find_map(du_sv *out, du_sv text, const char *path, du_diag *diag) {
    static const char key[] = "\"weight_map\"";
    du_json_walk walk = {.text = text, .what = path};
    *out = (du_sv){0};
    for (;;) {
        du_sv member;
        du_err err = du_json_walk_next(&walk, &member, diag);
        if (err != DU_OK) {
            return err;
        }
        if (member.len == 0) {
            return out->s ? DU_OK : du_fail(diag, DU_EFORMAT, "%s: no weight_map", path);
        }
        if (!du_sv_starts(member, key)) {
            continue;
        }
        size_t from = sizeof key - 1;
        while (from < member.len && memchr(" \t\r\n", member.s[from], 4)) {
            from++;
        }
        if (from == member.len || member.s[from++] != ':' || out->s) {
            return du_fail(diag, DU_EFORMAT, "%s: weight_map: twice, or without a value", path);
        }
        *out = (du_sv){member.s + from, member.len - from};
    }
}

/* Opens a file of the map unless it is open already. */
static du_err add_file(du_st *st, du_hash *files, const char *file, du_diag *diag) {
    if (du_hash_find(files, du_sv_of(file))) {
        return DU_OK;
    }
    if (st->n_shards >= DU_ST_SHARDS_MAX) {
        return du_fail(diag, DU_ELIMIT, "%s: more than %d files", st->path, DU_ST_SHARDS_MAX);
    }
    const char *slash = strrchr(st->path, '/');
    du_str path = {0};
    du_str_add(&path, st->path, slash ? (size_t)(slash + 1 - st->path) : 0);
    size_t n_dir = path.len;
    du_str_add_s(&path, file);
    du_err err =
        path.failed ? du_fail_nomem(diag, file) : du_st_add_file(st, du_str_get(&path), diag);
    du_str_done(&path);
    if (err == DU_OK) {
        const char *kept = st->shards[st->n_shards - 1].path + n_dir;
        if (du_hash_add(files, du_sv_of(kept), st->n_shards - 1) != DU_OK) {
            err = du_fail_nomem(diag, file);
        }
    }
    return err;
}

static du_err check_entry(const du_st *st, const du_hash *files, const char *name, const char *file,
                          du_diag *diag) {
    const du_st_tensor *t = du_st_tensor_find(st, name);
    if (!t || t->i_shard != *du_hash_find(files, du_sv_of(file))) {
        return du_fail(diag, DU_EFORMAT, "%s: %.200s: not in %s", st->path, name, file);
    }
    return DU_OK;
}

/* Once over the map: opens its files, or with `check` looks up its tensors. */
static du_err walk_map(du_st *st, du_sv map, int64_t offset, du_hash *files, bool check,
                       du_diag *diag) {
    du_json_walk walk = {.text = map, .what = st->path, .offset = offset};
    for (;;) {
        json_t *entry;
        const char *name = NULL, *file = NULL;
        du_err err = next_pair(&walk, &entry, &name, &file, diag);
        if (err != DU_OK || !entry) {
            return err;
        }
        err = check ? check_entry(st, files, name, file, diag) : add_file(st, files, file, diag);
        json_decref(entry);
        if (err != DU_OK) {
            return err;
        }
    }
}

du_err du_st_add_indexed(du_st *st, du_diag *diag) {
    du_map file = {0};
    du_hash files = {0};
    du_sv map;
    du_err err = du_map_open(&file, st->path, diag);
    if (err != DU_OK) {
        return err;
    }
    du_sv text = {(const char *)file.data, file.len};
    if (file.len > DU_ST_INDEX_BYTES_MAX) {
        err = du_fail(diag, DU_ELIMIT, "%s: an index of %zu bytes (at most %d)", st->path, file.len,
                      DU_ST_INDEX_BYTES_MAX);
    } else {
        err = find_map(&map, text, st->path, diag);
    }
    int64_t offset = err == DU_OK ? map.s - text.s : 0;
    if (err == DU_OK) {
        err = walk_map(st, map, offset, &files, false, diag);
    }
    if (err == DU_OK) {
        err = walk_map(st, map, offset, &files, true, diag);
    }
    if (err == DU_OK && st->n_shards == 0) {
        err = du_fail(diag, DU_EFORMAT, "%s: its weight_map is empty", st->path);
    }
    du_hash_done(&files);
    du_map_close(&file);
    return err;
}
