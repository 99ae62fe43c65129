/* Products with weights stored as floats, written once in the vectors of a level (simd_<isa>.h is
 * included before).
 *
 * One accumulator of VF lanes per (row, token), columns in steps of VF, the lanes added at the end:
 * the same roundings in the same order whatever tile of rows and tokens they stand in. F8 weights
 * have a scale per 128 columns: partial sums of 128 columns in a second accumulator, multiplied by
 * the scale when they are added. One token: TILE_R rows at a time, the memory ahead asked for. */
#include "kern/cpu/fill.h"
#include "kern/cpu/simd_tail.h"
#include "tensor/mat.h"

enum { PREFETCH_BYTES = 1024 };

/* What the compiler specialises every function on. */
typedef struct {
    vf_load_fn *load;
    size_t size;
    int scaled; /* F8: `load` gives w * 2^-8 */
} traits;

/* The rows of a tile share du_mat's scale tiles or not: one pointer per row. */
typedef struct {
    const char *row;
    const float *scale; /* per 128 columns; NULL: 1 */
} weights;

INLINE float scale_at(const weights *w, int64_t c) {
    return 0x1p8f * (w->scale ? w->scale[c / DU_F8_TILE] : 1);
}

INLINE vf load_weights(traits k, const weights *w, int64_t c, int64_t n) {
    const char *p = w->row + k.size * (size_t)c;
    return n >= VF ? k.load(p) : vf_load_part(k.load, p, n, k.size);
}

/* acc += columns [c0, c1) */
INLINE void add_columns(traits k, int R, int N, vf acc[TILE_R][TILE_N], const weights *w,
                        const float *const *x, int64_t c0, int64_t c1) {
    for (int64_t c = c0; c < c1; c += VF) {
        vf v[TILE_N];
        UNROLL
        for (int i = 0; i < N; i++) {
            v[i] = c1 - c >= VF ? vf_load(x[i] + c) : vf_load_n(x[i] + c, c1 - c);
        }
        UNROLL
        for (int r = 0; r < R; r++) {
            if (N == 1) {
                __builtin_prefetch(w[r].row + k.size * (size_t)c + PREFETCH_BYTES);
            }
            vf wv = load_weights(k, &w[r], c, c1 - c);
            UNROLL
            for (int i = 0; i < N; i++) {
                acc[r][i] = vf_fma(wv, v[i], acc[r][i]);
            }
        }
    }
}

INLINE void set_zero(int R, int N, vf acc[TILE_R][TILE_N]) {
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int i = 0; i < N; i++) {
            acc[r][i] = vf_set1(0);
        }
    }
}

/* y[i*ldy + r] for R rows and N tokens */
INLINE void mm_tile(traits k, int R, int N, float *y, int64_t ldy, const weights *w,
                    const float *const *x, int64_t cols) {
    vf acc[TILE_R][TILE_N], part[TILE_R][TILE_N];
    set_zero(R, N, acc);
    if (!k.scaled) {
        add_columns(k, R, N, acc, w, x, 0, cols);
    }
    for (int64_t c = 0; k.scaled && c < cols; c += DU_F8_TILE) {
        set_zero(R, N, part);
        add_columns(k, R, N, part, w, x, c, cols - c < DU_F8_TILE ? cols : c + DU_F8_TILE);
        UNROLL
        for (int r = 0; r < R; r++) {
            vf scale = vf_set1(scale_at(&w[r], c));
            UNROLL
            for (int i = 0; i < N; i++) {
                acc[r][i] = vf_fma(part[r][i], scale, acc[r][i]);
            }
        }
    }
    UNROLL
    for (int i = 0; i < N; i++) {
        UNROLL
        for (int r = 0; r < R; r++) {
            y[i * ldy + r] = vf_sum(acc[r][i]);
        }
    }
}

INLINE void mm_tokens(traits k, int N, float *y, int64_t ldy, const du_mat *w, int64_t row0,
                      int64_t row1, const float *const *x) {
    for (int64_t r = row0; r < row1; r += TILE_R) {
        weights at[TILE_R];
        int64_t n = row1 - r < TILE_R ? row1 - r : TILE_R;
        for (int64_t i = 0; i < n; i++) {
            at[i].row = du_mat_row(w, r + i);
            at[i].scale = NULL;
            if (k.scaled && w->aux) {
                at[i].scale = w->aux + (w->aux_row0 + r + i) / DU_F8_TILE * w->aux_cols;
            }
        }
        if (n == TILE_R) {
            mm_tile(k, TILE_R, N, y + r, ldy, at, x, w->cols);
            continue;
        }
        for (int64_t i = 0; i < n; i++) {
            mm_tile(k, 1, N, y + r + i, ldy, at + i, x, w->cols);
        }
    }
}

INLINE void mm(traits k, float *y, int64_t ldy, const du_mat *w, int64_t row0, int64_t row1,
               const du_acts *x, const int32_t *i_row, int64_t n_rows) {
    const int N = k.scaled ? TILE_N_SCALED : TILE_N;
    for (int64_t t = 0; t < n_rows;) {
        const float *at[TILE_N];
        int64_t left = n_rows - t, n = left >= N ? N : left >= 2 ? 2 : 1;
        for (int64_t i = 0; i < n; i++) {
            at[i] = x->x + (i_row ? i_row[t + i] : t + i) * x->ldx;
        }
        if (n == N) {
            mm_tokens(k, N, y + t * ldy, ldy, w, row0, row1, at);
        } else if (n == 2) {
            mm_tokens(k, 2, y + t * ldy, ldy, w, row0, row1, at);
        } else {
            mm_tokens(k, 1, y + t * ldy, ldy, w, row0, row1, at);
        }
        t += n;
    }
}

#define MM(name, load, size, scaled)                                                               \
    static void mm_##name(float *y, int64_t ldy, const du_mat *w, int64_t row0, int64_t row1,      \
                          const du_acts *x, const int32_t *i_row, int64_t n_rows) {                \
        mm((traits){load, size, scaled}, y, ldy, w, row0, row1, x, i_row, n_rows);                 \
    }
MM(f32, vf_load, 4, 0)
MM(f16, vf_load_f16, 2, 0)
MM(bf16, vf_load_bf16, 2, 0)
MM(f8_e4m3, vf_load_f8_e4m3, 1, 1)
#undef MM

static void fill_mm_float(du_kern *k) {
    k->mm[DU_F32] = mm_f32;
    k->mm[DU_F16] = mm_f16;
    k->mm[DU_BF16] = mm_bf16;
    k->mm[DU_F8_E4M3] = mm_f8_e4m3;
}
