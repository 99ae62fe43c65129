/* Values of GGUF keys as C numbers and strings. The values lie in the map, unaligned, and were
 * checked to be whole when the file was opened; types and ranges are checked here. */
#include "formats/gguf.h"

#include <inttypes.h>
#include <math.h>

#include "base/reader.h"
#include "formats/gguf_int.h"

const char *du_gguf_type_name(du_gguf_type t) {
#define TYPE_NAME(code, name, bytes) name,
    static const char *const names[] = {DU_GGUF_TYPE_LIST(TYPE_NAME)};
#undef TYPE_NAME
    return names[t];
}

size_t du_gguf_type_bytes(du_gguf_type t) {
#define TYPE_BYTES(code, name, bytes) bytes,
    static const uint8_t sizes[] = {DU_GGUF_TYPE_LIST(TYPE_BYTES)};
#undef TYPE_BYTES
    return sizes[t];
}

/* Element i of a value of fixed size. */
static du_reader reader_at(const du_gguf_kv *kv, int64_t i) {
    size_t size = du_gguf_type_bytes(kv->type);
    return du_reader_of(kv->bytes + (size_t)i * size, size);
}

/* False when it is no integer, or none that int64_t holds. */
static bool get_integer(const du_gguf_kv *kv, int64_t i, int64_t *out) {
    du_reader r = reader_at(kv, i);
    uint64_t big;
    switch (kv->type) {
    case DU_GGUF_U8:
        *out = du_read_u8(&r);
        return true;
    case DU_GGUF_I8:
        *out = du_read_i8(&r);
        return true;
    case DU_GGUF_U16:
        *out = du_read_u16(&r);
        return true;
    case DU_GGUF_I16:
        *out = du_read_i16(&r);
        return true;
    case DU_GGUF_U32:
        *out = du_read_u32(&r);
        return true;
    case DU_GGUF_I32:
        *out = du_read_i32(&r);
        return true;
    case DU_GGUF_U64:
        big = du_read_u64(&r);
        *out = (int64_t)big;
        return big <= INT64_MAX;
    case DU_GGUF_I64:
        *out = du_read_i64(&r);
        return true;
    default:
        return false;
    }
}

/* False when it is no boolean: another type, or a byte that is neither 0 nor 1. */
static bool get_boolean(const du_gguf_kv *kv, int64_t i, int64_t *out) {
    *out = kv->type == DU_GGUF_BOOL ? kv->bytes[i] : 2;
    return *out == 0 || *out == 1;
}

/* False when it is no number. */
static bool get_number(const du_gguf_kv *kv, int64_t i, double *out) {
    du_reader r = reader_at(kv, i);
    int64_t integer;
    if (kv->type == DU_GGUF_F32) {
        *out = (double)du_read_f32(&r);
        return true;
    }
    if (kv->type == DU_GGUF_F64) {
        *out = du_read_f64(&r);
        return true;
    }
    if (!get_integer(kv, i, &integer)) {
        return false;
    }
    *out = (double)integer;
    return true;
}

static du_err wrong_type(const du_gguf_kv *kv, const char *wanted, du_diag *diag) {
    return du_fail(diag, DU_EFORMAT, "%s: not %s (it has the type %s%s)", kv->name, wanted,
                   kv->is_array ? "array of " : "", du_gguf_type_name(kv->type));
}

/* Passes err on, with the file named in its message. */
static du_err in_file(const du_gguf *g, du_err err, du_diag *diag) {
    if (err != DU_OK) {
        du_diag_context(diag, "%s", du_gguf_path(g));
    }
    return err;
}

static du_err bounded_integer(const du_gguf_kv *kv, int64_t i, bool bool_ok, int64_t min,
                              int64_t max, int64_t *out, du_diag *diag) {
    int64_t v;
    if (!get_integer(kv, i, &v) && !(bool_ok && get_boolean(kv, i, &v))) {
        return wrong_type(kv, "an integer below 2^63", diag);
    }
    if (v < min || v > max) {
        return du_fail(diag, DU_EFORMAT, "%s: %" PRId64 " is not between %" PRId64 " and %" PRId64,
                       kv->name, v, min, max);
    }
    *out = v;
    return DU_OK;
}

static du_err finite_number(const du_gguf_kv *kv, int64_t i, double *out, du_diag *diag) {
    double v;
    if (!get_number(kv, i, &v) || !isfinite(v)) {
        return wrong_type(kv, "a finite number", diag);
    }
    *out = v;
    return DU_OK;
}

du_err du_gguf_part_get_i64(const du_gguf_part *part, const char *key, int64_t min, int64_t max,
                            int64_t *out, du_diag *diag) {
    const du_gguf_kv *kv = du_gguf_part_find(part, key);
    if (!kv) {
        return DU_OK;
    }
    if (kv->is_array) {
        return wrong_type(kv, "an integer", diag);
    }
    return bounded_integer(kv, 0, false, min, max, out, diag);
}

du_err du_gguf_get_i64(const du_gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                       du_diag *diag) {
    return in_file(g, du_gguf_part_get_i64(&g->parts[0], key, min, max, out, diag), diag);
}

du_err du_gguf_get_f64(const du_gguf *g, const char *key, double *out, du_diag *diag) {
    const du_gguf_kv *kv = du_gguf_key_find(g, key);
    if (!kv) {
        return DU_OK;
    }
    if (kv->is_array) {
        return in_file(g, wrong_type(kv, "a number", diag), diag);
    }
    return in_file(g, finite_number(kv, 0, out, diag), diag);
}

du_err du_gguf_get_bool(const du_gguf *g, const char *key, bool *out, du_diag *diag) {
    const du_gguf_kv *kv = du_gguf_key_find(g, key);
    if (!kv) {
        return DU_OK;
    }
    int64_t v;
    if (kv->is_array || !get_boolean(kv, 0, &v)) {
        return in_file(g, wrong_type(kv, "true or false", diag), diag);
    }
    *out = v != 0;
    return DU_OK;
}

static du_sv next_str(du_reader *r) {
    uint64_t len = du_read_u64(r);
    return (du_sv){(const char *)du_read_bytes(r, (size_t)len), (size_t)len};
}

du_err du_gguf_get_str(const du_gguf *g, const char *key, du_sv *out, du_diag *diag) {
    const du_gguf_kv *kv = du_gguf_key_find(g, key);
    if (!kv) {
        return DU_OK;
    }
    if (kv->is_array || kv->type != DU_GGUF_STR) {
        return in_file(g, wrong_type(kv, "a string", diag), diag);
    }
    du_reader r = du_reader_of(kv->bytes, kv->n_bytes);
    *out = next_str(&r);
    return DU_OK;
}

/* A scalar, or an array of one value per layer. */
static du_err check_per_layer(const du_gguf_kv *kv, int64_t n, du_diag *diag) {
    if (kv->is_array && kv->n != n) {
        return du_fail(diag, DU_EFORMAT,
                       "%s: %" PRId64 " values, but the model has %" PRId64 " layers", kv->name,
                       kv->n, n);
    }
    return DU_OK;
}

du_err du_gguf_get_i64_per_layer(const du_gguf *g, const char *key, int64_t min, int64_t max,
                                 int64_t n, int64_t *out, du_diag *diag) {
    const du_gguf_kv *kv = du_gguf_key_find(g, key);
    if (!kv) {
        return DU_OK;
    }
    du_err err = check_per_layer(kv, n, diag);
    for (int64_t i = 0; err == DU_OK && i < n; i++) {
        err = bounded_integer(kv, kv->is_array ? i : 0, true, min, max, &out[i], diag);
    }
    return in_file(g, err, diag);
}

du_err du_gguf_get_f64_per_layer(const du_gguf *g, const char *key, int64_t n, double *out,
                                 du_diag *diag) {
    const du_gguf_kv *kv = du_gguf_key_find(g, key);
    if (!kv) {
        return DU_OK;
    }
    du_err err = check_per_layer(kv, n, diag);
    for (int64_t i = 0; err == DU_OK && i < n; i++) {
        err = finite_number(kv, kv->is_array ? i : 0, &out[i], diag);
    }
    return in_file(g, err, diag);
}

/* The array under key and room for its elements; *kv NULL when the key is absent. */
static du_err array_room(const du_gguf *g, const char *key, size_t elem_bytes,
                         const du_gguf_kv **kv, void **room, du_diag *diag) {
    *kv = du_gguf_key_find(g, key);
    if (!*kv) {
        return DU_OK;
    }
    if (!(*kv)->is_array) {
        return in_file(g, wrong_type(*kv, "an array", diag), diag);
    }
    *room = du_alloc_array((size_t)(*kv)->n, elem_bytes);
    return *room ? DU_OK : du_fail_nomem(diag, key);
}

du_err du_gguf_get_i32s(const du_gguf *g, const char *key, int32_t min, int32_t max, int32_t **out,
                        int64_t *n, du_diag *diag) {
    const du_gguf_kv *kv = NULL;
    void *room = NULL;
    du_err err = array_room(g, key, sizeof **out, &kv, &room, diag);
    if (err != DU_OK || !kv) {
        return err;
    }
    int32_t *values = room;
    for (int64_t i = 0; err == DU_OK && i < kv->n; i++) {
        int64_t v = 0;
        err = bounded_integer(kv, i, true, min, max, &v, diag);
        values[i] = (int32_t)v;
    }
    if (err != DU_OK) {
        du_free(values);
        return in_file(g, err, diag);
    }
    *out = values;
    *n = kv->n;
    return DU_OK;
}

du_err du_gguf_get_f32s(const du_gguf *g, const char *key, float **out, int64_t *n, du_diag *diag) {
    const du_gguf_kv *kv = NULL;
    void *room = NULL;
    du_err err = array_room(g, key, sizeof **out, &kv, &room, diag);
    if (err != DU_OK || !kv) {
        return err;
    }
    float *values = room;
    for (int64_t i = 0; err == DU_OK && i < kv->n; i++) {
        double v = 0;
        if (!get_number(kv, i, &v)) {
            err = wrong_type(kv, "an array of numbers", diag);
        }
        values[i] = (float)v;
    }
    if (err != DU_OK) {
        du_free(values);
        return in_file(g, err, diag);
    }
    *out = values;
    *n = kv->n;
    return DU_OK;
}

du_err du_gguf_get_strs(const du_gguf *g, const char *key, du_sv **out, int64_t *n, du_diag *diag) {
    const du_gguf_kv *kv = du_gguf_key_find(g, key);
    if (!kv) {
        return DU_OK;
    }
    if (!kv->is_array || kv->type != DU_GGUF_STR) {
        return in_file(g, wrong_type(kv, "an array of strings", diag), diag);
    }
    du_sv *values = du_alloc_array((size_t)kv->n, sizeof *values);
    if (!values) {
        return du_fail_nomem(diag, key);
    }
    du_reader r = du_reader_of(kv->bytes, kv->n_bytes);
    for (int64_t i = 0; i < kv->n; i++) {
        values[i] = next_str(&r);
    }
    *out = values;
    *n = kv->n;
    return DU_OK;
}
