/* Memory runs out at any call: a checkpoint is written whole or not at all, read whole or not at
 * all, and nothing leaks. */
#include "base/json.h"
#include "test.h"
#include "tmp.h"
#include "train/checkpoint.h"

static du_diag diag;
static test_tmp tmp;
static du_train_config config;
static du_params *params;
static du_optim optim;
static du_companions companions;

static int setup(void **state) {
    (void)state;
    json_t *shape = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i}", "model_type", "llama", "vocab_size",
                              32, "hidden_size", 16, "intermediate_size", 16, "num_hidden_layers",
                              1, "num_attention_heads", 2);
    du_diag_reset(&diag);
    tmp = test_tmp_make();
    assert_ok(du_train_config_init(&config, &diag), &diag);
    assert_ok(du_params_new(&params, shape, &diag), &diag);
    du_params_init(params, 0.1, 3);
    assert_ok(du_optim_init(&optim, &config, params, NULL, &diag), &diag);
    assert_ok(du_companions_add(&companions, "tokenizer.json", "{}", 2, &diag), &diag);
    assert_ok(du_companions_set(&companions, "eos_token_id", json_integer(7), &diag), &diag);
    json_decref(shape);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    du_optim_done(&optim);
    du_params_free(params);
    du_train_config_done(&config);
    du_companions_done(&companions);
    test_tmp_remove(&tmp);
    return 0;
}

static du_err save(int64_t step) {
    du_checkpoint c = {&config, params, &optim, &companions, NULL};
    du_train_state state = {.step = step, .best_step = 1, .best_loss = 2};
    du_diag_reset(&diag);
    return du_checkpoint_save(tmp.path, &c, &state, &diag);
}

static du_err load(int64_t step) {
    du_saved saved;
    du_diag_reset(&diag);
    du_err err = du_saved_open(&saved, tmp.path, step, &diag);
    if (err == DU_OK) {
        err = du_checkpoint_load(saved.dir, params, &optim, &diag);
        du_saved_close(&saved);
    }
    return err;
}

static du_err prune(int64_t step) {
    du_diag_reset(&diag);
    return du_checkpoint_prune(tmp.path, step, 0, 1, &diag);
}

static int64_t count_calls(du_err (*what)(int64_t)) {
    int64_t calls = du_mem_get_stats().n_calls;
    assert_ok(what(2), &diag);
    return du_mem_get_stats().n_calls - calls;
}

/* what(2), with every step-th allocation failing in turn, all behind it too in every second case.
 */
static void fail_each(du_err (*what)(int64_t), int64_t n_calls, int64_t step) {
    for (int64_t n = 1; n <= n_calls; n += step) {
        int64_t live = du_mem_get_stats().n_live;
        du_mem_fail_at(n, n % 2 == 0);
        du_err err = what(2);
        du_mem_fail_at(0, false);
        if (err != DU_ENOMEM && err != DU_OK) {
            fail_msg("allocation %d of %d: %s", (int)n, (int)n_calls, diag.msg);
        }
        if (du_mem_get_stats().n_live != live) {
            fail_msg("allocation %d of %d: blocks leaked", (int)n, (int)n_calls);
        }
        assert_ok(du_checkpoint_clean(tmp.path, &diag), &diag);
        du_saved saved; /* what was there before is whole */
        assert_ok(du_saved_open(&saved, tmp.path, 1, &diag), &diag);
        du_saved_close(&saved);
    }
}

static void test_save(void **state) {
    (void)state;
    assert_ok(save(1), &diag);
    int64_t n_calls = count_calls(save);
    assert_ok(du_checkpoint_remove(tmp.path, 2, &diag), &diag);
    fail_each(save, n_calls, 3);
    assert_ok(load(1), &diag);
}

static void test_load(void **state) {
    (void)state;
    assert_ok(save(1), &diag);
    assert_ok(save(2), &diag);
    fail_each(load, count_calls(load), 1);
}

static void test_prune(void **state) {
    (void)state;
    assert_ok(save(2), &diag);
    int64_t n_calls = count_calls(prune);
    for (int64_t n = 1; n <= 3 * n_calls + 9; n++) {
        assert_ok(save(1), &diag);
        du_mem_fail_at(n, n % 2 == 0);
        du_err err = prune(2);
        du_mem_fail_at(0, false);
        assert_true(err == DU_OK || err == DU_ENOMEM);
        assert_ok(du_checkpoint_clean(tmp.path, &diag), &diag);
        assert_ok(load(2), &diag);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {TEST(test_save), TEST(test_load), TEST(test_prune)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
