#include "model/imatrix.h"

#include <math.h>
#include <string.h>

/* One tensor of the table in one layer. */
typedef struct {
    const du_weight_def *def;
    int64_t layer, n, cols;
    float *sum2;    /* [n, cols]; after a load the mean squares */
    double *counts; /* [n] rows summed */
} entry;

struct du_imatrix {
    const du_model *model;
    du_arena *arena;
    entry *entries;
    int64_t n;
    bool is_mean; /* loaded: sum2 holds means */
};

static bool collects(const du_imatrix *im, const du_weight_def *def, int64_t layer) {
    bool tied_output = def->role == DU_ROLE_OUTPUT && im->model->hp.tied;
    return def->input && !tied_output && du_weight_def_in(def, &im->model->hp, layer);
}

static du_err add_entries(du_imatrix *im, const du_weight_def *def, int64_t layer, du_diag *diag) {
    entry *e = &im->entries[im->n];
    *e = (entry){.def = def,
                 .layer = layer,
                 .n = du_weight_def_n(def, &im->model->hp),
                 .cols = du_dim_value(&im->model->hp, def->cols)};
    e->sum2 = du_arena_alloc(im->arena, (size_t)(e->n * e->cols), sizeof *e->sum2);
    e->counts = du_arena_alloc(im->arena, (size_t)e->n, sizeof *e->counts);
    if (!e->sum2 || !e->counts) {
        return du_fail_nomem(diag, "the importance matrix");
    }
    memset(e->sum2, 0, (size_t)(e->n * e->cols) * sizeof *e->sum2);
    memset(e->counts, 0, (size_t)e->n * sizeof *e->counts);
    im->n++;
    return DU_OK;
}

du_err du_imatrix_new(du_imatrix **out, const du_model *model, du_diag *diag) {
    du_imatrix *im = du_alloc_zero(1, sizeof *im);
    if (!im) {
        return du_fail_nomem(diag, "the importance matrix");
    }
    im->model = model;
    im->arena = du_arena_new(1 << 20);
    size_t most = (size_t)(model->arch->n_weights * model->hp.n_layer);
    im->entries = du_alloc_array(most, sizeof *im->entries);
    du_err err = im->arena && im->entries ? DU_OK : du_fail_nomem(diag, "the importance matrix");
    for (int64_t i = 0; err == DU_OK && i < model->arch->n_weights; i++) {
        const du_weight_def *def = &model->arch->weights[i];
        int64_t n_layer = def->in_layer ? model->hp.n_layer : 1;
        for (int64_t layer = 0; err == DU_OK && layer < n_layer; layer++) {
            if (collects(im, def, layer)) {
                err = add_entries(im, def, layer, diag);
            }
        }
    }
    if (err != DU_OK) {
        du_imatrix_free(im);
        return err;
    }
    *out = im;
    return DU_OK;
}

void du_imatrix_free(du_imatrix *im) {
    if (!im) {
        return;
    }
    du_arena_free(im->arena);
    du_free(im->entries);
    du_free(im);
}

static void add_row(entry *e, int64_t i_matrix, const float *x) {
    float *sum = e->sum2 + i_matrix * e->cols;
    for (int64_t c = 0; c < e->cols; c++) {
        sum[c] += x[c] * x[c];
    }
    e->counts[i_matrix]++;
}

void du_imatrix_tap(void *user, const char *name, int64_t layer, int64_t expert, const float *x,
                    int64_t T, int64_t D) {
    du_imatrix *im = user;
    for (int64_t i = 0; i < im->n; i++) {
        entry *e = &im->entries[i];
        if ((e->def->in_layer ? e->layer : -1) != layer || strcmp(e->def->input, name) != 0) {
            continue;
        }
        for (int64_t t = 0; t < T; t++) {
            if (e->def->kind == DU_WEIGHT_EXPERTS) {
                add_row(e, expert, x + t * D);
                continue;
            }
            for (int64_t h = 0; h < e->n; h++) { /* heads: equal parts of the row */
                add_row(e, h, x + t * D + h * (D / e->n));
            }
        }
    }
}

static void declare(du_gguf_writer *w, const entry *e) {
    char name[DU_WEIGHT_NAME_BYTES], tensor[DU_WEIGHT_NAME_BYTES + 16];
    du_weight_name(name, sizeof name, e->def->gguf, e->layer, -1);
    int64_t dims[2] = {e->cols, e->n}, one[2] = {1, e->n};
    snprintf(tensor, sizeof tensor, "%s.in_sum2", name);
    du_gguf_put_tensor(w, tensor, DU_F32, 2, dims);
    snprintf(tensor, sizeof tensor, "%s.counts", name);
    du_gguf_put_tensor(w, tensor, DU_F32, 2, one);
}

du_err du_imatrix_save(const du_imatrix *im, const char *path, const char *dataset,
                       int64_t n_chunks, int64_t n_chunk_tokens, du_diag *diag) {
    du_gguf_writer *w;
    du_err err = du_gguf_writer_new(&w, diag);
    if (err != DU_OK) {
        return err;
    }
    du_sv name = du_sv_of(dataset);
    du_gguf_put_str(w, "general.type", du_sv_of("imatrix"));
    du_gguf_put_strs(w, "imatrix.datasets", &name, 1);
    du_gguf_put_u32(w, "imatrix.chunk_count", (uint32_t)n_chunks);
    du_gguf_put_u32(w, "imatrix.chunk_size", (uint32_t)n_chunk_tokens);
    for (int64_t i = 0; i < im->n; i++) {
        declare(w, &im->entries[i]);
    }
    err = du_gguf_writer_begin(w, path, diag);
    for (int64_t i = 0; err == DU_OK && i < im->n; i++) {
        const entry *e = &im->entries[i];
        du_gguf_write(w, e->sum2, (size_t)(e->n * e->cols) * sizeof *e->sum2);
        for (int64_t k = 0; k < e->n; k++) {
            float count = (float)e->counts[k];
            du_gguf_write(w, &count, sizeof count);
        }
    }
    if (err == DU_OK) {
        err = du_gguf_writer_commit(w, diag);
    }
    du_gguf_writer_close(w);
    return err;
}

static du_err load_entry(entry *e, const du_gguf *g, bool *found, du_diag *diag) {
    char name[DU_WEIGHT_NAME_BYTES], tensor[DU_WEIGHT_NAME_BYTES + 16];
    du_weight_name(name, sizeof name, e->def->gguf, e->layer, -1);
    snprintf(tensor, sizeof tensor, "%s.in_sum2", name);
    const du_gguf_tensor *sums = du_gguf_tensor_find(g, tensor);
    snprintf(tensor, sizeof tensor, "%s.counts", name);
    const du_gguf_tensor *counts = du_gguf_tensor_find(g, tensor);
    *found = sums && counts;
    if (!*found) {
        return DU_OK;
    }
    size_t n = (size_t)e->n, cols = (size_t)e->cols;
    if (sums->dtype != DU_F32 || counts->dtype != DU_F32 || sums->dims[0] != e->cols ||
        sums->n_bytes != n * cols * sizeof(float) || counts->n_bytes != n * sizeof(float)) {
        return du_fail(diag, DU_EFORMAT, "%s: %s is not of this model's shape [%lld, %lld]",
                       du_gguf_path(g), sums->name, (long long)e->n, (long long)e->cols);
    }
    const float *sum = sums->data, *count = counts->data;
    for (size_t k = 0; k < n; k++) {
        e->counts[k] = count[k] > 0 ? (double)count[k] : 0;
        for (size_t c = 0; c < cols; c++) {
            double mean = e->counts[k] > 0 ? (double)sum[k * cols + c] / e->counts[k] : 0;
            e->sum2[k * cols + c] = isfinite(mean) && mean > 0 ? (float)mean : 0;
        }
    }
    return DU_OK;
}

du_err du_imatrix_load(du_imatrix *im, const char *path, du_diag *diag) {
    du_gguf *g;
    du_err err = du_gguf_open(&g, path, diag);
    if (err != DU_OK) {
        return err;
    }
    bool any = false;
    for (int64_t i = 0; err == DU_OK && i < im->n; i++) {
        bool found;
        err = load_entry(&im->entries[i], g, &found, diag);
        any = any || found;
    }
    if (err == DU_OK && !any) {
        err =
            du_fail(diag, DU_EFORMAT, "%s: holds no importance for any tensor of this model", path);
    }
    im->is_mean = true;
    du_gguf_close(g);
    return err;
}

const float *du_imatrix_find(const du_imatrix *im, const du_out_tensor *t, int64_t i_matrix) {
    DU_CHECK(im->is_mean);
    for (int64_t i = 0; i < im->n; i++) {
        const entry *e = &im->entries[i];
        if (e->def == t->def && e->layer == t->layer) {
            return e->counts[i_matrix] > 0 ? e->sum2 + i_matrix * e->cols : NULL;
        }
    }
    return NULL;
}

void du_imatrix_experts(const du_imatrix *im, int64_t *n_experts, int64_t *n_unused) {
    *n_experts = *n_unused = 0;
    for (int64_t i = 0; i < im->n; i++) {
        const entry *e = &im->entries[i];
        if (e->def->kind != DU_WEIGHT_EXPERTS) {
            continue;
        }
        *n_experts += e->n;
        for (int64_t k = 0; k < e->n; k++) {
            *n_unused += e->counts[k] == 0;
        }
    }
}
