/* One byte chooses the reader, the rest is its text. */
#include "fuzz.h"

#include "base/json.h"
#include "base/json_walk.h"

static void parse(const char *text, size_t len) {
    json_t *value;
    if (du_json_parse(&value, text, len, "input", NULL) != DU_OK) {
        return;
    }
    int64_t i64 = 0;
    double f64 = 0;
    bool flag = false;
    const char *s = NULL;
    (void)!du_json_get_i64(value, "a", -5, 5, &i64, NULL);
    (void)!du_json_get_f64(value, "a", &f64, NULL);
    (void)!du_json_get_bool(value, "a", &flag, NULL);
    (void)!du_json_get_str(value, "a", &s, NULL);
    json_decref(value);
}

static void walk(const char *text, size_t len) {
    du_json_walk w = {.text = {text, len}, .what = "input"};
    du_sv member;
    while (du_json_walk_next(&w, &member, NULL) == DU_OK && member.len > 0) {
        json_t *value;
        if (du_json_walk_parse(&value, &w, member, NULL) == DU_OK) {
            json_decref(value);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 0) {
        (data[0] % 2 ? walk : parse)((const char *)data + 1, size - 1);
    }
    return 0;
}
