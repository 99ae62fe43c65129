/* A command of the program, and what all commands share.
 *
 * A command file keeps its options in static variables with their defaults, lists them in a table
 * of base/opt.h, and defines one du_cli_command. main.c parses, answers --help, and prints what the
 * command left in the diagnostic. */
#ifndef DU_CLI_CLI_H
#define DU_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/opt.h"

/* Exit statuses; part of the contract with scripts. */
typedef enum {
    DU_CLI_DONE = 0,
    DU_CLI_FAILED = 1,
    DU_CLI_USAGE = 2,
    DU_CLI_INTERRUPTED = 130,
} du_cli_status;

/* The options of cli/compute.h that a command takes. */
typedef enum {
    DU_CLI_COMPUTES_NOTHING,
    DU_CLI_COMPUTES_ALL,
    DU_CLI_COMPUTES_OWN_CTX,  /* all but --ctx, which the command has itself */
    DU_CLI_COMPUTES_PRODUCTS, /* those that concern any product: --threads, --pin, --isa */
} du_cli_computing;

typedef struct {
    const char *name;    /* one word, or two: "tokenizer train" */
    const char *args;    /* the usage line after `dure NAME [OPTION]... ` */
    const char *summary; /* a few words, for the list of commands */
    const char *about;   /* paragraphs */
    const char *example; /* command lines; each is indented by two blanks */
    const du_opt *opts;
    size_t n_opts;
    bool samples;              /* takes the options of cli/sampling.h as well */
    du_cli_computing computes; /* and these of cli/compute.h */
    int n_args_min, n_args_max;
    /* args [n_args]. What went wrong stands in *diag; the status is 0 or as du_cli_fail gives it.
     */
    du_cli_status (*run)(int n_args, char **args, du_diag *diag);
} du_cli_command;

/* The status that belongs to an error: 0, 1, or 130 for DU_ECANCELLED. */
du_cli_status du_cli_fail(du_err err);

/* A misuse of the command line: records the reason, gives DU_CLI_USAGE. */
du_cli_status du_cli_misuse(du_diag *diag, const char *fmt, ...) DU_PRINTF(2, 3);

/* All commands; those whose names begin with the same word stand together. */
const du_cli_command *const *du_cli_commands(size_t *n);

/* The command that the first of words [n] name, *used of them; NULL: none. */
const du_cli_command *du_cli_command_find(char *const *words, int n, int *used);

/* Whether commands of two words begin with this one. */
bool du_cli_is_group(const char *word);

/* The option groups of a command; groups [DU_CLI_GROUPS_MAX] out. Returns how many there are. */
enum { DU_CLI_GROUPS_MAX = 4 };
size_t du_cli_groups(const du_cli_command *command, du_opt_group *groups);

/* `dure help`, and `dure help NAME`; for --help as well. group: only the commands of two words that
 * begin with this one; NULL: all. */
void du_cli_help_overview(du_str *out, const char *group);
void du_cli_help_command(du_str *out, const du_cli_command *command);

#endif
