/* How fast a run will be. Whole steps of a trainer are timed, of the model or, where a pass takes
 * longer, of a slice of it: the same shape with fewer layers, dense and with experts, and fewer
 * sequences, one micro-batch for each rank. Two slices tell what a further sequence costs apart
 * from what is done once for all, two what a further layer costs apart from what lies outside the
 * layers; layers that are left out are counted by their operations.
 *
 * Ranks take the same steps together, so a step's time has what they wait for and send each other;
 * what the slices are follows from the slowest one's times. */
#include <float.h>

#include "base/json.h"
#include "train/plan.h"
#include "train/schedule.h"
#include "train/trainable.h"
#include "train/trainer.h"

static const double small_s = 0.2, large_s = 0.5; /* of a pass of the slices */
static const double too_slow_s = 2; /* of one sequence, where two would be asking too much */
enum { N_PASSES = 3 };

/* A slice, and what it took. */
typedef struct {
    int64_t n_layer, n_dense, n_seq;
    double pass_s, update_s; /* of its micro-batch, and of the rest of the step */
    double flops;            /* of the pass */
    int64_t n_values;
} slice;

typedef struct {
    const du_ctx *ctx;
    const du_train_config *config;
    const json_t *shape; /* NULL: init's, with adapters */
    du_ranks *ranks;
    int64_t n_layer, n_dense, n_min; /* of the model; n_min: one layer of each kind */
    bool experts;
} probe;

static void set(json_t *shape, const char *key, int64_t v, bool *failed) {
    *failed = *failed || json_object_set_new(shape, key, json_integer(v)) != 0;
}

static du_err make_params(du_params **out, const probe *p, const slice *s,
                          const du_train_config *config, du_diag *diag) {
    if (!p->shape && s->n_layer == p->n_layer) {
        return du_trainable_new(out, config, NULL, diag);
    }
    json_t *shape = p->shape ? json_deep_copy(p->shape) : json_object();
    bool failed = !shape;
    set(shape, "num_hidden_layers", s->n_layer, &failed);
    if (p->experts) {
        set(shape, "first_k_dense_replace", s->n_dense, &failed);
    }
    du_err err =
        failed ? du_fail_nomem(diag, "the probe") : du_trainable_new(out, config, shape, diag);
    json_decref(shape);
    return err;
}

/* A run of the slice: a micro-batch for each rank, of random tokens. Borrows from the run's. */
static du_train_config config_of(const probe *p, const slice *s) {
    static char none[1];
    du_train_config c = *p->config;
    c.batch_seqs = s->n_seq;
    c.accumulate = du_ranks_n(p->ranks);
    c.data.tokens = c.data.shards = c.data.validation = none;
    c.init = p->shape ? none : c.init;
    c.mtp.weight = p->shape || s->n_layer == p->n_layer ? c.mtp.weight : 0;
    return c;
}

static du_err make_trainer(du_trainer **out, const probe *p, const slice *s, du_ctx *ctx,
                           const du_train_config *config, du_diag *diag) {
    du_params *params = NULL;
    du_err err = make_params(&params, p, s, config, diag);
    err = err ? err : du_trainer_of(out, ctx, config, params, p->ranks, diag);
    err = err ? err : du_trainer_begin(*out, diag);
    err = err ? err : du_trainer_open_data(*out, diag);
    return du_ranks_agree(p->ranks, err, diag);
}

/* *seconds becomes that of the slowest rank. */
static du_err slowest(const probe *p, double *seconds, du_diag *diag) {
    int64_t less = -(int64_t)(*seconds * 1e9);
    du_err err = du_ranks_min(p->ranks, &less, diag);
    *seconds = (double)-less * 1e-9;
    return err;
}

static void keep_less(double *least, double seconds, bool anew) {
    *least = anew || seconds < *least ? seconds : *least;
}

/* The least of a few steps, the first of which makes the pages. */
static du_err time_steps(const probe *p, slice *s, du_trainer *t, du_diag *diag) {
    t->lr = FLT_MIN; /* no schedule, and weights that stay */
    du_err err = DU_OK;
    for (int i = 0; i <= N_PASSES && err == DU_OK; i++) {
        du_metrics m;
        err = du_trainer_step(t, &m, diag);
        double pass_s = t->passes.rounds_s, update_s = 0;
        if (err == DU_OK) {
            int64_t n_tokens = t->split.n * p->config->seq_len;
            update_s = (double)n_tokens / m.tok_s - pass_s;
            err = slowest(p, &pass_s, diag);
        }
        err = err ? err : slowest(p, &update_s, diag);
        keep_less(&s->pass_s, pass_s, i <= 1);
        keep_less(&s->update_s, update_s, i <= 1);
        if (i > 0 && pass_s * (N_PASSES - i) > large_s) {
            break;
        }
    }
    return err;
}

static du_err time_slice(const probe *p, slice *s, du_diag *diag) {
    du_train_config config = config_of(p, s);
    du_ctx ctx = *p->ctx;
    du_trainer *t = NULL;
    ctx.scratch = du_arena_new(1); /* its one chunk is of the plan's size */
    du_err err = ctx.scratch ? DU_OK : du_fail_nomem(diag, "the probe");
    err = du_ranks_agree(p->ranks, err, diag);
    err = err ? err : make_trainer(&t, p, s, &ctx, &config, diag);
    if (err == DU_OK) {
        const du_grad_flops *f = &t->flops;
        s->flops = (f->forward + f->backward + f->again) * (double)(s->n_seq * config.seq_len);
        s->n_values = t->params->n_values;
        err = time_steps(p, s, t, diag);
    }
    du_trainer_free(t);
    du_arena_free(ctx.scratch);
    return err;
}

/* Layers of init's model are the first ones. */
static slice slice_of(const probe *p, int64_t n_layer, int64_t n_seq) {
    slice s = {.n_layer = n_layer, .n_dense = p->n_dense, .n_seq = n_seq};
    if (p->experts && p->shape && n_layer < p->n_layer) {
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

/* Sequences of a slice: ranks take a power of two. */
static int64_t n_seqs(const probe *p, double seq_s, int64_t most) {
    int64_t n = times(small_s, seq_s, 1, most), power = 1;
    while (2 * power <= n) {
        power *= 2;
    }
    return p->ranks ? power : n;
}

/* How many times as long a pass over n sequences takes as the slice's: weights are unpacked and
 * packed once for all of them. one: the same layers with one sequence */
static double growth(const slice *one, const slice *s, int64_t n) {
    double more = (double)(s->n_seq - one->n_seq), all = s->pass_s / (double)s->n_seq;
    double per_seq = more > 0 ? (s->pass_s - one->pass_s) / more : all;
    per_seq = per_seq < 0 ? 0 : per_seq > all ? all : per_seq;
    return 1 + per_seq * (double)(n - s->n_seq) / s->pass_s;
}

/* Layers that there is time for besides those of the slice, at least one where it is quick.
 * of_token  operations of the model */
static int64_t more_layers(const probe *p, const slice *s, double of_token) {
    double rest = of_token * (double)(s->n_seq * p->config->seq_len) - s->flops;
    int64_t n = p->n_layer - s->n_layer;
    double layer_s = n > 0 ? rest / (double)n / s->flops * s->pass_s : 0;
    return n > 0 ? times(large_s, layer_s, s->pass_s < too_slow_s, n) : 0;
}

/* Slices of one layer of each kind, with one sequence and with several, and one of as many layers
 * as there is time for. */
static du_err time_slices(const probe *p, int64_t n_seq, double of_token, slice *one, slice *little,
                          slice *large, du_diag *diag) {
    *one = slice_of(p, p->n_min, 1);
    du_err err = time_slice(p, one, diag);
    if (err != DU_OK) {
        return err;
    }
    int64_t n = n_seqs(p, one->pass_s, n_seq);
    n = n < 2 && n_seq > 1 && one->pass_s < too_slow_s ? 2 : n;
    *little = *one;
    if (n > 1) {
        *little = slice_of(p, p->n_min, n);
        err = time_slice(p, little, diag);
    }
    *large = *little;
    int64_t n_layer = more_layers(p, little, of_token);
    if (err == DU_OK && n_layer > 0) {
        *large = slice_of(p, p->n_min + n_layer, n);
        err = time_slice(p, large, diag);
    }
    return err;
}

/* What the slices are cut from. */
static du_err measure_model(probe *p, int64_t *n_values, du_diag *diag) {
    du_params *params = NULL;
    du_err err = du_trainable_new(&params, p->config, p->shape, diag);
    if (err == DU_OK) {
        const du_hparams *hp = &params->model->hp;
        p->n_layer = hp->n_layer;
        p->experts = hp->router.n_expert > 0;
        p->n_dense = p->experts ? hp->n_dense_layer : hp->n_layer;
        bool both = p->experts && p->n_dense > 0 && p->n_dense < p->n_layer;
        p->n_min = !both ? 1 : p->shape ? 2 : p->n_dense + 1;
        *n_values = params->n_values;
        du_params_free(params);
    }
    return du_ranks_agree(p->ranks, err, diag);
}

du_err du_train_plan_probe(du_train_plan *plan, du_ctx *ctx, const du_train_config *config,
                           const json_t *shape, du_ranks *ranks, du_diag *diag) {
    probe p = {.ctx = ctx, .config = config, .shape = shape, .ranks = ranks};
    const du_train_share *share = &plan->share;
    int64_t n_values = 0;
    slice one, little, large;
    const du_grad_flops *f = &plan->flops;
    double of_token = f->forward + f->backward + f->again;
    du_err err = measure_model(&p, &n_values, diag);
    err = err ? err : time_slices(&p, share->n_seq, of_token, &one, &little, &large, diag);
    if (err == DU_OK) {
        double n_rows = (double)(large.n_seq * config->seq_len);
        double micro_s = whole_pass(&p, &little, &large, of_token * n_rows) *
                         growth(&one, &little, share->n_seq);
        double update_s = large.update_s * (double)n_values / (double)large.n_values;
        double passes_s = micro_s * (double)share->n_micro;
        int64_t n_micros = du_schedule_micros_before(config, config->steps + 1);
        double n_steps = (double)n_micros / (double)config->accumulate; /* of the largest ones */
        plan->step_s = passes_s + update_s;
        plan->tok_s = (double)plan->step_tokens / plan->step_s;
        plan->run_s = passes_s * n_steps + update_s * (double)config->steps;
    }
    return err;
}
