#include <math.h>

#include "base/file.h"
#include "base/json.h"
#include "model/convert_int.h"

static void put_bytes(void *writer, const void *bytes, size_t n) {
    du_st_write(writer, bytes, n);
}

static void declare(du_st_writer *w, const du_plan_entry *e) {
    int64_t dims[2] = {e->out.rows, e->out.cols};
    du_st_put_tensor(w, e->name, e->type, e->out.def->kind == DU_WEIGHT_VEC ? 1 : 2, dims);
}

/* The number type of most of the matrices' bytes, by the name that config.json uses. */
static const char *torch_dtype(const du_plan *plan) {
    int64_t bytes[DU_DTYPE_COUNT] = {0};
    for (size_t i = 0; i < plan->n; i++) {
        bytes[plan->entries[i].type] += plan->entries[i].n_bytes;
    }
    if (bytes[DU_BF16] >= bytes[DU_F16] && bytes[DU_BF16] >= bytes[DU_F32]) {
        return "bfloat16";
    }
    return bytes[DU_F16] >= bytes[DU_F32] ? "float16" : "float32";
}

/* Which of the architecture's model types fits: deepseek_v2 is the one that scores by softmax. */
static int64_t type_index(const du_model *model) {
    bool v2 = model->hp.router.n_expert > 0 && model->hp.router.score == DU_SCORE_SOFTMAX;
    const char *const *types = model->arch->hf_types;
    for (int64_t i = 0; types[i]; i++) {
        if (v2 && strcmp(types[i], "deepseek_v2") == 0) {
            return i;
        }
    }
    return 0;
}

/* How far Llama 3's rule with these numbers is from the factors, relatively. */
static double llama3_distance(const du_hparams *hp, const float *factors) {
    float want[DU_HEAD_DIM_MAX / 2];
    double worst = 0;
    du_hparams_llama3_factors(hp, want);
    for (int64_t i = 0; i < hp->rope_dim / 2; i++) {
        worst = fmax(worst, fabs((double)factors[i] / (double)want[i] - 1));
    }
    return worst;
}

/* GGUF files keep only the factors of Llama 3's rule. Its numbers follow from them: the scaling is
 * the largest factor, the wavelength limits are 1 and 4 in every published model, and the original
 * context is a power of two. */
static du_err recover_llama3(const du_model *model, du_hparams *hp, du_diag *diag) {
    const float *factors = model->top.rope_factors;
    hp->scaling = DU_SCALING_LLAMA3;
    hp->yarn.factor = 1;
    hp->llama3_low = 1;
    hp->llama3_high = 4;
    for (int64_t i = 0; i < hp->rope_dim / 2; i++) {
        hp->yarn.factor = fmax(hp->yarn.factor, (double)factors[i]);
    }
    for (double n_ctx = 16; n_ctx <= 1 << 24; n_ctx *= 2) {
        hp->yarn.n_ctx_original = n_ctx;
        if (llama3_distance(hp, factors) < 1e-5) {
            return DU_OK;
        }
    }
    return du_fail(diag, DU_EUNSUPPORTED,
                   "%s: rope_freqs.weight follows no rule that config.json can name",
                   du_weights_path(model->files));
}

du_err du_convert_config(json_t **out, const du_model *model, du_diag *diag) {
    du_hparams hp = model->hp;
    hp.n_nextn = du_model_n_nextn(model);
    du_err err = model->top.rope_factors ? recover_llama3(model, &hp, diag) : DU_OK;
    if (err != DU_OK) {
        return err;
    }
    int64_t type = type_index(model);
    json_t *config = json_pack("{s:[s], s:s}", "architectures", model->arch->hf_classes[type],
                               "model_type", model->arch->hf_types[type]);
    err = config ? du_hparams_write_hf(&hp, config, diag) : du_fail_nomem(diag, "config.json");
    if (err != DU_OK) {
        json_decref(config);
        return err;
    }
    *out = config;
    return DU_OK;
}

static du_err write_config(const du_model *model, const char *dir, const json_t *extra,
                           const du_plan *plan, du_diag *diag) {
    json_t *config = NULL;
    char *path = du_path_join(dir, "config.json");
    du_err err = path ? du_convert_config(&config, model, diag) : du_fail_nomem(diag, dir);
    if (err == DU_OK &&
        (json_object_set_new(config, "torch_dtype", json_string(torch_dtype(plan))) != 0 ||
         (extra && json_object_update(config, (json_t *)(uintptr_t)extra) != 0))) {
        err = du_fail_nomem(diag, dir);
    }
    err = err ? err : du_json_save(config, path, diag);
    du_free(path);
    json_decref(config);
    return err;
}

du_err du_convert_hf(const du_model *model, const char *dir, const json_t *extra,
                     const du_convert_params *params, du_convert_stats *stats, du_diag *diag) {
    du_plan plan;
    du_st_writer *w = NULL;
    du_err err = du_plan_make(&plan, model, params, false, stats, diag);
    err = err ? err : du_dir_make(dir, diag);
    err = err ? err : du_st_writer_new(&w, diag);
    if (err == DU_OK) {
        for (size_t i = 0; i < plan.n; i++) {
            declare(w, &plan.entries[i]);
        }
        err = du_st_writer_begin(w, dir, DU_ST_SHARD_BYTES, diag);
    }
    int64_t i;
    while (err == DU_OK && (i = du_st_writer_next(w)) >= 0) {
        err = du_plan_write(&plan, &plan.entries[i], put_bytes, w, diag);
    }
    err = err ? err : du_st_writer_commit(w, diag);
    /* config.json comes last: with it the directory is a model. */
    err = err ? err : write_config(model, dir, extra, &plan, diag);
    du_st_writer_close(w);
    du_plan_done(&plan);
    return err;
}
