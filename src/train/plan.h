/* What a run will take and cost, before it begins: parameters, operations, memory by kind, and its
 * speed from a short measurement. */
#ifndef DU_TRAIN_PLAN_H
#define DU_TRAIN_PLAN_H

#include "model/grad.h"
#include "train/config.h"

enum { DU_PLAN_LEVELS = DU_RECOMPUTE_LAYER + 1 };

typedef struct {
    int64_t n_weights, n_active; /* of these, what one token uses: chosen experts, of an embedding
                                    of its own one row */
    int64_t step_tokens;         /* of a step's micro-batches */
    du_grad_flops flops;         /* per token, as the configuration says */
    double rule_flops;           /* 6 n_active, the rule of thumb (Kaplan et al. 2020, arXiv
                                    2001.08361, section 2.1) */
    double token_bytes; /* read and written per token at least: weights twice and gradients once per
                           micro-batch, the optimizer's blocks, activations that are kept twice */
    /* Memory in bytes */
    size_t weights, gradients, moments, mean, rounded; /* rounded: with qat.type */
    struct {
        size_t nodes, kept, scratch, logits; /* of du_grad_memory; logits are part of scratch */
        size_t total;
    } levels[DU_PLAN_LEVELS]; /* by config.recompute */
    size_t available;         /* to this process: of the machine's, its part; 0: unknown */
    /* Of du_train_plan_probe, else 0 */
    double step_s, tok_s; /* of a step of step_tokens */
    double run_s;         /* of all steps, those that grow too */
} du_train_plan;

/* What one of several processes takes of a run. */
typedef struct {
    int64_t n_ranks;
    int64_t n_here;         /* of them on its machine */
    int64_t n_seq, n_micro; /* its micro-batches of a step */
} du_train_share;

/* The plan of a configuration for a model of that shape (a config.json), whose weights take no
 * memory. ctx needs pool and kern alone. Where experts are spread, that of the process that has
 * most of them; rows at experts are counted as if these were chosen equally often.
 * share  NULL: one process is alone
 * Returns DU_OK, DU_ELIMIT, DU_ENOMEM, and the errors of
 * du_params_new. */
DU_NODISCARD
du_err du_train_plan_make(du_train_plan *out, const du_ctx *ctx, const du_train_config *config,
                          const json_t *shape, const du_train_share *share, du_diag *diag);

/* DU_ENOMEM, with the numbers and the keys to change, where the run does not fit. */
DU_NODISCARD
du_err du_train_plan_check(const du_train_plan *plan, const du_train_config *config, du_diag *diag);

/* Measures step_s and tok_s: passes and updates of as many layers of the model's shape, on as many
 * sequences, as about two seconds allow, in proportion to the operations that are left out.
 * ctx->scratch is used. Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_train_plan_probe(du_train_plan *plan, du_ctx *ctx, const du_train_config *config,
                           const json_t *shape, du_diag *diag);

#endif
