#include "cli/compute.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/file.h"
#include "base/machine.h"
#include "base/mem.h"
#include "cli/out.h"
#include "cli/source.h"

enum {
    CHUNK_DEFAULT = 512,      /* as other tools have it, so that perplexities compare */
    SCRATCH_CHUNK = 64 << 20, /* bytes */
};

static int64_t n_threads, n_ctx, seed = -1;
static int cache_type, repack, isa, numa;
static bool deterministic, pin;

/* In an order in which what a command takes stands together. */
static const du_opt opts[] = {
    DU_OPTION_SIZE('c', "ctx", "N", &n_ctx, 1, INT32_MAX,
                   "tokens of context, as in 8k (default: what fits in free memory, at most what "
                   "the model was trained for)"),
    DU_OPTION_INT('t', "threads", "N", &n_threads, 1, 1024,
                  "threads to compute with (default: one per physical core)"),
    DU_OPTION_FLAG(0, "pin", &pin, "bind each thread to a core of its own"),
    DU_OPTION_CHOICE(0, "isa", "auto|c|avx2|avx512|neon", &isa,
                     "kernels to use (auto: the best this machine has)"),
    DU_OPTION_CHOICE(
        0, "numa", "off|interleave", &numa,
        "spread caches, and weights not yet in memory, over all memory nodes (off: each "
        "page on the node of the thread that first uses it)"),
    DU_OPTION_CHOICE(0, "cache-type", "auto|f32|f16|bf16|q8_0", &cache_type,
                     "number type of the key/value cache (auto: f16 for block-quantised models, "
                     "else f32)"),
    DU_OPTION_INT(0, "seed", "N", &seed, 0, INT64_MAX,
                  "where random choices start (default: differs from run to run)"),
    DU_OPTION_FLAG(0, "deterministic", &deterministic,
                   "the same bits for every number of threads, chunk size and cache state"),
    DU_OPTION_CHOICE(0, "repack", "auto|off|cache", &repack,
                     "auto: rewrite block-quantised weights in memory as this processor likes them "
                     "best, while they are first used and if memory is ample; off: use the file's; "
                     "cache: rewrite them once, into MODEL.strips, which later starts share"),
};

du_opt_group du_cli_compute_group(du_cli_computing what) {
    enum { ALL = sizeof opts / sizeof *opts };
    static const struct {
        size_t first, n;
    } parts[] = {[DU_CLI_COMPUTES_ALL] = {0, ALL},
                 [DU_CLI_COMPUTES_OWN_CTX] = {1, ALL - 1},
                 [DU_CLI_COMPUTES_PRODUCTS] = {1, 3}};
    return (du_opt_group){"Computing", opts + parts[what].first, parts[what].n};
}

uint64_t du_cli_seed(void) {
    uint64_t v = (uint64_t)seed;
    if (seed < 0 && getrandom(&v, sizeof v, 0) != (ssize_t)sizeof v) {
        v = 0;
    }
    return v;
}

bool du_cli_deterministic(void) {
    return deterministic;
}

static du_cli_progress repacking; /* total is 0 while nothing is written */

static void end_repacking(void) {
    if (repacking.total > 0) {
        du_cli_progress_end(&repacking);
        repacking.total = 0;
    }
}

static void note_repack(void *user, const char *text) {
    (void)user;
    end_repacking();
    du_cli_note("%s", text);
}

static void show_repack(void *user, int64_t bytes_done, int64_t bytes_all) {
    (void)user;
    if (repacking.total == 0) {
        repacking = du_cli_progress_start("repacking", bytes_all);
    }
    du_cli_progress_set(&repacking, bytes_done);
    if (bytes_done == bytes_all) {
        end_repacking();
    }
}

du_infer_params du_cli_infer_params(void) {
    static const du_dtype types[] = {DU_F32, DU_F32, DU_F16, DU_BF16, DU_Q8_0};
    du_infer_params params = du_infer_defaults();
    params.n_threads = n_threads;
    params.pin = pin;
    params.n_ctx = n_ctx;
    params.deterministic = deterministic;
    params.repack = (du_repack)repack;
    params.watch = (du_repack_watch){note_repack, show_repack, NULL};
    params.auto_cache = cache_type == 0;
    params.cache_type = types[cache_type];
    params.force_isa = isa > 0;
    params.isa = isa > 0 ? (du_isa)(isa - 1) : DU_ISA_C;
    return params;
}

du_err du_cli_kern(const du_kern **out, du_diag *diag) {
    du_isa level = isa > 0 ? (du_isa)(isa - 1) : du_isa_best();
    *out = du_kern_get(level);
    return *out ? DU_OK
                : du_fail(diag, DU_EUNSUPPORTED, "this machine lacks the kernel level %s",
                          du_isa_name(level));
}

du_err du_cli_ctx_init(du_ctx *out, int64_t n_default, du_diag *diag) {
    *out = (du_ctx){.same_bits = true};
    du_err err = du_cli_kern(&out->kern, diag);
    err = err ? err : du_pool_new(&out->pool, n_threads > 0 ? n_threads : n_default, pin, diag);
    if (err == DU_OK) {
        out->scratch = du_arena_new(SCRATCH_CHUNK);
        err = out->scratch ? DU_OK : du_fail_nomem(diag, "activations");
    }
    return err;
}

void du_cli_ctx_done(du_ctx *ctx) {
    du_arena_free(ctx->scratch);
    du_pool_free(ctx->pool);
}

/* Before the first page of a model is touched and the first thread is started. */
static du_err place_memory(du_diag *diag) {
    bool placed = numa == 0 || du_machine_interleave();
    return placed ? DU_OK
                  : du_fail(diag, DU_EUNSUPPORTED, "--numa interleave: the kernel refuses: %s",
                            strerror(errno));
}

du_err du_cli_model_open(du_model **out, const char *model, du_diag *diag) {
    du_err err = place_memory(diag);
    if (err != DU_OK) {
        return err;
    }
    if (model) {
        return du_model_open(out, model, diag);
    }
    const uint8_t *bytes;
    size_t len;
    du_weights *files;
    err = du_cli_default_bytes(&bytes, &len, diag);
    err = err ? err : du_weights_open_memory(&files, bytes, len, du_cli_default_name, diag);
    return err ? err : du_model_load(out, files, diag);
}

du_err du_cli_model_open_mean(du_model **out, const char *checkpoint, du_diag *diag) {
    du_weights *files = NULL;
    char *path = du_path_join(checkpoint, "state.safetensors");
    du_err err = path ? place_memory(diag) : du_fail_nomem(diag, "a path");
    err = err ? err : du_weights_open(&files, checkpoint, diag);
    if (err == DU_OK && !(du_weights_hf(files) && du_file_exists(path))) {
        err = du_fail(diag, DU_ENOENT, "%s: no checkpoint of `dure train`, so there is no mean",
                      checkpoint);
    } else if (err == DU_OK &&
               (err = du_weights_replace(files, path, "mean.", diag)) == DU_EFORMAT) {
        du_diag_context(diag, "without ema.decay a checkpoint has no mean");
    }
    du_free(path);
    if (err != DU_OK) {
        du_weights_close(files);
        return err;
    }
    return du_model_load(out, files, diag);
}

static du_err open_lm(du_lm **out, const char *model, bool ids_only, du_diag *diag) {
    du_err err = place_memory(diag);
    if (err != DU_OK) {
        return err;
    }
    if (model) {
        return ids_only ? du_lm_open_ids(out, model, diag) : du_lm_open(out, model, diag);
    }
    const uint8_t *bytes;
    size_t len;
    err = du_cli_default_bytes(&bytes, &len, diag);
    return err == DU_OK ? du_lm_open_memory(out, bytes, len, du_cli_default_name, diag) : err;
}

static du_err start(du_cli_runner *runner, const du_infer_params *params, du_diag *diag) {
    du_err err = du_infer_new(&runner->infer, runner->lm->model, params, diag);
    return err ? err : du_session_new(&runner->session, runner->infer, diag);
}

du_err du_cli_runner_open(du_cli_runner *out, const char *model, bool ids_only,
                          const du_infer_params *params, du_diag *diag) {
    *out = (du_cli_runner){0};
    du_infer_params from_options = du_cli_infer_params();
    du_err err = open_lm(&out->lm, model, ids_only, diag);
    return err ? err : start(out, params ? params : &from_options, diag);
}

du_err du_cli_runner_open_chunks(du_cli_runner *out, const char *model, bool ids_only,
                                 du_diag *diag) {
    *out = (du_cli_runner){0};
    du_infer_params params = du_cli_infer_params();
    du_err err = open_lm(&out->lm, model, ids_only, diag);
    if (err != DU_OK) {
        return err;
    }
    if (params.n_ctx == 0) {
        int64_t trained = out->lm->model->hp.n_ctx_train;
        params.n_ctx = trained < CHUNK_DEFAULT ? trained : CHUNK_DEFAULT;
    }
    return start(out, &params, diag);
}

void du_cli_runner_close(du_cli_runner *runner) {
    du_session_free(runner->session);
    du_infer_free(runner->infer);
    du_lm_close(runner->lm);
    *runner = (du_cli_runner){0};
}
