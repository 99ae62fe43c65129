/* dure chat: a conversation. A turn renders all messages, so that the template decides what is kept
 * of earlier turns; the session finds how much of that its cache holds already.
 *
 * A line that begins with a slash is a command. A message over several lines ends its lines with a
 * backslash, or stands between two lines of three double quotes. */
#include <stdio.h>

#include "base/json.h"
#include "base/mem.h"
#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/compute.h"
#include "cli/editor.h"
#include "cli/interrupt.h"
#include "cli/prompt.h"
#include "cli/sampling.h"
#include "text/unicode.h"

enum { SHOW, HIDE };

static const char *system_text;
static int think = SHOW, thinking = DU_CLI_THINKING_AUTO;
static bool quiet;
static du_opt_list var_items;

static const du_opt opts[] = {
    DU_OPTION_STR('s', "system", "TEXT", &system_text, "a system message before the first turn"),
    DU_OPTION_LIST(0, "var", "NAME=JSON", &var_items,
                   "a further variable of the template; may be repeated"),
    DU_OPTION_CHOICE(0, "thinking", DU_CLI_THINKING_WORDS, &thinking,
                     "whether the model reasons first (auto: as its template does)"),
    DU_OPTION_CHOICE(0, "think", "show|hide", &think,
                     "show the reasoning on standard error, or hide it (default: show)"),
    DU_OPTION_FLAG('q', "quiet", &quiet, "no line about the speed after each answer"),
};

typedef struct {
    du_cli_runner runner;
    du_cli_editor *editor;
    du_generate_params params;
    json_t *messages, *vars;
    du_str line, message;
    bool ended;
} chat;

static const char help_text[] =
    "/think      ask the model to reason first   /nothink    ask it not to\n"
    "/reset      forget the conversation         /save FILE  write it as JSON\n"
    "/help       this text                       /quit       end (as Ctrl-D does)\n"
    "A line that ends with \\ goes on in the next; lines between two \"\"\" are one.\n"
    "Ctrl-C stops an answer, or gives up the line that is being typed.";

static du_err reset(chat *c, du_diag *diag) {
    json_array_clear(c->messages);
    du_session_truncate(c->runner.session, 0);
    return system_text
               ? du_chat_add_message(c->messages, "system", system_text, strlen(system_text), diag)
               : DU_OK;
}

/* A line that begins with a slash. */
static du_err command(chat *c, const char *line, du_diag *diag) {
    static const char *const names[] = {"/think", "/nothink", "/reset", "/save", "/help", "/quit"};
    size_t len = strcspn(line, " ");
    du_sv name = {line, len};
    const char *rest = line + len + strspn(line + len, " ");
    if (du_sv_is(name, "/think")) {
        thinking = DU_CLI_THINKING_ON;
        du_cli_note("the model is asked to reason first");
    } else if (du_sv_is(name, "/nothink")) {
        thinking = DU_CLI_THINKING_OFF;
        du_cli_note("the model is asked not to reason");
    } else if (du_sv_is(name, "/reset")) {
        du_cli_note("the conversation is forgotten");
        return reset(c, diag);
    } else if (du_sv_is(name, "/save") && *rest) {
        du_err err = du_json_save(c->messages, rest, diag);
        if (err == DU_OK) {
            du_cli_note("%zu messages are in %s", json_array_size(c->messages), rest);
        }
        return err;
    } else if (du_sv_is(name, "/help")) {
        du_cli_note("%s", help_text);
    } else if (du_sv_is(name, "/quit")) {
        c->ended = true;
    } else if (du_sv_is(name, "/save")) {
        return du_fail(diag, DU_EINVAL, "/save needs the name of a file");
    } else {
        const char *near = du_nearest(line, names, sizeof names / sizeof *names);
        return du_fail(diag, DU_EINVAL, "%s is no command%s%s: /help lists them", line,
                       near ? ", did you mean " : "", near ? near : "");
    }
    return DU_OK;
}

/* The messages' prompt, and one answer to it. */
static du_err generate(chat *c, du_generation *g, du_diag *diag) {
    du_ids ids = {0};
    du_cli_answer shown = du_cli_answer_start(true, think == SHOW);
    du_err err = du_cli_chat_prompt(c->runner.lm, c->messages, c->vars, (du_cli_thinking)thinking,
                                    &ids, &c->params.start, diag);
    if (err == DU_OK) {
        c->params.split = true;
        c->params.progress = du_cli_answer_prompt;
        c->params.on_text = du_cli_answer_text;
        c->params.user = &shown;
        du_cli_interrupt_catch(true);
        err = du_generate(g, c->runner.session, c->runner.lm, ids.ids, (int64_t)ids.n, &c->params,
                          diag);
        du_err lost = du_cli_answer_end(&shown, diag);
        err = lost ? lost : err;
    }
    du_ids_done(&ids);
    return err;
}

static du_err remember_answer(chat *c, const du_generation *g, du_diag *diag) {
    du_str clean = {0};
    du_utf8_add_replaced(&clean, du_str_view(&g->content));
    du_err err = du_chat_add_message(c->messages, "assistant", du_str_get(&clean), clean.len, diag);
    if (err == DU_OK && g->reasoning.len > 0) {
        json_t *last = json_array_get(c->messages, json_array_size(c->messages) - 1);
        du_str_reset(&clean);
        du_utf8_add_replaced(&clean, du_str_view(&g->reasoning));
        json_object_set_new(last, "reasoning_content", json_stringn(du_str_get(&clean), clean.len));
    }
    du_str_done(&clean);
    return err;
}

/* A turn: what the user said is forgotten again when no answer came of it. */
static du_err turn(chat *c, const du_str *text, du_diag *diag) {
    size_t n_before = json_array_size(c->messages);
    du_generation g = {0};
    du_err err = du_chat_add_message(c->messages, "user", du_str_get(text), text->len, diag);
    if (err == DU_OK) {
        err = generate(c, &g, diag);
    }
    if (err == DU_OK) {
        err = remember_answer(c, &g, diag);
    }
    if (err == DU_OK && !quiet) {
        du_cli_answer_speed(&g);
    }
    if (err != DU_OK) {
        while (json_array_size(c->messages) > n_before) {
            json_array_remove(c->messages, json_array_size(c->messages) - 1);
        }
    }
    du_generation_done(&g);
    return err;
}

/* Reads lines until the message is whole. */
static du_err read_message(chat *c, du_diag *diag) {
    bool quoted = false;
    du_str_reset(&c->message);
    for (bool first = true;; first = false) {
        du_err err = du_cli_editor_line(c->editor, first ? "> " : "| ", &c->line, diag);
        if (err != DU_OK) {
            return err == DU_ENOENT && c->message.len > 0 ? DU_OK : err;
        }
        du_sv line = du_str_view(&c->line);
        if (du_sv_is(line, "\"\"\"")) {
            if (quoted) {
                break;
            }
            quoted = true;
            continue;
        }
        bool goes_on = !quoted && du_sv_ends(line, "\\");
        if (c->message.len > 0) {
            du_str_add_c(&c->message, '\n');
        }
        du_str_add(&c->message, line.s, line.len - goes_on);
        if (!quoted && !goes_on) {
            break;
        }
    }
    return c->message.failed ? du_fail_nomem(diag, "a message") : DU_OK;
}

/* One message or command; a failure is told and the conversation goes on. */
static du_err round_of(chat *c, du_diag *diag) {
    du_cli_interrupt_catch(true);
    du_err err = read_message(c, diag);
    if (err == DU_ENOENT) {
        c->ended = true;
        return DU_OK;
    }
    if (err == DU_ECANCELLED && du_cli_editor_is_terminal(c->editor) && !du_cli_terminated()) {
        du_cli_note("(Ctrl-D or /quit ends)");
        return DU_OK;
    }
    const char *text = du_str_get(&c->message);
    if (err != DU_OK || strspn(text, " \t\n") == c->message.len) {
        return err;
    }
    du_cli_editor_remember(c->editor, text);
    err = *text == '/' && !strchr(text, '\n') ? command(c, text, diag) : turn(c, &c->message, diag);
    if (du_cli_terminated()) {
        return DU_ECANCELLED;
    }
    if (err == DU_ECANCELLED) {
        return DU_OK; /* stopped before the first token */
    }
    if (err != DU_OK && err != DU_ENOMEM && !ferror(stdout)) {
        du_cli_print_error(NULL, diag->msg);
        if (err == DU_ELIMIT) {
            du_cli_note("/reset starts anew, dure chat -c N gives more room");
        }
        du_diag_reset(diag);
        return DU_OK;
    }
    return err;
}

static du_cli_status converse(chat *c, du_diag *diag) {
    du_err err = reset(c, diag);
    if (du_cli_editor_is_terminal(c->editor)) {
        du_cli_note("context %lld tokens; /help lists the commands",
                    (long long)du_infer_n_ctx(c->runner.infer));
    }
    while (err == DU_OK && !c->ended) {
        err = round_of(c, diag);
    }
    return du_cli_fail(err);
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    chat c = {.messages = json_array(), .vars = json_object()};
    du_cli_status status = du_cli_add_vars(c.vars, &var_items, diag);
    if (status == DU_CLI_DONE) {
        status = du_cli_fail(
            du_cli_runner_open(&c.runner, n_args > 0 ? args[0] : NULL, false, NULL, diag));
    }
    if (status == DU_CLI_DONE) {
        status = du_cli_sampling_read(&c.params, c.runner.lm, diag);
    }
    if (status == DU_CLI_DONE) {
        status = du_cli_fail(du_cli_editor_open(&c.editor, diag));
    }
    if (status == DU_CLI_DONE) {
        status = converse(&c, diag);
    }
    du_cli_editor_close(c.editor);
    du_str_done(&c.line);
    du_str_done(&c.message);
    json_decref(c.messages);
    json_decref(c.vars);
    du_opt_list_done(&var_items);
    du_cli_sampling_done();
    du_cli_runner_close(&c.runner);
    return status;
}

const du_cli_command du_cli_chat = {
    .name = "chat",
    .args = "[MODEL]",
    .summary = "hold a conversation",
    .about = "Answers what is typed, turn by turn, with line editing and a history on a terminal. "
             "/help lists the commands: /think and /nothink ask the model to reason or not, /reset "
             "forgets the conversation, /save FILE writes it, /quit ends. A line that ends with a "
             "backslash goes on in the next, and three double quotes on a line of their own begin "
             "and end a text of several lines. Ctrl-C stops an answer and not the program. Answers "
             "go to standard output, everything else to standard error.",
    .example = "dure chat\n"
               "dure chat model.gguf -s 'You are a patient teacher.' -c 8k",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .samples = true,
    .computes = DU_CLI_COMPUTES_ALL,
    .n_args_max = 1,
    .run = run,
};
