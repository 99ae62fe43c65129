#include "cli/ids.h"

#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "text/unicode.h"

#define TEXT_BYTES_MAX ((size_t)4 << 30)

json_t *du_cli_text_json(const du_str *text) {
    du_str clean = {0};
    du_utf8_add_replaced(&clean, du_str_view(text));
    json_t *value = clean.failed ? NULL : json_stringn(du_str_get(&clean), clean.len);
    du_str_done(&clean);
    return value;
}

const char *du_cli_path_name(const char *path) {
    return strcmp(path, "-") == 0 ? "standard input" : path;
}

du_err du_cli_text_read(char **out, size_t *len, const char *path, du_diag *diag) {
    return strcmp(path, "-") == 0
               ? du_fd_read(out, len, STDIN_FILENO, du_cli_path_name(path), TEXT_BYTES_MAX, diag)
               : du_stream_read(out, len, path, TEXT_BYTES_MAX, diag);
}

static bool is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* One number at text[*at]; -1 when there is none that is an id. */
static int64_t read_id(const char *text, size_t len, size_t *at) {
    int64_t v = 0;
    size_t start = *at;
    while (*at < len && text[*at] >= '0' && text[*at] <= '9' && v <= INT32_MAX) {
        v = v * 10 + (text[(*at)++] - '0');
    }
    bool ends = *at == len || is_blank(text[*at]);
    return *at > start && ends && v <= INT32_MAX ? v : -1;
}

du_err du_cli_ids_read(du_ids *out, const char *path, du_diag *diag) {
    char *text;
    size_t len;
    du_err err = du_cli_text_read(&text, &len, path, diag);
    if (err != DU_OK) {
        return err;
    }
    for (size_t at = 0; at < len && err == DU_OK;) {
        if (is_blank(text[at])) {
            at++;
            continue;
        }
        size_t start = at;
        int64_t id = read_id(text, len, &at);
        if (id < 0) {
            err = du_fail_at(diag, DU_EFORMAT, (int64_t)start,
                             "%s: byte %zu: not a token id (numbers separated by white space)",
                             du_cli_path_name(path), start);
        } else if (!du_ids_add(out, (int32_t)id)) {
            err = du_fail_nomem(diag, path);
        }
    }
    du_free(text);
    return err;
}

void du_cli_ids_print(FILE *f, const du_ids *ids, const char *between) {
    for (size_t i = 0; i < ids->n; i++) {
        fprintf(f, "%s%d", i > 0 ? between : "", ids->ids[i]);
    }
}

json_t *du_cli_ids_json(const int32_t *ids, size_t n) {
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) {
        if (json_array_append_new(array, json_integer(ids[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}
