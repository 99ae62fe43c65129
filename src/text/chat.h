/* Chat templates: from messages to the prompt that the model was trained on. */
#ifndef DU_TEXT_CHAT_H
#define DU_TEXT_CHAT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

typedef struct du_chat du_chat;

/* What a template can do, found when it is opened. */
typedef struct {
    bool tools;               /* it reads `tools` */
    bool thinking;            /* it knows <think> blocks */
    bool opens_thinking;      /* a plain question's prompt ends inside an open <think> */
    const char *thinking_var; /* the variable that switches thinking on and off
                                 ("enable_thinking", "thinking"), NULL when there is none */
} du_chat_features;

/* Parses a chat template; the parameters and errors of du_jinja_parse. Free with du_chat_close. */
DU_NODISCARD
du_err du_chat_open(du_chat **out, const char *text, size_t len, const char *name, du_diag *diag);
void du_chat_close(du_chat *chat);

const du_chat_features *du_chat_get_features(const du_chat *chat);

/* All JSON values are borrowed. */
typedef struct {
    const json_t *messages;  /* array of {"role", "content", ...} */
    const json_t *tools;     /* array, NULL: what vars has, otherwise none */
    const json_t *documents; /* the same */
    const json_t *vars;      /* object of further variables (bos_token, eos_token,
                                enable_thinking, ...); NULL: none */
    bool add_generation_prompt;
    int64_t now_s; /* for strftime_now, seconds since 1970; 0: the clock */
} du_chat_input;

/* Appends the prompt to *out (as it was on failure). The errors of du_jinja_render. Thread-safe on
 * one handle. */
DU_NODISCARD
du_err du_chat_render(const du_chat *chat, const du_chat_input *input, du_str *out, du_diag *diag);

/* Appends {"role": role, "content": text} to the array.
 * Returns DU_OK, DU_EINVAL when the text is no UTF-8, DU_ENOMEM. */
DU_NODISCARD
du_err du_chat_add_message(json_t *messages, const char *role, const char *text, size_t len,
                           du_diag *diag);

#endif
