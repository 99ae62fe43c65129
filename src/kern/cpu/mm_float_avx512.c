#include "kern/cpu/simd_avx512.h"

#include "kern/cpu/mm_float_simd.h"

void du_kern_fill_mm_float_avx512(du_kern *k) {
    fill_mm_float(k);
}
