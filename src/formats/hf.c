/* Hugging Face model directories.
 *
 *     config.json                     hyper-parameters
 *     generation_config.json          sampling defaults, end tokens
 *     tokenizer.json                  vocabulary, merges, pre-tokenizer
 *     tokenizer_config.json           special tokens; "chat_template": text, or [{name, template}]
 *     chat_template.jinja             newer place of the template, goes before the others
 *     chat_template.json              {"chat_template": text}
 *     model.safetensors               the weights, or
 *     model.safetensors.index.json    where in model-0000I-of-0000N.safetensors they are
 *
 * Every file may be absent in some model; here they are read and checked to be what their names say
 * (JSON objects, templates without NUL), nothing more. */
#include "formats/hf.h"

#include <string.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

typedef struct {
    char *name, *text;
} chat_template;

struct du_hf {
    char *dir;
    json_t *config, *generation_config, *tokenizer_config; /* NULL: absent */
    chat_template *templates;
    size_t n_templates, cap_templates;
    char *weights_path;
};

/* Loads dir/name, a JSON object; *out stays NULL when there is no such file. */
static du_err load_object(json_t **out, const du_hf *hf, const char *name, size_t limit,
                          du_diag *diag) {
    char *path = du_path_join(hf->dir, name);
    if (!path) {
        return du_fail_nomem(diag, name);
    }
    json_t *value = NULL;
    du_err err = du_file_exists(path) ? du_json_load(&value, path, limit, diag) : DU_OK;
    if (value && !json_is_object(value)) {
        err = du_fail(diag, DU_EFORMAT, "%s: no JSON object", path);
        json_decref(value);
        value = NULL;
    }
    du_free(path);
    *out = value;
    return err;
}

/* Adds a template; text of len bytes is copied. file is for messages. */
static du_err add_template(du_hf *hf, const char *name, const char *text, size_t len,
                           const char *file, du_diag *diag) {
    if (len > DU_HF_TEMPLATE_BYTES_MAX || memchr(text, '\0', len)) {
        return du_fail(diag, len > DU_HF_TEMPLATE_BYTES_MAX ? DU_ELIMIT : DU_EFORMAT,
                       "%s/%s: a chat template of %zu bytes (at most %d), or one that holds a NUL",
                       hf->dir, file, len, DU_HF_TEMPLATE_BYTES_MAX);
    }
    if (du_hf_template_find(hf, name)) {
        return du_fail(diag, DU_EFORMAT, "%s/%s: two chat templates named %.80s", hf->dir, file,
                       name);
    }
    void *templates = hf->templates;
    bool grown = du_grow(&templates, &hf->cap_templates, hf->n_templates, sizeof *hf->templates);
    hf->templates = templates;
    chat_template t = {du_strdup(name), du_strndup(text, len)};
    if (!grown || !t.name || !t.text) {
        du_free(t.name);
        du_free(t.text);
        return du_fail_nomem(diag, "a chat template");
    }
    hf->templates[hf->n_templates++] = t;
    return DU_OK;
}

/* Adds what stands under "chat_template": a text, or a list of named ones. */
static du_err add_json_templates(du_hf *hf, const json_t *object, const char *file, du_diag *diag) {
    const json_t *value = json_object_get(object, "chat_template");
    if (!value || json_is_null(value)) {
        return DU_OK;
    }
    if (json_is_string(value)) {
        return add_template(hf, "default", json_string_value(value), json_string_length(value),
                            file, diag);
    }
    size_t i;
    const json_t *item;
    du_err err = DU_OK;
    json_array_foreach(value, i, item) {
        const json_t *name = json_object_get(item, "name");
        const json_t *text = json_object_get(item, "template");
        if (!json_is_string(name) || !json_is_string(text)) {
            break;
        }
        err = add_template(hf, json_string_value(name), json_string_value(text),
                           json_string_length(text), file, diag);
        if (err != DU_OK) {
            return err;
        }
    }
    if (!json_is_array(value) || i < json_array_size(value)) {
        return du_fail(diag, DU_EFORMAT,
                       "%s/%s: chat_template: neither a text nor a list of names and templates",
                       hf->dir, file);
    }
    return DU_OK;
}

static du_err add_jinja_file(du_hf *hf, du_diag *diag) {
    static const char file[] = "chat_template.jinja";
    char *path = du_path_join(hf->dir, file), *text = NULL;
    size_t len = 0;
    if (!path) {
        return du_fail_nomem(diag, file);
    }
    du_err err = DU_OK;
    if (du_file_exists(path)) {
        err = du_file_read(&text, &len, path, DU_HF_TEMPLATE_BYTES_MAX, diag);
        if (err == DU_OK) {
            err = add_template(hf, "default", text, len, file, diag);
        }
    }
    du_free(text);
    du_free(path);
    return err;
}

/* From the first of the three places that has any. */
static du_err find_templates(du_hf *hf, du_diag *diag) {
    du_err err = add_jinja_file(hf, diag);
    if (err == DU_OK && hf->n_templates == 0) {
        json_t *object = NULL;
        err = load_object(&object, hf, "chat_template.json", DU_HF_TEMPLATE_BYTES_MAX, diag);
        if (err == DU_OK && object) {
            err = add_json_templates(hf, object, "chat_template.json", diag);
        }
        json_decref(object);
    }
    if (err == DU_OK && hf->n_templates == 0) {
        err = add_json_templates(hf, hf->tokenizer_config, "tokenizer_config.json", diag);
    }
    return err;
}

/* Sets *out to dir/name when there is such a file, and leaves it otherwise. */
static du_err find_file(char **out, const du_hf *hf, const char *name, du_diag *diag) {
    char *path = du_path_join(hf->dir, name);
    if (!path) {
        return du_fail_nomem(diag, name);
    }
    if (du_file_exists(path)) {
        *out = path;
    } else {
        du_free(path);
    }
    return DU_OK;
}

static du_err find_weights(du_hf *hf, du_diag *diag) {
    du_err err = find_file(&hf->weights_path, hf, "model.safetensors", diag);
    if (err == DU_OK && !hf->weights_path) {
        err = find_file(&hf->weights_path, hf, "model.safetensors.index.json", diag);
    }
    return err;
}

/* The largest name of the form step-NNNNNN, which checkpoints of a run have; NULL: there is none.
 */
static const char *last_checkpoint(const du_names *names) {
    static const char prefix[] = "step-";
    const char *last = NULL;
    size_t n_last = 0;
    for (size_t i = 0; i < names->n; i++) {
        const char *name = names->items[i], *digits = name + sizeof prefix - 1;
        size_t n = strlen(name);
        if (strncmp(name, prefix, sizeof prefix - 1) == 0 && *digits &&
            strspn(digits, "0123456789") == strlen(digits) && n >= n_last) {
            last = name; /* names are sorted; a longer number is a larger one */
            n_last = n;
        }
    }
    return last;
}

du_err du_hf_refuse_adapter(const char *dir, du_diag *diag) {
    char *path = du_path_join(dir, "adapter_config.json");
    if (!path) {
        return du_fail_nomem(diag, dir);
    }
    bool adapter = du_file_exists(path);
    du_free(path);
    return adapter ? du_fail(diag, DU_ENOENT,
                             "%s: holds an adapter: `dure merge BASE %s NEW` makes a model of it "
                             "and the one it was trained on",
                             dir, dir)
                   : DU_OK;
}

du_err du_hf_refuse_run(const char *dir, du_diag *diag) {
    du_names names = {0};
    du_err err = du_dir_names(&names, dir, diag);
    const char *step = err ? NULL : last_checkpoint(&names);
    if (err == DU_OK && step) {
        err = du_fail(diag, DU_ENOENT,
                      "%s: the folder of a training run: its last checkpoint is %s/%s", dir, dir,
                      step);
    }
    du_names_done(&names);
    return err;
}

/* Says what the folder is, where it is one that a training run leaves. */
static du_err fail_no_model(const char *dir, du_diag *diag) {
    du_err err = du_hf_refuse_run(dir, diag);
    err = err ? err : du_hf_refuse_adapter(dir, diag);
    return err ? err
               : du_fail(diag, DU_ENOENT,
                         "%s: no Hugging Face directory: neither config.json nor tokenizer.json",
                         dir);
}

/* A model has a config.json, a tokenizer alone has not. */
static du_err check_kind(const du_hf *hf, du_diag *diag) {
    char *tokenizer = NULL;
    du_err err = hf->config ? DU_OK : find_file(&tokenizer, hf, "tokenizer.json", diag);
    if (err == DU_OK && !hf->config && !tokenizer) {
        err = fail_no_model(hf->dir, diag);
    }
    du_free(tokenizer);
    return err;
}

static du_err load_all(du_hf *hf, const char *dir, du_diag *diag) {
    hf->dir = du_strdup(dir);
    if (!hf->dir) {
        return du_fail_nomem(diag, dir);
    }
    if (!du_dir_exists(dir)) {
        return du_fail(diag, DU_ENOENT, "%s: no such directory", dir);
    }
    du_err err = load_object(&hf->config, hf, "config.json", DU_HF_CONFIG_BYTES_MAX, diag);
    if (err == DU_OK) {
        err = check_kind(hf, diag);
    }
    if (err == DU_OK) {
        err = load_object(&hf->generation_config, hf, "generation_config.json",
                          DU_HF_CONFIG_BYTES_MAX, diag);
    }
    if (err == DU_OK) {
        err = load_object(&hf->tokenizer_config, hf, "tokenizer_config.json",
                          DU_HF_TOKENIZER_BYTES_MAX, diag);
    }
    if (err == DU_OK) {
        err = find_templates(hf, diag);
    }
    return err == DU_OK ? find_weights(hf, diag) : err;
}

du_err du_hf_open(du_hf **out, const char *dir, du_diag *diag) {
    du_hf *hf = du_alloc_zero(1, sizeof *hf);
    if (!hf) {
        return du_fail_nomem(diag, dir);
    }
    du_err err = load_all(hf, dir, diag);
    if (err != DU_OK) {
        du_hf_close(hf);
        return err;
    }
    *out = hf;
    return DU_OK;
}

void du_hf_close(du_hf *hf) {
    if (!hf) {
        return;
    }
    json_decref(hf->config);
    json_decref(hf->generation_config);
    json_decref(hf->tokenizer_config);
    for (size_t i = 0; i < hf->n_templates; i++) {
        du_free(hf->templates[i].name);
        du_free(hf->templates[i].text);
    }
    du_free(hf->templates);
    du_free(hf->weights_path);
    du_free(hf->dir);
    du_free(hf);
}

du_err du_hf_load_tokenizer(json_t **out, const du_hf *hf, du_diag *diag) {
    json_t *value = NULL;
    du_err err = load_object(&value, hf, "tokenizer.json", DU_HF_TOKENIZER_BYTES_MAX, diag);
    if (err == DU_OK && !value) {
        err = du_fail(diag, DU_ENOENT, "%s: no tokenizer.json", hf->dir);
    }
    if (err == DU_OK) {
        *out = value;
    }
    return err;
}

const char *du_hf_dir(const du_hf *hf) {
    return hf->dir;
}

const json_t *du_hf_config(const du_hf *hf) {
    return hf->config;
}

const json_t *du_hf_generation_config(const du_hf *hf) {
    return hf->generation_config;
}

const json_t *du_hf_tokenizer_config(const du_hf *hf) {
    return hf->tokenizer_config;
}

int64_t du_hf_n_templates(const du_hf *hf) {
    return (int64_t)hf->n_templates;
}

const char *du_hf_template_name(const du_hf *hf, int64_t i) {
    return hf->templates[i].name;
}

const char *du_hf_template(const du_hf *hf, int64_t i) {
    return hf->templates[i].text;
}

const char *du_hf_template_find(const du_hf *hf, const char *name) {
    for (size_t i = 0; i < hf->n_templates; i++) {
        if (strcmp(hf->templates[i].name, name) == 0) {
            return hf->templates[i].text;
        }
    }
    return NULL;
}

const char *du_hf_weights_path(const du_hf *hf) {
    return hf->weights_path;
}
