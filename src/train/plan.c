#include "train/plan.h"

#include "base/cpu.h"
#include "base/str.h"
#include "train/optim.h"
#include "train/qat.h"

/* A token's share of what a step reads and writes at least. */
static double bytes_of_token(const du_train_plan *p, const du_train_config *config) {
    double micro = (double)p->weights * 3 + 2 * (double)p->levels[config->recompute].kept;
    double update = (double)(2 * p->weights + p->gradients + 2 * p->moments + 2 * p->mean);
    return (micro * (double)config->accumulate + update) / (double)p->step_tokens;
}

static int64_t active_of(const du_params *params) {
    const du_hparams *hp = &params->model->hp;
    int64_t n = 0;
    for (int64_t i = 0; i < params->n; i++) {
        const du_param *t = &params->at[i];
        bool lookup = t->def->role == DU_ROLE_EMBED && !hp->tied;
        n += t->expert >= hp->router.n_used ? 0 : lookup ? t->cols : t->rows * t->cols;
    }
    return n;
}

static du_err measure_levels(du_train_plan *p, const du_ctx *ctx, const du_train_config *config,
                             const du_params *params, const du_train_share *share,
                             const du_optim_memory *optim, du_diag *diag) {
    du_spread_link link = {.i = share->n_ranks - 1, .n = share->n_ranks};
    size_t blocks = p->weights + p->gradients + p->moments + p->mean + p->rounded;
    du_err err = DU_OK;
    for (int i = 0; i < DU_PLAN_LEVELS && err == DU_OK; i++) {
        du_grad_params how = {.bf16 = config->dtype == DU_TRAIN_BF16,
                              .keep = (du_grad_keep)i,
                              .apart = share->n_ranks > 1,
                              .spread = du_params_is_spread(params) ? &link : NULL};
        du_grad_memory m;
        err = du_grad_measure(&m, ctx, params, &how, share->n_seq, config->seq_len, share->n_micro,
                              diag);
        if (err == DU_OK) {
            m.scratch = m.scratch > optim->scratch ? m.scratch : optim->scratch;
            p->levels[i].nodes = m.nodes;
            p->levels[i].kept = m.kept;
            p->levels[i].scratch = m.scratch;
            p->levels[i].logits = m.logits;
            p->levels[i].total = blocks + m.nodes + m.kept + m.scratch;
        }
    }
    return err;
}

du_err du_train_plan_make(du_train_plan *out, const du_ctx *ctx, const du_train_config *config,
                          const json_t *shape, const du_train_share *share, du_diag *diag) {
    du_train_share all = {1, 1, config->batch_seqs, config->accumulate};
    du_params *params = NULL;
    share = share ? share : &all;
    du_err err = du_params_new(&params, shape, diag);
    if (err != DU_OK) {
        return err;
    }
    if (config->ranks.experts == DU_EXPERTS_SPREAD) {
        du_params_spread(params, share->n_ranks - 1, share->n_ranks); /* no process has more */
    }
    du_optim_memory optim = du_optim_measure(ctx->kern, config, params, share->n_ranks);
    size_t block = (size_t)du_params_n_here(params) * sizeof(float);
    *out = (du_train_plan){.n_weights = params->n_weights,
                           .n_active = active_of(params),
                           .step_tokens = config->accumulate * config->batch_seqs * config->seq_len,
                           .weights = block,
                           .gradients = block,
                           .moments = optim.moments,
                           .mean = optim.mean,
                           .rounded = *config->qat.type ? block : 0,
                           .available = (size_t)(du_mem_available_bytes() / share->n_here)};
    out->rule_flops = 6 * (double)out->n_active;
    out->flops = du_grad_count(params, (du_grad_keep)config->recompute, config->seq_len);
    err = measure_levels(out, ctx, config, params, share, &optim, diag);
    out->token_bytes = err ? 0 : bytes_of_token(out, config);
    du_params_free(params);
    return err;
}

static double mb(size_t bytes) {
    return (double)bytes * 1e-6;
}

du_err du_train_plan_check(const du_train_plan *p, const du_train_config *config, du_diag *diag) {
    static const char *const names[] = {"none", "cheap", "layer"};
    size_t need = p->levels[config->recompute].total;
    if (p->available == 0 || need <= p->available) {
        return DU_OK;
    }
    du_str keys = {0};
    for (int i = config->recompute + 1; i < DU_PLAN_LEVELS; i++) {
        if (p->levels[i].total <= p->available) {
            du_str_addf(&keys, "recompute = %s needs %.0f MB; ", names[i], mb(p->levels[i].total));
            break;
        }
    }
    size_t rest = need - p->levels[config->recompute].kept - p->levels[config->recompute].scratch;
    if (rest > p->available) {
        du_str_addf(&keys,
                    "weights and what goes with them need %.0f MB of it: a smaller model.*, "
                    "%soptim.name = sgd",
                    mb(rest), config->ema.decay > 0 ? "ema.decay = 0, " : "");
    } else {
        du_str_add_s(&keys, "less batch_seqs with more accumulate, or less seq_len, keeps less");
    }
    du_err err = du_fail(diag, DU_ENOMEM, "the run needs %.0f MB and %.0f MB are free: %s",
                         mb(need), mb(p->available), du_str_get(&keys));
    du_str_done(&keys);
    return err;
}
