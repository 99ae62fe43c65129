#include "tensor/mat.h"

#include <math.h>

#include "tensor/half.h"

void du_mat_unpack_row(float *y, const du_mat *m, int64_t row) {
    du_dtype_get(m->dtype)->unpack(y, du_mat_row(m, row), m->cols);
    if (!m->aux) {
        return;
    }
    const float *scale = m->aux + (m->aux_row0 + row) / DU_F8_TILE * m->aux_cols;
    for (int64_t i = 0; i < m->cols; i++) {
        y[i] *= scale[i / DU_F8_TILE];
    }
}

void du_mat_adapt_row(float *y, const du_mat *m, int64_t row) {
    const du_adapter *d = m->adapter;
    for (int64_t r = 0; d && r < d->rank; r++) {
        float b = d->scale * d->b[row * d->rank + r];
        for (int64_t k = 0; k < m->cols; k++) {
            y[k] += b * d->a[r * m->cols + k];
        }
    }
}

/* One tile of at most DU_F8_TILE rows and columns, rows ld apart. */
static void pack_f8_tile(uint8_t *x, float *scale, const float *y, int64_t rows, int64_t cols,
                         int64_t ld) {
    float largest = 0;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < cols; c++) {
            float v = fabsf(y[r * ld + c]);
            largest = v > largest && !isinf(v) ? v : largest;
        }
    }
    *scale = largest > 0x1p-100f ? largest / 448 : 1;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < cols; c++) {
            x[r * ld + c] = du_f8_e4m3_of_f32(y[r * ld + c] / *scale);
        }
    }
}

void du_mat_pack_f8(uint8_t *x, float *scale, const float *y, int64_t rows, int64_t cols) {
    int64_t n_across = (cols + DU_F8_TILE - 1) / DU_F8_TILE;
    for (int64_t r = 0; r < rows; r += DU_F8_TILE) {
        for (int64_t c = 0; c < cols; c += DU_F8_TILE) {
            pack_f8_tile(x + r * cols + c, &scale[r / DU_F8_TILE * n_across + c / DU_F8_TILE],
                         y + r * cols + c, rows - r < DU_F8_TILE ? rows - r : DU_F8_TILE,
                         cols - c < DU_F8_TILE ? cols - c : DU_F8_TILE, cols);
        }
    }
}
