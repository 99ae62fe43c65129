#include "cli/prompt.h"

#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "cli/ids.h"

du_cli_status du_cli_add_vars(json_t *vars, const du_opt_list *items, du_diag *diag) {
    for (size_t i = 0; i < items->n; i++) {
        const char *text = items->items[i], *equals = strchr(text, '=');
        if (!equals || equals == text) {
            return du_cli_misuse(diag, "--var %s: not NAME=JSON, as in enable_thinking=false",
                                 text);
        }
        json_t *value;
        du_err err = du_json_parse(&value, equals + 1, strlen(equals + 1), "--var", diag);
        if (err != DU_OK) {
            du_diag_context(diag, "%s", text);
            return err == DU_ENOMEM ? DU_CLI_FAILED : DU_CLI_USAGE;
        }
        char *name = du_strndup(text, (size_t)(equals - text));
        int failed = !name || json_object_set_new(vars, name, value) != 0;
        du_free(name);
        if (failed) {
            return du_cli_fail(du_fail(diag, DU_EINVAL, "--var %s: the name is no UTF-8", text));
        }
    }
    return DU_CLI_DONE;
}

du_err du_cli_text_ids(du_ids *out, const du_tokenizer *tok, const char *path, du_diag *diag) {
    char *text;
    size_t len;
    du_err err = du_cli_text_read(&text, &len, path, diag);
    if (err != DU_OK) {
        return err;
    }
    err = len > 0 ? du_tokenizer_encode_prompt(tok, (du_sv){text, len}, 0, out, diag)
                  : du_fail(diag, DU_EFORMAT, "%s: holds no text", du_cli_path_name(path));
    du_free(text);
    return err;
}

/* vars with the template's switch set; NULL when memory is short. */
static json_t *with_switch(const json_t *vars, const char *name, du_cli_thinking thinking) {
    json_t *all = du_json_copy(vars);
    if (name && thinking != DU_CLI_THINKING_AUTO &&
        json_object_set_new(all, name, json_boolean(thinking == DU_CLI_THINKING_ON)) != 0) {
        json_decref(all);
        return NULL;
    }
    return all;
}

/* What goes behind the prompt of a template without a switch. */
static const char *forced_tail(const du_chat_features *features, du_reasoning_start start,
                               du_cli_thinking thinking) {
    if (features->thinking_var || !features->thinking || start == DU_REASONING_CLOSED) {
        return "";
    }
    if (thinking == DU_CLI_THINKING_OFF) {
        return start == DU_REASONING_OPEN ? "\n</think>\n\n" : "<think>\n\n</think>\n\n";
    }
    return thinking == DU_CLI_THINKING_ON && start == DU_REASONING_AUTO ? "<think>\n" : "";
}

du_err du_cli_chat_prompt(const du_lm *lm, const json_t *messages, const json_t *vars,
                          du_cli_thinking thinking, du_ids *ids, du_reasoning_start *start,
                          du_diag *diag) {
    static const du_chat_features none;
    const du_chat_features *features = lm->chat ? du_chat_get_features(lm->chat) : &none;
    json_t *all = with_switch(vars, features->thinking_var, thinking);
    if (!all) {
        return du_fail_nomem(diag, "the chat template");
    }
    du_str prompt = {0};
    du_err err = du_lm_apply_chat(lm, messages, NULL, all, &prompt, ids, diag);
    json_decref(all);
    if (err == DU_OK) {
        *start = du_reasoning_start_of(du_str_get(&prompt), prompt.len);
        du_sv tail = du_sv_of(forced_tail(features, *start, thinking));
        err = du_tokenizer_encode(lm->tok, tail, DU_ENCODE_SPECIAL, ids, diag);
        du_str_add_sv(&prompt, tail);
        *start = du_reasoning_start_of(du_str_get(&prompt), prompt.len);
    }
    du_str_done(&prompt);
    return err;
}
