/* Options of a command line, described by tables: one table gives parsing, --help, the man page and
 * the shell completions.
 *
 * Forms: --name VALUE, --name=VALUE, --flag, -x VALUE, -xVALUE, -xy for flags x and y; `--` ends
 * the options, `-` alone is an argument. The last of several occurrences counts. */
#ifndef DU_BASE_OPT_H
#define DU_BASE_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

typedef enum {
    DU_OPT_FLAG,   /* bool, becomes true */
    DU_OPT_STR,    /* const char *, borrowed from argv */
    DU_OPT_INT,    /* int64_t */
    DU_OPT_SIZE,   /* int64_t; k, M, G, T after the number multiply by powers of 1024 */
    DU_OPT_FLOAT,  /* double, finite */
    DU_OPT_CHOICE, /* int, the index of the word in arg */
    DU_OPT_LIST,   /* du_opt_list, one item per occurrence */
} du_opt_type;

/* The values of an option that may be given several times; borrowed from argv. */
typedef struct {
    const char **items;
    size_t n, cap;
} du_opt_list;

void du_opt_list_done(du_opt_list *list);

typedef struct {
    du_opt_type type;
    char letter;      /* 0: none */
    const char *name; /* without dashes */
    const char *arg;  /* what help calls the value; of a choice its words: "auto|f32|f16" */
    const char *help; /* one sentence without a full stop */
    union {
        bool *flag;
        const char **str;
        int64_t *i64;
        double *f64;
        int *choice;
        du_opt_list *list;
    } to; /* where the value goes; what stands there before is the default */
    int64_t i_min, i_max;
    double f_min, f_max;
} du_opt;

/* One line of a table each. */
#define DU_OPTION_FLAG(letter_, name_, to_, help_)                                                 \
    { .type = DU_OPT_FLAG, .letter = letter_, .name = name_, .to.flag = to_, .help = help_ }
#define DU_OPTION_STR(letter_, name_, arg_, to_, help_)                                            \
    {                                                                                              \
        .type = DU_OPT_STR, .letter = letter_, .name = name_, .arg = arg_, .to.str = to_,          \
        .help = help_                                                                              \
    }
#define DU_OPTION_INT(letter_, name_, arg_, to_, min_, max_, help_)                                \
    {                                                                                              \
        .type = DU_OPT_INT, .letter = letter_, .name = name_, .arg = arg_, .to.i64 = to_,          \
        .i_min = min_, .i_max = max_, .help = help_                                                \
    }
#define DU_OPTION_SIZE(letter_, name_, arg_, to_, min_, max_, help_)                               \
    {                                                                                              \
        .type = DU_OPT_SIZE, .letter = letter_, .name = name_, .arg = arg_, .to.i64 = to_,         \
        .i_min = min_, .i_max = max_, .help = help_                                                \
    }
#define DU_OPTION_FLOAT(letter_, name_, arg_, to_, min_, max_, help_)                              \
    {                                                                                              \
        .type = DU_OPT_FLOAT, .letter = letter_, .name = name_, .arg = arg_, .to.f64 = to_,        \
        .f_min = min_, .f_max = max_, .help = help_                                                \
    }
#define DU_OPTION_CHOICE(letter_, name_, words_, to_, help_)                                       \
    {                                                                                              \
        .type = DU_OPT_CHOICE, .letter = letter_, .name = name_, .arg = words_, .to.choice = to_,  \
        .help = help_                                                                              \
    }
#define DU_OPTION_LIST(letter_, name_, arg_, to_, help_)                                           \
    {                                                                                              \
        .type = DU_OPT_LIST, .letter = letter_, .name = name_, .arg = arg_, .to.list = to_,        \
        .help = help_                                                                              \
    }

/* Options under one heading of the help. */
typedef struct {
    const char *title;
    const du_opt *opts;
    size_t n;
} du_opt_group;

/* Reads argv [argc], which does not hold the command's own name. Afterwards argv[0 .. *n_args) are
 * the arguments that are no options, in their order.
 * Returns DU_OK, DU_EINVAL naming the option and what it takes, DU_ENOMEM. */
DU_NODISCARD
du_err du_opt_parse(const du_opt_group *groups, size_t n_groups, int argc, char **argv, int *n_args,
                    du_diag *diag);

/* Appends the options' part of a help text: headings, and one entry per option, at most
 * DU_OPT_COLUMNS wide. */
void du_opt_help(du_str *out, const du_opt_group *groups, size_t n_groups);

enum { DU_OPT_COLUMNS = 80 };

/* Appends text, breaking lines at blanks so that none is wider than DU_OPT_COLUMNS; every line but
 * the first, which starts at column `at`, is indented by `indent`. Line breaks of the text stay. */
void du_opt_wrap(du_str *out, const char *text, size_t at, size_t indent);

#endif
