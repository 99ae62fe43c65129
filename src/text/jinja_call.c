/* Calls: functions, methods, filters and tests with their parameters, and the global functions. */
#include <sys/time.h>
#include <time.h>

#include "text/jinja_int.h"
#include "text/jinja_text.h"
#include "text/unicode.h"

/* ---- parameters ---------------------------------------------------------------------------- */

/* The next name of "a,b,c"; false at the end. */
static bool next_param(const char **at, du_sv *name) {
    if (!**at) {
        return false;
    }
    size_t n = strcspn(*at, ",");
    *name = (du_sv){*at, n};
    *at += n + ((*at)[n] == ',');
    return true;
}

static bool bind_keyword(jrun *run, const jbuiltin *def, const jentry *kw, jvalue *p) {
    const char *at = def->params[0] == '/' ? "" : def->params;
    du_sv name;
    for (int i = 0; next_param(&at, &name); i++) {
        if (!du_sv_eq(name, j_view(kw->key.s))) {
            continue;
        }
        if (j_given(p[i])) {
            return du_jinja_fail(run, DU_EFORMAT, "%s got %.*s twice", def->name, (int)name.len,
                                 name.s);
        }
        p[i] = kw->value;
        return true;
    }
    return du_jinja_fail(run, DU_EFORMAT, "%s has no parameter %.*s", def->name,
                         (int)(kw->key.s->len < 60 ? kw->key.s->len : 60), kw->key.s->s);
}

/* Puts the arguments where the declared parameters are. */
static bool bind(jrun *run, const jbuiltin *def, const jcall *call, jvalue p[J_PARAMS_MAX]) {
    const char *at = def->params + (def->params[0] == '/');
    du_sv name;
    int64_t n = 0;
    while (next_param(&at, &name)) {
        n++;
    }
    if (call->n_args > n) {
        return du_jinja_fail(run, DU_EFORMAT, "%s takes at most %lld arguments, %lld given",
                             def->name, (long long)n, (long long)call->n_args);
    }
    for (int64_t i = 0; i < call->n_args; i++) {
        p[i] = call->args[i];
    }
    for (int64_t i = 0; call->kwargs && i < call->kwargs->n; i++) {
        if (!bind_keyword(run, def, &call->kwargs->entries[i], p)) {
            return false;
        }
    }
    for (int i = 0; i < def->n_required; i++) {
        if (!j_given(p[i])) {
            return du_jinja_fail(run, DU_EFORMAT, "%s needs %d arguments", def->name,
                                 def->n_required);
        }
    }
    return true;
}

bool du_jinja_call_builtin(jrun *run, const jbuiltin *def, jvalue self, const jcall *call,
                           jvalue *out) {
    if (!def->fn) {
        return du_jinja_fail(run, DU_EUNSUPPORTED, "%s is not supported", def->name);
    }
    if (!def->params) {
        return def->fn(run, self, call, out);
    }
    jvalue p[J_PARAMS_MAX] = {{.type = J_MISSING}};
    jcall bound = *call;
    bound.p = p;
    return bind(run, def, call, p) && def->fn(run, self, &bound, out);
}

bool du_jinja_call(jrun *run, jvalue target, const jcall *call, jvalue *out) {
    switch (target.type) {
    case J_FUNC:
        return du_jinja_call_builtin(run, target.func->def, target.func->self, call, out);
    case J_MACRO:
        return du_jinja_macro_call(run, target.macro, call, out);
    case J_LOOP:
        if (call->n_args != 1 || call->kwargs) {
            return du_jinja_fail(run, DU_EFORMAT, "loop takes one argument");
        }
        return du_jinja_loop_call(run, target.loop, call->args[0], out);
    case J_JOINER:
        if (call->n_args || call->kwargs) {
            return du_jinja_fail(run, DU_EFORMAT, "a joiner takes no arguments");
        }
        if (target.joiner->used) {
            *out = target.joiner->sep;
            return true;
        }
        target.joiner->used = true;
        return du_jinja_str_borrow(run, "", 0, false, out);
    case J_UNDEFINED:
        return du_jinja_fail_undefined(run, target);
    default:
        return du_jinja_fail(run, DU_EFORMAT, "%s cannot be called", du_jinja_type_name(target));
    }
}

bool du_jinja_func(jrun *run, const jbuiltin *def, jvalue self, jvalue *out) {
    jfunc *func = du_jinja_run_alloc(run, 1, sizeof *func);
    if (!func) {
        return false;
    }
    *func = (jfunc){.def = def, .self = self};
    *out = (jvalue){.type = J_FUNC, .func = func};
    return true;
}

const jbuiltin *du_jinja_builtin_find(const jbuiltin *table, size_t n, du_sv name) {
    for (size_t i = 0; i < n; i++) {
        if (du_sv_is(name, table[i].name)) {
            return &table[i];
        }
    }
    return NULL;
}

/* ---- global functions ---------------------------------------------------------------------- */

static bool call_range(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    enum { RANGE_MAX = 100000 }; /* items; the sandbox of Jinja2 */
    int64_t bound[3] = {0, 0, 1};
    (void)self;
    int64_t n = j_given(call->p[2]) ? 3 : j_given(call->p[1]) ? 2 : 1;
    for (int64_t i = 0; i < n; i++) {
        if (!j_is_int(call->p[i])) {
            return call->p[i].type == J_UNDEFINED
                       ? du_jinja_fail_undefined(run, call->p[i])
                       : du_jinja_fail(run, DU_EFORMAT, "range takes integers, not %s",
                                       du_jinja_type_name(call->p[i]));
        }
        bound[n == 1 ? 1 : i] = j_as_int(call->p[i]);
    }
    if (bound[2] == 0) {
        return du_jinja_fail(run, DU_EFORMAT, "the step of range is zero");
    }
    uint64_t span = bound[2] > 0 ? (uint64_t)bound[1] - (uint64_t)bound[0]
                                 : (uint64_t)bound[0] - (uint64_t)bound[1];
    uint64_t stride = bound[2] > 0 ? (uint64_t)bound[2] : -(uint64_t)bound[2];
    bool empty = bound[2] > 0 ? bound[1] <= bound[0] : bound[1] >= bound[0];
    uint64_t count = empty ? 0 : (span - 1) / stride + 1;
    if (count > RANGE_MAX) {
        return du_jinja_fail(run, DU_ELIMIT, "a range of more than %d items", RANGE_MAX);
    }
    jrange *range = du_jinja_run_alloc(run, 1, sizeof *range);
    if (!range) {
        return false;
    }
    *range = (jrange){.start = bound[0], .stop = bound[1], .step = bound[2], .n = (int64_t)count};
    *out = (jvalue){.type = J_RANGE, .range = range};
    return true;
}

/* Adds what a mapping or a sequence of pairs holds. */
static bool add_pairs(jrun *run, jdict *d, jvalue from) {
    jiter *it;
    jvalue item, pair;
    bool more = true;
    if (from.type == J_DICT) {
        for (int64_t i = 0; i < from.dict->n; i++) {
            if (!du_jinja_dict_set(run, d, from.dict->entries[i].key,
                                   from.dict->entries[i].value)) {
                return false;
            }
        }
        return true;
    }
    if (!du_jinja_iter(run, from, &it)) {
        return false;
    }
    for (;;) {
        if (!du_jinja_next(run, it, &item, &more)) {
            return false;
        }
        if (!more) {
            return true;
        }
        if (!du_jinja_to_list(run, item, J_LIST, &pair)) {
            return false;
        }
        if (pair.list->n != 2) {
            return du_jinja_fail(run, DU_EFORMAT, "dict takes pairs, not %lld items",
                                 (long long)pair.list->n);
        }
        if (!du_jinja_dict_set(run, d, pair.list->items[0], pair.list->items[1])) {
            return false;
        }
    }
}

static bool make_dict(jrun *run, const char *name, const jcall *call, jtype type, jvalue *out) {
    jdict *d;
    if (call->n_args > 1) {
        return du_jinja_fail(run, DU_EFORMAT, "%s takes at most one argument by position", name);
    }
    if (!du_jinja_dict_new(run, 4, &d) || (call->n_args && !add_pairs(run, d, call->args[0])) ||
        (call->kwargs && !add_pairs(run, d, j_dict(call->kwargs)))) {
        return false;
    }
    *out = (jvalue){.type = type, .dict = d};
    return true;
}

static bool call_dict(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)self;
    return make_dict(run, "dict", call, J_DICT, out);
}

static bool call_namespace(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)self;
    return make_dict(run, "namespace", call, J_NAMESPACE, out);
}

static bool call_cycler(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)self;
    if (call->n_args == 0 || call->kwargs) {
        return du_jinja_fail(run, DU_EFORMAT, "cycler needs the values to go through");
    }
    jcycler *cycler = du_jinja_run_alloc(run, 1, sizeof *cycler);
    if (!cycler) {
        return false;
    }
    *cycler = (jcycler){.items = call->args, .n = call->n_args};
    *out = (jvalue){.type = J_CYCLER, .cycler = cycler};
    return true;
}

static bool call_joiner(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    (void)self;
    jjoiner *joiner = du_jinja_run_alloc(run, 1, sizeof *joiner);
    if (!joiner) {
        return false;
    }
    joiner->sep = call->p[0];
    if (!j_given(joiner->sep) && !du_jinja_str_borrow(run, ", ", 2, false, &joiner->sep)) {
        return false;
    }
    *out = (jvalue){.type = J_JOINER, .joiner = joiner};
    return true;
}

static bool call_raise(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    jvalue text;
    (void)self;
    (void)out;
    if (!du_jinja_to_str(run, call->p[0], &text)) {
        return false;
    }
    char message[400];
    snprintf(message, sizeof message, "%.*s", (int)(text.s->len < 400 ? text.s->len : 400),
             text.s->s);
    du_jinja_mend(message);
    run->err = du_fail(run->diag, DU_EINVAL, "%s", message);
    return false;
}

/* A format for strftime: %f becomes the microseconds; the local time names no zone, as Python's
 * datetime.now(). */
static void time_format(du_str *to, const jstr *format, int64_t now_us) {
    for (size_t i = 0; i < format->len; i++) {
        char c = format->s[i];
        char kind = c == '%' && i + 1 < format->len ? format->s[i + 1] : 0;
        if (kind == 'f') {
            du_str_addf(to, "%06lld", (long long)now_us);
        } else if (kind && kind != 'z' && kind != 'Z') {
            du_str_add(to, format->s + i, 2);
        } else if (!kind) {
            du_str_add_c(to, c);
        }
        i += kind != 0;
    }
}

static bool call_strftime_now(jrun *run, jvalue self, const jcall *call, jvalue *out) {
    enum { FORMAT_MAX = 500 };
    char text[8 * FORMAT_MAX];
    struct timeval now = {.tv_sec = run->now_s};
    struct tm local;
    (void)self;
    if (call->p[0].type != J_STR || call->p[0].s->len > FORMAT_MAX ||
        memchr(call->p[0].s->s, '\0', call->p[0].s->len)) {
        return du_jinja_fail(run, DU_EFORMAT, "strftime_now takes a text of at most %d bytes",
                             FORMAT_MAX);
    }
    if (!run->now_s) {
        gettimeofday(&now, NULL);
    }
    localtime_r(&now.tv_sec, &local);
    du_str format = {0};
    time_format(&format, call->p[0].s, now.tv_usec);
    /* -Wformat=2 wants literals; the format is the template's own, the buffer is bounded */
    size_t (*print)(char *, size_t, const char *, const struct tm *) = strftime;
    size_t n = print(text, sizeof text, du_str_get(&format), &local);
    bool failed = format.failed;
    du_str_done(&format);
    if (failed || du_utf8_valid(text, n) < n) {
        return du_jinja_fail(run, DU_EFORMAT, "strftime_now gives no valid text");
    }
    return du_jinja_str_copy(run, text, n, out);
}

static const jbuiltin globals[] = {
    {"range", call_range, "/start,stop,step", 1},
    {"dict", call_dict, NULL, 0},
    {"namespace", call_namespace, NULL, 0},
    {"cycler", call_cycler, NULL, 0},
    {"joiner", call_joiner, "sep", 0},
    {"lipsum", NULL, NULL, 0},
    {"raise_exception", call_raise, "message", 1},
    {"strftime_now", call_strftime_now, "format", 1},
};

bool du_jinja_global_find(jrun *run, du_sv name, jvalue *out) {
    const jbuiltin *def = du_jinja_builtin_find(globals, sizeof globals / sizeof globals[0], name);
    *out = (jvalue){.type = J_MISSING};
    return !def || du_jinja_func(run, def, *out, out);
}
