/* Products with block-quantised weights, plain C: a block of a row is brought to small integers
 * once and used for up to N_TILE tokens. Per 32 weights the dot product is exact in integers; it is
 * scaled and summed in f32, groups ascending. */
#include "kern/cpu/blocks.h"
#include "kern/cpu/fill.h"

enum { N_TILE = 8 };

typedef void load_fn(du_wblock *w, const void *block);

static inline int32_t dot_16(const int8_t *w, const int8_t *x) {
    int32_t sum = 0;
    for (int i = 0; i < 16; i++) {
        sum += w[i] * x[i];
    }
    return sum;
}

/* sum_i w[i] * x[i] over one block of n weights. x [n], d [n/32], sum [n/16] of one token */
static inline float dot_block(const du_wblock *w, int n, int has_min, const int8_t *x,
                              const float *d, const int16_t *sum) {
    float y = 0;
    for (int g = 0; g < n / 32; g++) {
        int32_t dot = w->scale[2 * g] * dot_16(w->q + 32 * g, x + 32 * g) +
                      w->scale[2 * g + 1] * dot_16(w->q + 32 * g + 16, x + 32 * g + 16);
        float v = w->d * (float)dot;
        if (has_min) {
            int32_t min = w->min[2 * g] * sum[2 * g] + w->min[2 * g + 1] * sum[2 * g + 1];
            v -= w->dmin * (float)min;
        }
        y += d[g] * v;
    }
    return y;
}

static inline void mm_block(load_fn *load, int64_t block, size_t block_bytes, int has_min, float *y,
                            int64_t ldy, const du_mat *w, int64_t row0, int64_t row1,
                            const du_acts *x, const int32_t *i_row, int64_t n_rows) {
    for (int64_t r = row0; r < row1; r++) {
        for (int64_t t0 = 0; t0 < n_rows; t0 += N_TILE) {
            int64_t n = n_rows - t0 < N_TILE ? n_rows - t0 : N_TILE;
            float acc[N_TILE] = {0};
            const char *bytes = du_mat_row(w, r);
            for (int64_t c = 0; c < w->cols; c += block, bytes += block_bytes) {
                du_wblock b;
                load(&b, bytes);
                for (int64_t i = 0; i < n; i++) {
                    int64_t at = (i_row ? i_row[t0 + i] : t0 + i) * x->cols + c;
                    acc[i] += dot_block(&b, (int)block, has_min, x->q + at, x->d + at / 32,
                                        x->sum + at / 16);
                }
            }
            for (int64_t i = 0; i < n; i++) {
                y[(t0 + i) * ldy + r] = acc[i];
            }
        }
    }
}

#define MM_BLOCK(suffix, name, block, has_min)                                                     \
    static void mm_##name(float *y, int64_t ldy, const du_mat *w, int64_t row0, int64_t row1,      \
                          const du_acts *x, const int32_t *i_row, int64_t n_rows) {                \
        mm_block(du_wblock_load_##name, block, sizeof(du_block_##name), has_min, y, ldy, w, row0,  \
                 row1, x, i_row, n_rows);                                                          \
    }
DU_BLOCK_LIST(MM_BLOCK)
#undef MM_BLOCK

void du_kern_fill_mm_block_c(du_kern *k) {
#define FILL(suffix, name, block, has_min) k->mm[DU_##suffix] = mm_##name;
    DU_BLOCK_LIST(FILL)
#undef FILL
}
