/* Memory runs out at any call: loading and running a model fail cleanly and leak
 * nothing. */
#include <unistd.h>

#include "base/json.h"
#include "models.h"

/* One fixture of every kind of attention, routing and container. */
static const char *const names[] = {"deepseek_v3_yarn", "deepseek_v2_group",
                                    "deepseek_v3_fp8",  "qwen2",
                                    "qwen3moe",         "llama3_scaled"};
enum { N_NAMES = sizeof names / sizeof *names, N_TOKENS = 5 };

/* Opens and runs; DU_OK or the first error. Everything is closed again. */
static du_err open_and_run(const char *path) {
    static const int32_t ids[N_TOKENS] = {3, 1, 4, 1, 5};
    du_diag diag;
    du_diag_reset(&diag);
    du_model *model = NULL;
    du_infer *inf = NULL;
    du_session *s = NULL, *fork = NULL;
    du_infer_params params = {.auto_cache = true, .n_ctx = 128, .n_threads = 1, .n_sessions = 2};
    du_err err = du_model_open(&model, path, &diag);
    err = err ? err : du_infer_new(&inf, model, &params, &diag);
    err = err ? err : du_session_new(&s, inf, &diag);
    err = err ? err : du_session_sync(s, ids, N_TOKENS, NULL, NULL, &diag);
    err = err ? err : du_session_fork(&fork, s, &diag);
    err = err ? err : du_session_sync(fork, ids, 3, NULL, NULL, &diag);
    if (err != DU_OK && (err != DU_ENOMEM || diag.msg[0] == '\0')) {
        print_message("%s: %s\n", du_err_text(err), diag.msg);
    }
    du_session_free(fork);
    du_session_free(s);
    du_infer_free(inf);
    du_model_close(model);
    return err;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    for (int k = 0; k < N_NAMES; k++) {
        char path[512];
        snprintf(path, sizeof path, MODELS_DIR "/%s", names[k]);
        assert_int_equal(open_and_run(path), DU_OK);
        int64_t live = du_mem_get_stats().n_live, calls = du_mem_get_stats().n_calls;
        assert_int_equal(open_and_run(path), DU_OK);
        calls = du_mem_get_stats().n_calls - calls;
        /* All of the first and last hundred calls, and some of those between. */
        for (int64_t n = 1; n <= calls; n += n > 100 && n < calls - 100 ? 37 : 1) {
            du_mem_fail_at(n, n % 2 == 0);
            du_err err = open_and_run(path);
            du_mem_fail_at(0, false);
            if (err != DU_ENOMEM && err != DU_OK) {
                fail_msg("%s: allocation %d of %d: %s", names[k], (int)n, (int)calls,
                         du_err_text(err));
            }
            if (du_mem_get_stats().n_live != live) {
                fail_msg("%s: allocation %d of %d: %d blocks leaked", names[k], (int)n, (int)calls,
                         (int)(du_mem_get_stats().n_live - live));
            }
        }
    }
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
