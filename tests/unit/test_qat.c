/* Weights that training sees rounded: those of the file that quantising writes. */
#include <math.h>

#include "base/json.h"
#include "ctx.h"
#include "model/convert.h"
#include "tmp.h"
#include "train/qat.h"

static du_diag diag;

static du_params *make_params(void) {
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b}", "model_type",
                               "llama", "vocab_size", 96, "hidden_size", 256, "intermediate_size",
                               288, "num_hidden_layers", 2, "num_attention_heads", 4,
                               "num_key_value_heads", 2, "head_dim", 32, "tie_word_embeddings", 0);
    du_params *p;
    assert_non_null(config);
    assert_ok(du_params_new(&p, config, &diag), &diag);
    json_decref(config);
    du_params_init(p, 0.05, 11);
    return p;
}

static du_dtype choose(void *user, const du_out_tensor *t) {
    const du_qat *qat = user;
    return du_mix_choose(qat->mix, qat->params->model, t);
}

/* The values of the file that the weights are quantised to. */
static du_params *through_file(const du_params *p, du_qat *qat, const char *path) {
    du_convert_params how = {.choose = choose, .user = qat};
    du_convert_stats stats;
    du_gguf_writer *w;
    du_model *model;
    du_params *back = make_params();
    assert_ok(du_gguf_writer_new(&w, &diag), &diag);
    assert_ok(du_convert_gguf(p->model, w, path, &how, &stats, &diag), &diag);
    du_gguf_writer_close(w);
    assert_ok(du_model_open(&model, path, &diag), &diag);
    assert_ok(du_params_load(back, model, &diag), &diag);
    du_model_close(model);
    return back;
}

static void weights_are_those_of_the_file(void **state) {
    (void)state;
    static const char *const types[] = {"Q8_0", "Q4_0", "Q4_K_M", "Q6_K"};
    test_tmp t = test_tmp_make();
    du_params *p = make_params();
    size_t n_bytes = (size_t)p->n_values * sizeof(float);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        du_qat qat;
        assert_ok(du_qat_init(&qat, types[i], p, &diag), &diag);
        du_params *file = through_file(p, &qat, test_tmp_file(&t, "m.gguf"));
        for (int64_t n = 1; n <= 3; n++) {
            du_ctx ctx = test_ctx_make(n);
            memset(qat.shown, 0, n_bytes);
            assert_int_equal(du_qat_show(&ctx, &qat), DU_OK);
            assert_memory_equal(qat.shown, file->values, n_bytes);
            test_ctx_drop(&ctx);
        }
        assert_ptr_equal(p->model->top.embed.data, qat.shown + p->at[0].offset);
        assert_memory_not_equal(p->values, qat.shown, n_bytes);
        du_params_point(p, p->values);
        assert_ptr_equal(p->model->top.embed.data, p->values + p->at[0].offset);
        du_params_free(file);
        du_qat_done(&qat);
    }
    du_params_free(p);
    test_tmp_remove(&t);
}

/* A value of E4M3 has 3 bits behind the first one; a tile's largest is kept exactly. */
static void f8_keeps_what_it_says(void **state) {
    (void)state;
    du_params *p = make_params();
    du_ctx ctx = test_ctx_make(2);
    du_qat qat;
    assert_ok(du_qat_init(&qat, "f8_e4m3", p, &diag), &diag);
    assert_int_equal(du_qat_show(&ctx, &qat), DU_OK);
    for (int64_t i = 0; i < p->n; i++) {
        const du_param *at = &p->at[i];
        bool whole = at->rows == 1 || strstr(at->name, "embed") || strstr(at->name, "lm_head");
        double largest = 0, worst = 0, rounded = 0;
        for (int64_t k = at->offset; k < at->offset + at->rows * at->cols; k++) {
            double w = (double)p->values[k], off = fabs((double)qat.shown[k] - w);
            largest = fmax(largest, fabs(w));
            worst = fmax(worst, off - fabs(w) / 16);
            rounded += off;
        }
        assert_true(whole == (rounded == 0));
        assert_true(worst <= largest * 0x1p-10 / 448 * 1.001);
    }
    du_qat_done(&qat);
    test_ctx_drop(&ctx);
    du_params_free(p);
}

static void unknown_types_are_refused(void **state) {
    (void)state;
    du_params *p = make_params();
    du_qat qat;
    assert_fails(du_qat_init(&qat, "Q7", p, &diag), DU_EINVAL, &diag, "'Q7'");
    du_params_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_those_of_the_file),
        cmocka_unit_test(f8_keeps_what_it_says),
        cmocka_unit_test(unknown_types_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
