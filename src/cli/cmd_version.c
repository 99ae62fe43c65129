#include <jansson.h>

#include "base/cpu.h"
#include "cli/cli.h"
#include "cli/default_model.h"
#include "cli/out.h"

static bool as_json;
static const du_opt opts[] = {
    DU_OPTION_FLAG(0, "json", &as_json, "print a JSON object"),
};

static du_cli_status print_json(size_t model_bytes, du_diag *diag) {
    json_t *levels = json_array();
    for (int isa = 0; isa < DU_ISA_COUNT; isa++) {
        if (du_isa_available((du_isa)isa)) {
            json_array_append_new(levels, json_string(du_isa_name((du_isa)isa)));
        }
    }
    json_t *all =
        json_pack("{s:s, s:o, s:s, s:I}", "version", DURE_VERSION, "isa", levels, "isa_best",
                  du_isa_name(du_isa_best()), "default_model_bytes", (json_int_t)model_bytes);
    return du_cli_fail(du_cli_print_json(all, diag));
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    (void)n_args, (void)args;
    size_t model_bytes;
    du_cli_default_model(&model_bytes);
    if (as_json) {
        return print_json(model_bytes, diag);
    }
    char buf[24];
    printf("dure %s\n", DURE_VERSION);
    printf("kernels: %s\n", du_isa_name(du_isa_best()));
    printf("default model: %s\n", model_bytes ? du_cli_bytes(buf, (int64_t)model_bytes) : "none");
    return DU_CLI_DONE;
}

const du_cli_command du_cli_version = {
    .name = "version",
    .args = "",
    .summary = "what this program is",
    .about = "Prints the version, the kernel level this machine can use, and the size of the "
             "built-in model. With --json: `version`, `isa` (all levels of this machine), "
             "`isa_best`, `default_model_bytes`.",
    .example = "dure version --json",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .run = run,
};
