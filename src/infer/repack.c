#include "infer/repack.h"

bool du_repack_fits(size_t strips_bytes, int64_t cache_bytes, int64_t available) {
    uint64_t room = (uint64_t)available / 4 * 3;
    return available <= 0 || (strips_bytes <= room && (uint64_t)cache_bytes <= room - strips_bytes);
}

/* "subject: text" to whoever reads notes. */
static void note(const du_repack_watch *watch, const char *subject, const char *text) {
    du_str line = {0};
    du_str_addf(&line, "%s: %s", subject, text);
    if (watch->note) {
        watch->note(watch->user, du_str_get(&line));
    }
    du_str_done(&line);
}

/* Maps the file at path, after writing it where that is needed. */
static du_err use_file(const du_model *model, const du_repack_wish *wish, const char *path,
                       du_diag *diag) {
    const du_repack_watch *watch = &wish->watch;
    du_err err = du_model_strips_map(model, wish->kern, path, diag);
    if (err != DU_ENOENT && err != DU_EFORMAT) {
        return err;
    }
    if (err == DU_EFORMAT) {
        note(watch, diag->msg, "writing it anew");
    }
    du_diag_reset(diag);
    err = du_model_strips_save(model, wish->kern, path, wish->pool, watch->progress, watch->user,
                               diag);
    err = err ? err : du_model_strips_map(model, wish->kern, path, diag);
    if (err == DU_OK) {
        note(watch, path, "holds the repacked weights; it may be removed at any time");
    }
    return err;
}

/* Whether the weights come from a file now; says why when they do not. */
static bool use_cache(const du_model *model, const du_repack_wish *wish) {
    du_diag diag;
    du_diag_reset(&diag);
    char *path = NULL;
    du_err err = du_model_strips_path(&path, model, &diag);
    err = err ? err : use_file(model, wish, path, &diag);
    if (err != DU_OK) {
        note(&wish->watch, diag.msg, "repacking in memory instead");
    }
    du_free(path);
    return err == DU_OK;
}

du_repack_choice du_repack_choose(const du_model *model, const du_repack_wish *wish) {
    du_repack_choice out = {0};
    bool in_file = wish->how == DU_REPACK_CACHE;
    size_t n_bytes = du_model_strips_bytes(model, wish->kern);
    if (wish->how == DU_REPACK_OFF) {
        return out;
    }
    if (n_bytes == 0) {
        if (in_file) {
            note(&wish->watch, du_weights_path(model->files),
                 "has no weights that this processor wants repacked: nothing to keep");
        }
        return out;
    }
    out.strips = du_model_strips_has_room(model) || (in_file && use_cache(model, wish));
    if (out.strips || !du_repack_fits(n_bytes, wish->cache_bytes, wish->available)) {
        return out;
    }
    du_diag diag;
    du_diag_reset(&diag);
    if (du_model_strips_reserve(model, wish->kern, &diag) != DU_OK) {
        note(&wish->watch, diag.msg, "using the layout of the model's own file");
        return out;
    }
    return (du_repack_choice){.strips = true, .taken = (int64_t)n_bytes};
}
