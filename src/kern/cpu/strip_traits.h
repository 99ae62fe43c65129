/* What the kernels of strips are specialised on by the compiler: a line of DU_STRIPS_LIST. */
#ifndef DU_KERN_CPU_STRIP_TRAITS_H
#define DU_KERN_CPU_STRIP_TRAITS_H

#include "kern/cpu/inline.h"
#include "kern/strips.h"
#include "tensor/quant.h"

typedef struct {
    int bits, offset;
    const int8_t *levels;
    du_strip_scales scales;
    float factor;
    int64_t block;
} strip_traits;

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
