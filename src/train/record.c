#include "train/record.h"

#include <time.h>

#include "base/cpu.h"
#include "base/file.h"
#include "base/json.h"
#include "base/machine.h"

enum { PROCESSES_MAX = 64, MACHINE_BYTES = 128 };

static json_t *this_process(const du_trainer *t) {
    char now[32] = "", machine[MACHINE_BYTES];
    time_t seconds = time(NULL);
    struct tm parts;
    if (gmtime_r(&seconds, &parts)) {
        strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &parts);
    }
    du_machine_name(machine, sizeof machine);
    return json_pack(
        "{s:s, s:I, s:s, s:s, s:s, s:I, s:I}", "time", now, "step", (json_int_t)t->step, "version",
        DURE_VERSION, "machine", machine, "isa", du_isa_name(t->ctx->kern->isa), "threads",
        (json_int_t)du_pool_n_threads(t->ctx->pool), "ranks", (json_int_t)du_ranks_n(t->ranks));
}

static json_t *model_of(const du_trainer *t) {
    const du_model *model = t->params->model;
    const du_hparams *hp = &model->hp;
    du_model_counts counts = du_model_count(model);
    const json_t *name = json_object_get(t->config->model, "model_type");
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "arch",
                     json_is_string(name) ? json_string_value(name) : model->arch->name, "params",
                     (json_int_t)counts.n_params, "params_active",
                     (json_int_t)counts.n_params_active, "params_trained",
                     (json_int_t)t->params->n_weights, "layers", (json_int_t)hp->n_layer, "width",
                     (json_int_t)hp->d_model, "experts", (json_int_t)hp->router.n_expert,
                     "experts_used", (json_int_t)hp->router.n_used);
}

/* The processes that the file tells of; a new array where it tells of none. */
static json_t *processes_of(const char *path) {
    json_t *json = NULL;
    bool read =
        du_file_exists(path) && du_json_load(&json, path, DU_RECORD_BYTES_MAX, NULL) == DU_OK;
    json_t *list = read ? json_incref(json_object_get(json, "processes")) : NULL;
    json_decref(json);
    if (json_is_array(list)) {
        return list;
    }
    json_decref(list);
    return json_array();
}

du_err du_record_add(const char *dir, const du_trainer *t, du_diag *diag) {
    char *path = du_path_join(dir, DU_RECORD_FILE);
    if (!path) {
        return du_fail_nomem(diag, DU_RECORD_FILE);
    }
    json_t *list = processes_of(path);
    bool failed = json_array_append_new(list, this_process(t)) != 0;
    while (json_array_size(list) > PROCESSES_MAX) {
        json_array_remove(list, 1);
    }
    json_t *all = json_pack("{s:o, s:o, s:I, s:o}", "config", du_train_config_given(t->config),
                            "model", model_of(t), "tokens",
                            (json_int_t)du_loader_n_tokens(t->passes.data), "processes", list);
    du_err err = failed || !all ? du_fail_nomem(diag, path) : du_json_save(all, path, diag);
    json_decref(all);
    du_free(path);
    return err;
}
