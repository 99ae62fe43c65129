#include "cli/sampling.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "cli/compute.h"

/* NAN and -1: not given, so that the model's own recommendation holds. */
static double temperature = NAN, top_p = NAN, min_p = NAN;
static double repeat_penalty = 1, presence_penalty, frequency_penalty;
static int64_t n_max, top_k = -1, repeat_window = 64;
static bool ignore_eos;
static du_opt_list stop, bias_texts;
static du_logit_bias *bias;

const du_opt du_cli_sampling_opts[] = {
    DU_OPTION_INT('n', "max-tokens", "N", &n_max, 0, INT32_MAX,
                  "tokens to generate at most (default 0: to the end of the context)"),
    DU_OPTION_FLOAT(0, "temp", "X", &temperature, 0, 100,
                    "temperature; 0 takes the most likely token (default: the model's, else 0.6)"),
    DU_OPTION_INT(0, "top-k", "N", &top_k, 0, INT32_MAX,
                  "keep the N most likely tokens; 0 keeps all (default: the model's, else 0)"),
    DU_OPTION_FLOAT(
        0, "top-p", "X", &top_p, 0, 1,
        "keep the fewest tokens that hold this share (default: the model's, else 0.95)"),
    DU_OPTION_FLOAT(0, "min-p", "X", &min_p, 0, 1,
                    "keep tokens with at least this share of the most likely one (default 0)"),
    DU_OPTION_FLOAT(0, "repeat-penalty", "X", &repeat_penalty, 1e-3, 1e3,
                    "make tokens of the repeat window less likely (default 1: off)"),
    DU_OPTION_INT(0, "repeat-window", "N", &repeat_window, 0, INT32_MAX,
                  "tokens that the repeat penalty looks back; 0 for all (default 64)"),
    DU_OPTION_FLOAT(0, "presence-penalty", "X", &presence_penalty, -100, 100,
                    "make tokens generated before less likely (default 0)"),
    DU_OPTION_FLOAT(0, "frequency-penalty", "X", &frequency_penalty, -100, 100,
                    "the same, for each time they were (default 0)"),
    DU_OPTION_LIST(0, "logit-bias", "ID=X", &bias_texts,
                   "add X to a token's logit; -inf forbids the token; may be repeated"),
    DU_OPTION_LIST(0, "stop", "TEXT", &stop, "end the answer before this text; may be repeated"),
    DU_OPTION_FLAG(0, "ignore-eos", &ignore_eos, "go on after an end token"),
};
const size_t du_cli_n_sampling_opts = sizeof du_cli_sampling_opts / sizeof *du_cli_sampling_opts;

void du_cli_sampling_done(void) {
    du_free(bias);
    bias = NULL;
    du_opt_list_done(&stop);
    du_opt_list_done(&bias_texts);
}

/* "ID=X" */
static bool read_bias(du_logit_bias *out, const char *text) {
    char *end;
    long long id = strtoll(text, &end, 10);
    if (end == text || *end != '=' || id < 0 || id > INT32_MAX) {
        return false;
    }
    const char *number = end + 1;
    double value = strtod(number, &end);
    *out = (du_logit_bias){.token = (int32_t)id, .bias = (float)value};
    return end != number && *end == '\0' && !isnan(value) && value < HUGE_VAL;
}

static du_cli_status read_biases(du_sampler_params *out, du_diag *diag) {
    bias = du_alloc_array(bias_texts.n, sizeof *bias);
    if (!bias) {
        return du_cli_fail(du_fail_nomem(diag, "--logit-bias"));
    }
    for (size_t i = 0; i < bias_texts.n; i++) {
        if (!read_bias(&bias[i], bias_texts.items[i])) {
            return du_cli_misuse(diag, "--logit-bias %s: not ID=X, as in 13=-1.5",
                                 bias_texts.items[i]);
        }
    }
    out->bias = bias;
    out->n_bias = (int64_t)bias_texts.n;
    return DU_CLI_DONE;
}

du_cli_status du_cli_sampling_read(du_generate_params *out, const du_lm *lm, du_diag *diag) {
    out->n_max = n_max;
    out->ignore_eos = ignore_eos;
    out->stop = stop.items;
    out->n_stop = (int64_t)stop.n;
    out->sampler = lm->sampling;
    out->sampler.temperature = isnan(temperature) ? lm->sampling.temperature : temperature;
    out->sampler.top_p = isnan(top_p) ? lm->sampling.top_p : top_p;
    out->sampler.top_k = top_k < 0 ? lm->sampling.top_k : top_k;
    out->sampler.min_p = isnan(min_p) ? lm->sampling.min_p : min_p;
    out->sampler.repeat_penalty = repeat_penalty;
    out->sampler.repeat_window = repeat_window;
    out->sampler.presence_penalty = presence_penalty;
    out->sampler.frequency_penalty = frequency_penalty;
    out->sampler.seed = du_cli_seed();
    return read_biases(&out->sampler, diag);
}
