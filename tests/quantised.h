/* A fixture as a GGUF file of block types, which takes turns through them. */
#ifndef DU_TESTS_QUANTISED_H
#define DU_TESTS_QUANTISED_H

#include "model/convert.h"
#include "models.h"

static inline du_dtype choose_in_turn(void *user, const du_out_tensor *t) {
    static const du_dtype types[] = {DU_Q8_0, DU_Q4_0, DU_Q5_1, DU_IQ4_NL, DU_Q4_1, DU_Q5_0};
    int64_t *turn = user;
    (void)t;
    return types[(*turn)++ % 6];
}

/* turn: which type comes first. */
static inline void write_quantised(const char *fixture, const char *path, int64_t turn) {
    du_diag diag;
    du_diag_reset(&diag);
    du_model *model = open_fixture(fixture);
    du_convert_params params = {.choose = choose_in_turn, .user = &turn};
    du_convert_stats stats;
    du_gguf_writer *w;
    assert_ok(du_gguf_writer_new(&w, &diag), &diag);
    assert_ok(du_convert_gguf(model, w, path, &params, &stats, &diag), &diag);
    du_gguf_writer_close(w);
    du_model_close(model);
}

static inline du_model *open_model_at(const char *path) {
    du_diag diag;
    du_diag_reset(&diag);
    du_model *model;
    assert_ok(du_model_open(&model, path, &diag), &diag);
    return model;
}

#endif
