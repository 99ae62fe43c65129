#include "formats/companions.h"

#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "formats/hf.h"

static const char *const file_names[] = {"tokenizer.json",        "tokenizer_config.json",
                                         "tokenizer.model",       "special_tokens_map.json",
                                         "chat_template.jinja",   "chat_template.json",
                                         "generation_config.json"};
static const char *const id_keys[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
enum {
    N_NAMES = sizeof file_names / sizeof *file_names,
    N_KEYS = sizeof id_keys / sizeof *id_keys
};

void du_companions_done(du_companions *c) {
    for (size_t i = 0; i < c->n; i++) {
        du_free(c->files[i].name);
        du_free(c->files[i].bytes);
    }
    du_free(c->files);
    json_decref(c->config);
    *c = (du_companions){0};
}

bool du_companions_has_name(const char *name) {
    for (size_t i = 0; i < N_NAMES; i++) {
        if (strcmp(name, file_names[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Takes over bytes, also on failure. */
static du_err add(du_companions *c, const char *name, char *bytes, size_t n, du_diag *diag) {
    void *files = c->files;
    bool grown = du_grow(&files, &c->cap, c->n, sizeof *c->files);
    c->files = files;
    du_companion file = {.name = grown ? du_strdup(name) : NULL, .bytes = bytes, .n = n};
    if (!file.name || !bytes) {
        du_free(file.name);
        du_free(bytes);
        return du_fail_nomem(diag, name);
    }
    c->files[c->n++] = file;
    return DU_OK;
}

du_err du_companions_add(du_companions *c, const char *name, const void *bytes, size_t n,
                         du_diag *diag) {
    return add(c, name, du_strndup(bytes, n), n, diag);
}

du_err du_companions_add_json(du_companions *c, const char *name, const json_t *value,
                              du_diag *diag) {
    du_str text = {0};
    du_err err = du_json_text(&text, value, name, diag);
    size_t n = text.len;
    if (err != DU_OK) {
        du_str_done(&text);
        return err;
    }
    return add(c, name, du_str_take(&text), n, diag);
}

du_err du_companions_set(du_companions *c, const char *key, json_t *value, du_diag *diag) {
    c->config = c->config ? c->config : json_object();
    bool failed = !c->config || !value;
    if (failed) {
        json_decref(value);
    }
    failed = failed || json_object_set_new(c->config, key, value) != 0;
    return failed ? du_fail_nomem(diag, "config.json") : DU_OK;
}

/* A file that need not be there. */
static du_err read_file(du_companions *c, const char *dir, const char *name, du_diag *diag) {
    char *path = du_path_join(dir, name), *bytes = NULL;
    size_t n = 0;
    du_err err = path ? DU_OK : du_fail_nomem(diag, name);
    if (path && du_file_exists(path)) {
        err = du_file_read(&bytes, &n, path, DU_HF_TOKENIZER_BYTES_MAX, diag);
        err = err ? err : add(c, name, bytes, n, diag);
    }
    du_free(path);
    return err;
}

du_err du_companions_read(du_companions *c, const char *dir, du_diag *diag) {
    du_err err = DU_OK;
    for (size_t i = 0; i < N_NAMES && err == DU_OK; i++) {
        err = read_file(c, dir, file_names[i], diag);
    }
    return err;
}

du_err du_companions_take_ids(du_companions *c, const json_t *config, du_diag *diag) {
    du_err err = DU_OK;
    for (size_t i = 0; i < N_KEYS && err == DU_OK; i++) {
        json_t *value = json_object_get(config, id_keys[i]);
        if (value) {
            err = du_companions_set(c, id_keys[i], json_incref(value), diag);
        }
    }
    return err;
}

static du_err write_file(const du_companion *file, const char *dir, du_diag *diag) {
    char *path = du_path_join(dir, file->name);
    du_writer *w = NULL;
    du_err err = path ? du_writer_open(&w, path, diag) : du_fail_nomem(diag, file->name);
    if (err == DU_OK) {
        du_write(w, file->bytes, file->n);
        err = du_writer_commit(w, diag);
        du_writer_close(w);
    }
    du_free(path);
    return err;
}

du_err du_companions_write(const du_companions *c, const char *dir, du_diag *diag) {
    du_err err = DU_OK;
    for (size_t i = 0; i < c->n && err == DU_OK; i++) {
        err = write_file(&c->files[i], dir, diag);
    }
    return err;
}
