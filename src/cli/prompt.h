/* From what the user says to the prompt's tokens. */
#ifndef DU_CLI_PROMPT_H
#define DU_CLI_PROMPT_H

#include <jansson.h>

#include "base/opt.h"
#include "cli/cli.h"
#include "infer/lm.h"
#include "text/reasoning.h"

/* Whether the model is asked to reason: as its template does by itself, or forced either way. */
typedef enum { DU_CLI_THINKING_AUTO, DU_CLI_THINKING_ON, DU_CLI_THINKING_OFF } du_cli_thinking;
#define DU_CLI_THINKING_WORDS "auto|on|off"

/* Adds NAME=JSON items to an object. A text that is not of this form is DU_CLI_USAGE. */
DU_NODISCARD
du_cli_status du_cli_add_vars(json_t *vars, const du_opt_list *items, du_diag *diag);

/* Appends the ids of a text file ("-": standard input), encoded like a prompt.
 * Returns the errors of du_cli_text_read and du_tokenizer_encode_prompt; DU_EFORMAT when there is
 * nothing in it. */
DU_NODISCARD
du_err du_cli_text_ids(du_ids *out, const du_tokenizer *tok, const char *path, du_diag *diag);

/* Appends the ids of the messages' prompt. Where the template has a variable that switches
 * reasoning it is set; where it has none, ON opens a block behind the prompt that does not, and OFF
 * closes one there.
 * vars    object of template variables
 * *start  where the prompt leaves the reasoning
 * Returns the errors of du_lm_apply_chat. */
DU_NODISCARD
du_err du_cli_chat_prompt(const du_lm *lm, const json_t *messages, const json_t *vars,
                          du_cli_thinking thinking, du_ids *ids, du_reasoning_start *start,
                          du_diag *diag);

#endif
