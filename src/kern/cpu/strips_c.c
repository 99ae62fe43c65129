#include "kern/cpu/strips_write.h"

/* Unused codes repeat the last level. */
const int8_t du_strip_levels_iq1[16] = {-9, -7, -1, 1, 7, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9};
const int8_t du_strip_levels_iq2[16] = {-43, -25, -8, 8,  25, 43, 43, 43,
                                        43,  43,  43, 43, 43, 43, 43, 43};
const int8_t du_strip_levels_iq3_xxs[16] = {-62, -52, -44, -36, -28, -20, -12, -4,
                                            4,   12,  20,  28,  36,  44,  52,  62};
const int8_t du_strip_levels_iq3_s[16] = {-15, -13, -11, -9, -7, -5, -3, -1,
                                          1,   3,   5,   7,  9,  11, 13, 15};

size_t du_strip_bytes(du_dtype dtype, int64_t cols) {
    const layout *k = &layouts[dtype];
    return du_strip_codes_at(k->scales, du_dtype_get(dtype)->block, cols) +
           (size_t)(cols / 32) * du_strip_code_bytes(k->bits);
}

void du_kern_fill_strips_c(du_kern *k) {
    k->strips_write = strips_write;
    k->strips_same_bits = true; /* there are none */
}
