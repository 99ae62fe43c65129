/* Nothing in the file is trusted when it is read, nor in those that it names: its own checksum,
 * then each value, then lengths and checksums of the others. */
#include "train/train_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "train/checkpoint_dir.h"

static const char format_name[] = "dure training state";
enum { VERSION = 1, STATE_BYTES_MAX = 1 << 20 };

/* Checksum and length of dir/name. */
static du_err sum_file(const char *dir, const char *name, uint64_t *sum, int64_t *n_bytes,
                       du_diag *diag) {
    char *path = du_path_join(dir, name);
    du_map map;
    du_err err = path ? du_map_open(&map, path, diag) : du_fail_nomem(diag, name);
    if (err == DU_OK) {
        *sum = du_checksum(0, map.data, map.len);
        *n_bytes = (int64_t)map.len;
        du_map_close(&map);
    }
    du_free(path);
    return err;
}

enum { SUM_BYTES = 24 };

static const char *sum_text(char out[SUM_BYTES], uint64_t sum) {
    snprintf(out, SUM_BYTES, "%016" PRIx64, sum);
    return out;
}

/* {name: {"bytes", "checksum"}} of all files in the folder. */
static du_err sum_files(json_t **out, const char *dir, du_diag *diag) {
    du_names names = {0};
    json_t *files = json_object();
    du_err err = files ? du_dir_names(&names, dir, diag) : du_fail_nomem(diag, dir);
    for (size_t i = 0; i < names.n && err == DU_OK; i++) {
        uint64_t sum;
        int64_t n_bytes;
        char text[SUM_BYTES];
        err = sum_file(dir, names.items[i], &sum, &n_bytes, diag);
        if (err == DU_OK &&
            json_object_set_new(files, names.items[i],
                                json_pack("{s:I, s:s}", "bytes", (json_int_t)n_bytes, "checksum",
                                          sum_text(text, sum))) != 0) {
            err = du_fail_nomem(diag, dir);
        }
    }
    du_names_done(&names);
    if (err != DU_OK) {
        json_decref(files);
        return err;
    }
    *out = files;
    return DU_OK;
}

/* The checksum of an object, whatever the order of its keys. */
static du_err sum_json(uint64_t *sum, const json_t *value, du_diag *diag) {
    du_str text = {0};
    du_json_add(&text, value, JSON_COMPACT | JSON_SORT_KEYS);
    *sum = du_checksum(0, du_str_get(&text), text.len);
    du_err err = text.failed ? du_fail_nomem(diag, "state.json") : DU_OK;
    du_str_done(&text);
    return err;
}

static json_t *json_of_state(const du_train_state *s, const du_train_config *config,
                             json_t *files) {
    char data[SUM_BYTES], base[SUM_BYTES];
    json_t *best = s->best_step > 0 ? json_pack("{s:I, s:f}", "step", (json_int_t)s->best_step,
                                                "loss", s->best_loss)
                                    : json_null();
    json_t *smooth =
        json_pack("{s:f, s:f, s:I, s:I}", "sum", s->spike.sum, "weight", s->spike.weight, "seen",
                  (json_int_t)s->spike.n_seen, "high", (json_int_t)s->spike.n_high);
    json_t *json =
        json_pack("{s:s, s:i, s:I, s:I, s:s, s:o, s:o, s:o, s:o}", "format", format_name, "version",
                  VERSION, "step", (json_int_t)s->step, "micro_batch", (json_int_t)s->micro_batch,
                  "data", sum_text(data, s->data), "best", best, "smooth", smooth, "config",
                  du_train_config_kept(config), "files", files);
    if (json && s->base != 0 &&
        json_object_set_new(json, "base", json_string(sum_text(base, s->base))) != 0) {
        json_decref(json);
        return NULL;
    }
    return json;
}

du_err du_train_state_write(const du_train_state *state, const du_train_config *config,
                            const char *dir, du_diag *diag) {
    json_t *files = NULL;
    char text[SUM_BYTES], *path = du_path_join(dir, "state.json");
    du_err err = path ? sum_files(&files, dir, diag) : du_fail_nomem(diag, dir);
    if (err != DU_OK) {
        du_free(path);
        return err;
    }
    json_t *json = json_of_state(state, config, files);
    uint64_t sum = 0;
    err = json ? sum_json(&sum, json, diag) : du_fail_nomem(diag, "state.json");
    if (err == DU_OK &&
        json_object_set_new(json, "checksum", json_string(sum_text(text, sum))) != 0) {
        err = du_fail_nomem(diag, "state.json");
    }
    err = err ? err : du_json_save(json, path, diag);
    json_decref(json);
    du_free(path);
    return err;
}

/* The value of a key that must be there, and within [min, max]. */
static du_err need_i64(const json_t *json, const char *key, int64_t min, int64_t max, int64_t *out,
                       du_diag *diag) {
    return json_is_integer(json_object_get(json, key))
               ? du_json_get_i64(json, key, min, max, out, diag)
               : du_fail(diag, DU_EFORMAT, "state.json: %s is missing or no number", key);
}

static du_err need_sum(const json_t *json, const char *key, uint64_t *out, du_diag *diag) {
    const char *text = json_string_value(json_object_get(json, key));
    char again[SUM_BYTES];
    bool good =
        text && sscanf(text, "%16" SCNx64, out) == 1 && strcmp(sum_text(again, *out), text) == 0;
    return good ? DU_OK : du_fail(diag, DU_EFORMAT, "state.json: %s is no checksum", key);
}

/* Takes the checksum out of the object and compares it with that of the rest. */
static du_err check_own_sum(json_t *json, du_diag *diag) {
    char want[SUM_BYTES], got[SUM_BYTES];
    const char *text = json_string_value(json_object_get(json, "checksum"));
    uint64_t sum;
    snprintf(want, sizeof want, "%s", text ? text : "");
    json_object_del(json, "checksum");
    du_err err = sum_json(&sum, json, diag);
    bool same = err == DU_OK && strcmp(want, sum_text(got, sum)) == 0;
    return err == DU_OK && !same ? du_fail(diag, DU_EFORMAT, "state.json: its checksum differs")
                                 : err;
}

/* A checkpoint without it begins anew. */
static du_err read_smooth(du_spike *s, const json_t *json, du_diag *diag) {
    du_err err = du_json_get_f64(json, "sum", &s->sum, diag);
    err = err ? err : du_json_get_f64(json, "weight", &s->weight, diag);
    err = err ? err : du_json_get_i64(json, "seen", 0, INT64_MAX / 2, &s->n_seen, diag);
    err = err ? err : du_json_get_i64(json, "high", 0, INT64_MAX / 2, &s->n_high, diag);
    if (err == DU_OK && (s->weight < 0 || s->weight > 1)) {
        err = du_fail(diag, DU_EFORMAT, "state.json: smooth.weight is not between 0 and 1");
    }
    return err;
}

static du_err read_values(du_train_state *s, const json_t *json, du_diag *diag) {
    const char *format = json_string_value(json_object_get(json, "format"));
    int64_t version = 0;
    if (!format || strcmp(format, format_name) != 0) {
        return du_fail(diag, DU_EFORMAT, "state.json: not the state of a run");
    }
    du_err err = need_i64(json, "version", 0, INT64_MAX, &version, diag);
    if (err == DU_OK && version != VERSION) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "state.json: version %lld, but this program reads version %d",
                       (long long)version, VERSION);
    }
    const json_t *best = json_object_get(json, "best");
    *s = (du_train_state){0};
    err = err ? err : need_i64(json, "step", 1, INT64_MAX, &s->step, diag);
    err = err ? err : need_i64(json, "micro_batch", 0, INT64_MAX, &s->micro_batch, diag);
    err = err ? err : need_sum(json, "data", &s->data, diag);
    err = err ? err : read_smooth(&s->spike, json_object_get(json, "smooth"), diag);
    if (err == DU_OK && json_object_get(json, "base")) {
        err = need_sum(json, "base", &s->base, diag);
    }
    if (err == DU_OK && json_is_object(best)) {
        err = need_i64(best, "step", 1, INT64_MAX, &s->best_step, diag);
        err = err ? err : du_json_get_f64(best, "loss", &s->best_loss, diag);
    }
    return err;
}

static du_err check_file(const char *dir, const char *name, const json_t *said, du_diag *diag) {
    uint64_t sum = 0, want_sum = 0;
    int64_t n_bytes = 0, want = 0;
    if (!du_checkpoint_has_name(name)) {
        return du_fail(diag, DU_EFORMAT, "state.json: %.80s is no file of a checkpoint", name);
    }
    du_err err = need_i64(said, "bytes", 0, INT64_MAX, &want, diag);
    err = err ? err : need_sum(said, "checksum", &want_sum, diag);
    err = err ? err : sum_file(dir, name, &sum, &n_bytes, diag);
    if (err == DU_OK && n_bytes != want) {
        return du_fail(diag, DU_EFORMAT, "%s: %lld bytes instead of %lld", name, (long long)n_bytes,
                       (long long)want);
    }
    return err == DU_OK && sum != want_sum
               ? du_fail(diag, DU_EFORMAT, "%s: its checksum differs", name)
               : err;
}

static du_err check_files(const char *dir, const json_t *files, du_diag *diag) {
    const char *name;
    json_t *said;
    du_err err = DU_OK;
    if (!json_object_get(files, "config.json") &&
        !json_object_get(files, DU_CHECKPOINT_ADAPTER_CONFIG)) {
        return du_fail(diag, DU_EFORMAT, "state.json: no list of files");
    }
    json_object_foreach((json_t *)(uintptr_t)files, name, said) {
        err = err ? err : check_file(dir, name, said, diag);
    }
    return err;
}

du_err du_train_state_read(du_train_state *out, json_t **config, bool *model, const char *dir,
                           int64_t step, du_diag *diag) {
    json_t *json = NULL;
    du_train_state state;
    char *path = du_path_join(dir, "state.json");
    du_err err =
        path ? du_json_load(&json, path, STATE_BYTES_MAX, diag) : du_fail_nomem(diag, "state.json");
    err = err ? err : check_own_sum(json, diag);
    err = err ? err : read_values(&state, json, diag);
    if (err == DU_OK && state.step != step) {
        err = du_fail(diag, DU_EFORMAT, "state.json: that of another step");
    }
    const json_t *files = json_object_get(json, "files");
    err = err ? err : check_files(dir, files, diag);
    if (err == DU_OK) {
        *out = state;
        *config = json_incref(json_object_get(json, "config"));
        *model = json_object_get(files, "config.json");
    }
    json_decref(json);
    du_free(path);
    return err;
}
