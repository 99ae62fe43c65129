/* Writing strips (kern/strips.h), compiled once per level: blocks become codes and integer scales
 * row by row, then planes of 16 rows. */
#include <string.h>

#include "kern/cpu/blocks.h"
#include "kern/cpu/fill.h"
#include "kern/strips.h"

typedef struct {
    void (*load)(du_wblock *w, const void *block);
    int bits, offset;
    const int8_t *levels;
    du_strip_scales scales;
    float factor;
} layout;

#define LAYOUT(suffix, name, bits, offset, levels, scales, factor)                                 \
    [DU_##suffix] = {du_wblock_load_##name, bits, offset, levels, DU_SCALES_##scales, factor},
static const layout layouts[DU_DTYPE_COUNT] = {DU_STRIPS_LIST(LAYOUT)};
#undef LAYOUT

/* The code of each weight q, at q + 128. */
static void make_codes(uint8_t code[256], const layout *k) {
    for (int q = -128; q < 128; q++) {
        int c = q + k->offset;
        for (int i = 15; k->levels && i >= 0; i--) {
            c = k->levels[i] == q ? i : c;
        }
        code[q + 128] = (uint8_t)c;
    }
}

static void put_f16(uint8_t *p, int64_t row, float v) {
    uint16_t h = du_f16_of_f32(v);
    memcpy(p + 2 * row, &h, 2);
}

/* The scales of one row's block. */
static void put_scales(uint8_t *p, const layout *k, const du_wblock *w, int row) {
    float d = w->d / k->factor;
    switch (k->scales) {
    case DU_SCALES_F16_MIN:
        put_f16(p + 32, row, -w->dmin);
        put_f16(p, row, d);
        return;
    case DU_SCALES_E8:
        return; /* taken from the block itself */
    case DU_SCALES_K4:
        put_f16(p, row, d);
        put_f16(p + 32, row, w->dmin);
        for (int g = 0; g < 8; g++) {
            int sc = w->scale[2 * g], m = w->min[2 * g], up = 4 * (g % 2);
            p[64 + 16 * g + row] = (uint8_t)((sc & 15) | (m & 15) << 4);
            p[192 + 16 * (g / 2) + row] |= (uint8_t)((sc >> 4 | m >> 4 << 2) << up);
        }
        return;
    case DU_SCALES_I8_32:
    case DU_SCALES_I8_16:
        for (int i = 0; i < 16; i += k->scales == DU_SCALES_I8_32 ? 2 : 1) {
            int at = k->scales == DU_SCALES_I8_32 ? i / 2 : i;
            p[32 + 16 * at + row] = (uint8_t)w->scale[i];
        }
        put_f16(p, row, d);
        return;
    case DU_SCALES_N_16:
        put_f16(p, row, d);
        put_f16(p + 32, row, w->dmin);
        for (int i = 0; i < 16; i++) {
            p[64 + 16 * i + row] = (uint8_t)(w->scale[i] | w->min[i] << 4);
        }
        return;
    case DU_SCALES_F16:
        put_f16(p, row, d);
        return;
    }
}

/* Codes of one group, code[row][32], into the planes at p. */
static void put_planes(uint8_t *p, int bits, const uint8_t *code, int64_t ld) {
    uint8_t quad[8][64];
    for (int r = 0; r < DU_STRIP_ROWS; r++) {
        for (int j = 0; j < 8; j++) {
            memcpy(quad[j] + 4 * r, code + r * ld + 4 * j, 4);
        }
    }
    if (bits == 8) {
        memcpy(p, quad, sizeof quad);
        return;
    }
    int low = bits >= 4 ? 4 : 2;
    for (int j = 0; low == 4 && j < 4; j++, p += 64) {
        for (int i = 0; i < 64; i++) {
            p[i] = (uint8_t)((quad[j][i] & 15) | quad[j + 4][i] << 4);
        }
    }
    if (bits == 2 || bits == 3 || bits == 6) {
        int shift = bits == 6 ? 4 : 0;
        for (int k = 0; k < 8; k += 4, p += 64) {
            for (int i = 0; i < 64; i++) {
                p[i] = (uint8_t)((quad[k][i] >> shift & 3) | (quad[k + 1][i] >> shift & 3) << 2 |
                                 (quad[k + 2][i] >> shift & 3) << 4 |
                                 (quad[k + 3][i] >> shift & 3) << 6);
            }
        }
    }
    if (bits == 3 || bits == 5) {
        for (int i = 0; i < 64; i++) {
            unsigned v = 0;
            for (int j = 0; j < 8; j++) {
                v |= (unsigned)(quad[j][i] >> (bits - 1) & 1) << j;
            }
            p[i] = (uint8_t)v;
        }
    }
}

static void put_codes(uint8_t *code, const layout *k, const uint8_t lut[256], const int8_t *q,
                      int64_t n) {
    for (int64_t i = 0; k->levels && i < n; i++) {
        code[i] = lut[q[i] + 128];
    }
    for (int64_t i = 0; !k->levels && i < n; i++) {
        code[i] = (uint8_t)(q[i] + k->offset);
    }
}

/* One unit: a block of each of n rows. */
static void pack_unit(uint8_t *scales, uint8_t *codes, const layout *k, const uint8_t lut[256],
                      const uint8_t *const rows[DU_STRIP_ROWS], int n, int64_t block) {
    uint8_t code[DU_STRIP_ROWS][256];
    memset(scales, 0, du_strip_scale_bytes(k->scales));
    memset(code, 0, sizeof code);
    for (int r = 0; r < n; r++) {
        du_wblock w;
        k->load(&w, rows[r]);
        put_scales(scales, k, &w, r);
        if (k->scales == DU_SCALES_E8) {
            scales[r] = rows[r][0];
        }
        put_codes(code[r], k, lut, w.q, block);
    }
    for (int64_t c = 0; c < block; c += 32) {
        put_planes(codes + (size_t)(c / 32) * du_strip_code_bytes(k->bits), k->bits, code[0] + c,
                   256);
    }
}

static void strips_write(const du_mat *w, int64_t row0, int64_t row1) {
    const layout *k = &layouts[w->dtype];
    const du_dtype_info *type = du_dtype_get(w->dtype);
    size_t strip_bytes = du_strip_bytes(w->dtype, w->cols);
    size_t codes_at = du_strip_codes_at(k->scales, type->block, w->cols);
    size_t unit_codes = (size_t)(type->block / 32) * du_strip_code_bytes(k->bits);
    size_t unit_scales = du_strip_scale_bytes(k->scales);
    int64_t n_units = w->cols / type->block;
    uint8_t lut[256];
    make_codes(lut, k);
    for (int64_t r0 = row0; r0 < row1; r0 += DU_STRIP_ROWS) {
        uint8_t *strip = w->strips->data + (size_t)(r0 / DU_STRIP_ROWS) * strip_bytes;
        int n = row1 - r0 < DU_STRIP_ROWS ? (int)(row1 - r0) : DU_STRIP_ROWS;
        for (int64_t u = 0; u < n_units; u++) {
            const uint8_t *rows[DU_STRIP_ROWS];
            for (int r = 0; r < n; r++) {
                rows[r] = (const uint8_t *)du_mat_row(w, r0 + r) + (size_t)u * type->block_bytes;
            }
            pack_unit(strip + (size_t)u * unit_scales, strip + codes_at + (size_t)u * unit_codes, k,
                      lut, rows, n, type->block);
        }
    }
}
