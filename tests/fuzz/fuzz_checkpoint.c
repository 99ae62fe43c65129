/* What `dure train --resume` reads of a checkpoint, all weights' or adapters': a run goes on from
 * it, or says why not and begins anew, and takes a step.
 *
 * The first byte of an input says which file the rest is, and whether lengths and checksums in
 * state.json are put right, so that what lies behind them is reached; the other files are those of
 * a small good run. */
#include <inttypes.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "folder.h"
#include "train/journal.h"
#include "train/run.h"

enum { MENDED = 0x80, STEP = 2 };
#define STEP_DIR "step-000002"

static const struct {
    const char *run, *name; /* name: in the checkpoint, but metrics.jsonl */
} files[] = {{"whole", "state.json"},        {"whole", "state.safetensors"},
             {"whole", "model.safetensors"}, {"whole", "config.json"},
             {"whole", "metrics.jsonl"},     {"lora", "state.json"},
             {"lora", "state.safetensors"},  {"lora", "adapter_model.safetensors"},
             {"lora", "adapter_config.json"}};
enum { N_FILES = sizeof files / sizeof *files };

static const char *const whole_keys[] = {"model.arch=llama",
                                         "model.vocab_size=8",
                                         "model.hidden_size=8",
                                         "model.intermediate_size=4",
                                         "model.num_hidden_layers=1",
                                         "model.num_attention_heads=2",
                                         "ema.decay=0.5",
                                         "model.max_position_embeddings=64"};
static const char *const both_keys[] = {"seq_len=4", "batch_seqs=1", "steps=100"};

static du_ctx ctx;
static struct {
    char *state, *metrics, *bytes; /* the good ones, of each of files */
    size_t n_state, n_metrics, n;
} good[N_FILES];

/* RUN/step-000002/NAME, or RUN/metrics.jsonl */
static const char *name_of(const char *run, const char *name) {
    static char names[4][64];
    static unsigned turn;
    char *out = names[turn++ % 4];
    bool beside = strcmp(name, "metrics.jsonl") == 0;
    snprintf(out, sizeof names[0], "%s%s/%s", run, beside ? "" : "/" STEP_DIR, name);
    return out;
}

static void set(du_train_config *config, const char *key, const char *value) {
    FUZZ_CHECK(du_train_config_set(config, du_sv_of(key), du_sv_of(value), "fuzz", NULL) == DU_OK);
}

static du_train_config config_of(const char *run) {
    du_train_config config;
    bool whole = strcmp(run, "whole") == 0;
    FUZZ_CHECK(du_train_config_init(&config, NULL) == DU_OK);
    for (size_t i = 0; i < sizeof both_keys / sizeof *both_keys; i++) {
        FUZZ_CHECK(du_train_config_set_pair(&config, both_keys[i], NULL) == DU_OK);
    }
    for (size_t i = 0; whole && i < sizeof whole_keys / sizeof *whole_keys; i++) {
        FUZZ_CHECK(du_train_config_set_pair(&config, whole_keys[i], NULL) == DU_OK);
    }
    if (!whole) {
        set(&config, "init", fuzz_path("whole/" STEP_DIR));
        set(&config, "lora.rank", "2");
    }
    set(&config, "out", fuzz_path(run));
    set(&config, "data.tokens", fuzz_path("tokens.bin"));
    FUZZ_CHECK(du_train_config_check(&config, NULL) == DU_OK);
    return config;
}

static void note(void *user, const char *text) {
    (void)user;
    FUZZ_CHECK(text[0] != '\0');
}

/* Goes on with the run, or begins it; n steps. */
static void train(const char *name, du_run_how how, int64_t n) {
    du_train_config config = config_of(name);
    du_run_params params = {.config = &config, .how = how, .ctx = &ctx, .note = note};
    du_run *run = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    du_err err = du_run_open(&run, &params, &diag);
    if (err != DU_OK) {
        FUZZ_CHECK(!run && diag.code == err && diag.msg[0] != '\0');
    } else {
        int64_t step = du_run_trainer(run)->step;
        FUZZ_CHECK(step == 0 || step == STEP);
    }
    for (int64_t i = 0; i < n && err == DU_OK; i++) {
        du_metrics m;
        err = du_run_step(run, &m, &diag);
        FUZZ_CHECK(err == DU_OK || diag.msg[0] != '\0');
    }
    if (how == DU_RUN_NEW) {
        if (err != DU_OK || du_run_save(run, &diag) != DU_OK) {
            fprintf(stderr, "%s\n", diag.msg);
            abort();
        }
    }
    du_run_close(run);
    du_train_config_done(&config);
}

static void set_up(void) {
    static const uint16_t tokens[] = {0, 1, 2, 3, 4, 5, 6, 7, 6, 5, 4, 3, 2, 1};
    fuzz_make_dir();
    fuzz_put("tokens.bin", tokens, sizeof tokens);
    ctx = (du_ctx){.kern = du_kern_get(DU_ISA_C), .scratch = du_arena_new(1 << 20)};
    FUZZ_CHECK(ctx.scratch && du_pool_new(&ctx.pool, 1, false, NULL) == DU_OK);
    train("whole", DU_RUN_NEW, STEP);
    train("lora", DU_RUN_NEW, STEP);
    for (size_t i = 0; i < N_FILES; i++) {
        good[i].bytes = fuzz_get(name_of(files[i].run, files[i].name), &good[i].n);
        good[i].state = fuzz_get(name_of(files[i].run, "state.json"), &good[i].n_state);
        good[i].metrics = fuzz_get(name_of(files[i].run, "metrics.jsonl"), &good[i].n_metrics);
    }
}

/* Nothing of an input is left for the next one, nor do events and processes pile up. */
static void put_back(size_t i) {
    const char *run = files[i].run;
    FUZZ_CHECK(du_journal_remove(fuzz_path(run), NULL) == DU_OK);
    fuzz_put(name_of(run, "metrics.jsonl"), good[i].metrics, good[i].n_metrics);
    fuzz_put(name_of(run, files[i].name), good[i].bytes, good[i].n);
    fuzz_put(name_of(run, "state.json"), good[i].state, good[i].n_state);
}

static json_t *sum_json(const void *bytes, size_t n) {
    char text[24];
    snprintf(text, sizeof text, "%016" PRIx64, du_checksum(0, bytes, n));
    return json_string(text);
}

/* An input cannot know where the folder is. */
static void set_path(json_t *state, const char *key, const char *path) {
    json_t *config = json_object_get(state, "config");
    if (json_object_get(config, key)) {
        json_object_set_new(config, key, json_string(path));
    }
}

/* Writes the state.json of a run with the right checksum, and with those of the changed file. */
static void put_state(const char *run, const char *name, const void *bytes, size_t n,
                      const char *text, size_t len) {
    json_t *state = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(state)) {
        json_decref(state);
        return;
    }
    json_t *said = json_object_get(json_object_get(state, "files"), name);
    if (json_is_object(said) && strcmp(name, "state.json") != 0) {
        json_object_set_new(said, "bytes", json_integer((json_int_t)n));
        json_object_set_new(said, "checksum", sum_json(bytes, n));
    }
    set_path(state, "data.tokens", fuzz_path("tokens.bin"));
    set_path(state, "init", fuzz_path("whole/" STEP_DIR));
    json_object_del(state, "checksum");
    char *rest = json_dumps(state, JSON_COMPACT | JSON_SORT_KEYS);
    FUZZ_CHECK(rest != NULL);
    json_object_set_new(state, "checksum", sum_json(rest, strlen(rest)));
    char *whole = json_dumps(state, JSON_COMPACT);
    FUZZ_CHECK(whole != NULL);
    fuzz_put(name_of(run, "state.json"), whole, strlen(whole));
    du_free(rest);
    du_free(whole);
    json_decref(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    FUZZ_ONCE(set_up());
    if (size == 0) {
        return 0;
    }
    size_t i = (data[0] & ~MENDED) % N_FILES;
    const char *run = files[i].run, *name = files[i].name;
    bool is_state = strcmp(name, "state.json") == 0;
    fuzz_put(name_of(run, name), data + 1, size - 1);
    if (data[0] & MENDED) {
        const char *text = is_state ? (const char *)data + 1 : good[i].state;
        put_state(run, name, data + 1, size - 1, text, is_state ? size - 1 : good[i].n_state);
    }
    train(run, DU_RUN_RESUME, 1);
    put_back(i);
    return 0;
}
