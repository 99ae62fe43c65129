#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/out.h"
#include "cli/prompt.h"
#include "cli/source.h"
#include "data/pack.h"
#include "infer/lm.h"

enum { SOURCES_MAX = 1024 };

static const char *tokenizer, *output, *template_file, *separator;
static du_opt_list source_texts, vars;
static int64_t seq_len, n_tokens, shuffle_bytes = 256 << 20, seed = 1, shard_bytes = 1 << 30,
                                  n_threads;
static double validation;
static int form;
static bool as_json;

static const du_opt opts[] = {
    DU_OPTION_STR(0, "tokenizer", "MODEL", &tokenizer,
                  "whose tokenizer and chat template to use: a folder with tokenizer.json, a GGUF "
                  "file"),
    DU_OPTION_STR('o', "output", "DIR", &output, "the folder to make; data.shards of dure train"),
    DU_OPTION_SIZE(0, "seq-len", "N", &seq_len, 1, DU_SHARDS_SEQ_LEN_MAX,
                   "tokens of a sequence; seq_len of dure train, or a multiple of it"),
    DU_OPTION_LIST(
        0, "source", "FILES:WEIGHT", &source_texts,
        "a source of a mixture and its share of the tokens, as in 'web/*.jsonl.zst:0.7'; "
        "may be repeated, instead of FILE"),
    DU_OPTION_SIZE(0, "tokens", "N", &n_tokens, 1, INT64_MAX / 2,
                   "stop after N tokens, reading files again that end before (default: until the "
                   "first source ends)"),
    DU_OPTION_FLOAT(0, "validation", "SHARE", &validation, 0, 0.5,
                    "share of the documents to keep for validation, chosen by a hash of their text "
                    "(default: 0)"),
    DU_OPTION_SIZE(0, "shuffle", "BYTES", &shuffle_bytes, 0, INT64_MAX / 2,
                   "memory in which documents are shuffled; 0: keep their order (default: 256M)"),
    DU_OPTION_INT(0, "seed", "N", &seed, 0, INT64_MAX, "where the shuffle starts (default: 1)"),
    DU_OPTION_STR(0, "template", "FILE", &template_file,
                  "chat template for \"messages\" (default: MODEL's)"),
    DU_OPTION_LIST(0, "var", "NAME=JSON", &vars, "a variable of the template"),
    DU_OPTION_CHOICE(0, "format", "auto|text|jsonl", &form,
                     "what the files hold (auto: JSON lines when the name ends in .jsonl or "
                     ".ndjson, perhaps with .zst)"),
    DU_OPTION_STR(0, "separator", "LINE", &separator,
                  "a line of text files that stands between documents and is none itself"),
    DU_OPTION_SIZE(0, "shard-size", "BYTES", &shard_bytes, 1, INT64_MAX / 2,
                   "size at which another file is begun (default: 1G)"),
    DU_OPTION_INT('t', "threads", "N", &n_threads, 1, 1024,
                  "threads that make tokens of texts (default: one per physical core)"),
    DU_OPTION_FLAG(0, "json", &as_json,
                   "print a JSON object: output, seq_len, sequences, documents, tokens, learned, "
                   "filler, validation, too_long, empty, sources"),
};

/* The sources, and the names that their patterns stand for. */
typedef struct {
    du_pack_source *items; /* [n] */
    glob_t *names;         /* [n] of --source */
    size_t n;
} source_list;

static void sources_done(source_list *list) {
    for (size_t i = 0; i < list->n && list->names; i++) {
        globfree(&list->names[i]);
    }
    du_free(list->items);
    du_free(list->names);
}

/* "FILES:WEIGHT". */
static du_cli_status add_source(source_list *list, const char *text, du_diag *diag) {
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    double weight = colon ? strtod(colon + 1, &end) : 0;
    if (!colon || colon == text || end == colon + 1 || *end || !(weight > 0 && weight < 1e9)) {
        return du_cli_misuse(
            diag, "--source %s: not of the form FILES:WEIGHT with a weight above 0", text);
    }
    char *pattern = du_strndup(text, (size_t)(colon - text));
    glob_t *names = &list->names[list->n];
    int failed = pattern ? glob(pattern, GLOB_NOCHECK, NULL, names) : GLOB_NOSPACE;
    du_free(pattern);
    if (failed) {
        return du_cli_fail(du_fail(diag, DU_EIO, "%s: cannot look for such files", text));
    }
    list->items[list->n++] = (du_pack_source){.paths = (const char *const *)names->gl_pathv,
                                              .n_paths = (int64_t)names->gl_pathc,
                                              .weight = weight};
    return DU_CLI_DONE;
}

static du_cli_status read_sources(source_list *list, int n_args, char **args, du_diag *diag) {
    if ((n_args > 0) == (source_texts.n > 0)) {
        return du_cli_misuse(diag, n_args > 0 ? "either FILE or --source, not both"
                                              : "an argument is missing: FILE, or --source");
    }
    if (source_texts.n > SOURCES_MAX) {
        return du_cli_misuse(diag, "--source: more than %d", SOURCES_MAX);
    }
    list->items = du_alloc_zero(source_texts.n + 1, sizeof list->items[0]);
    list->names = du_alloc_zero(source_texts.n + 1, sizeof list->names[0]);
    if (!list->items || !list->names) {
        return du_cli_fail(du_fail_nomem(diag, "the list of files"));
    }
    if (n_args > 0) {
        list->items[list->n++] = (du_pack_source){(const char *const *)args, n_args, 1};
    }
    du_cli_status status = DU_CLI_DONE;
    for (size_t i = 0; i < source_texts.n && status == DU_CLI_DONE; i++) {
        status = add_source(list, source_texts.items[i], diag);
    }
    return status;
}

/* The tokenizer, and the template where there is one. */
typedef struct {
    du_tokenizer *tok;
    du_chat *chat;
    json_t *vars;
} language;

static void language_done(language *l) {
    du_tokenizer_free(l->tok);
    du_chat_close(l->chat);
    json_decref(l->vars);
}

static du_err open_template(language *l, du_diag *diag) {
    if (template_file) {
        char *text;
        size_t len;
        du_err err = du_file_read(&text, &len, template_file, DU_HF_TEMPLATE_BYTES_MAX, diag);
        if (err == DU_OK) {
            err = du_chat_open(&l->chat, text, len, template_file, diag);
            du_free(text);
        }
        return err;
    }
    du_cli_files files;
    du_sv text = {NULL, 0};
    du_err err = du_cli_files_open(&files, tokenizer, diag);
    err = err ? err : du_lm_find_template(files.gguf, files.hf, "default", &text, diag);
    if (err == DU_OK && text.s) {
        err = du_chat_open(&l->chat, text.s, text.len, "the model's chat template", diag);
    }
    du_cli_files_close(&files);
    return err;
}

static du_err open_language(language *l, const json_t *given, du_diag *diag) {
    du_err err = du_cli_tokenizer_open(&l->tok, tokenizer, diag);
    err = err ? err : open_template(l, diag);
    if (err == DU_OK) {
        l->vars = du_lm_template_vars(l->tok, given);
        err = l->vars ? DU_OK : du_fail_nomem(diag, "the chat template");
    }
    return err;
}

static bool show_bytes(void *arg, int64_t done, int64_t total) {
    du_cli_progress *bar = arg;
    bar->total = total;
    du_cli_progress_set(bar, done);
    return du_cli_interrupted();
}

static json_t *part_to_json(const du_pack_part_stats *part) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "sequences", (json_int_t)part->n_seqs,
                     "documents", (json_int_t)part->n_documents, "tokens",
                     (json_int_t)part->n_tokens, "learned", (json_int_t)part->n_learned, "filler",
                     (json_int_t)part->n_fill);
}

/* What --source says, or the names of all files, blanks between them. */
static json_t *files_to_json(const source_list *list, size_t i) {
    du_str names = {0};
    for (int64_t k = 0; k < list->items[i].n_paths; k++) {
        du_str_addf(&names, "%s%s", k > 0 ? " " : "", list->items[i].paths[k]);
    }
    json_t *json = json_string(source_texts.n > 0 ? source_texts.items[i] : du_str_get(&names));
    du_str_done(&names);
    return json;
}

static json_t *sources_to_json(const source_list *list, const du_pack_source_stats *stats) {
    json_t *all = json_array();
    for (size_t i = 0; i < list->n; i++) {
        json_array_append_new(
            all, json_pack("{s:o, s:f, s:I, s:I, s:I}", "files", files_to_json(list, i), "weight",
                           list->items[i].weight, "documents", (json_int_t)stats[i].n_documents,
                           "tokens", (json_int_t)stats[i].n_tokens, "passes",
                           (json_int_t)stats[i].n_passes));
    }
    return all;
}

static du_err print_json(const source_list *list, const du_pack_stats *stats,
                         const du_pack_source_stats *sources, du_diag *diag) {
    json_t *all = json_pack("{s:s, s:I}", "output", output, "seq_len", (json_int_t)seq_len);
    json_t *train = part_to_json(&stats->parts[DU_SHARDS_TRAIN]);
    json_object_update(all, train);
    json_decref(train);
    json_object_set_new(all, "validation", part_to_json(&stats->parts[DU_SHARDS_VALIDATION]));
    json_object_set_new(all, "too_long", json_integer(stats->n_long));
    json_object_set_new(all, "empty", json_integer(stats->n_empty));
    json_object_set_new(all, "sources", sources_to_json(list, sources));
    return du_cli_print_json(all, diag);
}

static void print_text(const source_list *list, const du_pack_stats *stats,
                       const du_pack_source_stats *sources) {
    const du_pack_part_stats *train = &stats->parts[DU_SHARDS_TRAIN];
    const du_pack_part_stats *held = &stats->parts[DU_SHARDS_VALIDATION];
    double rows = (double)train->n_seqs * (double)seq_len;
    printf("%s: %lld sequences of %lld tokens from %lld documents; %.1f %% of their rows learn, "
           "%.1f %% are filler\n",
           output, (long long)train->n_seqs, (long long)seq_len, (long long)train->n_documents,
           100 * (double)train->n_learned / rows, 100 * (double)train->n_fill / rows);
    if (held->n_documents > 0) {
        printf("for validation: %lld sequences from %lld documents\n", (long long)held->n_seqs,
               (long long)held->n_documents);
    }
    if (stats->n_long + stats->n_empty > 0) {
        printf("left out: %lld answers longer than a sequence, %lld documents with nothing to "
               "learn\n",
               (long long)stats->n_long, (long long)stats->n_empty);
    }
    for (size_t i = 0; i < list->n && list->n > 1; i++) {
        printf("%s: %lld tokens in %lld passes\n", source_texts.items[i],
               (long long)sources[i].n_tokens, (long long)sources[i].n_passes);
    }
}

static du_err pack(const source_list *list, const language *l, du_diag *diag) {
    static du_pack_source_stats sources[SOURCES_MAX];
    du_pack_params params = {.sources = list->items,
                             .n_sources = (int64_t)list->n,
                             .form = (du_docs_form)form,
                             .separator = separator,
                             .example = {l->tok, l->chat, l->vars},
                             .out = output,
                             .seq_len = seq_len,
                             .n_tokens = n_tokens,
                             .shuffle_bytes = shuffle_bytes,
                             .seed = (uint64_t)seed,
                             .validation = validation,
                             .shard_bytes = shard_bytes};
    du_pack_stats stats;
    du_pool *pool = NULL;
    du_err err = du_pool_new(&pool, n_threads ? n_threads : du_cpu_n_cores(), false, diag);
    if (err == DU_OK) {
        du_cli_interrupt_catch(true);
        du_cli_progress bar = du_cli_progress_start("pack", 1);
        err = du_pack(&params, pool, show_bytes, &bar, &stats, sources, diag);
        du_cli_progress_end(&bar);
        du_cli_interrupt_catch(false);
    }
    du_pool_free(pool);
    if (err == DU_OK && as_json) {
        return print_json(list, &stats, sources, diag);
    }
    if (err == DU_OK) {
        print_text(list, &stats, sources);
    }
    return err;
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    if (!tokenizer || !output || seq_len == 0) {
        return du_cli_misuse(diag, "%s is missing",
                             !tokenizer ? "--tokenizer"
                             : !output  ? "--output"
                                        : "--seq-len");
    }
    source_list list = {0};
    language l = {0};
    json_t *given = json_object();
    du_cli_status status = read_sources(&list, n_args, args, diag);
    status = status ? status : du_cli_add_vars(given, &vars, diag);
    if (status == DU_CLI_DONE) {
        du_err err = open_language(&l, given, diag);
        err = err ? err : pack(&list, &l, diag);
        status = du_cli_fail(err);
    }
    language_done(&l);
    json_decref(given);
    sources_done(&list);
    return status;
}

const du_cli_command du_cli_data_pack = {
    .name = "data pack",
    .args = "FILE...",
    .summary = "turn texts and chats into training data",
    .about =
        "Makes the tokens of documents, packs them into sequences of one length, and writes these "
        "as a folder of shards for dure train. FILE is text, or JSON lines with a text \"text\", "
        "\"prompt\" and \"response\", or \"messages\"; what zstd has packed is unpacked, - is "
        "standard input. In a sequence no document sees another. All of a text is learned; of a "
        "prompt and its response the response, of a chat what the assistant says. Documents are "
        "read once and in bounded memory; the result depends on them and the options, not on the "
        "number of threads.",
    .example = "dure data pack --tokenizer my-model --seq-len 1k -o packed texts.jsonl\n"
               "dure data pack --tokenizer my-model --seq-len 1k -o packed \\\n"
               "  --source 'web/*.txt:0.8' --source qa.jsonl:0.2 --validation 0.01",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .n_args_max = 1 << 20,
    .run = run,
};
