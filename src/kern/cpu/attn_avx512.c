#include "kern/cpu/simd_avx512.h"

#include "kern/cpu/attn_simd.h"

void du_kern_fill_attn_avx512(du_kern *k) {
    fill_attn(k);
}
