#include "cli/train_sample.h"

#include "base/cpu.h"
#include "base/mem.h"
#include "cli/ids.h"
#include "cli/interrupt.h"
#include "cli/prompt.h"
#include "infer/generate.h"
#include "model/lora.h"

static du_err encode(du_ids *ids, const du_lm *lm, const char *prompt, du_diag *diag) {
    if (!lm->chat) {
        return du_tokenizer_encode_prompt(lm->tok, du_sv_of(prompt), 0, ids, diag);
    }
    json_t *messages = json_array(), *vars = json_object();
    du_reasoning_start start;
    du_err err = du_chat_add_message(messages, "user", prompt, strlen(prompt), diag);
    err =
        err ? err : du_cli_chat_prompt(lm, messages, vars, DU_CLI_THINKING_AUTO, ids, &start, diag);
    json_decref(messages);
    json_decref(vars);
    return err;
}

static bool is_interrupted(void *user, du_sv reasoning, du_sv content) {
    (void)user, (void)reasoning, (void)content;
    return du_cli_interrupted();
}

/* The answer to a prompt, by a runner of just its length; null: the prompt fills the context. */
static du_err answer(json_t *texts, const du_lm *lm, const du_ids *ids, int64_t n_tokens,
                     du_infer_params how, du_diag *diag) {
    int64_t n_ctx = (int64_t)ids->n + n_tokens, most = lm->model->hp.n_ctx_train;
    how.n_ctx = n_ctx < most ? n_ctx : most;
    if ((int64_t)ids->n >= most) {
        return json_array_append_new(texts, json_null()) ? du_fail_nomem(diag, "samples") : DU_OK;
    }
    du_generate_params params = {
        .sampler = du_sampler_defaults(), .n_max = n_tokens, .on_text = is_interrupted};
    du_infer *infer = NULL;
    du_session *session = NULL;
    du_generation g = {0};
    du_err err = du_infer_new(&infer, lm->model, &how, diag);
    err = err ? err : du_session_new(&session, infer, diag);
    err = err ? err : du_generate(&g, session, lm, ids->ids, (int64_t)ids->n, &params, diag);
    if (err == DU_OK && g.finish == DU_FINISH_CANCELLED) {
        err = du_fail(diag, DU_ECANCELLED, "interrupted");
    }
    if (err == DU_OK && json_array_append_new(texts, du_cli_text_json(&g.text)) != 0) {
        err = du_fail_nomem(diag, "samples");
    }
    du_generation_done(&g);
    du_session_free(session);
    du_infer_free(infer);
    return err;
}

/* Folds a checkpoint's adapters into the model; on failure lm has none. */
static du_err adapt(du_lm *lm, const char *checkpoint, du_diag *diag) {
    du_lora_file file;
    du_params *params = NULL;
    du_model *model = lm->model;
    du_err err = du_lora_file_open(&file, checkpoint, diag);
    if (err != DU_OK) {
        return err;
    }
    lm->model = NULL;
    err = du_lora_new(&params, model, &file.lora, diag);
    err = err ? err : du_lora_load(params, &file, diag);
    du_lora_file_close(&file);
    int64_t left = du_mem_available_bytes();
    size_t wanted = err ? 0 : du_lora_folded_bytes(params);
    if (err == DU_OK && left > 0 && wanted > (size_t)left) {
        err = du_fail(diag, DU_ENOMEM, "merged matrices need %.0f MB and %.0f MB are free",
                      (double)wanted * 1e-6, (double)left * 1e-6);
    }
    if (err != DU_OK) {
        du_params_free(params);
        return err;
    }
    return du_lora_fold(&lm->model, params, diag);
}

du_err du_cli_train_sample(const char *checkpoint, const du_train_config *config,
                           const json_t *prompts, json_t *texts, du_infer_params how,
                           du_diag *diag) {
    bool adapters = config->lora.rank > 0;
    du_lm *lm = NULL;
    du_err err = du_lm_open(&lm, adapters ? config->init : checkpoint, diag);
    err = err || !adapters ? err : adapt(lm, checkpoint, diag);
    how.deterministic = true;
    for (size_t i = 0; i < json_array_size(prompts) && err == DU_OK; i++) {
        du_ids ids = {0};
        err = encode(&ids, lm, json_string_value(json_array_get(prompts, i)), diag);
        err = err ? err : answer(texts, lm, &ids, config->sample.tokens, how, diag);
        du_ids_done(&ids);
    }
    du_lm_close(lm);
    return err;
}
