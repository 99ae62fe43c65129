#include "cli/answer.h"

#include <errno.h>

#include "cli/interrupt.h"

du_cli_answer du_cli_answer_start(bool show_content, bool show_reasoning) {
    return (du_cli_answer){.content = du_cli_sink_of(stdout),
                           .reasoning = du_cli_sink_of(stderr),
                           .show_content = show_content,
                           .show_reasoning = show_reasoning};
}

static void begin_reasoning(du_cli_answer *answer) {
    fputs(du_cli_style_code(stderr, DU_CLI_DIM), stderr);
    fputs("[thinking]\n", stderr);
    answer->in_reasoning = true;
}

static void end_reasoning(du_cli_answer *answer) {
    du_cli_sink_end_line(&answer->reasoning);
    fputs("[/thinking]\n", stderr);
    fputs(du_cli_style_code(stderr, DU_CLI_PLAIN), stderr);
    fflush(stderr);
    answer->in_reasoning = false;
}

static void flush_content(du_cli_answer *answer) {
    if ((fflush(stdout) != 0 || ferror(stdout)) && !answer->error) {
        answer->error = errno ? errno : EIO;
    }
}

bool du_cli_answer_text(void *user, du_sv reasoning, du_sv content) {
    du_cli_answer *answer = user;
    if (answer->show_reasoning && reasoning.len > 0) {
        if (!answer->in_reasoning) {
            begin_reasoning(answer);
        }
        du_cli_sink_write(&answer->reasoning, reasoning);
        fflush(stderr);
    }
    if (content.len > 0 && answer->in_reasoning) {
        end_reasoning(answer);
    }
    if (content.len > 0 && answer->show_content) {
        du_cli_sink_write(&answer->content, content);
        flush_content(answer);
    }
    return answer->error || du_cli_interrupted();
}

bool du_cli_answer_prompt(void *user, int64_t n_done, int64_t n_all) {
    (void)user, (void)n_done, (void)n_all;
    return du_cli_interrupted();
}

du_err du_cli_answer_end(du_cli_answer *answer, du_diag *diag) {
    if (answer->in_reasoning) {
        end_reasoning(answer);
    }
    if (answer->show_content) {
        du_cli_sink_end_line(&answer->content);
        flush_content(answer);
    }
    return answer->error
               ? du_fail(diag, DU_EIO, "standard output: cannot write: %s", strerror(answer->error))
               : DU_OK;
}

void du_cli_answer_speed(const du_generation *g) {
    int64_t n_prompt = g->n_computed, n_answer = (int64_t)g->tokens.n;
    fprintf(stderr, "%s[prompt %lld tokens", du_cli_style_code(stderr, DU_CLI_DIM),
            (long long)n_prompt);
    if (g->prompt_s > 0) {
        fprintf(stderr, ", %.1f tok/s", (double)n_prompt / g->prompt_s);
    }
    fprintf(stderr, "; answer %lld tokens", (long long)n_answer);
    if (g->decode_s > 0) {
        fprintf(stderr, ", %.1f tok/s", (double)n_answer / g->decode_s);
    }
    fprintf(stderr, "]%s\n", du_cli_style_code(stderr, DU_CLI_PLAIN));
}
