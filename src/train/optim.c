#include "train/optim.h"

#include <math.h>
#include <string.h>

#include "nn/spread.h"
#include "train/muon.h"

enum {
    RUN = 1 << 10,         /* of which a square is summed in f32 */
    MUON_VALUES = 1 << 23, /* of matrices that are made orthogonal side by side, about */
    MUON_MATRICES = 256
};

static float *take(const du_params *params, bool wanted, bool *failed) {
    size_t n_bytes = (size_t)params->n_values * sizeof(float);
    float *values = wanted ? du_mem_reserve(n_bytes) : NULL;
    *failed = *failed || (wanted && !values);
    return values;
}

static bool is_muon(const du_train_config *config, const du_param *t) {
    return config->optim.name == DU_OPTIM_MUON && t->def->kind != DU_WEIGHT_VEC &&
           t->def->role != DU_ROLE_EMBED && t->def->role != DU_ROLE_OUTPUT;
}

/* The i-th tensor of the block. */
static const du_param *tensor_at(const du_optim *o, int64_t i) {
    return &o->params->at[o->order[i]];
}

/* The number, in the block, of the tensor that has the part. */
static int64_t tensor_of_part(const du_optim *o, int64_t part) {
    int64_t lo = 0, hi = o->params->n - 1;
    while (lo < hi) {
        int64_t mid = (lo + hi + 1) / 2;
        if (o->first_part[mid] <= part) {
            lo = mid;
        } else {
            hi = mid - 1;
        }
    }
    return lo;
}

/* The first value of a part; behind the last one the block's end. */
static int64_t value_of_part(const du_optim *o, int64_t part) {
    int64_t n = o->params->n;
    if (n == 0 || part == o->first_part[n]) {
        return o->params->n_values;
    }
    int64_t k = tensor_of_part(o, part);
    return tensor_at(o, k)->offset + (part - o->first_part[k]) * DU_OPTIM_PART;
}

/* Parts before those of the experts that are apart. */
static int64_t n_common_parts(const du_optim *o) {
    int64_t k = 0;
    while (k < o->params->n && tensor_at(o, k)->offset < o->params->n_common) {
        k++;
    }
    return o->first_part[k];
}

/* Where rank i's span of the first n parts begins: equal shares; a matrix of Muon's goes whole to
 * one of its neighbours. */
static int64_t begin_of(const du_optim *o, int64_t i, int64_t n_ranks, int64_t n) {
    int64_t part = n * i / n_ranks;
    if (part == n) {
        return n;
    }
    int64_t k = tensor_of_part(o, part), first = o->first_part[k], end = o->first_part[k + 1];
    if (!is_muon(o->config, tensor_at(o, k))) {
        return part;
    }
    return part - first <= end - part ? first : end;
}

static bool take_lists(du_optim *o) {
    size_t n_ranks = (size_t)du_ranks_n(o->ranks), n = (size_t)o->params->n;
    o->order = du_alloc_array(n, sizeof *o->order);
    o->first_part = du_alloc_array(n + 1, sizeof *o->first_part);
    o->common.values = du_alloc_zero(n_ranks, sizeof(du_span));
    o->common.parts = du_alloc_zero(n_ranks, sizeof(du_span));
    o->spread.values = du_alloc_zero(n_ranks, sizeof(du_span));
    o->spread.parts = du_alloc_zero(n_ranks, sizeof(du_span));
    return o->order && o->first_part && o->common.values && o->common.parts && o->spread.values &&
           o->spread.parts;
}

/* Tensors in the order of the block (model/params.h). */
static void list_tensors(du_optim *o) {
    const du_params *p = o->params;
    bool apart = p->n_common < p->n_values; /* experts */
    int64_t n = 0, n_common = 0, per_expert = 0;
    for (int64_t i = 0; i < p->n; i++) {
        n_common += !apart || p->at[i].expert < 0;
        per_expert += apart && p->at[i].expert == 0;
    }
    for (int64_t i = 0, k = -1; i < p->n; i++) {
        int64_t e = apart ? p->at[i].expert : -1;
        k += e == 0;
        o->order[e < 0 ? n++ : n_common + e * per_expert + k] = i;
    }
    o->first_part[0] = 0;
    for (int64_t k = 0; k < p->n; k++) {
        const du_param *t = tensor_at(o, k);
        int64_t n_parts = (t->rows * t->cols + DU_OPTIM_PART - 1) / DU_OPTIM_PART;
        o->first_part[k + 1] = o->first_part[k] + n_parts;
    }
}

static void set_span(const du_optim *o, du_optim_spans *spans, int64_t rank, du_span parts) {
    spans->parts[rank] = parts;
    if (parts.first < parts.end) {
        spans->values[rank] = (du_span){value_of_part(o, parts.first), value_of_part(o, parts.end)};
    }
}

/* Experts have the same tensors, so the same number of parts. */
static void set_spans(du_optim *o) {
    bool spread = du_params_is_spread(o->params);
    int64_t n_ranks = du_ranks_n(o->ranks), all = o->first_part[o->params->n];
    int64_t E = o->params->model->hp.router.n_expert, n = spread ? n_common_parts(o) : all;
    for (int64_t i = 0; i < n_ranks; i++) {
        du_span common = {begin_of(o, i, n_ranks, n), begin_of(o, i + 1, n_ranks, n)};
        set_span(o, &o->common, i, common);
        if (spread) {
            int64_t per_expert = (all - n) / E;
            du_span own = {n + per_expert * du_spread_first(E, i, n_ranks),
                           n + per_expert * du_spread_first(E, i + 1, n_ranks)};
            set_span(o, &o->spread, i, own);
        }
    }
}

void du_optim_owners(const du_optim *o, const du_param *t, du_span *spans) {
    int64_t n_ranks = du_ranks_n(o->ranks);
    bool common = o->spread.values[n_ranks - 1].end <= t->offset || t->offset < o->params->n_common;
    const du_optim_spans *of = common ? &o->common : &o->spread;
    memcpy(spans, of->values, (size_t)n_ranks * sizeof *spans);
}

/* How many blocks of moments an optimizer has, of the running mean apart. */
static size_t n_moments(const du_train_config *config) {
    bool sgd = config->optim.name == DU_OPTIM_SGD;
    return sgd ? config->optim.momentum > 0 : 2;
}

du_err du_optim_init(du_optim *optim, const du_train_config *config, const du_params *params,
                     du_ranks *ranks, du_diag *diag) {
    *optim = (du_optim){.config = config, .params = params, .ranks = ranks};
    bool failed = !take_lists(optim);
    if (!failed) {
        list_tensors(optim);
        set_spans(optim);
    }
    optim->m = take(params, n_moments(config) > 0, &failed);
    optim->v = take(params, n_moments(config) > 1, &failed);
    optim->mean = take(params, config->ema.decay > 0, &failed);
    if (failed) {
        du_optim_done(optim);
        return du_fail(diag, DU_ENOMEM,
                       "no memory for the optimizer's state of %lld million weights",
                       (long long)(params->n_weights / 1000000));
    }
    du_optim_begin(optim);
    return DU_OK;
}

static du_span own_values(const du_optim *o, const du_optim_spans *of) {
    return of->values[du_ranks_rank(o->ranks)];
}

static du_span own_parts(const du_optim *o, const du_optim_spans *of) {
    return of->parts[du_ranks_rank(o->ranks)];
}

void du_optim_begin(du_optim *o) {
    const du_optim_spans *const of[] = {&o->common, &o->spread};
    for (int i = 0; i < 2 && o->mean; i++) {
        du_span own = own_values(o, of[i]);
        memcpy(o->mean + own.first, o->params->values + own.first,
               (size_t)(own.end - own.first) * sizeof(float));
    }
}

void du_optim_done(du_optim *optim) {
    size_t n_bytes = optim->params ? (size_t)optim->params->n_values * sizeof(float) : 0;
    du_mem_unreserve(optim->m, n_bytes);
    du_mem_unreserve(optim->v, n_bytes);
    du_mem_unreserve(optim->mean, n_bytes);
    du_free(optim->order);
    du_free(optim->first_part);
    du_free(optim->common.values);
    du_free(optim->common.parts);
    du_free(optim->spread.values);
    du_free(optim->spread.parts);
    *optim = (du_optim){0};
}

/* Values of a part, all of tensor *t. */
static du_span values_of_part(const du_optim *o, int64_t part, const du_param **t) {
    int64_t k = tensor_of_part(o, part);
    *t = tensor_at(o, k);
    int64_t first = (part - o->first_part[k]) * DU_OPTIM_PART, n = (*t)->rows * (*t)->cols;
    int64_t end = first + DU_OPTIM_PART < n ? first + DU_OPTIM_PART : n;
    return (du_span){(*t)->offset + first, (*t)->offset + end};
}

typedef struct {
    const du_optim *optim;
    const du_kern *kern;
    const float *grads;
    int64_t first; /* part of task 0 */
    double *sums;  /* of all parts */
} norm_job;

/* Squares in f32 over runs short enough to lose nothing that counts, those in double. */
static void norm_part(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const norm_job *job = arg;
    const du_param *t;
    du_span values = values_of_part(job->optim, job->first + i_task, &t);
    double sum = 0;
    for (int64_t i = values.first; i < values.end; i += RUN) {
        const float *g = job->grads + i;
        int64_t left = values.end - i;
        sum += (double)job->kern->dot(g, g, left < RUN ? left : RUN);
    }
    job->sums[job->first + i_task] = sum;
}

/* The sums of the parts of a range, at all ranks. */
static du_err sum_parts(du_ctx *ctx, norm_job *job, const du_optim_spans *of, du_diag *diag) {
    du_span own = own_parts(job->optim, of);
    job->first = own.first;
    du_pool_run(ctx->pool, norm_part, job, own.end - own.first);
    return du_ranks_share(job->optim->ranks, job->sums, sizeof *job->sums, of->parts, diag);
}

du_err du_optim_norm(du_ctx *ctx, const du_optim *o, const float *grads, double *norm,
                     du_diag *diag) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    int64_t n = o->first_part[o->params->n];
    norm_job job = {o, ctx->kern, grads, 0, DU_SCRATCH(ctx, double, n)};
    du_err err = job.sums ? DU_OK : du_fail_nomem(diag, "the gradient's norm");
    err = du_ranks_agree(o->ranks, err, diag);
    err = err ? err : sum_parts(ctx, &job, &o->common, diag);
    err = err ? err : sum_parts(ctx, &job, &o->spread, diag);
    double sum = 0;
    for (int64_t i = 0; i < n && err == DU_OK; i++) {
        sum += job.sums[i];
    }
    *norm = err == DU_OK ? sqrt(sum) : (double)NAN;
    du_arena_release(ctx->scratch, mark);
    return err;
}

typedef struct {
    const du_kern *kern;
    du_optim *optim;
    const float *grads;
    int64_t first; /* part of task 0 */
    du_adamw adamw;
    float lr, clip, decay; /* decay: lr * weight_decay */
} step_job;

static bool decays(const du_train_config *config, const du_param *t) {
    return config->optim.decay == DU_DECAY_ALL || t->def->kind != DU_WEIGHT_VEC;
}

/* n values from i on, all of tensor t */
static void step_part(const step_job *job, const du_param *t, int64_t i, int64_t n) {
    du_optim *o = job->optim;
    const du_train_config *config = o->config;
    float *w = o->params->values + i, keep = decays(config, t) ? 1 - job->decay : 1;
    if (config->optim.name == DU_OPTIM_SGD) {
        job->kern->scale(w, keep, n);
        if (o->m) {
            job->kern->scale(o->m + i, (float)config->optim.momentum, n);
            job->kern->axpy(o->m + i, job->clip, job->grads + i, n);
            job->kern->axpy(w, -job->lr, o->m + i, n);
        } else {
            job->kern->axpy(w, -job->lr * job->clip, job->grads + i, n);
        }
    } else if (!is_muon(config, t)) {
        du_adamw step = job->adamw;
        step.keep = keep;
        job->kern->adamw(w, o->m + i, o->v + i, job->grads + i, n, &step);
    }
}

/* n values of the running mean from i on */
static void average_part(const step_job *job, int64_t i, int64_t n) {
    const du_optim *o = job->optim;
    float d = (float)o->config->ema.decay;
    job->kern->scale(o->mean + i, d, n);
    job->kern->axpy(o->mean + i, 1 - d, o->params->values + i, n);
}

static void step_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const step_job *job = arg;
    const du_param *t;
    du_span values = values_of_part(job->optim, job->first + i_task, &t);
    int64_t n = values.end - values.first;
    if (!t->def->chooses) {
        step_part(job, t, values.first, n);
    }
    if (job->optim->mean) {
        average_part(job, values.first, n);
    }
}

static bool owns(const du_optim *o, const du_optim_spans *of, const du_param *t) {
    du_span own = own_values(o, of);
    return t->offset >= own.first && t->offset < own.end;
}

/* The steps of Muon's matrices, as many side by side as there is room for. */
static du_err muon_steps(du_ctx *ctx, const step_job *job) {
    const du_optim *o = job->optim;
    const du_train_config *config = o->config;
    const du_params *params = o->params;
    du_gemm_kind kind = du_kern_gemm_kind(ctx->kern, config->dtype == DU_TRAIN_BF16);
    du_muon how = {kind,
                   job->lr,
                   job->clip,
                   (float)config->optim.weight_decay,
                   (float)config->optim.momentum,
                   config->optim.muon_scale == DU_MUON_MOONLIGHT};
    du_muon_matrix some[MUON_MATRICES];
    int64_t n = 0, n_values = 0;
    du_err err = DU_OK;
    for (int64_t i = 0; i < params->n && err == DU_OK; i++) {
        const du_param *t = &params->at[i];
        if (is_muon(config, t) && (owns(o, &o->common, t) || owns(o, &o->spread, t))) {
            some[n++] = (du_muon_matrix){params->values + t->offset, o->m + t->offset,
                                         job->grads + t->offset, t->rows, t->cols};
            n_values += t->rows * t->cols;
        }
        if (n == MUON_MATRICES || n_values >= MUON_VALUES || i + 1 == params->n) {
            err = du_muon_step(ctx, &how, some, n);
            n = n_values = 0;
        }
    }
    return err;
}

/* What Muon's matrix holds while it is made orthogonal, its products' panels too. */
static size_t muon_bytes(const du_gemm *g, const du_param *t) {
    int64_t r = t->rows < t->cols ? t->rows : t->cols, c = t->rows + t->cols - r;
    return (size_t)(2 * r * (c + r)) * sizeof(float) + du_gemm_b_bytes(g, r > c ? r : c, r);
}

static size_t muon_scratch(const du_kern *kern, const du_train_config *config,
                           const du_params *params) {
    const du_gemm *g = &kern->gemm[du_kern_gemm_kind(kern, config->dtype == DU_TRAIN_BF16)];
    size_t bytes = 0, most = 0;
    int64_t n = 0, n_values = 0;
    for (int64_t i = 0; i < params->n; i++) {
        const du_param *t = &params->at[i];
        if (is_muon(config, t) && du_params_holds(params, t)) {
            bytes += muon_bytes(g, t);
            n_values += t->rows * t->cols;
            n++;
        }
        most = bytes > most ? bytes : most;
        if (n == MUON_MATRICES || n_values >= MUON_VALUES) {
            bytes = 0;
            n = n_values = 0;
        }
    }
    return most;
}

/* Bytes of what a rank owns: its part of each value, or where experts are spread its experts. */
typedef struct {
    int64_t parts, whole;
} share;

static share share_of(const du_params *params, int64_t n_blocks) {
    share s = {.parts = params->n_values * n_blocks};
    for (int64_t i = 0; i < params->n && du_params_is_spread(params); i++) {
        const du_param *t = &params->at[i];
        int64_t n = t->expert >= 0 ? t->rows * t->cols * n_blocks : 0;
        s.parts -= n;
        s.whole += du_params_holds(params, t) ? n : 0;
    }
    return s;
}

static size_t share_bytes(share s, int64_t n_ranks) {
    return (size_t)((s.parts + n_ranks - 1) / n_ranks + s.whole) * sizeof(float);
}

du_optim_memory du_optim_measure(const du_kern *kern, const du_train_config *config,
                                 const du_params *params, int64_t n_ranks) {
    share moments = share_of(params, (int64_t)n_moments(config));
    share mean = share_of(params, config->ema.decay > 0);
    for (int64_t i = 0; i < params->n; i++) { /* second moments that are never written */
        const du_param *t = &params->at[i];
        bool spread = du_params_is_spread(params) && t->expert >= 0;
        int64_t n = is_muon(config, t) ? t->rows * t->cols : 0;
        *(spread ? &moments.whole : &moments.parts) -= du_params_holds(params, t) ? n : 0;
    }
    size_t n_runs = (size_t)(params->n_values / RUN + 1);
    return (du_optim_memory){.moments = share_bytes(moments, n_ranks),
                             .mean = share_bytes(mean, n_ranks),
                             .scratch =
                                 muon_scratch(kern, config, params) + n_runs * sizeof(double)};
}

du_err du_optim_step(du_ctx *ctx, du_optim *optim, const float *grads, int64_t t, double lr,
                     double clip) {
    const du_train_config *config = optim->config;
    double beta1 = config->optim.beta1, beta2 = config->optim.beta2;
    step_job job = {.kern = ctx->kern, .optim = optim, .grads = grads};
    job.lr = (float)lr;
    job.clip = (float)clip;
    job.decay = (float)(lr * config->optim.weight_decay);
    job.adamw = (du_adamw){.beta1 = (float)beta1,
                           .beta2 = (float)beta2,
                           .eps = (float)config->optim.eps,
                           .clip = (float)clip,
                           .rate = (float)(lr / (1 - pow(beta1, (double)t))),
                           .root = (float)(1 / sqrt(1 - pow(beta2, (double)t)))};
    du_err err = config->optim.name == DU_OPTIM_MUON ? muon_steps(ctx, &job) : DU_OK;
    const du_optim_spans *const of[] = {&optim->common, &optim->spread};
    for (int i = 0; i < 2 && err == DU_OK; i++) {
        du_span own = own_parts(optim, of[i]);
        job.first = own.first;
        du_pool_run(ctx->pool, step_task, &job, own.end - own.first);
    }
    return err;
}
