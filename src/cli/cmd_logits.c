#include <stdio.h>

#include "cli/cli.h"
#include "cli/compute.h"
#include "cli/ids.h"
#include "cli/interrupt.h"
#include "cli/out.h"
#include "formats/npy.h"

static const char *tokens_file, *output;
static int64_t n_chunk;

static const du_opt opts[] = {
    DU_OPTION_STR(0, "tokens-file", "FILE", &tokens_file,
                  "token ids separated by white space, used as they stand"),
    DU_OPTION_STR('o', "output", "OUT.npy", &output, "the array to write"),
    DU_OPTION_INT(0, "chunk", "N", &n_chunk, 1, INT32_MAX, "tokens per forward pass (default 256)"),
};

typedef struct {
    du_writer *writer;
    int64_t V, n;
    du_cli_progress bar;
} dump;

/* A du_row_fn. */
static bool write_row(void *user, int64_t i, const float *logits) {
    dump *d = user;
    du_write(d->writer, logits, (size_t)d->V * sizeof *logits);
    du_cli_progress_set(&d->bar, i + 1);
    return du_cli_interrupted() || du_writer_failed(d->writer);
}

static du_err write_logits(du_cli_runner *runner, const du_ids *ids, du_diag *diag) {
    int64_t T = (int64_t)ids->n;
    dump d = {.V = runner->lm->model->hp.n_vocab, .bar = du_cli_progress_start("logits", T)};
    du_err err = du_writer_open(&d.writer, output, diag);
    if (err != DU_OK) {
        return err;
    }
    du_npy_write_header(d.writer, DU_NPY_F32, 2, (int64_t[]){T, d.V});
    du_cli_interrupt_catch(true);
    err = du_session_sync_rows(runner->session, ids->ids, T, 0, write_row, &d, diag);
    du_cli_progress_end(&d.bar);
    if (err == DU_OK || du_writer_failed(d.writer)) {
        err = du_writer_commit(d.writer, diag);
    }
    du_writer_close(d.writer);
    return err;
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    if (!tokens_file || !output) {
        return du_cli_misuse(diag, "%s is missing", tokens_file ? "-o OUT.npy" : "--tokens-file");
    }
    du_ids ids = {0};
    du_cli_runner runner = {0};
    du_err err = du_cli_ids_read(&ids, tokens_file, diag);
    if (err == DU_OK && ids.n == 0) {
        err = du_fail(diag, DU_EFORMAT, "%s: holds no token", tokens_file);
    }
    if (err == DU_OK) {
        du_infer_params params = du_cli_infer_params();
        params.n_chunk = n_chunk;
        params.n_ctx = params.n_ctx > 0 ? params.n_ctx : (int64_t)ids.n;
        err = du_cli_runner_open(&runner, n_args > 0 ? args[0] : NULL, true, &params, diag);
    }
    if (err == DU_OK) {
        err = write_logits(&runner, &ids, diag);
    }
    du_ids_done(&ids);
    du_cli_runner_close(&runner);
    return du_cli_fail(err);
}

const du_cli_command du_cli_logits = {
    .name = "logits",
    .args = "[MODEL]",
    .summary = "write logits for comparison",
    .about =
        "Writes a NumPy array of float32 [T, V]: row t holds the logits after token t of the T "
        "tokens in a file. The ids are used as they stand; none is put in front.",
    .example = "dure logits model.gguf --tokens-file ids.txt -o logits.npy --chunk 64",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .computes = DU_CLI_COMPUTES_ALL,
    .n_args_max = 1,
    .run = run,
};
