#include "train/qat.h"

#include <string.h>
#include <strings.h>

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
static du_dtype type_of(const du_qat *qat, const du_param *t) {
    if (t->def->kind == DU_WEIGHT_VEC || t->def->role == DU_ROLE_ROUTER) {
        return DU_F32;
    }
    if (!qat->mix) {
        bool whole = t->def->role == DU_ROLE_EMBED || t->def->role == DU_ROLE_OUTPUT;
        return whole ? DU_F32 : DU_F8_E4M3;
    }
    du_out_tensor out = {.def = t->def,
                         .name = t->name,
                         .layer = t->layer,
                         .rows = t->rows,
                         .cols = t->cols,
                         .n = 1,
                         .source = DU_F32};
    return du_dtype_fallback(du_mix_choose(qat->mix, qat->params->model, &out), t->cols);
}

static bool list_parts(du_qat *qat) {
    size_t cap = 0;
    for (int64_t i = 0; i < qat->params->n; i++) {
        const du_param *t = &qat->params->at[i];
        qat->cols_max = t->cols > qat->cols_max ? t->cols : qat->cols_max;
        for (int64_t row = 0; row < t->rows; row += PART_ROWS) {
            if (!du_grow((void **)&qat->parts, &cap, (size_t)qat->n_parts, sizeof *qat->parts)) {
                return false;
            }
            qat->parts[qat->n_parts++] = (du_qat_part){i, row};
        }
    }
    return true;
}

du_err du_qat_init(du_qat *qat, const char *type, du_params *params, du_diag *diag) {
    *qat = (du_qat){.params = params, .mix = du_mix_find(type)};
    du_err err = du_qat_check_type(type, diag);
    if (err != DU_OK) {
        return err;
    }
    qat->shown = du_mem_reserve((size_t)params->n_values * sizeof(float));
    if (!qat->shown || !list_parts(qat)) {
        du_qat_done(qat);
        return du_fail_nomem(diag, "the rounded weights");
    }
    return DU_OK;
}

void du_qat_done(du_qat *qat) {
    if (qat->params) {
        du_mem_unreserve(qat->shown, (size_t)qat->params->n_values * sizeof(float));
    }
    du_free(qat->parts);
    *qat = (du_qat){0};
}

typedef struct {
    const du_qat *qat;
    uint8_t *bytes; /* per thread PART_ROWS * cols_max values of any type */
    float *scales;  /* per thread, of F8 tiles */
} round_job;

static void round_part(void *arg, int64_t i, int64_t i_thread) {
    const round_job *job = arg;
    const du_qat *qat = job->qat;
    const du_qat_part *part = &qat->parts[i];
    const du_param *t = &qat->params->at[part->i_param];
    int64_t at = t->offset + part->row0 * t->cols, left = t->rows - part->row0;
    du_mat m = {.dtype = type_of(qat, t), .rows = left < PART_ROWS ? left : PART_ROWS};
    const float *from = qat->params->values + at;
    float *to = qat->shown + at;
    m.cols = t->cols;
    if (m.dtype == DU_F32) {
        memcpy(to, from, (size_t)(m.rows * m.cols) * sizeof *to);
        return;
    }
    uint8_t *bytes = job->bytes + i_thread * PART_ROWS * qat->cols_max * (int64_t)sizeof(float);
    m.row_bytes = du_dtype_row_bytes(m.dtype, m.cols);
    m.data = bytes;
    m.aux_cols = (m.cols + DU_F8_TILE - 1) / DU_F8_TILE;
    float *scales = job->scales + i_thread * (qat->cols_max / DU_F8_TILE + 1);
    m.aux = m.dtype == DU_F8_E4M3 ? scales : NULL;
    if (m.aux) {
        du_mat_pack_f8(bytes, scales, from, m.rows, m.cols);
    }
    for (int64_t row = 0; row < m.rows; row++) {
        if (!m.aux) {
            uint8_t *packed = bytes + (size_t)row * m.row_bytes;
            du_dtype_get(m.dtype)->pack(packed, from + row * m.cols, m.cols, NULL);
        }
        du_mat_unpack_row(to + row * m.cols, &m, row);
    }
}

du_err du_qat_show(du_ctx *ctx, du_qat *qat) {
    int64_t n_threads = du_pool_n_threads(ctx->pool);
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    round_job job = {.qat = qat};
    job.bytes = (uint8_t *)DU_SCRATCH(ctx, float, n_threads *PART_ROWS * qat->cols_max);
    job.scales = DU_SCRATCH(ctx, float, n_threads *(qat->cols_max / DU_F8_TILE + 1));
    du_err err = job.bytes && job.scales ? DU_OK : DU_ENOMEM;
    if (err == DU_OK) {
        du_pool_run(ctx->pool, round_part, &job, qat->n_parts);
        du_params_point(qat->params, qat->shown);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}
