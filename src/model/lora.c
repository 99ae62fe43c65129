#include "model/lora.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "base/str.h"
#include "model/lora_int.h"

enum { ALIGN_VALUES = DU_ALIGN / sizeof(float), SAMPLE_BYTES = 4096 };

/* A matrix that can have an adapter. */
static bool is_linear(const du_model *model, const du_weight_def *def, int64_t layer) {
    return def->in_layer && def->hf && def->role != DU_ROLE_ROUTER &&
           (def->kind == DU_WEIGHT_MAT || def->kind == DU_WEIGHT_EXPERTS) &&
           du_weight_def_in(def, &model->hp, layer);
}

/* Hugging Face's name without ".weight", or what else it ends in. */
static const char *module_name(char out[DU_WEIGHT_NAME_BYTES], const du_weight_def *def,
                               int64_t layer, int64_t expert) {
    du_weight_name(out, DU_WEIGHT_NAME_BYTES, def->hf, layer, expert);
    char *dot = strrchr(out, '.');
    DU_CHECK(dot != NULL);
    *dot = '\0';
    return out;
}

static int64_t n_layers(const du_params *p) {
    return p->model->hp.n_layer + p->n_nextn;
}

/* Calls fn for every linear layer, in the order of the table, until it returns false. */
static bool each_linear(const du_params *p,
                        bool (*fn)(void *user, const du_weight_def *def, int64_t layer,
                                   int64_t expert, const char *module),
                        void *user) {
    const du_model *model = p->model;
    char module[DU_WEIGHT_NAME_BYTES];
    bool good = true;
    for (int64_t layer = 0; good && layer < n_layers(p); layer++) {
        for (int64_t i = 0; good && i < model->arch->n_weights; i++) {
            const du_weight_def *def = &model->arch->weights[i];
            if (!is_linear(model, def, layer)) {
                continue;
            }
            bool experts = def->kind == DU_WEIGHT_EXPERTS;
            int64_t n = experts ? model->hp.router.n_expert : 1;
            for (int64_t e = 0; good && e < n; e++) {
                int64_t expert = experts ? e : -1;
                good = fn(user, def, layer, expert, module_name(module, def, layer, expert));
            }
        }
    }
    return good;
}

static du_mat *matrix_of(const du_model *model, const du_weight_def *def, int64_t layer,
                         int64_t expert) {
    void *field = du_model_field(model, def, layer);
    return expert >= 0 ? *(du_mat **)field + expert : field;
}

typedef struct {
    du_params *params;
    const du_lora *lora;
    size_t cap;
} listing;

static void add_values(du_params *p, du_param *t, int64_t rows, int64_t cols) {
    t->rows = rows;
    t->cols = cols;
    t->offset = p->n_values;
    p->n_weights += rows * cols;
    p->n_values += (rows * cols + ALIGN_VALUES - 1) / ALIGN_VALUES * ALIGN_VALUES;
}

static bool add_module(void *user, const du_weight_def *def, int64_t layer, int64_t expert,
                       const char *module) {
    listing *l = user;
    du_params *p = l->params;
    if (!l->lora->wants || !l->lora->wants(l->lora->user, module)) {
        return true;
    }
    const du_mat *w = matrix_of(p->model, def, layer, expert);
    for (int k = 0; k < 2; k++) {
        if (!du_grow((void **)&p->at, &l->cap, (size_t)p->n, sizeof *p->at)) {
            return false;
        }
        du_param *t = &p->at[p->n++];
        *t = (du_param){.def = def, .layer = layer, .expert = expert};
        snprintf(t->name, sizeof t->name, DU_LORA_PREFIX "%s%s", module,
                 k == 0 ? DU_LORA_A : DU_LORA_B);
        add_values(p, t, k == 0 ? l->lora->rank : w->rows, k == 0 ? w->cols : l->lora->rank);
    }
    p->n_adapters++;
    return true;
}

/* The bias that chooses experts, if the router has one that is wanted. */
static bool add_bias(listing *l, const du_weight_def *def, int64_t layer) {
    du_params *p = l->params;
    const du_hparams *hp = &p->model->hp;
    char module[DU_WEIGHT_NAME_BYTES];
    if (!def->chooses || !def->hf || !du_weight_def_in(def, hp, layer) ||
        hp->router.score == DU_SCORE_SOFTMAX || !l->lora->wants_bias ||
        !l->lora->wants_bias(l->lora->user, module_name(module, def, layer, -1))) {
        return true;
    }
    if (!du_grow((void **)&p->at, &l->cap, (size_t)p->n, sizeof *p->at)) {
        return false;
    }
    char name[DU_WEIGHT_NAME_BYTES];
    du_param *t = &p->at[p->n++];
    *t = (du_param){.def = def, .layer = layer, .expert = -1};
    snprintf(t->name, sizeof t->name, DU_LORA_PREFIX "%.200s",
             du_weight_name(name, sizeof name, def->hf, layer, -1));
    add_values(p, t, 1, du_dim_value(hp, def->rows));
    return true;
}

static bool add_biases(listing *l) {
    const du_arch *arch = l->params->model->arch;
    bool good = true;
    for (int64_t layer = 0; good && layer < n_layers(l->params); layer++) {
        for (int64_t i = 0; good && i < arch->n_weights; i++) {
            good = add_bias(l, &arch->weights[i], layer);
        }
    }
    return good;
}

/* Matrices that the files hold in another form only. */
static du_err compose_all(du_model *model, du_diag *diag) {
    for (int64_t layer = 0; layer < model->hp.n_layer; layer++) {
        for (int64_t i = 0; model->arch->compose && i < model->arch->n_weights; i++) {
            const du_weight_def *def = &model->arch->weights[i];
            if (!is_linear(model, def, layer) || !def->read_only) {
                continue;
            }
            du_mat *w = matrix_of(model, def, layer, -1);
            if (w->data) {
                continue;
            }
            int64_t rows = du_dim_value(&model->hp, def->rows);
            int64_t cols = du_dim_value(&model->hp, def->cols);
            float *values = du_model_alloc(model, (size_t)(rows * cols), sizeof *values);
            if (!values || model->arch->compose(model, def, layer, values) != DU_OK) {
                return du_fail_nomem(diag, "keys and values of latent attention");
            }
            *w = (du_mat){.data = values,
                          .dtype = DU_F32,
                          .rows = rows,
                          .cols = cols,
                          .row_bytes = (size_t)cols * sizeof *values};
        }
    }
    return DU_OK;
}

/* The values, and the matrices' adapters in them. */
static du_err place(du_params *p, const du_lora *lora, du_diag *diag) {
    p->n_values = p->n_values > 0 ? p->n_values : ALIGN_VALUES;
    p->n_common = p->n_values;
    p->values = du_mem_reserve((size_t)p->n_values * sizeof(float));
    p->adapters = du_alloc_zero((size_t)p->n_adapters + 1, sizeof *p->adapters);
    if (!p->values || !p->adapters) {
        return du_fail_nomem(diag, "the adapters");
    }
    p->shown = p->values;
    for (int64_t i = 0; i < p->n_adapters; i++) {
        const du_param *a = &p->at[2 * i], *b = a + 1;
        du_adapter *d = &p->adapters[i];
        *d = (du_adapter){.a = p->values + a->offset,
                          .b = p->values + b->offset,
                          .rank = lora->rank,
                          .scale = (float)lora->scale};
        matrix_of(p->model, a->def, a->layer, a->expert)->adapter = d;
    }
    for (int64_t i = 2 * p->n_adapters; i < p->n; i++) {
        const du_param *t = &p->at[i];
        const float **field = du_model_field(p->model, t->def, t->layer);
        if (*field) {
            memcpy(p->values + t->offset, *field, (size_t)t->cols * sizeof **field);
        }
        *field = p->values + t->offset;
    }
    return DU_OK;
}

du_err du_lora_new(du_params **out, du_model *model, const du_lora *lora, du_diag *diag) {
    du_params *p = du_alloc_zero(1, sizeof *p);
    if (!p) {
        du_model_close(model);
        return du_fail_nomem(diag, "the adapters");
    }
    p->model = model;
    p->n_nextn = lora->next ? du_model_n_nextn(model) : 0;
    listing l = {p, lora, 0};
    du_err err = compose_all(model, diag);
    if (err == DU_OK && (!each_linear(p, add_module, &l) || !add_biases(&l))) {
        err = du_fail_nomem(diag, "the list of adapters");
    }
    err = err ? err : place(p, lora, diag);
    if (err != DU_OK) {
        du_params_free(p);
        return err;
    }
    *out = p;
    return DU_OK;
}

void du_lora_init(du_params *p, uint64_t seed) {
    for (int64_t i = 0; i < p->n_adapters; i++) {
        const du_param *a = &p->at[2 * i], *b = a + 1;
        memset(p->values + b->offset, 0, (size_t)(b->rows * b->cols) * sizeof *p->values);
        double bound = 1 / sqrt((double)a->cols);
        du_rng rng;
        du_rng_init(&rng, du_checksum(seed, a->name, strlen(a->name)));
        for (int64_t k = 0; k < a->rows * a->cols; k++) {
            p->values[a->offset + k] = (float)(bound * (2 * du_rng_uniform(&rng) - 1));
        }
    }
}

bool du_lora_next_target(const char **list, du_sv *name) {
    if (!*list) {
        return false;
    }
    size_t n = strcspn(*list, ",");
    *name = du_sv_trim((du_sv){*list, n});
    *list = (*list)[n] == ',' ? *list + n + 1 : NULL;
    return true;
}

bool du_lora_is_all(const char *targets) {
    du_sv all = du_sv_trim(du_sv_of(targets));
    return all.len == 0 || du_sv_is(all, "all-linear");
}

static bool chooses(du_sv name, const char *module) {
    du_sv text = du_sv_of(module);
    size_t n = text.len - name.len;
    return name.len > 0 && name.len <= text.len && memcmp(text.s + n, name.s, name.len) == 0 &&
           (n == 0 || text.s[n - 1] == '.');
}

bool du_lora_is_target(const char *targets, const char *module) {
    du_sv name;
    bool found = du_lora_is_all(targets);
    while (!found && du_lora_next_target(&targets, &name)) {
        found = chooses(name, module);
    }
    return found;
}

static bool chooses_any(du_sv name, const du_params *p) {
    for (int64_t i = 0; i < p->n_adapters; i++) {
        char module[DU_WEIGHT_NAME_BYTES];
        const du_param *a = &p->at[2 * i];
        if (chooses(name, module_name(module, a->def, a->layer, a->expert))) {
            return true;
        }
    }
    return false;
}

du_err du_lora_check_targets(const char *targets, const du_params *p, du_diag *diag) {
    du_sv name;
    bool all = du_lora_is_all(targets);
    while (!all && du_lora_next_target(&targets, &name)) {
        if (!chooses_any(name, p)) {
            return du_fail(diag, DU_EINVAL,
                           "lora.targets: no linear layer of a %s model is called '%.*s' (the "
                           "router and the output matrix have no adapters)",
                           p->model->arch->name, (int)(name.len < 60 ? name.len : 60), name.s);
        }
    }
    return DU_OK;
}

bool du_lora_each_matrix(const du_params *p, du_lora_mat_fn *fn, void *user) {
    const du_model *model = p->model;
    bool good = true;
    for (int64_t layer = -1; good && layer < n_layers(p); layer++) {
        for (int64_t i = 0; good && i < model->arch->n_weights; i++) {
            const du_weight_def *def = &model->arch->weights[i];
            bool experts = def->kind == DU_WEIGHT_EXPERTS;
            bool tied = def->role == DU_ROLE_OUTPUT && model->hp.tied;
            if (def->in_layer != (layer >= 0) || !def->hf || tied ||
                (def->kind != DU_WEIGHT_MAT && !experts) ||
                !du_weight_def_in(def, &model->hp, layer)) {
                continue;
            }
            int64_t n = experts ? model->hp.router.n_expert : 1;
            for (int64_t e = 0; good && e < n; e++) {
                du_mat *w = matrix_of(model, def, layer, experts ? e : -1);
                good = !w->data || fn(user, def, layer < 0 ? 0 : layer, w);
            }
        }
    }
    return good;
}

uint64_t du_lora_base_sum(const du_params *p) {
    const du_weights *files = p->model->files;
    uint64_t sum = 0;
    for (int64_t i = 0; i < du_weights_n(files); i++) {
        const du_weight *w = du_weights_at(files, i);
        size_t n = w->n_bytes < SAMPLE_BYTES ? w->n_bytes : SAMPLE_BYTES;
        sum = du_checksum(sum, w->name, strlen(w->name));
        sum = du_checksum(sum, w->type_name, strlen(w->type_name));
        sum = du_checksum(sum, w->dims, sizeof w->dims);
        sum = du_checksum(sum, w->data, n);
        sum = du_checksum(sum, (const char *)w->data + w->n_bytes - n, n);
    }
    return sum;
}

/* The sum of a matrix and its adapter instead of both. */
static du_err fold(du_model *model, du_mat *w, du_diag *diag) {
    float *values = du_model_alloc(model, (size_t)(w->rows * w->cols), sizeof *values);
    if (!values) {
        return du_fail_nomem(diag, "a merged matrix");
    }
    for (int64_t row = 0; row < w->rows; row++) {
        du_mat_unpack_row(values + row * w->cols, w, row);
        du_mat_adapt_row(values + row * w->cols, w, row);
    }
    *w = (du_mat){.data = values,
                  .dtype = DU_F32,
                  .rows = w->rows,
                  .cols = w->cols,
                  .row_bytes = (size_t)w->cols * sizeof *values};
    return DU_OK;
}

/* What an architecture derives from others is derived again. */
static du_err fold_each(du_params *p, bool all, du_diag *diag) {
    du_model *model = p->model;
    bool any = false;
    du_err err = DU_OK;
    for (int64_t i = 0; i < p->n_adapters && err == DU_OK; i++) {
        const du_param *t = &p->at[2 * i];
        if (all || t->def->read_only) {
            err = fold(model, matrix_of(model, t->def, t->layer, t->expert), diag);
        }
        for (int64_t k = 0; t->def->read_only && k < model->arch->n_weights; k++) {
            const du_weight_def *def = &model->arch->weights[k];
            if (def->kind == DU_WEIGHT_HEADS) { /* forms made from it */
                *(du_mat **)du_model_field(model, def, t->layer) = NULL;
            }
        }
        any = any || t->def->read_only;
    }
    return err || !any ? err : model->arch->finish(model, diag);
}

du_err du_lora_fold_derived(du_params *p, du_diag *diag) {
    return fold_each(p, false, diag);
}

size_t du_lora_folded_bytes(const du_params *p) {
    size_t n_bytes = 0;
    for (int64_t i = 0; i < p->n_adapters; i++) {
        n_bytes += (size_t)(p->at[2 * i + 1].rows * p->at[2 * i].cols) * sizeof(float);
    }
    return n_bytes;
}

/* The model's own copies of biases that lie among the values. */
static du_err keep_biases(const du_params *p, du_diag *diag) {
    for (int64_t i = 2 * p->n_adapters; i < p->n; i++) {
        const du_param *t = &p->at[i];
        float *bias = du_model_alloc(p->model, (size_t)t->cols, sizeof *bias);
        if (!bias) {
            return du_fail_nomem(diag, "biases of routers");
        }
        memcpy(bias, p->values + t->offset, (size_t)t->cols * sizeof *bias);
        *(const float **)du_model_field(p->model, t->def, t->layer) = bias;
    }
    return DU_OK;
}

du_err du_lora_fold(du_model **out, du_params *p, du_diag *diag) {
    du_err err = fold_each(p, true, diag);
    err = err ? err : keep_biases(p, diag);
    if (err == DU_OK) {
        *out = p->model;
        p->model = NULL;
    }
    du_params_free(p);
    return err;
}
