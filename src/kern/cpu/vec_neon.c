#include "kern/cpu/simd_neon.h"

#include "kern/cpu/vec_simd.h"

void du_kern_fill_vec_neon(du_kern *k) {
    fill_vec(k);
}
