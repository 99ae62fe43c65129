#include "base/json_walk.h"

#include <stdint.h>

static void skip_spaces(du_json_walk *w) {
    while (w->pos < w->text.len && memchr(" \t\n\r", w->text.s[w->pos], 4)) {
        w->pos++;
    }
}

static bool take(du_json_walk *w, char c) {
    skip_spaces(w);
    if (w->pos == w->text.len || w->text.s[w->pos] != c) {
        return false;
    }
    w->pos++;
    return true;
}

/* Moves to the comma or bracket that ends the member; false when there is none. What lies before
 * is counted through, not checked. */
static bool find_end(du_json_walk *w) {
    int64_t depth = 0;
    bool in_string = false;
    for (; w->pos < w->text.len; w->pos++) {
        char c = w->text.s[w->pos];
        if (in_string) {
            if (c == '\\') {
                w->pos++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (depth == 0 && (c == ',' || c == '}')) {
            return true;
        } else if (c == '"') {
            in_string = true;
        } else {
            depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        }
    }
    w->pos = w->text.len; /* an escape may have led past it */
    return false;
}

static du_err malformed(const du_json_walk *w, const char *wanted, du_diag *diag) {
    return du_fail_at(diag, DU_EFORMAT, w->offset + (int64_t)w->pos, "%s: JSON: %s expected",
                      w->what, wanted);
}

/* Moves to where a member begins; *end when there is none. */
static du_err find_begin(du_json_walk *w, bool *end, du_diag *diag) {
    bool first = w->pos == 0;
    *end = false;
    if (first && !take(w, '{')) {
        return malformed(w, "an object", diag);
    }
    if (take(w, '}')) {
        *end = true;
        skip_spaces(w);
        return w->pos == w->text.len ? DU_OK : malformed(w, "the end of the text", diag);
    }
    if (!first && !take(w, ',')) {
        return malformed(w, "',' or '}'", diag);
    }
    skip_spaces(w);
    return DU_OK;
}

du_err du_json_walk_next(du_json_walk *w, du_sv *member, du_diag *diag) {
    bool end;
    du_err err = find_begin(w, &end, diag);
    *member = (du_sv){"", 0};
    if (err != DU_OK || end) {
        return err;
    }
    size_t from = w->pos;
    if (from == w->text.len || w->text.s[from] != '"') {
        return malformed(w, "a name", diag);
    }
    if (!find_end(w)) {
        return malformed(w, "'}'", diag);
    }
    *member = (du_sv){w->text.s + from, w->pos - from};
    return DU_OK;
}

du_err du_json_walk_parse(json_t **out, const du_json_walk *w, du_sv member, du_diag *diag) {
    du_str object = {0}, what = {0};
    du_str_addf(&what, "%s: entry at byte %lld", w->what,
                (long long)(w->offset + (member.s - w->text.s)));
    du_str_add_c(&object, '{');
    du_str_add_sv(&object, member);
    du_str_add_c(&object, '}');
    json_t *value = NULL;
    du_err err = object.failed || what.failed
                     ? du_fail_nomem(diag, w->what)
                     : du_json_parse(&value, object.data, object.len, du_str_get(&what), diag);
    if (err == DU_OK && json_object_size(value) != 1) {
        err = du_fail(diag, DU_EFORMAT, "%s: not one name and value", du_str_get(&what));
    }
    du_str_done(&object);
    du_str_done(&what);
    if (err != DU_OK) {
        json_decref(value);
        return err;
    }
    *out = value;
    return DU_OK;
}
