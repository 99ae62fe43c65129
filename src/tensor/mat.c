#include "tensor/mat.h"

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
