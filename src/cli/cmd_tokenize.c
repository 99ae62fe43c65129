#include <stdio.h>

#include "base/json.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/ids.h"
#include "cli/out.h"
#include "cli/source.h"
#include "text/unicode.h"

static bool parse_special, bos, as_json;
static const char *jsonl;

static const du_opt opts[] = {
    DU_OPTION_FLAG(0, "parse-special", &parse_special,
                   "read the names of control tokens in the text as these tokens"),
    DU_OPTION_FLAG(0, "bos", &bos, "put the token that begins a sequence first, exactly once"),
    DU_OPTION_STR(0, "jsonl", "FILE", &jsonl,
                  "read {\"text\": ...} from each line of FILE (- is standard input) and write "
                  "{\"tokens\": [...]} for it"),
    DU_OPTION_FLAG(0, "json", &as_json, "print a JSON object: tokens, pieces"),
};

static du_err encode(const du_tokenizer *tok, du_sv text, du_ids *ids, du_diag *diag) {
    int32_t first = du_tokenizer_get_info(tok)->bos;
    if (bos && first < 0) {
        return du_fail(diag, DU_EUNSUPPORTED, "--bos: this vocabulary has no such token");
    }
    size_t start = ids->n;
    if (bos && !du_ids_add(ids, first)) {
        return du_fail_nomem(diag, "the tokens");
    }
    unsigned flags = parse_special ? DU_ENCODE_SPECIAL : 0;
    du_err err = du_tokenizer_encode(tok, text, flags, ids, diag);
    if (err == DU_OK && bos && ids->n > start + 1 && ids->ids[start + 1] == first) {
        ids->n--; /* the text began with it */
        memmove(ids->ids + start, ids->ids + start + 1, (ids->n - start) * sizeof *ids->ids);
    }
    return err;
}

/* {"tokens": [...], "pieces": [...]}; a piece that is no whole characters shows U+FFFD. */
static du_err print_json(const du_tokenizer *tok, const du_ids *ids, du_diag *diag) {
    json_t *pieces = json_array();
    du_str piece = {0};
    for (size_t i = 0; i < ids->n; i++) {
        du_str_reset(&piece);
        du_utf8_add_replaced(&piece, du_tokenizer_piece(tok, ids->ids[i], DU_DECODE_SPECIAL));
        json_array_append_new(pieces, json_stringn(du_str_get(&piece), piece.len));
    }
    du_str_done(&piece);
    return du_cli_print_json(
        json_pack("{s:o, s:o}", "tokens", du_cli_ids_json(ids->ids, ids->n), "pieces", pieces),
        diag);
}

static du_err print_line(const du_tokenizer *tok, du_sv line, int64_t number, du_ids *ids,
                         du_diag *diag) {
    json_t *value;
    du_err err = du_json_parse(&value, line.s, line.len, du_cli_path_name(jsonl), diag);
    if (err == DU_OK) {
        json_t *text = json_object_get(value, "text");
        ids->n = 0;
        err =
            json_is_string(text)
                ? encode(tok, (du_sv){json_string_value(text), json_string_length(text)}, ids, diag)
                : du_fail(diag, DU_EFORMAT, "%s: no string \"text\"", du_cli_path_name(jsonl));
        json_decref(value);
    }
    if (err != DU_OK) {
        du_diag_context(diag, "entry %lld", (long long)number);
        return err;
    }
    fputs("{\"tokens\": [", stdout);
    du_cli_ids_print(stdout, ids, ", ");
    fputs("]}\n", stdout);
    return DU_OK;
}

static du_err print_lines(const du_tokenizer *tok, du_sv text, du_ids *ids, du_diag *diag) {
    du_err err = DU_OK;
    for (int64_t number = 1; text.len > 0 && err == DU_OK; number++) {
        const char *end = memchr(text.s, '\n', text.len);
        du_sv line = {text.s, end ? (size_t)(end - text.s) : text.len};
        size_t used = line.len + (end ? 1 : 0);
        text = (du_sv){text.s + used, text.len - used};
        err = print_line(tok, line, number, ids, diag);
    }
    return err;
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    du_tokenizer *tok = NULL;
    char *text = NULL;
    size_t len = 0;
    du_ids ids = {0};
    du_err err = du_cli_tokenizer_open(&tok, n_args > 0 ? args[0] : NULL, diag);
    if (err == DU_OK) {
        err = du_cli_text_read(&text, &len, jsonl ? jsonl : "-", diag);
    }
    if (err == DU_OK && jsonl) {
        err = print_lines(tok, (du_sv){text, len}, &ids, diag);
    } else if (err == DU_OK) {
        err = encode(tok, (du_sv){text, len}, &ids, diag);
        if (err == DU_OK && as_json) {
            err = print_json(tok, &ids, diag);
        } else if (err == DU_OK) {
            du_cli_ids_print(stdout, &ids, " ");
            fputc('\n', stdout);
        }
    }
    du_ids_done(&ids);
    du_free(text);
    du_tokenizer_free(tok);
    return du_cli_fail(err);
}

const du_cli_command du_cli_tokenize = {
    .name = "tokenize",
    .args = "[MODEL] < TEXT",
    .summary = "turn text into token ids",
    .about = "Reads text from standard input and prints its token ids on one line. No token is put "
             "in front unless --bos says so, and the names of control tokens are ordinary text "
             "unless --parse-special says otherwise. MODEL is a GGUF file or a directory, which "
             "needs to hold tokenizer files only.",
    .example = "echo -n 'two and two' | dure tokenize\n"
               "dure tokenize model.gguf --jsonl texts.jsonl > tokens.jsonl",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .n_args_max = 1,
    .run = run,
};
