/* Memory runs out at any call: writing a model to GGUF and to a Hugging Face directory fails
 * cleanly and leaks nothing; what does not fail writes the same bytes. */
#include "base/json.h"
#include "model/convert.h"
#include "models.h"
#include "tmp.h"

/* Latent attention with scaling, rows in another order with scaling, FP8. */
static const char *const names[] = {"deepseek_v3_yarn_nomscale", "llama3_scaled",
                                    "deepseek_v3_fp8"};
enum { N_NAMES = sizeof names / sizeof *names };

typedef du_err write_fn(const du_model *model, const char *path, du_diag *diag);

static du_err write_gguf(const du_model *model, const char *path, du_diag *diag) {
    du_convert_params keep = {0};
    du_convert_stats stats;
    du_gguf_writer *w = NULL;
    du_err err = du_gguf_writer_new(&w, diag);
    err = err ? err : du_convert_gguf(model, w, path, &keep, &stats, diag);
    du_gguf_writer_close(w);
    return err;
}

/* Into the folder of path, with something to merge. */
static du_err write_hf(const du_model *model, const char *path, du_diag *diag) {
    du_convert_params keep = {0};
    du_convert_stats stats;
    char *dir = du_strndup(path, (size_t)(strrchr(path, '/') - path));
    json_t *extra = json_pack("{s:i}", "eos_token_id", 1);
    du_err err = dir && extra ? du_convert_hf(model, dir, extra, &keep, &stats, diag)
                              : du_fail_nomem(diag, "the test");
    json_decref(extra);
    du_free(dir);
    return err;
}

/* A hash of the file's bytes. */
static uint64_t hash_file(const char *path) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint64_t h = 0xcbf29ce484222325u;
    for (int c; (c = fgetc(f)) != EOF;) {
        h = (h ^ (uint64_t)c) * 0x100000001b3u;
    }
    fclose(f);
    return h;
}

/* Lets every step-th allocation fail in turn; file is the one that is looked at. Each run writes to
 * the disk and waits for it. */
static void fail_each(write_fn *write, const char *name, const char *file, int64_t step) {
    test_tmp tmp = test_tmp_make();
    char path[TEST_PATH_BYTES];
    snprintf(path, sizeof path, "%s", test_tmp_file(&tmp, file));
    du_model *model = open_fixture(name);
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(write(model, path, &diag), &diag);
    uint64_t want = hash_file(path);
    int64_t n_files = test_tmp_count(&tmp);
    int64_t live = du_mem_get_stats().n_live, calls = du_mem_get_stats().n_calls;
    assert_ok(write(model, path, &diag), &diag);
    calls = du_mem_get_stats().n_calls - calls;
    for (int64_t n = 1; n <= calls; n += step) {
        assert_int_equal(unlink(path), 0);
        du_diag_reset(&diag);
        du_mem_fail_at(n, n % 2 == 0);
        du_err err = write(model, path, &diag);
        du_mem_fail_at(0, false);
        if (err != DU_ENOMEM && err != DU_OK) {
            fail_msg("%s: allocation %d of %d: %s", name, (int)n, (int)calls, diag.msg);
        }
        if (du_mem_get_stats().n_live != live) {
            fail_msg("%s: allocation %d of %d: blocks leaked", name, (int)n, (int)calls);
        }
        assert_true(test_tmp_count(&tmp) <= n_files); /* nothing half written is left */
        if (err != DU_OK) {
            assert_false(du_file_exists(path));
            assert_ok(write(model, path, &diag), &diag);
        }
        if (hash_file(path) != want) {
            fail_msg("%s: allocation %d of %d: other bytes", name, (int)n, (int)calls);
        }
    }
    du_model_close(model);
    test_tmp_remove(&tmp);
}

static void writing_gguf(void **state) {
    (void)state;
    for (int k = 0; k < N_NAMES; k++) {
        fail_each(write_gguf, names[k], "out.gguf", k == 0 ? 3 : 13);
    }
}

static void writing_a_directory(void **state) {
    (void)state;
    for (int k = 0; k < N_NAMES; k++) {
        fail_each(write_hf, names[k], "config.json", k == 0 ? 3 : 13);
    }
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writing_gguf),
        cmocka_unit_test(writing_a_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
