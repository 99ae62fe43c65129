#include "test.h"

#include <math.h>

#include "base/str.h"
#include "tmp.h"
#include "train/config.h"
#include "train/samples.h"
#include "train/schedule.h"

static du_train_config config;
static du_diag diag;

static void begin(void) {
    du_diag_reset(&diag);
    assert_int_equal(du_train_config_init(&config, &diag), DU_OK);
}

static du_err set(const char *pair) {
    du_diag_reset(&diag);
    return du_train_config_set_pair(&config, pair, &diag);
}

static void refused(const char *pair, const char *says) {
    assert_int_equal(set(pair), DU_EINVAL);
    if (!strstr(diag.msg, says)) {
        fail_msg("%s: '%s' does not say '%s'", pair, diag.msg, says);
    }
}

static void test_set(void **state) {
    (void)state;
    begin();
    assert_int_equal(config.batch_seqs, 16);
    assert_true(config.optim.beta2 == 0.95);
    assert_int_equal(set("optim.lr=2e-4"), DU_OK);
    assert_int_equal(set(" dtype = bf16 "), DU_OK);
    assert_int_equal(set("out=a=b"), DU_OK);
    assert_true(config.optim.lr == 2e-4 && config.dtype == DU_TRAIN_BF16);
    assert_string_equal(config.out, "a=b");
    refused("optim.le=1", "did you mean optim.lr");
    refused("lr=3", "unknown key lr, did you mean optim.lr (");
    refused("hidden_size=3", "did you mean model.hidden_size (");
    refused("rank=3", "did you mean lora.rank (");
    refused("eps=3", "did you mean optim.eps ("); /* and not the nearest, steps */
    refused("stepz=3", "did you mean steps (");
    refused("nothing_near=3", "unknown key nothing_near (");
    refused("steps=1.5", "steps = 1.5: takes a whole number from 0 to");
    refused("steps=-1", "takes a whole number");
    refused("steps=", "takes a whole number");
    refused("optim.beta1=1", "takes a number from 0 to 0.999999");
    refused("optim.lr=nan", "takes a number");
    refused("optim.lr=1e-3x", "takes a number");
    refused("optim.eps=0", "optim.eps = 0: takes a number from 1e-30 to 1");
    refused("dtype=fp8", "takes one of f32|bf16");
    refused("dtype=f32|bf16", "takes one of");
    refused("steps", "takes KEY=VALUE");
    refused("out=\xff", "takes a text in UTF-8");
    refused("model.hidden_size=[1", "takes a number");
    assert_true(config.optim.lr == 2e-4 && config.steps == 0);
    du_train_config_done(&config);
}

static void test_model(void **state) {
    (void)state;
    begin();
    assert_int_equal(set("model.arch=deepseek_v3"), DU_OK);
    assert_int_equal(set("model.hidden_size=256"), DU_OK);
    assert_int_equal(set("model.tie_word_embeddings=true"), DU_OK);
    assert_int_equal(set("model.rope_scaling={\"type\": \"linear\", \"factor\": 2}"), DU_OK);
    assert_string_equal(json_string_value(json_object_get(config.model, "model_type")),
                        "deepseek_v3");
    assert_int_equal(json_integer_value(json_object_get(config.model, "hidden_size")), 256);
    assert_true(json_is_true(json_object_get(config.model, "tie_word_embeddings")));
    assert_true(json_is_object(json_object_get(config.model, "rope_scaling")));
    du_train_config_done(&config);
}

static void prompt_is(const char *pair, const char *want) {
    json_t *prompts = NULL;
    assert_int_equal(set(pair), DU_OK);
    assert_int_equal(du_samples_prompts(&prompts, &config, &diag), DU_OK);
    assert_int_equal(json_array_size(prompts), 1);
    assert_string_equal(json_string_value(json_array_get(prompts, 0)), want);
    json_decref(prompts);
}

static void test_prompt(void **state) {
    (void)state;
    begin();
    prompt_is("sample.prompt=Once", "Once");
    prompt_is("sample.prompt=\"Once \\\"#\\\"\"", "Once \"#\"");
    prompt_is("sample.prompt=[\"Once\"]", "Once");
    refused("sample.prompt=\"\"", "sample.prompt: takes a text");
    refused("sample.prompt=\"Once", "--set: sample.prompt");
    refused("sample.prompt=\"Once\" upon", "--set: sample.prompt");
    du_train_config_done(&config);
}

static du_err read_text(const test_tmp *t, const char *text) {
    test_tmp_write(t, "run.conf", text, strlen(text));
    du_diag_reset(&diag);
    return du_train_config_read(&config, test_tmp_file(t, "run.conf"), &diag);
}

static void test_read(void **state) {
    (void)state;
    test_tmp t = test_tmp_make();
    begin();
    assert_int_equal(read_text(&t, "# a run\n\nsteps = 20   # few\r\nout=o#1\n  seed\t=\t7"),
                     DU_OK);
    assert_int_equal(config.steps, 20);
    assert_int_equal(config.seed, 7);
    assert_string_equal(config.out, "o#1");
    assert_int_equal(read_text(&t, "sample.prompt = [\"3 # \\\" # 4?\", \"x\"] # two\n"), DU_OK);
    assert_string_equal(config.sample.prompt, "[\"3 # \\\" # 4?\", \"x\"]");
    assert_int_equal(read_text(&t, "sample.prompt = say \"a # b\n"), DU_OK); /* no JSON */
    assert_string_equal(config.sample.prompt, "say \"a");
    assert_int_equal(read_text(&t, "model.rope_scaling =\t{\"type\": \"a # b\"} #\n"), DU_OK);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(config.model, "rope_scaling"), "type")),
        "a # b");
    static const struct {
        const char *text, *says;
    } bad[] = {{"\nsample.prompt = [\"x\", 3 # ]\n", "run.conf:2: sample.prompt"},
               {"sample.prompt = [3]\n", "run.conf:1: sample.prompt: takes a text, or"},
               {"steps = 1\nsteps = 2\n", "run.conf:2: steps is given twice"},
               {"\nstepz = 1\n", "run.conf:2: unknown key stepz, did you mean steps"},
               {"steps\n", "run.conf:1: no `=`"},
               {"seed = x", "run.conf:1: seed = x: takes"},
               {"= 1", "run.conf:1: no key before `=`"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(read_text(&t, bad[i].text), DU_EINVAL);
        assert_non_null(strstr(diag.msg, bad[i].says));
    }
    test_tmp_write(&t, "zero.conf", "steps = 1\0\n", 11);
    assert_int_equal(du_train_config_read(&config, test_tmp_file(&t, "zero.conf"), &diag),
                     DU_EINVAL);
    assert_int_equal(du_train_config_read(&config, test_tmp_file(&t, "absent"), &diag), DU_ENOENT);
    du_train_config_done(&config);
    test_tmp_remove(&t);
}

/* What a checkpoint keeps gives the same run again, and says what a continuation may change. */
static void test_kept(void **state) {
    (void)state;
    static const char *const pairs[] = {"steps=20",         "out=o",
                                        "optim.lr=0.1",     "optim.eps=1e-15",
                                        "dtype=bf16",       "data.tokens=t #1\nsteps = 3",
                                        "model.arch=llama", "model.rope_theta=500000.0",
                                        "model.head_dim=32"};
    begin();
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        assert_int_equal(set(pairs[i]), DU_OK);
    }
    du_train_config first = config;
    json_t *kept = du_train_config_kept(&first);
    assert_int_equal(json_object_size(kept), 7); /* neither steps nor out */
    begin();
    assert_int_equal(du_train_config_take(&config, kept, "here", &diag), DU_OK);
    json_t *again = du_train_config_kept(&config);
    assert_true(json_equal(kept, again));
    assert_int_equal(config.steps, 0);
    assert_int_equal(du_train_config_same_run(&config, &first, &diag), DU_OK);
    assert_int_equal(set("steps=40"), DU_OK);
    assert_int_equal(set("checkpoint.every=3"), DU_OK);
    assert_int_equal(du_train_config_same_run(&config, &first, &diag), DU_OK);
    assert_int_equal(set("model.head_dim=64"), DU_OK);
    assert_int_equal(du_train_config_same_run(&config, &first, &diag), DU_EINVAL);
    assert_non_null(strstr(diag.msg, "model.head_dim is '64' now and was '32'"));
    json_object_set_new(kept, "optim.le", json_string("1"));
    assert_fails(du_train_config_take(&config, kept, "here", &diag), DU_EINVAL, &diag,
                 "here: unknown key optim.le");
    json_object_set_new(again, "optim.lr", json_integer(1));
    assert_fails(du_train_config_take(&config, again, "here", &diag), DU_EINVAL, &diag,
                 "here: optim.lr is no text");
    assert_fails(du_train_config_take(&config, NULL, "here", &diag), DU_EINVAL, &diag,
                 "here: no configuration");
    json_decref(kept);
    json_decref(again);
    du_train_config_done(&first);
    du_train_config_done(&config);
}

static void check_says(const char *says) {
    du_diag_reset(&diag);
    assert_int_equal(du_train_config_check(&config, &diag), DU_EINVAL);
    assert_non_null(strstr(diag.msg, says));
}

static void test_check(void **state) {
    (void)state;
    begin();
    check_says("neither init nor model.arch");
    assert_int_equal(set("init=m.gguf"), DU_OK);
    check_says("out is missing");
    assert_int_equal(set("out=o"), DU_OK);
    check_says("steps is missing");
    assert_int_equal(set("steps=10"), DU_OK);
    check_says("neither data.tokens nor data.shards");
    assert_int_equal(set("data.tokens=t"), DU_OK);
    assert_int_equal(du_train_config_check(&config, &diag), DU_OK);
    assert_int_equal(set("data.token_bytes=3"), DU_OK);
    check_says("data.token_bytes = 3");
    assert_int_equal(set("data.token_bytes=4"), DU_OK);
    assert_int_equal(set("schedule.batch_from=2"), DU_OK);
    check_says("schedule.batch_from = 2: does nothing without schedule.batch_steps");
    assert_int_equal(set("schedule.batch_from=1"), DU_OK);
    assert_int_equal(set("spike.factor=1"), DU_OK);
    check_says("spike.factor = 1: any loss would be a spike: takes more than 1, or 0");
    assert_int_equal(set("spike.factor=1.1"), DU_OK);
    assert_int_equal(set("schedule.warmup_steps=11"), DU_OK); /* the run may go on later */
    assert_int_equal(du_train_config_check(&config, &diag), DU_OK);
    assert_int_equal(set("qat.type=Q7"), DU_OK);
    check_says("qat.type: 'Q7' is no type (");
    assert_int_equal(set("qat.type=f8_e4m3"), DU_OK);
    assert_int_equal(du_train_config_check(&config, &diag), DU_OK);
    assert_int_equal(set("model.arch=gpt2"), DU_OK);
    check_says("init and model.* are both given");
    assert_int_equal(set("init="), DU_OK);
    check_says("model.*: model_type 'gpt2' is not supported (deepseek_v3, deepseek_v2, ");
    static const char *const shape[] = {"model.arch=llama",          "model.vocab_size=8",
                                        "model.hidden_size=8",       "model.intermediate_size=4",
                                        "model.num_hidden_layers=1", "model.num_attention_heads=2"};
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        check_says("model.*: ");
        assert_int_equal(set(shape[i]), DU_OK);
    }
    assert_int_equal(du_train_config_check(&config, &diag), DU_OK);
    assert_int_equal(set("model.hidden_size=-8"), DU_OK);
    check_says("model.*: hidden_size");
    assert_int_equal(set("model.hidden_size=8"), DU_OK);
    assert_int_equal(set("model.n_routed_experts=4"), DU_OK);
    check_says("model.n_routed_experts = 4: a model of model.arch = llama has none");
    assert_int_equal(set("model.n_routed_experts=0"), DU_OK);
    static const char *const latent[] = {"model.kv_lora_rank=4", "model.qk_nope_head_dim=4",
                                         "model.qk_rope_head_dim=2", "model.v_head_dim=4"};
    for (size_t i = 0; i < sizeof latent / sizeof *latent; i++) {
        assert_int_equal(set(latent[i]), DU_OK);
    }
    check_says("model.*: kv_lora_rank: an architecture without latent attention");
    du_train_config_done(&config);
}

/* Every key with a default takes its default's own text; the list names every key. */
static void test_help(void **state) {
    (void)state;
    begin();
    du_str help = {0};
    du_train_config_help(&help);
    json_t *list = du_train_config_json();
    assert_non_null(list);
    assert_true(json_array_size(list) > 50);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *key = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(key, "key"));
        const char *value = json_string_value(json_object_get(key, "default"));
        assert_non_null(strstr(du_str_get(&help), name));
        assert_true(*json_string_value(json_object_get(key, "help")) != '\0');
        if (*value) {
            assert_int_equal(
                du_train_config_set(&config, du_sv_of(name), du_sv_of(value), "test", &diag),
                DU_OK);
        }
    }
    size_t column = 0;
    for (const char *p = du_str_get(&help); *p; p++) {
        column = *p == '\n' ? 0 : column + 1;
        assert_true(column <= 80);
    }
    json_t *kept = du_train_config_kept(&config);
    assert_int_equal(json_object_size(kept), 0);
    json_decref(kept);
    du_str_done(&help);
    json_decref(list);
    du_train_config_done(&config);
}

static void near(double got, double want) {
    if (fabs(got - want) > 1e-12) {
        fail_msg("%.15g, not %.15g", got, want);
    }
}

static void test_schedule(void **state) {
    (void)state;
    begin();
    assert_int_equal(set("steps=110"), DU_OK);
    assert_int_equal(set("optim.lr=2"), DU_OK);
    assert_int_equal(set("schedule.warmup_steps=10"), DU_OK);
    near(du_schedule_lr(&config, 1), 0.2);
    near(du_schedule_lr(&config, 10), 2);
    near(du_schedule_lr(&config, 110), 2);
    assert_int_equal(set("schedule.final=0.1"), DU_OK);
    assert_int_equal(set("schedule.name=linear"), DU_OK);
    near(du_schedule_lr(&config, 60), 2 * 0.55);
    near(du_schedule_lr(&config, 110), 0.2);
    assert_int_equal(set("schedule.name=cosine"), DU_OK);
    near(du_schedule_lr(&config, 10), 2);
    near(du_schedule_lr(&config, 60), 2 * 0.55);
    near(du_schedule_lr(&config, 35), 2 * (0.1 + 0.9 * (1 + sqrt(0.5)) / 2));
    near(du_schedule_lr(&config, 110), 0.2);
    assert_int_equal(set("schedule.name=wsd"), DU_OK);
    near(du_schedule_lr(&config, 99), 2);
    near(du_schedule_lr(&config, 110), 0.2);
    assert_int_equal(set("schedule.decay_steps=50"), DU_OK);
    near(du_schedule_lr(&config, 60), 2);
    near(du_schedule_lr(&config, 85), 2 * 0.55);
    assert_int_equal(set("steps=14800"), DU_OK);
    assert_int_equal(set("schedule.name=deepseek_v3"), DU_OK);
    near(du_schedule_lr(&config, 10000), 2);
    near(du_schedule_lr(&config, 12150), 2 * 0.55);
    near(du_schedule_lr(&config, 14300), 0.2);
    near(du_schedule_lr(&config, 14600), 0.2);
    near(du_schedule_lr(&config, 14800), 2 * 7.3 / 220);
    du_train_config_done(&config);
}

static void test_batches_grow(void **state) {
    (void)state;
    static const int64_t micros[] = {2, 2, 3, 4, 4, 5, 6, 7, 7, 7};
    int64_t before = 0;
    begin();
    assert_int_equal(set("accumulate=7"), DU_OK);
    assert_int_equal(du_schedule_micros(&config, 1), 7);
    assert_int_equal(du_schedule_micros_before(&config, 4), 21);
    assert_int_equal(set("schedule.batch_from=2"), DU_OK);
    assert_int_equal(set("schedule.batch_steps=7"), DU_OK);
    for (int64_t i = 0; i < 10; i++) {
        assert_int_equal(du_schedule_micros(&config, i + 1), micros[i]);
        assert_int_equal(du_schedule_micros_before(&config, i + 1), before);
        before += micros[i];
    }
    du_train_config_done(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),      cmocka_unit_test(test_model),
        cmocka_unit_test(test_read),     cmocka_unit_test(test_kept),
        cmocka_unit_test(test_check),    cmocka_unit_test(test_help),
        cmocka_unit_test(test_schedule), cmocka_unit_test(test_batches_grow),
        cmocka_unit_test(test_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
