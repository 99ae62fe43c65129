/* Every model fixture against the reference implementation: logits of 64 positions and 128 greedy
 * tokens (tests/golden/README.md). */
#include <math.h>

#include "formats/npy.h"
#include "models.h"

enum { N = 64, N_GREEDY = 128 };

static void logits_equal_the_reference(void **state) {
    (void)state;
    char names[64][64];
    int64_t n_models = list_models(names, 64);
    for (int64_t k = 0; k < n_models; k++) {
        int32_t ids[N];
        assert_int_equal(read_ids(names[k], "ids.txt", ids, N), N);
        char path[512];
        snprintf(path, sizeof path, MODELS_DIR "/%s/logits.npy", names[k]);
        du_diag diag;
        du_diag_reset(&diag);
        du_npy npy;
        assert_ok(du_npy_read(&npy, path, &diag), &diag);
        du_model *model = open_fixture(names[k]);
        int64_t V = model->hp.n_vocab;
        assert_int_equal(npy.dims[0], N);
        assert_int_equal(npy.dims[1], V);
        du_infer *inf = open_infer(model, du_infer_defaults());
        du_session *s = open_session(inf);
        float *got = all_logits(s, ids, N);
        const float *want = npy.data.f32;
        double max_difference = 0, max_logit = 0;
        for (int64_t i = 0; i < N * V; i++) {
            max_difference = fmax(max_difference, fabs((double)got[i] - (double)want[i]));
            max_logit = fmax(max_logit, fabs((double)want[i]));
        }
        print_message("%-26s max|difference| / max|logit| = %.1e\n", names[k],
                      max_difference / max_logit);
        if (!(max_difference <= 2e-4 * max_logit)) {
            fail_msg("%s: logits differ by %g of %g", names[k], max_difference, max_logit);
        }
        du_free(got);
        du_session_free(s);
        du_infer_free(inf);
        du_model_close(model);
        du_npy_done(&npy);
    }
}

static int32_t argmax(const float *logits, int64_t V) {
    int32_t best = 0;
    for (int32_t v = 1; v < V; v++) {
        best = logits[v] > logits[best] ? v : best;
    }
    return best;
}

static void greedy_continuations_are_equal(void **state) {
    (void)state;
    char names[64][64];
    int64_t n_models = list_models(names, 64);
    for (int64_t k = 0; k < n_models; k++) {
        int32_t tokens[64 + N_GREEDY], want[N_GREEDY];
        int64_t n = read_ids(names[k], "prompt.txt", tokens, 64);
        assert_int_equal(read_ids(names[k], "greedy.txt", want, N_GREEDY), N_GREEDY);
        du_model *model = open_fixture(names[k]);
        du_infer *inf = open_infer(model, du_infer_defaults());
        du_session *s = open_session(inf);
        du_diag diag;
        du_diag_reset(&diag);
        for (int64_t i = 0; i < N_GREEDY; i++) {
            assert_ok(du_session_sync(s, tokens, n, NULL, NULL, &diag), &diag);
            int32_t token = argmax(du_session_logits(s), model->hp.n_vocab);
            if (token != want[i]) {
                fail_msg("%s: greedy token %d is %d, not %d", names[k], (int)i, token, want[i]);
            }
            tokens[n++] = token;
        }
        du_session_free(s);
        du_infer_free(inf);
        du_model_close(model);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_equal_the_reference),
        cmocka_unit_test(greedy_continuations_are_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
