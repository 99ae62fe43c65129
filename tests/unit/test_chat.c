#include "test.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "text/chat.h"

static du_chat *open_text(const char *text) {
    du_chat *chat = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_chat_open(&chat, text, strlen(text), "t", &diag), &diag);
    return chat;
}

static const char plain[] =
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if tools %}{{ tools|tojson }}{% endif %}{% if documents is none %}.{% endif %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";

static void renders_messages(void **state) {
    (void)state;
    du_chat *chat = open_text(plain);
    json_t *messages = json_array(), *vars = json_pack("{ss}", "bos_token", "<s>");
    json_t *tools = json_pack("[{ss}]", "name", "날씨");
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_chat_add_message(messages, "system", "Be\0brief", 8, &diag), &diag);
    assert_ok(du_chat_add_message(messages, "user", "안녕", 6, &diag), &diag);
    du_chat_input input = {.messages = messages, .vars = vars, .add_generation_prompt = true};
    du_str out = {0};
    assert_ok(du_chat_render(chat, &input, &out, &diag), &diag);
    static const char expected[] = "<s><system>Be\0brief<user>안녕.<assistant>";
    assert_int_equal(out.len, sizeof expected - 1);
    assert_memory_equal(out.data, expected, out.len);

    du_str_reset(&out);
    input = (du_chat_input){.messages = messages, .vars = vars, .tools = tools};
    assert_ok(du_chat_render(chat, &input, &out, &diag), &diag);
    assert_non_null(strstr(out.data + 14, "[{\"name\": \"날씨\"}]."));

    /* tools may come among the variables; the fields win */
    assert_int_equal(json_object_set_new(vars, "tools", json_integer(7)), 0);
    assert_int_equal(json_object_set_new(vars, "messages", json_integer(7)), 0);
    assert_int_equal(json_object_set_new(vars, "add_generation_prompt", json_true()), 0);
    json_t *empty = json_array();
    du_str_reset(&out);
    input = (du_chat_input){.messages = empty, .vars = vars};
    assert_ok(du_chat_render(chat, &input, &out, &diag), &diag);
    assert_string_equal(du_str_get(&out), "<s>7.");
    du_str_reset(&out);
    input.tools = tools;
    assert_ok(du_chat_render(chat, &input, &out, &diag), &diag);
    assert_string_equal(du_str_get(&out), "<s>[{\"name\": \"날씨\"}].");
    assert_int_equal(json_integer_value(json_object_get(vars, "tools")), 7);

    input.messages = vars;
    assert_fails(du_chat_render(chat, &input, &out, &diag), DU_EINVAL, &diag, "no JSON array");
    assert_fails(du_chat_add_message(messages, "user", "\xff", 1, &diag), DU_EINVAL, &diag,
                 "no valid UTF-8");
    assert_int_equal(json_array_size(messages), 2);
    du_str_done(&out);
    json_decref(messages);
    json_decref(vars);
    json_decref(tools);
    json_decref(empty);
    du_chat_close(chat);
}

static void tells_what_a_template_can(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool tools, thinking, opens_thinking;
        const char *thinking_var;
    } known[] = {
        {"deepseek-v2", false, false, false, NULL},
        {"deepseek-v3", false, false, false, NULL},
        {"deepseek-r1", false, true, true, NULL},
        {"deepseek-r1-distill", false, true, true, NULL},
        {"deepseek-v3.1", false, true, false, "thinking"},
        {"qwen2.5", true, false, false, NULL},
        {"qwen3", true, true, false, "enable_thinking"},
        {"smollm2", false, false, false, NULL},
        {"llama-3.1", true, false, false, NULL},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        char path[256];
        snprintf(path, sizeof path, DURE_SOURCE_DIR "/tests/golden/templates/%s.jinja",
                 known[i].name);
        char *text = NULL;
        size_t len = 0;
        du_diag diag;
        du_diag_reset(&diag);
        assert_ok(du_file_read(&text, &len, path, 1 << 20, &diag), &diag);
        du_chat *chat = NULL;
        assert_ok(du_chat_open(&chat, text, len, path, &diag), &diag);
        const du_chat_features *f = du_chat_get_features(chat);
        if (f->tools != known[i].tools || f->thinking != known[i].thinking ||
            f->opens_thinking != known[i].opens_thinking) {
            fail_msg("%s: tools %d, thinking %d, opens %d", known[i].name, f->tools, f->thinking,
                     f->opens_thinking);
        }
        if (known[i].thinking_var) {
            assert_non_null(f->thinking_var);
            assert_string_equal(f->thinking_var, known[i].thinking_var);
        } else {
            assert_null(f->thinking_var);
        }
        du_chat_close(chat);
        du_free(text);
    }
}

static void a_template_that_wants_no_probe_opens(void **state) {
    (void)state;
    du_chat *chat = open_text("<think>{{ raise_exception('no') }}{{ enable_thinking }}");
    assert_true(du_chat_get_features(chat)->thinking);
    assert_false(du_chat_get_features(chat)->opens_thinking);
    assert_string_equal(du_chat_get_features(chat)->thinking_var, "enable_thinking");
    du_chat_close(chat);
    du_chat *none = NULL;
    du_diag diag;
    assert_fails(du_chat_open(&none, "{{", 2, "a.jinja", &diag), DU_EFORMAT, &diag,
                 "a.jinja: line 1");
    assert_null(none);
    du_chat_close(NULL);
}

static void allocation_failures_are_survived(void **state) {
    (void)state;
    static const char text[] = "<think>{% for m in messages %}{{ m.content }}{% endfor %}";
    int64_t live = du_mem_get_stats().n_live;
    bool done = false;
    for (int64_t n = 1; !done; n++) {
        du_chat *chat = NULL;
        du_str out = {0};
        du_diag diag;
        du_diag_reset(&diag);
        du_mem_fail_at(n, false);
        json_t *messages = json_array();
        du_err err = messages ? du_chat_add_message(messages, "user", "hi", 2, &diag) : DU_ENOMEM;
        err = err == DU_OK ? du_chat_open(&chat, text, strlen(text), "t", &diag) : err;
        if (err == DU_OK) {
            du_chat_input input = {.messages = messages};
            err = du_chat_render(chat, &input, &out, &diag);
        }
        done = n > 10 && err == DU_OK && strcmp(du_str_get(&out), "<think>hi") == 0;
        du_mem_fail_at(0, false);
        du_chat_close(chat);
        du_str_done(&out);
        json_decref(messages);
        assert_int_equal(du_mem_get_stats().n_live, live);
    }
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renders_messages),
        cmocka_unit_test(tells_what_a_template_can),
        cmocka_unit_test(a_template_that_wants_no_probe_opens),
        cmocka_unit_test(allocation_failures_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
