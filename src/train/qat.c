#include "train/qat.h"

#include <string.h>
#include <strings.h>

#include "model/lora.h"

enum { PART_ROWS = DU_F8_TILE };

du_err du_qat_check_type(const char *type, du_diag *diag) {
    if (du_mix_find(type) || strcasecmp(type, du_dtype_get(DU_F8_E4M3)->name) == 0) {
        return DU_OK;
    }
    du_str known = {0};
    for (int64_t i = 0; du_mix_at(i); i++) {
        du_str_addf(&known, "%s, ", du_mix_at(i)->name);
    }
    du_err err = du_fail(diag, DU_EINVAL, "qat.type: '%s' is no type (%s%s are)", type,
                         du_str_get(&known), du_dtype_get(DU_F8_E4M3)->name);
    du_str_done(&known);
    return err;
}

/* The type a tensor is rounded to; F32: it stays. */
static du_dtype type_of(const du_qat *qat, const du_weight_def *def, const char *name,
                        int64_t layer, int64_t rows, int64_t cols) {
    if (def->kind == DU_WEIGHT_VEC || def->role == DU_ROLE_ROUTER) {
        return DU_F32;
    }
    if (!qat->mix) {
        bool whole = def->role == DU_ROLE_EMBED || def->role == DU_ROLE_OUTPUT;
        return whole ? DU_F32 : DU_F8_E4M3;
    }
    du_out_tensor out = {.def = def,
                         .name = name,
                         .layer = layer,
                         .rows = rows,
                         .cols = cols,
                         .n = 1,
                         .source = DU_F32};
    return du_dtype_fallback(du_mix_choose(qat->mix, qat->params->model, &out), cols);
}

static bool add_parts(du_qat *qat, size_t *cap, int64_t i, int64_t rows, int64_t cols) {
    qat->cols_max = cols > qat->cols_max ? cols : qat->cols_max;
    for (int64_t row = 0; row < rows; row += PART_ROWS) {
        if (!du_grow((void **)&qat->parts, cap, (size_t)qat->n_parts, sizeof *qat->parts)) {
            return false;
        }
        qat->parts[qat->n_parts++] = (du_qat_part){i, row};
    }
    return true;
}

static bool list_parts(du_qat *qat) {
    size_t cap = 0;
    bool good = true;
    for (int64_t i = 0; good && i < qat->params->n; i++) {
        const du_param *t = &qat->params->at[i];
        good = !du_params_holds(qat->params, t) || add_parts(qat, &cap, i, t->rows, t->cols);
    }
    return good;
}

typedef struct {
    du_qat *qat;
    size_t cap;
} listing;

/* A matrix of that type, without memory. */
static du_mat packed_of(du_dtype type, const du_mat *like) {
    du_mat m = {.dtype = type, .rows = like->rows, .cols = like->cols};
    m.row_bytes = du_dtype_row_bytes(type, m.cols);
    m.aux_cols = type == DU_F8_E4M3 ? (m.cols + DU_F8_TILE - 1) / DU_F8_TILE : 0;
    return m;
}

static size_t round_up(size_t n_bytes) {
    return (n_bytes + DU_ALIGN - 1) / DU_ALIGN * DU_ALIGN;
}

/* Bytes of a packed matrix, and where in them its scales begin. */
static size_t bytes_of(const du_mat *m, size_t *aux_at) {
    int64_t n_down = (m->rows + DU_F8_TILE - 1) / DU_F8_TILE;
    *aux_at = round_up((size_t)m->rows * m->row_bytes);
    return *aux_at + round_up((size_t)(n_down * m->aux_cols) * sizeof(float));
}

/* Memory for all packed matrices, in one piece. */
static bool place_frozen(du_qat *qat) {
    size_t aux_at;
    for (int64_t i = 0; i < qat->n_frozen; i++) {
        qat->packed_bytes += bytes_of(&qat->frozen[i].packed, &aux_at);
    }
    uint8_t *at = qat->packed = du_mem_reserve(qat->packed_bytes + 1);
    for (int64_t i = 0; at && i < qat->n_frozen; i++) {
        du_mat *m = &qat->frozen[i].packed;
        size_t n_bytes = bytes_of(m, &aux_at);
        m->data = at;
        m->aux = m->aux_cols > 0 ? (const float *)(const void *)(at + aux_at) : NULL;
        at += n_bytes;
    }
    return at != NULL;
}

static bool add_frozen(void *user, const du_weight_def *def, int64_t layer, du_mat *mat) {
    listing *l = user;
    du_qat *qat = l->qat;
    du_dtype type = type_of(qat, def, def->hf, layer, mat->rows, mat->cols);
    if (type == DU_F32 || (!mat->adapter && mat->dtype == type)) {
        return true;
    }
    if (!du_grow((void **)&qat->frozen, &l->cap, (size_t)qat->n_frozen, sizeof *qat->frozen)) {
        return false;
    }
    qat->frozen[qat->n_frozen++] = (du_qat_frozen){mat, *mat, packed_of(type, mat)};
    return true;
}

/* What products are computed with from now on: packed sums of adapters and matrices; or what it was
 * before. */
static void show_frozen(du_qat *qat, bool packed) {
    for (int64_t i = 0; i < qat->n_frozen; i++) {
        du_qat_frozen *f = &qat->frozen[i];
        if (f->from.adapter) {
            ((du_adapter *)(uintptr_t)f->from.adapter)->sum = packed ? &f->packed : NULL;
        } else {
            *f->mat = packed ? f->packed : f->from;
        }
    }
    if (qat->n_frozen > 0 && qat->params->model->hp.tied) {
        qat->params->model->top.output = qat->params->model->top.embed;
    }
}

/* The matrices of a frozen model, those that are packed once first among the parts. */
static bool list_frozen(du_qat *qat) {
    listing l = {qat, 0};
    size_t cap = 0;
    bool good = du_lora_each_matrix(qat->params, add_frozen, &l) && place_frozen(qat);
    for (int adapted = 0; adapted < 2; adapted++) {
        for (int64_t i = 0; good && i < qat->n_frozen; i++) {
            const du_mat *mat = qat->frozen[i].mat;
            if ((mat->adapter != NULL) == adapted) {
                good = add_parts(qat, &cap, i, mat->rows, mat->cols);
            }
        }
        qat->n_once = adapted ? qat->n_once : qat->n_parts;
    }
    if (good) {
        show_frozen(qat, true);
    }
    return good;
}

du_err du_qat_init(du_qat *qat, const char *type, du_params *params, du_diag *diag) {
    *qat = (du_qat){.params = params, .mix = du_mix_find(type)};
    du_err err = du_qat_check_type(type, diag);
    if (err != DU_OK) {
        return err;
    }
    bool good;
    if (params->adapters) {
        good = list_frozen(qat);
    } else {
        qat->shown = du_mem_reserve((size_t)params->n_values * sizeof(float));
        good = qat->shown && list_parts(qat);
    }
    if (!good) {
        du_qat_done(qat);
        return du_fail_nomem(diag, "the rounded weights");
    }
    return DU_OK;
}

void du_qat_done(du_qat *qat) {
    if (qat->params) {
        show_frozen(qat, false);
        du_mem_unreserve(qat->shown, (size_t)qat->params->n_values * sizeof(float));
    }
    du_mem_unreserve(qat->packed, qat->packed_bytes + 1);
    du_free(qat->frozen);
    du_free(qat->parts);
    *qat = (du_qat){0};
}

/* Packs rows of F32 into those of a matrix. aux of F8, NULL: none. */
static void pack_rows(const du_mat *to, int64_t row0, const float *from, int64_t n) {
    uint8_t *bytes = (uint8_t *)(uintptr_t)du_mat_row(to, row0);
    if (to->aux) {
        float *scales = (float *)(uintptr_t)to->aux + row0 / DU_F8_TILE * to->aux_cols;
        du_mat_pack_f8(bytes, scales, from, n, to->cols);
        return;
    }
    for (int64_t row = 0; row < n; row++) {
        du_dtype_get(to->dtype)->pack(bytes + (size_t)row * to->row_bytes, from + row * to->cols,
                                      to->cols, NULL);
    }
}

typedef struct {
    const du_qat *qat;
    const du_qat_part *parts;
    float *values; /* per thread PART_ROWS * cols_max, or as many bytes of any type */
    float *scales; /* per thread, of F8 tiles */
} round_job;

static int64_t scales_of_thread(const du_qat *qat) {
    return qat->cols_max / DU_F8_TILE + 1;
}

static void round_part(void *arg, int64_t i, int64_t i_thread) {
    const round_job *job = arg;
    const du_qat *qat = job->qat;
    const du_qat_part *part = &job->parts[i];
    const du_param *t = &qat->params->at[part->i];
    int64_t at = t->offset + part->row0 * t->cols, left = t->rows - part->row0;
    du_mat m = {.dtype = type_of(qat, t->def, t->name, t->layer, t->rows, t->cols),
                .rows = left < PART_ROWS ? left : PART_ROWS,
                .cols = t->cols};
    const float *from = qat->params->values + at;
    float *to = qat->shown + at;
    if (m.dtype == DU_F32) {
        memcpy(to, from, (size_t)(m.rows * m.cols) * sizeof *to);
        return;
    }
    m.row_bytes = du_dtype_row_bytes(m.dtype, m.cols);
    m.data = job->values + i_thread * PART_ROWS * qat->cols_max;
    m.aux_cols = (m.cols + DU_F8_TILE - 1) / DU_F8_TILE;
    m.aux = m.dtype == DU_F8_E4M3 ? job->scales + i_thread * scales_of_thread(qat) : NULL;
    pack_rows(&m, 0, from, m.rows);
    for (int64_t row = 0; row < m.rows; row++) {
        du_mat_unpack_row(to + row * m.cols, &m, row);
    }
}

/* Rows of a frozen matrix, with its adapter's part. */
static void pack_part(void *arg, int64_t i, int64_t i_thread) {
    const round_job *job = arg;
    const du_qat_part *part = &job->parts[i];
    const du_qat_frozen *f = &job->qat->frozen[part->i];
    int64_t left = f->from.rows - part->row0, n = left < PART_ROWS ? left : PART_ROWS;
    float *values = job->values + i_thread * PART_ROWS * job->qat->cols_max;
    for (int64_t row = 0; row < n; row++) {
        du_mat_unpack_row(values + row * f->from.cols, &f->from, part->row0 + row);
        du_mat_adapt_row(values + row * f->from.cols, &f->from, part->row0 + row);
    }
    pack_rows(&f->packed, part->row0, values, n);
}

/* What is packed once. */
static void forget_once(du_qat *qat) {
    qat->n_parts -= qat->n_once;
    memmove(qat->parts, qat->parts + qat->n_once, (size_t)qat->n_parts * sizeof *qat->parts);
    qat->n_once = 0;
}

du_qat_memory du_qat_measure(const du_qat *qat, int64_t n_threads) {
    int64_t of_thread = PART_ROWS * qat->cols_max + scales_of_thread(qat);
    size_t shown = (size_t)du_params_n_here(qat->params) * sizeof(float);
    return (du_qat_memory){.rounded = qat->shown ? shown : qat->packed_bytes,
                           .scratch = (size_t)(n_threads * of_thread) * sizeof(float)};
}

du_err du_qat_show(du_ctx *ctx, du_qat *qat) {
    int64_t n_threads = du_pool_n_threads(ctx->pool);
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    round_job job = {.qat = qat, .parts = qat->parts};
    job.values = DU_SCRATCH(ctx, float, n_threads *PART_ROWS * qat->cols_max);
    job.scales = DU_SCRATCH(ctx, float, n_threads *scales_of_thread(qat));
    du_err err = job.values && job.scales ? DU_OK : DU_ENOMEM;
    if (err == DU_OK && qat->params->adapters) {
        du_pool_run(ctx->pool, pack_part, &job, qat->n_parts);
        forget_once(qat);
    } else if (err == DU_OK) {
        du_pool_run(ctx->pool, round_part, &job, qat->n_parts);
        du_params_point(qat->params, qat->shown);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}
