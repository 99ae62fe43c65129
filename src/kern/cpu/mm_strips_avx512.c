#include "kern/cpu/mm_strips_avx512.h"

void du_kern_fill_mm_strips_avx512(du_kern *k) {
#define FILL(suffix, name, bits, offset, levels, scales, factor)                                   \
    k->mm_strips[DU_##suffix] = mm_##name;
    DU_STRIPS_LIST(FILL)
#undef FILL
    k->strips_same_bits = true;
}
