#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/ids.h"
#include "cli/prompt.h"
#include "cli/source.h"
#include "infer/lm.h"
#include "text/chat.h"

static const char *messages_file, *tools_file, *documents_file, *name = "default";
static du_opt_list vars;
static bool no_generation_prompt;

static const du_opt opts[] = {
    DU_OPTION_STR(0, "messages", "FILE", &messages_file,
                  "JSON array of messages: [{\"role\": ..., \"content\": ...}, ...]"),
    DU_OPTION_STR(0, "tools", "FILE", &tools_file, "JSON array of tools (default: none)"),
    DU_OPTION_STR(0, "documents", "FILE", &documents_file,
                  "JSON array of documents (default: none)"),
    DU_OPTION_LIST(0, "var", "NAME=JSON", &vars,
                   "a further variable of the template, as in --var enable_thinking=false"),
    DU_OPTION_FLAG(0, "no-generation-prompt", &no_generation_prompt,
                   "do not ask for the assistant's turn at the end"),
    DU_OPTION_STR(0, "name", "NAME", &name, "which of several templates of MODEL (default)"),
};

static du_err load_array(json_t **out, const char *path, du_diag *diag) {
    if (!path) {
        return DU_OK;
    }
    char *text;
    size_t len;
    du_err err = du_cli_text_read(&text, &len, path, diag);
    if (err != DU_OK) {
        return err;
    }
    err = du_json_parse(out, text, len, du_cli_path_name(path), diag);
    du_free(text);
    if (err == DU_OK && !json_is_array(*out)) {
        err = du_fail(diag, DU_EFORMAT, "%s: not a JSON array", du_cli_path_name(path));
    }
    return err;
}

/* The template's text and the variables that its tokenizer gives it. */
typedef struct {
    char *text;
    size_t len;
    json_t *vars; /* object */
} source;

static du_err from_files(source *src, const du_cli_files *files, const char *model, du_diag *diag) {
    du_sv text;
    du_tokenizer *tok = NULL;
    du_err err = du_lm_find_template(files->gguf, files->hf, name, &text, diag);
    if (err == DU_OK && !text.s) {
        err = du_fail(diag, DU_ENOENT, "%s: no chat template named %s",
                      model ? model : du_cli_default_name, name);
    }
    if (err == DU_OK) {
        err = files->gguf ? du_tokenizer_from_gguf(&tok, files->gguf, diag)
                          : du_tokenizer_from_dir(&tok, model, diag);
    }
    if (err == DU_OK) {
        src->text = du_strndup(text.s, text.len);
        src->len = text.len;
        src->vars = du_lm_template_vars(tok, NULL);
        if (!src->text || !src->vars) {
            err = du_fail_nomem(diag, "the chat template");
        }
    }
    du_tokenizer_free(tok);
    return err;
}

static du_err open_source(source *src, const char *model, du_diag *diag) {
    if (model && du_sv_ends(du_sv_of(model), ".jinja")) {
        src->vars = json_object();
        return src->vars
                   ? du_file_read(&src->text, &src->len, model, DU_HF_TEMPLATE_BYTES_MAX, diag)
                   : du_fail_nomem(diag, model);
    }
    du_cli_files files;
    du_err err = du_cli_files_open(&files, model, diag);
    if (err == DU_OK) {
        err = from_files(src, &files, model, diag);
    }
    du_cli_files_close(&files);
    return err;
}

static du_err render(const source *src, const char *what, const json_t *messages,
                     const json_t *tools, const json_t *documents, du_diag *diag) {
    du_chat *chat = NULL;
    du_str text = {0};
    du_err err = du_chat_open(&chat, src->text, src->len, what, diag);
    if (err == DU_OK) {
        du_chat_input input = {.messages = messages,
                               .tools = tools,
                               .documents = documents,
                               .vars = src->vars,
                               .add_generation_prompt = !no_generation_prompt};
        err = du_chat_render(chat, &input, &text, diag);
    }
    if (err == DU_OK) {
        fwrite(du_str_get(&text), 1, text.len, stdout);
    }
    du_str_done(&text);
    du_chat_close(chat);
    return err;
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    const char *model = n_args > 0 ? args[0] : NULL;
    if (!messages_file) {
        return du_cli_misuse(diag, "--messages is missing");
    }
    source src = {0};
    json_t *messages = NULL, *tools = NULL, *documents = NULL;
    du_cli_status status = DU_CLI_DONE;
    du_err err = open_source(&src, model, diag);
    if (err == DU_OK) {
        status = du_cli_add_vars(src.vars, &vars, diag);
    }
    if (err == DU_OK && status == DU_CLI_DONE) {
        err = load_array(&messages, messages_file, diag);
        err = err ? err : load_array(&tools, tools_file, diag);
        err = err ? err : load_array(&documents, documents_file, diag);
        err = err ? err
                  : render(&src, model ? model : du_cli_default_name, messages, tools, documents,
                           diag);
    }
    json_decref(messages);
    json_decref(tools);
    json_decref(documents);
    json_decref(src.vars);
    du_free(src.text);
    return status != DU_CLI_DONE ? status : du_cli_fail(err);
}

const du_cli_command du_cli_template = {
    .name = "template",
    .args = "[MODEL | FILE.jinja]",
    .summary = "render a chat template",
    .about = "Prints the prompt that a chat template makes of messages, byte for byte what Jinja2 "
             "gives with trim_blocks, lstrip_blocks and Hugging Face's additions (tojson that "
             "keeps non-ASCII text, raise_exception, strftime_now). No line feed is added. `tools` "
             "and `documents` are none where they are not given; bos_token and eos_token come from "
             "MODEL's tokenizer.",
    .example = "dure template model.gguf --messages messages.json\n"
               "dure template chat.jinja --messages messages.json --var bos_token='\"<s>\"'",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .n_args_max = 1,
    .run = run,
};
