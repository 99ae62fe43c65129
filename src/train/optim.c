#include "train/optim.h"

#include <math.h>
#include <string.h>

#include "train/muon.h"

enum {
    CHUNK = 1 << 14,       /* values of a task */
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

/* The tensor that holds value i. */
static int64_t tensor_at(const du_params *params, int64_t i) {
    int64_t lo = 0, hi = params->n - 1;
    while (lo < hi) {
        int64_t mid = (lo + hi + 1) / 2;
        if (params->at[mid].offset <= i) {
            lo = mid;
        } else {
            hi = mid - 1;
        }
    }
    return lo;
}

/* Where rank i's span begins: equal shares of runs; a matrix of Muon's goes whole to one of its
 * neighbours. */
static int64_t begin_of(const du_optim *o, int64_t i, int64_t n_ranks) {
    const du_params *params = o->params;
    int64_t n_runs = (params->n_values + RUN - 1) / RUN, at = n_runs * i / n_ranks * RUN;
    if (i == n_ranks || at >= params->n_values) {
        return params->n_values;
    }
    const du_param *t = &params->at[tensor_at(params, at)];
    int64_t end = t == &params->at[params->n - 1] ? params->n_values : t[1].offset;
    if (!is_muon(o->config, t)) {
        return at;
    }
    return at - t->offset <= end - at ? t->offset : end;
}

static bool take_spans(du_optim *o) {
    int64_t n = du_ranks_n(o->ranks);
    o->spans = du_alloc_array((size_t)n, sizeof *o->spans);
    for (int64_t i = 0; o->spans && i < n; i++) {
        o->spans[i] = (du_span){begin_of(o, i, n), begin_of(o, i + 1, n)};
    }
    o->own = o->spans ? o->spans[du_ranks_rank(o->ranks)] : (du_span){0};
    return o->spans != NULL;
}

/* How many blocks of moments an optimizer has, of the running mean apart. */
static size_t n_moments(const du_train_config *config) {
    bool sgd = config->optim.name == DU_OPTIM_SGD;
    return sgd ? config->optim.momentum > 0 : 2;
}

du_err du_optim_init(du_optim *optim, const du_train_config *config, const du_params *params,
                     du_ranks *ranks, du_diag *diag) {
    *optim = (du_optim){.config = config, .params = params, .ranks = ranks};
    bool failed = !take_spans(optim);
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

void du_optim_begin(du_optim *o) {
    if (o->mean) {
        memcpy(o->mean + o->own.first, o->params->values + o->own.first,
               (size_t)(o->own.end - o->own.first) * sizeof(float));
    }
}

void du_optim_done(du_optim *optim) {
    size_t n_bytes = optim->params ? (size_t)optim->params->n_values * sizeof(float) : 0;
    du_mem_unreserve(optim->m, n_bytes);
    du_mem_unreserve(optim->v, n_bytes);
    du_mem_unreserve(optim->mean, n_bytes);
    du_free(optim->spans);
    *optim = (du_optim){0};
}

static du_span runs_of(du_span values) {
    return (du_span){(values.first + RUN - 1) / RUN, (values.end + RUN - 1) / RUN};
}

void du_optim_wanted(const du_optim *o, du_span *spans) {
    for (int64_t i = 0; i < du_ranks_n(o->ranks); i++) {
        int64_t end = runs_of(o->spans[i]).end * RUN;
        spans[i] = o->spans[i];
        if (spans[i].first < spans[i].end) {
            spans[i].end = end < o->params->n_values ? end : o->params->n_values;
        }
    }
}

typedef struct {
    const du_kern *kern;
    const float *grads;
    int64_t n_values;
    du_span runs;
    double *sums; /* [runs] */
} norm_job;

/* Squares in f32 over runs short enough to lose nothing that counts, those in double. */
static void norm_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    enum { TASK_RUNS = CHUNK / RUN };
    const norm_job *job = arg;
    int64_t first = job->runs.first + i_task * TASK_RUNS, end = first + TASK_RUNS;
    end = end < job->runs.end ? end : job->runs.end;
    for (int64_t i = first; i < end; i++) {
        const float *g = job->grads + i * RUN;
        int64_t left = job->n_values - i * RUN;
        job->sums[i] = (double)job->kern->dot(g, g, left < RUN ? left : RUN);
    }
}

/* The root of the sum over chunks of the sums of their runs. */
static double root_of(const double *sums, int64_t n) {
    enum { CHUNK_RUNS = CHUNK / RUN };
    double sum = 0;
    for (int64_t first = 0; first < n; first += CHUNK_RUNS) {
        double of_chunk = 0;
        for (int64_t i = first; i < n && i < first + CHUNK_RUNS; i++) {
            of_chunk += sums[i];
        }
        sum += of_chunk;
    }
    return sqrt(sum);
}

du_err du_optim_norm(du_ctx *ctx, const du_optim *o, const float *grads, double *norm,
                     du_diag *diag) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    int64_t n_values = o->params->n_values, n_ranks = du_ranks_n(o->ranks);
    int64_t n = (n_values + RUN - 1) / RUN;
    norm_job job = {ctx->kern, grads, n_values, runs_of(o->own), DU_SCRATCH(ctx, double, n)};
    du_span *runs = DU_SCRATCH(ctx, du_span, n_ranks);
    du_err err = job.sums && runs ? DU_OK : du_fail_nomem(diag, "the gradient's norm");
    err = du_ranks_agree(o->ranks, err, diag);
    if (err == DU_OK) {
        for (int64_t i = 0; i < n_ranks; i++) {
            runs[i] = runs_of(o->spans[i]);
        }
        du_pool_run(ctx->pool, norm_task, &job,
                    ((job.runs.end - job.runs.first) * RUN + CHUNK - 1) / CHUNK);
        err = du_ranks_share(o->ranks, job.sums, sizeof *job.sums, runs, diag);
    }
    *norm = err == DU_OK ? root_of(job.sums, n) : (double)NAN;
    du_arena_release(ctx->scratch, mark);
    return err;
}

typedef struct {
    const du_kern *kern;
    du_optim *optim;
    const float *grads;
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
    if (o->mean) {
        float d = (float)config->ema.decay;
        job->kern->scale(o->mean + i, d, n);
        job->kern->axpy(o->mean + i, 1 - d, w, n);
    }
}

static void step_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const step_job *job = arg;
    const du_params *params = job->optim->params;
    du_span own = job->optim->own;
    int64_t begin = own.first + i_task * CHUNK, end = begin + CHUNK;
    end = end < own.end ? end : own.end;
    for (int64_t k = tensor_at(params, begin); k < params->n && params->at[k].offset < end; k++) {
        const du_param *t = &params->at[k];
        int64_t first = t->offset > begin ? t->offset : begin;
        int64_t last = t->offset + t->rows * t->cols;
        last = last < end ? last : end;
        if (!t->def->chooses && first < last) {
            step_part(job, t, first, last - first);
        }
    }
}

/* The steps of Muon's matrices, as many side by side as there is room for. */
static du_err muon_steps(du_ctx *ctx, const step_job *job) {
    const du_train_config *config = job->optim->config;
    const du_params *params = job->optim->params;
    du_gemm_kind kind = config->dtype == DU_TRAIN_BF16 ? ctx->kern->gemm_bf16 : DU_GEMM_F32;
    du_muon how = {kind,
                   job->lr,
                   job->clip,
                   (float)config->optim.weight_decay,
                   (float)config->optim.momentum,
                   config->optim.muon_scale == DU_MUON_MOONLIGHT};
    du_muon_matrix some[MUON_MATRICES];
    int64_t n = 0, n_values = 0;
    du_span own = job->optim->own;
    du_err err = DU_OK;
    for (int64_t i = 0; i < params->n && err == DU_OK; i++) {
        const du_param *t = &params->at[i];
        if (is_muon(config, t) && t->offset >= own.first && t->offset < own.end) {
            some[n++] = (du_muon_matrix){params->values + t->offset, job->optim->m + t->offset,
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
    const du_gemm *g = &kern->gemm[config->dtype == DU_TRAIN_BF16 ? kern->gemm_bf16 : DU_GEMM_F32];
    size_t bytes = 0, most = 0;
    int64_t n = 0, n_values = 0;
    for (int64_t i = 0; i < params->n; i++) {
        const du_param *t = &params->at[i];
        if (is_muon(config, t)) {
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

/* Bytes of a rank's part of n values. */
static size_t share_of(int64_t n, int64_t n_ranks) {
    return (size_t)((n + n_ranks - 1) / n_ranks) * sizeof(float);
}

du_optim_memory du_optim_measure(const du_kern *kern, const du_train_config *config,
                                 const du_params *params, int64_t n_ranks) {
    int64_t n_values = params->n_values * (int64_t)n_moments(config);
    for (int64_t i = 0; i < params->n; i++) { /* second moments that are never written */
        const du_param *t = &params->at[i];
        n_values -= is_muon(config, t) ? t->rows * t->cols : 0;
    }
    int64_t n_means = config->ema.decay > 0 ? params->n_values : 0;
    size_t n_runs = (size_t)(params->n_values / RUN + 1);
    return (du_optim_memory){.moments = share_of(n_values, n_ranks),
                             .mean = share_of(n_means, n_ranks),
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
    int64_t n = (optim->own.end - optim->own.first + CHUNK - 1) / CHUNK;
    du_pool_run(ctx->pool, step_task, &job, err ? 0 : n);
    return err;
}
