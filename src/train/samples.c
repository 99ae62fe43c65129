#include "train/samples.h"

#include "base/json.h"
#include "base/mem.h"

static du_err check(const json_t *prompts, du_diag *diag) {
    size_t i;
    json_t *prompt;
    bool good = json_array_size(prompts) > 0;
    json_array_foreach((json_t *)(uintptr_t)prompts, i, prompt) {
        good = good && json_string_length(prompt) > 0;
    }
    return good ? DU_OK
                : du_fail(diag, DU_EINVAL,
                          "sample.prompt: takes a text, or a JSON array of texts, as in [\"Once\", "
                          "\"옛날\"]");
}

du_err du_samples_prompts(json_t **out, const du_train_config *config, du_diag *diag) {
    const char *text = config->sample.prompt;
    json_t *prompts = NULL;
    *out = NULL;
    if (*text == '\0') {
        return DU_OK;
    }
    du_err err = DU_OK;
    if (*text == '[' || *text == '"') {
        err = du_json_parse(&prompts, text, strlen(text), "sample.prompt", diag);
        err = err == DU_EFORMAT || err == DU_ELIMIT ? DU_EINVAL : err;
        if (json_is_string(prompts)) {
            prompts = json_pack("[o]", prompts);
            err = prompts ? DU_OK : du_fail_nomem(diag, "sample.prompt");
        }
        err = err ? err : check(prompts, diag);
    } else {
        prompts = json_pack("[s]", text);
        err = prompts ? DU_OK : du_fail_nomem(diag, "sample.prompt");
    }
    if (err != DU_OK) {
        json_decref(prompts);
        return err;
    }
    *out = prompts;
    return DU_OK;
}

du_err du_samples_add(du_lines *file, int64_t step, const json_t *prompts, const json_t *texts,
                      du_diag *diag) {
    json_t *samples = json_array();
    bool failed = !samples;
    for (size_t i = 0; !failed && i < json_array_size(prompts); i++) {
        json_t *one = json_pack("{s:O, s:O}", "prompt", json_array_get(prompts, i), "text",
                                json_array_get(texts, i));
        failed = json_array_append_new(samples, one) != 0;
    }
    json_t *line =
        failed ? NULL : json_pack("{s:I, s:O}", "step", (json_int_t)step, "samples", samples);
    du_str_reset(&file->line);
    du_json_add(&file->line, line, JSON_COMPACT);
    du_str_add_c(&file->line, '\n');
    json_decref(samples);
    json_decref(line);
    return du_lines_add(file, step, diag);
}
