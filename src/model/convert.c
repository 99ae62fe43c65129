/* Producing output tensors.
 *
 * A tensor is written in pieces of rows, each piece in three steps: rows are unpacked to f32,
 * packed into the type wanted (in parallel over rows) and handed to the container's writer in
 * order. Rows that keep their type are copied as they are. */
#include "model/convert.h"

#include "model/convert_int.h"

du_dtype du_choose_keep(void *user, const du_out_tensor *t) {
    (void)user;
    if (t->source == DU_F8_E4M3) {
        return DU_BF16;
    }
    return t->source;
}

/* The matrices behind an entry; NULL when the model does not hold it as a matrix. */
static const du_mat *matrices_of(const du_model *model, const du_weight_def *def, int64_t layer) {
    void *field = du_model_field(model, def, layer);
    if (def->kind == DU_WEIGHT_MAT) {
        const du_mat *m = field;
        return m->data ? m : NULL;
    }
    return *(du_mat *const *)field;
}

/* The type of a matrix in the model's files. K_h^T made of FP8 values is held in F32. */
static du_dtype source_type(const du_model *model, const du_mat *m) {
    bool derived = m->data && du_arena_holds(model->arena, m->data);
    return derived && m->dtype == DU_F32 && model->fp8 ? DU_F8_E4M3 : m->dtype;
}

/* The type for an entry, with what the container and the row length allow. */
static du_dtype choose(const du_plan *plan, const du_out_tensor *t, bool gguf) {
    if (t->def->kind == DU_WEIGHT_VEC || (gguf && t->def->role == DU_ROLE_ROUTER)) {
        return DU_F32;
    }
    const du_convert_params *p = plan->params;
    du_dtype type = p->choose ? p->choose(p->user, t) : du_choose_keep(NULL, t);
    if (gguf) {
        return du_dtype_fallback(type, t->cols);
    }
    return du_dtype_is_block(type) ? DU_F32 : type;
}

static bool add_entry(du_plan *plan, const du_weight_def *def, int64_t layer, int64_t expert,
                      bool gguf) {
    const du_model *model = plan->model;
    const du_hparams *hp = &model->hp;
    if (!du_grow((void **)&plan->entries, &plan->cap, plan->n, sizeof *plan->entries)) {
        return false;
    }
    du_plan_entry *e = &plan->entries[plan->n];
    *e = (du_plan_entry){.permute = def->order != DU_ROWS_SAME &&
                                    gguf != (hp->rope_layout == DU_ROPE_NORM),
                         .to_interleaved = gguf};
    du_weight_name(e->name, sizeof e->name, gguf ? def->gguf : def->hf, layer, expert);
    e->out = (du_out_tensor){.def = def,
                             .layer = layer,
                             .rows = du_dim_value(hp, def->rows),
                             .cols = def->kind == DU_WEIGHT_VEC ? 1 : du_dim_value(hp, def->cols),
                             .n = expert >= 0 ? 1 : du_weight_def_n(def, hp),
                             .source = DU_F32};
    if (def->kind == DU_WEIGHT_VEC) {
        e->vector = *(const float *const *)du_model_field(model, def, layer);
        if (!e->vector) {
            return true;
        }
    } else {
        e->mats = matrices_of(model, def, layer);
        if (!e->mats && !def->read_only) {
            return true; /* optional and absent */
        }
        if (e->mats) {
            e->mats += expert > 0 ? expert : 0;
            e->out.source = source_type(model, e->mats);
        }
    }
    e->out.name = e->name;
    e->type = choose(plan, &e->out, gguf);
    e->out.name = NULL; /* entries may move; set again when used */
    e->n_bytes = (def->kind == DU_WEIGHT_VEC
                      ? e->out.rows * (int64_t)sizeof(float)
                      : e->out.n * e->out.rows * (int64_t)du_dtype_row_bytes(e->type, e->out.cols));
    plan->bytes_all += e->n_bytes;
    plan->n++;
    return true;
}

static bool add_def(du_plan *plan, const du_weight_def *def, int64_t layer, bool gguf) {
    const du_hparams *hp = &plan->model->hp;
    bool tied_output = def->role == DU_ROLE_OUTPUT && hp->tied;
    if (!(gguf ? def->gguf : def->hf) || (gguf && def->read_only) || tied_output ||
        !du_weight_def_in(def, hp, layer)) {
        return true;
    }
    if (gguf || def->kind != DU_WEIGHT_EXPERTS) {
        return add_entry(plan, def, layer, -1, gguf);
    }
    for (int64_t e = 0; e < hp->router.n_expert; e++) {
        if (!add_entry(plan, def, layer, e, gguf)) {
            return false;
        }
    }
    return true;
}

du_err du_plan_make(du_plan *plan, const du_model *model, const du_convert_params *params,
                    bool gguf, du_convert_stats *stats, du_diag *diag) {
    *plan = (du_plan){.model = model, .params = params, .stats = stats};
    *stats = (du_convert_stats){0};
    const du_arch *arch = model->arch;
    bool good = true;
    int64_t n_layers = model->hp.n_layer + (gguf ? 0 : du_model_n_nextn(model));
    for (int64_t layer = -1; good && layer < n_layers; layer++) {
        for (int64_t i = 0; good && i < arch->n_weights; i++) {
            const du_weight_def *def = &arch->weights[i];
            if (def->in_layer == (layer >= 0)) {
                good = add_def(plan, def, layer < 0 ? 0 : layer, gguf);
            }
        }
    }
    for (size_t i = 0; i < plan->n; i++) {
        plan->entries[i].out.name = plan->entries[i].name;
    }
    return good ? DU_OK : du_fail_nomem(diag, "the list of tensors");
}

void du_plan_done(du_plan *plan) {
    du_free(plan->entries);
    plan->entries = NULL;
}

/* Row r of the output is this row of the source. */
static int64_t source_row(const du_plan_entry *e, const du_hparams *hp, int64_t r) {
    return e->permute ? du_rope_row(hp, r, e->to_interleaved) : r;
}

/* A piece of rows on its way from a matrix to the writer. */
typedef struct {
    const du_plan_entry *e;
    const du_hparams *hp;
    const du_mat *m;
    const float *composed; /* [rows, cols] instead of m */
    const float *importance;
    float *f32; /* [rows of the piece, cols] */
    uint8_t *packed;
    size_t row_bytes;
    int64_t row0;
} piece;

static void make_row(void *arg, int64_t i, int64_t i_thread) {
    (void)i_thread;
    const piece *p = arg;
    int64_t cols = p->e->out.cols, row = source_row(p->e, p->hp, p->row0 + i);
    uint8_t *to = p->packed + (size_t)i * p->row_bytes;
    if (p->m && p->m->dtype == p->e->type && !p->m->aux && !p->m->adapter) {
        memcpy(to, du_mat_row(p->m, row), p->row_bytes);
        return;
    }
    float *y = p->f32 + i * cols;
    if (p->m) {
        du_mat_unpack_row(y, p->m, row);
        du_mat_adapt_row(y, p->m, row);
    } else {
        memcpy(y, p->composed + row * cols, (size_t)cols * sizeof *y);
    }
    du_dtype_get(p->e->type)->pack(to, y, cols, p->importance);
}

enum { PIECE_BYTES = 4 << 20 };

static du_err write_matrix(du_plan *plan, piece *p, du_put_bytes_fn *put, void *writer,
                           du_diag *diag) {
    const du_convert_params *params = plan->params;
    int64_t rows = p->e->out.rows, cols = p->e->out.cols;
    int64_t per_piece = PIECE_BYTES / (cols * (int64_t)sizeof(float));
    per_piece = per_piece < 1 ? 1 : per_piece < rows ? per_piece : rows;
    for (p->row0 = 0; p->row0 < rows; p->row0 += per_piece) {
        int64_t n = rows - p->row0 < per_piece ? rows - p->row0 : per_piece;
        du_pool_run(params->pool, make_row, p, n);
        put(writer, p->packed, (size_t)n * p->row_bytes);
        plan->bytes_done += n * (int64_t)p->row_bytes;
        if (params->progress && params->progress(params->user, plan->bytes_done, plan->bytes_all)) {
            return du_fail(diag, DU_ECANCELLED, "cancelled");
        }
    }
    return DU_OK;
}

static void count(du_plan *plan, const du_plan_entry *e) {
    du_convert_stats *s = plan->stats;
    s->n_tensors++;
    s->n_params += e->out.n * e->out.rows * e->out.cols;
    s->bytes += e->n_bytes;
    s->bytes_of[e->type] += e->n_bytes;
    s->from_quantised |= du_dtype_is_block(e->out.source) && e->type != e->out.source;
}

static du_err write_matrices(du_plan *plan, const du_plan_entry *e, float *composed,
                             du_put_bytes_fn *put, void *writer, du_diag *diag) {
    const du_convert_params *params = plan->params;
    int64_t cols = e->out.cols, per_piece = PIECE_BYTES / (cols * (int64_t)sizeof(float)) + 1;
    per_piece = per_piece < e->out.rows ? per_piece : e->out.rows;
    piece p = {.e = e, .hp = &plan->model->hp, .composed = composed};
    p.row_bytes = du_dtype_row_bytes(e->type, cols);
    p.f32 = du_alloc_array((size_t)(per_piece * cols), sizeof(float));
    p.packed = du_alloc_array((size_t)per_piece, p.row_bytes);
    du_err err = p.f32 && p.packed ? DU_OK : du_fail_nomem(diag, e->name);
    for (int64_t i = 0; err == DU_OK && i < e->out.n; i++) {
        p.m = composed ? NULL : &e->mats[i];
        p.importance = params->importance ? params->importance(params->user, &e->out, i) : NULL;
        err = write_matrix(plan, &p, put, writer, diag);
    }
    du_free(p.f32);
    du_free(p.packed);
    return err;
}

static du_err compose(const du_model *model, const du_plan_entry *e, float *out, du_diag *diag) {
    du_err err = model->arch->compose(model, e->out.def, e->out.layer, out);
    return err ? du_fail_nomem(diag, e->name) : DU_OK;
}

du_err du_plan_write(du_plan *plan, const du_plan_entry *e, du_put_bytes_fn *put, void *writer,
                     du_diag *diag) {
    count(plan, e);
    if (e->vector) {
        put(writer, e->vector, (size_t)e->n_bytes);
        plan->bytes_done += e->n_bytes;
        return DU_OK;
    }
    bool fetched = e->mats && !e->mats->data && plan->params->fetch;
    float *composed = NULL;
    du_err err = DU_OK;
    if (!e->mats || fetched) {
        composed = du_alloc_array((size_t)(e->out.rows * e->out.cols), sizeof *composed);
        err = composed ? DU_OK : du_fail_nomem(diag, e->name);
    }
    if (err == DU_OK && fetched) {
        err = plan->params->fetch(plan->params->user, &e->out, composed, diag);
    } else if (err == DU_OK && composed) {
        err = compose(plan->model, e, composed, diag);
    }
    err = err ? err : write_matrices(plan, e, composed, put, writer, diag);
    du_free(composed);
    return err;
}
