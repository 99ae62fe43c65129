/* The layout of weights changes no bit: as in the file, repacked in memory at any time of a
 * sequence, or from a file beside the model; nor do two runners of one model disturb each other. */
#include <pthread.h>

#include "quantised.h"
#include "tmp.h"

enum { N = 40 };

static const char *const names[] = {"deepseek_v2_lite", "deepseek_v2_qlora", "moonlight",
                                    "qwen3moe", "qwen2"};
enum { N_NAMES = sizeof names / sizeof *names };

static test_tmp tmp;
static char gguf[TEST_PATH_BYTES];

static int setup(void **state) {
    (void)state;
    tmp = test_tmp_make();
    snprintf(gguf, sizeof gguf, "%s/m.gguf", tmp.path);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_tmp_remove(&tmp);
    return 0;
}

typedef struct {
    int32_t ids[N];
    int64_t V;
    float *want; /* [N, V] of the weights as they lie */
} fixture;

static const du_infer_params plain = {
    .deterministic = true, .auto_cache = true, .n_threads = 1, .repack = DU_REPACK_OFF};

static fixture fixture_make(const char *name) {
    fixture f;
    write_quantised(name, gguf, 0);
    read_ids(name, "ids.txt", f.ids, N);
    du_model *model = open_model_at(gguf);
    f.V = model->hp.n_vocab;
    du_infer *inf = open_infer(model, plain);
    du_session *s = open_session(inf);
    f.want = all_logits(s, f.ids, N);
    du_session_free(s);
    du_infer_free(inf);
    assert_false(du_model_strips_has_room(model));
    du_model_close(model);
    return f;
}

static bool same(const fixture *f, const float *got) {
    return memcmp(got, f->want, (size_t)(N * f->V) * sizeof *got) == 0;
}

/* All tokens, and once more with what the first pass has repacked. */
static void expect_same(const fixture *f, const char *name, const du_infer_params *params) {
    du_model *model = open_model_at(gguf);
    du_infer *inf = open_infer(model, *params);
    const du_kern *kern = du_kern_get(du_infer_isa(inf));
    bool wanted = params->repack != DU_REPACK_OFF && kern->strips_same_bits &&
                  du_model_strips_bytes(model, kern) > 0;
    assert_true(du_model_strips_has_room(model) == wanted);
    du_session *s = open_session(inf);
    float *got = all_logits(s, f->ids, N);
    float *again = all_logits(s, f->ids, N);
    if (!same(f, got) || !same(f, again)) {
        fail_msg("%s: other bits in %s with %d bytes in a step of %d", name,
                 same(f, got) ? "the second pass" : "the first pass", (int)params->repack_bytes,
                 (int)params->n_chunk);
    }
    du_free(got);
    du_free(again);
    du_session_free(s);
    du_infer_free(inf);
    du_model_close(model);
}

static void repacking_at_any_time_changes_no_bit(void **state) {
    (void)state;
    static const size_t budgets[] = {1, 3000, 20000, SIZE_MAX};
    static const int64_t chunks[] = {1, 7, 64};
    for (int k = 0; k < N_NAMES; k++) {
        fixture f = fixture_make(names[k]);
        for (size_t i = 0; i < sizeof budgets / sizeof *budgets; i++) {
            for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
                du_infer_params params = plain;
                params.repack = DU_REPACK_AUTO;
                params.n_threads = c == 0 ? 3 : 1;
                params.n_chunk = chunks[c];
                params.repack_bytes = budgets[i];
                expect_same(&f, names[k], &params);
            }
        }
        du_free(f.want);
    }
}

static void a_file_changes_no_bit(void **state) {
    (void)state;
    for (int k = 0; k < N_NAMES; k++) {
        fixture f = fixture_make(names[k]);
        for (int pass = 0; pass < 2; pass++) { /* written, then found */
            du_infer_params params = plain;
            params.repack = DU_REPACK_CACHE;
            params.n_threads = 1 + pass;
            expect_same(&f, names[k], &params);
        }
        du_free(f.want);
    }
}

/* As they lie weights have one way of being multiplied, for any number of rows: leaving out
 * --deterministic then changes nothing. */
static void without_repacking_all_bits_are_the_same(void **state) {
    (void)state;
    for (int k = 0; k < N_NAMES; k++) {
        fixture f = fixture_make(names[k]);
        du_infer_params params = plain;
        params.deterministic = false;
        expect_same(&f, names[k], &params);
        du_free(f.want);
    }
}

/* What a runner says of that: only of rows enough for bf16, or where strips round otherwise. (A
 * model with latent attention has one more reason.) */
static void what_deterministic_changes_is_known(void **state) {
    (void)state;
    write_quantised("qwen2", gguf, 0);
    for (int repack = 0; repack < 2; repack++) {
        du_model *model = open_model_at(gguf);
        du_infer_params params = plain;
        params.deterministic = false;
        params.repack = repack ? DU_REPACK_AUTO : DU_REPACK_OFF;
        du_infer *inf = open_infer(model, params);
        const du_kern *kern = du_kern_get(du_infer_isa(inf));
        bool strips = repack && du_model_strips_bytes(model, kern) > 0;
        for (int64_t n = 1; n < 100; n++) {
            bool differs = !kern->strips_same_bits || (kern->n_bf16 > 0 && n >= kern->n_bf16);
            assert_int_equal(du_infer_deterministic_differs(inf, n), strips && differs);
        }
        du_infer_free(inf);
        du_model_close(model);
    }
}

typedef struct {
    const fixture *f;
    const du_model *model;
    du_repack repack;
    size_t budget;
    bool same;
} running;

static void *run(void *arg) {
    running *r = arg;
    du_infer_params params = plain;
    params.repack = r->repack;
    params.n_threads = 2;
    params.n_chunk = 1;
    params.repack_bytes = r->budget;
    du_infer *inf = open_infer(r->model, params);
    du_session *s = open_session(inf);
    float *got = all_logits(s, r->f->ids, N);
    r->same = same(r->f, got);
    du_free(got);
    du_session_free(s);
    du_infer_free(inf);
    return NULL;
}

/* Runners of one model in threads of their own: one reads the file's layout, the others repack. */
static void runners_share_a_model(void **state) {
    (void)state;
    for (int k = 0; k < N_NAMES; k++) {
        fixture f = fixture_make(names[k]);
        for (int cache = 0; cache < 2; cache++) {
            du_model *model = open_model_at(gguf);
            du_repack repack = cache ? DU_REPACK_CACHE : DU_REPACK_AUTO;
            running r[3] = {{&f, model, repack, 3000, false},
                            {&f, model, DU_REPACK_OFF, 3000, false},
                            {&f, model, repack, 20000, false}};
            pthread_t threads[3];
            for (int i = 0; i < 3; i++) {
                assert_int_equal(pthread_create(&threads[i], NULL, run, &r[i]), 0);
            }
            for (int i = 0; i < 3; i++) {
                pthread_join(threads[i], NULL);
                assert_true(r[i].same);
            }
            du_model_close(model);
        }
        du_free(f.want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(repacking_at_any_time_changes_no_bit, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_changes_no_bit, setup, teardown),
        cmocka_unit_test_setup_teardown(without_repacking_all_bits_are_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(what_deterministic_changes_is_known, setup, teardown),
        cmocka_unit_test_setup_teardown(runners_share_a_model, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
