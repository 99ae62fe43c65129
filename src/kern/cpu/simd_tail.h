/* The last n < VF values of a row: loaded with zeros behind them, and stored, without touching what
 * lies behind. Included after the simd header of a level. */
#ifndef DU_KERN_CPU_SIMD_TAIL_H
#define DU_KERN_CPU_SIMD_TAIL_H

#include <string.h>

typedef vf vf_load_fn(const void *p);

/* n values of `size` bytes each, as `load` reads them */
INLINE vf vf_load_part(vf_load_fn *load, const void *p, int64_t n, size_t size) {
    char copy[4 * VF] = {0};
    memcpy(copy, p, (size_t)n * size);
    return load(copy);
}
INLINE vf vf_load_n(const float *p, int64_t n) {
    return vf_load_part(vf_load, p, n, sizeof *p);
}
INLINE void vf_store_n(float *p, vf a, int64_t n) {
    float copy[VF];
    vf_store(copy, a);
    memcpy(p, copy, (size_t)n * sizeof *p);
}

#endif
