#include <stdio.h>

#include "base/file.h"
#include "cli/cli.h"
#include "cli/compute.h"
#include "cli/interrupt.h"
#include "cli/out.h"
#include "cli/prompt.h"
#include "model/imatrix.h"

static const char *output;
static bool as_json;

static const du_opt opts[] = {
    DU_OPTION_STR('o', "output", "OUT.gguf", &output, "the importance matrix to write"),
    DU_OPTION_FLAG(0, "json", &as_json,
                   "print a JSON object: output, n_tokens, n_chunks, experts, experts_unused"),
};

/* Runs the text in chunks of the context, without keeping logits. */
static du_err listen(du_cli_runner *runner, const du_ids *ids, du_diag *diag) {
    int64_t n = (int64_t)ids->n, chunk = du_infer_n_ctx(runner->infer);
    du_cli_progress bar = du_cli_progress_start("imatrix", n);
    du_err err = DU_OK;
    du_cli_interrupt_catch(true);
    for (int64_t start = 0; start < n && err == DU_OK; start += chunk) {
        int64_t part = n - start < chunk ? n - start : chunk;
        du_session_truncate(runner->session, 0);
        err = du_session_sync(runner->session, ids->ids + start, part, NULL, NULL, diag);
        du_cli_progress_set(&bar, start + part);
        err = !err && du_cli_interrupted() ? DU_ECANCELLED : err;
    }
    du_cli_progress_end(&bar);
    return err;
}

static du_err print(const du_imatrix *im, int64_t n_tokens, int64_t n_chunks, du_diag *diag) {
    int64_t n_experts, n_unused;
    du_imatrix_experts(im, &n_experts, &n_unused);
    if (as_json) {
        return du_cli_print_json(json_pack("{s:s, s:I, s:I, s:I, s:I}", "output", output,
                                           "n_tokens", (json_int_t)n_tokens, "n_chunks",
                                           (json_int_t)n_chunks, "experts", (json_int_t)n_experts,
                                           "experts_unused", (json_int_t)n_unused),
                                 diag);
    }
    printf("%s: %lld tokens in %lld chunks\n", output, (long long)n_tokens, (long long)n_chunks);
    if (n_unused > 0) {
        printf("%lld of %lld expert matrices were never used: take a longer or more varied text\n",
               (long long)n_unused, (long long)n_experts);
    }
    return DU_OK;
}

static du_err collect(du_cli_runner *runner, const char *path, du_diag *diag) {
    du_ids ids = {0};
    du_imatrix *im = NULL;
    du_err err = du_cli_text_ids(&ids, runner->lm->tok, path, diag);
    err = err ? err : du_imatrix_new(&im, runner->lm->model, diag);
    if (err == DU_OK) {
        int64_t chunk = du_infer_n_ctx(runner->infer);
        int64_t n_chunks = ((int64_t)ids.n + chunk - 1) / chunk;
        du_infer_set_tap(runner->infer, du_imatrix_tap, im);
        err = listen(runner, &ids, diag);
        err = err ? err : du_imatrix_save(im, output, path, n_chunks, chunk, diag);
        err = err ? err : print(im, (int64_t)ids.n, n_chunks, diag);
    }
    du_imatrix_free(im);
    du_ids_done(&ids);
    return err;
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    if (!output) {
        return du_cli_misuse(diag, "-o OUT.gguf is missing");
    }
    du_cli_runner runner = {0};
    du_writer *place; /* whether it can be written is told before the work */
    du_err err = du_writer_open(&place, output, diag);
    if (err == DU_OK) {
        du_writer_close(place);
        err = du_cli_runner_open_chunks(&runner, n_args > 1 ? args[0] : NULL, false, diag);
    }
    err = err ? err : collect(&runner, args[n_args - 1], diag);
    du_cli_runner_close(&runner);
    return du_cli_fail(err);
}

const du_cli_command du_cli_imatrix = {
    .name = "imatrix",
    .args = "[MODEL] FILE",
    .summary = "measure which inputs of the weights matter",
    .about = "Runs a text through a model, in chunks of --ctx tokens (default 512), and writes how "
             "large the inputs of every weight matrix were, column by column. dure quantize "
             "--imatrix spends its accuracy there. The file is in the form that llama.cpp reads "
             "and writes.",
    .example = "dure imatrix model.gguf text.txt -o imatrix.gguf",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .computes = DU_CLI_COMPUTES_ALL,
    .n_args_min = 1,
    .n_args_max = 2,
    .run = run,
};
