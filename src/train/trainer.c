/* Steps of training: the plan of memory, the passes, the update. Ranks have the same weights; each
 * computes the gradients of its part of a step's sequences, updates the values that it owns, and
 * gives them to the others. */
#include "train/trainer.h"

#include <math.h>

#include "base/clock.h"
#include "train/plan.h"
#include "train/schedule.h"
#include "train/trainable.h"

/* Refuses what does not fit, and takes scratch as one piece, so that none of it is lost between
 * pieces. */
static du_err take_room(du_trainer *t, du_diag *diag) {
    const du_train_config *config = t->config;
    du_train_plan plan;
    du_err err = du_train_plan_make(&plan, t->ctx, config, t->params, t->ranks, diag);
    err = err ? err : du_train_plan_check(&plan, config, diag);
    du_arena_mark mark = du_arena_get_mark(t->ctx->scratch);
    if (err == DU_OK && !DU_SCRATCH(t->ctx, char, plan.levels[config->recompute].scratch)) {
        err = du_fail_nomem(diag, "activations");
    }
    du_arena_release(t->ctx->scratch, mark);
    return err;
}

du_err du_trainer_of(du_trainer **out, du_ctx *ctx, const du_train_config *config,
                     du_params *params, du_ranks *ranks, du_diag *diag) {
    du_trainer *t = du_alloc_zero(1, sizeof *t);
    if (!t) {
        du_params_free(params);
        return du_fail_nomem(diag, "the trainer");
    }
    *t = (du_trainer){.config = config, .ctx = ctx, .ranks = ranks, .params = params};
    du_err err = du_batch_split_init(&t->split, config, ranks, diag);
    err = err ? err : take_room(t, diag);
    if (err == DU_OK && t->split.spread) {
        du_params_spread(t->params, du_ranks_rank(ranks), du_ranks_n(ranks));
    }
    err = err ? err : du_optim_init(&t->optim, config, t->params, ranks, diag);
    err = err ? err : du_passes_init(&t->passes, ctx, t->params, &t->split, &t->optim, diag);
    if (err == DU_OK) {
        int64_t n_counts = du_grad_get_parts(t->passes.grad).n_counts;
        err = du_expert_load_init(&t->load, t->params, n_counts, diag);
    }
    if (err != DU_OK) {
        du_trainer_free(t);
        return err;
    }
    t->flops = du_grad_count(t->params, (du_grad_keep)config->recompute, config->seq_len);
    *out = t;
    return DU_OK;
}

du_err du_trainer_new(du_trainer **out, du_ctx *ctx, const du_train_config *config,
                      const json_t *shape, du_ranks *ranks, du_diag *diag) {
    du_params *params = NULL;
    du_err err = du_trainable_new(&params, config, shape, diag);
    return err ? err : du_trainer_of(out, ctx, config, params, ranks, diag);
}

void du_trainer_free(du_trainer *t) {
    if (!t) {
        return;
    }
    du_expert_load_done(&t->load);
    du_passes_done(&t->passes);
    du_optim_done(&t->optim);
    du_params_free(t->params);
    du_batch_split_done(&t->split);
    du_free(t);
}

du_err du_trainer_begin(du_trainer *t, du_diag *diag) {
    du_err err = du_trainable_begin(t->params, t->config, diag);
    if (err == DU_OK) {
        du_optim_begin(&t->optim);
    }
    return err;
}

du_err du_trainer_open_data(du_trainer *t, du_diag *diag) {
    return du_passes_open(&t->passes, diag);
}

/* The split of the next step. */
static void set_split(du_trainer *t) {
    const du_train_config *config = t->config;
    int64_t step = t->step + 1, n_seq = config->batch_seqs;
    if (t->lr > 0) { /* without schedules */
        du_batch_split_set(&t->split, t->step * t->split.n_max, t->split.n_max);
    } else {
        du_batch_split_set(&t->split, du_schedule_micros_before(config, step) * n_seq,
                           du_schedule_micros(config, step) * n_seq);
    }
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

/* The first one among what all ranks have; NULL: none. */
static du_err find_bad_of_all(const du_trainer *t, const float *values, const du_param **bad,
                              du_diag *diag) {
    int64_t found = find_bad(t->params, values);
    du_err err = du_ranks_min(t->ranks, &found, diag);
    *bad = err == DU_OK && found < t->params->n ? &t->params->at[found] : NULL;
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
    float *grads = du_grad_get_parts(t->passes.grad).values;
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

static du_err update(du_trainer *t, double norm, double lr, du_diag *diag) {
    double longest = t->config->optim.clip;
    double clip = longest > 0 && norm > longest ? longest / norm : 1;
    du_expert_load_balance(t->params, du_grad_counts(t->passes.grad), t->config->router.bias_step);
    du_err err =
        du_optim_step(t->ctx, &t->optim, du_grad_values(t->passes.grad), t->step + 1, lr, clip);
    err = du_ranks_agree(t->ranks, err, diag);
    err = err ? err
              : du_ranks_share(t->ranks, t->params->values, sizeof(float), t->optim.common.values,
                               diag);
    if (err == DU_OK) {
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

/* How many targets the step has: at least one. */
static du_err count_targets(du_trainer *t, int64_t *n, du_diag *diag) {
    du_err err = du_passes_count(&t->passes, n, diag);
    return err || *n > 0
               ? err
               : du_fail(diag, DU_EFORMAT, "step %lld: the data has no target to learn from",
                         (long long)t->step + 1);
}

du_err du_trainer_step(du_trainer *t, du_metrics *out, du_diag *diag) {
    const du_train_config *config = t->config;
    double start = du_clock_s(), products_s = 0;
    du_metrics m = {.validation = (double)NAN};
    int64_t n_targets;
    set_split(t);
    t->ctx->products_s = &products_s;
    du_err err = count_targets(t, &n_targets, diag);
    err = err ? err : du_passes_run(&t->passes, n_targets, &m, diag);
    const float *grads = du_grad_values(t->passes.grad);
    err = err ? err : du_optim_norm(t->ctx, &t->optim, grads, &m.grad_norm, diag);
    t->ctx->products_s = NULL;
    if (err != DU_OK) {
        return fail_step(t, err, diag);
    }
    if (!isfinite(m.loss) || !isfinite(m.grad_norm)) {
        return fail_not_finite(t, m.loss, m.grad_norm, diag);
    }
    m.lr = t->lr > 0 ? t->lr : du_schedule_lr(config, t->step + 1);
    err = update(t, m.grad_norm, m.lr, diag);
    if (err != DU_OK) {
        return fail_step(t, err, diag);
    }
    const int64_t *counts = du_grad_counts(t->passes.grad);
    int64_t n_tokens = t->split.n * config->seq_len;
    m.step = t->step;
    m.tokens = t->split.before * config->seq_len + n_tokens;
    m.overload = du_expert_load_overload(t->params, counts);
    m.experts = du_expert_load_tell(&t->load, t->params, counts, t->step);
    add_speed(t, &m, n_tokens, du_clock_s() - start, products_s);
    *out = m;
    return DU_OK;
}

du_err du_trainer_validate(du_trainer *t, double *loss, du_diag *diag) {
    return du_passes_validate(&t->passes, loss, diag);
}
