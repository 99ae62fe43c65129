/* Steps of training.
 *
 * A step's sequences are leaves, numbered over its micro-batches; what is summed over them - the
 * gradients in model/grad, losses here - is summed in the tree of
 * nn/leaves.h, so the same sequences give the same bits however they are spread over micro-batches.
 * The number of targets, by which losses are divided, must be known before the first gradient; so
 * the data of a step are read twice when it has several micro-batches. */
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "model/convert.h"
#include "model/lora.h"
#include "train/schedule.h"

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

/* Keys that need what the model, or dure, has not. */
static du_err check_keys(const du_trainer *t, du_diag *diag) {
    const du_train_config *config = t->config;
    const du_hparams *hp = &t->params->model->hp;
    if (config->mtp.weight > 0 && du_model_n_nextn(t->params->model) == 0) {
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
                          .n_leaves = config->accumulate * config->batch_seqs};
    return du_grad_new(&t->grad, t->params, &how, diag);
}

static bool is_target(const void *user, const char *module) {
    return du_lora_is_target(user, module);
}

/* The adapters of init's model, which stays in its files. */
static du_err make_adapters(du_trainer *t, du_diag *diag) {
    const du_train_config *config = t->config;
    double alpha = du_train_config_lora_alpha(config);
    du_lora lora = {config->lora.rank, alpha / (double)config->lora.rank, is_target,
                    config->lora.targets};
    du_model *model = NULL;
    du_err err = du_model_open(&model, config->init, diag);
    if (err == DU_OK && (err = du_lora_check_targets(config->lora.targets, model, diag)) != DU_OK) {
        du_model_close(model);
        return err;
    }
    return err ? err : du_lora_new(&t->params, model, &lora, diag);
}

du_err du_trainer_new(du_trainer **out, du_ctx *ctx, const du_train_config *config,
                      const json_t *shape, du_diag *diag) {
    du_trainer *t = du_alloc_zero(1, sizeof *t);
    if (!t) {
        return du_fail_nomem(diag, "the trainer");
    }
    *t = (du_trainer){.config = config, .ctx = ctx};
    du_err err =
        config->lora.rank > 0 ? make_adapters(t, diag) : du_params_new(&t->params, shape, diag);
    err = err ? err : check_keys(t, diag);
    err = err ? err : du_optim_init(&t->optim, config, t->params, diag);
    err = err ? err : make_grad(t, diag);
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

void du_trainer_free(du_trainer *t) {
    if (!t) {
        return;
    }
    du_grad_free(t->grad);
    du_optim_done(&t->optim);
    du_qat_done(&t->qat);
    du_params_free(t->params);
    du_loader_close(t->data);
    du_loader_close(t->validation);
    du_loader_batch_done(&t->batch);
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
    if (err == DU_OK && t->optim.mean) {
        memcpy(t->optim.mean, t->params->values, (size_t)t->params->n_values * sizeof(float));
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
    du_loader_params params = {.tokens = shards ? NULL : path,
                               .shards = shards ? path : NULL,
                               .validation = validation,
                               .token_bytes = config->data.token_bytes,
                               .n_vocab = t->params->model->hp.n_vocab,
                               .seq_len = config->seq_len,
                               .batch_seqs = config->batch_seqs,
                               .shuffled = shuffled,
                               .seed = (uint64_t)config->seed};
    return du_loader_open(out, &params, diag);
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

/* Adds the losses of each sequence of the batch, where rows have targets. */
static void add_losses(const du_trainer *t, du_leaf_sum *sum, const double *losses,
                       const int32_t *targets) {
    int64_t n = t->batch.seq_len;
    for (int64_t i_seq = 0; i_seq < t->batch.n_seq; i_seq++) {
        double of_seq = 0;
        for (int64_t i = i_seq * n; i < (i_seq + 1) * n; i++) {
            of_seq += targets[i] >= 0 ? losses[i] : 0;
        }
        du_leaf_sum_add(sum, of_seq);
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

/* Micro-batch i of the next step. */
static du_err read_batch(du_trainer *t, int64_t i, du_diag *diag) {
    return du_loader_read(t->data, t->step * t->config->accumulate + i, &t->batch, diag);
}

/* How many targets the step has. A single micro-batch is left in the batch. */
static du_err count_targets(du_trainer *t, int64_t *n_targets, du_diag *diag) {
    du_err err = DU_OK;
    *n_targets = 0;
    for (int64_t i = 0; i < t->config->accumulate && err == DU_OK; i++) {
        err = read_batch(t, i, diag);
        *n_targets += t->batch.n_targets;
    }
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
    return t->qat.shown ? du_qat_show(t->ctx, &t->qat) : DU_OK;
}

static void end_passes(du_trainer *t) {
    du_params_point(t->params, t->params->values);
}

/* Forward and backward of all micro-batches. Mean losses into *loss and *mtp (NAN: none). */
static du_err add_all(du_trainer *t, int64_t n_targets, double *loss, double *mtp, du_diag *diag) {
    int64_t accumulate = t->config->accumulate, n_seq = t->batch.n_seq, n_next = 0;
    double weight = t->config->mtp.weight;
    du_leaf_sum sum = {0}, next_sum = {0};
    du_err err = begin_passes(t);
    for (int64_t i = 0; i < accumulate && err == DU_OK; i++) {
        err = accumulate > 1 ? read_batch(t, i, diag) : DU_OK;
        du_cross_entropy objective = objective_of(t, 1 / (double)n_targets);
        du_leaves leaves = {.first = i * n_seq, .n = n_seq, .last = i == accumulate - 1};
        du_cross_entropy next = objective;
        du_grad_rows rows = rows_of(t);
        if (weight > 0) {
            n_next += set_next_targets(t);
            next.targets = t->next_targets;
            next.losses = t->next_losses;
            next.scale = weight / (double)n_targets;
            rows.next = &next.base;
        }
        err = err ? err : du_grad_add(t->ctx, t->grad, &rows, &objective.base, leaves, diag);
        add_losses(t, &sum, t->losses, t->batch.targets);
        if (weight > 0) {
            add_losses(t, &next_sum, t->next_losses, t->next_targets);
        }
    }
    end_passes(t);
    *loss = du_leaf_sum_get(&sum) / (double)n_targets;
    *mtp = weight > 0 && n_next > 0 ? du_leaf_sum_get(&next_sum) / (double)n_next : (double)NAN;
    return err;
}

/* The first tensor, in the order of the table, with a value that is not finite; NULL: none. */
static const du_param *find_bad(const du_params *params, const float *values) {
    for (int64_t k = 0; k < params->n; k++) {
        const du_param *t = &params->at[k];
        for (int64_t i = t->offset; i < t->offset + t->rows * t->cols; i++) {
            if (!isfinite(values[i])) {
                return t;
            }
        }
    }
    return NULL;
}

du_err du_trainer_check_weights(const du_trainer *t, du_diag *diag) {
    const du_param *bad = find_bad(t->params, t->params->values);
    return bad ? du_fail(diag, DU_ELIMIT, "step %lld: %s is not finite any more",
                         (long long)t->step, bad->name)
               : DU_OK;
}

static du_err fail_not_finite(const du_trainer *t, double loss, double norm, du_diag *diag) {
    const du_param *bad = find_bad(t->params, t->params->values);
    const char *what = bad ? "" : "the gradient of ";
    bad = bad ? bad : find_bad(t->params, du_grad_values(t->grad));
    return du_fail(diag, DU_ELIMIT, "step %lld: the loss is %g, the gradient's norm %g: %s%s %s",
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

static du_err update(du_trainer *t, double norm, double lr) {
    double longest = t->config->optim.clip;
    double clip = longest > 0 && norm > longest ? longest / norm : 1;
    du_err err = du_optim_step(t->ctx, &t->optim, du_grad_values(t->grad), t->step + 1, lr, clip);
    if (err == DU_OK) {
        move_biases(t);
        t->step++;
    }
    return err;
}

static du_err fail_step(const du_trainer *t, du_err err, du_diag *diag) {
    return du_fail(diag, err, "step %lld: %s", (long long)t->step + 1, du_err_text(err));
}

du_err du_trainer_step(du_trainer *t, du_metrics *out, du_diag *diag) {
    const du_train_config *config = t->config;
    double start = du_clock_s(), loss = 0, mtp = 0, norm = 0;
    int64_t n_targets;
    du_err err = count_targets(t, &n_targets, diag);
    err = err ? err : add_all(t, n_targets, &loss, &mtp, diag);
    err = err ? err : du_optim_norm(t->ctx, t->params, du_grad_values(t->grad), &norm);
    if (err != DU_OK) {
        return fail_step(t, err, diag);
    }
    if (!isfinite(loss) || !isfinite(norm)) {
        return fail_not_finite(t, loss, norm, diag);
    }
    double lr = du_schedule_lr(config, t->step + 1);
    err = update(t, norm, lr);
    if (err != DU_OK) {
        return fail_step(t, err, diag);
    }
    int64_t n_tokens = config->accumulate * config->batch_seqs * config->seq_len;
    bool balanced = config->router.seq_balance > 0;
    *out = (du_metrics){.step = t->step,
                        .loss = loss,
                        .grad_norm = norm,
                        .lr = lr,
                        .tokens = t->step * n_tokens,
                        .tok_s = (double)n_tokens / (du_clock_s() - start),
                        .balance = balanced ? du_grad_balance(t->grad) : (double)NAN,
                        .overload = overload_of(t),
                        .mtp = mtp,
                        .validation = (double)NAN};
    return DU_OK;
}

du_err du_trainer_validate(du_trainer *t, double *loss, du_diag *diag) {
    int64_t n = du_loader_n_tokens(t->validation) / (t->batch.n_seq * t->batch.seq_len);
    int64_t wanted = t->config->validate.batches, n_targets = 0;
    n = n < 1 ? 1 : n < wanted ? n : wanted;
    du_leaf_sum sum = {0};
    du_err err = begin_passes(t);
    for (int64_t i = 0; i < n && err == DU_OK; i++) {
        err = du_loader_read(t->validation, i, &t->batch, diag);
        du_cross_entropy objective = objective_of(t, 1);
        du_grad_rows rows = rows_of(t);
        err = err ? err : du_grad_loss(t->ctx, t->grad, &rows, &objective.base, diag);
        add_losses(t, &sum, t->losses, t->batch.targets);
        n_targets += t->batch.n_targets;
    }
    end_passes(t);
    *loss = du_leaf_sum_get(&sum) / (double)n_targets;
    return err;
}
