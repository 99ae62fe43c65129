/* Steps of training.
 *
 * A step's sequences are leaves, numbered over its micro-batches; what is summed over them - the
 * gradients in model/grad, losses here - is summed in the tree of nn/leaves.h, so the same
 * sequences give the same bits however they are spread over micro-batches. The number of targets,
 * by which losses are divided, must be known before the first gradient; so the data of a step are
 * read twice when it has several micro-batches.
 *
 * Ranks have the same weights. Each computes the gradients of its leaves, sums them with those of
 * the others as far as it owns the values, updates these, and gives them to the others. Leaves are
 * numbered from 0 within a rank, which has one node of the step's tree.
 *
 * Where experts are spread a rank computes those that it has for the tokens of all, so ranks go
 * through the layers together, and the gradients of experts are whole where they are. All else is
 * summed after each round of micro-batches: the leaves of a rank are no neighbours then, those of a
 * round are. */
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "model/convert.h"
#include "model/lora.h"
#include "train/plan.h"
#include "train/schedule.h"

static double sum_leaves(const double *leaves, int64_t n) {
    du_leaf_sum sum = {0};
    for (int64_t i = 0; i < n; i++) {
        du_leaf_sum_add(&sum, leaves[i]);
    }
    return du_leaf_sum_get(&sum);
}

/* Of the largest step. */
static int64_t n_leaves_max(const du_train_config *config) {
    return config->accumulate * config->batch_seqs;
}

/* How many leaves are computed together among ranks: the largest power of two that is not more than
 * batch_seqs and divides where parts begin and end, in the step and in the data. */
static int64_t leaves_together(int64_t batch_seqs, int64_t before, int64_t n, int64_t per_rank) {
    int64_t together = per_rank;
    while (together > batch_seqs || n % together != 0 || before % together != 0) {
        together /= 2;
    }
    return together;
}

/* The leaves of each rank. Where experts are spread those of round i. */
static void set_leaves(du_trainer *t, int64_t i, int64_t per_rank) {
    int64_t n = t->part.n, n_ranks = du_ranks_n(t->ranks);
    for (int64_t r = 0; r < n_ranks; r++) {
        int64_t first = (i * n_ranks + r) * per_rank;
        first = first < n ? first : n;
        t->leaves[r] = (du_span){first, first + per_rank < n ? first + per_rank : n};
    }
}

/* What ranks compute of a step with n leaves, which others precede in the data: nodes of the lowest
 * level that has no more of them than there are ranks; smaller ones, in rounds, where experts are
 * spread. */
static void set_part(du_trainer *t, int64_t before, int64_t n) {
    int64_t n_ranks = du_ranks_n(t->ranks), rank = du_ranks_rank(t->ranks), per_rank = 1;
    int64_t n_seq = t->config->batch_seqs;
    while (per_rank * n_ranks < n) {
        per_rank *= 2;
    }
    if (t->ranks) {
        n_seq = leaves_together(n_seq, before, n, per_rank);
    }
    t->part = (du_trainer_part){
        .before = before, .n = n, .n_seq = n_seq, .n_ranks = (n + per_rank - 1) / per_rank};
    du_trainer_part *p = &t->part;
    set_leaves(t, 0, per_rank);
    if (t->spread) {
        p->first = rank * n_seq;
        p->end = n;
        p->step = n_seq * n_ranks;
        p->n_rounds = (n + p->step - 1) / p->step;
    } else {
        p->first = t->leaves[rank].first;
        p->end = t->leaves[rank].end;
        p->step = n_seq;
        p->n_rounds = (p->end - p->first) / n_seq;
    }
}

/* The part of the next step. */
static void set_next_part(du_trainer *t) {
    const du_train_config *config = t->config;
    int64_t step = t->step + 1, n_seq = config->batch_seqs;
    if (t->lr > 0) { /* without schedules */
        set_part(t, t->step * n_leaves_max(config), n_leaves_max(config));
    } else {
        set_part(t, du_schedule_micros_before(config, step) * n_seq,
                 du_schedule_micros(config, step) * n_seq);
    }
    du_grad_set_leaves(t->grad, t->part.n);
}

static bool take_part(du_trainer *t) {
    int64_t n = n_leaves_max(t->config);
    t->leaves = du_alloc_array((size_t)du_ranks_n(t->ranks), sizeof *t->leaves);
    if (!t->leaves) {
        return false;
    }
    set_part(t, 0, n);
    bool good = true;
    for (int i = 0; i < DU_LEAF_MEASURES; i++) {
        t->measured[i] = du_alloc_zero((size_t)n, sizeof *t->measured[i]);
        good = good && t->measured[i];
    }
    return good;
}

/* config.json of what init names. */
static du_err shape_of_init(json_t **out, const char *init, du_diag *diag) {
    du_model *model = NULL;
    du_err err = du_model_open(&model, init, diag);
    err = err ? err : du_convert_config(out, model, diag);
    du_model_close(model);
    return err;
}

/* Written and read once, as a continued run reads it from a checkpoint: numbers that config.json
 * says with fewer digits are the same from the first step on. */
static du_err shape_of_keys(json_t **out, const json_t *keys, du_diag *diag) {
    du_params *params = NULL;
    du_err err = du_params_new(&params, keys, diag);
    err = err ? err : du_convert_config(out, params->model, diag);
    du_params_free(params);
    if (err != DU_OK) {
        du_diag_context(diag, "model.*");
    }
    return err;
}

du_err du_trainer_shape(json_t **out, const du_train_config *config, du_diag *diag) {
    json_t *shape = NULL;
    if (config->lora.rank > 0) {
        *out = NULL;
        return DU_OK;
    }
    du_err err = *config->init ? shape_of_init(&shape, config->init, diag)
                               : shape_of_keys(&shape, config->model, diag);
    if (err != DU_OK) {
        return err;
    }
    json_t *n = json_integer(config->mtp.weight > 0);
    if (json_object_set_new(shape, "num_nextn_predict_layers", n) != 0) {
        json_decref(shape);
        return du_fail_nomem(diag, "config.json");
    }
    *out = shape;
    return DU_OK;
}

static bool has_choosing_bias(const du_params *params) {
    for (int64_t i = 0; i < params->n; i++) {
        if (params->at[i].def->chooses) {
            return true;
        }
    }
    return false;
}

/* What ranks.experts = spread does not go with. */
static du_err check_spread(const du_trainer *t, du_diag *diag) {
    int64_t E = t->params->model->hp.router.n_expert, n = du_ranks_n(t->ranks);
    if (t->params->adapters) {
        return du_fail(
            diag, DU_EUNSUPPORTED,
            "ranks.experts = spread: not with lora.rank, whose frozen experts lie in the "
            "file that processes share; leave ranks.experts at whole");
    }
    if (E == 0) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "ranks.experts = spread: the model has no experts; leave it at whole");
    }
    if (n > E) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "ranks.experts = spread: %lld processes, but %lld experts in a layer: start "
                       "at most %lld (mpirun -n), or set ranks.experts to whole",
                       (long long)n, (long long)E, (long long)E);
    }
    return DU_OK;
}

/* Keys that need what the model, or dure, has not. */
static du_err check_keys(const du_trainer *t, du_diag *diag) {
    const du_train_config *config = t->config;
    const du_hparams *hp = &t->params->model->hp;
    if (config->mtp.weight > 0 && t->params->n_nextn == 0 && t->params->adapters) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "mtp.weight: %s has no block that predicts one token further, and adapters "
                       "cannot make one",
                       config->init);
    }
    if (config->mtp.weight > 0 && t->params->n_nextn == 0) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "mtp.weight: a %s model has no block that predicts one token further "
                       "(deepseek_v2 and deepseek_v3 have)",
                       t->params->model->arch->name);
    }
    if (config->router.bias_step > 0 && !has_choosing_bias(t->params)) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "router.bias_step: the model has no bias that chooses experts");
    }
    if (config->router.seq_balance > 0 && hp->router.n_expert == 0) {
        return du_fail(diag, DU_EUNSUPPORTED, "router.seq_balance: the model has no experts");
    }
    if (t->spread) {
        du_err err = check_spread(t, diag);
        if (err != DU_OK) {
            return err;
        }
    }
    if (config->seq_len > hp->n_ctx_train) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "seq_len = %lld: longer than max_position_embeddings = %lld",
                       (long long)config->seq_len, (long long)hp->n_ctx_train);
    }
    return DU_OK;
}

static du_err make_grad(du_trainer *t, du_diag *diag) {
    const du_train_config *config = t->config;
    du_grad_params how = {.bf16 = config->dtype == DU_TRAIN_BF16,
                          .keep = (du_grad_keep)config->recompute,
                          .seq_balance = config->router.seq_balance,
                          .n_leaves = n_leaves_max(config),
                          .apart = t->ranks != NULL,
                          .spread = t->spread ? &t->link : NULL};
    return du_grad_new(&t->grad, t->params, &how, diag);
}

static du_err make_experts(du_trainer *t, du_diag *diag) {
    int64_t n = du_grad_get_parts(t->grad).n_counts,
            n_experts = t->params->model->hp.router.n_expert;
    if (n_experts == 0) {
        return DU_OK;
    }
    t->experts = (du_metrics_experts){.n_layers = n / n_experts, .n_experts = n_experts};
    if (!has_choosing_bias(t->params)) {
        return DU_OK;
    }
    t->biases = du_alloc_zero((size_t)n, sizeof *t->biases);
    return t->biases ? DU_OK : du_fail_nomem(diag, "the trainer");
}

static bool is_target(const void *user, const char *module) {
    const du_train_config *config = user;
    return du_lora_is_target(config->lora.targets, module);
}

static bool moves_biases(const void *user, const char *module) {
    (void)module;
    const du_train_config *config = user;
    return config->router.bias_step > 0;
}

/* The adapters of init's model, which stays in its files. */
static du_err make_adapters(du_trainer *t, du_diag *diag) {
    const du_train_config *config = t->config;
    double alpha = du_train_config_lora_alpha(config);
    du_lora lora = {.rank = config->lora.rank,
                    .scale = alpha / (double)config->lora.rank,
                    .wants = is_target,
                    .user = config,
                    .wants_bias = moves_biases,
                    .next = config->mtp.weight > 0};
    du_model *model = NULL;
    du_err err = du_model_open(&model, config->init, diag);
    err = err ? err : du_lora_new(&t->params, model, &lora, diag);
    return err ? err : du_lora_check_targets(config->lora.targets, t->params, diag);
}

/* Refuses what does not fit, and takes scratch as one piece, so that none of it is lost between
 * pieces. */
static du_err take_room(du_trainer *t, const json_t *shape, du_diag *diag) {
    const du_train_config *config = t->config;
    du_span most = t->leaves[0]; /* no rank has more */
    du_train_share share = {.n_ranks = du_ranks_n(t->ranks),
                            .n_here = t->ranks ? t->ranks->link.n_here : 1,
                            .n_seq = t->part.n_seq,
                            .n_micro = t->spread ? t->part.n_rounds
                                                 : (most.end - most.first) / t->part.n_seq};
    du_train_plan plan;
    du_err err = du_train_plan_make(&plan, t->ctx, config, shape, &share, diag);
    err = err ? err : du_train_plan_check(&plan, config, diag);
    du_arena_mark mark = du_arena_get_mark(t->ctx->scratch);
    if (err == DU_OK && !DU_SCRATCH(t->ctx, char, plan.levels[config->recompute].scratch)) {
        err = du_fail_nomem(diag, "activations");
    }
    du_arena_release(t->ctx->scratch, mark);
    return err;
}

/* Between experts; also what becomes of an error in the middle of a pass. */
static du_err exchange(void *user, du_err before, const du_spread_part *send,
                       const du_spread_part *receive) {
    du_trainer *t = user;
    if (before == DU_ENOMEM) {
        before = du_fail_nomem(t->diag, "a micro-batch");
    }
    du_err err = du_ranks_agree_within(t->ranks, before, t->diag);
    return err ? err : du_ranks_exchange(t->ranks, send, receive, t->diag);
}

du_err du_trainer_new(du_trainer **out, du_ctx *ctx, const du_train_config *config,
                      const json_t *shape, du_ranks *ranks, du_diag *diag) {
    du_trainer *t = du_alloc_zero(1, sizeof *t);
    if (!t) {
        return du_fail_nomem(diag, "the trainer");
    }
    *t = (du_trainer){.config = config,
                      .ctx = ctx,
                      .ranks = ranks,
                      .spread = config->ranks.experts == DU_EXPERTS_SPREAD && ranks};
    t->link = (du_spread_link){du_ranks_rank(ranks), du_ranks_n(ranks), exchange, t};
    bool adapters = config->lora.rank > 0;
    du_err err = take_part(t) ? DU_OK : du_fail_nomem(diag, "the trainer");
    err = err || adapters ? err : take_room(t, shape, diag);
    err = err ? err : adapters ? make_adapters(t, diag) : du_params_new(&t->params, shape, diag);
    err = err ? err : check_keys(t, diag);
    if (err == DU_OK && t->spread) {
        du_params_spread(t->params, t->link.i, t->link.n);
    }
    err = err ? err : du_optim_init(&t->optim, config, t->params, ranks, diag);
    err = err ? err : make_grad(t, diag);
    err = err ? err : make_experts(t, diag);
    if (err == DU_OK && !adapters) {
        t->flops = du_grad_count(t->params, (du_grad_keep)config->recompute, config->seq_len);
    }
    if (err == DU_OK && *config->qat.type) {
        err = du_qat_init(&t->qat, config->qat.type, t->params, diag);
    }
    if (err != DU_OK) {
        du_trainer_free(t);
        return err;
    }
    *out = t;
    return DU_OK;
}

static void free_waiting(du_trainer *t) {
    du_grad_parts parts = {0};
    if (t->grad) {
        parts = du_grad_get_parts(t->grad);
    }
    for (int64_t l = 0; l < DU_LEAF_LEVELS && t->grad; l++) {
        du_mem_unreserve(t->wait[l], (size_t)t->params->n_values * sizeof(float));
        for (int64_t i = 0; i < parts.n_terms; i++) {
            du_mem_unreserve(t->term_wait[i][l], (size_t)parts.terms[i].n * sizeof(float));
        }
    }
}

void du_trainer_free(du_trainer *t) {
    if (!t) {
        return;
    }
    du_free(t->biases);
    free_waiting(t);
    du_grad_free(t->grad);
    du_optim_done(&t->optim);
    du_qat_done(&t->qat);
    du_params_free(t->params);
    du_loader_close(t->data);
    du_loader_close(t->validation);
    du_loader_batch_done(&t->batch);
    du_free(t->leaves);
    for (int i = 0; i < DU_LEAF_MEASURES; i++) {
        du_free(t->measured[i]);
    }
    du_free(t->losses);
    du_free(t->next_targets);
    du_free(t->next_losses);
    du_free(t);
}

static du_err load_init(du_trainer *t, du_diag *diag) {
    du_model *model = NULL;
    du_err err = du_model_open(&model, t->config->init, diag);
    err = err ? err : du_params_load(t->params, model, diag);
    du_model_close(model);
    return err;
}

static du_err begin_weights(du_trainer *t, du_diag *diag) {
    double deviation = 0.006; /* of DeepSeek-V3 (arXiv 2412.19437, section 4.2) */
    du_err err = du_json_get_f64(t->config->model, "initializer_range", &deviation, diag);
    if (err == DU_OK) {
        du_params_init(t->params, deviation, (uint64_t)t->config->seed);
        err = *t->config->init ? load_init(t, diag) : DU_OK;
    }
    return err;
}

du_err du_trainer_begin(du_trainer *t, du_diag *diag) {
    du_err err = DU_OK;
    if (t->config->lora.rank > 0) {
        du_lora_init(t->params, (uint64_t)t->config->seed);
    } else {
        err = begin_weights(t, diag);
    }
    if (err == DU_OK) {
        du_optim_begin(&t->optim);
    }
    return err;
}

/* The training data, or what is of its kind for the validation loss. */
static du_err open_loader(du_loader **out, const du_trainer *t, bool validation, bool shuffled,
                          du_diag *diag) {
    const du_train_config *config = t->config;
    bool shards = *config->data.shards != '\0';
    const char *path = validation ? config->data.validation
                       : shards   ? config->data.shards
                                  : config->data.tokens;
    const char *key = validation ? "data.validation" : shards ? "data.shards" : "data.tokens";
    du_loader_params params = {.tokens = shards ? NULL : path,
                               .shards = shards ? path : NULL,
                               .validation = validation,
                               .token_bytes = config->data.token_bytes,
                               .n_vocab = t->params->model->hp.n_vocab,
                               .seq_len = config->seq_len,
                               .batch_seqs = config->batch_seqs,
                               .shuffled = shuffled,
                               .seed = (uint64_t)config->seed};
    du_err err = du_loader_open(out, &params, diag);
    if (err != DU_OK) {
        du_diag_context(diag, "%s", key);
    }
    return err;
}

du_err du_trainer_open_data(du_trainer *t, du_diag *diag) {
    const du_train_config *config = t->config;
    bool shuffled = config->data.order == DU_ORDER_SHUFFLED;
    du_err err = open_loader(&t->data, t, false, shuffled, diag);
    if (err == DU_OK && *config->data.validation) {
        err = open_loader(&t->validation, t, true, false, diag);
    }
    err = err ? err : du_loader_batch_init(&t->batch, t->data, diag);
    if (err == DU_OK) {
        size_t n = (size_t)(config->batch_seqs * config->seq_len);
        t->losses = du_alloc_array(n, sizeof *t->losses);
        t->next_targets = du_alloc_array(n, sizeof *t->next_targets);
        t->next_losses = du_alloc_array(n, sizeof *t->next_losses);
        bool good = t->losses && t->next_targets && t->next_losses;
        err = good ? DU_OK : du_fail_nomem(diag, "a micro-batch");
    }
    return err;
}

/* The losses of each sequence of the batch, where rows have targets. */
static void put_losses(const du_trainer *t, double *leaves, const double *losses,
                       const int32_t *targets) {
    int64_t n = t->batch.seq_len;
    for (int64_t i_seq = 0; i_seq < t->batch.n_seq; i_seq++) {
        double of_seq = 0;
        for (int64_t i = i_seq * n; i < (i_seq + 1) * n; i++) {
            of_seq += targets[i] >= 0 ? losses[i] : 0;
        }
        leaves[i_seq] = of_seq;
    }
}

static du_grad_rows rows_of(const du_trainer *t) {
    return (du_grad_rows){.n_seq = t->batch.n_seq,
                          .seq_len = t->batch.seq_len,
                          .tokens = t->batch.tokens,
                          .first = t->batch.first};
}

static du_cross_entropy objective_of(const du_trainer *t, double scale) {
    return (du_cross_entropy){.base.rows = du_cross_entropy_rows,
                              .targets = t->batch.targets,
                              .scale = scale,
                              .z = t->config->loss.z,
                              .smoothing = t->config->loss.label_smoothing,
                              .losses = t->losses};
}

/* The batch becomes the leaves of the next step that begin with this one. */
static du_err read_batch(du_trainer *t, int64_t leaf, du_diag *diag) {
    int64_t first = t->part.before + leaf;
    t->batch.n_seq = t->part.n_seq;
    return du_loader_read(t->data, first / t->part.n_seq, &t->batch, diag);
}

/* How many targets the step has. This rank's leaves stay in the batch where they are computed
 * together. */
static du_err count_targets(du_trainer *t, int64_t *n_targets, du_diag *diag) {
    du_err err = DU_OK;
    *n_targets = 0;
    for (int64_t i = t->part.first; i < t->part.end && err == DU_OK; i += t->part.step) {
        err = read_batch(t, i, diag);
        *n_targets += t->batch.n_targets;
    }
    err = du_ranks_agree(t->ranks, err, diag);
    err = err ? err : du_ranks_sum(t->ranks, t->ctx, n_targets, 1, diag);
    if (err == DU_OK && *n_targets == 0) {
        err = du_fail(diag, DU_EFORMAT, "step %lld: the data has no target to learn from",
                      (long long)t->step + 1);
    }
    return err;
}

/* The targets of the token behind the next, of rows whose next row is of the same document; returns
 * how many there are. */
static int64_t set_next_targets(du_trainer *t) {
    const du_loader_batch *b = &t->batch;
    int64_t n = 0, S = b->seq_len;
    for (int64_t i = 0; i < b->n_seq * S; i++) {
        bool last = i % S == S - 1 || (b->first && b->first[i + 1] != b->first[i]);
        t->next_targets[i] = last ? -1 : b->targets[i + 1];
        n += t->next_targets[i] >= 0;
    }
    return n;
}

/* Before passes and behind them: where weights are rounded for passes, the model points to those.
 */
static du_err begin_passes(du_trainer *t) {
    return t->qat.params ? du_qat_show(t->ctx, &t->qat) : DU_OK;
}

static void end_passes(du_trainer *t) {
    du_params_point(t->params, t->params->values);
}

/* The leaves of round i, as du_grad_add wants them. */
static du_leaves leaves_of_round(const du_trainer *t, int64_t i) {
    const du_trainer_part *p = &t->part;
    int64_t n = t->spread ? p->end : p->end - p->first, first = i * p->step;
    int64_t end = first + p->step < n ? first + p->step : n;
    return (du_leaves){first, end - first, end == n};
}

/* Forward and backward of this rank's leaves of a round. *n_next: adds how many of them have the
 * token behind the next for a target. */
static du_err add_round(du_trainer *t, int64_t i_round, int64_t n_targets, int64_t *n_next,
                        du_diag *diag) {
    const du_trainer_part *p = &t->part;
    double weight = t->config->mtp.weight;
    int64_t i = p->first + i_round * p->step;
    bool any = i < p->end, several = p->first + p->step < p->end;
    du_err err = any && several ? read_batch(t, i, diag) : DU_OK;
    du_cross_entropy objective = objective_of(t, 1 / (double)n_targets), next = objective;
    du_grad_rows rows = rows_of(t);
    rows.n_seq = any ? rows.n_seq : 0;
    if (weight > 0) {
        *n_next += any ? set_next_targets(t) : 0;
        next.targets = t->next_targets;
        next.losses = t->next_losses;
        next.scale = weight / (double)n_targets;
        rows.next = &next.base;
    }
    du_leaves leaves = leaves_of_round(t, i_round);
    err = err ? err : du_grad_add(t->ctx, t->grad, &rows, &objective.base, leaves, diag);
    if (err != DU_OK || !any) {
        return err; /* of what was to be measured nothing is known */
    }
    put_losses(t, t->measured[DU_LEAF_LOSS] + i, t->losses, t->batch.targets);
    if (weight > 0) {
        put_losses(t, t->measured[DU_LEAF_NEXT_LOSS] + i, t->next_losses, t->next_targets);
    }
    memcpy(t->measured[DU_LEAF_BALANCE] + i,
           du_grad_balances(t->grad) + (t->spread ? i : i - p->first),
           (size_t)p->n_seq * sizeof(double));
    return DU_OK;
}

/* The span of a term that lies in a span of all gradients, by numbers of the term. */
static du_span in_term(const du_grad_term *term, du_span of) {
    int64_t first = of.first - term->offset, end = of.end - term->offset;
    first = first < 0 ? 0 : first > term->n ? term->n : first;
    end = end < first ? first : end > term->n ? term->n : end;
    return (du_span){first, end};
}

/* Room for what waits behind so many nodes. */
static du_err take_waiting(du_trainer *t, const du_grad_parts *parts, int64_t n_nodes) {
    du_err err = du_sums_take_nodes(t->wait, t->params->n_values, n_nodes);
    for (int64_t i = 0; i < parts->n_terms && err == DU_OK; i++) {
        err = du_sums_take_nodes(t->term_wait[i], parts->terms[i].n, n_nodes);
    }
    return err;
}

/* Adds the gradients of what all ranks have, which are the next nodes of the tree; behind the last
 * ones each rank has the sums that it owns. */
static du_err sum_nodes(du_trainer *t, du_leaves nodes, du_diag *diag) {
    int64_t n = du_ranks_n(t->ranks), rank = du_ranks_rank(t->ranks);
    const du_span *owners = t->optim.common.values;
    du_grad_parts parts = du_grad_get_parts(t->grad);
    du_span *of_term = DU_SCRATCH(t->ctx, du_span, n);
    du_err err = of_term ? DU_OK : DU_ENOMEM;
    if (err == DU_OK && !nodes.last) {
        err = take_waiting(t, &parts, nodes.first + nodes.n);
    }
    err = du_ranks_agree(t->ranks, err ? du_fail_nomem(diag, "sums of ranks") : DU_OK, diag);
    err = err ? err : du_ranks_add(t->ranks, t->ctx, parts.values, owners, nodes, t->wait, diag);
    for (int64_t i = 0; i < parts.n_terms && err == DU_OK; i++) {
        const du_grad_term *term = &parts.terms[i];
        for (int64_t r = 0; r < n; r++) {
            of_term[r] = in_term(term, owners[r]);
        }
        du_span own = of_term[rank];
        err = du_ranks_add(t->ranks, t->ctx, term->values, of_term, nodes, t->term_wait[i], diag);
        if (err == DU_OK && nodes.last && own.first < own.end) {
            t->ctx->kern->add(parts.values + term->offset + own.first, term->values + own.first,
                              own.end - own.first);
        }
    }
    return err;
}

static du_err sum_gradients(du_trainer *t, du_leaves nodes, du_diag *diag) {
    if (!t->ranks) {
        return DU_OK;
    }
    du_arena_mark mark = du_arena_get_mark(t->ctx->scratch);
    du_err err = sum_nodes(t, nodes, diag);
    du_arena_release(t->ctx->scratch, mark);
    return err;
}

/* Forward and backward of this rank's leaves, and the gradients of all ranks as far as this one
 * wants them. */
static du_err add_part(du_trainer *t, int64_t n_targets, int64_t *n_next, du_diag *diag) {
    const du_trainer_part *p = &t->part;
    bool any = p->n_rounds > 0, spread = t->spread;
    t->diag = diag;
    du_err err = any ? begin_passes(t) : DU_OK;
    err = spread ? du_ranks_agree(t->ranks, err, diag) : err;
    for (int64_t i = 0; i < p->n_rounds && err == DU_OK; i++) {
        err = add_round(t, i, n_targets, n_next, diag);
        if (spread) {
            du_leaves of = leaves_of_round(t, i);
            du_leaves nodes = {of.first / p->n_seq, of.n / p->n_seq, of.last};
            err = du_ranks_agree(t->ranks, err, diag);
            err = err ? err : sum_gradients(t, nodes, diag);
        }
    }
    end_passes(t);
    if (spread) {
        return err;
    }
    err = du_ranks_agree(t->ranks, err, diag);
    return err ? err : sum_gradients(t, (du_leaves){0, p->n_ranks, true}, diag);
}

/* What is measured of leaves, to all ranks. */
static du_err share_measures(du_trainer *t, du_diag *diag) {
    int64_t n = t->spread ? t->part.n_rounds : 1;
    du_err err = DU_OK;
    for (int64_t i = 0; i < n; i++) {
        if (t->spread) {
            set_leaves(t, i, t->part.n_seq);
        }
        for (int k = 0; k < DU_LEAF_MEASURES && err == DU_OK; k++) {
            err = du_ranks_share(t->ranks, t->measured[k], sizeof(double), t->leaves, diag);
        }
    }
    return err;
}

/* What all ranks have counted and measured becomes that of the step. */
static du_err join_ranks(du_trainer *t, int64_t *n_next, du_diag *diag) {
    if (!t->ranks) {
        return DU_OK;
    }
    du_grad_parts parts = du_grad_get_parts(t->grad);
    if (t->part.n_rounds == 0) { /* they are those of the last step */
        memset(parts.counts, 0, (size_t)parts.n_counts * sizeof *parts.counts);
    }
    du_err err = du_ranks_sum(t->ranks, t->ctx, n_next, 1, diag);
    err = err ? err : du_ranks_sum(t->ranks, t->ctx, parts.counts, parts.n_counts, diag);
    return err ? err : share_measures(t, diag);
}

/* Forward and backward of all leaves. Mean losses into *loss and *mtp (NAN: none). */
static du_err add_all(du_trainer *t, int64_t n_targets, double *loss, double *mtp, du_diag *diag) {
    int64_t n = t->part.n, n_next = 0;
    du_err err = add_part(t, n_targets, &n_next, diag);
    err = err ? err : join_ranks(t, &n_next, diag);
    *loss = sum_leaves(t->measured[DU_LEAF_LOSS], n) / (double)n_targets;
    *mtp =
        n_next > 0 ? sum_leaves(t->measured[DU_LEAF_NEXT_LOSS], n) / (double)n_next : (double)NAN;
    return err;
}

/* The number of the first tensor, in the order of the table, with a value here that is not finite;
 * params->n: none. */
static int64_t find_bad(const du_params *params, const float *values) {
    int64_t k = 0;
    for (; k < params->n; k++) {
        const du_param *t = &params->at[k];
        int64_t i = t->offset, end = i + (du_params_holds(params, t) ? t->rows * t->cols : 0);
        while (i < end && isfinite(values[i])) {
            i++;
        }
        if (i < end) {
            break;
        }
    }
    return k;
}

/* The same among what all ranks have; NULL: none. */
static du_err find_bad_of_all(const du_trainer *t, const float *values, const du_param **bad,
                              du_diag *diag) {
    int64_t n = du_ranks_n(t->ranks), found = find_bad(t->params, values);
    du_arena_mark mark = du_arena_get_mark(t->ctx->scratch);
    int64_t *all = DU_SCRATCH(t->ctx, int64_t, n);
    du_span *spans = DU_SCRATCH(t->ctx, du_span, n);
    du_err err = all && spans ? DU_OK : du_fail_nomem(diag, "sums of ranks");
    err = du_ranks_agree(t->ranks, err, diag);
    for (int64_t i = 0; err == DU_OK && i < n; i++) {
        spans[i] = (du_span){i, i + 1};
        all[i] = found;
    }
    err = err ? err : du_ranks_share(t->ranks, all, sizeof *all, spans, diag);
    for (int64_t i = 0; err == DU_OK && i < n; i++) {
        found = all[i] < found ? all[i] : found;
    }
    *bad = err == DU_OK && found < t->params->n ? &t->params->at[found] : NULL;
    du_arena_release(t->ctx->scratch, mark);
    return err;
}

du_err du_trainer_check_weights(const du_trainer *t, du_diag *diag) {
    const du_param *bad;
    du_err err = find_bad_of_all(t, t->params->values, &bad, diag);
    return bad ? du_fail(diag, DU_ELIMIT, "step %lld: %s is not finite any more",
                         (long long)t->step, bad->name)
               : err;
}

static du_err fail_not_finite(du_trainer *t, double loss, double norm, du_diag *diag) {
    float *grads = du_grad_get_parts(t->grad).values;
    const du_param *bad = NULL;
    const char *what = "";
    du_err err = find_bad_of_all(t, t->params->values, &bad, diag);
    if (err == DU_OK && !bad) {
        what = "the gradient of ";
        err = du_ranks_share(t->ranks, grads, sizeof *grads, t->optim.common.values, diag);
        err = err ? err : find_bad_of_all(t, grads, &bad, diag);
    }
    return err ? err
               : du_fail(diag, DU_ELIMIT,
                         "step %lld: the loss is %g, the gradient's norm %g: %s%s %s",
                         (long long)t->step + 1, fabs(loss), fabs(norm), what,
                         bad ? bad->name : "all weights", bad ? "is not finite" : "is too large");
}

/* Experts that got more than their share of the step's tokens become less likely to be chosen, the
 * others more (DeepSeek-V3, arXiv 2412.19437, section 2.1.2). */
static void move_biases(du_trainer *t) {
    const int64_t *counts = du_grad_counts(t->grad);
    float step = (float)t->config->router.bias_step;
    for (int64_t k = 0; k < t->params->n && step > 0; k++) {
        const du_param *bias = &t->params->at[k];
        if (!bias->def->chooses) {
            continue;
        }
        float *values = t->params->values + bias->offset;
        const int64_t *count = counts + bias->layer * bias->cols;
        int64_t sum = 0;
        for (int64_t e = 0; e < bias->cols; e++) {
            sum += count[e];
        }
        for (int64_t e = 0; e < bias->cols; e++) {
            int64_t share = count[e] * bias->cols;
            values[e] += share > sum ? -step : share < sum ? step : 0;
        }
    }
}

/* Meaned over the layers that have experts. */
static double overload_of(const du_trainer *t) {
    const int64_t *counts = du_grad_counts(t->grad);
    const du_hparams *hp = &t->params->model->hp;
    double sum = 0;
    int64_t n = 0;
    for (int64_t layer = hp->n_dense_layer; counts && layer < hp->n_layer; layer++) {
        const int64_t *count = counts + layer * hp->router.n_expert;
        int64_t all = 0, most = 0;
        for (int64_t e = 0; e < hp->router.n_expert; e++) {
            all += count[e];
            most = count[e] > most ? count[e] : most;
        }
        sum += (double)most * (double)hp->router.n_expert / (double)all - 1;
        n++;
    }
    return n > 0 ? sum / (double)n : (double)NAN;
}

/* What the line of the step tells of experts; NULL: nothing. */
static const du_metrics_experts *experts_of(du_trainer *t) {
    if (t->experts.n_experts == 0 || !du_metrics_has_experts(t->step)) {
        return NULL;
    }
    t->experts.counts = du_grad_counts(t->grad);
    for (int64_t k = 0; k < t->params->n && t->biases; k++) {
        const du_param *bias = &t->params->at[k];
        if (bias->def->chooses) {
            memcpy(t->biases + bias->layer * bias->cols, t->params->values + bias->offset,
                   (size_t)bias->cols * sizeof(float));
        }
    }
    t->experts.biases = t->biases;
    return &t->experts;
}

static du_err update(du_trainer *t, double norm, double lr, du_diag *diag) {
    double longest = t->config->optim.clip;
    double clip = longest > 0 && norm > longest ? longest / norm : 1;
    du_err err = du_optim_step(t->ctx, &t->optim, du_grad_values(t->grad), t->step + 1, lr, clip);
    err = du_ranks_agree(t->ranks, err, diag);
    err = err ? err
              : du_ranks_share(t->ranks, t->params->values, sizeof(float), t->optim.common.values,
                               diag);
    if (err == DU_OK) {
        move_biases(t);
        t->step++;
    }
    return err;
}

static du_err fail_step(const du_trainer *t, du_err err, du_diag *diag) {
    return du_fail(diag, err, "step %lld: %s", (long long)t->step + 1, du_err_text(err));
}

/* What the step's time went to, and how fast it was. */
static void add_speed(const du_trainer *t, du_metrics *m, int64_t n_tokens, double seconds,
                      double products_s) {
    double operations = t->flops.forward + t->flops.backward;
    m->tok_s = (double)n_tokens / seconds;
    m->products = products_s / seconds;
    m->peak = t->peak > 0 ? m->tok_s * operations / t->peak : (double)NAN;
}

du_err du_trainer_step(du_trainer *t, du_metrics *out, du_diag *diag) {
    const du_train_config *config = t->config;
    double start = du_clock_s(), loss = 0, mtp = 0, norm = 0, products_s = 0;
    int64_t n_targets;
    set_next_part(t);
    t->ctx->products_s = &products_s;
    du_err err = count_targets(t, &n_targets, diag);
    err = err ? err : add_all(t, n_targets, &loss, &mtp, diag);
    err = err ? err : du_optim_norm(t->ctx, &t->optim, du_grad_values(t->grad), &norm, diag);
    t->ctx->products_s = NULL;
    if (err != DU_OK) {
        return fail_step(t, err, diag);
    }
    if (!isfinite(loss) || !isfinite(norm)) {
        return fail_not_finite(t, loss, norm, diag);
    }
    double lr = t->lr > 0 ? t->lr : du_schedule_lr(config, t->step + 1);
    err = update(t, norm, lr, diag);
    if (err != DU_OK) {
        return fail_step(t, err, diag);
    }
    int64_t n = t->part.n, n_tokens = n * config->seq_len;
    const double *balances = t->measured[DU_LEAF_BALANCE];
    bool balanced = config->router.seq_balance > 0;
    *out = (du_metrics){.step = t->step,
                        .loss = loss,
                        .grad_norm = norm,
                        .lr = lr,
                        .tokens = t->part.before * config->seq_len + n_tokens,
                        .balance = balanced ? sum_leaves(balances, n) : (double)NAN,
                        .overload = overload_of(t),
                        .mtp = mtp,
                        .validation = (double)NAN,
                        .experts = experts_of(t)};
    add_speed(t, out, n_tokens, du_clock_s() - start, products_s);
    return DU_OK;
}

/* The losses of each sequence of micro-batches [own.first, own.end) of the validation data, in so
 * many rounds where experts are spread. */
static du_err measure(du_trainer *t, du_span own, int64_t n_rounds, double *losses,
                      int64_t *n_targets, du_diag *diag) {
    int64_t end = t->spread ? own.first + n_rounds : own.end;
    t->batch.n_seq = t->config->batch_seqs;
    t->diag = diag;
    du_err err = own.first < end ? begin_passes(t) : DU_OK;
    err = t->spread ? du_ranks_agree(t->ranks, err, diag) : err;
    for (int64_t i = own.first; i < end && err == DU_OK; i++) {
        bool any = i < own.end;
        err = any ? du_loader_read(t->validation, i, &t->batch, diag) : DU_OK;
        du_cross_entropy objective = objective_of(t, 1);
        du_grad_rows rows = rows_of(t);
        rows.n_seq = any ? rows.n_seq : 0;
        err = err ? err : du_grad_loss(t->ctx, t->grad, &rows, &objective.base, diag);
        if (any && err == DU_OK) {
            put_losses(t, losses + i * t->batch.n_seq, t->losses, t->batch.targets);
            *n_targets += t->batch.n_targets;
        }
        err = t->spread ? du_ranks_agree(t->ranks, err, diag) : err;
    }
    end_passes(t);
    return t->spread ? err : du_ranks_agree(t->ranks, err, diag);
}

du_err du_trainer_validate(du_trainer *t, double *loss, du_diag *diag) {
    int64_t n_seq = t->config->batch_seqs, n_ranks = du_ranks_n(t->ranks), n_targets = 0;
    int64_t n = du_loader_n_tokens(t->validation) / (n_seq * t->batch.seq_len);
    int64_t wanted = t->config->validate.batches;
    n = n < 1 ? 1 : n < wanted ? n : wanted;
    du_arena_mark mark = du_arena_get_mark(t->ctx->scratch);
    double *losses = DU_SCRATCH(t->ctx, double, n *n_seq);
    du_span *spans = DU_SCRATCH(t->ctx, du_span, n_ranks);
    du_err err = losses && spans ? DU_OK : du_fail_nomem(diag, "the validation loss");
    err = du_ranks_agree(t->ranks, err, diag);
    if (err == DU_OK) {
        for (int64_t i = 0; i < n_ranks; i++) {
            spans[i] = (du_span){n * i / n_ranks, n * (i + 1) / n_ranks};
        }
        int64_t n_rounds = (n + n_ranks - 1) / n_ranks; /* the longest span */
        err = measure(t, spans[du_ranks_rank(t->ranks)], n_rounds, losses, &n_targets, diag);
    }
    err = err ? err : du_ranks_sum(t->ranks, t->ctx, &n_targets, 1, diag);
    size_t item_bytes = (size_t)n_seq * sizeof *losses;
    err = err ? err : du_ranks_share(t->ranks, losses, item_bytes, spans, diag);
    *loss = err == DU_OK ? sum_leaves(losses, n * n_seq) / (double)n_targets : (double)NAN;
    du_arena_release(t->ctx->scratch, mark);
    return err;
}
