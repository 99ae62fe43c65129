/* A checkpoint of a run:
 *
 *     step-000200/
 *         model.safetensors    weights, F32 (or shards and their index)
 *         config.json
 *         tokenizer.json, ...  what goes with them
 *         state.safetensors    what the optimizer has of each weight (checkpoint_tensors.h)
 *         state.json           where the run stands; each other file's length and checksum
 *                              (train_state.h)
 *
 * With lora.rank there are adapter_model.safetensors and adapter_config.json (model/lora.h) instead
 * of the model and its config.json.
 *
 * The bytes depend on the run alone: not on how often it was stopped, on threads, or on where OUT
 * lies. Every file is synced, then the folder, which is renamed (checkpoint_dir.c); then OUT is
 * synced. */
#include "train/checkpoint.h"

#include <string.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/json.h"
#include "formats/hf.h"

/* `before` as in checkpoint_tensors.h. */
static du_err write_all(const char *dir, const du_checkpoint *c, const du_train_state *state,
                        du_err before, du_diag *diag) {
    du_err err = before ? before : du_dir_make(dir, diag);
    err = du_checkpoint_write_model(c, dir, err, diag);
    err = err ? err : du_companions_write(c->companions, dir, diag);
    err = du_checkpoint_write_optim(c, dir, err, diag);
    err = err ? err : du_train_state_write(state, c->config, dir, diag);
    return err ? err : du_dir_sync(dir, diag);
}

/* What rank 0 does. */
static du_err save(const char *out, const du_checkpoint *c, const du_train_state *state,
                   du_diag *diag) {
    char *dir = du_checkpoint_path(out, state->step, ""),
         *tmp = du_checkpoint_path(out, state->step, ".tmp");
    du_err err = dir && tmp ? du_checkpoint_remove_dir(tmp, diag) : du_fail_nomem(diag, out);
    err = write_all(tmp, c, state, err, diag);
    if (err == DU_OK && du_dir_exists(dir)) {
        err = du_checkpoint_remove(out, state->step, diag);
    }
    err = err ? err : du_dir_rename(tmp, dir, diag);
    err = err ? err : du_dir_sync(out, diag);
    if (err != DU_OK && tmp) {
        du_err ignored = du_checkpoint_remove_dir(tmp, NULL); /* room on a full disk */
        (void)ignored;
    }
    du_free(dir);
    du_free(tmp);
    return err;
}

du_err du_checkpoint_save(const char *out, const du_checkpoint *c, const du_train_state *state,
                          du_diag *diag) {
    du_ranks *ranks = c->optim->ranks;
    du_err err;
    if (du_ranks_rank(ranks) == 0) {
        err = save(out, c, state, diag);
    } else {
        err = du_checkpoint_write_model(c, NULL, DU_OK, diag);
        err = du_checkpoint_write_optim(c, NULL, err, diag);
    }
    return du_ranks_agree(ranks, err, diag);
}

static du_err open_saved(du_saved *saved, int64_t step, du_diag *diag) {
    bool model;
    du_err err = du_train_state_read(&saved->state, &saved->config, &model, saved->dir, step, diag);
    if (err != DU_OK || !model) {
        return err;
    }
    char *path = du_path_join(saved->dir, "config.json");
    err = path ? du_json_load(&saved->model_config, path, DU_HF_CONFIG_BYTES_MAX, diag)
               : du_fail_nomem(diag, "config.json");
    du_free(path);
    return err;
}

du_err du_saved_open(du_saved *out, const char *dir_of_run, int64_t step, du_diag *diag) {
    du_saved saved = {.dir = du_checkpoint_path(dir_of_run, step, "")};
    if (!saved.dir) {
        return du_fail_nomem(diag, dir_of_run);
    }
    du_diag why;
    du_diag_reset(&why);
    du_err err = open_saved(&saved, step, &why);
    if (err != DU_OK) {
        (void)du_fail(diag, err, "%s", why.msg);
        if (!strstr(why.msg, saved.dir)) {
            du_diag_context(diag, "%s", saved.dir);
        }
        du_saved_close(&saved);
        return err;
    }
    *out = saved;
    return DU_OK;
}

void du_saved_close(du_saved *saved) {
    du_free(saved->dir);
    json_decref(saved->config);
    json_decref(saved->model_config);
    *saved = (du_saved){0};
}
