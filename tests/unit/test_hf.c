#include "test.h"
#include "tmp.h"

#include "base/json.h"
#include "formats/hf.h"

static void put(const test_tmp *tmp, const char *name, const char *text) {
    test_tmp_write(tmp, name, text, strlen(text));
}

static void a_directory_is_read(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    put(&tmp, "config.json", "{\"model_type\": \"deepseek_v3\"}");
    put(&tmp, "generation_config.json", "{\"temperature\": 0.6}");
    put(&tmp, "tokenizer_config.json", "{\"add_bos_token\": true}");
    put(&tmp, "tokenizer.json", "{\"version\": \"1.0\"}");
    put(&tmp, "model.safetensors.index.json", "{}");
    du_diag diag;
    du_hf *hf = NULL;
    json_t *tokenizer = NULL;
    assert_ok(du_hf_open(&hf, tmp.path, &diag), &diag);
    assert_string_equal(du_hf_dir(hf), tmp.path);
    assert_string_equal(json_string_value(json_object_get(du_hf_config(hf), "model_type")),
                        "deepseek_v3");
    assert_true(json_is_real(json_object_get(du_hf_generation_config(hf), "temperature")));
    assert_true(json_is_true(json_object_get(du_hf_tokenizer_config(hf), "add_bos_token")));
    assert_ok(du_hf_load_tokenizer(&tokenizer, hf, &diag), &diag);
    assert_string_equal(json_string_value(json_object_get(tokenizer, "version")), "1.0");
    json_decref(tokenizer);
    assert_int_equal(du_hf_n_templates(hf), 0);
    assert_null(du_hf_template_find(hf, "default"));
    assert_string_equal(du_hf_weights_path(hf),
                        test_tmp_file(&tmp, "model.safetensors.index.json"));
    du_hf_close(hf);

    put(&tmp, "model.safetensors", "");
    assert_ok(du_hf_open(&hf, tmp.path, &diag), &diag);
    assert_string_equal(du_hf_weights_path(hf), test_tmp_file(&tmp, "model.safetensors"));
    du_hf_close(hf);
    test_tmp_remove(&tmp);
}

static void a_tokenizer_alone_is_enough(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    put(&tmp, "tokenizer.json", "{}");
    du_diag diag;
    du_hf *hf = NULL;
    assert_ok(du_hf_open(&hf, tmp.path, &diag), &diag);
    assert_null(du_hf_config(hf));
    assert_null(du_hf_generation_config(hf));
    assert_null(du_hf_tokenizer_config(hf));
    assert_null(du_hf_weights_path(hf));
    du_hf_close(hf);
    test_tmp_remove(&tmp);
}

/* Where the template stands in none, one, two or all three places, the newest place counts. */
static void templates_come_from_the_newest_place(void **state) {
    (void)state;
    for (int places = 0; places < 8; places++) {
        test_tmp tmp = test_tmp_make();
        put(&tmp, "config.json", "{}");
        if (places & 1) {
            put(&tmp, "tokenizer_config.json", "{\"chat_template\": \"inline {{ 1 }}\\n\"}");
        }
        if (places & 2) {
            put(&tmp, "chat_template.json", "{\"chat_template\": \"json\"}");
        }
        if (places & 4) {
            put(&tmp, "chat_template.jinja", "jinja 두레\n");
        }
        du_diag diag;
        du_hf *hf = NULL;
        assert_ok(du_hf_open(&hf, tmp.path, &diag), &diag);
        const char *text = du_hf_template_find(hf, "default");
        if (places == 0) {
            assert_null(text);
        } else {
            assert_int_equal(du_hf_n_templates(hf), 1);
            assert_string_equal(text, places & 4   ? "jinja 두레\n"
                                      : places & 2 ? "json"
                                                   : "inline {{ 1 }}\n");
        }
        du_hf_close(hf);
        test_tmp_remove(&tmp);
    }
}

static void a_list_of_templates_has_names(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    put(&tmp, "config.json", "{}");
    put(&tmp, "tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"default\", \"template\": \"a\"},"
        " {\"name\": \"tool_use\", \"template\": \"b\"}]}");
    du_diag diag;
    du_hf *hf = NULL;
    assert_ok(du_hf_open(&hf, tmp.path, &diag), &diag);
    assert_int_equal(du_hf_n_templates(hf), 2);
    assert_string_equal(du_hf_template_name(hf, 1), "tool_use");
    assert_string_equal(du_hf_template(hf, 1), "b");
    assert_string_equal(du_hf_template_find(hf, "default"), "a");
    assert_null(du_hf_template_find(hf, "rag"));
    du_hf_close(hf);
    test_tmp_remove(&tmp);
}

static void hostile_directories_are_refused(void **state) {
    (void)state;
    static const char *const steps[] = {"step-000009", "step-000100", "step-000100.tmp", "step-",
                                        "step-1000000"};
    static const char *const last[] = {"/step-000009", "/step-000100", "/step-000100",
                                       "/step-000100", "/step-1000000"};
    static const struct {
        const char *file, *text, *message;
        du_err code;
    } cases[] = {
        {"config.json", "", "/config.json: ", DU_EFORMAT},
        {"config.json", "[1]", "/config.json: no JSON object", DU_EFORMAT},
        {"config.json", "{\"a\": 1, \"a\": 2}", "/config.json: line 1, column ", DU_EFORMAT},
        {"config.json", "{\"a\": \xff}", "/config.json: ", DU_EFORMAT},
        {"generation_config.json", "1", "/generation_config.json: no JSON object", DU_EFORMAT},
        {"tokenizer_config.json", "{", "/tokenizer_config.json: ", DU_EFORMAT},
        {"tokenizer_config.json", "{\"chat_template\": 7}",
         "/tokenizer_config.json: chat_template: neither a text nor a list", DU_EFORMAT},
        {"tokenizer_config.json", "{\"chat_template\": {\"name\": \"a\"}}", "neither a text",
         DU_EFORMAT},
        {"tokenizer_config.json", "{\"chat_template\": [{\"name\": \"a\"}]}", "neither a text",
         DU_EFORMAT},
        {"tokenizer_config.json", "{\"chat_template\": [[]]}", "neither a text", DU_EFORMAT},
        {"tokenizer_config.json",
         "{\"chat_template\": [{\"name\": \"a\", \"template\": \"\"},"
         " {\"name\": \"a\", \"template\": \"\"}]}",
         "/tokenizer_config.json: two chat templates named a", DU_EFORMAT},
        {"tokenizer_config.json", "{\"chat_template\": \"a\\u0000b\"}", "one that holds a NUL",
         DU_EFORMAT},
        {"chat_template.json", "[]", "/chat_template.json: no JSON object", DU_EFORMAT},
        {"chat_template.json", "{\"chat_template\": false}", "/chat_template.json: chat_template",
         DU_EFORMAT},
    };
    int64_t live = du_mem_get_stats().n_live;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_tmp tmp = test_tmp_make();
        put(&tmp, "config.json", "{}");
        put(&tmp, cases[i].file, cases[i].text);
        du_diag diag;
        du_hf *hf = NULL;
        assert_fails(du_hf_open(&hf, tmp.path, &diag), cases[i].code, &diag, cases[i].message);
        assert_true(strncmp(diag.msg, tmp.path, strlen(tmp.path)) == 0);
        assert_null(hf);
        test_tmp_remove(&tmp);
    }
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    du_hf *hf = NULL;
    assert_fails(du_hf_open(&hf, tmp.path, &diag), DU_ENOENT, &diag,
                 "neither config.json nor tokenizer.json");
    put(&tmp, "adapter_config.json", "{}");
    assert_fails(du_hf_open(&hf, tmp.path, &diag), DU_ENOENT, &diag, "dure merge BASE ");
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) { /* what a run leaves */
        assert_ok(du_dir_make(test_tmp_file(&tmp, steps[i]), &diag), &diag);
        assert_fails(du_hf_open(&hf, tmp.path, &diag), DU_ENOENT, &diag, last[i]);
        assert_int_equal(strcmp(strrchr(diag.msg, '/'), strrchr(last[i], '/')), 0);
    }
    unlink(test_tmp_file(&tmp, "adapter_config.json"));
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        assert_int_equal(rmdir(test_tmp_file(&tmp, steps[i])), 0);
    }
    assert_fails(du_hf_open(&hf, test_tmp_file(&tmp, "absent"), &diag), DU_ENOENT, &diag,
                 "absent: no such directory");
    put(&tmp, "config.json", "{}");
    test_tmp_write(&tmp, "chat_template.jinja", "a\0b", 3);
    assert_fails(du_hf_open(&hf, tmp.path, &diag), DU_EFORMAT, &diag,
                 "/chat_template.jinja: a chat template of 3 bytes");
    put(&tmp, "chat_template.jinja", "");
    assert_ok(du_hf_open(&hf, tmp.path, &diag), &diag);
    json_t *tokenizer = NULL;
    assert_fails(du_hf_load_tokenizer(&tokenizer, hf, &diag), DU_ENOENT, &diag,
                 "no tokenizer.json");
    put(&tmp, "tokenizer.json", "{\"a\"");
    assert_fails(du_hf_load_tokenizer(&tokenizer, hf, &diag), DU_EFORMAT, &diag,
                 "/tokenizer.json: line 1");
    assert_null(tokenizer);
    du_hf_close(hf);
    test_tmp_remove(&tmp);
    assert_int_equal(du_mem_get_stats().n_live, live);
}

static void oversized_files_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *file;
        size_t limit;
    } cases[] = {{"config.json", DU_HF_CONFIG_BYTES_MAX},
                 {"generation_config.json", DU_HF_CONFIG_BYTES_MAX},
                 {"chat_template.jinja", DU_HF_TEMPLATE_BYTES_MAX},
                 {"chat_template.json", DU_HF_TEMPLATE_BYTES_MAX}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_tmp tmp = test_tmp_make();
        put(&tmp, "config.json", "{}");
        put(&tmp, cases[i].file, "");
        assert_int_equal(truncate(test_tmp_file(&tmp, cases[i].file), (off_t)cases[i].limit + 1),
                         0);
        du_diag diag;
        du_hf *hf = NULL;
        assert_fails(du_hf_open(&hf, tmp.path, &diag), DU_ELIMIT, &diag, cases[i].file);
        test_tmp_remove(&tmp);
    }
}

static void failed_allocations_are_survived(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    put(&tmp, "config.json", "{\"model_type\": \"deepseek_v3\"}");
    put(&tmp, "tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"default\", \"template\": \"a\"},"
        " {\"name\": \"tool_use\", \"template\": \"b\"}]}");
    put(&tmp, "model.safetensors", "");
    int64_t live = du_mem_get_stats().n_live;
    int n = 1;
    for (bool opened = false; !opened; n++) {
        du_diag diag;
        du_diag_reset(&diag);
        du_hf *hf = NULL;
        du_mem_fail_at(n, false);
        du_err err = du_hf_open(&hf, tmp.path, &diag);
        opened = err == DU_OK;
        du_mem_fail_at(0, false);
        assert_true(opened || (err == DU_ENOMEM && !hf));
        assert_true(!opened || (du_hf_n_templates(hf) == 2 && du_hf_weights_path(hf)));
        du_hf_close(hf);
        assert_int_equal(du_mem_get_stats().n_live, live);
    }
    assert_true(n > 20);
    test_tmp_remove(&tmp);
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_directory_is_read),
        cmocka_unit_test(a_tokenizer_alone_is_enough),
        cmocka_unit_test(templates_come_from_the_newest_place),
        cmocka_unit_test(a_list_of_templates_has_names),
        cmocka_unit_test(hostile_directories_are_refused),
        cmocka_unit_test(oversized_files_are_refused),
        cmocka_unit_test(failed_allocations_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
