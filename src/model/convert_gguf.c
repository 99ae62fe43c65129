#include "model/convert_int.h"

/* Dimensions fastest first, as GGUF wants them. */
static void declare(du_gguf_writer *w, const du_plan_entry *e) {
    const du_out_tensor *t = &e->out;
    int64_t dims[3] = {t->cols, t->rows, t->n};
    if (t->def->kind == DU_WEIGHT_VEC) {
        du_gguf_put_tensor(w, e->name, DU_F32, 1, &t->rows);
    } else {
        bool stacked = t->def->kind != DU_WEIGHT_MAT;
        du_gguf_put_tensor(w, e->name, e->type, stacked ? 3 : 2, dims);
    }
}

static void put_bytes(void *writer, const void *bytes, size_t n) {
    du_gguf_write(writer, bytes, n);
}

static du_err write_tensors(du_plan *plan, du_gguf_writer *w, const float *factors,
                            int64_t n_factors, du_diag *diag) {
    du_gguf_write(w, factors, (size_t)n_factors * sizeof *factors);
    for (size_t i = 0; i < plan->n; i++) {
        du_err err = du_plan_write(plan, &plan->entries[i], put_bytes, w, diag);
        if (err != DU_OK) {
            return err;
        }
        if (du_gguf_writer_failed(w)) {
            break; /* the commit says why */
        }
    }
    return DU_OK;
}

du_err du_convert_gguf(const du_model *model, du_gguf_writer *w, const char *path,
                       const du_convert_params *params, du_convert_stats *stats, du_diag *diag) {
    const du_hparams *hp = &model->hp;
    du_plan plan;
    float factors[DU_HEAD_DIM_MAX / 2];
    int64_t n_factors = hp->scaling == DU_SCALING_LLAMA3 ? hp->rope_dim / 2 : 0;
    if (n_factors > 0) {
        du_hparams_llama3_factors(hp, factors);
    }
    du_err err = du_plan_make(&plan, model, params, true, stats, diag);
    if (err == DU_OK) {
        du_gguf_put_str(w, "general.architecture", du_sv_of(model->arch->name));
        du_hparams_write_gguf(&model->hp, w, model->arch->name);
        if (n_factors > 0) {
            du_gguf_put_tensor(w, "rope_freqs.weight", DU_F32, 1, &n_factors);
        }
        for (size_t i = 0; i < plan.n; i++) {
            declare(w, &plan.entries[i]);
        }
        err = du_gguf_writer_begin(w, path, diag);
    }
    if (err == DU_OK) {
        err = write_tensors(&plan, w, factors, n_factors, diag);
    }
    if (err == DU_OK) {
        err = du_gguf_writer_commit(w, diag);
    }
    du_plan_done(&plan);
    return err;
}
