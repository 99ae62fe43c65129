/* Operators of the Jinja interpreter with Python's meaning: arithmetic, containment, attributes,
 * items and slices. Integers have 64 bits; a result beyond is a failure, never a wrong number. */
#include <math.h>

#include "text/jinja_int.h"
#include "text/jinja_text.h"

static const char *op_text(jop op) {
    static const char *const texts[] = {
        [OP_ADD] = "+",       [OP_SUB] = "-", [OP_MUL] = "*",  [OP_DIV] = "/",
        [OP_FLOORDIV] = "//", [OP_MOD] = "%", [OP_POW] = "**",
    };
    return texts[op];
}

/* ---- numbers ------------------------------------------------------------------------------- */

static bool fail_overflow(jrun *run, jop op) {
    return du_jinja_fail(run, DU_EUNSUPPORTED, "%s gives an integer beyond 64 bits", op_text(op));
}

static bool fail_zero(jrun *run) {
    return du_jinja_fail(run, DU_EFORMAT, "division by zero");
}

static bool int_power(jrun *run, int64_t base, int64_t exponent, jvalue *out) {
    if (exponent < 0) {
        if (base == 0) {
            return fail_zero(run);
        }
        *out = j_float(pow((double)base, (double)exponent));
        return true;
    }
    int64_t result = 1;
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) {
            return fail_overflow(run, OP_POW);
        }
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base)) {
            return fail_overflow(run, OP_POW);
        }
    }
    *out = j_int(result);
    return true;
}

/* Quotient and remainder rounded towards minus infinity. */
static bool int_divide(jrun *run, jop op, int64_t a, int64_t b, jvalue *out) {
    if (b == 0) {
        return fail_zero(run);
    }
    if (b == -1) {
        int64_t negative;
        if (op == OP_FLOORDIV && __builtin_sub_overflow((int64_t)0, a, &negative)) {
            return fail_overflow(run, op);
        }
        *out = j_int(op == OP_FLOORDIV ? -a : 0);
        return true;
    }
    int64_t quotient = a / b, rest = a % b;
    if (rest && (rest < 0) != (b < 0)) {
        quotient--;
        rest += b;
    }
    *out = j_int(op == OP_FLOORDIV ? quotient : rest);
    return true;
}

static bool int_op(jrun *run, jop op, int64_t a, int64_t b, jvalue *out) {
    int64_t r;
    bool too_big;
    switch (op) {
    case OP_ADD:
        too_big = __builtin_add_overflow(a, b, &r);
        break;
    case OP_SUB:
        too_big = __builtin_sub_overflow(a, b, &r);
        break;
    case OP_MUL:
        too_big = __builtin_mul_overflow(a, b, &r);
        break;
    case OP_DIV:
        if (b == 0) {
            return fail_zero(run);
        }
        *out = j_float((double)((long double)a / (long double)b));
        return true;
    case OP_POW:
        return int_power(run, a, b, out);
    default:
        return int_divide(run, op, a, b, out);
    }
    if (too_big) {
        return fail_overflow(run, op);
    }
    *out = j_int(r);
    return true;
}

static double float_mod(double a, double b) {
    double rest = fmod(a, b);
    if (rest == 0) {
        return copysign(0.0, b);
    }
    return (rest < 0) != (b < 0) ? rest + b : rest;
}

static double float_floor_divide(double a, double b) {
    double rest = fmod(a, b), quotient = (a - rest) / b;
    if (rest != 0 && (rest < 0) != (b < 0)) {
        quotient -= 1;
    }
    if (quotient == 0) {
        return copysign(0.0, a / b);
    }
    double whole = floor(quotient);
    return quotient - whole > 0.5 ? whole + 1 : whole;
}

static bool float_power(jrun *run, double a, double b, jvalue *out) {
    if (a == 0 && b < 0) {
        return fail_zero(run);
    }
    if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b)) {
        return du_jinja_fail(run, DU_EUNSUPPORTED, "** gives a complex number");
    }
    *out = j_float(pow(a, b));
    if (isinf(out->f) && isfinite(a) && isfinite(b)) {
        return du_jinja_fail(run, DU_EFORMAT, "** gives a number that is too large");
    }
    return true;
}

static bool float_op(jrun *run, jop op, double a, double b, jvalue *out) {
    if (b == 0 && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD)) {
        return fail_zero(run);
    }
    switch (op) {
    case OP_ADD:
        *out = j_float(a + b);
        return true;
    case OP_SUB:
        *out = j_float(a - b);
        return true;
    case OP_MUL:
        *out = j_float(a * b);
        return true;
    case OP_DIV:
        *out = j_float(a / b);
        return true;
    case OP_FLOORDIV:
        *out = j_float(float_floor_divide(a, b));
        return true;
    case OP_MOD:
        *out = j_float(float_mod(a, b));
        return true;
    default:
        return float_power(run, a, b, out);
    }
}

bool du_jinja_negate(jrun *run, jvalue v, bool minus, jvalue *out) {
    if (v.type == J_UNDEFINED) {
        return du_jinja_fail_undefined(run, v);
    }
    if (!j_is_number(v)) {
        return du_jinja_fail(run, DU_EFORMAT, "%s has no sign", du_jinja_type_name(v));
    }
    if (v.type == J_FLOAT) {
        *out = j_float(minus ? -v.f : v.f);
        return true;
    }
    return int_op(run, minus ? OP_SUB : OP_ADD, 0, j_as_int(v), out);
}

/* ---- sequences ----------------------------------------------------------------------------- */

bool du_jinja_repeat(jrun *run, du_sv text, int64_t n, bool markup, jvalue *out) {
    size_t len;
    n = n < 0 ? 0 : n;
    if (!du_mul_size(text.len, (size_t)n, &len)) {
        return du_jinja_fail(run, DU_ELIMIT, "a text of %lld repeats is too long", (long long)n);
    }
    char *bytes = du_jinja_run_alloc(run, (int64_t)len, 1);
    if (!bytes) {
        return false;
    }
    for (size_t at = 0; at < len; at += text.len) {
        memcpy(bytes + at, text.s, text.len);
    }
    return du_jinja_str_borrow(run, bytes, len, markup, out);
}

static bool repeat_list(jrun *run, jvalue v, int64_t n, jvalue *out) {
    int64_t total;
    jvalue *items;
    n = n < 0 ? 0 : n;
    if (!du_mul_i64(v.list->n, n, &total) || !du_jinja_spend(run, total)) {
        return run->err != DU_OK
                   ? false
                   : du_jinja_fail(run, DU_ELIMIT, "a list of %lld repeats is too long",
                                   (long long)n);
    }
    if (!du_jinja_list_new(run, v.type, total, out, &items)) {
        return false;
    }
    for (int64_t i = 0; i < total; i++) {
        items[i] = v.list->items[i % v.list->n];
    }
    return true;
}

static bool join_lists(jrun *run, jvalue a, jvalue b, jvalue *out) {
    jvalue *items;
    int64_t n = a.list->n + b.list->n;
    if (!du_jinja_spend(run, n / 8) || !du_jinja_list_new(run, a.type, n, out, &items)) {
        return false;
    }
    if (a.list->n) {
        memcpy(items, a.list->items, (size_t)a.list->n * sizeof *items);
    }
    if (b.list->n) {
        memcpy(items + a.list->n, b.list->items, (size_t)b.list->n * sizeof *items);
    }
    return true;
}

/* Where one side is markup the other is escaped first. */
static bool join_strings(jrun *run, jvalue a, jvalue b, jvalue *out) {
    if ((a.s->markup || b.s->markup) &&
        (!du_jinja_escape(run, a, &a) || !du_jinja_escape(run, b, &b))) {
        return false;
    }
    return du_jinja_str_append(run, a.s, b.s, out);
}

bool du_jinja_binary(jrun *run, jop op, jvalue a, jvalue b, jvalue *out) {
    if (op == OP_MOD && a.type == J_STR) {
        return du_jinja_percent(run, a.s, b, out);
    }
    if (a.type == J_UNDEFINED || b.type == J_UNDEFINED) {
        return du_jinja_fail_undefined(run, a.type == J_UNDEFINED ? a : b);
    }
    if (j_is_int(a) && j_is_int(b)) {
        return int_op(run, op, j_as_int(a), j_as_int(b), out);
    }
    if (j_is_number(a) && j_is_number(b)) {
        return float_op(run, op, j_as_float(a), j_as_float(b), out);
    }
    if (op == OP_ADD && a.type == J_STR && b.type == J_STR) {
        return join_strings(run, a, b, out);
    }
    if (op == OP_ADD && a.type == b.type && (a.type == J_LIST || a.type == J_TUPLE)) {
        return join_lists(run, a, b, out);
    }
    if (op == OP_MUL && (j_is_int(a) || j_is_int(b))) {
        jvalue v = j_is_int(a) ? b : a;
        int64_t n = j_as_int(j_is_int(a) ? a : b);
        if (v.type == J_STR) {
            return du_jinja_repeat(run, j_view(v.s), n, v.s->markup, out);
        }
        if (v.type == J_LIST || v.type == J_TUPLE) {
            return repeat_list(run, v, n, out);
        }
    }
    return du_jinja_fail(run, DU_EFORMAT, "%s does not go between %s and %s", op_text(op),
                         du_jinja_type_name(a), du_jinja_type_name(b));
}

bool du_jinja_contains(jrun *run, jvalue container, jvalue item, bool *out) {
    jvalue *found;
    jiter *it;
    if (container.type == J_STR) {
        if (item.type != J_STR) {
            return du_jinja_fail(run, DU_EFORMAT, "`in` a text needs a text, not %s",
                                 du_jinja_type_name(item));
        }
        *out = du_sv_find(j_view(container.s), j_view(item.s), 0) >= 0;
        return du_jinja_spend(run, (int64_t)(container.s->len / 64));
    }
    if (container.type == J_DICT || (container.type == J_VIEW && container.view->kind == J_KEYS)) {
        jdict *d = container.type == J_DICT ? container.dict : container.view->dict;
        if (!du_jinja_dict_find(run, d, item, &found)) {
            return false;
        }
        *out = found != NULL;
        return true;
    }
    *out = false;
    if (!du_jinja_iter(run, container, &it)) {
        return false;
    }
    for (bool more = true; more && !*out;) {
        jvalue v;
        if (!du_jinja_next(run, it, &v, &more) || (more && !du_jinja_equal(run, v, item, out))) {
            return false;
        }
    }
    return true;
}

/* ---- attributes and items ------------------------------------------------------------------ */

/* The byte at which code point i starts; 0 <= i <= n_chars. */
size_t du_jinja_byte_of(const jstr *s, int64_t i) {
    if (s->len == s->n_chars) {
        return (size_t)i;
    }
    size_t at = 0, n;
    for (; i > 0; i--) {
        du_jinja_char_get(s->s + at, &n);
        at += n;
    }
    return at;
}

static bool char_at(jrun *run, const jstr *s, int64_t i, jvalue *out) {
    size_t at = du_jinja_byte_of(s, i), n;
    du_jinja_char_get(s->s + at, &n);
    return du_jinja_spend(run, i / 64) && du_jinja_str_sub(run, s, at, n, out);
}

/* object[i] for an integer; *found is false when there is no such item. */
static bool item_at(jrun *run, jvalue object, int64_t i, bool *found, jvalue *out) {
    int64_t n = object.type == J_STR     ? (int64_t)object.s->n_chars
                : object.type == J_RANGE ? object.range->n
                                         : object.list->n;
    i += i < 0 ? n : 0;
    *found = i >= 0 && i < n;
    if (!*found) {
        return true;
    }
    if (object.type == J_STR) {
        return char_at(run, object.s, i, out);
    }
    *out = object.type == J_RANGE ? j_int(object.range->start + i * object.range->step)
                                  : object.list->items[i];
    return true;
}

static bool find_item(jrun *run, jvalue object, jvalue key, bool *found, jvalue *out) {
    *found = false;
    if (object.type == J_DICT && du_jinja_hashable(key)) {
        jvalue *value;
        if (!du_jinja_dict_find(run, object.dict, key, &value)) {
            return false;
        }
        *found = value != NULL;
        if (value) {
            *out = *value;
        }
    } else if (j_is_int(key) && (object.type == J_STR || object.type == J_LIST ||
                                 object.type == J_TUPLE || object.type == J_RANGE)) {
        return item_at(run, object, j_as_int(key), found, out);
    }
    return true;
}

bool du_jinja_getitem(jrun *run, jvalue object, jvalue key, jvalue *out) {
    bool found;
    if (object.type == J_UNDEFINED) {
        return du_jinja_fail_undefined(run, object);
    }
    if (!find_item(run, object, key, &found, out)) {
        return false;
    }
    if (!found && key.type == J_STR &&
        !du_jinja_builtin_attr(run, object, j_view(key.s), &found, out)) {
        return false;
    }
    return found || du_jinja_undefined(run, NULL, object, key, out);
}

bool du_jinja_getattr(jrun *run, jvalue object, const jstr *name, jvalue *out) {
    bool found;
    if (object.type == J_UNDEFINED) {
        return du_jinja_fail_undefined(run, object);
    }
    if (!du_jinja_builtin_attr(run, object, j_view(name), &found, out) ||
        (!found && !find_item(run, object, j_str(name), &found, out))) {
        return false;
    }
    return found || du_jinja_undefined(run, NULL, object, j_str(name), out);
}

/* ---- slices -------------------------------------------------------------------------------- */

static bool slice_index(jrun *run, jvalue v, int64_t n, int64_t low, int64_t high, int64_t preset,
                        int64_t *out) {
    if (!j_given(v) || v.type == J_NONE) {
        *out = preset;
        return true;
    }
    if (!j_is_int(v)) {
        return du_jinja_fail(run, DU_EFORMAT, "%s cannot be the bound of a slice",
                             du_jinja_type_name(v));
    }
    int64_t i = j_as_int(v);
    i += i < 0 ? n : 0;
    *out = i < low ? low : i > high ? high : i;
    return true;
}

static bool slice_str(jrun *run, const jstr *s, int64_t start, int64_t step, int64_t n,
                      jvalue *out) {
    if (step == 1) {
        size_t from = du_jinja_byte_of(s, start);
        jstr rest = {.s = s->s + from, .len = s->len - from, .n_chars = s->n_chars - (size_t)start};
        return du_jinja_spend(run, (int64_t)(s->len / 64)) &&
               du_jinja_str_sub(run, s, from, du_jinja_byte_of(&rest, n), out);
    }
    du_str buf = {0};
    bool ok = du_jinja_spend(run, n);
    size_t at = ok && n ? du_jinja_byte_of(s, start) : 0;
    for (int64_t i = 0; ok && i < n; i++) {
        size_t len;
        du_jinja_char_get(s->s + at, &len);
        du_str_add(&buf, s->s + at, len);
        for (int64_t k = 0; i + 1 < n && k < step; k++) {
            du_jinja_char_get(s->s + at, &len);
            at += len;
        }
        for (int64_t k = 0; i + 1 < n && k > step; k--) {
            du_jinja_char_before(s->s, at, &len);
            at -= len;
        }
    }
    if (!ok) {
        du_str_done(&buf);
        return false;
    }
    return du_jinja_str_take(run, &buf, s->markup, out);
}

/* start + i * step, also for the i behind the last item. */
static bool range_item(const jrange *r, int64_t i, int64_t *out) {
    return du_mul_i64(i, r->step, out) && !__builtin_add_overflow(*out, r->start, out);
}

static bool slice_range(jrun *run, const jrange *r, int64_t start, int64_t stop, int64_t step,
                        int64_t n, jvalue *out) {
    jrange *part = du_jinja_run_alloc(run, 1, sizeof *part);
    if (!part) {
        return false;
    }
    part->n = n;
    if (!du_mul_i64(r->step, step, &part->step) || !range_item(r, start, &part->start) ||
        !range_item(r, stop, &part->stop)) {
        return fail_overflow(run, OP_MUL);
    }
    *out = (jvalue){.type = J_RANGE, .range = part};
    return true;
}

bool du_jinja_slice(jrun *run, jvalue object, jvalue start_v, jvalue stop_v, jvalue step_v,
                    jvalue *out) {
    int64_t n = 0, start = 0, stop = 0, step = 1;
    jvalue *items;
    if (object.type == J_UNDEFINED) {
        return du_jinja_fail_undefined(run, object);
    }
    if (object.type != J_STR && object.type != J_LIST && object.type != J_TUPLE &&
        object.type != J_RANGE) {
        return du_jinja_fail(run, DU_EFORMAT, "%s cannot be sliced", du_jinja_type_name(object));
    }
    if (!du_jinja_length(run, object, &n) ||
        !slice_index(run, step_v, 0, -INT32_MAX, INT32_MAX, 1, &step)) {
        return false;
    }
    if (step == 0) {
        return du_jinja_fail(run, DU_EFORMAT, "the step of a slice is zero");
    }
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
    if (!slice_index(run, start_v, n, low, high, step < 0 ? high : low, &start) ||
        !slice_index(run, stop_v, n, low, high, step < 0 ? low : high, &stop)) {
        return false;
    }
    int64_t span = step < 0 ? start - stop : stop - start, stride = step < 0 ? -step : step;
    int64_t count = span > 0 ? (span - 1) / stride + 1 : 0;
    if (object.type == J_STR) {
        return slice_str(run, object.s, count ? start : 0, step, count, out);
    }
    if (object.type == J_RANGE) {
        return slice_range(run, object.range, start, stop, step, count, out);
    }
    if (!du_jinja_spend(run, count / 8) ||
        !du_jinja_list_new(run, object.type, count, out, &items)) {
        return false;
    }
    for (int64_t i = 0; i < count; i++) {
        items[i] = object.list->items[start + i * step];
    }
    return true;
}
