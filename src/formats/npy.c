/* NumPy's .npy format (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html):
 *
 *     "\x93NUMPY" | u8 major | u8 minor | header length: u16 (version 1), u32 (2 and 3)
 *     header, a Python dictionary: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
 *     the numbers
 *
 * The header ends in a newline and is padded with spaces so that the numbers begin at a multiple of
 * 64 bytes. A shape of one dimension is written (3,), one of none (). Version 1 is written. */
#include "formats/npy.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/reader.h"
#include "base/str.h"

enum {
    MAGIC_BYTES = 6,
    PREFIX_BYTES = MAGIC_BYTES + 2 + 2, /* of version 1 */
    UNIT = 64,
    HEADER_BYTES_MAX = 4096,
};

static const char magic[] = "\x93NUMPY";

static const char *const descriptions[] = {[DU_NPY_F32] = "<f4", [DU_NPY_I32] = "<i4"};

void du_npy_write_header(du_writer *w, du_npy_type type, int32_t n_dims, const int64_t *dims) {
    DU_CHECK(n_dims >= 0 && n_dims <= DU_NPY_DIMS_MAX);
    char shape[DU_NPY_DIMS_MAX * 24] = "";
    size_t at = 0;
    for (int32_t i = 0; i < n_dims; i++) {
        at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%" PRId64, i ? ", " : "", dims[i]);
    }
    char header[5 * UNIT];
    int n = snprintf(header, sizeof header,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }",
                     descriptions[type], shape, n_dims == 1 ? "," : "");
    size_t n_text = (size_t)n + 1; /* with the newline */
    size_t n_whole = (PREFIX_BYTES + n_text + UNIT - 1) / UNIT * UNIT;
    uint16_t n_header = (uint16_t)(n_whole - PREFIX_BYTES);
    du_write(w, magic, MAGIC_BYTES);
    du_write(w, "\1\0", 2);
    du_write(w, &n_header, sizeof n_header);
    du_write(w, header, (size_t)n);
    for (size_t i = n_text; i < n_header; i++) {
        du_write(w, " ", 1);
    }
    du_write(w, "\n", 1);
}

/* Takes spaces and then the text; false, with *at unchanged, when it is not there. */
static bool take(du_sv s, size_t *at, const char *text) {
    size_t i = *at;
    while (i < s.len && s.s[i] == ' ') {
        i++;
    }
    if (!du_sv_starts((du_sv){s.s + i, s.len - i}, text)) {
        return false;
    }
    *at = i + strlen(text);
    return true;
}

static bool take_number(du_sv s, size_t *at, int64_t *out) {
    size_t i = *at;
    while (i < s.len && s.s[i] == ' ') {
        i++;
    }
    size_t first = i;
    for (*out = 0; i < s.len && s.s[i] >= '0' && s.s[i] <= '9'; i++) {
        if (!du_mul_i64(*out, 10, out) || __builtin_add_overflow(*out, s.s[i] - '0', out)) {
            return false;
        }
    }
    *at = i;
    return i > first;
}

/* (), (3,), (3, 4), (3, 4,) */
static bool take_shape(du_sv s, size_t *at, du_npy *npy) {
    npy->n_dims = 0;
    npy->n = 1;
    bool more = take(s, at, "(");
    if (!more) {
        return false;
    }
    while (more && !take(s, at, ")")) {
        int64_t dim;
        if (npy->n_dims == DU_NPY_DIMS_MAX || !take_number(s, at, &dim) ||
            !du_mul_i64(npy->n, dim, &npy->n)) {
            return false;
        }
        npy->dims[npy->n_dims++] = dim;
        more = take(s, at, ",");
    }
    /* One number alone in brackets is a number and no shape. */
    return more || (npy->n_dims > 1 && take(s, at, ")"));
}

static bool take_type(du_sv s, size_t *at, du_npy_type *type) {
    for (int i = DU_NPY_F32; i <= DU_NPY_I32; i++) {
        char quoted[8];
        snprintf(quoted, sizeof quoted, "'%s'", descriptions[i]);
        if (take(s, at, quoted)) {
            *type = (du_npy_type)i;
            return true;
        }
    }
    return false;
}

/* The three entries of the dictionary, each once, in any order. */
static du_err parse_header(du_npy *npy, du_sv s, du_diag *diag) {
    size_t at = 0;
    int descr = 0, order = 0, shape = 0;
    bool good = take(s, &at, "{");
    while (good && !take(s, &at, "}")) {
        if (take(s, &at, "'descr':")) {
            descr++;
            if (!take_type(s, &at, &npy->type)) {
                return du_fail(diag, DU_EUNSUPPORTED, "numbers other than '<f4' and '<i4'");
            }
        } else if (take(s, &at, "'fortran_order':")) {
            order++;
            if (!take(s, &at, "False")) {
                return du_fail(diag, DU_EUNSUPPORTED, "numbers in Fortran order");
            }
        } else if (take(s, &at, "'shape':")) {
            shape++;
            good = take_shape(s, &at, npy);
        } else {
            good = false;
        }
        good = good && (take(s, &at, ",") || (at < s.len && s.s[at] == '}'));
    }
    if (!good || descr != 1 || order != 1 || shape != 1) {
        return du_fail(diag, DU_EFORMAT,
                       "its header is no dictionary of descr, fortran_order and "
                       "shape");
    }
    return DU_OK;
}

static du_err parse(du_npy *npy, const char *bytes, size_t len, du_diag *diag) {
    du_reader r = du_reader_of(bytes, len);
    const uint8_t *start = du_read_bytes(&r, MAGIC_BYTES);
    uint8_t major = du_read_u8(&r);
    du_read_u8(&r);
    size_t n_header = major == 1 ? du_read_u16(&r) : du_read_u32(&r);
    if (r.bad || memcmp(start, magic, MAGIC_BYTES) != 0 || major < 1 || major > 3) {
        return du_fail(diag, DU_EFORMAT, "no .npy file of version 1 to 3");
    }
    const uint8_t *header = du_read_bytes(&r, n_header);
    if (r.bad || n_header > HEADER_BYTES_MAX) {
        return du_fail(diag, DU_EFORMAT, "a header of %zu bytes", n_header);
    }
    du_err err = parse_header(npy, (du_sv){(const char *)header, n_header}, diag);
    if (err != DU_OK) {
        return err;
    }
    if (du_reader_left(&r) % 4 != 0 || (uint64_t)npy->n != du_reader_left(&r) / 4) {
        return du_fail(diag, DU_EFORMAT, "its shape has %" PRId64 " numbers, it holds %zu bytes",
                       npy->n, du_reader_left(&r));
    }
    void *block = du_alloc_array((size_t)npy->n, 4);
    if (!block) {
        return du_fail_nomem(diag, "its numbers");
    }
    memcpy(block, r.bytes + r.pos, du_reader_left(&r));
    npy->block = block;
    if (npy->type == DU_NPY_F32) {
        npy->data.f32 = block;
    } else {
        npy->data.i32 = block;
    }
    return DU_OK;
}

du_err du_npy_read(du_npy *out, const char *path, du_diag *diag) {
    du_map map = {0};
    du_err err = du_map_open(&map, path, diag);
    if (err != DU_OK) {
        return err;
    }
    du_npy npy = {0};
    err = parse(&npy, (const char *)map.data, map.len, diag);
    if (err == DU_OK) {
        *out = npy;
    } else {
        du_diag_context(diag, "%s", path);
    }
    du_map_close(&map);
    return err;
}

void du_npy_done(du_npy *npy) {
    du_free(npy->block);
    *npy = (du_npy){0};
}
