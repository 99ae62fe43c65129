/* Checkpoints: what is saved comes back bit for bit, and nothing that is not whole comes back. */
#include "test.h"

#include "base/dir.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/rng.h"
#include "model/model.h"
#include "tmp.h"
#include "train/checkpoint.h"

static du_diag diag;
static test_tmp tmp;

/* A model with its optimizer, all numbers random. */
typedef struct {
    du_train_config config;
    du_params *params;
    du_optim optim;
    du_companions companions;
} run;

static void fill(float *values, int64_t n, du_rng *rng) {
    for (int64_t i = 0; i < n; i++) {
        values[i] = (float)du_rng_normal(rng);
    }
}

/* Every tensor of a block; between them zeros stay. */
static void fill_tensors(const du_params *p, float *values, du_rng *rng) {
    for (int64_t k = 0; values && k < p->n; k++) {
        fill(values + p->at[k].offset, p->at[k].rows * p->at[k].cols, rng);
    }
}

static void set(run *r, const char *pair) {
    assert_ok(du_train_config_set_pair(&r->config, pair, &diag), &diag);
}

static run run_make(int width, const char *optimizer, uint64_t seed) {
    run r = {0};
    json_t *shape = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "model_type",
        "deepseek_v3", "vocab_size", 131, "hidden_size", width, "intermediate_size", 48,
        "num_hidden_layers", 2, "num_attention_heads", 2, "kv_lora_rank", 16, "qk_nope_head_dim", 8,
        "qk_rope_head_dim", 8, "v_head_dim", 8, "n_routed_experts", 4, "num_experts_per_tok", 2,
        "moe_intermediate_size", 16, "n_shared_experts", 1, "first_k_dense_replace", 1);
    assert_non_null(shape);
    du_diag_reset(&diag);
    assert_ok(du_train_config_init(&r.config, &diag), &diag);
    set(&r, "data.tokens=tokens.bin");
    set(&r, "ema.decay=0.99");
    set(&r, optimizer);
    assert_ok(du_params_new(&r.params, shape, &diag), &diag);
    json_decref(shape);
    assert_ok(du_companions_add(&r.companions, "tokenizer.json", "{}", 2, &diag), &diag);
    assert_ok(du_companions_set(&r.companions, "eos_token_id", json_integer(7), &diag), &diag);
    if (seed > 0) {
        du_rng rng;
        du_rng_init(&rng, seed);
        fill_tensors(r.params, r.params->values, &rng);
        assert_ok(du_optim_init(&r.optim, &r.config, r.params, NULL, &diag), &diag);
        fill_tensors(r.params, r.optim.m, &rng);
        fill_tensors(r.params, r.optim.v, &rng);
        fill_tensors(r.params, r.optim.mean, &rng);
    } else {
        assert_ok(du_optim_init(&r.optim, &r.config, r.params, NULL, &diag), &diag);
    }
    return r;
}

static void run_done(run *r) {
    du_optim_done(&r->optim);
    du_params_free(r->params);
    du_train_config_done(&r->config);
    du_companions_done(&r->companions);
}

static const char adamw[] = "optim.name=adamw", sgd[] = "optim.name=sgd";

static du_err save_at(const run *r, const char *out, int64_t step) {
    du_checkpoint c = {&r->config, r->params, &r->optim, &r->companions, NULL};
    du_train_state state = {.step = step,
                            .micro_batch = 4 * step,
                            .data = 1000,
                            .best_step = step > 1 ? step - 1 : 0,
                            .best_loss = 0.1 * (double)step,
                            .spike = {1.0 / 3, 0.98, step, 2}};
    du_diag_reset(&diag);
    return du_checkpoint_save(out, &c, &state, &diag);
}

static void save(const run *r, int64_t step) {
    assert_ok(save_at(r, tmp.path, step), &diag);
}

static int setup(void **state) {
    (void)state;
    tmp = test_tmp_make();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_tmp_remove(&tmp);
    return 0;
}

static void assert_same_values(const run *a, const run *b) {
    size_t n_bytes = (size_t)a->params->n_values * sizeof(float);
    assert_memory_equal(a->params->values, b->params->values, n_bytes);
    assert_memory_equal(a->optim.m, b->optim.m, n_bytes);
    assert_memory_equal(a->optim.mean, b->optim.mean, n_bytes);
    assert_true((a->optim.v == NULL) == (b->optim.v == NULL));
    if (a->optim.v) {
        assert_memory_equal(a->optim.v, b->optim.v, n_bytes);
    }
}

static void round_trip(const char *optimizer) {
    run a = run_make(32, optimizer, 5), b = run_make(32, optimizer, 0);
    du_saved saved;
    save(&a, 12);
    assert_ok(du_saved_open(&saved, tmp.path, 12, &diag), &diag);
    assert_int_equal(saved.state.step, 12);
    assert_int_equal(saved.state.micro_batch, 48);
    assert_int_equal(saved.state.data, 1000);
    assert_int_equal(saved.state.best_step, 11);
    assert_true(saved.state.best_loss == 0.1 * 12);
    const du_spike *spike = &saved.state.spike;
    assert_true(spike->sum == 1.0 / 3 && spike->weight == 0.98);
    assert_true(spike->n_seen == 12 && spike->n_high == 2);
    json_t *kept = du_train_config_kept(&a.config);
    assert_true(json_equal(saved.config, kept));
    json_decref(kept);
    assert_int_equal(json_integer_value(json_object_get(saved.model_config, "eos_token_id")), 7);
    assert_ok(du_checkpoint_load(saved.dir, b.params, &b.optim, &diag), &diag);
    assert_same_values(&a, &b);
    du_model *model;
    assert_ok(du_model_open(&model, saved.dir, &diag), &diag);
    du_model_close(model);
    du_saved_close(&saved);
    run_done(&a);
    run_done(&b);
}

static void test_round_trip(void **state) {
    (void)state;
    round_trip(adamw);
}

static void test_round_trip_sgd(void **state) {
    (void)state;
    round_trip(sgd);
}

/* Without moments there is no state.safetensors. */
static void test_no_moments(void **state) {
    (void)state;
    run a = run_make(32, sgd, 5), b = run_make(32, sgd, 0);
    run *both[] = {&a, &b};
    for (int i = 0; i < 2; i++) {
        set(both[i], "optim.momentum=0");
        set(both[i], "ema.decay=0");
        du_optim_done(&both[i]->optim);
        assert_ok(du_optim_init(&both[i]->optim, &both[i]->config, both[i]->params, NULL, &diag),
                  &diag);
    }
    du_saved saved;
    save(&a, 1);
    assert_false(du_file_exists(test_tmp_file(&tmp, "step-000001/state.safetensors")));
    assert_ok(du_saved_open(&saved, tmp.path, 1, &diag), &diag);
    assert_int_equal(saved.state.best_step, 0);
    assert_ok(du_checkpoint_load(saved.dir, b.params, &b.optim, &diag), &diag);
    assert_memory_equal(a.params->values, b.params->values,
                        (size_t)a.params->n_values * sizeof(float));
    du_saved_close(&saved);
    run_done(&a);
    run_done(&b);
}

static char *read_all(const char *path, size_t *len) {
    char *text;
    assert_ok(du_file_read(&text, len, path, 1 << 26, &diag), &diag);
    return text;
}

/* Two folders get the same files, byte for byte. */
static void test_same_bytes(void **state) {
    (void)state;
    run a = run_make(32, adamw, 5);
    du_names names;
    char other[TEST_PATH_BYTES];
    snprintf(other, sizeof other, "%s/other", tmp.path);
    save(&a, 3);
    assert_ok(du_dir_make(other, &diag), &diag);
    assert_ok(save_at(&a, other, 3), &diag);
    assert_ok(du_dir_names(&names, test_tmp_file(&tmp, "step-000003"), &diag), &diag);
    assert_int_equal(names.n, 5);
    for (size_t i = 0; i < names.n; i++) {
        char name[TEST_PATH_BYTES / 2];
        size_t n, m;
        snprintf(name, sizeof name, "step-000003/%s", names.items[i]);
        char *x = read_all(test_tmp_file(&tmp, name), &n);
        snprintf(name, sizeof name, "other/step-000003/%s", names.items[i]);
        char *y = read_all(test_tmp_file(&tmp, name), &m);
        assert_int_equal(n, m);
        assert_memory_equal(x, y, n);
        du_free(x);
        du_free(y);
    }
    du_names_done(&names);
    run_done(&a);
}

/* The checkpoint of step 3 is refused, in one line that names it. */
static void refused(const char *says) {
    du_saved saved;
    du_diag_reset(&diag);
    du_err err = du_saved_open(&saved, tmp.path, 3, &diag);
    assert_true(err == DU_EFORMAT || err == DU_ENOENT || err == DU_EIO);
    assert_non_null(strstr(diag.msg, "step-000003"));
    if (!strstr(diag.msg, says)) {
        fail_msg("'%s' does not say '%s'", diag.msg, says);
    }
}

static void write_file(const char *name, const char *bytes, size_t n) {
    char path[TEST_PATH_BYTES / 2];
    snprintf(path, sizeof path, "step-000003/%s", name);
    test_tmp_write(&tmp, path, bytes, n);
}

/* Files that are shorter, longer, changed or gone. */
static void test_damage(void **state) {
    (void)state;
    static const char *const names[] = {"model.safetensors", "state.safetensors", "config.json",
                                        "tokenizer.json"};
    run a = run_make(32, adamw, 5);
    save(&a, 3);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[TEST_PATH_BYTES];
        size_t n;
        snprintf(path, sizeof path, "%s/step-000003/%s", tmp.path, names[i]);
        char *bytes = read_all(path, &n);
        size_t lengths[] = {0, 1, n / 2, n - 1, n + 1};
        for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
            if (lengths[k] != n) {
                write_file(names[i], bytes, lengths[k]);
                refused("instead of");
            }
        }
        for (size_t at = 0; at < n; at += n / 7 + 1) {
            bytes[at] ^= 16;
            write_file(names[i], bytes, n);
            refused("its checksum differs");
            bytes[at] ^= 16;
        }
        assert_int_equal(unlink(path), 0);
        refused(names[i]);
        write_file(names[i], bytes, n);
        du_free(bytes);
    }
    du_saved saved;
    assert_ok(du_saved_open(&saved, tmp.path, 3, &diag), &diag);
    du_saved_close(&saved);
    run_done(&a);
}

/* Any byte of state.json changed, and any length: refused, or the same is said in other words. */
static void test_state_damage(void **state) {
    (void)state;
    run a = run_make(32, adamw, 5);
    save(&a, 3);
    size_t n;
    char *bytes = read_all(test_tmp_file(&tmp, "step-000003/state.json"), &n);
    for (size_t len = 0; len < n - 2; len += 3) { /* the last two: } and a line feed */
        write_file("state.json", bytes, len);
        refused("state.json");
    }
    int64_t n_accepted = 0;
    for (size_t at = 0; at < n; at++) {
        du_saved saved;
        bytes[at] ^= 1;
        write_file("state.json", bytes, n);
        if (du_saved_open(&saved, tmp.path, 3, NULL) == DU_OK) {
            n_accepted++; /* blanks and line feeds between values */
            assert_int_equal(saved.state.step, 3);
            assert_int_equal(saved.state.micro_batch, 12);
            du_saved_close(&saved);
        }
        bytes[at] ^= 1;
    }
    assert_true(n_accepted < (int64_t)n / 2);
    assert_int_equal(unlink(test_tmp_file(&tmp, "step-000003/state.json")), 0);
    refused("state.json");
    du_free(bytes);
    run_done(&a);
}

/* Writes state.json with a checksum that fits. Takes the reference. */
static void forge(json_t *json) {
    du_str text = {0};
    char sum[24];
    json_object_del(json, "checksum");
    du_json_add(&text, json, JSON_COMPACT | JSON_SORT_KEYS);
    assert_false(text.failed);
    snprintf(sum, sizeof sum, "%016llx", (unsigned long long)du_checksum(0, text.data, text.len));
    json_object_set_new(json, "checksum", json_string(sum));
    assert_ok(du_json_save(json, test_tmp_file(&tmp, "step-000003/state.json"), &diag), &diag);
    du_str_done(&text);
    json_decref(json);
}

static json_t *state_json(void) {
    json_t *json;
    assert_ok(du_json_load(&json, test_tmp_file(&tmp, "step-000003/state.json"), 1 << 20, &diag),
              &diag);
    return json;
}

/* Whoever can make checksums still cannot make it read other files or take what is no state. */
static void test_forged(void **state) {
    (void)state;
    static const struct {
        const char *key;
        const char *json, *says;
    } cases[] = {{"step", "4", "that of another step"},
                 {"step", "0", "is not between"},
                 {"step", "-3", "is not between"},
                 {"step", "3.5", "step is missing or no number"},
                 {"step", "null", "step is missing or no number"},
                 {"micro_batch", "\"x\"", "micro_batch is missing or no number"},
                 {"format", "\"other\"", "not the state of a run"},
                 {"format", "7", "not the state of a run"},
                 {"best", "{\"step\": 0}", "is not between"},
                 {"best", "{\"step\": 1, \"loss\": \"x\"}", "not a finite number"},
                 {"smooth", "{\"weight\": 1.5}", "smooth.weight is not between"},
                 {"smooth", "{\"sum\": \"x\"}", "not a finite number"},
                 {"smooth", "{\"seen\": -1}", "is not between"},
                 {"files", "{}", "no list of files"},
                 {"files", "[1]", "no list of files"},
                 {"data", "5", "data is no checksum"},
                 {"data", "\"0\"", "data is no checksum"},
                 {"data", "\"0x00000000000001\"", "data is no checksum"},
                 {"files", "{\"config.json\": 3}", "bytes is missing or no number"},
                 {"files", "{\"config.json\": {\"bytes\": 3}}", "checksum is no checksum"},
                 {"files", "{\"../config.json\": {\"bytes\": 3, \"checksum\": \"\"}}", "no list"},
                 {"files",
                  "{\"../x\": {\"bytes\": 3, \"checksum\": \"\"}, \"config.json\": {\"bytes\": 3, "
                  "\"checksum\": \"\"}}",
                  "../x is no file of a checkpoint"}};
    run a = run_make(32, adamw, 5);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        save(&a, 3);
        json_t *json = state_json(), *value = json_loads(cases[i].json, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        json_object_set_new(json, cases[i].key, value);
        forge(json);
        refused(cases[i].says);
    }
    save(&a, 3);
    forge(state_json());
    du_saved saved;
    assert_ok(du_saved_open(&saved, tmp.path, 3, &diag), &diag);
    du_saved_close(&saved);
    run_done(&a);
}

/* One of a newer program is no damage. */
static void test_another_version(void **state) {
    (void)state;
    run a = run_make(32, adamw, 5);
    save(&a, 3);
    json_t *json = state_json();
    json_object_set_new(json, "version", json_integer(2));
    forge(json);
    du_saved saved;
    assert_fails(du_saved_open(&saved, tmp.path, 3, &diag), DU_EUNSUPPORTED, &diag,
                 "state.json: version 2, but this program reads version 1");
    run_done(&a);
}

static void load_fails(const du_saved *saved, run *r, const char *says) {
    assert_fails(du_checkpoint_load(saved->dir, r->params, &r->optim, &diag), DU_EFORMAT, &diag,
                 says);
}

/* A whole checkpoint of another model or optimizer. */
static void test_foreign(void **state) {
    (void)state;
    run a = run_make(32, adamw, 5), wider = run_make(48, adamw, 0), other = run_make(32, sgd, 0);
    du_saved saved;
    save(&a, 3);
    assert_ok(du_saved_open(&saved, tmp.path, 3, &diag), &diag);
    load_fails(&saved, &wider, "is of another shape");
    load_fails(&saved, &other, "tensors instead of");
    du_saved_close(&saved);
    save(&other, 3);
    assert_ok(du_saved_open(&saved, tmp.path, 3, &diag), &diag);
    load_fails(&saved, &a, "v.model.embed_tokens.weight is missing");
    du_saved_close(&saved);
    run_done(&a);
    run_done(&wider);
    run_done(&other);
}

static void assert_steps(const int64_t *want, size_t n_want) {
    int64_t *steps;
    size_t n;
    assert_ok(du_checkpoint_list(&steps, &n, tmp.path, &diag), &diag);
    assert_int_equal(n, n_want);
    assert_memory_equal(steps, want, n * sizeof *want);
    du_free(steps);
}

static void test_list_and_prune(void **state) {
    (void)state;
    run a = run_make(32, sgd, 5);
    static const int64_t steps[] = {1, 2, 3, 7, 999999, 1000000};
    for (size_t i = 0; i < 6; i++) {
        save(&a, steps[i]);
    }
    /* names that are no checkpoints */
    static const char *const others[] = {"step-1",      "step-0000001", "step--00001",
                                         "step-000000", "step-00000x",  "step-000004x",
                                         "xstep-000004"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_ok(du_dir_make(test_tmp_file(&tmp, others[i]), &diag), &diag);
    }
    assert_steps(steps, 6);
    assert_ok(du_checkpoint_prune(tmp.path, 999999, 2, 2, &diag), &diag);
    assert_steps((const int64_t[]){2, 7, 999999}, 3);
    assert_ok(du_checkpoint_prune(tmp.path, 999999, 2, 1, &diag), &diag);
    assert_steps((const int64_t[]){2, 999999}, 2);
    assert_int_equal(test_tmp_count(&tmp), 2 + (int64_t)(sizeof others / sizeof *others));
    run_done(&a);
}

/* What others have put into a folder stays, and so does the folder. */
static void test_others_files(void **state) {
    (void)state;
    run a = run_make(32, sgd, 5);
    save(&a, 3);
    save(&a, 4);
    write_file("notes.txt", "mine", 4);
    assert_fails(du_checkpoint_remove(tmp.path, 3, &diag), DU_EEXIST, &diag,
                 "holds notes.txt, which belongs to no checkpoint");
    assert_int_equal(save_at(&a, tmp.path, 3), DU_EEXIST);
    assert_ok(du_checkpoint_prune(tmp.path, 4, 0, 1, &diag), &diag);
    assert_steps((const int64_t[]){3, 4}, 2);
    du_saved saved; /* untouched by all of that */
    assert_ok(du_saved_open(&saved, tmp.path, 3, &diag), &diag);
    du_saved_close(&saved);
    assert_int_equal(test_tmp_count(&tmp), 2);
    assert_ok(du_checkpoint_remove(tmp.path, 4, &diag), &diag);
    assert_steps((const int64_t[]){3}, 1);
    run_done(&a);
}

static void test_clean(void **state) {
    (void)state;
    run a = run_make(32, sgd, 5);
    save(&a, 3);
    assert_int_equal(
        rename(test_tmp_file(&tmp, "step-000003"), test_tmp_file(&tmp, "step-000009.tmp")), 0);
    save(&a, 3);
    assert_int_equal(
        rename(test_tmp_file(&tmp, "step-000003"), test_tmp_file(&tmp, "step-000001.old")), 0);
    save(&a, 3);
    test_tmp_write(&tmp, "step-000009.tmp/state.safetensors.tmp-0123abcd", "x", 1);
    test_tmp_write(&tmp, "keep", "x", 1);
    assert_ok(du_dir_make(test_tmp_file(&tmp, "step-9.tmp"), &diag), &diag);
    assert_ok(du_checkpoint_clean(tmp.path, &diag), &diag);
    assert_int_equal(test_tmp_count(&tmp), 3);
    assert_steps((const int64_t[]){3}, 1);
    /* left over where the next one is made */
    assert_ok(du_dir_make(test_tmp_file(&tmp, "step-000003.tmp"), &diag), &diag);
    test_tmp_write(&tmp, "step-000003.tmp/config.json", "x", 1);
    save(&a, 3);
    assert_int_equal(test_tmp_count(&tmp), 3);
    run_done(&a);
}

/* A full disk leaves the checkpoint before it whole, and nothing else. */
static void test_full_disk(void **state) {
    (void)state;
    run a = run_make(32, adamw, 5);
    save(&a, 3);
    for (int64_t n = 0; n < 400000; n += 30000) {
        test_limit_files(n);
        du_err err = save_at(&a, tmp.path, 4);
        test_limit_files(-1);
        if (err == DU_OK) {
            assert_true(n > 0);
            break;
        }
        assert_int_equal(err, DU_EIO);
        assert_int_equal(test_tmp_count(&tmp), 1);
    }
    assert_steps((const int64_t[]){3, 4}, 2);
    du_saved saved;
    assert_ok(du_saved_open(&saved, tmp.path, 3, &diag), &diag);
    du_saved_close(&saved);
    run_done(&a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip),     TEST(test_round_trip_sgd), TEST(test_no_moments),
        TEST(test_same_bytes),     TEST(test_damage),         TEST(test_state_damage),
        TEST(test_forged),         TEST(test_foreign),        TEST(test_list_and_prune),
        TEST(test_others_files),   TEST(test_clean),          TEST(test_full_disk),
        TEST(test_another_version)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
