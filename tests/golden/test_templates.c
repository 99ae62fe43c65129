/* Templates against Jinja2: published chat templates over conversations with system text, tools,
 * results and reasoning, and small templates for the features of the language. Made by
 * tools/ref/make_templates.py. */
#include "test.h"

#include <jansson.h>
#include <stdlib.h>
#include <time.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "text/chat.h"
#include "text/jinja.h"

#define DIR_TEMPLATES DURE_SOURCE_DIR "/tests/golden/templates/"

enum { FILE_MAX = 64 << 20 };

static char *read_file(const char *name, size_t *len) {
    char path[512], *text = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    snprintf(path, sizeof path, DIR_TEMPLATES "%s", name);
    assert_ok(du_file_read(&text, len, path, FILE_MAX, &diag), &diag);
    return text;
}

/* Calls check on each line of a JSONL file; returns how many there are. */
static int each_line(const char *name, void (*check)(const json_t *line)) {
    size_t len = 0;
    char *text = read_file(name, &len);
    int n = 0;
    for (char *at = text; at < text + len; n++) {
        char *end = memchr(at, '\n', (size_t)(text + len - at));
        assert_non_null(end);
        json_t *line = NULL;
        du_diag diag;
        du_diag_reset(&diag);
        assert_ok(du_json_parse(&line, at, (size_t)(end - at), name, &diag), &diag);
        check(line);
        json_decref(line);
        at = end + 1;
    }
    du_free(text);
    return n;
}

static const char *get(const json_t *line, const char *key) {
    return json_string_value(json_object_get(line, key));
}

/* Compares with the line's output or error; only the text of raise_exception is the template's own,
 * other errors are in our words. */
static void assert_as(const json_t *line, du_err err, const du_str *out, const du_diag *diag) {
    const json_t *expected = json_object_get(line, "output");
    const char *class = get(line, "class");
    bool same;
    if (expected) {
        same = err == DU_OK && out->len == json_string_length(expected) &&
               memcmp(du_str_get(out), json_string_value(expected), out->len) == 0;
    } else if (strcmp(class, "TemplateError") == 0) {
        same = err == DU_EINVAL && strcmp(diag->msg, get(line, "error")) == 0;
    } else {
        same = err == DU_EFORMAT || err == DU_EUNSUPPORTED || err == DU_ELIMIT;
    }
    if (!same) {
        fail_msg("%s: %s: %s\n  got      %s\n  expected %s", get(line, "template"),
                 du_err_text(err), diag->msg, du_str_get(out),
                 expected ? json_string_value(expected) : get(line, "error"));
    }
}

static void check_case(const json_t *line) {
    char name[128];
    size_t len = 0;
    du_diag diag;
    du_diag_reset(&diag);
    snprintf(name, sizeof name, "%s.jinja", get(line, "template"));
    char *text = read_file(name, &len);
    du_chat *chat = NULL;
    assert_ok(du_chat_open(&chat, text, len, name, &diag), &diag);
    const json_t *tools = json_object_get(line, "tools");
    du_chat_input input = {
        .messages = json_object_get(line, "messages"),
        .tools = json_is_null(tools) ? NULL : tools,
        .vars = json_object_get(line, "vars"),
        .add_generation_prompt = json_is_true(json_object_get(line, "add_generation_prompt")),
        .now_s = json_integer_value(json_object_get(line, "now")),
    };
    du_str out = {0};
    du_err err = du_chat_render(chat, &input, &out, &diag);
    assert_as(line, err, &out, &diag);
    du_str_done(&out);
    du_chat_close(chat);
    du_free(text);
}

static void chat_templates(void **state) {
    (void)state;
    assert_true(each_line("cases.jsonl", check_case) >= 300);
}

static json_t *vars;

/* What Jinja2 has and dure says that it has not. */
static bool unsupported(const char *template) {
    return strstr(template, "wordwrap") || strstr(template, "pprint");
}

static void check_snippet(const json_t *line) {
    const json_t *text = json_object_get(line, "template");
    du_jinja *t = NULL;
    du_str out = {0};
    du_diag diag;
    du_diag_reset(&diag);
    du_err err =
        du_jinja_parse(&t, json_string_value(text), json_string_length(text), "snippet", &diag);
    if (err == DU_OK) {
        static const du_jinja_options noon = {.now_s = 1721995200}; /* 26 July 2024, UTC */
        err = du_jinja_render(t, vars, &noon, &out, &diag);
    }
    if (unsupported(json_string_value(text))) {
        assert_int_equal(err, DU_EUNSUPPORTED);
        assert_non_null(strstr(diag.msg, "is not supported"));
    } else {
        assert_as(line, err, &out, &diag);
    }
    du_str_done(&out);
    du_jinja_free(t);
}

static void snippets(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_json_load(&vars, DIR_TEMPLATES "snippets.vars.json", FILE_MAX, &diag), &diag);
    assert_true(each_line("snippets.jsonl", check_snippet) >= 200);
    json_decref(vars);
}

int main(void) {
    setenv("TZ", "UTC", 1);
    tzset();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_templates),
        cmocka_unit_test(snippets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
