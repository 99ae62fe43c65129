#include "train/plan.h"

#include "base/cpu.h"
#include "base/str.h"
#include "model/lora.h"
#include "train/batch_split.h"
#include "train/optim.h"
#include "train/qat.h"
#include "train/trainable.h"

/* A token's share of what a step of the process reads and writes at least. */
static double bytes_of_token(const du_train_plan *p, const du_train_config *config) {
    double frozen = (double)(p->mapped + p->frozen);
    double micro = (double)(3 * p->weights + 2 * p->levels[config->recompute].kept) + 2 * frozen;
    double update = (double)(2 * p->weights + p->gradients + 2 * p->moments + 2 * p->mean);
    int64_t n_tokens = p->share.n_micro * p->share.n_seq * config->seq_len;
    return (micro * (double)p->share.n_micro + update) / (double)n_tokens;
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

/* scratch: of what is no pass */
static du_err measure_levels(du_train_plan *p, const du_ctx *ctx, const du_train_config *config,
                             const du_params *params, size_t scratch, size_t *terms,
                             du_diag *diag) {
    const du_train_share *share = &p->share;
    du_spread_link link = {.i = share->n_ranks - 1, .n = share->n_ranks};
    size_t blocks = p->weights + p->gradients + p->moments + p->mean + p->rounded + p->frozen;
    du_err err = DU_OK;
    for (int i = 0; i < DU_PLAN_LEVELS && err == DU_OK; i++) {
        du_grad_params how = {.bf16 = config->dtype == DU_TRAIN_BF16,
                              .keep = (du_grad_keep)i,
                              .apart = share->n_ranks > 1,
                              .spread = du_params_is_spread(params) ? &link : NULL};
        du_grad_memory m;
        err = du_grad_measure(&m, ctx, params, &how, share->n_seq_max, config->seq_len,
                              share->n_micro_max, diag);
        if (err == DU_OK) {
            *terms = m.terms;
            m.scratch = m.scratch > scratch ? m.scratch : scratch;
            p->levels[i].nodes = m.nodes;
            p->levels[i].kept = m.kept;
            p->levels[i].scratch = m.scratch;
            p->levels[i].logits = m.logits;
            p->levels[i].total = blocks + m.nodes + m.kept + m.scratch;
        }
    }
    return err;
}

/* The other processes that a token's experts are at, where experts are chosen equally often. */
static double others_of_token(const du_router *r, int64_t n_ranks) {
    double E = (double)r->n_expert, own = E / (double)n_ranks, none = 1;
    for (int64_t k = 0; k < r->n_used; k++) {
        double left = E - own - (double)k;
        none *= left > 0 ? left / (E - (double)k) : 0;
    }
    return (double)(n_ranks - 1) * (1 - none);
}

/* Between experts (spread_fwd and spread_bwd in nn/moe_train.c), for a token in one layer. */
static double bytes_of_experts(const du_hparams *hp, int64_t n_ranks, double n_fwd) {
    const du_router *r = &hp->router;
    double rows = others_of_token(r, n_ranks), D = (double)hp->d_model;
    double slots = (double)r->n_used * (double)(n_ranks - 1) / (double)n_ranks;
    double find = slots + rows, fwd = find + rows * D + slots * D;
    double bwd = find + 2 * rows * D + slots * (2 + D);
    return sizeof(float) * (n_fwd * fwd + bwd);
}

/* What the process sends to others in a step: sums of gradients to their owners, its own weights to
 * all, and between experts rows.
 * terms  bytes of what is added to gradients of the embedding, which one rank owns as a rule */
static double bytes_sent(const du_train_plan *p, const du_train_config *config,
                         const du_params *params, size_t terms) {
    const du_train_share *s = &p->share;
    const du_hparams *hp = &params->model->hp;
    double others = (double)(s->n_ranks - 1) / (double)s->n_ranks;
    if (!du_params_is_spread(params)) {
        return others * (double)(p->gradients + p->weights) + (double)terms;
    }
    double common = (double)params->n_common * sizeof(float), n_micro = (double)s->n_micro;
    double n_layers = (double)(hp->n_layer + params->n_nextn - hp->n_dense_layer);
    bool again = config->recompute == DU_RECOMPUTE_LAYER; /* all but the last one */
    double n_fwd = again ? 2 - 1 / n_layers : 1;
    double of_token = n_layers * bytes_of_experts(hp, s->n_ranks, n_fwd);
    return n_micro *
               (others * common + (double)terms + of_token * (double)(s->n_seq * config->seq_len)) +
           others * common;
}

typedef struct {
    const du_arena *arena; /* of what is not in files */
    size_t bytes;
} mapped;

static bool add_mapped(void *user, const du_weight_def *def, int64_t layer, du_mat *w) {
    (void)def;
    (void)layer;
    mapped *m = user;
    m->bytes += du_arena_holds(m->arena, w->data) ? 0 : (size_t)w->rows * w->row_bytes;
    return true;
}

static void count_frozen(du_train_plan *p, const du_params *params) {
    du_model_counts counts = du_model_count(params->model);
    p->n_weights += counts.n_params;
    p->n_active += counts.n_params_active;
    p->rule_flops += 4 * (double)counts.n_params_active;
    mapped m = {params->model->arena, 0};
    (void)du_lora_each_matrix(params, add_mapped, &m);
    p->frozen = du_arena_bytes(m.arena);
    p->mapped = m.bytes;
}

/* What the weights that are trained take, and what the optimizer keeps of them. */
static du_train_plan count_trained(const du_train_config *config, const du_params *params,
                                   const du_train_share *share) {
    size_t block = (size_t)du_params_n_here(params) * sizeof(float);
    int64_t n_active = active_of(params);
    return (du_train_plan){.share = *share,
                           .n_weights = params->n_weights,
                           .n_trained = params->n_weights,
                           .n_active = n_active,
                           .rule_flops = 6 * (double)n_active,
                           .step_tokens = config->accumulate * config->batch_seqs * config->seq_len,
                           .weights = block,
                           .gradients = block,
                           .available = (size_t)(du_mem_available_bytes() / share->n_here)};
}

/* What the rank has that has most: the first one leaves, the last one experts. */
static du_err take_share(du_train_share *share, const du_train_config *config, du_params *params,
                         du_ranks *ranks, du_diag *diag) {
    int64_t n = du_ranks_n(ranks);
    du_batch_split split;
    du_err err = du_batch_split_init(&split, config, ranks, diag);
    err = err ? err : du_trainable_check(params, config, split.spread ? n : 0, diag);
    if (err == DU_OK) {
        du_span most = du_batch_split_spans(&split, 0)[0];
        *share = (du_train_share){.n_ranks = n,
                                  .n_here = ranks ? ranks->link.n_here : 1,
                                  .n_seq = split.n_seq,
                                  .n_micro = split.spread ? split.n_rounds
                                                          : (most.end - most.first) / split.n_seq,
                                  .n_seq_max = split.n_seq_max,
                                  .n_micro_max = split.n_rounds_max};
    }
    if (err == DU_OK && split.spread) {
        du_params_spread(params, n - 1, n);
    }
    du_batch_split_done(&split);
    return err;
}

du_err du_train_plan_make(du_train_plan *out, const du_ctx *ctx, const du_train_config *config,
                          du_params *params, du_ranks *ranks, du_diag *diag) {
    du_train_share share;
    du_err err = take_share(&share, config, params, ranks, diag);
    if (err != DU_OK) {
        return err;
    }
    du_optim_memory optim = du_optim_measure(ctx->kern, config, params, share.n_ranks);
    du_train_plan p = count_trained(config, params, &share);
    p.moments = optim.moments;
    p.mean = optim.mean;
    if (params->adapters) {
        count_frozen(&p, params);
    }
    du_qat qat = {0};
    size_t scratch = optim.scratch, terms = 0;
    if (*config->qat.type) {
        err = du_qat_init(&qat, config->qat.type, params, diag);
    }
    if (err == DU_OK && qat.params) {
        du_qat_memory rounding = du_qat_measure(&qat, du_pool_n_threads(ctx->pool));
        p.rounded = rounding.rounded;
        scratch = scratch > rounding.scratch ? scratch : rounding.scratch;
    }
    if (err == DU_OK) {
        p.flops = du_grad_count(params, (du_grad_keep)config->recompute, config->seq_len);
        err = measure_levels(&p, ctx, config, params, scratch, &terms, diag);
    }
    du_qat_done(&qat);
    if (err == DU_OK) {
        p.token_bytes = bytes_of_token(&p, config);
        p.sent_bytes = bytes_sent(&p, config, params, terms);
        *out = p;
    }
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
        du_str_addf(&keys, "weights and what goes with them need %.0f MB of it: a smaller %s, %s%s",
                    mb(rest), config->lora.rank > 0 ? "lora.rank" : "model.*",
                    config->ema.decay > 0 ? "ema.decay = 0, " : "", "optim.name = sgd");
    } else {
        du_str_add_s(&keys, "less batch_seqs with more accumulate, or less seq_len, keeps less");
    }
    int64_t n = p->share.n_here;
    du_err err =
        n > 1 ? du_fail(diag, DU_ENOMEM,
                        "the run needs %.0f MB in each of %lld processes on this machine, "
                        "%.0f MB in all, and %.0f MB are free: %s%s",
                        mb(need), (long long)n, mb(need) * (double)n, mb(p->available) * (double)n,
                        du_str_get(&keys), "; fewer processes here need less")
              : du_fail(diag, DU_ENOMEM, "the run needs %.0f MB and %.0f MB are free: %s", mb(need),
                        mb(p->available), du_str_get(&keys));
    du_str_done(&keys);
    return err;
}
