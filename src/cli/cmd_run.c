/* dure run: one prompt, one answer. The prompt comes from one of five places; it goes through the
 * chat template unless --raw or --tokens-file say that it stands as it is. */
#include <stdio.h>

#include "base/mem.h"
#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/compute.h"
#include "cli/ids.h"
#include "cli/interrupt.h"
#include "cli/prompt.h"
#include "cli/sampling.h"

enum { SHOW, HIDE };

static const char *prompt, *file, *tokens_file, *system_text, *template_file;
static bool raw, parse_special, as_json, quiet;
static int think = SHOW, thinking = DU_CLI_THINKING_AUTO;
static int64_t n_log_probs = -1;
static du_opt_list var_items;

static const du_opt opts[] = {
    DU_OPTION_STR('p', "prompt", "TEXT", &prompt, "the prompt"),
    DU_OPTION_STR('f', "file", "FILE", &file, "read the prompt from FILE"),
    DU_OPTION_STR(0, "tokens-file", "FILE", &tokens_file,
                  "the prompt as token ids, used as they stand (no BOS added, no template)"),
    DU_OPTION_STR('s', "system", "TEXT", &system_text, "a system message before the prompt"),
    DU_OPTION_FLAG(0, "raw", &raw,
                   "no chat template: the text itself, with the BOS that the tokenizer asks for"),
    DU_OPTION_FLAG(0, "parse-special", &parse_special,
                   "with --raw: read the names of control tokens in the text as these tokens"),
    DU_OPTION_STR(0, "template", "FILE", &template_file,
                  "use this Jinja template instead of the model's"),
    DU_OPTION_LIST(0, "var", "NAME=JSON", &var_items,
                   "a further variable of the template; may be repeated"),
    DU_OPTION_CHOICE(0, "thinking", DU_CLI_THINKING_WORDS, &thinking,
                     "whether the model reasons first (auto: as its template does)"),
    DU_OPTION_CHOICE(0, "think", "show|hide", &think,
                     "show the reasoning on standard error, or hide it (default: show)"),
    DU_OPTION_FLAG(0, "json", &as_json,
                   "print one JSON object: prompt_tokens, tokens, text, reasoning, content, "
                   "finish, timings"),
    DU_OPTION_INT(0, "logprobs", "N", &n_log_probs, 0, 1000,
                  "with --json: the log probability of each token and of the N most likely ones"),
    DU_OPTION_FLAG('q', "quiet", &quiet, "no line about the speed at the end"),
};

/* The prompt's ids and where it leaves the reasoning. */
typedef struct {
    du_ids ids;
    du_reasoning_start start;
    bool is_chat;
} request;

/* MODEL and `-` in any order: args is what the command line gave. */
static du_cli_status find_sources(int n_args, char **args, const char **model, bool *from_stdin,
                                  du_diag *diag) {
    for (int i = 0; i < n_args; i++) {
        if (strcmp(args[i], "-") == 0) {
            *from_stdin = true;
        } else if (!*model) {
            *model = args[i];
        } else {
            return du_cli_misuse(diag, "two models: %s and %s (a prompt goes behind -p)", *model,
                                 args[i]);
        }
    }
    int n = (prompt != NULL) + (file != NULL) + (tokens_file != NULL) + *from_stdin;
    if (n == 0) {
        return du_cli_misuse(diag, "no prompt: give -p TEXT, -f FILE, --tokens-file FILE, or - for "
                                   "standard input");
    }
    return n == 1 ? DU_CLI_DONE
                  : du_cli_misuse(diag, "more than one prompt: -p, -f, --tokens-file and - exclude "
                                        "each other");
}

/* Options that would do nothing beside the others. */
static du_cli_status check_options(du_diag *diag) {
    if (parse_special && (!raw || tokens_file)) {
        return du_cli_misuse(diag, "--parse-special is for the text of --raw");
    }
    if (n_log_probs >= 0 && !as_json) {
        return du_cli_misuse(diag, "--logprobs is for --json");
    }
    const char *unused = system_text                        ? "-s"
                         : template_file                    ? "--template"
                         : var_items.n > 0                  ? "--var"
                         : thinking != DU_CLI_THINKING_AUTO ? "--thinking"
                                                            : NULL;
    if (unused && (raw || tokens_file)) {
        return du_cli_misuse(diag, "%s is for the chat template, which %s leaves out", unused,
                             raw ? "--raw" : "--tokens-file");
    }
    return DU_CLI_DONE;
}

/* Text from a file or a pipe ends with a line feed that nobody meant. */
static size_t without_line_feed(const char *text, size_t len) {
    return len > 0 && text[len - 1] == '\n' ? len - 1 : len;
}

static du_cli_status chat_request(request *req, const du_lm *lm, const char *text, size_t len,
                                  du_diag *diag) {
    json_t *messages = json_array(), *vars = json_object();
    du_cli_status status = du_cli_add_vars(vars, &var_items, diag);
    if (status == DU_CLI_DONE) {
        du_err err = DU_OK;
        if (system_text) {
            err = du_chat_add_message(messages, "system", system_text, strlen(system_text), diag);
        }
        err = err ? err : du_chat_add_message(messages, "user", text, len, diag);
        err = err ? err
                  : du_cli_chat_prompt(lm, messages, vars, (du_cli_thinking)thinking, &req->ids,
                                       &req->start, diag);
        status = du_cli_fail(err);
    }
    req->is_chat = true;
    json_decref(messages);
    json_decref(vars);
    return status;
}

static du_cli_status read_request(request *req, const du_lm *lm, bool from_stdin, du_diag *diag) {
    if (tokens_file) {
        return du_cli_fail(du_cli_ids_read(&req->ids, tokens_file, diag));
    }
    char *owned = NULL;
    const char *text = prompt;
    size_t len = prompt ? strlen(prompt) : 0;
    if (!prompt) {
        du_err err = du_cli_text_read(&owned, &len, from_stdin ? "-" : file, diag);
        if (err != DU_OK) {
            return du_cli_fail(err);
        }
        text = owned;
    }
    du_cli_status status;
    if (raw) {
        unsigned flags = parse_special ? DU_ENCODE_SPECIAL : 0;
        status = du_cli_fail(
            du_tokenizer_encode_prompt(lm->tok, (du_sv){text, len}, flags, &req->ids, diag));
    } else {
        status = chat_request(req, lm, text, owned ? without_line_feed(text, len) : len, diag);
    }
    du_free(owned);
    return status;
}

/* [{"token": id, "logprob": x, "top": [[id, x], ...]}, ...] */
static json_t *json_log_probs(const du_generation *g) {
    json_t *all = json_array();
    for (size_t i = 0; i < g->tokens.n; i++) {
        json_t *top = json_array();
        for (int64_t k = 0; k < n_log_probs; k++) {
            size_t at = i * (size_t)n_log_probs + (size_t)k;
            json_array_append_new(top, json_pack("[i, f]", g->top_ids[at], g->top_log_probs[at]));
        }
        json_array_append_new(all, json_pack("{s:i, s:f, s:o}", "token", g->tokens.ids[i],
                                             "logprob", g->log_probs[i], "top", top));
    }
    return all;
}

static du_err print_json(const request *req, const du_generation *g, du_diag *diag) {
    json_t *timings = json_pack("{s:I, s:f, s:I, s:f}", "prompt_n", (json_int_t)g->n_computed,
                                "prompt_ms", g->prompt_s * 1e3, "decode_n", (json_int_t)g->tokens.n,
                                "decode_ms", g->decode_s * 1e3);
    json_t *all = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:s, s:o}", "prompt_tokens",
        du_cli_ids_json(req->ids.ids, req->ids.n), "tokens",
        du_cli_ids_json(g->tokens.ids, g->tokens.n), "text", du_cli_text_json(&g->text),
        "reasoning", du_cli_text_json(&g->reasoning), "content", du_cli_text_json(&g->content),
        "finish", du_finish_name(g->finish), "timings", timings);
    if (all && n_log_probs >= 0) {
        json_object_set_new(all, "logprobs", json_log_probs(g));
    }
    return du_cli_print_json(all, diag);
}

static du_err answer(du_cli_runner *runner, const request *req, du_generate_params *params,
                     du_diag *diag) {
    du_cli_answer shown = du_cli_answer_start(!as_json, think == SHOW && !as_json);
    params->split = req->is_chat;
    params->start = req->start;
    params->n_log_probs = n_log_probs > 0 ? n_log_probs : 0;
    params->keep_log_probs = n_log_probs >= 0;
    params->progress = du_cli_answer_prompt;
    params->on_text = du_cli_answer_text;
    params->user = &shown;
    du_generation g = {0};
    du_cli_interrupt_catch(true);
    du_err err = du_generate(&g, runner->session, runner->lm, req->ids.ids, (int64_t)req->ids.n,
                             params, diag);
    du_err lost = du_cli_answer_end(&shown, diag);
    bool cancelled = err == DU_ECANCELLED || (err == DU_OK && g.finish == DU_FINISH_CANCELLED);
    if (as_json && (err == DU_OK || cancelled)) {
        du_err printed = print_json(req, &g, diag);
        err = printed ? printed : err;
    }
    if (!quiet && !as_json && (err == DU_OK || cancelled)) {
        du_cli_answer_speed(&g);
    }
    du_generation_done(&g);
    return lost ? lost : cancelled && err == DU_OK ? DU_ECANCELLED : err;
}

static du_err set_template(du_lm *lm, du_diag *diag) {
    if (!template_file) {
        return DU_OK;
    }
    char *text;
    size_t len;
    du_err err = du_cli_text_read(&text, &len, template_file, diag);
    if (err == DU_OK) {
        err = du_lm_set_template(lm, text, len, template_file, diag);
        du_free(text);
    }
    return err;
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    const char *model = NULL;
    bool from_stdin = false;
    du_cli_status status = find_sources(n_args, args, &model, &from_stdin, diag);
    status = status ? status : check_options(diag);
    if (status != DU_CLI_DONE) {
        return status;
    }
    du_cli_runner runner;
    request req = {0};
    du_generate_params params = {0};
    status = du_cli_fail(du_cli_runner_open(&runner, model, tokens_file != NULL, NULL, diag));
    if (status == DU_CLI_DONE) {
        status = du_cli_fail(set_template(runner.lm, diag));
    }
    if (status == DU_CLI_DONE) {
        status = du_cli_sampling_read(&params, runner.lm, diag);
    }
    if (status == DU_CLI_DONE) {
        status = read_request(&req, runner.lm, from_stdin, diag);
    }
    if (status == DU_CLI_DONE) {
        status = du_cli_fail(answer(&runner, &req, &params, diag));
    }
    du_ids_done(&req.ids);
    du_cli_sampling_done();
    du_opt_list_done(&var_items);
    du_cli_runner_close(&runner);
    return status;
}

const du_cli_command du_cli_run = {
    .name = "run",
    .args = "[MODEL] [-]",
    .summary = "answer one prompt",
    .about = "Answers one prompt, which comes from -p, from a file, or from standard input (-). "
             "The answer goes to standard output and nothing else does: the reasoning that comes "
             "before it and a line about the speed go to standard error. Ctrl-C ends the answer "
             "where it is; the status is then 130.",
    .example = "dure run -p 'What is 17 + 28 - 9?'\n"
               "dure run model.gguf -p 'Why is the sky blue?' -n 500 --temp 0 --json\n"
               "cat letter.txt | dure run model.gguf -s 'Be brief.' - > answer.txt",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .samples = true,
    .computes = DU_CLI_COMPUTES_ALL,
    .n_args_max = 2,
    .run = run,
};
