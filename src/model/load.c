/* Loading: from the tensors of either container to the fields of an architecture's weight table.
 *
 * Matrices stay where they lie in the mapped file. Vectors (norms, biases) are converted to f32
 * when stored otherwise; experts become an array of E matrices, whether the file stacks them (GGUF)
 * or names them one by one. */
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "model/model.h"
#include "model/strips.h"

#define DU_ARCH_EXTERN(symbol) extern const du_arch symbol;
#include "model/arch_list.h"
DU_ARCH_LIST(DU_ARCH_EXTERN)
#undef DU_ARCH_EXTERN

#define DU_ARCH_ADDRESS(symbol) &symbol,
static const du_arch *const archs[] = {DU_ARCH_LIST(DU_ARCH_ADDRESS)};
#undef DU_ARCH_ADDRESS
enum { N_ARCHS = sizeof archs / sizeof *archs };

const du_arch *du_arch_at(int64_t i) {
    return i >= 0 && i < N_ARCHS ? archs[i] : NULL;
}

const du_arch *du_arch_of_gguf(du_sv name) {
    for (int64_t i = 0; i < N_ARCHS; i++) {
        if (du_sv_is(name, archs[i]->name)) {
            return archs[i];
        }
    }
    return NULL;
}

const du_arch *du_arch_of_hf(const char *model_type) {
    for (int64_t i = 0; i < N_ARCHS; i++) {
        for (const char *const *type = archs[i]->hf_types; *type; type++) {
            if (strcmp(*type, model_type) == 0) {
                return archs[i];
            }
        }
    }
    return NULL;
}

int64_t du_dim_value(const du_hparams *hp, du_dim dim) {
    switch (dim) {
#define DU_DIM_CASE(name, value)                                                                   \
    case DU_DIM_##name:                                                                            \
        return value;
        DU_DIM_LIST(DU_DIM_CASE)
#undef DU_DIM_CASE
    default:
        return 0;
    }
}

const char *du_role_name(du_role role) {
#define DU_ROLE_TEXT(name, text) text,
    static const char *const names[] = {DU_ROLE_LIST(DU_ROLE_TEXT)};
#undef DU_ROLE_TEXT
    return names[role];
}

const char *du_weight_name(char *out, size_t size, const char *pattern, int64_t layer,
                           int64_t expert) {
    size_t n = 0;
    int64_t next = layer;
    for (const char *p = pattern; *p && n + 24 < size; p++) {
        if (p[0] == '%' && p[1] == 'd') {
            n += (size_t)snprintf(out + n, size - n, "%lld", (long long)next);
            next = expert;
            p++;
        } else {
            out[n++] = *p;
        }
    }
    out[n] = '\0';
    return out;
}

int64_t du_weight_def_n(const du_weight_def *def, const du_hparams *hp) {
    return def->kind == DU_WEIGHT_HEADS     ? hp->n_head
           : def->kind == DU_WEIGHT_EXPERTS ? hp->router.n_expert
                                            : 1;
}

bool du_weight_def_in(const du_weight_def *def, const du_hparams *hp, int64_t layer) {
    bool moe = du_hparams_has_experts(hp, layer);
    switch (def->where) {
    case DU_IN_ALL:
        return true;
    case DU_IN_DENSE:
        return !moe;
    case DU_IN_MOE:
        return moe;
    case DU_IN_MOE_SHARED:
        return moe && hp->n_shared_expert > 0;
    case DU_IN_Q_LATENT:
        return hp->q_rank > 0;
    case DU_IN_Q_PLAIN:
        return hp->q_rank == 0;
    case DU_IN_NEXTN:
        return layer >= hp->n_layer;
    }
    return false;
}

int64_t du_model_n_nextn(const du_model *model) {
    int64_t n = 0, n_max = du_arch_n_layers(model->arch, &model->hp) - model->hp.n_layer;
    while (n < n_max && du_model_block(model, model->hp.n_layer + n)->nextn_proj.data) {
        n++;
    }
    return n;
}

void *du_model_field(const du_model *model, const du_weight_def *def, int64_t layer) {
    /* The caller of a const model only looks; the loader is the one that writes. */
    char *base = def->in_layer ? du_model_layer(model, layer) : (char *)(uintptr_t)&model->top;
    return base + def->field;
}

void *du_model_alloc(du_model *model, size_t n, size_t size_bytes) {
    return du_arena_alloc(model->arena, n, size_bytes);
}

typedef struct {
    du_model *model;
    du_diag *diag;
    bool gguf;
    bool *used; /* [n tensors of the files] */
} loader;

static du_err fail_missing(const loader *l, const char *name) {
    return du_fail(l->diag, DU_EFORMAT, "%s: the tensor %s is missing",
                   du_weights_path(l->model->files), name);
}

/* The tensor of this name, NULL when the file has none, noted as used. */
static const du_weight *find(const loader *l, const char *name) {
    const du_weight *w = du_weights_find(l->model->files, name);
    if (w) {
        l->used[w - du_weights_at(l->model->files, 0)] = true;
    }
    return w;
}

/* The product of the dimensions before the last; -1 when the tensor holds no weights. */
static int64_t leading(const du_weight *w) {
    int64_t lead = 1;
    for (int32_t i = 0; i + 1 < w->n_dims; i++) {
        if (!du_mul_i64(lead, w->dims[i], &lead)) {
            return -1;
        }
    }
    return lead;
}

static du_err check_tensor(const loader *l, const du_weight *w, int64_t rows, int64_t cols) {
    const char *path = du_weights_path(l->model->files);
    if (w->dtype == DU_DTYPE_COUNT) {
        return du_fail(l->diag, DU_EUNSUPPORTED, "%s: %s has type %s, which is no weight type",
                       path, w->name, w->type_name);
    }
    int64_t last = w->n_dims > 0 ? w->dims[w->n_dims - 1] : 1, lead = leading(w);
    if (lead != rows || last != cols) {
        return du_fail(l->diag, DU_EFORMAT, "%s: %s is [%lld, %lld], expected [%lld, %lld]", path,
                       w->name, (long long)lead, (long long)last, (long long)rows, (long long)cols);
    }
    return DU_OK;
}

/* The file's tensor as a matrix: leading dimensions folded into rows, its row count and columns as
 * expected, its number type one of weights. */
static du_err as_matrix(const loader *l, const du_weight *w, int64_t rows, int64_t cols,
                        du_mat *out) {
    du_err err = check_tensor(l, w, rows, cols);
    if (err == DU_OK && cols % du_dtype_get(w->dtype)->block != 0) {
        err = du_fail(l->diag, DU_EFORMAT, "%s: %s: rows of %lld are no multiple of %s's block",
                      du_weights_path(l->model->files), w->name, (long long)cols, w->type_name);
    }
    if (err == DU_OK) {
        *out = (du_mat){.data = w->data,
                        .dtype = w->dtype,
                        .rows = rows,
                        .cols = cols,
                        .row_bytes = du_dtype_row_bytes(w->dtype, cols),
                        .aux = w->scale_inv,
                        .aux_cols = (cols + DU_F8_TILE - 1) / DU_F8_TILE};
    }
    return err;
}

/* A vector in f32, in place where it is stored so. */
static du_err as_vector(const loader *l, const du_weight *w, int64_t n, const float **out) {
    du_err err = check_tensor(l, w, 1, n);
    if (err != DU_OK) {
        return err;
    }
    if (w->dtype == DU_F32) {
        *out = w->data;
        return DU_OK;
    }
    if (du_dtype_is_block(w->dtype) || w->scale_inv) {
        return du_fail(l->diag, DU_EUNSUPPORTED, "%s: %s: a vector of type %s",
                       du_weights_path(l->model->files), w->name, w->type_name);
    }
    float *y = du_model_alloc(l->model, (size_t)n, sizeof *y);
    if (!y) {
        return du_fail_nomem(l->diag, w->name);
    }
    du_dtype_get(w->dtype)->unpack(y, w->data, n);
    *out = y;
    return DU_OK;
}

/* Rows of the entries before `def` that share its fused tensor, and of all of them. */
static void fused_place(const loader *l, const du_weight_def *def, int64_t *before, int64_t *all) {
    const du_arch *arch = l->model->arch;
    *before = *all = 0;
    for (int64_t i = 0; i < arch->n_weights; i++) {
        const du_weight_def *other = &arch->weights[i];
        if (!other->gguf_fused || strcmp(other->gguf_fused, def->gguf_fused) != 0) {
            continue;
        }
        int64_t rows = du_dim_value(&l->model->hp, other->rows);
        *before += other < def ? rows : 0;
        *all += rows;
    }
}

/* An entry's own tensor, which stacks its matrices, or the fused GGUF one that holds them too: rows
 * [before, before + rows) of each `all`. NULL when the file has neither. */
static const du_weight *find_stacked(const loader *l, const du_weight_def *def, int64_t layer,
                                     int64_t *before, int64_t *all) {
    char name[DU_WEIGHT_NAME_BYTES];
    *before = 0;
    *all = du_dim_value(&l->model->hp, def->rows);
    const du_weight *w =
        find(l, du_weight_name(name, sizeof name, l->gguf ? def->gguf : def->hf, layer, -1));
    if (!w && l->gguf && def->gguf_fused) {
        w = find(l, du_weight_name(name, sizeof name, def->gguf_fused, layer, -1));
        fused_place(l, def, before, all);
    }
    return w;
}

/* Its n matrices. */
static du_err slice_stacked(const loader *l, const du_weight *w, int64_t n, int64_t before,
                            int64_t all, int64_t rows, int64_t cols, du_mat *out) {
    du_mat whole;
    du_err err = as_matrix(l, w, n * all, cols, &whole);
    for (int64_t i = 0; err == DU_OK && i < n; i++) {
        out[i] = du_mat_slice(&whole, i * all + before, rows);
    }
    return err;
}

/* Hugging Face's experts, one tensor each. */
static du_err find_each(const loader *l, const du_weight_def *def, int64_t layer, int64_t n,
                        int64_t rows, int64_t cols, du_mat *out, char *name) {
    for (int64_t e = 0; e < n; e++) {
        const du_weight *w = find(l, du_weight_name(name, DU_WEIGHT_NAME_BYTES, def->hf, layer, e));
        du_err err = w ? as_matrix(l, w, rows, cols, &out[e]) : fail_missing(l, name);
        if (err != DU_OK) {
            return err;
        }
    }
    return DU_OK;
}

/* The matrices of one entry; *found tells whether the file has them. */
static du_err load_matrices(const loader *l, const du_weight_def *def, int64_t layer, char *name,
                            bool *found) {
    const du_hparams *hp = &l->model->hp;
    int64_t n = du_weight_def_n(def, hp), before = 0, all = 0;
    int64_t rows = du_dim_value(hp, def->rows), cols = du_dim_value(hp, def->cols);
    bool each = def->kind == DU_WEIGHT_EXPERTS && !l->gguf;
    const du_weight *w = each ? NULL : find_stacked(l, def, layer, &before, &all);
    *found = each || w;
    if (!*found) {
        return DU_OK;
    }
    void *field = du_model_field(l->model, def, layer);
    du_mat *mats = field;
    if (def->kind != DU_WEIGHT_MAT) {
        mats = du_model_alloc(l->model, (size_t)n, sizeof *mats);
        if (!mats) {
            return du_fail_nomem(l->diag, name);
        }
        *(du_mat **)field = mats;
    }
    return each ? find_each(l, def, layer, n, rows, cols, mats, name)
                : slice_stacked(l, w, n, before, all, rows, cols, mats);
}

static du_err load_one(const loader *l, const du_weight_def *def, int64_t layer) {
    const char *pattern = l->gguf ? def->gguf : def->hf;
    if (!pattern || !du_weight_def_in(def, &l->model->hp, layer)) {
        return DU_OK;
    }
    char name[DU_WEIGHT_NAME_BYTES];
    du_weight_name(name, sizeof name, pattern, layer, 0);
    bool found;
    du_err err = DU_OK;
    if (def->kind == DU_WEIGHT_VEC) {
        const du_weight *w = find(l, name);
        found = w != NULL;
        int64_t n = du_dim_value(&l->model->hp, def->rows);
        err = w ? as_vector(l, w, n, du_model_field(l->model, def, layer)) : DU_OK;
    } else {
        err = load_matrices(l, def, layer, name, &found);
    }
    if (err == DU_OK && !found && !def->optional) {
        err = fail_missing(l, name);
    }
    return err;
}

/* May the model be computed without this tensor? A layer behind the trunk may, and what follows
 * from the hyper-parameters. */
static bool is_spare(const loader *l, const char *name) {
    static const char *const derived[] = {".rope_freqs.weight", ".attn_rot_embd.weight",
                                          ".rotary_emb.inv_freq", "_scale_inv"};
    du_sv text = du_sv_of(name);
    const char *prefix = l->gguf ? "blk." : "model.layers.";
    if (!du_sv_starts(text, prefix)) {
        return !du_sv_ends(text, ".bias");
    }
    bool spare = strtoll(name + strlen(prefix), NULL, 10) >= l->model->hp.n_layer;
    for (size_t i = 0; i < sizeof derived / sizeof *derived; i++) {
        spare = spare || du_sv_ends(text, derived[i]);
    }
    return spare;
}

/* A bias or a norm that the architecture has no place for would change the result unseen. */
static du_err check_unused(const loader *l) {
    const du_weights *files = l->model->files;
    for (int64_t i = 0; i < du_weights_n(files); i++) {
        const char *name = du_weights_at(files, i)->name;
        if (!l->used[i] && !is_spare(l, name)) {
            return du_fail(l->diag, DU_EUNSUPPORTED, "%s: %s is no weight of a %s model",
                           du_weights_path(files), name, l->model->arch->name);
        }
    }
    return DU_OK;
}

/* Layers of the trunk, and those behind it that the files hold. */
static int64_t n_layers_of(const loader *l) {
    const du_hparams *hp = &l->model->hp;
    int64_t n = hp->n_layer, n_max = l->gguf ? n : du_arch_n_layers(l->model->arch, hp);
    char name[DU_WEIGHT_NAME_BYTES];
    while (n < n_max && find(l, du_weight_name(name, sizeof name, DU_NEXTN_PROJ_HF, n, 0))) {
        n++;
    }
    return n;
}

static du_err load_weights(const loader *l) {
    du_model *model = l->model;
    int64_t n_layers = n_layers_of(l);
    du_err err = DU_OK;
    for (int64_t i = 0; err == DU_OK && i < model->arch->n_weights; i++) {
        const du_weight_def *def = &model->arch->weights[i];
        int64_t n = def->in_layer ? n_layers : 1;
        for (int64_t layer = 0; err == DU_OK && layer < n; layer++) {
            err = load_one(l, def, layer);
        }
    }
    return err == DU_OK ? check_unused(l) : err;
}

/* "a, b, c" of all architectures, by their names in one of the containers. */
static void list_archs(du_str *out, bool gguf) {
    for (int64_t i = 0; i < N_ARCHS; i++) {
        const char *const name[2] = {archs[i]->name, NULL};
        for (const char *const *type = gguf ? name : archs[i]->hf_types; *type; type++) {
            du_str_addf(out, "%s%s", out->len > 0 ? ", " : "", *type);
        }
    }
}

/* key is what the container calls an architecture. */
static du_err unknown_arch(const char *key, du_sv name, bool gguf, du_diag *diag) {
    du_str known = {0};
    list_archs(&known, gguf);
    du_err err = du_fail(diag, DU_EUNSUPPORTED, "%s '%.*s' is not supported (%s are)", key,
                         (int)(name.len < 60 ? name.len : 60), name.s, du_str_get(&known));
    du_str_done(&known);
    return err;
}

du_err du_arch_read_hf(const du_arch **arch, du_hparams *hp, const json_t *config, du_diag *diag) {
    const char *type = "";
    du_err err = du_json_get_str(config, "model_type", &type, diag);
    if (err != DU_OK) {
        return err;
    }
    const du_arch *found = du_arch_of_hf(type);
    if (!found) {
        return unknown_arch("model_type", du_sv_of(type), false, diag);
    }
    *arch = found;
    return found->read_hf(hp, config, diag);
}

/* The architecture and its hyper-parameters. */
static du_err read_hparams(du_model *model, du_diag *diag) {
    const du_gguf *g = du_weights_gguf(model->files);
    const char *path = du_weights_path(model->files);
    if (g) {
        du_sv name = {"", 0};
        du_err err = du_gguf_get_str(g, "general.architecture", &name, diag);
        if (err != DU_OK) {
            return err;
        }
        model->arch = du_arch_of_gguf(name);
        if (!model->arch) {
            err = unknown_arch("general.architecture", name, true, diag);
            du_diag_context(diag, "%s", path);
            return err;
        }
        err = model->arch->read_gguf(&model->hp, g, diag);
        if (err == DU_OK && model->hp.n_vocab == 0) {
            const du_weight *embed = du_weights_find(model->files, "token_embd.weight");
            model->hp.n_vocab = embed ? embed->dims[0] : 1;
        }
        return err;
    }
    const json_t *config = du_hf_config(du_weights_hf(model->files));
    if (!config) {
        return du_fail(diag, DU_ENOENT, "%s: there is no config.json", path);
    }
    du_err err = du_arch_read_hf(&model->arch, &model->hp, config, diag);
    du_diag_context(diag, "%s/config.json", path);
    return err;
}

static void note_types(du_model *model) {
    for (int64_t i = 0; i < du_weights_n(model->files); i++) {
        du_dtype dtype = du_weights_at(model->files, i)->dtype;
        model->fp8 |= dtype == DU_F8_E4M3;
        model->block_quantised |= dtype != DU_DTYPE_COUNT && du_dtype_is_block(dtype);
    }
}

static du_err acquire_mapped(const du_expert_source *src, int64_t layer, int32_t expert,
                             du_expert *out);

static bool has_weights_in(const du_arch *arch, du_where where) {
    for (int64_t i = 0; i < arch->n_weights; i++) {
        if (arch->weights[i].where == where) {
            return true;
        }
    }
    return false;
}

int64_t du_arch_n_layers(const du_arch *arch, const du_hparams *hp) {
    return hp->n_layer + (has_weights_in(arch, DU_IN_NEXTN) ? hp->n_nextn : 0);
}

/* The architecture has the feed-forward parts, dense or of experts, that the layers call for. */
static du_err check_layers(const du_model *model, du_diag *diag) {
    const du_hparams *hp = &model->hp;
    const du_arch *arch = model->arch;
    if ((hp->n_dense_layer > 0 && !has_weights_in(arch, DU_IN_DENSE)) ||
        (hp->n_dense_layer < hp->n_layer && !has_weights_in(arch, DU_IN_MOE))) {
        return du_fail(diag, DU_EUNSUPPORTED, "%s %s experts is not supported", arch->name,
                       hp->router.n_expert > 0 ? "with" : "without");
    }
    return DU_OK;
}

/* Room for the layers' structs, all of them empty. */
static du_err make_layers(du_model *model, du_diag *diag) {
    const du_hparams *hp = &model->hp;
    du_err err = du_hparams_check(&model->hp, diag);
    err = err ? err : check_layers(model, diag);
    if (err != DU_OK) {
        return err;
    }
    model->arena = du_arena_new(1 << 20);
    size_t layers_bytes = (size_t)du_arch_n_layers(model->arch, hp) * model->arch->layer_bytes;
    model->layers = model->arena ? du_model_alloc(model, layers_bytes, 1) : NULL;
    if (!model->layers) {
        return du_fail_nomem(diag, "the model");
    }
    memset(model->layers, 0, layers_bytes);
    return DU_OK;
}

/* What follows from hyper-parameters and weights. */
static du_err derive(du_model *model, du_diag *diag) {
    const du_hparams *hp = &model->hp;
    float *freq = du_model_alloc(model, (size_t)hp->rope_dim / 2, sizeof *freq);
    if (!freq) {
        return du_fail_nomem(diag, "the model");
    }
    if (hp->tied) {
        model->top.output = model->top.embed;
    }
    du_hparams_rope_freqs(hp, freq, model->top.rope_factors);
    model->rope_freq = freq;
    model->rope_magnitude = (float)du_hparams_rope_magnitude(hp);
    model->attn_scale = (float)du_hparams_attn_scale(hp);
    model->experts = (du_expert_source){.acquire = acquire_mapped, .user = model};
    return DU_OK;
}

/* Everything after the hyper-parameters. */
static du_err load_body(du_model *model, du_diag *diag) {
    du_hparams *hp = &model->hp;
    du_err err = make_layers(model, diag);
    if (err != DU_OK) {
        du_diag_context(diag, "%s", du_weights_path(model->files));
        return err;
    }
    loader l = {model, diag, du_weights_get_kind(model->files) == DU_WEIGHTS_GGUF,
                du_alloc_zero((size_t)du_weights_n(model->files), sizeof(bool))};
    err = l.used ? load_weights(&l) : du_fail_nomem(diag, "the model");
    du_free(l.used);
    if (err != DU_OK) {
        return err;
    }
    /* config.json says whether the matrices are one, and wins over a copy in the file. */
    if (l.gguf || hp->tied) {
        hp->tied = hp->tied || !model->top.output.data;
    } else if (!model->top.output.data) {
        return fail_missing(&l, "lm_head.weight");
    }
    note_types(model);
    err = derive(model, diag);
    if (err == DU_OK && model->arch->finish) {
        err = model->arch->finish(model, diag);
    }
    if (err == DU_OK && du_model_strips_init(model) != DU_OK) {
        err = du_fail_nomem(diag, "the model");
    }
    return err;
}

du_err du_model_load(du_model **out, du_weights *files, du_diag *diag) {
    du_model *model = du_alloc_zero(1, sizeof *model);
    if (!model) {
        du_weights_close(files);
        return du_fail_nomem(diag, "the model");
    }
    model->files = files;
    du_err err = read_hparams(model, diag);
    if (err == DU_OK) {
        err = load_body(model, diag);
    }
    if (err != DU_OK) {
        du_model_close(model);
        return err;
    }
    *out = model;
    return DU_OK;
}

du_err du_model_of_config(du_model **out, const json_t *config, du_model_place_fn *place,
                          void *user, du_diag *diag) {
    du_model *model = du_alloc_zero(1, sizeof *model);
    if (!model) {
        return du_fail_nomem(diag, "the model");
    }
    du_err err = du_arch_read_hf(&model->arch, &model->hp, config, diag);
    err = err ? err : make_layers(model, diag);
    err = err ? err : place(user, model, diag);
    err = err ? err : derive(model, diag);
    if (err != DU_OK) {
        du_model_close(model);
        return err;
    }
    *out = model;
    return DU_OK;
}

du_err du_model_open(du_model **out, const char *path, du_diag *diag) {
    du_weights *files;
    du_err err = du_weights_open(&files, path, diag);
    return err == DU_OK ? du_model_load(out, files, diag) : err;
}

void du_model_close(du_model *model) {
    if (!model) {
        return;
    }
    du_model_strips_done(model);
    du_arena_free(model->arena);
    du_weights_close(model->files);
    du_free(model);
}

/* The mapped file as an expert source: everything is readable at any time. */
static du_err acquire_mapped(const du_expert_source *src, int64_t layer, int32_t expert,
                             du_expert *out) {
    const du_model *model = src->user;
    for (int64_t i = 0; i < model->arch->n_weights; i++) {
        const du_weight_def *def = &model->arch->weights[i];
        if (def->kind != DU_WEIGHT_EXPERTS) {
            continue;
        }
        const du_mat *mats = *(du_mat *const *)du_model_field(model, def, layer);
        if (def->role == DU_ROLE_EXPERT_GATE) {
            out->gate = mats[expert];
        } else if (def->role == DU_ROLE_EXPERT_UP) {
            out->up = mats[expert];
        } else {
            out->down = mats[expert];
        }
    }
    return DU_OK;
}
