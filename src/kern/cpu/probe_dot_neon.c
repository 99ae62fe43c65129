/* The probe of the dot-product instructions. */
#include "kern/cpu/fill.h"
#include "kern/cpu/simd_neon.h"

enum { N_ACC = 16 };

static double int8(int64_t n) {
    int32x4_t acc[N_ACC];
    int8x16_t a = vdupq_n_s8(1);
    UNROLL
    for (int k = 0; k < N_ACC; k++) {
        acc[k] = vdupq_n_s32(0);
    }
    for (int64_t i = 0; i < n; i++) {
        UNROLL
        for (int k = 0; k < N_ACC; k++) {
            acc[k] = vdotq_s32(acc[k], a, a);
            __asm__ volatile("" : "+w"(acc[k])); /* it might have changed */
        }
    }
    double total = 0;
    UNROLL
    for (int k = 0; k < N_ACC; k++) {
        total += vaddvq_s32(acc[k]);
    }
    return total;
}

void du_kern_fill_probe_dot_neon(du_kern *k) {
    k->probe[DU_PROBE_INT8] = int8;
}
