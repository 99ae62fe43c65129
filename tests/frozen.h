/* Files of random weights, for runs that leave them as they are. */
#ifndef DU_TESTS_FROZEN_H
#define DU_TESTS_FROZEN_H

#include "base/json.h"
#include "model/convert.h"
#include "model/params.h"
#include "tmp.h"

static inline du_dtype choose_one(void *user, const du_out_tensor *t) {
    (void)t;
    return *(const du_dtype *)user;
}

/* The path of a model with the shape of a config.json: F32, a Hugging Face directory; else a GGUF
 * file of that type. */
static inline const char *frozen_file(const test_tmp *tmp, const char *json, du_dtype type) {
    du_diag diag;
    json_t *config = json_loads(json, 0, NULL);
    du_params *p;
    du_convert_params how = {0};
    du_convert_stats stats;
    du_diag_reset(&diag);
    assert_non_null(config);
    assert_ok(du_params_new(&p, config, &diag), &diag);
    du_params_init(p, 0.2, 7);
    for (int64_t i = 0; i < p->n; i++) {
        for (int64_t k = 0; p->at[i].def->chooses && k < p->at[i].cols; k++) {
            p->values[p->at[i].offset + k] = 0.01f * (float)(k * k % 3);
        }
    }
    const char *dir = test_tmp_file(tmp, "base");
    assert_ok(du_convert_hf(p->model, dir, NULL, &how, &stats, &diag), &diag);
    du_params_free(p);
    json_decref(config);
    if (type == DU_F32) {
        return dir;
    }
    du_model *model;
    du_gguf_writer *w;
    how = (du_convert_params){.choose = choose_one, .user = &type};
    assert_ok(du_model_open(&model, dir, &diag), &diag);
    assert_ok(du_gguf_writer_new(&w, &diag), &diag);
    const char *path = test_tmp_file(tmp, "base.gguf");
    assert_ok(du_convert_gguf(model, w, path, &how, &stats, &diag), &diag);
    du_gguf_writer_close(w);
    du_model_close(model);
    return path;
}

#endif
