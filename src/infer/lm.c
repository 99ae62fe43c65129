#include "infer/lm.h"

#include <string.h>

#include "base/file.h"
#include "base/json.h"

du_err du_lm_find_template(const du_gguf *g, const du_hf *hf, const char *name, du_sv *out,
                           du_diag *diag) {
    *out = (du_sv){NULL, 0};
    bool is_default = strcmp(name, "default") == 0;
    if (g) {
        char key[128];
        snprintf(key, sizeof key, "tokenizer.chat_template%s%s", is_default ? "" : ".",
                 is_default ? "" : name);
        return du_gguf_get_str(g, key, out, diag);
    }
    const char *found = du_hf_template_find(hf, name);
    if (!found && is_default && du_hf_n_templates(hf) > 0) {
        found = du_hf_template(hf, 0);
    }
    *out = found ? du_sv_of(found) : *out;
    return DU_OK;
}

static du_err load_chat(du_lm *lm, du_diag *diag) {
    du_sv text;
    const du_weights *files = lm->model->files;
    du_err err =
        du_lm_find_template(du_weights_gguf(files), du_weights_hf(files), "default", &text, diag);
    if (err != DU_OK || !text.s) {
        return err;
    }
    lm->chat_source = du_strndup(text.s, text.len);
    if (!lm->chat_source) {
        return du_fail_nomem(diag, "the chat template");
    }
    du_diag unused;
    du_diag_reset(&unused);
    err = du_chat_open(&lm->chat, text.s, text.len, "the model's chat template", &unused);
    return err == DU_ENOMEM ? du_fail_nomem(diag, "the chat template") : DU_OK;
}

static int64_t add_end(const json_t *id, int32_t *ids, int64_t n, int64_t max) {
    json_int_t v = json_integer_value(id);
    if (n < max && json_is_integer(id) && v >= 0 && v <= INT32_MAX) {
        ids[n++] = (int32_t)v;
    }
    return n;
}

int64_t du_lm_end_tokens(const du_hf *hf, int32_t *ids, int64_t max) {
    const json_t *sources[] = {du_hf_config(hf), du_hf_generation_config(hf)};
    int64_t n = 0;
    for (size_t k = 0; k < sizeof sources / sizeof *sources; k++) {
        json_t *eos = json_object_get(sources[k], "eos_token_id"), *one;
        size_t i;
        n = add_end(eos, ids, n, max);
        json_array_foreach(eos, i, one) {
            n = add_end(one, ids, n, max);
        }
    }
    return n;
}

static du_err read_generation_config(du_sampler_params *out, const du_hf *hf, du_diag *diag) {
    const json_t *config = du_hf_generation_config(hf);
    bool sample = true;
    du_err err = du_json_get_f64(config, "temperature", &out->temperature, diag);
    err = err ? err : du_json_get_f64(config, "top_p", &out->top_p, diag);
    err = err ? err : du_json_get_f64(config, "min_p", &out->min_p, diag);
    err = err ? err : du_json_get_i64(config, "top_k", 0, 1 << 30, &out->top_k, diag);
    err = err ? err : du_json_get_bool(config, "do_sample", &sample, diag);
    if (err != DU_OK) {
        du_diag_context(diag, "%s/generation_config.json", du_hf_dir(hf));
    }
    out->temperature = sample ? out->temperature : 0;
    return err;
}

du_err du_lm_read_sampling(du_sampler_params *out, const du_gguf *g, const du_hf *hf,
                           du_diag *diag) {
    *out = du_sampler_defaults();
    out->temperature = DU_LM_TEMPERATURE;
    out->top_p = DU_LM_TOP_P;
    if (hf) {
        return read_generation_config(out, hf, diag);
    }
    du_err err = du_gguf_get_f64(g, "general.sampling.temp", &out->temperature, diag);
    err = err ? err : du_gguf_get_f64(g, "general.sampling.top_p", &out->top_p, diag);
    err = err ? err : du_gguf_get_f64(g, "general.sampling.min_p", &out->min_p, diag);
    return err ? err : du_gguf_get_i64(g, "general.sampling.top_k", 0, 1 << 30, &out->top_k, diag);
}

/* End tokens that the tokenizer does not know as such. */
static void add_end_tokens(du_lm *lm) {
    const du_hf *hf = du_weights_hf(lm->model->files);
    int32_t ends[DU_LM_END_TOKENS_MAX];
    int64_t n = hf ? du_lm_end_tokens(hf, ends, DU_LM_END_TOKENS_MAX) : 0;
    for (int64_t i = 0; i < n; i++) {
        du_tokenizer_add_eog(lm->tok, ends[i]);
    }
}

static du_err load_tokenizer(du_lm *lm, du_diag *diag) {
    const du_gguf *g = du_weights_gguf(lm->model->files);
    du_err err = g ? du_tokenizer_from_gguf(&lm->tok, g, diag)
                   : du_tokenizer_from_dir(&lm->tok, du_weights_path(lm->model->files), diag);
    if (err != DU_OK) {
        return err;
    }
    /* Ids beyond the embedding would read past it; fewer are padding, as in published models. */
    int32_t n = du_tokenizer_get_info(lm->tok)->n_vocab;
    if (n > lm->model->hp.n_vocab) {
        return du_fail(diag, DU_EFORMAT, "%s: the tokenizer has %d tokens, the embedding %lld rows",
                       du_weights_path(lm->model->files), n, (long long)lm->model->hp.n_vocab);
    }
    return DU_OK;
}

static bool has_tokenizer(const du_weights *files) {
    char *path =
        du_weights_hf(files) ? du_path_join(du_weights_path(files), "tokenizer.json") : NULL;
    bool has = !path || du_file_exists(path);
    du_free(path);
    return has;
}

static du_err open_model(du_lm **out, du_weights *files, bool ids_only, du_diag *diag) {
    du_lm *lm = du_alloc_zero(1, sizeof *lm);
    if (!lm) {
        du_weights_close(files);
        return du_fail_nomem(diag, "the model");
    }
    du_err err = du_model_load(&lm->model, files, diag);
    if (err == DU_OK && (!ids_only || has_tokenizer(files))) {
        err = load_tokenizer(lm, diag);
    }
    err = err ? err : load_chat(lm, diag);
    err = err ? err
              : du_lm_read_sampling(&lm->sampling, du_weights_gguf(files), du_weights_hf(files),
                                    diag);
    if (err != DU_OK) {
        du_lm_close(lm);
        return err;
    }
    if (lm->tok) {
        add_end_tokens(lm);
    }
    *out = lm;
    return DU_OK;
}

du_err du_lm_open(du_lm **out, const char *path, du_diag *diag) {
    du_weights *files;
    du_err err = du_weights_open(&files, path, diag);
    return err == DU_OK ? open_model(out, files, false, diag) : err;
}

du_err du_lm_open_ids(du_lm **out, const char *path, du_diag *diag) {
    du_weights *files;
    du_err err = du_weights_open(&files, path, diag);
    return err == DU_OK ? open_model(out, files, true, diag) : err;
}

du_err du_lm_open_memory(du_lm **out, const void *bytes, size_t len, const char *what,
                         du_diag *diag) {
    du_weights *files;
    du_err err = du_weights_open_memory(&files, bytes, len, what, diag);
    return err == DU_OK ? open_model(out, files, false, diag) : err;
}

void du_lm_close(du_lm *lm) {
    if (!lm) {
        return;
    }
    du_chat_close(lm->chat);
    du_free(lm->chat_source);
    du_tokenizer_free(lm->tok);
    du_model_close(lm->model);
    du_free(lm);
}

du_err du_lm_set_template(du_lm *lm, const char *text, size_t len, const char *name,
                          du_diag *diag) {
    du_chat *chat;
    du_err err = du_chat_open(&chat, text, len, name, diag);
    if (err != DU_OK) {
        return err;
    }
    char *source = du_strndup(text, len);
    if (!source) {
        du_chat_close(chat);
        return du_fail_nomem(diag, "the chat template");
    }
    du_chat_close(lm->chat);
    du_free(lm->chat_source);
    lm->chat = chat;
    lm->chat_source = source;
    return DU_OK;
}

json_t *du_lm_template_vars(const du_tokenizer *tok, const json_t *vars) {
    const du_tokenizer_info *info = du_tokenizer_get_info(tok);
    const struct {
        const char *name;
        int32_t id;
    } tokens[] = {{"bos_token", info->bos},
                  {"eos_token", info->eos},
                  {"pad_token", info->pad},
                  {"unk_token", info->unk}};
    json_t *all = vars ? du_json_copy(vars) : json_object();
    for (size_t i = 0; all && i < sizeof tokens / sizeof *tokens; i++) {
        if (tokens[i].id < 0 || json_object_get(all, tokens[i].name)) {
            continue;
        }
        du_sv text = du_tokenizer_text(tok, tokens[i].id);
        if (json_object_set_new(all, tokens[i].name, json_stringn_nocheck(text.s, text.len)) != 0) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

du_err du_lm_apply_chat(const du_lm *lm, const json_t *messages, const json_t *tools,
                        const json_t *vars, du_str *prompt, du_ids *ids, du_diag *diag) {
    if (!lm->chat_source) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "the model has no chat template: use --raw, or give one with --template");
    }
    if (!lm->chat) {
        du_chat *chat; /* say what could not be parsed */
        du_err err = du_chat_open(&chat, lm->chat_source, strlen(lm->chat_source),
                                  "the model's chat template", diag);
        if (err == DU_OK) {
            du_chat_close(chat);
        }
        return err;
    }
    json_t *all = du_lm_template_vars(lm->tok, vars);
    if (!all) {
        return du_fail_nomem(diag, "the chat template");
    }
    size_t start = prompt->len;
    du_chat_input input = {
        .messages = messages, .tools = tools, .vars = all, .add_generation_prompt = true};
    du_err err = du_chat_render(lm->chat, &input, prompt, diag);
    json_decref(all);
    if (err != DU_OK) {
        return err;
    }
    du_sv text = {du_str_get(prompt) + start, prompt->len - start};
    return du_tokenizer_encode_prompt(lm->tok, text, DU_ENCODE_SPECIAL, ids, diag);
}
