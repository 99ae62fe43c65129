#include "base/json.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

enum { MAX_DEPTH = 256 };

/* jansson's own limit is 2,048 levels; ours is checked on the text before it recurses. */
static bool too_deep(const char *text, size_t len) {
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > MAX_DEPTH) {
                return true;
            }
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return false;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Does a number of n digits exceed int64_t? */
static bool is_huge(const char *digits, size_t n) {
    static const char most[] = "9223372036854775807";
    size_t n_most = sizeof most - 1;
    return n > n_most || (n == n_most && memcmp(digits, most, n) > 0);
}

/* A copy of the text in which an integer that int64_t does not hold has the exponent e0, which
 * makes it a real number. */
static void widen_integers(du_str *out, const char *text, size_t len) {
    bool in_string = false;
    for (size_t i = 0, n; i < len; i += n) {
        n = 1;
        bool integer = !in_string && is_digit(text[i]);
        if (in_string && text[i] == '\\' && i + 1 < len) {
            n = 2;
        } else if (text[i] == '"') {
            in_string = !in_string;
        }
        for (; !in_string && is_digit(text[i]) && i + n < len; n++) {
            char c = text[i + n];
            if (!is_digit(c) && (c == '\0' || !strchr(".eE+-", c))) {
                break;
            }
            integer = integer && is_digit(c);
        }
        du_str_add(out, text + i, n);
        if (integer && is_huge(text + i, n)) {
            du_str_add_s(out, "e0");
        }
    }
}

/* jansson tells some failures to allocate as syntax errors and passes over others: when the buffer
 * of the token that it reads cannot grow, bytes of the token are left out, and without its closing
 * quote a string is read beyond its end. So its allocations are watched: the first that fails gets
 * the spare block, which is large enough for any such buffer, and the text ends there. */
static _Thread_local bool short_of_memory;
static _Thread_local void *spare;
static _Thread_local size_t spare_bytes;

static void *watched_alloc(size_t n_bytes) {
    void *p = du_alloc(n_bytes);
    if (!p) {
        short_of_memory = true;
        if (n_bytes <= spare_bytes) {
            p = spare;
            spare = NULL;
            spare_bytes = 0;
        }
    }
    return p;
}

/* One byte for jansson, that nothing is read after an allocation has failed. */
static size_t next_byte(void *buffer, size_t room, void *user) {
    (void)room;
    du_sv *rest = user;
    if (short_of_memory || rest->len == 0) {
        return 0;
    }
    *(char *)buffer = *rest->s++;
    rest->len--;
    return 1;
}

static json_t *load(const char *text, size_t len, json_error_t *error) {
    size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
    du_sv rest = {text, len};
    spare_bytes = 2 * len + 64; /* the buffer starts with 16 bytes and doubles when it is full */
    spare = du_alloc(spare_bytes);
    short_of_memory = !spare;
    json_t *value = json_load_callback(next_byte, &rest, flags, error);
    du_free(spare);
    spare = NULL;
    spare_bytes = 0;
    return value;
}

du_err du_json_parse(json_t **out, const char *text, size_t len, const char *what, du_diag *diag) {
    if (too_deep(text, len)) {
        return du_fail(diag, DU_ELIMIT, "%s: JSON nested more than %d levels deep", what,
                       MAX_DEPTH);
    }
    json_error_t error;
    json_t *value = load(text, len, &error);
    if (!value && !short_of_memory && json_error_code(&error) == json_error_numeric_overflow) {
        du_str wide = {0};
        widen_integers(&wide, text, len);
        value = wide.failed ? NULL : load(wide.data, wide.len, &error);
        short_of_memory |= wide.failed;
        du_str_done(&wide);
    }
    if (short_of_memory || (!value && json_error_code(&error) == json_error_out_of_memory)) {
        json_decref(value);
        return du_fail_nomem(diag, what);
    }
    if (!value) {
        return du_fail_at(diag, DU_EFORMAT, error.position, "%s: line %d, column %d: %s", what,
                          error.line, error.column, error.text);
    }
    *out = value;
    return DU_OK;
}

du_err du_json_load(json_t **out, const char *path, size_t limit, du_diag *diag) {
    char *text = NULL;
    size_t len = 0;
    du_err err = du_file_read(&text, &len, path, limit, diag);
    if (err == DU_OK) {
        err = du_json_parse(out, text, len, path, diag);
    }
    du_free(text);
    return err;
}

static int add_bytes(const char *bytes, size_t n, void *text) {
    du_str_add(text, bytes, n);
    return 0;
}

/* The buffer remembers a failure; json_dumps would leave a key out and go on. */
void du_json_add(du_str *out, const json_t *value, size_t flags) {
    int failed = json_dump_callback(value, add_bytes, out, flags | JSON_ENCODE_ANY);
    out->failed = out->failed || failed;
}

du_err du_json_text(du_str *out, const json_t *value, const char *what, du_diag *diag) {
    du_json_add(out, value, JSON_INDENT(2));
    du_str_add_c(out, '\n');
    return out->failed ? du_fail_nomem(diag, what) : DU_OK;
}

du_err du_json_save(const json_t *value, const char *path, du_diag *diag) {
    du_str text = {0};
    du_writer *w = NULL;
    du_err err = du_json_text(&text, value, path, diag);
    err = err ? err : du_writer_open(&w, path, diag);
    if (err == DU_OK) {
        du_write(w, text.data, text.len);
        err = du_writer_commit(w, diag);
        du_writer_close(w);
    }
    du_str_done(&text);
    return err;
}

json_t *du_json_copy(const json_t *value) {
    json_t *copy = json_copy((json_t *)(uintptr_t)value);
    if (copy && (json_object_size(copy) != json_object_size(value) ||
                 json_array_size(copy) != json_array_size(value))) {
        json_decref(copy);
        copy = NULL;
    }
    return copy;
}

/* obj[key], or NULL when it is absent or null. */
static json_t *present(const json_t *obj, const char *key) {
    json_t *value = json_object_get(obj, key);
    return json_is_null(value) ? NULL : value;
}

du_err du_json_get_i64(const json_t *obj, const char *key, int64_t min, int64_t max, int64_t *out,
                       du_diag *diag) {
    json_t *value = present(obj, key);
    if (!value) {
        return DU_OK;
    }
    int64_t v;
    if (json_is_integer(value)) {
        v = json_integer_value(value);
    } else if (json_is_real(value) && fabs(json_real_value(value)) < 9e15 &&
               json_real_value(value) == floor(json_real_value(value))) {
        v = (int64_t)json_real_value(value);
    } else {
        return du_fail(diag, DU_EFORMAT, "%s: not an integer", key);
    }
    if (v < min || v > max) {
        return du_fail(diag, DU_EFORMAT, "%s: %lld is not between %lld and %lld", key, (long long)v,
                       (long long)min, (long long)max);
    }
    *out = v;
    return DU_OK;
}

du_err du_json_get_f64(const json_t *obj, const char *key, double *out, du_diag *diag) {
    json_t *value = present(obj, key);
    if (!value) {
        return DU_OK;
    }
    if (!json_is_number(value) || !isfinite(json_number_value(value))) {
        return du_fail(diag, DU_EFORMAT, "%s: not a finite number", key);
    }
    *out = json_number_value(value);
    return DU_OK;
}

du_err du_json_get_bool(const json_t *obj, const char *key, bool *out, du_diag *diag) {
    json_t *value = present(obj, key);
    if (!value) {
        return DU_OK;
    }
    if (!json_is_boolean(value)) {
        return du_fail(diag, DU_EFORMAT, "%s: neither true nor false", key);
    }
    *out = json_is_true(value);
    return DU_OK;
}

du_err du_json_get_str(const json_t *obj, const char *key, const char **out, du_diag *diag) {
    json_t *value = present(obj, key);
    if (!value) {
        return DU_OK;
    }
    if (!json_is_string(value)) {
        return du_fail(diag, DU_EFORMAT, "%s: not a string", key);
    }
    *out = json_string_value(value);
    return DU_OK;
}

void du_json_use_counted_heap(void) {
    json_set_alloc_funcs(watched_alloc, du_free);
}
