/* Gradients of a loss with respect to all weights of a model, over whole sequences: the training
 * counterpart of du_model_forward. What is fixed and where sums come from:
 * docs/design/training.md.
 *
 *     du_grad_new
 *     for each step:
 *         for each micro-batch: du_grad_add
 *         read du_grad_values, du_grad_counts; update the weights
 *     du_grad_free */
#ifndef DU_MODEL_GRAD_H
#define DU_MODEL_GRAD_H

#include "model/params.h"
#include "nn/leaves.h"
#include "nn/loss.h"
#include "nn/spread.h"

/* T = n_seq * seq_len rows, sequence after sequence. A row's position is its place in its sequence.
 */
typedef struct {
    int64_t n_seq, seq_len;
    const int32_t *tokens; /* [T] in [0, n_vocab) */
    const int32_t *first;  /* [T]: the first position of its sequence that a row sees, the beginning
                              of its document; NULL: 0 */
    struct du_objective *next; /* of the token behind the next, by the block behind the trunk (a
                                  row's next token is the one that follows it; a sequence's last
                                  row must have no target); NULL: not computed */
} du_grad_rows;

/* What is kept for the backward pass, and what is computed again. */
typedef enum { DU_KEEP_ALL, DU_KEEP_SOME, DU_KEEP_INPUTS } du_grad_keep;

typedef struct {
    bool bf16; /* factors of products are rounded to BF16 (kern/gemm.h) */
    du_grad_keep keep;
    double seq_balance; /* weight of the balance loss of each sequence, 0: none (DeepSeek-V3, arXiv
                           2412.19437, eqs. 17-20) */
    int64_t n_leaves;   /* sequences of a step at most, over which balance losses are meaned */
    bool apart;         /* what is added to a gradient behind another sum over leaves is kept beside
                           it (du_grad_parts), since those of several processes come first */
    /* Where experts are spread over processes, each of which has its share of params; borrowed.
     * NULL: all are here. */
    const du_spread_link *spread;
} du_grad_params;

typedef struct du_grad du_grad;

/* Is there a backward pass of the model? Otherwise DU_EUNSUPPORTED: its architecture has none,
 * heads are wider than DU_ATTN_TRAIN_DIM_MAX, or more than one layer behind the trunk is computed.
 */
DU_NODISCARD
du_err du_grad_check(const du_params *params, du_diag *diag);

/* params is borrowed: every call computes with the weights it holds then. Returns DU_OK, DU_ENOMEM
 * and the errors of du_grad_check. Free with du_grad_free. */
DU_NODISCARD
du_err du_grad_new(du_grad **out, const du_params *params, const du_grad_params *how,
                   du_diag *diag);
void du_grad_free(du_grad *grad); /* takes NULL */

/* Forward and backward of a micro-batch, whose sequences are the step's leaves [leaves.first,
 * leaves.first + rows.n_seq). After the call with leaves.last du_grad_values and du_grad_counts are
 * those of the whole step.
 *
 * Where experts are spread all processes call it together, each with rows.n_seq of the sequences
 * leaves, one process's behind the other's; those that are left have 0. Afterwards du_grad_values
 * of the experts here are as above, all else those of rows alone, and counts those of rows so far.
 * Returns DU_OK, DU_ENOMEM, the objective's errors, and those of the link. */
DU_NODISCARD
du_err du_grad_add(du_ctx *ctx, du_grad *grad, const du_grad_rows *rows, du_objective *objective,
                   du_leaves leaves, du_diag *diag);

/* The forward pass alone: the objective's loss, for validation. Where experts are spread all
 * processes call it together, rows.n_seq may be 0. */
DU_NODISCARD
du_err du_grad_loss(du_ctx *ctx, du_grad *grad, const du_grad_rows *rows, du_objective *objective,
                    du_diag *diag);

/* [params->n_values], as params->values; the gradient of a bias that only chooses is 0. */
const float *du_grad_values(const du_grad *grad);

/* A sum over leaves that is to be added to gradients [offset, offset + n). */
typedef struct {
    float *values; /* [n] */
    int64_t offset, n;
} du_grad_term;

/* The sums of a part of a step's leaves, to be made those of the step: with `apart`. */
enum { DU_GRAD_TERMS_MAX = 3 };
typedef struct {
    float *values;                         /* du_grad_values */
    du_grad_term terms[DU_GRAD_TERMS_MAX]; /* to be added in this order */
    int64_t n_terms;
    int64_t *counts; /* [n_counts] */
    int64_t n_counts;
} du_grad_parts;

du_grad_parts du_grad_get_parts(du_grad *grad);

/* How often each expert was chosen in the step, [layers, n_expert], the one behind the trunk last;
 * NULL for dense models. */
const int64_t *du_grad_counts(const du_grad *grad);

/* The balance loss of each leaf since the step's first, times seq_balance / n_leaves; [n_leaves].
 */
const double *du_grad_balances(const du_grad *grad);

/* The sequences of the next steps: at most those that it was made for. */
void du_grad_set_leaves(du_grad *grad, int64_t n_leaves);

/* Memory in bytes of gradients and passes (grad_memory.c). */
typedef struct {
    size_t values;  /* gradients */
    size_t nodes;   /* partial sums that wait between micro-batches */
    size_t terms;   /* of these, sums that are kept apart for other processes */
    size_t kept;    /* for the backward pass */
    size_t scratch; /* most that a pass holds for itself; enough for ctx->scratch as one chunk */
    size_t logits;  /* of that, logits */
} du_grad_memory;

/* What steps of n_micro micro-batches of n_seq sequences will take, of a model that du_grad_check
 * does not refuse; params may be untouched zeros. how->n_leaves is not read, nor of how->spread
 * more than i and n. Returns DU_OK, DU_ENOMEM, DU_ELIMIT (a size beyond 2^63). */
DU_NODISCARD
du_err du_grad_measure(du_grad_memory *out, const du_ctx *ctx, const du_params *params,
                       const du_grad_params *how, int64_t n_seq, int64_t seq_len, int64_t n_micro,
                       du_diag *diag);

/* Floating-point operations (two per multiply-add) per token of a sequence of seq_len that sees all
 * tokens before it: products with matrices and attention. */
typedef struct {
    double forward, backward;
    double again; /* what is computed a second time, besides */
} du_grad_flops;

du_grad_flops du_grad_count(const du_params *params, du_grad_keep keep, int64_t seq_len);

#endif
