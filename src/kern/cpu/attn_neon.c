#include "kern/cpu/simd_neon.h"

#include "kern/cpu/attn_simd.h"

void du_kern_fill_attn_neon(du_kern *k) {
    fill_attn(k);
}
