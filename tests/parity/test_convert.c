/* Every model fixture through both containers: the same logits come back, bit for bit where no
 * number is rounded. */
#include <math.h>
#include <unistd.h>

#include "model/convert.h"
#include "model/imatrix.h"
#include "model/mix.h"
#include "models.h"
#include "tensor/half.h"

enum { N = 48 };

static char names[64][64];
static int64_t n_models;
static char dir[] = "/tmp/dure-convert-XXXXXX";

static char *in_dir(const char *name) {
    return du_path_join(dir, name);
}

static du_model *open_path(const char *path) {
    du_diag diag;
    du_diag_reset(&diag);
    du_model *model;
    assert_ok(du_model_open(&model, path, &diag), &diag);
    return model;
}

static double distance(const float *got, const float *want, int64_t n) {
    double worst = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
        size = fmax(size, fabs((double)want[i]));
    }
    return worst / size;
}

static du_convert_stats to_gguf(const du_model *model, const char *path,
                                const du_convert_params *params) {
    du_diag diag;
    du_diag_reset(&diag);
    du_gguf_writer *w;
    du_convert_stats stats;
    assert_ok(du_gguf_writer_new(&w, &diag), &diag);
    assert_ok(du_convert_gguf(model, w, path, params, &stats, &diag), &diag);
    du_gguf_writer_close(w);
    return stats;
}

/* FP8 has become BF16: every value is the rounded product of the stored value and its scale. */
static void expect_rounded_to_bf16(const du_model *want, const du_model *got) {
    for (int64_t i = 0; i < want->arch->n_weights; i++) {
        const du_weight_def *def = &want->arch->weights[i];
        if (!def->in_layer || def->kind == DU_WEIGHT_VEC || def->read_only) {
            continue;
        }
        for (int64_t layer = 0; layer < want->hp.n_layer; layer++) {
            const void *a = du_model_field(want, def, layer), *b = du_model_field(got, def, layer);
            const du_mat *x = def->kind == DU_WEIGHT_MAT ? a : *(du_mat *const *)a;
            const du_mat *y = def->kind == DU_WEIGHT_MAT ? b : *(du_mat *const *)b;
            if (!x || !x->data) {
                continue;
            }
            int64_t n = du_weight_def_n(def, &want->hp);
            for (int64_t k = 0; k < n * x->rows; k++) {
                float row[512], back[512];
                assert_true(x->cols <= 512);
                du_mat_unpack_row(row, &x[k / x->rows], k % x->rows);
                du_mat_unpack_row(back, &y[k / x->rows], k % x->rows);
                for (int64_t c = 0; c < x->cols; c++) {
                    float rounded = du_f32_of_bf16(du_bf16_of_f32(row[c]));
                    assert_true(back[c] == (y->dtype == DU_F32 ? row[c] : rounded));
                }
            }
        }
    }
}

static void round_trips_keep_logits(void **state) {
    (void)state;
    char *gguf = in_dir("model.gguf"), *hf = in_dir("hf");
    for (int64_t k = 0; k < n_models; k++) {
        int32_t ids[N];
        read_ids(names[k], "ids.txt", ids, N);
        du_model *model = open_fixture(names[k]);
        int64_t n = N * model->hp.n_vocab;
        bool fp8 = strstr(names[k], "fp8") != NULL;
        float *want = logits_of(model, ids, N);
        du_convert_params keep = {0};
        du_convert_stats stats = to_gguf(model, gguf, &keep);
        assert_false(stats.from_quantised);

        du_model *from_gguf = open_path(gguf);
        float *got = logits_of(from_gguf, ids, N);
        double off = distance(got, want, n);
        print_message("%-26s GGUF %.1e", names[k], off);
        if (fp8) {
            expect_rounded_to_bf16(model, from_gguf);
        } else {
            assert_true(off <= 1e-5);
        }

        du_diag diag;
        du_diag_reset(&diag);
        assert_ok(du_convert_hf(from_gguf, hf, NULL, &keep, &stats, &diag), &diag);
        du_model *back = open_path(hf);
        float *again = logits_of(back, ids, N);
        print_message(", and back %.1e\n", distance(again, got, n));
        assert_true(distance(again, got, n) <= 1e-5);

        du_free(again);
        du_model_close(back);
        du_free(got);
        du_model_close(from_gguf);
        du_free(want);
        du_model_close(model);
    }
    du_free(gguf);
    du_free(hf);
}

/* GGUF has no key for mscale: two others tell what follows from it. */
static void scales_of_yarn_come_back(void **state) {
    (void)state;
    static const struct {
        const char *name;
        double mscale, all;
    } cases[] = {{"deepseek_v3_yarn", 1, 1},
                 {"deepseek_v3_yarn", 0.707, 0.707},
                 {"deepseek_v3_yarn", 0, 0},
                 {"deepseek_v3_yarn", 0.5, 1},
                 {"deepseek_v3_yarn", 1, 0.3},
                 {"deepseek_v3_yarn", 0, 1},
                 {"deepseek_v3_yarn", 1, 0},
                 {"qwen2", 0, 0},
                 {"qwen2", 1, 1},
                 {"qwen2", 0.5, 1}};
    char *path = in_dir("mscale.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        du_model *model = open_fixture(cases[i].name);
        du_hparams *hp = &model->hp;
        hp->scaling = DU_SCALING_YARN;
        hp->yarn = (du_yarn){40, 32, 32, 1};
        hp->yarn_mscale = cases[i].mscale;
        hp->yarn_mscale_all = cases[i].all;
        to_gguf(model, path, &(du_convert_params){0});
        du_model *back = open_path(path);
        double attn = du_hparams_attn_scale(hp), rope = du_hparams_rope_magnitude(hp);
        assert_true(fabs(du_hparams_attn_scale(&back->hp) / attn - 1) < 1e-6);
        assert_true(fabs(du_hparams_rope_magnitude(&back->hp) / rope - 1) < 1e-6);
        du_model_close(back);
        du_model_close(model);
        assert_int_equal(unlink(path), 0);
    }
    du_free(path);
}

typedef struct {
    const du_mix *mix;
    const du_model *model;
    const du_imatrix *im;
} quantising;

static du_dtype choose_mix(void *user, const du_out_tensor *t) {
    const quantising *q = user;
    return du_mix_choose(q->mix, q->model, t);
}

static const float *find_importance(void *user, const du_out_tensor *t, int64_t i_matrix) {
    const quantising *q = user;
    return du_imatrix_find(q->im, t, i_matrix);
}

static void every_mix_opens_and_is_near(void **state) {
    (void)state;
    char *gguf = in_dir("quantised.gguf");
    for (int64_t k = 0; k < n_models; k++) {
        int32_t ids[N];
        read_ids(names[k], "ids.txt", ids, N);
        du_model *model = open_fixture(names[k]);
        float *want = logits_of(model, ids, N);
        const du_mix *mix;
        for (int64_t i = 0; (mix = du_mix_at(i)); i++) {
            quantising q = {.mix = mix, .model = model};
            du_convert_params params = {.choose = choose_mix, .user = &q};
            to_gguf(model, gguf, &params);
            du_model *small = open_path(gguf);
            assert_true(small->block_quantised);
            float *got = logits_of(small, ids, N);
            for (int64_t j = 0; j < N * model->hp.n_vocab; j++) {
                assert_true(isfinite(got[j]));
            }
            du_free(got);
            du_model_close(small);
        }
        du_free(want);
        du_model_close(model);
    }
    assert_ptr_equal(du_mix_find("q4_k_m"), du_mix_find("Q4_K_M"));
    assert_null(du_mix_find("Q4"));
    du_free(gguf);
}

static void importance_is_collected_saved_and_used(void **state) {
    (void)state;
    char *path = in_dir("imatrix.gguf"), *gguf = in_dir("quantised.gguf");
    du_diag diag;
    du_diag_reset(&diag);
    for (int64_t k = 0; k < n_models; k++) {
        int32_t ids[N];
        read_ids(names[k], "ids.txt", ids, N);
        du_model *model = open_fixture(names[k]);
        du_imatrix *im, *loaded;
        assert_ok(du_imatrix_new(&im, model, &diag), &diag);
        du_infer *inf = open_infer(model, du_infer_defaults());
        du_infer_set_tap(inf, du_imatrix_tap, im);
        du_session *s = open_session(inf);
        assert_ok(du_session_sync(s, ids, N, NULL, NULL, &diag), &diag);
        int64_t n_experts, n_unused;
        du_imatrix_experts(im, &n_experts, &n_unused);
        assert_true((n_experts > 0) == (model->hp.router.n_expert > 0) && n_unused < n_experts + 1);
        assert_ok(du_imatrix_save(im, path, "test", 1, N, &diag), &diag);
        assert_ok(du_imatrix_new(&loaded, model, &diag), &diag);
        assert_ok(du_imatrix_load(loaded, path, &diag), &diag);
        quantising q = {.mix = du_mix_find("Q4_0"), .model = model, .im = loaded};
        du_convert_params params = {
            .choose = choose_mix, .importance = find_importance, .user = &q};
        to_gguf(model, gguf, &params);
        du_model_close(open_path(gguf));
        du_session_free(s);
        du_infer_free(inf);
        du_imatrix_free(im);
        du_imatrix_free(loaded);
        du_model_close(model);
    }
    du_free(path);
    du_free(gguf);
}

static int remove_dir(void **state) {
    (void)state;
    char command[128];
    const char *files[] = {"model.gguf",
                           "quantised.gguf",
                           "imatrix.gguf",
                           "hf/model.safetensors",
                           "hf/config.json",
                           "hf",
                           ""};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(command, sizeof command, "%s/%s", dir, files[i]);
        remove(command);
    }
    return access(dir, F_OK) == 0; /* nothing else was left behind */
}

int main(void) {
    assert_non_null(mkdtemp(dir));
    n_models = list_models(names, 64);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips_keep_logits),
        cmocka_unit_test(scales_of_yarn_come_back),
        cmocka_unit_test(every_mix_opens_and_is_near),
        cmocka_unit_test(importance_is_collected_saved_and_used),
    };
    return cmocka_run_group_tests(tests, NULL, remove_dir);
}
