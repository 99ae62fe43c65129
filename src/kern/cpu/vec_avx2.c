#include "kern/cpu/simd_avx2.h"

#include "kern/cpu/vec_simd.h"

void du_kern_fill_vec_avx2(du_kern *k) {
    fill_vec(k);
}
