/* Chat templates: the input is one, rendered with a conversation. What comes out is UTF-8 again,
 * and the same when it is rendered twice. */
#include "base/json.h"
#include "fuzz.h"
#include "text/jinja.h"
#include "text/unicode.h"

static const char conversation[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"},"
    " {\"role\": \"user\", \"content\": \" 두레 <b>'x'</b>\\n\"},"
    " {\"role\": \"assistant\", \"content\": \"<think>a</think>b\", \"tool_calls\":"
    " [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": {\"a\": 1.5}}}]},"
    " {\"role\": \"tool\", \"content\": \"😀\"}],"
    " \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\":"
    " {\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"number\"}}}}}],"
    " \"documents\": null, \"add_generation_prompt\": true, \"bos_token\": \"<s>\","
    " \"x\": 5, \"y\": -2.5, \"s\": \"Hello wörld\", \"l\": [3, 1, 2], \"d\": {\"a\": 1, \"b\": "
    "[]},"
    " \"big\": 9223372036854775807}";

static du_err render(const du_jinja *t, const json_t *vars, du_str *out) {
    static const du_jinja_options small = {
        .steps_max = 20000, .memory_bytes_max = 4 << 20, .output_bytes_max = 1 << 20, .now_s = 1};
    du_diag diag;
    du_diag_reset(&diag);
    du_err err = du_jinja_render(t, vars, &small, out, &diag);
    FUZZ_CHECK((err == DU_OK) == (diag.code == DU_OK));
    FUZZ_CHECK(err == DU_OK || out->len == 0);
    FUZZ_CHECK(err != DU_ENOMEM);
    FUZZ_CHECK(du_utf8_valid(du_str_get(out), out->len) == out->len);
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static json_t *vars;
    du_jinja *t = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    if (!vars) {
        FUZZ_CHECK(du_json_parse(&vars, conversation, sizeof conversation - 1, "", NULL) == DU_OK);
    }
    if (du_jinja_parse(&t, (const char *)data, size, "t", &diag) != DU_OK) {
        FUZZ_CHECK(!t && diag.code != DU_OK && diag.msg[0] != '\0');
        return 0;
    }
    du_str once = {0}, again = {0};
    du_err err = render(t, vars, &once);
    FUZZ_CHECK(render(t, vars, &again) == err && du_sv_eq(du_str_view(&once), du_str_view(&again)));
    du_jinja_reads(t, "messages");
    du_str_done(&once);
    du_str_done(&again);
    du_jinja_free(t);
    return 0;
}
