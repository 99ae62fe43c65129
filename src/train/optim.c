#include "train/optim.h"

#include <math.h>
#include <string.h>

#include "train/muon.h"

enum {
    CHUNK = 1 << 14,       /* values of a task */
    MUON_VALUES = 1 << 23, /* of matrices that are made orthogonal side by side, about */
    MUON_MATRICES = 256
};

static float *take(const du_params *params, bool wanted, bool *failed) {
    size_t n_bytes = (size_t)params->n_values * sizeof(float);
    float *values = wanted ? du_mem_reserve(n_bytes) : NULL;
    *failed = *failed || (wanted && !values);
    return values;
}

du_err du_optim_init(du_optim *optim, const du_train_config *config, const du_params *params,
                     du_diag *diag) {
    bool failed = false, sgd = config->optim.name == DU_OPTIM_SGD;
    *optim = (du_optim){.config = config, .params = params};
    optim->m = take(params, !sgd || config->optim.momentum > 0, &failed);
    optim->v = take(params, !sgd, &failed);
    optim->mean = take(params, config->ema.decay > 0, &failed);
    if (failed) {
        du_optim_done(optim);
        return du_fail(diag, DU_ENOMEM,
                       "no memory for the optimizer's state of %lld million weights",
                       (long long)(params->n_weights / 1000000));
    }
    if (optim->mean) {
        memcpy(optim->mean, params->values, (size_t)params->n_values * sizeof(float));
    }
    return DU_OK;
}

void du_optim_done(du_optim *optim) {
    size_t n_bytes = optim->params ? (size_t)optim->params->n_values * sizeof(float) : 0;
    du_mem_unreserve(optim->m, n_bytes);
    du_mem_unreserve(optim->v, n_bytes);
    du_mem_unreserve(optim->mean, n_bytes);
    *optim = (du_optim){0};
}

static int64_t chunk_end(const du_params *params, int64_t i_task) {
    int64_t end = (i_task + 1) * CHUNK;
    return end < params->n_values ? end : params->n_values;
}

static int64_t n_chunks(const du_params *params) {
    return (params->n_values + CHUNK - 1) / CHUNK;
}

typedef struct {
    const du_kern *kern;
    const du_params *params;
    const float *grads;
    double *sums; /* per task */
} norm_job;

/* Squares in f32 over runs short enough to lose nothing that counts, those in double. */
static void norm_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    enum { RUN = 1024 };
    const norm_job *job = arg;
    int64_t end = chunk_end(job->params, i_task);
    double sum = 0;
    for (int64_t i = i_task * CHUNK; i < end; i += RUN) {
        const float *g = job->grads + i;
        sum += (double)job->kern->dot(g, g, end - i < RUN ? end - i : RUN);
    }
    job->sums[i_task] = sum;
}

du_err du_optim_norm(du_ctx *ctx, const du_params *params, const float *grads, double *norm) {
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    int64_t n = n_chunks(params);
    norm_job job = {ctx->kern, params, grads, DU_SCRATCH(ctx, double, n)};
    if (!job.sums) {
        return DU_ENOMEM;
    }
    du_pool_run(ctx->pool, norm_task, &job, n);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += job.sums[i];
    }
    *norm = sqrt(sum);
    du_arena_release(ctx->scratch, mark);
    return DU_OK;
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

static bool is_muon(const du_train_config *config, const du_param *t) {
    return config->optim.name == DU_OPTIM_MUON && t->def->kind != DU_WEIGHT_VEC &&
           t->def->role != DU_ROLE_EMBED && t->def->role != DU_ROLE_OUTPUT;
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

static void step_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const step_job *job = arg;
    const du_params *params = job->optim->params;
    int64_t begin = i_task * CHUNK, end = chunk_end(params, i_task);
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
    du_err err = DU_OK;
    for (int64_t i = 0; i < params->n && err == DU_OK; i++) {
        const du_param *t = &params->at[i];
        if (is_muon(config, t)) {
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
    du_pool_run(ctx->pool, step_task, &job, err ? 0 : n_chunks(optim->params));
    return err;
}
