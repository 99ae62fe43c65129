/* What the kernels of strips are specialised on by the compiler: a line of DU_STRIPS_LIST. */
#ifndef DU_KERN_CPU_STRIP_TRAITS_H
#define DU_KERN_CPU_STRIP_TRAITS_H

#include "kern/cpu/inline.h"
#include "kern/kern.h"
#include "kern/strips.h"
#include "tensor/quant.h"

typedef struct {
    int bits, offset;
    const int8_t *levels;
    du_strip_scales scales;
    float factor;
    int64_t block;
} strip_traits;

/* Those of a line of DU_STRIPS_LIST. */
#define STRIP_TRAITS(name, bits, offset, levels, scales, factor)                                   \
    ((strip_traits){bits, offset, levels, DU_SCALES_##scales, factor,                              \
                    sizeof(du_block_##name) > 34 ? 256 : 32})

/* For DU_STRIPS_LIST: the product of a type, specialised from the file's mm(), and its place. */
#define MM_STRIPS(suffix, name, bits, offset, levels, scales, factor)                              \
    static void mm_##name(float *y, int64_t ldy, const du_mat *w, int64_t row0, int64_t row1,      \
                          const du_acts *x, const int32_t *i_row, int64_t n_rows) {                \
        mm(STRIP_TRAITS(name, bits, offset, levels, scales, factor),                               \
           du_strip_bytes(DU_##suffix, w->cols), y, ldy, w, row0, row1, x, i_row, n_rows);         \
    }
#define FILL_MM_STRIPS(suffix, name, bits, offset, levels, scales, factor)                         \
    k->mm_strips[DU_##suffix] = mm_##name;

/* Scales per 16 weights. */
INLINE int strip_has_sub(strip_traits k) {
    return k.scales == DU_SCALES_I8_16 || k.scales == DU_SCALES_N_16;
}

/* Minima per 32 weights. */
INLINE int strip_has_mins(strip_traits k) {
    return k.scales == DU_SCALES_F16_MIN || k.scales == DU_SCALES_K4;
}

/* Where a strip's parts lie. */
typedef struct {
    const uint8_t *scales, *codes;
} strip;

#endif
