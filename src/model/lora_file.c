/* Adapters on the disk, in the peft library's format (its versions 0.5 to 0.21):
 *
 *     adapter_config.json        {"peft_type": "LORA", "r", "lora_alpha", "target_modules", ...}
 *     adapter_model.safetensors  base_model.model.MODULE.lora_A.weight [r,K], .lora_B.weight [N,r]
 *
 *     ROUTER.weight, ROUTER.e_score_correction_bias     with "modules_to_save": ["mlp.gate"]
 *
 * The scale is lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora. Of the other keys those
 * that change what an adapter computes must be unset. Rows of B are in Hugging Face's order, where
 * those of the model's file may have the halves of rotated heads interleaved. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/str.h"
#include "formats/hf.h"
#include "model/convert_int.h"
#include "model/lora.h"
#include "model/lora_int.h"

enum { CONFIG_BYTES_MAX = 64 << 20 };

#define WEIGHTS_FILE "adapter_model.safetensors"
#define CONFIG_FILE  "adapter_config.json"

/* Row r of the tensor in a file is this row of the values. */
static int64_t row_of(const du_params *p, const du_param *t, bool is_b, int64_t r) {
    const du_hparams *hp = &p->model->hp;
    bool interleaved = t->def->order != DU_ROWS_SAME && hp->rope_layout == DU_ROPE_NORM;
    return is_b && interleaved ? du_rope_row(hp, r, false) : r;
}

static int64_t n_biases(const du_params *p) {
    return p->n - 2 * p->n_adapters;
}

/* The matrix of the router with that bias. */
static const du_mat *router_of(const du_params *p, const du_param *bias) {
    return &du_model_block(p->model, bias->layer)->router;
}

/* "PREFIX.mlp.gate.weight" of a router; out is as long as a tensor's name. */
static const char *router_name(char out[DU_WEIGHT_NAME_BYTES], const du_param *bias) {
    const char *dot = strrchr(bias->name, '.');
    snprintf(out, DU_WEIGHT_NAME_BYTES, "%.*s.weight", (int)(dot - bias->name), bias->name);
    return out;
}

/* The tensors: those of p, and behind them the matrices of routers with a bias there. */
static void put_tensors(du_st_writer *w, const du_params *p) {
    for (int64_t i = 0; i < p->n; i++) {
        const du_param *t = &p->at[i];
        bool bias = i >= 2 * p->n_adapters;
        int64_t dims[2] = {bias ? t->cols : t->rows, t->cols};
        du_st_put_tensor(w, t->name, DU_F32, bias ? 1 : 2, dims);
    }
    for (int64_t i = 2 * p->n_adapters; i < p->n; i++) {
        char name[DU_WEIGHT_NAME_BYTES];
        const du_mat *router = router_of(p, &p->at[i]);
        int64_t dims[2] = {router->rows, router->cols};
        du_st_put_tensor(w, router_name(name, &p->at[i]), DU_F32, 2, dims);
    }
}

static void write_tensor(du_st_writer *w, const du_params *p, int64_t i, float *row) {
    if (i >= p->n) {
        const du_mat *router = router_of(p, &p->at[i - n_biases(p)]);
        for (int64_t r = 0; r < router->rows; r++) {
            du_mat_unpack_row(row, router, r);
            du_st_write(w, row, (size_t)router->cols * sizeof *row);
        }
        return;
    }
    const du_param *t = &p->at[i];
    bool is_b = i < 2 * p->n_adapters && i % 2 == 1;
    for (int64_t r = 0; r < t->rows; r++) {
        const float *values = p->values + t->offset + row_of(p, t, is_b, r) * t->cols;
        du_st_write(w, values, (size_t)t->cols * sizeof *values);
    }
}

static du_err write_weights(const du_params *p, const char *dir, du_diag *diag) {
    du_st_writer *w = NULL;
    int64_t i;
    du_err err = du_st_writer_new(&w, diag);
    if (err != DU_OK) {
        return err;
    }
    float *row = du_alloc_array((size_t)p->model->hp.d_model, sizeof *row); /* of a router */
    du_st_writer_name(w, "adapter_model");
    put_tensors(w, p);
    err = row ? du_st_writer_begin(w, dir, INT64_MAX, diag) : du_fail_nomem(diag, WEIGHTS_FILE);
    while (err == DU_OK && (i = du_st_writer_next(w)) >= 0) {
        write_tensor(w, p, i, row);
    }
    du_free(row);
    err = err ? err : du_st_writer_commit(w, diag);
    du_st_writer_close(w);
    return err;
}

/* "MODULE" of a tensor's name, without the prefix and the ending. */
static du_sv module_of(const char *tensor) {
    size_t n = strlen(DU_LORA_PREFIX);
    return (du_sv){tensor + n, strlen(tensor) - n - strlen(DU_LORA_A)};
}

static bool has_text(const json_t *list, du_sv text) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (du_sv_is(text, json_string_value(json_array_get(list, i)))) {
            return true;
        }
    }
    return false;
}

static bool add_text(json_t *list, du_sv text) {
    return has_text(list, text) || json_array_append_new(list, json_stringn(text.s, text.len)) == 0;
}

/* What the peft library is to look for: the names that were given, or of all layers their last
 * parts. NULL: no memory. */
static json_t *json_of_targets(const du_params *p, const char *targets) {
    json_t *list = json_array();
    bool good = list != NULL, all = du_lora_is_all(targets);
    du_sv name;
    while (good && !all && du_lora_next_target(&targets, &name)) {
        good = add_text(list, name);
    }
    for (int64_t i = 0; good && all && i < p->n_adapters; i++) {
        du_sv module = module_of(p->at[2 * i].name);
        const char *dot = memrchr(module.s, '.', module.len);
        size_t n = dot ? (size_t)(dot + 1 - module.s) : 0;
        good = add_text(list, (du_sv){module.s + n, module.len - n});
    }
    if (!good) {
        json_decref(list);
        return NULL;
    }
    return list;
}

static du_err write_config(const du_params *p, const char *dir, const char *base,
                           const char *targets, double alpha, du_diag *diag) {
    json_t *modules = json_of_targets(p, targets);
    json_t *json =
        modules
            ? json_pack("{s:s, s:s, s:s, s:I, s:f, s:f, s:o, s:s, s:b, s:b, s:b, s:b, s:b, "
                        "s:o, s:{}, s:{}}",
                        "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path",
                        base, "r", (json_int_t)p->at[0].rows, "lora_alpha", alpha, "lora_dropout",
                        0.0, "target_modules", modules, "bias", "none", "fan_in_fan_out", 0,
                        "inference_mode", 1, "init_lora_weights", 1, "use_rslora", 0, "use_dora", 0,
                        "modules_to_save",
                        n_biases(p) > 0 ? json_pack("[s]", DU_LORA_ROUTER) : json_null(),
                        "rank_pattern", "alpha_pattern")
            : NULL;
    char *path = du_path_join(dir, CONFIG_FILE);
    du_err err = json && path ? du_json_save(json, path, diag) : du_fail_nomem(diag, CONFIG_FILE);
    json_decref(json);
    du_free(path);
    return err;
}

du_err du_lora_write(const du_params *p, const char *dir, const char *base, const char *targets,
                     double alpha, du_diag *diag) {
    du_err err = write_weights(p, dir, diag);
    return err ? err : write_config(p, dir, base, targets, alpha, diag);
}

/* null, false, "", "none", [] and {}. */
static bool is_unset(const json_t *value) {
    const char *text = json_string_value(value);
    return !value || json_is_null(value) || json_is_false(value) ||
           (text && (*text == '\0' || strcmp(text, "none") == 0)) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

/* Keys that give an adapter another meaning where they are set. */
static du_err check_unset(const json_t *config, du_diag *diag) {
    static const char *const keys[] = {"rank_pattern",
                                       "alpha_pattern",
                                       "use_dora",
                                       "bias",
                                       "lora_bias",
                                       "fan_in_fan_out",
                                       "layer_replication",
                                       "target_parameters",
                                       "megatron_config",
                                       "trainable_token_indices",
                                       "use_qalora",
                                       "use_bdlora",
                                       "alora_invocation_tokens",
                                       "corda_config",
                                       "loftq_config",
                                       "eva_config",
                                       "arrow_config"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!is_unset(json_object_get(config, keys[i]))) {
            return du_fail(diag, DU_EUNSUPPORTED, "%s is set, which is not supported", keys[i]);
        }
    }
    const json_t *saved = json_object_get(config, "modules_to_save");
    for (size_t i = 0; i < json_array_size(saved); i++) {
        const char *name = json_string_value(json_array_get(saved, i));
        if (!name || strcmp(name, DU_LORA_ROUTER) != 0) {
            return du_fail(diag, DU_EUNSUPPORTED, "modules_to_save is set to more than %s",
                           DU_LORA_ROUTER);
        }
    }
    if (!is_unset(saved) && !json_is_array(saved)) {
        return du_fail(diag, DU_EUNSUPPORTED, "modules_to_save is set and no list");
    }
    const char *init = json_string_value(json_object_get(config, "init_lora_weights"));
    if (init && strcmp(init, "gaussian") != 0 && strcmp(init, "orthogonal") != 0) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "init_lora_weights is '%.40s', which may change the base model", init);
    }
    return DU_OK;
}

static du_err read_config(du_lora *lora, const json_t *config, du_diag *diag) {
    const char *type = "";
    double alpha = NAN;
    bool root = false;
    int64_t rank = 0;
    if (!json_is_object(config)) {
        return du_fail(diag, DU_EFORMAT, "no object");
    }
    du_err err = du_json_get_str(config, "peft_type", &type, diag);
    if (err == DU_OK && strcmp(type, "LORA") != 0) {
        return du_fail(diag, DU_EUNSUPPORTED, "peft_type is '%.40s', not LORA", type);
    }
    err = err ? err : check_unset(config, diag);
    err = err ? err : du_json_get_i64(config, "r", 1, DU_LORA_RANK_MAX, &rank, diag);
    err = err ? err : du_json_get_f64(config, "lora_alpha", &alpha, diag);
    err = err ? err : du_json_get_bool(config, "use_rslora", &root, diag);
    if (err == DU_OK && (rank == 0 || !isfinite(alpha))) {
        return du_fail(diag, DU_EFORMAT, "%s is missing", rank == 0 ? "r" : "lora_alpha");
    }
    if (err == DU_OK) {
        lora->rank = rank;
        lora->scale = alpha / (root ? sqrt((double)rank) : (double)rank);
    }
    return err;
}

static bool has_tensor(const du_lora_file *file, const char *module, const char *ending) {
    char name[DU_WEIGHT_NAME_BYTES + 64];
    snprintf(name, sizeof name, DU_LORA_PREFIX "%s%s", module, ending);
    return du_st_tensor_find(file->st, name) != NULL;
}

static bool is_in_file(const void *user, const char *module) {
    return has_tensor(user, module, DU_LORA_A);
}

static bool has_bias(const void *user, const char *module) {
    return has_tensor(user, module, DU_LORA_BIAS);
}

/* A folder that holds a run is not an adapter, but its checkpoints are. */
static du_err load_config(json_t **out, const char *dir, const char *path, du_diag *diag) {
    bool none = du_dir_exists(dir) && !du_file_exists(path);
    du_err err = none ? du_hf_refuse_run(dir, diag) : DU_OK;
    return err ? err : du_json_load(out, path, CONFIG_BYTES_MAX, diag);
}

du_err du_lora_file_open(du_lora_file *out, const char *dir, du_diag *diag) {
    *out = (du_lora_file){
        .lora = {.wants = is_in_file, .user = out, .wants_bias = has_bias, .next = true}};
    json_t *config = NULL;
    char *config_path = du_path_join(dir, CONFIG_FILE), *path = du_path_join(dir, WEIGHTS_FILE);
    du_err err = config_path && path ? load_config(&config, dir, config_path, diag)
                                     : du_fail_nomem(diag, dir);
    if (err == DU_OK && (err = read_config(&out->lora, config, diag)) != DU_OK) {
        du_diag_context(diag, "%s", config_path);
    }
    err = err ? err : du_st_open(&out->st, path, diag);
    json_decref(config);
    du_free(config_path);
    du_free(path);
    return err;
}

void du_lora_file_close(du_lora_file *file) {
    du_st_close(file->st);
    *file = (du_lora_file){0};
}

static du_err load_tensor(du_params *p, int64_t i, const du_st_tensor *from, du_diag *diag) {
    const du_param *t = &p->at[i];
    bool is_b = i < 2 * p->n_adapters && i % 2 == 1;
    bool fits = i >= 2 * p->n_adapters
                    ? from->n_dims == 1 && from->dims[0] == t->cols
                    : from->n_dims == 2 && from->dims[0] == t->rows && from->dims[1] == t->cols;
    if (!fits || (from->dtype != DU_F32 && from->dtype != DU_F16 && from->dtype != DU_BF16)) {
        return du_fail(diag, DU_EFORMAT, "%s is of another shape or type: [%lld, %lld] is wanted",
                       t->name, (long long)t->rows, (long long)t->cols);
    }
    size_t row_bytes = du_dtype_row_bytes(from->dtype, t->cols);
    for (int64_t r = 0; r < t->rows; r++) {
        float *to = p->values + t->offset + row_of(p, t, is_b, r) * t->cols;
        du_dtype_get(from->dtype)
            ->unpack(to, (const char *)from->data + (size_t)r * row_bytes, t->cols);
        for (int64_t k = 0; k < t->cols; k++) {
            if (!isfinite(to[k])) {
                return du_fail(diag, DU_EFORMAT, "%s is not finite", t->name);
            }
        }
    }
    return DU_OK;
}

/* A router's matrix in a file is the model's, since its bias alone is changed. n_found += 1 where
 * there is one. */
static du_err check_router(const du_params *p, const du_param *bias, const du_st *st,
                           int64_t *n_found, du_diag *diag) {
    char name[DU_WEIGHT_NAME_BYTES];
    const du_mat *router = router_of(p, bias);
    const du_st_tensor *from = du_st_tensor_find(st, router_name(name, bias));
    if (!from) {
        return DU_OK;
    }
    bool same = from->n_dims == 2 && from->dims[0] == router->rows &&
                from->dims[1] == router->cols && from->dtype != DU_DTYPE_COUNT &&
                !du_dtype_is_block(from->dtype) && from->dtype != DU_F8_E4M3;
    size_t row_bytes = same ? du_dtype_row_bytes(from->dtype, router->cols) : 0;
    float *got = du_alloc_array(2 * (size_t)router->cols, sizeof *got);
    if (!got) {
        return du_fail_nomem(diag, name);
    }
    float *want = got + router->cols;
    for (int64_t r = 0; same && r < router->rows; r++) {
        du_dtype_get(from->dtype)
            ->unpack(got, (const char *)from->data + (size_t)r * row_bytes, router->cols);
        du_mat_unpack_row(want, router, r);
        same = memcmp(got, want, (size_t)router->cols * sizeof *got) == 0;
    }
    du_free(got);
    *n_found += 1;
    return same ? DU_OK
                : du_fail(diag, DU_EFORMAT,
                          "%s: %s is not the router of the model: only its bias may be another",
                          du_st_path(st), name);
}

static bool has_param(const du_params *p, const char *name) {
    char router[DU_WEIGHT_NAME_BYTES];
    for (int64_t i = 0; i < p->n; i++) {
        bool bias = i >= 2 * p->n_adapters;
        if (strcmp(p->at[i].name, name) == 0 ||
            (bias && strcmp(router_name(router, &p->at[i]), name) == 0)) {
            return true;
        }
    }
    return false;
}

/* A tensor that belongs to no adapter of the model. */
static du_err check_spare(const du_params *p, const du_st *st, du_diag *diag) {
    int64_t n = p->n;
    for (int64_t i = 2 * p->n_adapters; i < p->n; i++) {
        du_err err = check_router(p, &p->at[i], st, &n, diag);
        if (err != DU_OK) {
            return err;
        }
    }
    for (int64_t i = 0; du_st_n_tensors(st) != n && i < du_st_n_tensors(st); i++) {
        const char *name = du_st_tensor_at(st, i)->name;
        if (!has_param(p, name)) {
            return du_fail(diag, DU_EFORMAT,
                           "%s: %.200s is of no linear layer that the model can have an adapter "
                           "of",
                           du_st_path(st), name);
        }
    }
    return DU_OK;
}

du_err du_lora_load(du_params *p, const du_lora_file *file, du_diag *diag) {
    du_err err = DU_OK;
    for (int64_t i = 0; i < p->n && err == DU_OK; i++) {
        const du_st_tensor *from = du_st_tensor_find(file->st, p->at[i].name);
        err = from ? load_tensor(p, i, from, diag)
                   : du_fail(diag, DU_EFORMAT, "%s is missing", p->at[i].name);
        if (err != DU_OK) {
            du_diag_context(diag, "%s", du_st_path(file->st));
        }
    }
    err = err ? err : check_spare(p, file->st, diag);
    if (err == DU_OK && p->n == 0) {
        err = du_fail(diag, DU_EFORMAT, "%s: holds no adapter", du_st_path(file->st));
    }
    return err;
}
