/* dure quantize: fewer bits per weight, and a receipt of what that costs.
 *
 * With --check a text is run through both models in chunks: the mean Kullback-Leibler divergence of
 * the output's distribution from the input's, sum_v p(v) ln(p(v) / q(v)), and how often both hold
 * the same token for the most likely one. */
#include <math.h>
#include <stdio.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/compute.h"
#include "cli/interrupt.h"
#include "cli/prompt.h"
#include "cli/source.h"
#include "cli/transfer.h"
#include "model/imatrix.h"
#include "model/mix.h"

static const char *type_name, *imatrix_file, *check_file;
static bool as_json;

static const du_opt opts[] = {
    DU_OPTION_STR(0, "type", "TYPE", &type_name,
                  "Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0, IQ4_XS, Q3_K_M or Q2_K"),
    DU_OPTION_STR(0, "imatrix", "FILE", &imatrix_file, "importance matrix of dure imatrix"),
    DU_OPTION_STR(0, "check", "FILE", &check_file,
                  "compare OUT with IN on this text: KL divergence, top-1 agreement"),
    DU_OPTION_FLAG(0, "json", &as_json,
                   "print a JSON object: output, type, bytes, bits_per_weight, from_quantised, "
                   "types, [check]"),
};

typedef struct {
    const du_mix *mix;
    const du_model *model;
    const du_imatrix *imatrix;
} recipe;

static du_dtype choose(void *user, const du_out_tensor *t) {
    const recipe *r = user;
    return du_mix_choose(r->mix, r->model, t);
}

static const float *importance(void *user, const du_out_tensor *t, int64_t i_matrix) {
    return du_imatrix_find(((const recipe *)user)->imatrix, t, i_matrix);
}

/* What a text says about the distance of two models. */
typedef struct {
    int64_t n, n_same;
    double kl;
} distance;

typedef struct {
    float *first; /* [chunk, V] logits of the input */
    int64_t V;
    distance *d;
    du_cli_progress *bar;
    int64_t done; /* of both models together */
} comparison;

static int64_t argmax(const float *logits, int64_t V) {
    int64_t best = 0;
    for (int64_t v = 1; v < V; v++) {
        best = logits[v] > logits[best] ? v : best;
    }
    return best;
}

static double log_sum_exp(const float *logits, int64_t V) {
    double top = (double)logits[argmax(logits, V)], sum = 0;
    for (int64_t v = 0; v < V; v++) {
        sum += exp((double)logits[v] - top);
    }
    return top + log(sum);
}

/* A du_row_fn: keeps a row of the input. */
static bool keep_row(void *user, int64_t i, const float *logits) {
    comparison *c = user;
    memcpy(c->first + i * c->V, logits, (size_t)c->V * sizeof *logits);
    du_cli_progress_set(c->bar, ++c->done);
    return du_cli_interrupted();
}

/* A du_row_fn: compares a row of the output with it. */
static bool compare_row(void *user, int64_t i, const float *logits) {
    comparison *c = user;
    const float *p = c->first + i * c->V;
    double norm_p = log_sum_exp(p, c->V), norm_q = log_sum_exp(logits, c->V), kl = 0;
    for (int64_t v = 0; v < c->V; v++) {
        double log_p = (double)p[v] - norm_p;
        kl += exp(log_p) * (log_p - ((double)logits[v] - norm_q));
    }
    c->d->kl += kl;
    c->d->n++;
    c->d->n_same += argmax(p, c->V) == argmax(logits, c->V);
    du_cli_progress_set(c->bar, ++c->done);
    return du_cli_interrupted();
}

static du_err compare(du_cli_runner *in, du_cli_runner *out, const du_ids *ids, distance *d,
                      du_diag *diag) {
    int64_t n = (int64_t)ids->n, chunk = du_infer_n_ctx(in->infer);
    int64_t V = in->lm->model->hp.n_vocab;
    du_cli_progress bar = du_cli_progress_start("check", 2 * n);
    comparison c = {
        .first = du_alloc_array((size_t)(chunk * V), sizeof(float)), .V = V, .d = d, .bar = &bar};
    du_err err = c.first ? DU_OK : du_fail_nomem(diag, "the logits to compare");
    du_cli_interrupt_catch(true);
    for (int64_t start = 0; start < n && err == DU_OK; start += chunk) {
        int64_t part = n - start < chunk ? n - start : chunk;
        du_session_truncate(in->session, 0);
        du_session_truncate(out->session, 0);
        err = du_session_sync_rows(in->session, ids->ids + start, part, 0, keep_row, &c, diag);
        err = err ? err
                  : du_session_sync_rows(out->session, ids->ids + start, part, 0, compare_row, &c,
                                         diag);
    }
    du_cli_progress_end(&bar);
    du_free(c.first);
    return err;
}

static du_err check(const char *input, const char *output, const du_ids *ids, distance *d,
                    du_diag *diag) {
    du_cli_runner in, out = {0};
    du_err err = du_cli_runner_open_chunks(&in, input, false, diag);
    err = err ? err : du_cli_runner_open_chunks(&out, output, false, diag);
    err = err ? err : compare(&in, &out, ids, d, diag);
    du_cli_runner_close(&in);
    du_cli_runner_close(&out);
    return err;
}

static du_err print(const char *output, const du_mix *mix, const du_convert_stats *stats,
                    const distance *d, du_diag *diag) {
    double bits = 8.0 * (double)stats->bytes / (double)stats->n_params;
    double kl = d->n > 0 ? d->kl / (double)d->n : 0;
    double same = d->n > 0 ? (double)d->n_same / (double)d->n : 0;
    if (as_json) {
        json_t *all =
            json_pack("{s:s, s:s, s:I, s:f, s:b, s:o}", "output", output, "type", mix->name,
                      "bytes", (json_int_t)stats->bytes, "bits_per_weight", bits, "from_quantised",
                      stats->from_quantised, "types", du_cli_json_types(stats));
        if (d->n > 0) {
            json_object_set_new(all, "check",
                                json_pack("{s:I, s:f, s:f}", "n_tokens", (json_int_t)d->n,
                                          "kl_divergence", kl, "top1_agreement", same));
        }
        return du_cli_print_json(all, diag);
    }
    char buf[24];
    printf("%s: %s, %s, %.2f bits per weight\n", output, mix->name, du_cli_bytes(buf, stats->bytes),
           bits);
    if (stats->from_quantised) {
        printf("the input was block-quantised already: its errors are in the result too\n");
    }
    if (d->n > 0) {
        printf("against the input on %lld tokens: KL divergence %.3g, top-1 agreement %.2f%%\n",
               (long long)d->n, kl, 100 * same);
    }
    return DU_OK;
}

/* The text of --check, read before the work so that a wrong name is told at once. */
static du_err read_check(du_ids *ids, const char *input, du_diag *diag) {
    du_tokenizer *tok = NULL;
    du_err err = du_cli_tokenizer_open(&tok, input, diag);
    err = err ? err : du_cli_text_ids(ids, tok, check_file, diag);
    du_tokenizer_free(tok);
    return err;
}

static du_err quantize(const char *input, const char *output, const du_mix *mix, du_diag *diag) {
    du_model *model = NULL;
    du_imatrix *imatrix = NULL;
    du_ids ids = {0};
    du_convert_stats stats;
    distance d = {0};
    du_err err = du_cli_model_open(&model, input, diag);
    err = !err && check_file ? read_check(&ids, input, diag) : err;
    if (err == DU_OK && imatrix_file) {
        err = du_imatrix_new(&imatrix, model, diag);
        err = err ? err : du_imatrix_load(imatrix, imatrix_file, diag);
    }
    if (err == DU_OK) {
        recipe r = {mix, model, imatrix};
        du_cli_transfer t = {.model = model,
                             .output = output,
                             .label = "quantize",
                             .choose = choose,
                             .choose_user = &r,
                             .importance = imatrix ? importance : NULL,
                             .importance_user = &r,
                             .file_type = mix->file_type,
                             .n_threads = du_cli_infer_params().n_threads};
        err = du_cli_transfer_run(&t, &stats, diag);
    }
    if (err == DU_OK && check_file) {
        err = check(input, output, &ids, &d, diag);
    }
    err = err ? err : print(output, mix, &stats, &d, diag);
    du_ids_done(&ids);
    du_imatrix_free(imatrix);
    du_model_close(model);
    return err;
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    (void)n_args;
    if (!type_name) {
        return du_cli_misuse(diag, "--type is missing, as in --type Q4_K_M");
    }
    const du_mix *mix = du_mix_find(type_name);
    if (!mix) {
        du_str known = {0};
        for (int64_t i = 0; (mix = du_mix_at(i)); i++) {
            du_str_addf(&known, "%s%s", i ? ", " : "", mix->name);
        }
        du_cli_status status =
            du_cli_misuse(diag, "--type %s: known are %s", type_name, du_str_get(&known));
        du_str_done(&known);
        return status;
    }
    if (!du_cli_is_gguf_name(args[1])) {
        return du_cli_misuse(diag, "%s: the name of the result ends in .gguf", args[1]);
    }
    if (du_same_file(args[0], args[1])) {
        return du_cli_misuse(diag, "IN and OUT are both %s", args[1]);
    }
    return du_cli_fail(quantize(args[0], args[1], mix, diag));
}

const du_cli_command du_cli_quantize = {
    .name = "quantize",
    .args = "IN OUT.gguf",
    .summary = "store weights in fewer bits",
    .about = "Writes a model with block-quantised weights; which type a matrix gets follows from "
             "what it is for. The receipt at the end tells the size and the bits per weight, and "
             "with --check how far the result is from the input on a text. IN may itself be "
             "quantised; the receipt says so. OUT appears under its name when it is whole.",
    .example = "dure quantize ./DeepSeek-V2-Lite v2-lite-q4.gguf --type Q4_K_M\n"
               "dure quantize bf16.gguf q4.gguf --type Q4_K_M --imatrix imatrix.gguf \\\n"
               "    --check text.txt",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .computes = DU_CLI_COMPUTES_ALL,
    .n_args_min = 2,
    .n_args_max = 2,
    .run = run,
};
