#include "kern/cpu/mm_strips_avx512.h"

void du_kern_fill_mm_strips_avx512(du_kern *k) {
    DU_STRIPS_LIST(FILL_MM_STRIPS)
    k->strips_same_bits = true;
}
