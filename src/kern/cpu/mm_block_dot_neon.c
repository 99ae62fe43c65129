#include "kern/cpu/mm_block_neon.h"

#if !defined(__ARM_FEATURE_DOTPROD)
#error "compile for the dot product extension"
#endif

void du_kern_fill_mm_block_dot_neon(du_kern *k) {
    fill_mm_block(k);
}
