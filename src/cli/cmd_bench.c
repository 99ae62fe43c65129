/* dure bench: tokens per second of prefill and decode, with a number of tokens already in the
 * cache.
 *
 * Each test runs on n_sequences sessions that are stepped together, each with random tokens of its
 * own. The cache is filled once per context; before each repeat the sessions are cut back to it, so
 * that every repeat computes the same. Filling the cache and one warm-up are not timed. The first
 * thing measured is the time from the command's start to the logits of a short prompt; weights that
 * are repacked are repacked before the tests.
 *
 * bytes_per_token is what a token's share of one forward pass reads: the weights (of the experts as
 * many different ones as random choices hit), and in decode the cached rows of its own sequence.
 * Weights count as many bytes as in the file; repacked ones of less than 4 bits are larger.
 * macs_per_token counts the products with matrices; attention's with the cache are left out. Both,
 * times tokens per second, are compared with what this machine reads and multiplies when it does
 * nothing else. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/machine.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cli/bandwidth.h"
#include "cli/cli.h"
#include "cli/compute.h"
#include "cli/interrupt.h"
#include "cli/machine.h"
#include "cli/out.h"

enum { CONTEXTS_MAX = 64, FIRST_PROMPT = 16 };

static const char *contexts_text = "0";
static int64_t n_prompt = 512, n_gen = 64, n_sequences = 1, n_repeats = 3, n_chunk;
static bool as_json, machine_only;

static const du_opt opts[] = {
    DU_OPTION_INT('p', "prompt", "N", &n_prompt, 0, 1 << 24,
                  "tokens of the prefill test; 0 leaves it out (default 512)"),
    DU_OPTION_INT('n', "gen", "N", &n_gen, 0, 1 << 24,
                  "tokens of the decode test; 0 leaves it out (default 64)"),
    DU_OPTION_STR('c', "ctx", "N,...", &contexts_text,
                  "tokens already in the cache; a list runs the tests at each (default 0)"),
    DU_OPTION_INT('s', "sequences", "N", &n_sequences, 1, 1024,
                  "sequences computed together (default 1)"),
    DU_OPTION_INT('r', "repeats", "N", &n_repeats, 1, 1000, "timed runs of each test (default 3)"),
    DU_OPTION_INT(0, "chunk", "N", &n_chunk, 1, INT32_MAX,
                  "tokens per forward pass of the prefill (default 512)"),
    DU_OPTION_FLAG(0, "machine", &machine_only,
                   "measure the machine alone: memory, multiply-adds; no model"),
    DU_OPTION_FLAG(0, "json", &as_json,
                   "print a JSON array with one object per test (--machine: one object)"),
};

typedef struct {
    du_cli_runner runner; /* its session is sessions[0] */
    du_session **sessions;
    du_step_item *items;
    float *logits;   /* [n_sequences, V] */
    int32_t *tokens; /* [n_sequences, n_ctx] random ids */
    int64_t n_ctx;
    double bandwidth, int8_peak; /* bytes and operations per second */
    double start_s, first_token_s;
    double *runs; /* [n_repeats] tokens per second */
    du_energy energy;
    bool has_energy;
    double joules; /* of the timed runs of one test; negative: unknown */
    double deterministic_tok_s;
    json_t *results;
    du_cli_table table;
} bench;

static bool read_contexts(int64_t *contexts, int64_t *n) {
    *n = 0;
    for (const char *at = contexts_text;; at++) {
        char *end;
        long long v = strtoll(at, &end, 10);
        int64_t factor = *end == 'k' || *end == 'K' ? 1024 : 1;
        end += factor > 1;
        if (end == at || v < 0 || v > 1 << 30 || (*end != ',' && *end != '\0') ||
            *n == CONTEXTS_MAX) {
            return false;
        }
        contexts[(*n)++] = v * factor;
        at = end;
        if (*end == '\0') {
            return true;
        }
    }
}

/* Adds n tokens to every sequence in one forward pass. */
static du_err step(bench *b, int64_t n, bool wants_logits, du_diag *diag) {
    int64_t V = b->runner.lm->model->hp.n_vocab;
    for (int64_t i = 0; i < n_sequences; i++) {
        int64_t pos = du_session_n(b->sessions[i]);
        b->items[i] = (du_step_item){.session = b->sessions[i],
                                     .tokens = b->tokens + i * b->n_ctx + pos,
                                     .n = n,
                                     .n_logits = wants_logits,
                                     .logits = b->logits + i * V};
    }
    if (du_cli_interrupted()) {
        return DU_ECANCELLED;
    }
    return du_infer_step(b->runner.infer, b->items, n_sequences, diag);
}

/* Adds n tokens to every sequence, as many at a time as a forward pass takes. */
static du_err prefill(bench *b, int64_t n, du_diag *diag) {
    int64_t share = du_infer_n_chunk(b->runner.infer) / n_sequences;
    share = share < 1 ? 1 : share;
    du_err err = DU_OK;
    for (int64_t done = 0; done < n && err == DU_OK; done += share) {
        int64_t now = n - done < share ? n - done : share;
        err = step(b, now, done + now == n, diag);
    }
    return err;
}

static du_err decode(bench *b, int64_t n, du_diag *diag) {
    du_err err = DU_OK;
    for (int64_t i = 0; i < n && err == DU_OK; i++) {
        err = step(b, 1, true, diag);
    }
    return err;
}

static void cut_back(bench *b, int64_t context) {
    for (int64_t i = 0; i < n_sequences; i++) {
        du_session_truncate(b->sessions[i], context);
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* runs [n] is sorted. */
static double median(double *runs, int64_t n) {
    qsort(runs, (size_t)n, sizeof *runs, by_value);
    return n % 2 ? runs[n / 2] : (runs[n / 2 - 1] + runs[n / 2]) / 2;
}

/* Different experts of a layer that n_rows tokens choose, by chance, over those that one does. */
static double experts_of(const du_router *router, int64_t n_rows) {
    double share = (double)router->n_used / (double)router->n_expert;
    return (1 - pow(1 - share, (double)n_rows)) / share;
}

/* Bytes one token's share of a forward pass over n_rows tokens reads. */
static double bytes_per_token(const bench *b, bool is_decode, int64_t n_rows, int64_t n_cached) {
    const du_model *model = b->runner.lm->model;
    du_model_counts counts = du_model_count(model);
    double experts = (double)counts.expert_bytes_per_token, rest = (double)counts.bytes_per_token;
    rest -= experts;
    if (experts > 0) {
        experts *= experts_of(&model->hp.router, n_rows);
    }
    const du_kv_layout *kv = du_infer_kv_layout(b->runner.infer);
    double cache = is_decode ? (double)kv->page_bytes / DU_KV_PAGE * (double)n_cached : 0;
    return (rest + experts) / (double)n_rows + cache;
}

/* Multiply-adds with matrices per token; a prefill makes the logits of its last token alone. */
static double macs_per_token(const bench *b, bool is_decode) {
    du_model_counts counts = du_model_count(b->runner.lm->model);
    double output = (double)counts.output_macs, rest = (double)counts.macs_per_token - output;
    return rest + (is_decode ? output : output / (double)n_prompt);
}

/* What one test gave. */
typedef struct {
    const char *name;
    bool is_decode;
    int64_t n, context;
    double tok_s, bytes, macs, joules; /* per token; joules negative: unknown */
} outcome;

static double bandwidth_fraction(const bench *b, const outcome *o) {
    return o->tok_s * o->bytes / b->bandwidth;
}

static double int8_fraction(const bench *b, const outcome *o) {
    return 2 * o->tok_s * o->macs / b->int8_peak;
}

static void add_row(bench *b, const outcome *o) {
    du_cli_table_add(&b->table, "%s", o->name);
    du_cli_table_add(&b->table, "%lld", (long long)o->n);
    du_cli_table_add(&b->table, "%lld", (long long)o->context);
    du_cli_table_add(&b->table, "%lld", (long long)n_sequences);
    du_cli_table_add(&b->table, "%.2f", o->tok_s);
    du_cli_table_add(&b->table, "%.2f", o->bytes / 1e6);
    du_cli_table_add(&b->table, "%.3f", bandwidth_fraction(b, o));
    du_cli_table_add(&b->table, "%.3f", int8_fraction(b, o));
    du_cli_table_add(&b->table, "%.2f", b->deterministic_tok_s);
    if (b->has_energy) {
        du_cli_table_add(&b->table, o->joules < 0 ? "?" : "%.3f", o->joules);
    }
}

/* What du_infer_repacked says, in the JSON and for people. */
static const struct {
    const char *name, *text;
} repacked[] = {
    [DU_REPACK_AUTO] = {"memory", "weights repacked in memory"},
    [DU_REPACK_OFF] = {"no", "weights as in the model's file"},
    [DU_REPACK_CACHE] = {"file", "weights repacked, from MODEL.strips"},
};

static json_t *json_of(const bench *b, const outcome *o) {
    json_t *runs = json_array();
    for (int64_t i = 0; i < n_repeats; i++) {
        json_array_append_new(runs, json_real(b->runs[i]));
    }
    du_resident memory = du_machine_resident();
    json_t *v = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:f, s:o}", "test", o->name, "n_prompt",
        (json_int_t)(o->is_decode ? 0 : o->n), "n_gen", (json_int_t)(o->is_decode ? o->n : 0),
        "context", (json_int_t)o->context, "sequences", (json_int_t)n_sequences, "threads",
        (json_int_t)du_infer_n_threads(b->runner.infer), "isa",
        du_isa_name(du_infer_isa(b->runner.infer)), "tok_s", o->tok_s, "runs", runs);
    json_t *more = json_pack(
        "{s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:f, s:I, s:I, s:f, s:s}", "bytes_per_token", o->bytes,
        "bandwidth", b->bandwidth, "bandwidth_fraction", bandwidth_fraction(b, o), "macs_per_token",
        o->macs, "int8_peak", b->int8_peak, "int8_fraction", int8_fraction(b, o),
        "joules_per_token", o->joules < 0 ? json_null() : json_real(o->joules), "first_token_ms",
        b->first_token_s * 1e3, "resident_bytes", (json_int_t)memory.peak, "anonymous_bytes",
        (json_int_t)memory.anonymous, "deterministic_cost", 1 - b->deterministic_tok_s / o->tok_s,
        "repacked", repacked[du_infer_repacked(b->runner.infer)].name);
    json_object_update_missing(v, more);
    json_decref(more);
    return v;
}

static du_err report(bench *b, bool is_decode, int64_t context, du_diag *diag) {
    int64_t n = is_decode ? n_gen : n_prompt;
    int64_t n_rows = is_decode ? n_sequences : n * n_sequences;
    int64_t chunk = du_infer_n_chunk(b->runner.infer);
    n_rows = !is_decode && n_rows > chunk ? chunk : n_rows;
    double n_tokens = (double)(n * n_sequences * n_repeats);
    outcome o = {.name = is_decode ? "decode" : "prefill",
                 .is_decode = is_decode,
                 .n = n,
                 .context = context,
                 .tok_s = median(b->runs, n_repeats),
                 .bytes = bytes_per_token(b, is_decode, n_rows, context + n / 2),
                 .macs = macs_per_token(b, is_decode),
                 .joules = b->joules / n_tokens};
    add_row(b, &o);
    return json_array_append_new(b->results, json_of(b, &o)) == 0
               ? DU_OK
               : du_fail_nomem(diag, "the results");
}

/* One run of a test, its time into *seconds. */
static du_err run_once(bench *b, bool is_decode, int64_t context, double *seconds, du_diag *diag) {
    cut_back(b, context);
    double start = du_clock_s();
    du_err err = is_decode ? decode(b, n_gen, diag) : prefill(b, n_prompt, diag);
    *seconds = du_clock_s() - start;
    return err;
}

/* What the test reaches with --deterministic: measured where that computes otherwise, after a
 * warm-up too, since it may read weights from the file that repacked ones were made from. */
static du_err run_deterministic(bench *b, bool is_decode, int64_t context, du_diag *diag) {
    int64_t n = is_decode ? 1 : n_prompt;
    double seconds = 0;
    b->deterministic_tok_s = median(b->runs, n_repeats);
    if (du_cli_deterministic() ||
        !du_infer_deterministic_differs(b->runner.infer, n * n_sequences)) {
        return DU_OK;
    }
    du_infer_set_deterministic(b->runner.infer, true);
    du_err err = DU_OK;
    for (int i = 0; i < 2 && err == DU_OK; i++) {
        err = run_once(b, is_decode, context, &seconds, diag);
    }
    du_infer_set_deterministic(b->runner.infer, false);
    b->deterministic_tok_s = (double)((is_decode ? n_gen : n_prompt) * n_sequences) / seconds;
    return err;
}

static du_err run_test(bench *b, bool is_decode, int64_t context, du_diag *diag) {
    int64_t n = is_decode ? n_gen : n_prompt;
    du_err err = DU_OK;
    b->joules = b->has_energy ? 0 : -1;
    for (int64_t i = -1; i < n_repeats && err == DU_OK; i++) { /* -1: the warm-up */
        double seconds;
        (void)du_energy_used(&b->energy);
        err = run_once(b, is_decode, context, &seconds, diag);
        double joules = du_energy_used(&b->energy);
        if (i >= 0) {
            b->runs[i] = (double)(n * n_sequences) / seconds;
            b->joules = b->joules < 0 || joules < 0 ? -1 : b->joules + joules;
        }
    }
    err = err ? err : run_deterministic(b, is_decode, context, diag);
    return err ? err : report(b, is_decode, context, diag);
}

static du_err run_context(bench *b, int64_t context, du_diag *diag) {
    cut_back(b, 0);
    du_err err = context > 0 ? prefill(b, context, diag) : DU_OK;
    if (err == DU_OK && n_prompt > 0) {
        err = run_test(b, false, context, diag);
    }
    if (err == DU_OK && n_gen > 0) {
        err = run_test(b, true, context, diag);
    }
    return err;
}

/* The time to the first logits, as a program that opens the model and reads a short prompt has it.
 */
static du_err first_token(bench *b, du_diag *diag) {
    int64_t n = b->n_ctx < FIRST_PROMPT ? b->n_ctx : FIRST_PROMPT;
    du_step_item item = {
        .session = b->sessions[0], .tokens = b->tokens, .n = n, .n_logits = 1, .logits = b->logits};
    du_err err = du_infer_step(b->runner.infer, &item, 1, diag);
    b->first_token_s = du_clock_s() - b->start_s;
    return err;
}

static du_err measure_machine(bench *b, du_diag *diag) {
    const du_kern *kern = du_kern_get(du_infer_isa(b->runner.infer));
    du_pool *pool = NULL;
    du_err err =
        du_pool_new(&pool, du_infer_n_threads(b->runner.infer), du_cli_infer_params().pin, diag);
    err = err ? err : du_cli_bandwidth(&b->bandwidth, kern, pool, true, diag);
    if (err == DU_OK) {
        b->int8_peak = du_cli_peak(kern, DU_PROBE_INT8, pool);
    }
    du_pool_free(pool);
    du_machine_reset_peak(); /* of the memory just read */
    return err;
}

static du_err open_all(bench *b, const char *model, du_diag *diag) {
    du_infer_params params = du_cli_infer_params();
    params.n_ctx = b->n_ctx;
    params.n_sessions = n_sequences;
    params.n_chunk = n_chunk;
    du_err err = du_cli_runner_open(&b->runner, model, true, &params, diag);
    if (err != DU_OK) {
        return err;
    }
    int64_t V = b->runner.lm->model->hp.n_vocab;
    b->sessions = du_alloc_zero((size_t)n_sequences, sizeof(du_session *));
    b->items = du_alloc_zero((size_t)n_sequences, sizeof *b->items);
    b->logits = du_alloc_array((size_t)(n_sequences * V), sizeof *b->logits);
    b->tokens = du_alloc_array((size_t)(n_sequences * b->n_ctx), sizeof *b->tokens);
    b->runs = du_alloc_zero((size_t)n_repeats, sizeof *b->runs);
    b->results = json_array();
    if (!b->sessions || !b->items || !b->logits || !b->tokens || !b->runs || !b->results) {
        return du_fail_nomem(diag, "the measurements");
    }
    du_rng rng;
    du_rng_init(&rng, du_cli_seed());
    for (int64_t i = 0; i < n_sequences * b->n_ctx; i++) {
        b->tokens[i] = (int32_t)du_rng_below(&rng, (uint64_t)V);
    }
    b->sessions[0] = b->runner.session;
    for (int64_t i = 1; i < n_sequences && err == DU_OK; i++) {
        err = du_session_new(&b->sessions[i], b->runner.infer, diag);
    }
    return err;
}

static void close_all(bench *b) {
    for (int64_t i = 1; b->sessions && i < n_sequences; i++) {
        du_session_free(b->sessions[i]);
    }
    du_free(b->sessions);
    du_free(b->items);
    du_free(b->logits);
    du_free(b->tokens);
    du_free(b->runs);
    json_decref(b->results);
    du_cli_runner_close(&b->runner);
}

static du_err print(bench *b, du_diag *diag) {
    if (as_json) {
        return du_cli_print_json(json_incref(b->results), diag);
    }
    du_resident memory = du_machine_resident();
    char peak[24], anonymous[24];
    printf("%s, %lld threads, memory %.1f GB/s, int8 %.0f GOP/s\n",
           du_isa_name(du_infer_isa(b->runner.infer)),
           (long long)du_infer_n_threads(b->runner.infer), b->bandwidth / 1e9, b->int8_peak / 1e9);
    printf("first token after %.0f ms, %s resident at most, %s of it beside the file\n",
           b->first_token_s * 1e3, du_cli_bytes(peak, memory.peak),
           du_cli_bytes(anonymous, memory.anonymous));
    printf("%s\n", repacked[du_infer_repacked(b->runner.infer)].text);
    return du_cli_table_print(&b->table, stdout, diag);
}

static void start_table(bench *b) {
    static const char *const heads[] = {"test",     "tokens",    "context", "seqs",    "tok/s",
                                        "MB/token", "bandwidth", "int8",    "determ.", "J/token"};
    b->table = (du_cli_table){.n_columns = b->has_energy ? 10 : 9, .right = "lrrrrrrrrr"};
    for (int64_t i = 0; i < b->table.n_columns; i++) {
        du_cli_table_add(&b->table, "%s", heads[i]);
    }
}

static du_err run_all(bench *b, const char *model, const int64_t *contexts, int64_t n_contexts,
                      du_diag *diag) {
    du_err err = open_all(b, model, diag);
    err = err ? err : first_token(b, diag);
    err = err ? err : measure_machine(b, diag);
    if (err == DU_OK) {
        du_infer_repack(b->runner.infer);
    }
    b->has_energy = du_energy_open(&b->energy, "/sys/class/powercap");
    start_table(b);
    du_cli_interrupt_catch(true);
    for (int64_t i = 0; i < n_contexts && err == DU_OK; i++) {
        err = run_context(b, contexts[i], diag);
    }
    return err ? err : print(b, diag);
}

static du_cli_status run_machine(int n_args, du_diag *diag) {
    if (n_args > 0) {
        return du_cli_misuse(diag, "--machine measures no model");
    }
    du_infer_params params = du_cli_infer_params();
    const du_kern *kern;
    du_err err = du_cli_kern(&kern, diag);
    int64_t n_threads = params.n_threads > 0 ? params.n_threads : du_cpu_n_cores();
    return du_cli_fail(err ? err : du_cli_machine(kern, n_threads, params.pin, as_json, diag));
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    bench b = {.start_s = du_clock_s()};
    if (machine_only) {
        return run_machine(n_args, diag);
    }
    int64_t contexts[CONTEXTS_MAX], n_contexts;
    if (!read_contexts(contexts, &n_contexts)) {
        return du_cli_misuse(diag, "-c %s: not a list of numbers, as in 0,4096", contexts_text);
    }
    if (n_prompt == 0 && n_gen == 0) {
        return du_cli_misuse(diag, "-p 0 -n 0 leaves nothing to measure");
    }
    for (int64_t i = 0; i < n_contexts; i++) {
        b.n_ctx = contexts[i] > b.n_ctx ? contexts[i] : b.n_ctx;
    }
    b.n_ctx += n_prompt > n_gen ? n_prompt : n_gen;
    du_err err = run_all(&b, n_args > 0 ? args[0] : NULL, contexts, n_contexts, diag);
    du_cli_table_done(&b.table);
    close_all(&b);
    return du_cli_fail(err);
}

const du_cli_command du_cli_bench = {
    .name = "bench",
    .args = "[MODEL]",
    .summary = "measure the speed",
    .about = "Measures prefill and decode in tokens per second, with random tokens already in the "
             "cache. The median of the repeats is shown, for all sequences together, with the "
             "bytes that a token reads, and the fractions of this machine's memory bandwidth and "
             "of its peak of int8 multiply-adds (both measured at the start) that this is. Opening "
             "the model and one warm-up are not timed. Where the kernel tells the energy used, "
             "joules per token are shown too.",
    .example = "dure bench model.gguf -p 512 -n 64 -c 0,4096 --threads 8 --json\n"
               "dure bench --machine",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .computes = DU_CLI_COMPUTES_OWN_CTX,
    .n_args_max = 1,
    .run = run,
};
