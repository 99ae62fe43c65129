#include <stdio.h>

#include "cli/cli.h"
#include "cli/ids.h"
#include "cli/source.h"

static const char *tokens_file = "-";
static bool skip_special;

static const du_opt opts[] = {
    DU_OPTION_STR(0, "tokens-file", "FILE", &tokens_file,
                  "token ids separated by white space (default: standard input)"),
    DU_OPTION_FLAG(0, "skip-special", &skip_special, "leave control tokens out"),
};

static du_err print_text(const du_tokenizer *tok, const du_ids *ids, du_diag *diag) {
    int32_t n_vocab = du_tokenizer_get_info(tok)->n_vocab;
    du_detok detok;
    du_detok_init(&detok, tok, DU_DECODE_START | (skip_special ? 0 : DU_DECODE_SPECIAL));
    du_str text = {0};
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->ids[i] >= n_vocab) {
            du_str_done(&text);
            return du_fail(diag, DU_EINVAL, "%s: token %d at position %zu: the vocabulary has %d",
                           du_cli_path_name(tokens_file), ids->ids[i], i, n_vocab);
        }
        du_detok_push(&detok, ids->ids[i], &text);
    }
    du_detok_flush(&detok, &text);
    bool failed = text.failed;
    if (!failed) {
        fwrite(du_str_get(&text), 1, text.len, stdout);
    }
    du_str_done(&text);
    return failed ? du_fail_nomem(diag, "the text") : DU_OK;
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    du_tokenizer *tok = NULL;
    du_ids ids = {0};
    du_err err = du_cli_tokenizer_open(&tok, n_args > 0 ? args[0] : NULL, diag);
    if (err == DU_OK) {
        err = du_cli_ids_read(&ids, tokens_file, diag);
    }
    if (err == DU_OK) {
        err = print_text(tok, &ids, diag);
    }
    du_ids_done(&ids);
    du_tokenizer_free(tok);
    return du_cli_fail(err);
}

const du_cli_command du_cli_detokenize = {
    .name = "detokenize",
    .args = "[MODEL]",
    .summary = "turn token ids into text",
    .about = "Prints the bytes that token ids stand for, exactly: no line feed is added, and bytes "
             "that are not UTF-8 come out as they are.",
    .example = "echo -n 'two and two' | dure tokenize | dure detokenize",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .n_args_max = 1,
    .run = run,
};
