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

/* Whether words [n] begin with those of a name; *used gets how many these are. */
static bool begin_with(char *const *words, int n, const char *name, int *used) {
    for (*used = 0; *used < n; name++) {
        size_t len = strcspn(name, " ");
        const char *word = words[(*used)++];
        if (strlen(word) != len || memcmp(word, name, len) != 0) {
            return false;
        }
        name += len;
        if (*name == '\0') {
            return true;
        }
    }
    return false;
}

const du_cli_command *du_cli_command_find(char *const *words, int n, int *used) {
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (begin_with(words, n, commands[i]->name, used)) {
            return commands[i];
        }
    }
    return NULL;
}

bool du_cli_is_group(const char *word) {
    for (size_t i = 0; i < N_COMMANDS; i++) {
        size_t len = strlen(word);
        if (strncmp(commands[i]->name, word, len) == 0 && commands[i]->name[len] == ' ') {
            return true;
        }
    }
    return false;
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
    if (command->computes != DU_CLI_COMPUTES_NOTHING) {
        groups[n++] = du_cli_compute_group(command->computes);
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

static bool is_help(const char *word) {
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* words [n], n >= 1, name no command. */
static du_cli_status unknown_command(char *const *words, int n) {
    bool group = du_cli_is_group(words[0]);
    if (group && n > 1 && is_help(words[1])) {
        du_str text = {0};
        du_cli_help_overview(&text, words[0]);
        print_str(stdout, &text);
        return DU_CLI_DONE;
    }
    const char *names[N_COMMANDS], *second = group && n > 1 ? words[1] : NULL;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i]->name;
    }
    char word[64];
    snprintf(word, sizeof word, "%s%s%s", words[0], second ? " " : "", second ? second : "");
    const char *near = du_nearest(word, names, N_COMMANDS);
    du_diag diag;
    du_diag_reset(&diag);
    if (group && !second) {
        (void)du_fail(&diag, DU_EINVAL, "%s: the command's second word is missing", word);
    }
    (void)du_fail(&diag, DU_EINVAL, "unknown command %s%s%s%s", word, near ? ": did you mean " : "",
                  near ? near : "", near ? "?" : "");
    du_cli_print_error(NULL, diag.msg);
    du_cli_note("`dure help%s%s` lists the commands", group ? " " : "", group ? words[0] : "");
    return DU_CLI_USAGE;
}

/* `dure`, `dure --help` and `dure --version` stand for commands. */
static void name_command(int *n, char **words) {
    static char help[] = "help", version[] = "version";
    if (*n == 0 || is_help(words[0])) {
        words[0] = help;
        *n = *n > 0 ? *n : 1;
    } else if (strcmp(words[0], "--version") == 0) {
        words[0] = version;
    }
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
    char *alone[1], **words = argc > 1 ? argv + 1 : alone;
    int n = argc > 1 ? argc - 1 : 0, used;
    name_command(&n, words);
    const du_cli_command *command = du_cli_command_find(words, n, &used);
    if (!command) {
        return unknown_command(words, n);
    }
    du_diag diag;
    du_diag_reset(&diag);
    du_cli_status status = run_command(command, n - used, words + used, &diag);
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
