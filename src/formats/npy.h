/* NumPy's .npy files: one little-endian array of f32 or i32 in C order. The format is described in
 * npy.c. */
#ifndef DU_FORMATS_NPY_H
#define DU_FORMATS_NPY_H

#include <stdint.h>

#include "base/err.h"
#include "base/file.h"

enum { DU_NPY_DIMS_MAX = 8 };

typedef enum { DU_NPY_F32, DU_NPY_I32 } du_npy_type;

/* Writes what stands before the numbers; the caller writes those with du_write, last index fastest,
 * and commits. n_dims 0 .. DU_NPY_DIMS_MAX, dims not negative. */
void du_npy_write_header(du_writer *w, du_npy_type type, int32_t n_dims, const int64_t *dims);

typedef struct {
    du_npy_type type;
    int32_t n_dims;
    int64_t dims[DU_NPY_DIMS_MAX];
    int64_t n; /* numbers in all */
    union {
        const float *f32;
        const int32_t *i32;
    } data;
    void *block; /* owns the numbers */
} du_npy;

/* Reads a whole file. *out is for du_npy_done; untouched on failure.
 * Returns DU_OK, DU_ENOENT, DU_EIO, DU_EFORMAT, DU_EUNSUPPORTED (other types, Fortran order),
 * DU_ENOMEM. */
DU_NODISCARD
du_err du_npy_read(du_npy *out, const char *path, du_diag *diag);
void du_npy_done(du_npy *npy);

#endif
