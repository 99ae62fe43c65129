/* Showing an answer while it is generated: the content on standard output, the reasoning apart from
 * it on standard error, dim where that is a terminal. */
#ifndef DU_CLI_ANSWER_H
#define DU_CLI_ANSWER_H

#include "cli/out.h"
#include "infer/generate.h"

typedef struct {
    du_cli_sink content, reasoning;
    bool show_content, show_reasoning;
    bool in_reasoning; /* its heading is out, its end is not */
    int error;         /* errno of the first write to standard output that failed, 0 */
} du_cli_answer;

du_cli_answer du_cli_answer_start(bool show_content, bool show_reasoning);

/* A du_generate_fn over a du_cli_answer: shows the pieces, cancels after an interrupt and when
 * nobody can read the answer. */
bool du_cli_answer_text(void *user, du_sv reasoning, du_sv content);

/* A du_sync_progress_fn: cancels after an interrupt. */
bool du_cli_answer_prompt(void *user, int64_t n_done, int64_t n_all);

/* Ends the line. Returns DU_OK, DU_EIO when a part of the answer was lost. */
DU_NODISCARD
du_err du_cli_answer_end(du_cli_answer *answer, du_diag *diag);

/* Tokens and tokens per second, on standard error. */
void du_cli_answer_speed(const du_generation *g);

#endif
