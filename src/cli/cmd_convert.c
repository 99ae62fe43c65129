#include <stdio.h>

#include "cli/cli.h"
#include "cli/compute.h"
#include "cli/out.h"
#include "cli/transfer.h"

enum { KEEP, F32, F16, BF16, Q8_0 };

static int type = KEEP;
static bool mean;
static bool as_json;

static const du_opt opts[] = {
    DU_OPTION_CHOICE(0, "type", "keep|f32|f16|bf16|q8_0", &type,
                     "number type of the matrices (keep: each tensor's own; FP8 becomes BF16)"),
    DU_OPTION_FLAG(0, "mean", &mean,
                   "write the running mean of the weights (IN: a checkpoint of a run with "
                   "ema.decay) instead of the last ones"),
    DU_OPTION_FLAG(0, "json", &as_json, "print a JSON object: output, tensors, bytes, types"),
};

static const struct {
    du_dtype dtype;
    int64_t file_type; /* general.file_type of GGUF files */
} types[] = {[KEEP] = {DU_DTYPE_COUNT, -1},
             [F32] = {DU_F32, 0},
             [F16] = {DU_F16, 1},
             [BF16] = {DU_BF16, 32},
             [Q8_0] = {DU_Q8_0, 7}};

static du_dtype choose(void *user, const du_out_tensor *t) {
    (void)user;
    return type == KEEP ? du_choose_keep(NULL, t) : types[type].dtype;
}

static du_err print(const char *output, const du_convert_stats *stats, du_diag *diag) {
    char buf[24];
    if (as_json) {
        return du_cli_print_json(json_pack("{s:s, s:I, s:I, s:o}", "output", output, "tensors",
                                           (json_int_t)stats->n_tensors, "bytes",
                                           (json_int_t)stats->bytes, "types",
                                           du_cli_json_types(stats)),
                                 diag);
    }
    printf("%s: %lld tensors, %s\n", output, (long long)stats->n_tensors,
           du_cli_bytes(buf, stats->bytes));
    return DU_OK;
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    (void)n_args;
    const char *input = args[0], *output = args[1];
    du_cli_status status =
        du_cli_transfer_check("IN", input, output, type == Q8_0 ? "q8_0" : NULL, diag);
    if (status != DU_CLI_DONE) {
        return status;
    }
    du_model *model = NULL;
    du_convert_stats stats;
    du_err err =
        mean ? du_cli_model_open_mean(&model, input, diag) : du_cli_model_open(&model, input, diag);
    if (err == DU_OK) {
        du_cli_transfer t = {.model = model,
                             .output = output,
                             .label = "convert",
                             .choose = choose,
                             .file_type = types[type].file_type,
                             .n_threads = du_cli_infer_params().n_threads};
        err = du_cli_transfer_run(&t, &stats, diag);
    }
    err = err ? err : print(output, &stats, diag);
    du_model_close(model);
    return du_cli_fail(err);
}

const du_cli_command du_cli_convert = {
    .name = "convert",
    .args = "IN OUT",
    .summary = "write a model in another container",
    .about = "Writes a model into a GGUF file when OUT ends in .gguf, else into a directory of "
             "safetensors; IN is either. Tokenizer and chat templates go with it. Weights are "
             "streamed: a model may be larger than memory. OUT appears under its name when it is "
             "whole.",
    .example = "dure convert ./DeepSeek-V2-Lite v2-lite.gguf --type bf16\n"
               "dure convert v2-lite.gguf ./v2-lite\n"
               "dure convert out/step-002000 mean.gguf --mean",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .computes = DU_CLI_COMPUTES_ALL,
    .n_args_min = 2,
    .n_args_max = 2,
    .run = run,
};
