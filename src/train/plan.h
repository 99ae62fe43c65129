/* What a run will take and cost, before it begins: parameters, operations, memory by kind, and its
 * speed from a short measurement. */
#ifndef DU_TRAIN_PLAN_H
#define DU_TRAIN_PLAN_H

#include "model/grad.h"
#include "train/config.h"
#include "train/ranks.h"

enum { DU_PLAN_LEVELS = DU_RECOMPUTE_LAYER + 1 };

/* What a process takes of a run. */
typedef struct {
    int64_t n_ranks;
    int64_t n_here;                 /* of them on its machine */
    int64_t n_seq, n_micro;         /* its micro-batches of a step of full size */
    int64_t n_seq_max, n_micro_max; /* the most of these in any step: what memory is taken for */
} du_train_share;

typedef struct {
    du_train_share share;         /* of the process whose plan it is */
    int64_t n_weights, n_trained; /* all, frozen ones too */
    int64_t n_active;             /* what one token uses: chosen experts, of an embedding of its own
                                     one row */
    int64_t step_tokens;          /* of all micro-batches of all processes */
    du_grad_flops flops;          /* per token, as the configuration says */
    double rule_flops;            /* 6 times what is trained and used, 4 times what is frozen: the
                                     rule of thumb (Kaplan et al. 2020, arXiv 2001.08361, section
                                     2.1), without gradients of what is frozen */
    double token_bytes; /* read and written per token at least: weights twice and gradients once per
                           micro-batch, the optimizer's blocks, activations that are kept twice */
    double sent_bytes;  /* that the process sends to others per step */
    /* Memory in bytes, that of one process */
    size_t weights, gradients, moments, mean, rounded; /* rounded: with qat.type */
    size_t frozen; /* of a frozen model what is derived from its files */
    size_t mapped; /* and what passes read of the files themselves, which processes on a machine
                      share and which needs no memory of its own: not in total */
    struct {
        size_t nodes, kept, scratch, logits; /* of du_grad_memory; logits are part of scratch */
        size_t total;
    } levels[DU_PLAN_LEVELS]; /* by config.recompute */
    size_t available;         /* to this process: of the machine's, its part; 0: unknown */
    /* Of du_train_plan_probe, else 0 */
    double step_s, tok_s; /* of a step of step_tokens */
    double run_s;         /* of all steps, those that grow too */
} du_train_plan;

/* The plan of a configuration for what it trains, whose values are not touched. ctx needs pool and
 * kern alone. Among ranks that of the one that has most: where experts are spread params are then
 * its own, and rows at experts are counted as if these were chosen equally often. Nothing is
 * exchanged.
 * Returns DU_OK, DU_ELIMIT, DU_ENOMEM, the errors of du_trainable_check and du_qat_init. */
DU_NODISCARD
du_err du_train_plan_make(du_train_plan *out, const du_ctx *ctx, const du_train_config *config,
                          du_params *params, du_ranks *ranks, du_diag *diag);

/* DU_ENOMEM, with the numbers and the keys to change, where the run does not fit. */
DU_NODISCARD
du_err du_train_plan_check(const du_train_plan *plan, const du_train_config *config, du_diag *diag);

/* Measures step_s and tok_s: steps, as the trainer makes them, of random tokens with as many layers
 * of the model, and on as many sequences, as about two seconds allow, in proportion to the
 * operations that are left out. All ranks call it together; the slowest counts.
 * shape  of du_trainable_shape
 * Returns DU_OK, DU_ENOMEM, and errors of du_trainable_new, du_trainer_of and du_trainer_step. */
DU_NODISCARD
du_err du_train_plan_probe(du_train_plan *plan, du_ctx *ctx, const du_train_config *config,
                           const json_t *shape, du_ranks *ranks, du_diag *diag);

#endif
