/* From logits to the next token.
 *
 * Order: logit bias, penalties, then with temperature 0 the plain argmax (lower id on a tie);
 * otherwise division by the temperature, top-k, top-p, min-p, and a draw from what is left. This is
 * the order of transformers. The same seed and logits give the same tokens everywhere. */
#ifndef DU_INFER_SAMPLER_H
#define DU_INFER_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

typedef struct {
    int32_t token;
    float bias; /* added to the logit; -INFINITY forbids the token */
} du_logit_bias;

typedef struct {
    double temperature;        /* 0: greedy */
    int64_t top_k;             /* keep the k best; 0: all */
    double top_p;              /* keep the fewest best that hold this share; 1: all */
    double min_p;              /* keep what has at least this share of the best one; 0: all */
    double repeat_penalty;     /* logits of tokens seen in the window are divided (when positive) or
                                  multiplied by it (Keskar et al. 2019, section 4.1); 1: off */
    int64_t repeat_window;     /* tokens back, of prompt and answer; 0: all */
    double presence_penalty;   /* subtracted once for a token that was generated before; 0: off */
    double frequency_penalty;  /* subtracted as often as it was generated; 0: off */
    const du_logit_bias *bias; /* [n_bias], borrowed for the sampler's life */
    int64_t n_bias;
    uint64_t seed;
} du_sampler_params;

/* Greedy, everything else off. */
du_sampler_params du_sampler_defaults(void);

typedef struct du_sampler du_sampler;

/* V  vocabulary size; n_max  the most tokens du_sampler_see will be told
 * Returns DU_OK; DU_EINVAL naming the parameter that is out of its range; DU_ENOMEM. */
DU_NODISCARD
du_err du_sampler_new(du_sampler **out, const du_sampler_params *params, int64_t V, int64_t n_max,
                      du_diag *diag);
void du_sampler_free(du_sampler *s); /* takes NULL */

/* Tells of a token of the prompt, or of one that was generated. Beyond n_max it is not counted. */
void du_sampler_see(du_sampler *s, int32_t token, bool generated);

/* The next token, which is then seen as generated. logits [V] are not changed. A row of NaN gives
 * token 0. */
int32_t du_sampler_next(du_sampler *s, const float *logits);

/* The n most likely tokens of the plain distribution, best first, with their natural log
 * probabilities. ids, log_probs [n] out; n <= V. */
void du_top_log_probs(const float *logits, int64_t V, int64_t n, int32_t *ids, double *log_probs);

#endif
