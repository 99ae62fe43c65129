/* dure report: the page of a run made anew, as a run itself makes it. */
#include <stdio.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "train/metrics.h"
#include "train/report.h"

static const char *output;

static const du_opt opts[] = {
    DU_OPTION_STR('o', "output", "FILE", &output, "write to FILE (default: OUT/report.html)"),
};

static du_err make(const char *dir, const char *path, du_diag *diag) {
    du_report *report = NULL;
    du_err err = du_report_open(&report, dir, diag);
    if (err == DU_OK && du_report_step(report) == 0) {
        err = du_fail(diag, DU_ENOENT, "%s: no run: %s is missing or has no steps", dir,
                      DU_METRICS_FILE);
    }
    err = err ? err : du_report_write(report, path, diag);
    du_report_free(report);
    return err;
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    (void)n_args;
    char *path = output ? du_strdup(output) : du_path_join(args[0], DU_REPORT_FILE);
    du_err err = path ? make(args[0], path, diag) : du_fail_nomem(diag, args[0]);
    if (err == DU_OK) {
        printf("%s\n", path);
    }
    du_free(path);
    return du_cli_fail(err);
}

const du_cli_command du_cli_report = {
    .name = "report",
    .args = "OUT",
    .summary = "show a training run on a page",
    .about = "Writes OUT/report.html for a run of `dure train` that is running or over, as the run "
             "itself does at its checkpoints and at its end: curves of OUT/metrics.jsonl, the load "
             "of experts, samples, configuration. The page is one file without scripts, and loads "
             "nothing from elsewhere. Prints its path. docs/TRAINING.md says more.",
    .example = "dure report small\n"
               "dure report small -o small-monday.html",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .n_args_min = 1,
    .n_args_max = 1,
    .run = run,
};
