/* How fast a run will be. Whole passes and updates are timed, of the model or, where a pass takes
 * longer, of a slice of it: the same shape with fewer layers, dense and with experts, and fewer
 * sequences. Two slices tell what a further layer costs apart from what lies outside the layers;
 * layers that are left out are counted by their operations. */
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/rng.h"
#include "train/optim.h"
#include "train/plan.h"
#include "train/qat.h"
#include "train/schedule.h"

static const double small_s = 0.2, large_s = 0.5; /* of a pass of the slices */
enum { N_PASSES = 3 };

/* A slice, and what it took. */
typedef struct {
    int64_t n_layer, n_dense, n_seq;
    double pass_s, update_s; /* update_s: also of rounding, with qat.type */
    double flops;            /* of the pass */
    int64_t n_values;
} slice;

typedef struct {
    du_ctx *ctx;
    const du_train_config *config;
    const json_t *shape;
    int64_t n_layer, n_dense, n_min; /* of the model; n_min: one layer of each kind */
    bool experts;
} probe;

static void set(json_t *shape, const char *key, int64_t v, bool *failed) {
    *failed = *failed || json_object_set_new(shape, key, json_integer(v)) != 0;
}

static du_err make_params(du_params **out, const probe *p, const slice *s, du_diag *diag) {
    json_t *shape = json_deep_copy(p->shape);
    bool failed = !shape;
    set(shape, "num_hidden_layers", s->n_layer, &failed);
    if (p->experts) {
        set(shape, "first_k_dense_replace", s->n_dense, &failed);
    }
    du_err err = failed ? du_fail_nomem(diag, "the probe") : du_params_new(out, shape, diag);
    json_decref(shape);
    return err;
}

/* A micro-batch of random tokens. */
typedef struct {
    int32_t *tokens, *targets; /* [T] */
    double *losses;            /* [T] */
    du_grad_rows rows;
    du_cross_entropy objective, next;
} batch;

static du_err make_batch(batch *b, const probe *p, const du_params *params, int64_t n_seq,
                         du_diag *diag) {
    int64_t T = n_seq * p->config->seq_len;
    du_rng rng;
    du_rng_init(&rng, 1);
    *b = (batch){.tokens = du_alloc_array((size_t)T, sizeof *b->tokens),
                 .targets = du_alloc_array((size_t)T, sizeof *b->targets),
                 .losses = du_alloc_array((size_t)T, sizeof *b->losses)};
    if (!b->tokens || !b->targets || !b->losses) {
        return du_fail_nomem(diag, "the probe");
    }
    for (int64_t t = 0; t < T; t++) {
        b->tokens[t] = (int32_t)du_rng_below(&rng, (uint64_t)params->model->hp.n_vocab);
        b->targets[t] = t % p->config->seq_len == p->config->seq_len - 1 ? -1 : b->tokens[t];
    }
    b->objective = (du_cross_entropy){.base.rows = du_cross_entropy_rows,
                                      .targets = b->targets,
                                      .scale = 1 / (double)T,
                                      .losses = b->losses};
    b->next = b->objective;
    b->rows = (du_grad_rows){.n_seq = n_seq, .seq_len = p->config->seq_len, .tokens = b->tokens};
    if (du_model_n_nextn(params->model) > 0) {
        b->rows.next = &b->next.base;
    }
    return DU_OK;
}

static void batch_done(batch *b) {
    du_free(b->tokens);
    du_free(b->targets);
    du_free(b->losses);
}

/* The least of a few, the first of which makes the pages. */
static du_err time_passes(const probe *p, slice *s, du_grad *grad, batch *b, du_diag *diag) {
    du_err err = DU_OK;
    for (int i = 0; i <= N_PASSES && err == DU_OK; i++) {
        double start = du_clock_s();
        du_leaves leaves = {0, s->n_seq, true};
        err = du_grad_add(p->ctx, grad, &b->rows, &b->objective.base, leaves, diag);
        double took = du_clock_s() - start;
        s->pass_s = i <= 1 || took < s->pass_s ? took : s->pass_s;
        if (i > 0 && took * (N_PASSES - i) > large_s) {
            break;
        }
    }
    return err;
}

static du_err time_update(const probe *p, slice *s, du_params *params, const du_grad *grad,
                          du_diag *diag) {
    du_optim optim;
    du_qat qat = {0};
    du_err err = du_optim_init(&optim, p->config, params, NULL, diag);
    if (err == DU_OK && *p->config->qat.type) {
        err = du_qat_init(&qat, p->config->qat.type, params, diag);
    }
    for (int i = 1; i <= 2 && err == DU_OK; i++) { /* the first one makes the pages */
        double start = du_clock_s(), norm = 0;
        err = qat.shown ? du_qat_show(p->ctx, &qat) : DU_OK;
        du_params_point(params, params->values);
        err = err ? err : du_optim_norm(p->ctx, &optim, du_grad_values(grad), &norm, diag);
        err = err ? err : du_optim_step(p->ctx, &optim, du_grad_values(grad), i, 0, 1);
        s->update_s = du_clock_s() - start;
    }
    du_qat_done(&qat);
    du_optim_done(&optim);
    return err;
}

static du_err time_slice(const probe *p, slice *s, du_diag *diag) {
    const du_train_config *config = p->config;
    du_params *params = NULL;
    du_grad *grad = NULL;
    batch b = {0};
    du_grad_params how = {.bf16 = config->dtype == DU_TRAIN_BF16,
                          .keep = (du_grad_keep)config->recompute,
                          .seq_balance = config->router.seq_balance,
                          .n_leaves = s->n_seq};
    du_err err = make_params(&params, p, s, diag);
    err = err ? err : du_grad_new(&grad, params, &how, diag);
    err = err ? err : make_batch(&b, p, params, s->n_seq, diag);
    if (err == DU_OK) {
        du_params_init(params, 0.006, 1);
        du_grad_flops f = du_grad_count(params, how.keep, config->seq_len);
        s->flops = (f.forward + f.backward + f.again) * (double)(s->n_seq * config->seq_len);
        s->n_values = params->n_values;
        err = time_passes(p, s, grad, &b, diag);
    }
    err = err ? err : time_update(p, s, params, grad, diag);
    batch_done(&b);
    du_grad_free(grad);
    du_params_free(params);
    return err;
}

static slice slice_of(const probe *p, int64_t n_layer, int64_t n_seq) {
    slice s = {.n_layer = n_layer, .n_dense = p->n_dense, .n_seq = n_seq};
    if (p->experts && n_layer < p->n_layer) {
        s.n_dense = n_layer * p->n_dense / p->n_layer;
        s.n_dense = s.n_dense < 1 && p->n_dense > 0 ? 1 : s.n_dense;
        s.n_dense = s.n_dense < n_layer || p->n_dense == p->n_layer ? s.n_dense : n_layer - 1;
    }
    return s;
}

/* How many times `share` goes into `whole`, in [lo, hi]. */
static int64_t times(double whole, double share, int64_t lo, int64_t hi) {
    double n = whole / share;
    return n < (double)lo ? lo : n > (double)hi ? hi : (int64_t)n;
}

/* Seconds of a pass of the model over large->n_seq sequences. */
static double whole_pass(const probe *p, const slice *little, const slice *large, double flops) {
    if (large->n_layer == p->n_layer) {
        return large->pass_s;
    }
    bool two = large->n_layer > little->n_layer && large->pass_s > little->pass_s;
    double per_flop = two ? (large->pass_s - little->pass_s) / (large->flops - little->flops)
                          : large->pass_s / large->flops;
    return large->pass_s + (flops - large->flops) * per_flop;
}

du_err du_train_plan_probe(du_train_plan *plan, du_ctx *ctx, const du_train_config *config,
                           const json_t *shape, du_diag *diag) {
    probe p = {.ctx = ctx, .config = config, .shape = shape};
    du_params *params = NULL;
    du_err err = du_params_new(&params, shape, diag);
    if (err != DU_OK) {
        return err;
    }
    const du_hparams *hp = &params->model->hp;
    p.n_layer = hp->n_layer;
    p.experts = hp->router.n_expert > 0;
    p.n_dense = p.experts ? hp->n_dense_layer : hp->n_layer;
    p.n_min = p.experts && p.n_dense > 0 && p.n_dense < p.n_layer ? 2 : 1;
    double n_values = (double)params->n_values;
    du_params_free(params);
    slice little = slice_of(&p, p.n_min, 1);
    err = time_slice(&p, &little, diag);
    if (err == DU_OK) {
        double seq_s = little.pass_s;
        little = slice_of(&p, p.n_min, times(small_s, seq_s, 1, config->batch_seqs));
        err = little.n_seq > 1 || p.n_layer == p.n_min ? time_slice(&p, &little, diag) : DU_OK;
        little.pass_s = little.pass_s > 0 ? little.pass_s : seq_s;
    }
    slice large = little;
    if (err == DU_OK) {
        double of_layer = little.pass_s / (double)(p.n_min + 1);
        int64_t n = times(large_s, of_layer, p.n_min, p.n_layer);
        large = slice_of(&p, n, little.n_seq);
        err = time_slice(&p, &large, diag);
    }
    if (err == DU_OK) {
        const du_grad_flops *f = &plan->flops;
        double n_rows = (double)(large.n_seq * config->seq_len);
        double of_token = f->forward + f->backward + f->again;
        double pass_s = whole_pass(&p, &little, &large, of_token * n_rows);
        double update_s = large.update_s * n_values / (double)large.n_values;
        int64_t n_micros = du_schedule_micros_before(config, config->steps + 1);
        double n_tokens = (double)n_micros * (double)(config->batch_seqs * config->seq_len);
        plan->step_s = pass_s / n_rows * (double)plan->step_tokens + update_s;
        plan->tok_s = (double)plan->step_tokens / plan->step_s;
        plan->run_s = pass_s / n_rows * n_tokens + update_s * (double)config->steps;
    }
    return err;
}
