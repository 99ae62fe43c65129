/* Every model fixture as F32 numbers for training: the values of its files, whichever container
 * they come from, and the same logits when it is saved. */
#include <math.h>
#include <unistd.h>

#include "base/json.h"
#include "model/convert.h"
#include "model/params.h"
#include "models.h"
#include "tmp.h"

enum { N = 48 };

static char names[64][64];
static int64_t n_models;
static du_diag diag;

static du_params *new_params(const char *name) {
    char path[512];
    json_t *config;
    du_params *p;
    snprintf(path, sizeof path, MODELS_DIR "/%s/config.json", name);
    assert_ok(du_json_load(&config, path, 1 << 20, &diag), &diag);
    assert_ok(du_params_new(&p, config, &diag), &diag);
    json_decref(config);
    return p;
}

/* Saved to a folder and opened again. */
static du_model *reopen(const du_params *p, const char *dir) {
    du_convert_params keep = {0};
    du_convert_stats stats;
    du_model *model;
    assert_ok(du_convert_hf(p->model, dir, NULL, &keep, &stats, &diag), &diag);
    assert_int_equal(stats.n_params, p->n_weights);
    assert_int_equal(stats.n_tensors, p->n);
    assert_ok(du_model_open(&model, dir, &diag), &diag);
    return model;
}

static du_model *through_gguf(const du_model *model, const char *path) {
    du_convert_params keep = {0};
    du_convert_stats stats;
    du_gguf_writer *w;
    du_model *back;
    assert_ok(du_gguf_writer_new(&w, &diag), &diag);
    assert_ok(du_convert_gguf(model, w, path, &keep, &stats, &diag), &diag);
    du_gguf_writer_close(w);
    assert_ok(du_model_open(&back, path, &diag), &diag);
    return back;
}

static void check_logits(const du_model *a, const du_model *b, const char *name) {
    int32_t ids[N];
    read_ids(name, "ids.txt", ids, N);
    float *want = logits_of(a, ids, N), *got = logits_of(b, ids, N);
    double worst = 0, size = 0;
    for (int64_t i = 0; i < N * a->hp.n_vocab; i++) {
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
        size = fmax(size, fabs((double)want[i]));
    }
    if (!(worst <= 1e-5 * size)) {
        fail_msg("%s: logits are %g apart", name, worst / size);
    }
    du_free(want);
    du_free(got);
}

static void fixtures_are_taken_over(void **state) {
    (void)state;
    test_tmp t = test_tmp_make();
    for (int64_t k = 0; k < n_models; k++) {
        du_model *model = open_fixture(names[k]);
        du_params *p = new_params(names[k]), *other = new_params(names[k]);
        assert_ok(du_params_load(p, model, &diag), &diag);
        du_model *saved = reopen(p, test_tmp_file(&t, "hf"));
        check_logits(model, saved, names[k]);
        du_model *gguf = through_gguf(saved, test_tmp_file(&t, "m.gguf"));
        assert_ok(du_params_load(other, gguf, &diag), &diag);
        for (int64_t i = 0; i < p->n; i++) { /* GGUF files hold nothing behind the trunk */
            const du_param *at = &p->at[i];
            size_t n_bytes = (size_t)(at->rows * at->cols) * sizeof(float);
            const float *got = (at->layer < p->model->hp.n_layer ? other : p)->values;
            assert_memory_equal(p->values + at->offset, got + at->offset, n_bytes);
        }
        du_model_close(gguf);
        du_model_close(saved);
        du_params_free(other);
        du_params_free(p);
        du_model_close(model);
    }
    test_tmp_remove(&t);
}

/* Another model's tensors are missing or of another shape. */
static void other_shapes_are_refused(void **state) {
    (void)state;
    du_params *p = new_params(names[0]);
    int64_t n_refused = 0;
    for (int64_t k = 1; k < n_models; k++) {
        du_model *model = open_fixture(names[k]);
        du_diag_reset(&diag);
        du_err err = du_params_load(p, model, &diag);
        assert_true(err == DU_OK || err == DU_EFORMAT);
        if (err == DU_EFORMAT) {
            assert_true(strstr(diag.msg, " is missing") ||
                        strstr(diag.msg, " is of another shape"));
            n_refused++;
        }
        du_model_close(model);
    }
    assert_true(n_refused > 3);
    du_params_free(p);
}

static void init_is_normal_and_repeats(void **state) {
    (void)state;
    du_params *p = new_params(names[0]), *q = new_params(names[0]);
    du_params_init(p, 0.02, 7);
    du_params_init(q, 0.02, 7);
    assert_memory_equal(p->values, q->values, (size_t)p->n_values * sizeof(float));
    double sum = 0, squares = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < p->n; i++) {
        const du_param *t = &p->at[i];
        assert_int_equal(t->offset % 16, 0);
        for (int64_t k = 0; k < t->rows * t->cols; k++) {
            double v = p->values[t->offset + k];
            if (t->def->kind == DU_WEIGHT_VEC) {
                assert_true(v == (t->def->role == DU_ROLE_NORM));
            } else {
                sum += v, squares += v * v, n++;
            }
        }
    }
    assert_true(fabs(sum / (double)n) < 1e-3);
    assert_true(fabs(sqrt(squares / (double)n) - 0.02) < 1e-3);
    du_params_init(q, 0.02, 8);
    assert_memory_not_equal(p->values, q->values, (size_t)p->n_values * sizeof(float));
    du_params_free(p);
    du_params_free(q);
}

/* A layer behind the trunk is saved and read again; GGUF files and the forward pass do without. */
static void block_behind_the_trunk(void **state) {
    (void)state;
    static const char shape[] =
        "{\"model_type\":\"deepseek_v3\",\"vocab_size\":64,\"hidden_size\":32,"
        "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"intermediate_size\":48,"
        "\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,\"rope_theta\":100.0,"
        "\"q_lora_rank\":null,\"kv_lora_rank\":16,\"qk_nope_head_dim\":8,\"qk_rope_head_dim\":8,"
        "\"v_head_dim\":8,\"moe_intermediate_size\":16,\"n_routed_experts\":4,"
        "\"num_experts_per_tok\":2,\"first_k_dense_replace\":1,\"n_shared_experts\":1,"
        "\"num_nextn_predict_layers\":1,\"tie_word_embeddings\":true}";
    json_t *config = json_loads(shape, 0, NULL);
    du_params *p, *back;
    test_tmp t = test_tmp_make();
    assert_ok(du_params_new(&p, config, &diag), &diag);
    assert_ok(du_params_new(&back, config, &diag), &diag);
    du_params_init(p, 0.1, 5);
    assert_int_equal(du_model_n_nextn(p->model), 1);
    du_model *saved = reopen(p, test_tmp_file(&t, "hf"));
    assert_int_equal(du_model_n_nextn(saved), 1);
    assert_ok(du_params_load(back, saved, &diag), &diag);
    assert_memory_equal(p->values, back->values, (size_t)p->n_values * sizeof(float));
    du_model *gguf = through_gguf(saved, test_tmp_file(&t, "m.gguf"));
    assert_int_equal(du_model_n_nextn(gguf), 0);
    assert_ok(du_params_load(back, gguf, &diag), &diag); /* what it lacks stays */
    assert_memory_equal(p->values, back->values, (size_t)p->n_values * sizeof(float));
    du_model_close(gguf);
    du_model_close(saved);
    du_params_free(back);
    du_params_free(p);
    json_decref(config);
    test_tmp_remove(&t);
}

/* Shapes that no memory holds, from a config.json of whoever: neither too long a list nor numbers
 * beyond their type. */
static void impossible_shapes_are_refused(void **state) {
    (void)state;
    static const char shape[] =
        "{\"model_type\":\"deepseek_v3\",\"vocab_size\":%d,\"hidden_size\":%d,"
        "\"num_hidden_layers\":4096,\"num_attention_heads\":2,\"intermediate_size\":%d,"
        "\"q_lora_rank\":null,\"kv_lora_rank\":16,\"qk_nope_head_dim\":8,\"qk_rope_head_dim\":8,"
        "\"v_head_dim\":8,\"moe_intermediate_size\":%d,\"n_routed_experts\":1024,"
        "\"num_experts_per_tok\":2,\"first_k_dense_replace\":%d,\"n_shared_experts\":1}";
    static const struct {
        int vocab, width, n_dense;
    } cases[] = {{16, 16, 0}, {1 << 24, 1 << 20, 0}, {1 << 24, 1 << 20, 4096}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1024];
        int width = cases[i].width;
        snprintf(text, sizeof text, shape, cases[i].vocab, width, width, width, cases[i].n_dense);
        json_t *config = json_loads(text, 0, NULL);
        du_params *p = NULL;
        assert_fails(du_params_new(&p, config, &diag), DU_ELIMIT, &diag, "no such model");
        assert_null(p);
        json_decref(config);
    }
}

int main(void) {
    n_models = list_models(names, 64);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixtures_are_taken_over),       cmocka_unit_test(other_shapes_are_refused),
        cmocka_unit_test(init_is_normal_and_repeats),    cmocka_unit_test(block_behind_the_trunk),
        cmocka_unit_test(impossible_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
