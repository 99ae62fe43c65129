#include "model/params.h"

#include <math.h>

#include "base/hash.h"
#include "base/rng.h"
#include "model/convert_int.h"
#include "nn/spread.h"

enum {
    ALIGN_VALUES = DU_ALIGN / sizeof(float),
    TENSORS_MAX = 1 << 19 /* DeepSeek-V3 has 46,000 */
};
static const int64_t values_max = (int64_t)1 << 48;

static du_err add_param(du_params *p, size_t *cap, const du_hparams *hp, const du_weight_def *def,
                        int64_t layer, int64_t expert, du_diag *diag) {
    if (p->n >= TENSORS_MAX || p->n_weights > values_max) {
        return du_fail(diag, DU_ELIMIT, "more than %d tensors, or 2^48 weights: no such model",
                       TENSORS_MAX);
    }
    if (!du_grow((void **)&p->at, cap, (size_t)p->n, sizeof *p->at)) {
        return du_fail_nomem(diag, "the list of weights");
    }
    du_param *t = &p->at[p->n++];
    int64_t n = du_dim_value(hp, def->rows);
    bool vector = def->kind == DU_WEIGHT_VEC;
    *t = (du_param){.def = def, .layer = layer, .expert = expert};
    t->rows = vector ? 1 : n;
    t->cols = vector ? n : du_dim_value(hp, def->cols);
    du_weight_name(t->name, sizeof t->name, def->hf, layer, expert);
    p->n_weights += t->rows * t->cols;
    return DU_OK;
}

static int64_t room_of(const du_param *t) {
    return (t->rows * t->cols + ALIGN_VALUES - 1) / ALIGN_VALUES * ALIGN_VALUES;
}

/* Gives all tensors their places. The experts of a layer have the same shapes and stand one after
 * the other. */
static void place_tensors(du_params *p, int64_t n_expert) {
    int64_t per_expert = 0, at = 0;
    for (int64_t i = 0; i < p->n; i++) {
        du_param *t = &p->at[i];
        if (t->expert < 0) {
            t->offset = p->n_common;
            p->n_common += room_of(t);
        }
        per_expert += t->expert == 0 ? room_of(t) : 0;
    }
    for (int64_t i = 0; i < p->n; i++) {
        du_param *t = &p->at[i];
        if (t->expert >= 0) {
            t->offset = p->n_common + t->expert * per_expert + at;
            at += t->expert + 1 == n_expert ? room_of(t) : 0;
        }
    }
    p->n_values = p->n_common + n_expert * per_expert;
    p->e_end = n_expert;
}

/* Has a training model this weight? Not the forms that only GGUF files have, nor a bias that only
 * chooses experts unless the router uses one. */
static bool has_param(const du_hparams *hp, const du_weight_def *def, int64_t layer) {
    bool tied_output = def->role == DU_ROLE_OUTPUT && hp->tied;
    return def->hf && !tied_output && du_weight_def_in(def, hp, layer) &&
           !(def->chooses && hp->router.score == DU_SCORE_SOFTMAX);
}

static du_err list_params(du_params *p, const du_arch *arch, const du_hparams *hp, du_diag *diag) {
    size_t cap = 0;
    du_err err = DU_OK;
    for (int64_t layer = -1; layer < du_arch_n_layers(arch, hp); layer++) {
        for (int64_t i = 0; i < arch->n_weights; i++) {
            const du_weight_def *def = &arch->weights[i];
            if (def->in_layer != (layer >= 0) || !has_param(hp, def, layer)) {
                continue;
            }
            bool experts = def->kind == DU_WEIGHT_EXPERTS;
            int64_t n = experts ? hp->router.n_expert : 1;
            for (int64_t e = 0; err == DU_OK && e < n; e++) {
                err = add_param(p, &cap, hp, def, layer < 0 ? 0 : layer, experts ? e : -1, diag);
            }
        }
    }
    if (err == DU_OK) {
        place_tensors(p, hp->router.n_expert);
    }
    return err;
}

/* Lets the table's field of a tensor point to its values. NULL: they are not here. */
static void place_param(const du_model *model, const du_param *t, const float *values) {
    void *field = du_model_field(model, t->def, t->layer);
    if (t->def->kind == DU_WEIGHT_VEC) {
        *(const float **)field = values;
        return;
    }
    du_mat *m = t->def->kind == DU_WEIGHT_EXPERTS ? *(du_mat **)field + t->expert : field;
    *m = (du_mat){.data = values,
                  .dtype = DU_F32,
                  .rows = t->rows,
                  .cols = t->cols,
                  .row_bytes = (size_t)t->cols * sizeof(float)};
}

static void place_block(du_model *model, du_params *p, const float *block) {
    for (int64_t i = 0; i < p->n; i++) {
        const du_param *t = &p->at[i];
        place_param(model, t, du_params_holds(p, t) ? block + t->offset : NULL);
    }
    if (model->hp.tied) {
        model->top.output = model->top.embed;
    }
    p->shown = block;
}

void du_params_point(du_params *p, const float *block) {
    if (!p->adapters) {
        place_block(p->model, p, block);
    }
}

void du_params_spread(du_params *p, int64_t i, int64_t n) {
    int64_t E = p->model->hp.router.n_expert;
    p->e_first = du_spread_first(E, i, n);
    p->e_end = du_spread_first(E, i + 1, n);
    place_block(p->model, p, p->values);
}

int64_t du_params_n_here(const du_params *p) {
    int64_t E = p->model->hp.router.n_expert, of_experts = p->n_values - p->n_common;
    return p->n_common + (E > 0 ? of_experts / E * (p->e_end - p->e_first) : 0);
}

/* The lists of experts that the table's fields want. */
static du_err make_lists(du_model *model, const du_params *p, du_diag *diag) {
    for (int64_t i = 0; i < p->n; i++) {
        const du_param *t = &p->at[i];
        du_mat **list = t->expert >= 0 ? du_model_field(model, t->def, t->layer) : NULL;
        if (list && !*list) {
            *list = du_model_alloc(model, (size_t)model->hp.router.n_expert, sizeof **list);
        }
        if (list && !*list) {
            return du_fail_nomem(diag, "the model");
        }
    }
    return DU_OK;
}

static du_err place_all(void *user, du_model *model, du_diag *diag) {
    du_params *p = user;
    du_err err = list_params(p, model->arch, &model->hp, diag);
    if (err != DU_OK) {
        return err;
    }
    size_t n_bytes;
    if (!du_mul_size((size_t)p->n_values, sizeof(float), &n_bytes) ||
        !(p->values = du_mem_reserve(n_bytes))) {
        return du_fail(diag, DU_ENOMEM, "no memory for %lld million weights",
                       (long long)(p->n_weights / 1000000));
    }
    err = make_lists(model, p, diag);
    if (err == DU_OK) {
        place_block(model, p, p->values);
        p->n_nextn = du_model_n_nextn(model);
    }
    return err;
}

du_err du_params_new(du_params **out, const json_t *config, du_diag *diag) {
    du_params *p = du_alloc_zero(1, sizeof *p);
    if (!p) {
        return du_fail_nomem(diag, "the weights");
    }
    du_err err = du_model_of_config(&p->model, config, place_all, p, diag);
    if (err != DU_OK) {
        du_params_free(p);
        return err;
    }
    *out = p;
    return DU_OK;
}

void du_params_free(du_params *p) {
    if (!p) {
        return;
    }
    du_model_close(p->model);
    du_mem_unreserve(p->values, (size_t)p->n_values * sizeof(float));
    du_free(p->at);
    du_free(p->adapters);
    du_free(p);
}

static du_dtype choose_f32(void *user, const du_out_tensor *t) {
    (void)user;
    (void)t;
    return DU_F32;
}

typedef struct {
    uint8_t *at;
} copy;

static void put_values(void *writer, const void *bytes, size_t n) {
    copy *c = writer;
    memcpy(c->at, bytes, n);
    c->at += n;
}

/* The entry of that name; searched from *next on, since both lists have the table's order. */
static const du_plan_entry *find_entry(const du_plan *plan, const char *name, size_t *next) {
    for (size_t i = 0; i < plan->n; i++) {
        size_t at = (*next + i) % plan->n;
        if (strcmp(plan->entries[at].name, name) == 0) {
            *next = at + 1;
            return &plan->entries[at];
        }
    }
    return NULL;
}

du_err du_params_load(du_params *p, const du_model *from, du_diag *diag) {
    du_plan plan;
    du_convert_stats stats;
    du_convert_params params = {.choose = choose_f32};
    size_t next = 0;
    du_err err = du_plan_make(&plan, from, &params, false, &stats, diag);
    for (int64_t i = 0; err == DU_OK && i < p->n; i++) {
        const du_param *t = &p->at[i];
        const du_plan_entry *e = find_entry(&plan, t->name, &next);
        copy to = {(uint8_t *)(p->values + t->offset)};
        if (e && e->n_bytes == t->rows * t->cols * (int64_t)sizeof(float)) {
            err = du_params_holds(p, t) ? du_plan_write(&plan, e, put_values, &to, diag) : DU_OK;
        } else if (e || (!t->def->optional && t->layer < p->model->hp.n_layer)) {
            err = du_fail(diag, DU_EFORMAT, "%s: %s is %s", du_weights_path(from->files), t->name,
                          e ? "of another shape" : "missing");
        }
    }
    du_plan_done(&plan);
    return err;
}

void du_params_init(du_params *p, double deviation, uint64_t seed) {
    for (int64_t i = 0; i < p->n; i++) {
        const du_param *t = &p->at[i];
        float *w = p->values + t->offset;
        du_rng rng;
        du_rng_init(&rng, du_checksum(seed, t->name, strlen(t->name)));
        for (int64_t k = 0; du_params_holds(p, t) && k < t->rows * t->cols; k++) {
            bool vector = t->def->kind == DU_WEIGHT_VEC;
            w[k] = !vector                        ? (float)(deviation * du_rng_normal(&rng))
                   : t->def->role == DU_ROLE_NORM ? 1.0f
                                                  : 0.0f;
        }
    }
}
