#include "kern/cpu/simd_avx2.h"

#include "kern/cpu/mm_float_simd.h"

void du_kern_fill_mm_float_avx2(du_kern *k) {
    fill_mm_float(k);
}
