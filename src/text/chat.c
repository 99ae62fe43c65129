#include "text/chat.h"

#include "base/json.h"
#include "base/mem.h"
#include "text/jinja.h"
#include "text/reasoning.h"

struct du_chat {
    du_jinja *template;
    du_chat_features features;
};

/* The prompt of one plain question, to see how it ends; a template that does not want it opens
 * nothing. */
static du_err find_opening(du_chat *chat) {
    du_str prompt = {0};
    json_t *messages = json_pack("[{ss, ss}]", "role", "user", "content", "?");
    json_t *tokens = json_pack("{ss, ss}", "bos_token", "", "eos_token", "");
    du_chat_input input = {
        .messages = messages, .vars = tokens, .add_generation_prompt = true, .now_s = 1};
    du_err err = messages && tokens ? du_chat_render(chat, &input, &prompt, NULL) : DU_ENOMEM;
    chat->features.opens_thinking =
        err == DU_OK && du_reasoning_start_of(du_str_get(&prompt), prompt.len) == DU_REASONING_OPEN;
    du_str_done(&prompt);
    json_decref(messages);
    json_decref(tokens);
    return err == DU_ENOMEM ? DU_ENOMEM : DU_OK;
}

static du_err find_features(du_chat *chat, du_sv text) {
    static const char *const switches[] = {"enable_thinking", "thinking"};
    du_chat_features *f = &chat->features;
    f->tools = du_jinja_reads(chat->template, "tools");
    for (size_t i = 0; !f->thinking_var && i < sizeof switches / sizeof switches[0]; i++) {
        f->thinking_var = du_jinja_reads(chat->template, switches[i]) ? switches[i] : NULL;
    }
    f->thinking = du_sv_find(text, du_sv_of("</think>"), 0) >= 0 ||
                  du_sv_find(text, du_sv_of("<think>"), 0) >= 0;
    return f->thinking ? find_opening(chat) : DU_OK;
}

du_err du_chat_open(du_chat **out, const char *text, size_t len, const char *name, du_diag *diag) {
    du_chat *chat = du_alloc_zero(1, sizeof *chat);
    if (!chat) {
        return du_fail_nomem(diag, name);
    }
    du_err err = du_jinja_parse(&chat->template, text, len, name, diag);
    if (err == DU_OK && find_features(chat, (du_sv){text, len}) != DU_OK) {
        err = du_fail_nomem(diag, name);
    }
    if (err != DU_OK) {
        du_chat_close(chat);
        return err;
    }
    *out = chat;
    return DU_OK;
}

void du_chat_close(du_chat *chat) {
    if (chat) {
        du_jinja_free(chat->template);
        du_free(chat);
    }
}

const du_chat_features *du_chat_get_features(const du_chat *chat) {
    return &chat->features;
}

/* vars[key] = value, a new reference of it; without a value: null unless it is there. */
static bool set_var(json_t *vars, const char *key, const json_t *value) {
    if (value) {
        return json_object_set_new(vars, key, du_json_copy(value)) == 0;
    }
    return json_object_get(vars, key) || json_object_set_new(vars, key, json_null()) == 0;
}

static json_t *make_vars(const du_chat_input *input) {
    json_t *vars = input->vars ? du_json_copy(input->vars) : json_object();
    if (vars && set_var(vars, "messages", input->messages) &&
        set_var(vars, "tools", input->tools) && set_var(vars, "documents", input->documents) &&
        json_object_set_new(vars, "add_generation_prompt",
                            json_boolean(input->add_generation_prompt)) == 0) {
        return vars;
    }
    json_decref(vars);
    return NULL;
}

du_err du_chat_render(const du_chat *chat, const du_chat_input *input, du_str *out, du_diag *diag) {
    if (!json_is_array(input->messages)) {
        return du_fail(diag, DU_EINVAL, "the messages are no JSON array");
    }
    json_t *vars = make_vars(input);
    if (!vars) {
        return du_fail_nomem(diag, "the variables of a chat template");
    }
    du_jinja_options options = {.now_s = input->now_s};
    du_err err = du_jinja_render(chat->template, vars, &options, out, diag);
    json_decref(vars);
    return err;
}

du_err du_chat_add_message(json_t *messages, const char *role, const char *text, size_t len,
                           du_diag *diag) {
    json_t *content = json_stringn(text, len);
    if (!content) {
        return du_fail(diag, DU_EINVAL, "the %s's message is no valid UTF-8", role);
    }
    json_t *message = json_pack("{ss, so}", "role", role, "content", content);
    if (!message || json_array_append_new(messages, message) != 0) {
        return du_fail_nomem(diag, "a message");
    }
    return DU_OK;
}
