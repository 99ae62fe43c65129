#include <stdio.h>

#include "base/cpu.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/out.h"
#include "data/docs.h"
#include "text/bpe_train.h"
#include "text/tokenizer_write.h"

enum {
    ROUND_BYTES = 16 << 20, /* of texts that are counted at once */
    SPECIAL_MAX = 4096
};

static int64_t n_vocab, n_threads;
static const char *output = "tokenizer.json", *rule = "qwen2", *separator;
static const char *bos = "<｜begin▁of▁sentence｜>", *eos = "<｜end▁of▁sentence｜>",
                  *pad = "<｜▁pad▁｜>";
static du_opt_list more_special, visible;
static int form;
static bool as_json;

static const du_opt opts[] = {
    DU_OPTION_SIZE(0, "vocab", "N", &n_vocab, 257, 1 << 24,
                   "tokens in all, as in 32k: special ones, 256 bytes, and what is learned"),
    DU_OPTION_STR('o', "output", "PATH", &output,
                  "the file to write, or a folder for tokenizer.json; tokenizer_config.json goes "
                  "beside it (default: tokenizer.json)"),
    DU_OPTION_STR(0, "pre", "RULE", &rule,
                  "how texts are cut into words: a name that GGUF files have in "
                  "tokenizer.ggml.pre (default: qwen2)"),
    DU_OPTION_STR(0, "bos", "NAME", &bos,
                  "the token that begins a text (default: DeepSeek's; empty: none)"),
    DU_OPTION_STR(0, "eos", "NAME", &eos,
                  "the token that ends a text (default: DeepSeek's; empty: none)"),
    DU_OPTION_STR(0, "pad", "NAME", &pad,
                  "the token that fills up (default: DeepSeek's; empty: none)"),
    DU_OPTION_LIST(0, "special", "NAME", &more_special,
                   "a further control token, as a chat's roles need; may be repeated"),
    DU_OPTION_LIST(0, "token", "NAME", &visible,
                   "a further token that is found in every text and shown as its text, as <think>; "
                   "may be repeated"),
    DU_OPTION_CHOICE(0, "format", "auto|text|jsonl", &form,
                     "what the files hold (auto: JSON lines when the name ends in .jsonl or "
                     ".ndjson, perhaps with .zst)"),
    DU_OPTION_STR(0, "separator", "LINE", &separator,
                  "a line of text files that stands between documents and is none itself"),
    DU_OPTION_INT('t', "threads", "N", &n_threads, 1, 1024,
                  "threads that count words (default: one per physical core)"),
    DU_OPTION_FLAG(0, "json", &as_json,
                   "print a JSON object: output, config, vocab, merges, special, documents, bytes, "
                   "words, different, forgotten, bytes_per_token"),
};

/* The special tokens that the options name. */
typedef struct {
    du_sv texts[SPECIAL_MAX];
    int32_t n, n_visible;
    int32_t bos, eos, pad;
} specials;

static int32_t add_special(specials *s, const char *name) {
    if (*name == '\0') {
        return -1;
    }
    s->texts[s->n] = du_sv_of(name);
    return s->n++;
}

static du_cli_status read_specials(specials *s, du_diag *diag) {
    if (more_special.n + visible.n > SPECIAL_MAX - 3) {
        return du_cli_misuse(diag, "--special, --token: more than %d of them", SPECIAL_MAX - 3);
    }
    s->n = 0;
    s->bos = add_special(s, bos);
    s->eos = add_special(s, eos);
    s->pad = add_special(s, pad);
    s->n_visible = (int32_t)visible.n;
    for (size_t i = 0; i < more_special.n + visible.n; i++) {
        bool control = i < more_special.n;
        const char *name = control ? more_special.items[i] : visible.items[i - more_special.n];
        if (add_special(s, name) < 0) {
            return du_cli_misuse(diag, "--%s: an empty name", control ? "special" : "token");
        }
    }
    return DU_CLI_DONE;
}

typedef struct {
    const du_docs *docs;
    du_doc_batch batch;
    du_cli_progress bar;
    int64_t n_documents;
} reading;

static du_err count_messages(du_bpe_counter *counter, const json_t *messages, du_diag *diag) {
    size_t i;
    json_t *message;
    du_err err = DU_OK;
    json_array_foreach(messages, i, message) {
        const json_t *content = json_object_get(message, "content");
        du_sv text = {json_string_value(content), json_string_length(content)};
        err = err || !json_is_string(content) ? err : du_bpe_count(counter, text, diag);
    }
    return err;
}

/* A du_bpe_texts_fn: the texts of one document. */
static du_err count_document(void *arg, int64_t i, du_bpe_counter *counter, du_diag *diag) {
    reading *r = arg;
    du_record record;
    du_err err = du_record_open(&record, r->docs, &r->batch, (size_t)i, diag);
    if (err != DU_OK) {
        return err;
    }
    switch (record.kind) {
    case DU_RECORD_TEXT:
        err = du_bpe_count(counter, record.text, diag);
        break;
    case DU_RECORD_ANSWER:
        err = du_bpe_count(counter, record.prompt, diag);
        err = err ? err : du_bpe_count(counter, record.response, diag);
        break;
    case DU_RECORD_CHAT:
        err = count_messages(counter, record.messages, diag);
    }
    du_record_close(&record);
    return err;
}

static du_err count(du_bpe_trainer *trainer, du_docs *docs, reading *r, du_diag *diag) {
    r->docs = docs;
    r->bar = du_cli_progress_start("count", du_docs_bytes(docs));
    du_err err;
    while ((err = du_docs_read(docs, &r->batch, ROUND_BYTES, diag)) == DU_OK && r->batch.n > 0) {
        err = du_bpe_trainer_count(trainer, (int64_t)r->batch.n, count_document, r, diag);
        if (err != DU_OK) {
            break;
        }
        for (size_t i = 0; i < r->batch.n; i++) {
            r->n_documents += r->batch.docs[i].begins;
        }
        du_cli_progress_set(&r->bar, du_docs_pos(docs));
    }
    du_cli_progress_end(&r->bar);
    du_doc_batch_done(&r->batch);
    return err;
}

static bool show_tokens(void *bar, int64_t n_tokens) {
    du_cli_progress_set(bar, n_tokens);
    return false; /* an interrupt ends the program: nothing is written yet */
}

/* Where the two files go. */
typedef struct {
    char *dir, *tokenizer, *config;
} places;

static du_err find_places(places *out, du_diag *diag) {
    const char *slash = strrchr(output, '/');
    if (du_sv_ends(du_sv_of(output), ".json")) {
        out->dir = slash ? du_strndup(output, (size_t)(slash - output) + 1) : du_strdup(".");
        out->tokenizer = du_strdup(output);
    } else {
        out->dir = du_strdup(output);
        out->tokenizer = du_path_join(output, "tokenizer.json");
    }
    out->config = out->dir ? du_path_join(out->dir, "tokenizer_config.json") : NULL;
    return out->dir && out->tokenizer && out->config ? DU_OK : du_fail_nomem(diag, output);
}

static void places_done(places *p) {
    du_free(p->dir);
    du_free(p->tokenizer);
    du_free(p->config);
}

/* Whether the files can be written is told before the work. */
static du_err try_place(const places *p, du_diag *diag) {
    du_writer *place;
    if (!du_dir_exists(p->dir)) {
        return DU_OK; /* made at the end */
    }
    du_err err = du_writer_open(&place, p->tokenizer, diag);
    if (err == DU_OK) {
        du_writer_close(place);
    }
    return err;
}

static du_err save(const du_tokenizer *tok, const places *p, du_diag *diag) {
    json_t *json = NULL, *config = NULL;
    du_err err = du_tokenizer_to_json(tok, &json, diag);
    err = err ? err : du_tokenizer_config_to_json(tok, &config, diag);
    err = err ? err : du_dir_make(p->dir, diag);
    err = err ? err : du_json_save(config, p->config, diag);
    err = err ? err : du_json_save(json, p->tokenizer, diag);
    json_decref(json);
    json_decref(config);
    return err;
}

static du_err print(const du_bpe_train_stats *stats, const places *p, int64_t n_tokens,
                    int64_t n_special, int64_t n_documents, du_diag *diag) {
    double per_token =
        stats->n_tokens > 0 ? (double)stats->n_token_bytes / (double)stats->n_tokens : 0;
    if (as_json) {
        return du_cli_print_json(
            json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "output",
                      p->tokenizer, "config", p->config, "vocab", (json_int_t)n_tokens, "merges",
                      (json_int_t)stats->n_merges, "special", (json_int_t)n_special, "documents",
                      (json_int_t)n_documents, "bytes", (json_int_t)stats->n_bytes, "words",
                      (json_int_t)stats->n_words, "different", (json_int_t)stats->n_different,
                      "forgotten", (json_int_t)stats->n_forgotten, "bytes_per_token", per_token),
            diag);
    }
    char buf[24];
    printf("%s: %lld tokens from %s in %lld documents, %.2f bytes per token\n", p->tokenizer,
           (long long)n_tokens, du_cli_bytes(buf, stats->n_bytes), (long long)n_documents,
           per_token);
    if (n_tokens < n_vocab) {
        printf("fewer than %lld: no other pair of tokens occurs twice\n", (long long)n_vocab);
    }
    return DU_OK;
}

static du_err train(const specials *s, const places *p, int n_paths, char **paths, du_diag *diag) {
    du_docs_params in = {.paths = (const char *const *)paths,
                         .n_paths = n_paths,
                         .form = (du_docs_form)form,
                         .separator = separator};
    du_bpe_train_params params = {.n_vocab = (int32_t)n_vocab,
                                  .rule = rule,
                                  .special = s->texts,
                                  .n_special = s->n,
                                  .n_visible = s->n_visible,
                                  .bos = s->bos,
                                  .eos = s->eos,
                                  .pad = s->pad,
                                  .add_bos = true};
    du_docs *docs = NULL;
    du_pool *pool = NULL;
    du_bpe_trainer *trainer = NULL;
    du_tokenizer *tok = NULL;
    reading r = {0};
    du_err err = du_docs_open(&docs, &in, diag);
    err = err ? err : du_pool_new(&pool, n_threads ? n_threads : du_cpu_n_cores(), false, diag);
    err = err ? err : du_bpe_trainer_new(&trainer, &params, pool, diag);
    err = err ? err : count(trainer, docs, &r, diag);
    if (err == DU_OK) {
        du_cli_progress bar = du_cli_progress_start("join", n_vocab);
        err = du_bpe_trainer_run(trainer, show_tokens, &bar, &tok, diag);
        du_cli_progress_end(&bar);
    }
    err = err ? err : save(tok, p, diag);
    if (err == DU_OK) {
        du_bpe_train_stats stats = du_bpe_trainer_stats(trainer);
        err = print(&stats, p, du_tokenizer_get_info(tok)->n_vocab, s->n, r.n_documents, diag);
    }
    du_tokenizer_free(tok);
    du_bpe_trainer_free(trainer);
    du_pool_free(pool);
    du_docs_close(docs);
    return err;
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    static specials s;
    places p = {0};
    if (n_vocab == 0) {
        return du_cli_misuse(diag, "--vocab is missing, as in --vocab 32k");
    }
    du_cli_status status = read_specials(&s, diag);
    if (status != DU_CLI_DONE) {
        return status;
    }
    du_err err = find_places(&p, diag);
    err = err ? err : try_place(&p, diag);
    err = err ? err : train(&s, &p, n_args, args, diag);
    places_done(&p);
    return du_cli_fail(err);
}

const du_cli_command du_cli_tokenizer_train = {
    .name = "tokenizer train",
    .args = "FILE...",
    .summary = "learn a vocabulary from texts",
    .about =
        "Learns a byte-level BPE tokenizer and writes it as tokenizer.json, for dure and for the "
        "libraries that read such files. FILE is text, or JSON lines with a text \"text\", "
        "\"prompt\" and \"response\", or \"messages\"; what zstd has packed is unpacked, - is "
        "standard input. The rule qwen2 cuts off words of letters with the blank before them, "
        "Korean and English alike, and each digit by itself; deepseek-v3 takes up to three digits "
        "together. The result depends on the texts and the options, not on the number of threads.",
    .example = "dure tokenizer train --vocab 32k --output my-model texts.jsonl.zst\n"
               "dure tokenizer train --vocab 8k --pre deepseek-v3 --token '<a>' *.txt",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .n_args_min = 1,
    .n_args_max = 1 << 20,
    .run = run,
};
