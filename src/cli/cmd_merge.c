/* dure merge: a model and an adapter become one model, and a receipt says that it computes the
 * same.
 *
 * The proof is the training pass over a fixed prompt, in F32 and without rounded activations: of
 * the base with its adapters, and of the files that were written. */
#include <math.h>
#include <stdio.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/compute.h"
#include "cli/out.h"
#include "cli/transfer.h"
#include "model/grad.h"
#include "model/lora.h"
#include "model/mix.h"

enum { PROMPT = 64 }; /* tokens */

/* How far logits may be apart, relative to the largest, by the type of what was written: F32's sums
 * are rounded in another order; F16 and BF16 round each merged weight by up to 2^-11 and 2^-8. */
static const double limit_f32 = 1e-3, limit_f16 = 1e-2, limit_bf16 = 8e-2;

static const char *type_name;
static bool as_json;

static const du_opt opts[] = {
    DU_OPTION_STR(0, "type", "TYPE", &type_name,
                  "number type of the matrices: keep, f32, f16, bf16, or for a .gguf file one of "
                  "`dure quantize` (keep: each tensor's own; block-quantised ones that change "
                  "become F32, FP8 becomes BF16)"),
    DU_OPTION_FLAG(0, "json", &as_json,
                   "print a JSON object: output, tensors, bytes, types, adapters, effect, "
                   "difference"),
};

/* What number types are asked for. */
typedef struct {
    const du_model *model;
    const du_mix *mix; /* or NULL */
    du_dtype dtype;    /* DU_DTYPE_COUNT: keep */
} recipe;

static bool has_adapter(const du_model *model, const du_out_tensor *t) {
    const void *field = du_model_field(model, t->def, t->layer);
    const du_mat *m = t->def->kind == DU_WEIGHT_MAT ? field : *(du_mat *const *)field;
    bool any = false;
    for (int64_t i = 0;
         t->def->kind != DU_WEIGHT_VEC && m && i < du_weight_def_n(t->def, &model->hp); i++) {
        any = any || m[i].adapter;
    }
    return any;
}

static du_dtype choose(void *user, const du_out_tensor *t) {
    const recipe *r = user;
    if (r->mix) {
        return du_mix_choose(r->mix, r->model, t);
    }
    if (r->dtype != DU_DTYPE_COUNT) {
        return r->dtype;
    }
    return du_dtype_is_block(t->source) && has_adapter(r->model, t) ? DU_F32
                                                                    : du_choose_keep(NULL, t);
}

/* An objective that keeps the logits it sees. */
typedef struct {
    du_objective base;
    float *logits; /* [PROMPT, V] */
} keep_logits;

static du_err keep_rows(du_objective *objective, du_ctx *ctx, float *logits, int64_t row0,
                        int64_t n_rows, int64_t n_vocab) {
    (void)ctx;
    keep_logits *k = (keep_logits *)objective;
    memcpy(k->logits + row0 * n_vocab, logits, (size_t)(n_rows * n_vocab) * sizeof *logits);
    return DU_OK;
}

static int64_t prompt_length(const du_model *model) {
    return model->hp.n_ctx_train < PROMPT ? model->hp.n_ctx_train : PROMPT;
}

/* Logits of the fixed prompt, du_free them. */
static du_err compute_logits(float **out, du_ctx *ctx, const du_params *params, du_diag *diag) {
    int64_t V = params->model->hp.n_vocab, n = prompt_length(params->model);
    int32_t tokens[PROMPT];
    for (int64_t i = 0; i < n; i++) {
        tokens[i] = (int32_t)((i * i * 7919 + 17) % V);
    }
    du_grad *grad = NULL;
    du_grad_params how = {.keep = DU_KEEP_INPUTS, .n_leaves = 1};
    du_grad_rows rows = {.n_seq = 1, .seq_len = n, .tokens = tokens};
    keep_logits keep = {{.rows = keep_rows}, du_alloc_array((size_t)(n * V), sizeof(float))};
    du_err err = keep.logits ? du_grad_new(&grad, params, &how, diag)
                             : du_fail_nomem(diag, "the logits to compare");
    err = err ? err : du_grad_loss(ctx, grad, &rows, &keep.base, diag);
    du_grad_free(grad);
    if (err != DU_OK) {
        du_free(keep.logits);
        return err;
    }
    *out = keep.logits;
    return DU_OK;
}

/* Those of the model that was written. */
static du_err merged_logits(float **out, du_ctx *ctx, const char *path, int64_t V, du_diag *diag) {
    du_model *model = NULL;
    du_params *params = NULL;
    du_lora none = {.rank = 1};
    du_err err = du_model_open(&model, path, diag);
    if (err == DU_OK && model->hp.n_vocab != V) {
        du_model_close(model);
        return du_fail(diag, DU_EFORMAT, "%s: of another vocabulary", path);
    }
    err = err ? err : du_lora_new(&params, model, &none, diag);
    err = err ? err : compute_logits(out, ctx, params, diag);
    du_params_free(params);
    return err;
}

/* The largest difference of two lists, by the largest value of the first; infinite when a number is
 * not finite. */
static double difference_of(const float *a, const float *b, int64_t n) {
    double apart = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i])) {
            return (double)INFINITY;
        }
        apart = fmax(apart, fabs((double)a[i] - (double)b[i]));
        largest = fmax(largest, fabs((double)a[i]));
    }
    return largest > 0 ? apart / largest : apart;
}

/* How far apart the logits may be: not more than the type explains, nor than half of what the
 * adapters do to them, which else could be missing unseen. NAN: block types, whose errors are what
 * was asked for. */
static double limit_of(const du_convert_stats *stats, double effect) {
    double limit = limit_f32;
    for (int i = 0; i < DU_DTYPE_COUNT; i++) {
        if (stats->bytes_of[i] > 0 && du_dtype_is_block((du_dtype)i)) {
            return (double)NAN;
        }
    }
    limit = stats->bytes_of[DU_F16] > 0 ? limit_f16 : limit;
    limit = stats->bytes_of[DU_BF16] > 0 ? limit_bf16 : limit;
    return fmin(limit, fmax(limit_f32, effect / 2));
}

typedef struct {
    int64_t n_adapters;
    double effect, difference; /* of the adapters, of merging, relative to the largest logit */
} receipt;

static du_err print(const char *output, const du_convert_stats *stats, const receipt *r,
                    du_diag *diag) {
    char buf[24];
    if (as_json) {
        return du_cli_print_json(
            json_pack("{s:s, s:I, s:I, s:o, s:I, s:f, s:f}", "output", output, "tensors",
                      (json_int_t)stats->n_tensors, "bytes", (json_int_t)stats->bytes, "types",
                      du_cli_json_types(stats), "adapters", (json_int_t)r->n_adapters, "effect",
                      r->effect, "difference", r->difference),
            diag);
    }
    printf("%s: %lld tensors, %s, %lld adapters merged\n", output, (long long)stats->n_tensors,
           du_cli_bytes(buf, stats->bytes), (long long)r->n_adapters);
    printf("logits before and after: largest difference %.3g of the largest logit\n"
           "what the adapters do to them: %.3g\n",
           r->difference, r->effect);
    return DU_OK;
}

/* The base with its adapters, whose matrices are then written as sums; *plain: the logits without
 * them, du_free them. */
static du_err open_adapted(du_params **out, float **plain, du_ctx *ctx, const char *base,
                           const char *adapter, du_diag *diag) {
    du_lora_file file;
    du_model *model = NULL;
    du_params *params = NULL;
    du_err err = du_lora_file_open(&file, adapter, diag);
    err = err ? err : du_cli_model_open(&model, base, diag);
    err = err ? err : du_lora_new(&params, model, &file.lora, diag);
    err = err ? err : compute_logits(plain, ctx, params, diag); /* adapters are zeros so far */
    err = err ? err : du_lora_load(params, &file, diag);
    du_lora_file_close(&file);
    if (err != DU_OK) {
        du_params_free(params);
        return err;
    }
    *out = params;
    return DU_OK;
}

static du_err write_merged(du_params *params, const char *output, const recipe *how,
                           du_convert_stats *stats, du_diag *diag) {
    recipe r = *how;
    r.model = params->model;
    du_cli_transfer t = {.model = params->model,
                         .output = output,
                         .label = "merge",
                         .choose = choose,
                         .choose_user = &r,
                         .file_type = r.mix ? (int64_t)r.mix->file_type : -1,
                         .n_threads = du_cli_infer_params().n_threads};
    du_err err = du_cli_is_gguf_name(output) ? du_lora_fold_derived(params, diag) : DU_OK;
    return err ? err : du_cli_transfer_run(&t, stats, diag);
}

static du_err merge(du_ctx *ctx, char **args, const recipe *how, du_diag *diag) {
    du_params *params = NULL;
    du_convert_stats stats;
    float *plain = NULL, *before = NULL, *after = NULL;
    du_err err = open_adapted(&params, &plain, ctx, args[0], args[1], diag);
    err = err ? err : compute_logits(&before, ctx, params, diag);
    err = err ? err : write_merged(params, args[2], how, &stats, diag);
    int64_t V = err ? 0 : params->model->hp.n_vocab;
    err = err ? err : merged_logits(&after, ctx, args[2], V, diag);
    if (err == DU_OK) {
        int64_t n = prompt_length(params->model) * V;
        receipt r = {params->n_adapters, difference_of(before, plain, n),
                     difference_of(before, after, n)};
        double limit = limit_of(&stats, r.effect);
        err = print(args[2], &stats, &r, diag);
        if (err == DU_OK && r.difference > limit) {
            err = du_fail(diag, DU_EFORMAT,
                          "%s: its logits are %.3g of the largest away from those of %s with %s, "
                          "more than %.3g: do not use it (--type f32 does not round)",
                          args[2], r.difference, args[0], args[1], limit);
        }
    }
    du_free(plain);
    du_free(before);
    du_free(after);
    du_params_free(params);
    return err;
}

static du_err compute(char **args, const recipe *how, du_diag *diag) {
    du_ctx ctx;
    du_err err = du_cli_ctx_init(&ctx, du_cpu_n_cores(), diag);
    err = err ? err : merge(&ctx, args, how, diag);
    du_cli_ctx_done(&ctx);
    return err;
}

static bool find_type(recipe *r, const char *name) {
    static const struct {
        const char *name;
        du_dtype dtype;
    } types[] = {{"keep", DU_DTYPE_COUNT}, {"f32", DU_F32}, {"f16", DU_F16}, {"bf16", DU_BF16}};
    r->dtype = DU_DTYPE_COUNT;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!name || strcmp(name, types[i].name) == 0) {
            r->dtype = types[i].dtype;
            return true;
        }
    }
    r->mix = du_mix_find(name);
    return r->mix != NULL;
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    (void)n_args;
    recipe r = {0};
    if (!find_type(&r, type_name)) {
        return du_cli_misuse(diag,
                             "--type %s: known are keep, f32, f16, bf16 and the types of `dure "
                             "quantize`",
                             type_name);
    }
    du_cli_status status =
        du_cli_transfer_check("BASE", args[0], args[2], r.mix ? type_name : NULL, diag);
    return status ? status : du_cli_fail(compute(args, &r, diag));
}

const du_cli_command du_cli_merge = {
    .name = "merge",
    .args = "BASE ADAPTER OUT",
    .summary = "fold an adapter into a model",
    .about =
        "Writes BASE with the low-rank adapters of the directory ADAPTER added to its "
        "matrices: a checkpoint of `dure train` with lora.rank, or what the peft library "
        "saves. OUT is a GGUF file when it ends in .gguf, else a directory of safetensors. "
        "Then the logits of a fixed prompt are computed with both, and the largest "
        "difference is printed; where it is more than the number type explains (1e-3 of the "
        "largest logit for F32, 0.01 for F16, 0.08 for BF16; block types are only told), or than "
        "half of what the adapters do to the logits, the exit status is 1.",
    .example = "dure merge ./DeepSeek-V2-Lite out/step-002000 ./tuned\n"
               "dure merge base-q8.gguf out/step-002000 tuned-q4.gguf --type Q4_K_M",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .computes = DU_CLI_COMPUTES_PRODUCTS,
    .n_args_min = 3,
    .n_args_max = 3,
    .run = run,
};
