/* Strips: block-quantised weights laid out for products, 16 rows interleaved.
 *
 * A strip is 16 consecutive rows (rows beyond the last are zeros). Its groups are 32 columns each:
 *
 *     scales of unit 0 | unit 1 | ... | padding to 64 bytes | codes of group 0 | group 1 | ...
 *
 * a unit being the columns of one block of the type: one group, or eight. Scales and codes have the
 * values of the stored blocks, so that a product's bits do not depend on the layout.
 *
 * Codes. Quad j (0 .. 7) of a group is columns 4j .. 4j+3; byte 4r + c of a quad is row r, column
 * 4j + c, so that a quad is 64 bytes. A code is the weight's integer plus the type's offset, or its
 * place in the type's levels, in planes of
 *
 *     8 bits   byte plane j               quad j
 *     4 bits   byte plane i (0 .. 3)      quad i in the low nibbles, quad i + 4 in the high ones
 *     2 bits   byte plane k (0, 1)        quad 4k + i in bits 2i, 2i + 1
 *     1 bit                               quad j in bit j
 *
 * 5 bits are a plane of 4 and one of 1 above it, 6 bits 4 and 2, 3 bits 2 and 1.
 *
 * Scales of a unit, [16] meaning one per row:
 *
 *     F16      f16 d[16]                                     w = d q
 *     F16_MIN  f16 d[16], m[16]                              w = d q + m
 *     E8       e8m0 exponents [16]                           w = 2^(e - 128) q
 *     K4       f16 d[16], dmin[16]; per group [16] bytes     w = d sc q - dmin m
 *              sc & 15 | (m & 15) << 4; per pair of groups
 *              [16] bytes sc >> 4 | m >> 4 << 2 of the
 *              first, the same << 4 of the second
 *     I8_32    f16 d[16]; per group i8 s[16]                 w = d s q
 *     I8_16    f16 d[16]; per half group i8 s[16]            w = d s q
 *     N_16     f16 d[16], dmin[16]; per half group [16]      w = d sc q - dmin m
 *              bytes sc | m << 4
 *
 * An f16 that is a NaN has one bit of payload, the first. d times the type's factor
 * (DU_STRIPS_LIST) is the d of the formula; q is the code minus the offset. Types whose weights are
 * points of a lattice grow: IQ2 and IQ1 take 3 bits, IQ3 takes 4.
 */
#ifndef DU_KERN_STRIPS_H
#define DU_KERN_STRIPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/mat.h"

/* Strips are kept in files: another layout of any type is another version. */
enum { DU_STRIP_ROWS = 16, DU_STRIPS_VERSION = 1 };

typedef enum {
    DU_SCALES_F16,
    DU_SCALES_F16_MIN,
    DU_SCALES_E8,
    DU_SCALES_K4,
    DU_SCALES_I8_32,
    DU_SCALES_I8_16,
    DU_SCALES_N_16,
} du_strip_scales;

/* X(suffix, function name part, bits, offset, levels or NULL, scales, factor of d) */
#define DU_STRIPS_LIST(X)                                                                          \
    X(Q4_0, q4_0, 4, 8, NULL, F16, 1)                                                              \
    X(Q4_1, q4_1, 4, 0, NULL, F16_MIN, 1)                                                          \
    X(Q5_0, q5_0, 5, 16, NULL, F16, 1)                                                             \
    X(Q5_1, q5_1, 5, 0, NULL, F16_MIN, 1)                                                          \
    X(Q8_0, q8_0, 8, 128, NULL, F16, 1)                                                            \
    X(Q2_K, q2_k, 2, 0, NULL, N_16, 1)                                                             \
    X(Q3_K, q3_k, 3, 4, NULL, I8_16, 1)                                                            \
    X(Q4_K, q4_k, 4, 0, NULL, K4, 1)                                                               \
    X(Q5_K, q5_k, 5, 0, NULL, K4, 1)                                                               \
    X(Q6_K, q6_k, 6, 32, NULL, I8_16, 1)                                                           \
    X(IQ4_NL, iq4_nl, 4, 128, du_iq4_values, F16, 1)                                               \
    X(IQ4_XS, iq4_xs, 4, 128, du_iq4_values, I8_32, 1)                                             \
    X(IQ1_S, iq1_s, 3, 16, du_strip_levels_iq1, I8_32, 0.125f)                                     \
    X(IQ1_M, iq1_m, 3, 16, du_strip_levels_iq1, I8_16, 0.125f)                                     \
    X(IQ2_XXS, iq2_xxs, 3, 64, du_strip_levels_iq2, I8_32, 0.125f)                                 \
    X(IQ2_XS, iq2_xs, 3, 64, du_strip_levels_iq2, I8_16, 0.125f)                                   \
    X(IQ2_S, iq2_s, 3, 64, du_strip_levels_iq2, I8_16, 0.125f)                                     \
    X(IQ3_XXS, iq3_xxs, 4, 64, du_strip_levels_iq3_xxs, I8_32, 0.25f)                              \
    X(IQ3_S, iq3_s, 4, 16, du_strip_levels_iq3_s, I8_32, 1)                                        \
    X(MXFP4, mxfp4, 4, 16, du_mxfp4_values, E8, 1)

/* Levels in the order of the codes. */
extern const int8_t du_strip_levels_iq1[16], du_strip_levels_iq2[16], du_strip_levels_iq3_xxs[16],
    du_strip_levels_iq3_s[16];

/* Bytes of codes of a group, and of the scales of a unit. */
static inline size_t du_strip_code_bytes(int bits) {
    return (size_t)bits * 64;
}
static inline size_t du_strip_scale_bytes(du_strip_scales scales) {
    static const size_t bytes[] = {32, 64, 16, 256, 160, 288, 320};
    return bytes[scales];
}

/* Where the codes of a strip of `cols` columns begin. */
static inline size_t du_strip_codes_at(du_strip_scales scales, int64_t block, int64_t cols) {
    return ((size_t)(cols / block) * du_strip_scale_bytes(scales) + 63) / 64 * 64;
}

/* Bytes of one strip, a multiple of 64. dtype is a block type. */
size_t du_strip_bytes(du_dtype dtype, int64_t cols);

/* Bytes of all strips of w. */
static inline size_t du_strips_bytes(const du_mat *w) {
    int64_t n = (w->rows + DU_STRIP_ROWS - 1) / DU_STRIP_ROWS;
    return (size_t)n * du_strip_bytes(w->dtype, w->cols);
}

#endif
