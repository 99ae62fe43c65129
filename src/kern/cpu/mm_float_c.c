/* Products with weights stored as floats, plain C: 128 weights of a row (an F8 tile's width) are
 * brought to f32 once and used for up to N_TILE tokens. A F8 tile's scale is applied to
 * its weights. */
#include "kern/cpu/fill.h"
#include "kern/cpu/lanes.h"
#include "tensor/half.h"

enum { N_TILE = 8 };

/* y [n] f32 <- weights [c, c + n) of row r; n <= DU_F8_TILE, c a multiple of DU_F8_TILE */
typedef void load_fn(float *y, const du_mat *w, int64_t r, int64_t c, int64_t n);

static void load_f32(float *y, const du_mat *w, int64_t r, int64_t c, int64_t n) {
    memcpy(y, (const char *)du_mat_row(w, r) + 4 * c, 4 * (size_t)n);
}

static void load_f16(float *y, const du_mat *w, int64_t r, int64_t c, int64_t n) {
    const char *h = (const char *)du_mat_row(w, r) + 2 * c;
    for (int64_t i = 0; i < n; i++) {
        y[i] = du_f32_of_f16(du_load_u16(h + 2 * i));
    }
}

static void load_bf16(float *y, const du_mat *w, int64_t r, int64_t c, int64_t n) {
    const char *h = (const char *)du_mat_row(w, r) + 2 * c;
    for (int64_t i = 0; i < n; i++) {
        y[i] = du_f32_of_bf16(du_load_u16(h + 2 * i));
    }
}

static void load_f8_e4m3(float *y, const du_mat *w, int64_t r, int64_t c, int64_t n) {
    const uint8_t *h = (const uint8_t *)du_mat_row(w, r) + c;
    float scale = 1;
    if (w->aux) {
        scale = w->aux[(w->aux_row0 + r) / DU_F8_TILE * w->aux_cols + c / DU_F8_TILE];
    }
    for (int64_t i = 0; i < n; i++) {
        y[i] = du_f32_of_f8_e4m3(h[i]) * scale;
    }
}

static inline void mm_float(load_fn *load, float *y, int64_t ldy, const du_mat *w, int64_t row0,
                            int64_t row1, const du_acts *x, const int32_t *i_row, int64_t n_rows) {
    for (int64_t r = row0; r < row1; r++) {
        for (int64_t t0 = 0; t0 < n_rows; t0 += N_TILE) {
            int64_t n_t = n_rows - t0 < N_TILE ? n_rows - t0 : N_TILE;
            float acc[N_TILE][DU_LANES] = {{0}};
            for (int64_t c = 0; c < w->cols; c += DU_F8_TILE) {
                int64_t n = w->cols - c < DU_F8_TILE ? w->cols - c : DU_F8_TILE;
                float part[DU_F8_TILE];
                load(part, w, r, c, n);
                for (int64_t i = 0; i < n_t; i++) {
                    int64_t t = i_row ? i_row[t0 + i] : t0 + i;
                    du_lanes_add_dot(acc[i], part, x->x + t * x->ldx + c, n);
                }
            }
            for (int64_t i = 0; i < n_t; i++) {
                y[(t0 + i) * ldy + r] = du_lanes_sum(acc[i]);
            }
        }
    }
}

#define MM_FLOAT(name)                                                                             \
    static void mm_##name(float *y, int64_t ldy, const du_mat *w, int64_t row0, int64_t row1,      \
                          const du_acts *x, const int32_t *i_row, int64_t n_rows) {                \
        mm_float(load_##name, y, ldy, w, row0, row1, x, i_row, n_rows);                            \
    }
MM_FLOAT(f32)
MM_FLOAT(f16)
MM_FLOAT(bf16)
MM_FLOAT(f8_e4m3)
#undef MM_FLOAT

void du_kern_fill_mm_float_c(du_kern *k) {
    k->mm[DU_F32] = mm_f32;
    k->mm[DU_F16] = mm_f16;
    k->mm[DU_BF16] = mm_bf16;
    k->mm[DU_F8_E4M3] = mm_f8_e4m3;
}
