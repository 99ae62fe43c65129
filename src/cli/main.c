/* Finds the command, parses its options, and turns what it left into an exit status and a message.
 */
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/cmd_list.h"
#include "cli/compute.h"
#include "cli/interrupt.h"
#include "cli/out.h"
#include "cli/sampling.h"

#define COMMAND_DECLARE(name) extern const du_cli_command du_cli_##name;
DU_CLI_COMMAND_LIST(COMMAND_DECLARE)
#undef COMMAND_DECLARE

#define COMMAND_ENTRY(name) &du_cli_##name,
static const du_cli_command *const commands[] = {DU_CLI_COMMAND_LIST(COMMAND_ENTRY)};
#undef COMMAND_ENTRY
enum { N_COMMANDS = sizeof commands / sizeof *commands };

const du_cli_command *const *du_cli_commands(size_t *n) {
    *n = N_COMMANDS;
    return commands;
}

const du_cli_command *du_cli_command_find(const char *name) {
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

static bool wants_help;
static const du_opt help_opts[] = {
    DU_OPTION_FLAG('h', "help", &wants_help, "show this help and end"),
};

size_t du_cli_groups(const du_cli_command *command, du_opt_group *groups) {
    size_t n = 0;
    if (command->n_opts > 0) {
        groups[n++] = (du_opt_group){"Options", command->opts, command->n_opts};
    }
    if (command->samples) {
        groups[n++] = (du_opt_group){"Sampling", du_cli_sampling_opts, du_cli_n_sampling_opts};
    }
    if (command->computes) {
        size_t skip = command->own_ctx ? 1 : 0;
        groups[n++] =
            (du_opt_group){"Computing", du_cli_compute_opts + skip, du_cli_n_compute_opts - skip};
    }
    groups[n++] = (du_opt_group){"General", help_opts, 1};
    return n;
}

du_cli_status du_cli_fail(du_err err) {
    return err == DU_OK ? DU_CLI_DONE : err == DU_ECANCELLED ? DU_CLI_INTERRUPTED : DU_CLI_FAILED;
}

du_cli_status du_cli_misuse(du_diag *diag, const char *fmt, ...) {
    char msg[sizeof diag->msg];
    va_list args;
    va_start(args, fmt);
    vsnprintf(msg, sizeof msg, fmt, args);
    va_end(args);
    (void)du_fail(diag, DU_EINVAL, "%s", msg);
    return DU_CLI_USAGE;
}

static void print_str(FILE *f, du_str *text) {
    fputs(du_str_get(text), f);
    du_str_done(text);
}

static du_cli_status run_command(const du_cli_command *command, int argc, char **argv,
                                 du_diag *diag) {
    du_opt_group groups[DU_CLI_GROUPS_MAX];
    size_t n_groups = du_cli_groups(command, groups);
    int n_args;
    du_err err = du_opt_parse(groups, n_groups, argc, argv, &n_args, diag);
    if (wants_help) {
        du_str text = {0};
        du_cli_help_command(&text, command);
        print_str(stdout, &text);
        du_diag_reset(diag);
        return DU_CLI_DONE;
    }
    if (err != DU_OK) {
        return err == DU_EINVAL ? DU_CLI_USAGE : DU_CLI_FAILED;
    }
    if (n_args < command->n_args_min) {
        return du_cli_misuse(diag, "an argument is missing: %s", command->args);
    }
    if (n_args > command->n_args_max) {
        return du_cli_misuse(diag, "an argument too many: %s", argv[command->n_args_max]);
    }
    return command->run(n_args, argv, diag);
}

static du_cli_status unknown_command(const char *word) {
    const char *names[N_COMMANDS];
    for (size_t i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i]->name;
    }
    const char *near = du_nearest(word, names, N_COMMANDS);
    du_diag diag;
    du_diag_reset(&diag);
    (void)du_fail(&diag, DU_EINVAL, "unknown command %s%s%s%s", word, near ? ": did you mean " : "",
                  near ? near : "", near ? "?" : "");
    du_cli_print_error(NULL, diag.msg);
    du_cli_note("`dure help` lists the commands");
    return DU_CLI_USAGE;
}

/* The command of the first word: `dure`, `dure --help` and `dure --version` stand for commands. */
static const char *first_word(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        return "help";
    }
    return strcmp(argv[1], "--version") == 0 ? "version" : argv[1];
}

/* A standard stream that the parent closed stays unusable: otherwise the next file opened would
 * take its place, and results would go into it. */
static void keep_standard_streams(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0) {
            (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
        }
    }
}

int main(int argc, char **argv) {
    keep_standard_streams();
    du_json_use_counted_heap();
    du_cli_interrupt_install();
    const char *word = first_word(argc, argv);
    const du_cli_command *command = du_cli_command_find(word);
    if (!command) {
        return unknown_command(word);
    }
    du_diag diag;
    du_diag_reset(&diag);
    int skip = argc < 2 ? argc : 2;
    du_cli_status status = run_command(command, argc - skip, argv + skip, &diag);
    if (du_cli_flush(&diag) != DU_OK && status == DU_CLI_DONE) {
        status = DU_CLI_FAILED;
    }
    if (status == DU_CLI_INTERRUPTED) {
        (void)du_fail(&diag, DU_ECANCELLED, "interrupted");
    }
    if (diag.code != DU_OK && status != DU_CLI_DONE) {
        du_cli_print_error(command->name, diag.msg);
    }
    if (status == DU_CLI_USAGE) {
        du_cli_note("`dure help %s` explains the command", command->name);
    }
    return status;
}
