/* A checkpoint is made as step-000200.tmp and renamed once it is whole; one that goes is renamed to
 * step-000200.old first. So a process that is killed leaves whole checkpoints and folders that
 * du_checkpoint_clean knows by name. Only files that a checkpoint has are ever removed, and of a
 * folder with another one none. */
#include "train/checkpoint_dir.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/companions.h"

char *du_checkpoint_name(char *out, int64_t step) {
    snprintf(out, DU_CHECKPOINT_NAME_BYTES, "step-%06" PRId64, step);
    return out;
}

char *du_checkpoint_path(const char *out, int64_t step, const char *ending) {
    char name[DU_CHECKPOINT_NAME_BYTES + 8];
    du_checkpoint_name(name, step);
    size_t n = strlen(name);
    snprintf(name + n, sizeof name - n, "%s", ending);
    return du_path_join(out, name);
}

/* The step in the name of a checkpoint's folder; -1: it is none. */
static int64_t step_of(const char *name) {
    char again[DU_CHECKPOINT_NAME_BYTES];
    int64_t step;
    bool good = sscanf(name, "step-%10" SCNd64, &step) == 1 && step > 0 &&
                strcmp(du_checkpoint_name(again, step), name) == 0;
    return good ? step : -1;
}

bool du_checkpoint_has_name(const char *name) {
    static const char *const names[] = {"config.json",
                                        "state.json",
                                        "state.safetensors",
                                        "model.safetensors",
                                        "model.safetensors.index.json",
                                        "adapter_model.safetensors",
                                        DU_CHECKPOINT_ADAPTER_CONFIG};
    char whole[64];
    const char *tmp = strstr(name, ".tmp-");
    size_t n = tmp && strlen(tmp) == 13 ? (size_t)(tmp - name) : strlen(name);
    snprintf(whole, sizeof whole, "%.*s", (int)(n < sizeof whole ? n : sizeof whole - 1), name);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(whole, names[i]) == 0) {
            return true;
        }
    }
    int i_shard, n_shards, end = 0;
    bool shard = sscanf(whole, "model-%5d-of-%5d.safetensors%n", &i_shard, &n_shards, &end) == 2 &&
                 end == 32 && whole[end] == '\0';
    return shard || du_companions_has_name(whole);
}

/* The names in a folder that holds nothing but files of ours. */
static du_err list_ours(du_names *names, const char *dir, du_diag *diag) {
    du_err err = du_dir_names(names, dir, diag);
    for (size_t i = 0; i < names->n && err == DU_OK; i++) {
        if (!du_checkpoint_has_name(names->items[i])) {
            err = du_fail(diag, DU_EEXIST, "%s: holds %s, which belongs to no checkpoint", dir,
                          names->items[i]);
        }
    }
    return err;
}

du_err du_checkpoint_remove_dir(const char *dir, du_diag *diag) {
    du_names names = {0};
    if (!du_dir_exists(dir)) {
        return DU_OK;
    }
    du_err err = list_ours(&names, dir, diag);
    for (size_t i = 0; i < names.n && err == DU_OK; i++) {
        char *path = du_path_join(dir, names.items[i]);
        err = path ? du_dir_remove(path, diag) : du_fail_nomem(diag, dir);
        du_free(path);
    }
    du_names_done(&names);
    return err ? err : du_dir_remove(dir, diag);
}

du_err du_checkpoint_check_ours(const char *out, int64_t step, du_diag *diag) {
    char *dir = du_checkpoint_path(out, step, "");
    du_names names = {0};
    du_err err = dir ? list_ours(&names, dir, diag) : du_fail_nomem(diag, out);
    du_names_done(&names);
    du_free(dir);
    return err;
}

du_err du_checkpoint_remove(const char *out, int64_t step, du_diag *diag) {
    char *dir = du_checkpoint_path(out, step, ""), *old = du_checkpoint_path(out, step, ".old");
    du_err err = dir && old ? du_checkpoint_check_ours(out, step, diag) : du_fail_nomem(diag, out);
    err = err ? err : du_checkpoint_remove_dir(old, diag);
    err = err ? err : du_dir_rename(dir, old, diag);
    err = err ? err : du_checkpoint_remove_dir(old, diag);
    du_free(dir);
    du_free(old);
    return err;
}

/* Is it a name that a checkpoint has while it is made or removed? */
static bool is_passing(const char *name) {
    char stem[DU_CHECKPOINT_NAME_BYTES];
    du_sv text = du_sv_of(name);
    if (text.len > sizeof stem || (!du_sv_ends(text, ".tmp") && !du_sv_ends(text, ".old"))) {
        return false;
    }
    snprintf(stem, sizeof stem, "%.*s", (int)(text.len - 4), name);
    return step_of(stem) > 0;
}

du_err du_checkpoint_clean(const char *out, du_diag *diag) {
    du_names names = {0};
    du_err err = du_dir_names(&names, out, diag);
    for (size_t i = 0; i < names.n && err == DU_OK; i++) {
        if (is_passing(names.items[i])) {
            char *path = du_path_join(out, names.items[i]);
            err = path ? du_checkpoint_remove_dir(path, diag) : du_fail_nomem(diag, out);
            du_free(path);
        }
    }
    du_names_done(&names);
    return err;
}

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* A folder itself, no link to one. */
static bool is_folder(const char *out, const char *name) {
    char *path = du_path_join(out, name);
    struct stat st;
    bool folder = path && lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
    du_free(path);
    return folder;
}

du_err du_checkpoint_list(int64_t **steps, size_t *n, const char *out, du_diag *diag) {
    du_names names = {0};
    du_err err = du_dir_names(&names, out, diag);
    if (err != DU_OK) {
        return err;
    }
    int64_t *found = du_alloc_array(names.n + 1, sizeof *found);
    size_t n_found = 0;
    for (size_t i = 0; i < names.n && found; i++) {
        int64_t step = step_of(names.items[i]);
        if (step > 0 && is_folder(out, names.items[i])) {
            found[n_found++] = step;
        }
    }
    du_names_done(&names);
    if (!found) {
        return du_fail_nomem(diag, out);
    }
    qsort(found, n_found, sizeof *found, by_number);
    *steps = found;
    *n = n_found;
    return DU_OK;
}

du_err du_checkpoint_prune(const char *out, int64_t step, int64_t best_step, int64_t keep,
                           du_diag *diag) {
    int64_t *steps = NULL;
    size_t n = 0;
    du_err err = du_checkpoint_list(&steps, &n, out, diag);
    int64_t n_before = 0; /* how many are not behind this step */
    for (size_t i = 0; i < n; i++) {
        n_before += steps[i] <= step;
    }
    for (size_t i = 0; i < n && err == DU_OK; i++) {
        bool behind = steps[i] > step, stays = (int64_t)i >= n_before - keep;
        if (behind || (!stays && steps[i] != best_step)) {
            du_diag why;
            du_diag_reset(&why);
            err = du_checkpoint_remove(out, steps[i], &why);
            err = err == DU_EEXIST || err == DU_OK ? DU_OK : du_fail(diag, err, "%s", why.msg);
        }
    }
    du_free(steps);
    return err;
}
