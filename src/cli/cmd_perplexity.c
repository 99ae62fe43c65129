#include <math.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/compute.h"
#include "cli/ids.h"
#include "cli/interrupt.h"
#include "cli/out.h"
#include "cli/prompt.h"

static bool as_json, tokens;

static const du_opt opts[] = {
    DU_OPTION_FLAG(0, "tokens", &tokens,
                   "FILE holds token ids separated by white space, used as they stand"),
    DU_OPTION_FLAG(0, "json", &as_json, "print a JSON object: n_tokens, nll, ppl, n_scored, ctx"),
};

typedef struct {
    const du_ids *ids;
    int64_t V;
    int64_t start, end; /* the chunk */
    double sum;         /* of -log p */
    int64_t n_scored;
    du_cli_progress bar;
} scores;

/* A du_row_fn: the logits after token start + i predict the next one. */
static bool score_row(void *user, int64_t i, const float *logits) {
    scores *s = user;
    int64_t next = s->start + i + 1;
    if (next < s->end) {
        s->sum -= du_log_softmax_at(logits, s->V, s->ids->ids[next]);
        s->n_scored++;
    }
    du_cli_progress_set(&s->bar, next);
    return du_cli_interrupted();
}

static du_err score(scores *s, du_cli_runner *runner, du_diag *diag) {
    int64_t n = (int64_t)s->ids->n, chunk = du_infer_n_ctx(runner->infer);
    du_err err = DU_OK;
    du_cli_interrupt_catch(true);
    for (s->start = 0; s->start < n && err == DU_OK; s->start += chunk) {
        s->end = s->start + chunk < n ? s->start + chunk : n;
        du_session_truncate(runner->session, 0);
        err = du_session_sync_rows(runner->session, s->ids->ids + s->start, s->end - s->start, 0,
                                   score_row, s, diag);
    }
    du_cli_progress_end(&s->bar);
    if (err == DU_OK && s->n_scored == 0) {
        err = du_fail(diag, DU_EINVAL, "nothing to score: %lld tokens in chunks of %lld",
                      (long long)n, (long long)chunk);
    }
    return err;
}

static du_err print(const scores *s, int64_t chunk, du_diag *diag) {
    double nll = s->sum / (double)s->n_scored;
    if (as_json) {
        return du_cli_print_json(json_pack("{s:I, s:f, s:f, s:I, s:I}", "n_tokens",
                                           (json_int_t)s->ids->n, "nll", nll, "ppl", exp(nll),
                                           "n_scored", (json_int_t)s->n_scored, "ctx",
                                           (json_int_t)chunk),
                                 diag);
    }
    printf("tokens      %zu, %lld of them scored in chunks of %lld\n", s->ids->n,
           (long long)s->n_scored, (long long)chunk);
    printf("nll         %.6f\n", nll);
    printf("perplexity  %.4f\n", exp(nll));
    return DU_OK;
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    const char *path = args[n_args - 1];
    du_cli_runner runner;
    du_ids ids = {0};
    du_err err = du_cli_runner_open_chunks(&runner, n_args > 1 ? args[0] : NULL, tokens, diag);
    if (err == DU_OK) {
        err = tokens ? du_cli_ids_read(&ids, path, diag)
                     : du_cli_text_ids(&ids, runner.lm->tok, path, diag);
    }
    if (err == DU_OK) {
        scores s = {.ids = &ids,
                    .V = runner.lm->model->hp.n_vocab,
                    .bar = du_cli_progress_start("perplexity", (int64_t)ids.n)};
        err = score(&s, &runner, diag);
        err = err ? err : print(&s, du_infer_n_ctx(runner.infer), diag);
    }
    du_ids_done(&ids);
    du_cli_runner_close(&runner);
    return du_cli_fail(err);
}

const du_cli_command du_cli_perplexity = {
    .name = "perplexity",
    .args = "[MODEL] FILE",
    .summary = "how well a model predicts a text",
    .about = "Cuts the text's tokens into chunks of --ctx tokens (default 512) and prints the mean "
             "negative natural logarithm of the probability of every token but the first of each "
             "chunk, and its exponential, the perplexity. The text starts with the token that the "
             "tokenizer puts in front of a sequence, if it does.",
    .example = "dure perplexity model.gguf text.txt --ctx 256 --json",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .computes = DU_CLI_COMPUTES_ALL,
    .n_args_min = 1,
    .n_args_max = 2,
    .run = run,
};
