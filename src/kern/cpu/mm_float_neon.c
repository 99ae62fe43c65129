#include "kern/cpu/simd_neon.h"

#include "kern/cpu/mm_float_simd.h"

void du_kern_fill_mm_float_neon(du_kern *k) {
    fill_mm_float(k);
}
