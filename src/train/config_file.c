/* Configurations as files. */
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "train/config_int.h"

enum { FILE_LIMIT = 1 << 20 };

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

/* The line without its comment: `#` begins one at the start or behind a blank, but not within the
 * quoted texts of a value that begins as JSON does. */
static du_sv without_comment(du_sv line) {
    bool json = false, quoted = false;
    int64_t equals = du_sv_find(line, du_sv_of("="), 0);
    size_t value = equals < 0 ? line.len : (size_t)equals + 1;
    while (value < line.len && is_blank(line.s[value])) {
        value++;
    }
    for (size_t i = 0; i < line.len; i++) {
        char c = line.s[i];
        json = json || (i == value && (c == '"' || c == '[' || c == '{'));
        if (quoted && c == '\\') {
            i++;
        } else if (json && c == '"') {
            quoted = !quoted;
        } else if (!quoted && c == '#' && (i == 0 || is_blank(line.s[i - 1]))) {
            return (du_sv){line.s, i};
        }
    }
    return line;
}

static du_err read_line(du_train_config *config, du_sv line, const char *where,
                        bool seen[DU_TRAIN_KEYS_MAX], du_diag *diag) {
    line = du_sv_trim(without_comment(line));
    if (line.len == 0) {
        return DU_OK;
    }
    int64_t equals = du_sv_find(line, du_sv_of("="), 0);
    if (equals < 0) {
        return du_fail(diag, DU_EINVAL, "%s: no `=`: lines are `key = value`", where);
    }
    du_sv name = du_sv_trim((du_sv){line.s, (size_t)equals});
    if (name.len == 0) {
        return du_fail(diag, DU_EINVAL, "%s: no key before `=`: lines are `key = value`", where);
    }
    const du_train_key *key = du_train_key_find(name);
    if (key && seen[key - du_train_keys]) {
        return du_fail(diag, DU_EINVAL, "%s: %s is given twice", where, key->name);
    }
    if (key) {
        seen[key - du_train_keys] = true;
    }
    size_t at = (size_t)equals + 1;
    return du_train_config_set(config, name, (du_sv){line.s + at, line.len - at}, where, diag);
}

du_err du_train_config_read(du_train_config *config, const char *path, du_diag *diag) {
    char *text = NULL;
    size_t len = 0;
    bool seen[DU_TRAIN_KEYS_MAX] = {false};
    du_err err = du_stream_read(&text, &len, path, FILE_LIMIT, diag);
    du_sv rest = {text, len};
    du_str where = {0};
    for (int64_t i_line = 1; err == DU_OK && rest.len > 0; i_line++) {
        int64_t end = du_sv_find(rest, du_sv_of("\n"), 0);
        size_t n = end < 0 ? rest.len : (size_t)end;
        du_str_reset(&where);
        du_str_addf(&where, "%s:%lld", path, (long long)i_line);
        if (memchr(rest.s, '\0', n)) {
            err = du_fail(diag, DU_EINVAL, "%s: a byte 0: this is no text", du_str_get(&where));
        } else {
            err = read_line(config, (du_sv){rest.s, n}, du_str_get(&where), seen, diag);
        }
        n += end >= 0;
        rest = (du_sv){rest.s + n, rest.len - n};
    }
    du_str_done(&where);
    du_free(text);
    return err;
}
