/* The answer to a prompt: sampling, detokenising, stop strings and the split of reasoning, as a
 * stream. */
#ifndef DU_INFER_GENERATE_H
#define DU_INFER_GENERATE_H

#include "base/str.h"
#include "infer/lm.h"
#include "infer/session.h"
#include "text/reasoning.h"

#define DU_FINISH_LIST(X)                                                                          \
    X(DU_FINISH_STOP, "stop")           /* an end token or a stop string */                        \
    X(DU_FINISH_LENGTH, "length")       /* n_max, or the context is full */                        \
    X(DU_FINISH_CANCELLED, "cancelled") /* the caller said so */

#define DU_FINISH_ENUM(code, text) code,
typedef enum { DU_FINISH_LIST(DU_FINISH_ENUM) DU_FINISH_COUNT } du_finish;
#undef DU_FINISH_ENUM

const char *du_finish_name(du_finish f);

/* New text, ready to show: whole characters, nothing that may still become a stop string or a tag.
 * Also called with both empty after every token, so that a caller can cancel: returns true. */
typedef bool du_generate_fn(void *user, du_sv reasoning, du_sv content);

typedef struct {
    du_sampler_params sampler;
    int64_t n_max;           /* tokens to generate at most; 0: to the end of the context */
    bool ignore_eos;         /* end tokens are ordinary tokens */
    const char *const *stop; /* [n_stop] strings that end the answer, not part of it */
    int64_t n_stop;
    bool split;                    /* split reasoning from content; else all is content */
    du_reasoning_start start;      /* when split: where the prompt left the reasoning */
    int64_t n_log_probs;           /* keep so many alternatives per token, at most the vocabulary;
                                      0: none */
    bool keep_log_probs;           /* keep the log probability of each token */
    du_sync_progress_fn *progress; /* of the prompt; may be NULL */
    du_generate_fn *on_text;       /* may be NULL */
    void *user;                    /* of progress and on_text */
} du_generate_params;

typedef struct {
    du_ids tokens; /* generated ids; an end token that finished the answer is the last one */
    du_str text;   /* bytes of the answer, control tokens left out, before the stop string */
    du_str reasoning, content;
    du_finish finish;
    int64_t n_reused;   /* tokens of the prompt that were in the cache */
    int64_t n_computed; /* the others; fewer when the prompt was cancelled */
    double prompt_s, decode_s;
    double *log_probs;     /* [tokens.n] when kept */
    int32_t *top_ids;      /* [tokens.n, n_log_probs] */
    double *top_log_probs; /* [tokens.n, n_log_probs] */
} du_generation;

/* Syncs the session to the prompt and generates. out is filled also when cancelled; free with
 * du_generation_done in any case.
 * Returns DU_OK (finish says how it ended), and the errors of du_session_sync, du_sampler_new. A
 * prompt that fills the context is DU_ELIMIT, an empty one DU_EINVAL. */
DU_NODISCARD
du_err du_generate(du_generation *out, du_session *session, const du_lm *lm, const int32_t *prompt,
                   int64_t n_prompt, const du_generate_params *params, du_diag *diag);
void du_generation_done(du_generation *g);

#endif
