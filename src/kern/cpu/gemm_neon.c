#include "kern/cpu/simd_neon.h"

#include "kern/cpu/gemm_simd.h"

void du_kern_fill_gemm_neon(du_kern *k) {
    fill_gemm(k);
}
