/* The public functions of the Jinja interpreter: parsing, rendering, JSON into values. */
#include "text/jinja.h"

#include "text/jinja_int.h"
#include "text/unicode.h"

enum {
    TEMPLATE_MAX = 1 << 20, /* bytes */
    ARENA_CHUNK = 64 << 10,
    DEFAULT_STEPS = 20 * 1000 * 1000,
    DEFAULT_MEMORY = 256 << 20,
    DEFAULT_OUTPUT = 64 << 20,
};

void du_jinja_free(du_jinja *t) {
    if (t) {
        du_hash_done(&t->index);
        du_free(t->names);
        du_free(t->reads);
        du_free(t->name);
        du_arena_free(t->pool.arena);
        du_free(t);
    }
}

/* All line ends become \n, and the last one goes. */
static char *normal_newlines(const char *text, size_t *len) {
    char *copy = du_alloc(*len);
    size_t n = 0;
    for (size_t i = 0; copy && i < *len; i++) {
        if (text[i] == '\r') {
            i += i + 1 < *len && text[i + 1] == '\n';
            copy[n++] = '\n';
        } else {
            copy[n++] = text[i];
        }
    }
    *len = n > 0 && copy[n - 1] == '\n' ? n - 1 : n;
    return copy;
}

static du_jinja *template_new(const char *name) {
    du_jinja *t = du_alloc_zero(1, sizeof *t);
    if (t) {
        t->name = du_strdup(name);
        t->pool.arena = du_arena_new(ARENA_CHUNK);
    }
    if (t && (!t->name || !t->pool.arena)) {
        du_jinja_free(t);
        t = NULL;
    }
    return t;
}

static du_err parse_source(du_jinja *t, du_sv src, du_diag *diag) {
    jparser *p = du_alloc_zero(1, sizeof *p);
    if (!p) {
        return du_fail_nomem(diag, "a template");
    }
    p->template = t;
    p->lex = (jlex){
        .src = src, .line = 1, .line_start = true, .pool = &t->pool, .name = t->name, .diag = diag};
    int32_t line;
    du_err err;
    if (!du_jinja_parse_template(p)) {
        err = p->err;
    } else if (du_jinja_too_deep(&t->body, &line)) {
        err = du_fail(diag, DU_ELIMIT, "%s: line %d: nested more than %d levels deep", t->name,
                      line, J_TREE_MAX);
    } else {
        err = du_jinja_resolve_scopes(t, diag);
    }
    du_free(p);
    return err;
}

du_err du_jinja_parse(du_jinja **out, const char *text, size_t len, const char *name,
                      du_diag *diag) {
    if (len > TEMPLATE_MAX) {
        return du_fail(diag, DU_ELIMIT, "%s: a template of more than %d bytes", name, TEMPLATE_MAX);
    }
    size_t n_valid = du_utf8_valid(text, len);
    if (n_valid < len) {
        return du_fail_at(diag, DU_EFORMAT, (int64_t)n_valid, "%s: the template is no valid UTF-8",
                          name);
    }
    char *src = normal_newlines(text, &len);
    du_jinja *t = src ? template_new(name) : NULL;
    du_err err = t ? parse_source(t, (du_sv){src, len}, diag) : du_fail_nomem(diag, "a template");
    du_free(src);
    if (err != DU_OK) {
        du_jinja_free(t);
        return err;
    }
    *out = t;
    return DU_OK;
}

bool du_jinja_reads(const du_jinja *t, const char *name) {
    const int64_t *at = du_hash_find(&t->index, du_sv_of(name));
    return at && t->reads[*at];
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static bool value_from_json(jrun *run, const json_t *json, int depth, jvalue *out);

static bool object_from_json(jrun *run, const json_t *json, int depth, jvalue *out) {
    jdict *d;
    const char *key;
    json_t *value;
    if (!du_jinja_dict_new(run, (int64_t)json_object_size(json), &d)) {
        return false;
    }
    for (void *it = json_object_iter((json_t *)(uintptr_t)json); it;
         it = json_object_iter_next((json_t *)(uintptr_t)json, it)) {
        jvalue k, v;
        key = json_object_iter_key(it);
        value = json_object_iter_value(it);
        if (!du_jinja_str_borrow(run, key, json_object_iter_key_len(it), false, &k) ||
            !value_from_json(run, value, depth + 1, &v) || !du_jinja_dict_append(run, d, k, v)) {
            return false;
        }
    }
    *out = j_dict(d);
    return true;
}

static bool array_from_json(jrun *run, const json_t *json, int depth, jvalue *out) {
    jvalue *items;
    size_t n = json_array_size(json);
    if (!du_jinja_list_new(run, J_LIST, (int64_t)n, out, &items)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!value_from_json(run, json_array_get(json, i), depth + 1, &items[i])) {
            return false;
        }
    }
    return true;
}

static bool value_from_json(jrun *run, const json_t *json, int depth, jvalue *out) {
    if (depth > J_VALUE_DEPTH) {
        return du_jinja_fail(run, DU_ELIMIT, "a variable is nested more than %d levels deep",
                             J_VALUE_DEPTH);
    }
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return object_from_json(run, json, depth, out);
    case JSON_ARRAY:
        return array_from_json(run, json, depth, out);
    case JSON_STRING:
        return du_jinja_str_borrow(run, json_string_value(json), json_string_length(json), false,
                                   out);
    case JSON_INTEGER:
        *out = j_int(json_integer_value(json));
        return true;
    case JSON_REAL:
        *out = j_float(json_real_value(json));
        return true;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = j_bool(json_is_true(json));
        return true;
    default:
        *out = j_none();
        return true;
    }
}

/* ---- rendering ----------------------------------------------------------------------------- */

static bool render(jrun *run, const json_t *vars) {
    jvalue given;
    if (!vars) {
        return du_jinja_dict_new(run, 0, &run->vars) && du_jinja_render_body(run);
    }
    if (!value_from_json(run, vars, 0, &given)) {
        return false;
    }
    run->vars = given.dict;
    return du_jinja_render_body(run);
}

static void run_done(jrun *run) {
    for (jdict *d = run->indexed; d; d = d->next_indexed) {
        du_hash_done(d->index);
    }
    du_str_done(&run->out);
    du_arena_free(run->pool.arena);
}

du_err du_jinja_render(const du_jinja *t, const json_t *vars, const du_jinja_options *options,
                       du_str *out, du_diag *diag) {
    static const du_jinja_options none = {0};
    const du_jinja_options *o = options ? options : &none;
    jrun run = {
        .template = t,
        .pool.max_bytes = o->memory_bytes_max ? o->memory_bytes_max : DEFAULT_MEMORY,
        .out_max = o->output_bytes_max ? o->output_bytes_max : DEFAULT_OUTPUT,
        .steps_left = o->steps_max ? o->steps_max : DEFAULT_STEPS,
        .now_s = o->now_s,
        .line = 1,
        .diag = diag,
    };
    if (vars && !json_is_object(vars)) {
        return du_fail(diag, DU_EINVAL, "%s: the variables are no JSON object", t->name);
    }
    run.pool.arena = du_arena_new(ARENA_CHUNK);
    if (!run.pool.arena) {
        return du_fail_nomem(diag, "rendering a template");
    }
    if (render(&run, vars)) {
        size_t before = out->len;
        du_str_add_sv(out, du_str_view(&run.out));
        if (out->failed || run.out.failed) {
            run.err = du_fail_nomem(diag, "rendering a template");
            out->failed = false;
            out->len = before;
        }
    }
    run_done(&run);
    return run.err;
}
