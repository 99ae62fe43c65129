/* Everything that explains the commands, made from the tables that also parse them: the overview,
 * one command, the man page, and the completions of three shells. So none of them can drift. */
#include "cli/cli.h"
#include "cli/out.h"

extern const du_cli_command du_cli_help;

enum { AS_TEXT, AS_MAN, AS_BASH, AS_ZSH, AS_FISH };
static int as = AS_TEXT;

static const du_opt opts[] = {
    DU_OPTION_CHOICE(0, "as", "text|man|bash|zsh|fish", &as,
                     "the form: text for people, the man page, or the completions of a shell"),
};

static const char about_dure[] =
    "dure runs language models of the DeepSeek architecture, and the models distilled from them, "
    "from their own files: GGUF files, and directories of Hugging Face safetensors. Where MODEL is "
    "left out, the small reasoning model that is built in is used.";

void du_cli_help_overview(du_str *out) {
    size_t n;
    const du_cli_command *const *commands = du_cli_commands(&n);
    du_str_add_s(out, "usage: dure COMMAND [OPTION]... [ARGUMENT]...\n\n");
    du_opt_wrap(out, about_dure, 0, 0);
    du_str_add_s(out, "\n\nCommands:\n");
    for (size_t i = 0; i < n; i++) {
        du_str_addf(out, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
    }
    du_str_add_s(out, "\nExample:\n"
                      "  dure help run\n");
}

static void add_indented(du_str *out, const char *lines, const char *indent) {
    while (*lines) {
        size_t len = strcspn(lines, "\n");
        du_str_add_s(out, indent);
        du_str_add(out, lines, len);
        du_str_add_c(out, '\n');
        lines += len + (lines[len] == '\n');
    }
}

void du_cli_help_command(du_str *out, const du_cli_command *command) {
    du_str_addf(out, "usage: dure %s [OPTION]...%s%s\n\n", command->name, *command->args ? " " : "",
                command->args);
    du_opt_wrap(out, command->about, 0, 0);
    du_str_add_s(out, "\n\n");
    du_opt_group groups[DU_CLI_GROUPS_MAX];
    du_opt_help(out, groups, du_cli_groups(command, groups));
    du_str_add_s(out, "\nExample:\n");
    add_indented(out, command->example, "  ");
}

/* Text for troff: a dash that stays one, no backslash, no dot or quote that begins a line. */
static void add_troff(du_str *out, const char *text) {
    for (bool begins = true; *text; text++) {
        if (begins && (*text == '.' || *text == '\'')) {
            du_str_add_s(out, "\\&");
        }
        if (*text == '\\') {
            du_str_add_s(out, "\\e");
        } else if (*text == '-') {
            du_str_add_s(out, "\\-");
        } else {
            du_str_add_c(out, *text);
        }
        begins = *text == '\n';
    }
}

static void add_troff_option(du_str *out, const du_opt *opt) {
    du_str_add_s(out, ".TP\n");
    if (opt->letter) {
        du_str_addf(out, "\\fB\\-%c\\fR, ", opt->letter);
    }
    du_str_add_s(out, "\\fB\\-\\-");
    add_troff(out, opt->name);
    du_str_add_s(out, "\\fR");
    if (opt->arg) {
        du_str_add_s(out, " \\fI");
        add_troff(out, opt->arg);
        du_str_add_s(out, "\\fR");
    }
    du_str_add_c(out, '\n');
    add_troff(out, opt->help);
    du_str_add_c(out, '\n');
}

static void add_man_command(du_str *out, const du_cli_command *command) {
    du_str_addf(out, ".SS dure %s [OPTION]... ", command->name);
    add_troff(out, command->args);
    du_str_add_c(out, '\n');
    add_troff(out, command->about);
    du_str_add_c(out, '\n');
    du_opt_group groups[DU_CLI_GROUPS_MAX];
    size_t n_groups = du_cli_groups(command, groups);
    for (size_t g = 0; g < n_groups; g++) {
        for (size_t i = 0; i < groups[g].n; i++) {
            add_troff_option(out, &groups[g].opts[i]);
        }
    }
    du_str_add_s(out, ".PP\nExample:\n.PP\n.nf\n");
    add_troff(out, command->example);
    du_str_add_s(out, "\n.fi\n");
}

/* What belongs to no single command; the contracts are in docs/CLI.md. */
static const char man_rest[] =
    ".SH MODELS\n"
    "A GGUF file (any part of a split one), or a directory as Hugging Face has it, with\n"
    "\\fIconfig.json\\fR, \\fItokenizer.json\\fR and safetensors.\n"
    ".SH FILES\n"
    "Texts, token ids and messages may come from pipes, and from standard input where \\fB\\-\\fR\n"
    "stands for a file. Files to write have no name until they are\n"
    "whole or, where the file system cannot do that, \\fINAME.tmp\\-XXXXXXXX\\fR beside the final\n"
    "one.\n"
    ".TP\n\\fIMODEL.gguf.strips\\fR\n"
    "repacked weights, which \\fB\\-\\-repack cache\\fR writes beside \\fIMODEL.gguf\\fR; it may\n"
    "be removed at any time\n"
    ".TP\n\\fI~/.local/state/dure/history\\fR\n"
    "the lines typed in dure chat\n"
    ".TP\n\\fI~/.editrc\\fR\n"
    "key bindings of dure chat, see \\fBeditrc\\fR(5)\n"
    ".SH EXIT STATUS\n"
    ".TP\n0\ndone\n"
    ".TP\n1\nfailed: one line on standard error says what, where and why\n"
    ".TP\n2\nthe command line was wrong\n"
    ".TP\n130\ninterrupted by SIGINT, SIGTERM or SIGHUP\n"
    ".SH ENVIRONMENT\n"
    ".TP\n\\fBNO_COLOR\\fR\nwhen not empty: no colours on terminals\n"
    ".TP\n\\fBTERM\\fR\n\\fIdumb\\fR: neither colours nor progress bars\n"
    ".TP\n\\fBXDG_STATE_HOME\\fR\nthe folder that takes the place of \\fI~/.local/state\\fR\n"
    ".TP\n\\fBEDITRC\\fR\nthe file that takes the place of \\fI~/.editrc\\fR\n";

static void add_man(du_str *out) {
    size_t n;
    const du_cli_command *const *commands = du_cli_commands(&n);
    du_str_addf(out, ".TH DURE 1 \"\" \"dure %s\" \"User Commands\"\n", DURE_VERSION);
    du_str_add_s(out, ".SH NAME\ndure \\- run language models of the DeepSeek architecture\n"
                      ".SH SYNOPSIS\n.B dure\n\\fICOMMAND\\fR [\\fIOPTION\\fR]... "
                      "[\\fIARGUMENT\\fR]...\n.SH DESCRIPTION\n");
    add_troff(out, about_dure);
    du_str_add_s(out, "\n.SH COMMANDS\n");
    for (size_t i = 0; i < n; i++) {
        add_man_command(out, commands[i]);
    }
    du_str_add_s(out, man_rest);
}

/* One line per option of a command: `each` gets the option and the command. */
static void each_option(du_str *out, const du_cli_command *command,
                        void (*each)(du_str *, const du_cli_command *, const du_opt *)) {
    du_opt_group groups[DU_CLI_GROUPS_MAX];
    size_t n_groups = du_cli_groups(command, groups);
    for (size_t g = 0; g < n_groups; g++) {
        for (size_t i = 0; i < groups[g].n; i++) {
            each(out, command, &groups[g].opts[i]);
        }
    }
}

/* The words of a choice with blanks between them. */
static void add_words(du_str *out, const du_opt *opt) {
    for (const char *at = opt->arg; *at; at++) {
        du_str_add_c(out, *at == '|' ? ' ' : *at);
    }
}

static void bash_name(du_str *out, const du_cli_command *command, const du_opt *opt) {
    (void)command;
    du_str_addf(out, " --%s", opt->name);
}

static void bash_choice(du_str *out, const du_cli_command *command, const du_opt *opt) {
    if (opt->type == DU_OPT_CHOICE) {
        du_str_addf(out, "    %s:--%s) words='", command->name, opt->name);
        add_words(out, opt);
        du_str_add_s(out, "' ;;\n");
    }
}

static void add_command_names(du_str *out) {
    size_t n;
    const du_cli_command *const *commands = du_cli_commands(&n);
    for (size_t i = 0; i < n; i++) {
        du_str_addf(out, "%s%s", i ? " " : "", commands[i]->name);
    }
}

static void add_bash(du_str *out) {
    size_t n;
    const du_cli_command *const *commands = du_cli_commands(&n);
    du_str_add_s(out, "# bash completion of dure\n_dure() {\n"
                      "    local cur=${COMP_WORDS[COMP_CWORD]} words=\n"
                      "    if [ \"$COMP_CWORD\" = 1 ]; then\n"
                      "        COMPREPLY=($(compgen -W '");
    add_command_names(out);
    du_str_add_s(out, "' -- \"$cur\"))\n        return\n    fi\n"
                      "    case ${COMP_WORDS[1]}:${COMP_WORDS[COMP_CWORD - 1]} in\n"
                      "    help:help) words='");
    add_command_names(out);
    du_str_add_s(out, "' ;;\n");
    for (size_t i = 0; i < n; i++) {
        each_option(out, commands[i], bash_choice);
    }
    du_str_add_s(out, "    esac\n    if [ -z \"$words\" ] && [[ $cur == -* ]]; then\n"
                      "        case ${COMP_WORDS[1]} in\n");
    for (size_t i = 0; i < n; i++) {
        du_str_addf(out, "        %s) words='", commands[i]->name);
        each_option(out, commands[i], bash_name);
        du_str_add_s(out, "' ;;\n");
    }
    du_str_add_s(out, "        esac\n    fi\n    if [ -n \"$words\" ]; then\n"
                      "        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n    else\n"
                      "        COMPREPLY=($(compgen -f -- \"$cur\"))\n    fi\n}\n"
                      "complete -o filenames -F _dure dure\n");
}

/* Text inside '...[...]' of zsh and '...' of fish: their special characters go. */
static void add_plain(du_str *out, const char *text) {
    for (; *text; text++) {
        du_str_add_c(out, strchr("'[]:\\", *text) ? ' ' : *text);
    }
}

/* One entry for a spelling of the option: "--name" or "-x". */
static void zsh_entry(du_str *out, const du_opt *opt, const char *spelling) {
    du_str_addf(out, " \\\n            '%s%s[", opt->type == DU_OPT_LIST ? "*" : "", spelling);
    add_plain(out, opt->help);
    du_str_add_c(out, ']');
    if (opt->type == DU_OPT_CHOICE) {
        du_str_add_s(out, ":word:(");
        add_words(out, opt);
        du_str_add_c(out, ')');
    } else if (opt->type != DU_OPT_FLAG) {
        du_str_add_s(out, ":");
        add_plain(out, opt->arg);
        du_str_add_s(out, ":_files");
    }
    du_str_add_c(out, '\'');
}

static void zsh_option(du_str *out, const du_cli_command *command, const du_opt *opt) {
    (void)command;
    char spelling[64];
    if (opt->letter) {
        snprintf(spelling, sizeof spelling, "-%c", opt->letter);
        zsh_entry(out, opt, spelling);
    }
    snprintf(spelling, sizeof spelling, "--%s", opt->name);
    zsh_entry(out, opt, spelling);
}

static void add_zsh(du_str *out) {
    size_t n;
    const du_cli_command *const *commands = du_cli_commands(&n);
    du_str_add_s(out, "#compdef dure\n_dure() {\n    if (( CURRENT == 2 )); then\n"
                      "        local -a commands=(\n");
    for (size_t i = 0; i < n; i++) {
        du_str_addf(out, "            '%s:", commands[i]->name);
        add_plain(out, commands[i]->summary);
        du_str_add_s(out, "'\n");
    }
    du_str_add_s(out, "        )\n        _describe command commands\n        return\n    fi\n"
                      "    local name=$words[2]\n    shift words\n    (( CURRENT-- ))\n"
                      "    case $name in\n");
    for (size_t i = 0; i < n; i++) {
        du_str_addf(out, "    %s)\n        _arguments", commands[i]->name);
        each_option(out, commands[i], zsh_option);
        du_str_add_s(out, " \\\n            '*:argument:");
        if (commands[i] == &du_cli_help) {
            du_str_add_c(out, '(');
            add_command_names(out);
            du_str_add_c(out, ')');
        } else {
            du_str_add_s(out, "_files");
        }
        du_str_add_s(out, "'\n        ;;\n");
    }
    du_str_add_s(out, "    esac\n}\n_dure \"$@\"\n");
}

static void fish_option(du_str *out, const du_cli_command *command, const du_opt *opt) {
    du_str_addf(out, "complete -c dure -n '__fish_seen_subcommand_from %s' -l %s", command->name,
                opt->name);
    if (opt->letter) {
        du_str_addf(out, " -s %c", opt->letter);
    }
    if (opt->type == DU_OPT_CHOICE) {
        du_str_add_s(out, " -x -a '");
        add_words(out, opt);
        du_str_add_c(out, '\'');
    } else if (opt->type != DU_OPT_FLAG) {
        du_str_add_s(out, " -r");
    }
    du_str_add_s(out, " -d '");
    add_plain(out, opt->help);
    du_str_add_s(out, "'\n");
}

static void add_fish(du_str *out) {
    size_t n;
    const du_cli_command *const *commands = du_cli_commands(&n);
    du_str_add_s(out, "# fish completion of dure\n");
    for (size_t i = 0; i < n; i++) {
        du_str_addf(out, "complete -c dure -f -n __fish_use_subcommand -a %s -d '",
                    commands[i]->name);
        add_plain(out, commands[i]->summary);
        du_str_add_s(out, "'\n");
        each_option(out, commands[i], fish_option);
    }
    du_str_add_s(out, "complete -c dure -f -n '__fish_seen_subcommand_from help' -a '");
    add_command_names(out);
    du_str_add_s(out, "'\n");
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    const du_cli_command *command = n_args > 0 ? du_cli_command_find(args[0]) : NULL;
    if (n_args > 0 && !command) {
        return du_cli_misuse(diag, "no command is called %s", args[0]);
    }
    if (command && as != AS_TEXT) {
        return du_cli_misuse(diag, "--as is for all commands together: leave out %s", args[0]);
    }
    du_str text = {0};
    if (command) {
        du_cli_help_command(&text, command);
    } else {
        static void (*const forms[])(du_str *) = {[AS_TEXT] = du_cli_help_overview,
                                                  [AS_MAN] = add_man,
                                                  [AS_BASH] = add_bash,
                                                  [AS_ZSH] = add_zsh,
                                                  [AS_FISH] = add_fish};
        forms[as](&text);
    }
    if (text.failed) {
        du_str_done(&text);
        return du_cli_fail(du_fail_nomem(diag, "the help text"));
    }
    fputs(du_str_get(&text), stdout);
    du_str_done(&text);
    return DU_CLI_DONE;
}

const du_cli_command du_cli_help = {
    .name = "help",
    .args = "[COMMAND]",
    .summary = "explain a command",
    .about = "Explains one command, or lists all of them. With --as it prints the man page or a "
             "shell's completion file instead.",
    .example = "dure help tokenize\n"
               "dure help --as bash > ~/.local/share/bash-completion/completions/dure",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .n_args_max = 1,
    .run = run,
};
