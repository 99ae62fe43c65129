#include "kern/cpu/mm_block_neon.h"

void du_kern_fill_mm_block_neon(du_kern *k) {
    fill_mm_block(k);
}
