/* Ranks have the same weights. Each computes the gradients of its leaves, numbered from 0, and sums
 * them with those of the others as far as it owns the values: once behind all of them, or, where
 * experts are spread, after each round of micro-batches, since the leaves of a rank are no
 * neighbours then, those of a round are. There a rank computes the experts that it has for the
 * tokens of all, so ranks go through the layers together, and the gradients of experts are whole
 * where they are. A rank that fails meets the others where they agree on what became of a round. */
#include "train/passes.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"

/* Between experts; also what becomes of an error in the middle of a pass. */
static du_err exchange(void *user, du_err before, const du_spread_part *send,
                       const du_spread_part *receive) {
    du_passes *p = user;
    if (before == DU_ENOMEM) {
        before = du_fail_nomem(p->diag, "a micro-batch");
    }
    du_err err = du_ranks_agree_within(p->ranks, before, p->diag);
    return err ? err : du_ranks_exchange(p->ranks, send, receive, p->diag);
}

static du_err make_grad(du_passes *p, du_diag *diag) {
    const du_train_config *config = p->config;
    du_grad_params how = {.bf16 = config->dtype == DU_TRAIN_BF16,
                          .keep = (du_grad_keep)config->recompute,
                          .seq_balance = config->router.seq_balance,
                          .n_leaves = p->split->n_max,
                          .apart = p->ranks != NULL,
                          .spread = p->split->spread ? &p->link : NULL};
    return du_grad_new(&p->grad, p->params, &how, diag);
}

du_err du_passes_init(du_passes *p, du_ctx *ctx, du_params *params, const du_batch_split *split,
                      const du_optim *optim, du_diag *diag) {
    du_ranks *ranks = split->ranks;
    *p = (du_passes){
        .ctx = ctx, .config = optim->config, .ranks = ranks, .params = params, .split = split};
    p->link = (du_spread_link){du_ranks_rank(ranks), du_ranks_n(ranks), exchange, p};
    du_err err = make_grad(p, diag);
    p->reduce = (du_grad_reduce){.ranks = ranks,
                                 .grad = p->grad,
                                 .n_values = params->n_values,
                                 .owners = optim->common.values};
    for (int i = 0; i < DU_LEAF_MEASURES && err == DU_OK; i++) {
        p->measured[i] = du_alloc_zero((size_t)split->n_max, sizeof *p->measured[i]);
        err = p->measured[i] ? DU_OK : du_fail_nomem(diag, "the trainer");
    }
    if (err == DU_OK && *p->config->qat.type) {
        err = du_qat_init(&p->qat, p->config->qat.type, params, diag);
    }
    return err;
}

void du_passes_done(du_passes *p) {
    du_grad_reduce_done(&p->reduce);
    du_grad_free(p->grad);
    du_qat_done(&p->qat);
    du_loader_close(p->data);
    du_loader_close(p->validation);
    du_loader_batch_done(&p->batch);
    for (int i = 0; i < DU_LEAF_MEASURES; i++) {
        du_free(p->measured[i]);
    }
    du_free(p->losses);
    du_free(p->next_targets);
    du_free(p->next_losses);
    *p = (du_passes){0};
}

/* The training data, or what is of its kind for the validation loss. */
static du_err open_loader(du_loader **out, const du_passes *p, bool validation, du_diag *diag) {
    const du_train_config *config = p->config;
    bool shards = *config->data.shards != '\0';
    const char *path = validation ? config->data.validation
                       : shards   ? config->data.shards
                                  : config->data.tokens;
    const char *key = validation ? "data.validation" : shards ? "data.shards" : "data.tokens";
    du_loader_params params = {.tokens = shards || !*path ? NULL : path,
                               .shards = shards ? path : NULL,
                               .validation = validation,
                               .token_bytes = config->data.token_bytes,
                               .n_vocab = p->params->model->hp.n_vocab,
                               .seq_len = config->seq_len,
                               .batch_seqs = config->batch_seqs,
                               .shuffled = !validation && config->data.order == DU_ORDER_SHUFFLED,
                               .seed = (uint64_t)config->seed};
    du_err err = du_loader_open(out, &params, diag);
    if (err != DU_OK) {
        du_diag_context(diag, "%s", key);
    }
    return err;
}

du_err du_passes_open(du_passes *p, du_diag *diag) {
    const du_train_config *config = p->config;
    du_err err = open_loader(&p->data, p, false, diag);
    if (err == DU_OK && *config->data.validation) {
        err = open_loader(&p->validation, p, true, diag);
    }
    err = err ? err : du_loader_batch_init(&p->batch, p->data, diag);
    if (err == DU_OK) {
        size_t n = (size_t)(config->batch_seqs * config->seq_len);
        p->losses = du_alloc_array(n, sizeof *p->losses);
        p->next_targets = du_alloc_array(n, sizeof *p->next_targets);
        p->next_losses = du_alloc_array(n, sizeof *p->next_losses);
        bool good = p->losses && p->next_targets && p->next_losses;
        err = good ? DU_OK : du_fail_nomem(diag, "a micro-batch");
    }
    return err;
}

static double sum_leaves(const double *leaves, int64_t n) {
    du_leaf_sum sum = {0};
    for (int64_t i = 0; i < n; i++) {
        du_leaf_sum_add(&sum, leaves[i]);
    }
    return du_leaf_sum_get(&sum);
}

/* The losses of each sequence of the batch, where rows have targets. */
static void put_losses(const du_passes *p, double *leaves, const double *losses,
                       const int32_t *targets) {
    int64_t n = p->batch.seq_len;
    for (int64_t i_seq = 0; i_seq < p->batch.n_seq; i_seq++) {
        double of_seq = 0;
        for (int64_t i = i_seq * n; i < (i_seq + 1) * n; i++) {
            of_seq += targets[i] >= 0 ? losses[i] : 0;
        }
        leaves[i_seq] = of_seq;
    }
}

/* The rows of the batch; none where this rank only computes for the others. */
static du_grad_rows rows_of(const du_passes *p, bool any) {
    return (du_grad_rows){.n_seq = any ? p->batch.n_seq : 0,
                          .seq_len = p->batch.seq_len,
                          .tokens = p->batch.tokens,
                          .first = p->batch.first};
}

static du_cross_entropy objective_of(const du_passes *p, double scale) {
    return (du_cross_entropy){.base.rows = du_cross_entropy_rows,
                              .targets = p->batch.targets,
                              .scale = scale,
                              .z = p->config->loss.z,
                              .smoothing = p->config->loss.label_smoothing,
                              .losses = p->losses};
}

/* The batch becomes the leaves of the step that begin with this one. */
static du_err read_batch(du_passes *p, int64_t leaf, du_diag *diag) {
    int64_t first = p->split->before + leaf;
    p->batch.n_seq = p->split->n_seq;
    return du_loader_read(p->data, first / p->split->n_seq, &p->batch, diag);
}

du_err du_passes_count(du_passes *p, int64_t *n_targets, du_diag *diag) {
    const du_batch_split *s = p->split;
    du_err err = DU_OK;
    *n_targets = 0;
    for (int64_t i = s->first; i < s->end && err == DU_OK; i += s->step) {
        err = read_batch(p, i, diag);
        *n_targets += p->batch.n_targets;
    }
    err = du_ranks_agree(p->ranks, err, diag);
    return err ? err : du_ranks_sum(p->ranks, p->ctx, n_targets, 1, diag);
}

/* The targets of the token behind the next, of rows whose next row is of the same document; returns
 * how many there are. */
static int64_t set_next_targets(du_passes *p) {
    const du_loader_batch *b = &p->batch;
    int64_t n = 0, S = b->seq_len;
    for (int64_t i = 0; i < b->n_seq * S; i++) {
        bool last = i % S == S - 1 || (b->first && b->first[i + 1] != b->first[i]);
        p->next_targets[i] = last ? -1 : b->targets[i + 1];
        n += p->next_targets[i] >= 0;
    }
    return n;
}

/* Before passes and behind them: where weights are rounded for passes, the model points to those.
 */
static du_err begin_passes(du_passes *p, bool any, du_diag *diag) {
    p->diag = diag;
    du_err err = any && p->qat.params ? du_qat_show(p->ctx, &p->qat) : DU_OK;
    return p->split->spread ? du_ranks_agree(p->ranks, err, diag) : err;
}

static void end_passes(du_passes *p) {
    du_params_point(p->params, p->params->values);
}

/* Forward and backward of this rank's leaves of a round, which the batch has where they are its
 * only ones. *n_next: adds how many of them have the token behind the next for a target. */
static du_err add_round(du_passes *p, int64_t i_round, int64_t n_targets, int64_t *n_next,
                        du_diag *diag) {
    const du_batch_split *s = p->split;
    double weight = p->config->mtp.weight;
    int64_t i = s->first + i_round * s->step;
    bool any = i < s->end, several = s->first + s->step < s->end;
    du_err err = any && several ? read_batch(p, i, diag) : DU_OK;
    du_cross_entropy objective = objective_of(p, 1 / (double)n_targets), next = objective;
    du_grad_rows rows = rows_of(p, any);
    if (weight > 0) {
        *n_next += any ? set_next_targets(p) : 0;
        next.targets = p->next_targets;
        next.losses = p->next_losses;
        next.scale = weight / (double)n_targets;
        rows.next = &next.base;
    }
    du_leaves leaves = du_batch_split_round(s, i_round);
    err = err ? err : du_grad_add(p->ctx, p->grad, &rows, &objective.base, leaves, diag);
    if (err != DU_OK || !any) {
        return err; /* of what was to be measured nothing is known */
    }
    put_losses(p, p->measured[DU_LEAF_LOSS] + i, p->losses, p->batch.targets);
    if (weight > 0) {
        put_losses(p, p->measured[DU_LEAF_NEXT_LOSS] + i, p->next_losses, p->next_targets);
    }
    memcpy(p->measured[DU_LEAF_BALANCE] + i,
           du_grad_balances(p->grad) + (s->spread ? i : i - s->first),
           (size_t)s->n_seq * sizeof(double));
    return DU_OK;
}

/* Forward and backward of this rank's leaves, and the gradients of all ranks as far as this one
 * wants them. */
static du_err add_rounds(du_passes *p, int64_t n_targets, int64_t *n_next, du_diag *diag) {
    const du_batch_split *s = p->split;
    du_err err = begin_passes(p, s->n_rounds > 0, diag);
    double start = du_clock_s();
    for (int64_t i = 0; i < s->n_rounds && err == DU_OK; i++) {
        err = add_round(p, i, n_targets, n_next, diag);
        if (s->spread) {
            du_leaves nodes = du_batch_split_nodes(s, i);
            err = du_ranks_agree(p->ranks, err, diag);
            err = err ? err : du_grad_reduce_add(p->ctx, &p->reduce, nodes, diag);
        }
    }
    p->rounds_s = du_clock_s() - start;
    end_passes(p);
    if (s->spread) {
        return err;
    }
    err = du_ranks_agree(p->ranks, err, diag);
    return err ? err : du_grad_reduce_add(p->ctx, &p->reduce, du_batch_split_nodes(s, 0), diag);
}

/* values [split->n] of leaves, to all ranks. */
static du_err share_leaves(du_passes *p, const du_batch_split *split, double *values,
                           du_diag *diag) {
    int64_t n = split->spread ? split->n_rounds : 1;
    du_err err = DU_OK;
    for (int64_t i = 0; i < n && err == DU_OK; i++) {
        err =
            du_ranks_share(p->ranks, values, sizeof *values, du_batch_split_spans(split, i), diag);
    }
    return err;
}

/* What all ranks have counted and measured becomes that of the step. */
static du_err join_ranks(du_passes *p, int64_t *n_next, du_diag *diag) {
    if (!p->ranks) {
        return DU_OK;
    }
    du_grad_parts parts = du_grad_get_parts(p->grad);
    if (p->split->n_rounds == 0) { /* they are those of the last step */
        memset(parts.counts, 0, (size_t)parts.n_counts * sizeof *parts.counts);
    }
    du_err err = du_ranks_sum(p->ranks, p->ctx, n_next, 1, diag);
    err = err ? err : du_ranks_sum(p->ranks, p->ctx, parts.counts, parts.n_counts, diag);
    for (int k = 0; k < DU_LEAF_MEASURES && err == DU_OK; k++) {
        err = share_leaves(p, p->split, p->measured[k], diag);
    }
    return err;
}

du_err du_passes_run(du_passes *p, int64_t n_targets, du_metrics *out, du_diag *diag) {
    int64_t n = p->split->n, n_next = 0;
    du_grad_set_leaves(p->grad, n);
    du_err err = add_rounds(p, n_targets, &n_next, diag);
    err = err ? err : join_ranks(p, &n_next, diag);
    bool balanced = p->config->router.seq_balance > 0;
    const double *losses = p->measured[DU_LEAF_LOSS], *next = p->measured[DU_LEAF_NEXT_LOSS],
                 *balances = p->measured[DU_LEAF_BALANCE];
    out->loss = sum_leaves(losses, n) / (double)n_targets;
    out->mtp_loss = n_next > 0 ? sum_leaves(next, n) / (double)n_next : (double)NAN;
    out->balance = balanced ? sum_leaves(balances, n) : (double)NAN;
    return err;
}

/* The losses of this rank's leaves of a split of the validation data. losses [s->n] */
static du_err measure(du_passes *p, const du_batch_split *s, double *losses, int64_t *n_targets,
                      du_diag *diag) {
    p->batch.n_seq = s->n_seq;
    du_err err = begin_passes(p, s->n_rounds > 0, diag);
    for (int64_t i_round = 0; i_round < s->n_rounds && err == DU_OK; i_round++) {
        int64_t i = s->first + i_round * s->step;
        bool any = i < s->end;
        err = any ? du_loader_read(p->validation, i / s->n_seq, &p->batch, diag) : DU_OK;
        du_cross_entropy objective = objective_of(p, 1);
        du_grad_rows rows = rows_of(p, any);
        err = err ? err : du_grad_loss(p->ctx, p->grad, &rows, &objective.base, diag);
        if (any && err == DU_OK) {
            put_losses(p, losses + i, p->losses, p->batch.targets);
            *n_targets += p->batch.n_targets;
        }
        err = s->spread ? du_ranks_agree(p->ranks, err, diag) : err;
    }
    end_passes(p);
    return s->spread ? err : du_ranks_agree(p->ranks, err, diag);
}

/* Sequences, in whole micro-batches. */
static int64_t n_validated(const du_passes *p) {
    int64_t of_micro = p->config->batch_seqs, wanted = p->config->validate.batches;
    int64_t n = du_loader_n_tokens(p->validation) / (of_micro * p->batch.seq_len);
    return of_micro * (n < 1 ? 1 : n < wanted ? n : wanted);
}

du_err du_passes_validate(du_passes *p, double *loss, du_diag *diag) {
    int64_t n = n_validated(p), n_targets = 0;
    du_batch_split split = *p->split; /* of these, which takes no more memory than a step */
    split.batch_seqs = split.n_seq_max;
    du_batch_split_set(&split, 0, n);
    du_arena_mark mark = du_arena_get_mark(p->ctx->scratch);
    double *losses = DU_SCRATCH(p->ctx, double, n);
    du_err err = losses ? DU_OK : du_fail_nomem(diag, "the validation loss");
    err = du_ranks_agree(p->ranks, err, diag);
    err = err ? err : measure(p, &split, losses, &n_targets, diag);
    err = err ? err : du_ranks_sum(p->ranks, p->ctx, &n_targets, 1, diag);
    err = err ? err : share_leaves(p, &split, losses, diag);
    *loss = err == DU_OK ? sum_leaves(losses, n) / (double)n_targets : (double)NAN;
    du_arena_release(p->ctx->scratch, mark);
    return err;
}
