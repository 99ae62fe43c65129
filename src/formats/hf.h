/* A Hugging Face model directory: its JSON files, chat templates, and where the weights are. What
 * the keys mean is left to those who read them. */
#ifndef DU_FORMATS_HF_H
#define DU_FORMATS_HF_H

#include <jansson.h>
#include <stdint.h>

#include "base/err.h"

enum {
    DU_HF_CONFIG_BYTES_MAX = 4 << 20,      /* config.json, generation_config.json */
    DU_HF_TOKENIZER_BYTES_MAX = 128 << 20, /* tokenizer.json, tokenizer_config.json */
    DU_HF_TEMPLATE_BYTES_MAX = 4 << 20,    /* a chat template */
};

typedef struct du_hf du_hf;

/* Opens a directory and reads its small files; each may be absent, but one of config.json and
 * tokenizer.json is there.
 * out  new handle, free with du_hf_close; untouched on failure
 * Returns DU_OK, DU_ENOENT, DU_EIO, DU_EFORMAT (naming the file), DU_ELIMIT, DU_ENOMEM. */
DU_NODISCARD
du_err du_hf_open(du_hf **out, const char *dir, du_diag *diag);
void du_hf_close(du_hf *hf); /* takes NULL */

const char *du_hf_dir(const du_hf *hf);

/* JSON objects, borrowed; NULL: no such file. */
const json_t *du_hf_config(const du_hf *hf);
const json_t *du_hf_generation_config(const du_hf *hf);
const json_t *du_hf_tokenizer_config(const du_hf *hf);

/* Parses tokenizer.json, which is large and needed once: json_decref *out.
 * Returns DU_OK, DU_ENOENT when there is none, and the errors of du_hf_open. */
DU_NODISCARD
du_err du_hf_load_tokenizer(json_t **out, const du_hf *hf, du_diag *diag);

/* Chat templates: from chat_template.jinja, else chat_template.json, else tokenizer_config.json; a
 * text alone is named "default", a list has names. Borrowed, terminated UTF-8. */
int64_t du_hf_n_templates(const du_hf *hf);
const char *du_hf_template_name(const du_hf *hf, int64_t i);
const char *du_hf_template(const du_hf *hf, int64_t i);
const char *du_hf_template_find(const du_hf *hf, const char *name); /* NULL: absent */

/* Fails for a folder with adapter_config.json, saying how it becomes a model: for who found none
 * there. Returns DU_OK, DU_ENOENT, DU_ENOMEM. */
DU_NODISCARD
du_err du_hf_refuse_adapter(const char *dir, du_diag *diag);

/* Fails for the folder of a training run, naming its last checkpoint. Returns DU_OK, DU_ENOENT,
 * DU_EIO (no folder), DU_ENOMEM. */
DU_NODISCARD
du_err du_hf_refuse_run(const char *dir, du_diag *diag);

/* The path to give to du_st_open: model.safetensors, or its index; NULL: neither is there. */
const char *du_hf_weights_path(const du_hf *hf);

#endif
