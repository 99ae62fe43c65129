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
    "dure runs and trains language models of the DeepSeek architecture, and the models distilled "
    "from them: from their own files, GGUF files and directories of Hugging Face safetensors. "
    "Where MODEL is left out, the small reasoning model that is built in is used.";

/* The first word of a name. */
static du_sv first_word(const char *name) {
    return (du_sv){name, strcspn(name, " ")};
}

/* The second word of a name, "" when there is none. */
static const char *second_word(const char *name) {
    size_t len = strcspn(name, " ");
    return name + len + (name[len] != '\0');
}

static bool same_first(const du_cli_command *a, const du_cli_command *b) {
    return du_sv_eq(first_word(a->name), first_word(b->name));
}

/* Lines that list the commands of a group, or all. */
static void add_list(du_str *out, const char *group) {
    size_t n;
    const du_cli_command *const *commands = du_cli_commands(&n);
    for (size_t i = 0; i < n; i++) {
        if (!group || du_sv_is(first_word(commands[i]->name), group)) {
            du_str_addf(out, "  %-15s  %s\n", commands[i]->name, commands[i]->summary);
        }
    }
}

void du_cli_help_overview(du_str *out, const char *group) {
    du_str_addf(out, "usage: dure %s%sCOMMAND [OPTION]... [ARGUMENT]...\n\n", group ? group : "",
                group ? " " : "");
    if (!group) {
        du_opt_wrap(out, about_dure, 0, 0);
        du_str_add_s(out, "\n\n");
    }
    du_str_add_s(out, "Commands:\n");
    add_list(out, group);
    if (!group) {
        du_str_add_s(out, "\nExample:\n"
                          "  dure help run\n");
    }
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
    ".TP\n130\ninterrupted by SIGINT, SIGTERM, SIGHUP or SIGUSR1\n"
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
        du_str_addf(out, "    '%s:--%s') words='", command->name, opt->name);
        add_words(out, opt);
        du_str_add_s(out, "' ;;\n");
    }
}

/* The words that a command can begin with. */
static void add_first_words(du_str *out) {
    size_t n;
    const du_cli_command *const *commands = du_cli_commands(&n);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || !same_first(commands[i], commands[i - 1])) {
            du_str_add_s(out, i ? " " : "");
            du_str_add_sv(out, first_word(commands[i]->name));
        }
    }
}

/* The second words of the commands that begin like commands[i]. */
static void add_second_words(du_str *out, size_t i) {
    size_t n;
    const du_cli_command *const *commands = du_cli_commands(&n), *first = commands[i];
    for (const char *between = ""; i < n && same_first(commands[i], first); i++, between = " ") {
        du_str_addf(out, "%s%s", between, second_word(commands[i]->name));
    }
}

/* Calls `each` with the place of the first command of each group. */
static void each_group(du_str *out, void (*each)(du_str *, size_t)) {
    size_t n;
    const du_cli_command *const *commands = du_cli_commands(&n);
    for (size_t i = 0; i < n; i++) {
        if (*second_word(commands[i]->name) &&
            (i == 0 || !same_first(commands[i], commands[i - 1]))) {
            each(out, i);
        }
    }
}

static const du_cli_command *command_at(size_t i) {
    size_t n;
    return du_cli_commands(&n)[i];
}

static void bash_group(du_str *out, size_t i) {
    du_sv first = first_word(command_at(i)->name);
    du_str_add_s(out, "    ");
    du_str_add_sv(out, first);
    du_str_add_s(out, ")\n        [ \"$COMP_CWORD\" = 2 ] && words='");
    add_second_words(out, i);
    du_str_add_s(out, "'\n        name=\"$name ${COMP_WORDS[2]}\"\n        ;;\n");
}

static void bash_help_group(du_str *out, size_t i) {
    du_str_add_s(out, "    help:");
    du_str_add_sv(out, first_word(command_at(i)->name));
    du_str_add_s(out, ") words='");
    add_second_words(out, i);
    du_str_add_s(out, "' ;;\n");
}

static void add_bash(du_str *out) {
    size_t n;
    const du_cli_command *const *commands = du_cli_commands(&n);
    du_str_add_s(out, "# bash completion of dure\n_dure() {\n"
                      "    local cur=${COMP_WORDS[COMP_CWORD]} name=${COMP_WORDS[1]} words=\n"
                      "    if [ \"$COMP_CWORD\" = 1 ]; then\n"
                      "        COMPREPLY=($(compgen -W '");
    add_first_words(out);
    du_str_add_s(out, "' -- \"$cur\"))\n        return\n    fi\n    case $name in\n");
    each_group(out, bash_group);
    du_str_add_s(out, "    esac\n    case $name:${COMP_WORDS[COMP_CWORD - 1]} in\n"
                      "    help:help) words='");
    add_first_words(out);
    du_str_add_s(out, "' ;;\n");
    each_group(out, bash_help_group);
    for (size_t i = 0; i < n; i++) {
        each_option(out, commands[i], bash_choice);
    }
    du_str_add_s(out, "    esac\n    if [ -z \"$words\" ] && [[ $cur == -* ]]; then\n"
                      "        case $name in\n");
    for (size_t i = 0; i < n; i++) {
        du_str_addf(out, "        '%s') words='", commands[i]->name);
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

static void zsh_word(du_str *out, du_sv word, const char *summary) {
    du_str_add_s(out, "            '");
    du_str_add_sv(out, word);
    du_str_add_c(out, ':');
    add_plain(out, summary);
    du_str_add_s(out, "'\n");
}

static const char zsh_describe[] = "        )\n        _describe command commands\n"
                                   "        return\n    fi\n";

static void zsh_group(du_str *out, size_t i) {
    size_t n;
    const du_cli_command *const *commands = du_cli_commands(&n), *first = commands[i];
    du_str_add_s(out, "    if [[ $words[2] == ");
    du_str_add_sv(out, first_word(first->name));
    du_str_add_s(out, " ]] && (( CURRENT == 3 )); then\n        local -a commands=(\n");
    for (; i < n && same_first(commands[i], first); i++) {
        zsh_word(out, du_sv_of(second_word(commands[i]->name)), commands[i]->summary);
    }
    du_str_add_s(out, zsh_describe);
}

static void zsh_group_name(du_str *out, size_t i) {
    du_str_add_s(out, "    ");
    du_str_add_sv(out, first_word(command_at(i)->name));
    du_str_add_s(out, ") name=\"$name $words[3]\"; shift words; (( CURRENT-- )) ;;\n");
}

static void add_zsh(du_str *out) {
    size_t n;
    const du_cli_command *const *commands = du_cli_commands(&n);
    du_str_add_s(out, "#compdef dure\n_dure() {\n    if (( CURRENT == 2 )); then\n"
                      "        local -a commands=(\n");
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || !same_first(commands[i], commands[i - 1])) {
            zsh_word(out, first_word(commands[i]->name), commands[i]->summary);
        }
    }
    du_str_add_s(out, zsh_describe);
    each_group(out, zsh_group);
    du_str_add_s(out, "    local name=$words[2]\n    case $name in\n");
    each_group(out, zsh_group_name);
    du_str_add_s(out, "    esac\n    shift words\n    (( CURRENT-- ))\n    case $name in\n");
    for (size_t i = 0; i < n; i++) {
        du_str_addf(out, "    '%s')\n        _arguments", commands[i]->name);
        each_option(out, commands[i], zsh_option);
        du_str_add_s(out, " \\\n            '*:argument:");
        if (commands[i] == &du_cli_help) {
            du_str_add_c(out, '(');
            add_first_words(out);
            du_str_add_c(out, ')');
        } else {
            du_str_add_s(out, "_files");
        }
        du_str_add_s(out, "'\n        ;;\n");
    }
    du_str_add_s(out, "    esac\n}\n_dure \"$@\"\n");
}

static void fish_option(du_str *out, const du_cli_command *command, const du_opt *opt) {
    du_str_addf(out, "complete -c dure -n '__dure_is %s' -l %s", command->name, opt->name);
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

/* One word that can come behind those before it. */
static void fish_word(du_str *out, du_sv before, du_sv word, const char *summary) {
    du_str_add_s(out, "complete -c dure -f -n '__dure_at ");
    du_str_add_sv(out, before);
    du_str_add_s(out, "' -a ");
    du_str_add_sv(out, word);
    du_str_add_s(out, " -d '");
    add_plain(out, summary);
    du_str_add_s(out, "'\n");
}

static void add_fish(du_str *out) {
    size_t n;
    const du_cli_command *const *commands = du_cli_commands(&n);
    du_str_add_s(out, "# fish completion of dure\n"
                      "function __dure_is\n"
                      "    set -l words (commandline -opc)\n"
                      "    set -l last (math 1 + (count $argv))\n"
                      "    test \"$words[2..$last]\" = \"$argv\"\n"
                      "end\n"
                      "function __dure_at\n"
                      "    set -l words (commandline -opc)\n"
                      "    test \"$words[2..-1]\" = \"$argv\"\n"
                      "end\n");
    for (size_t i = 0; i < n; i++) {
        du_sv first = first_word(commands[i]->name);
        const char *second = second_word(commands[i]->name);
        if (i == 0 || !same_first(commands[i], commands[i - 1])) {
            fish_word(out, (du_sv){"", 0}, first, commands[i]->summary);
        }
        if (*second) {
            fish_word(out, first, du_sv_of(second), commands[i]->summary);
        }
        each_option(out, commands[i], fish_option);
    }
    du_str_add_s(out, "complete -c dure -f -n '__dure_at help' -a '");
    add_first_words(out);
    du_str_add_s(out, "'\n");
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    int used = n_args;
    const du_cli_command *command = du_cli_command_find(args, n_args, &used);
    const char *group = n_args == 1 && du_cli_is_group(args[0]) ? args[0] : NULL;
    if (n_args > 0 && !command && !group) {
        bool two = n_args > 1 && du_cli_is_group(args[0]);
        return du_cli_misuse(diag, "no command is called %s%s%s", args[0], two ? " " : "",
                             two ? args[1] : "");
    }
    if (command && used < n_args) {
        return du_cli_misuse(diag, "an argument too many: %s", args[used]);
    }
    if (n_args > 0 && as != AS_TEXT) {
        return du_cli_misuse(diag, "--as is for all commands together: leave out %s", args[0]);
    }
    du_str text = {0};
    if (command) {
        du_cli_help_command(&text, command);
    } else if (as == AS_TEXT) {
        du_cli_help_overview(&text, group);
    } else {
        static void (*const forms[])(du_str *) = {
            [AS_MAN] = add_man, [AS_BASH] = add_bash, [AS_ZSH] = add_zsh, [AS_FISH] = add_fish};
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
    .n_args_max = 2,
    .run = run,
};
