#include "kern/cpu/simd_avx512.h"

#include "kern/cpu/vec_simd.h"

void du_kern_fill_vec_avx512(du_kern *k) {
    fill_vec(k);
}
