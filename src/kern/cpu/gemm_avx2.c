#include "kern/cpu/simd_avx2.h"

#include "kern/cpu/gemm_bf16_x86.h"

void du_kern_fill_gemm_avx2(du_kern *k) {
    fill_gemm(k);
    fill_gemm_bf16(k);
}
