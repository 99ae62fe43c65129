/* The probe of the dot-product instructions. */
#include "kern/cpu/simd_neon.h"

#include "kern/cpu/probe_simd.h"

INLINE vf step_int8(vf sums, vf ones) {
    int8x16_t a = vreinterpretq_s8_f32(ones);
    return vreinterpretq_f32_s32(vdotq_s32(vreinterpretq_s32_f32(sums), a, a));
}

static double probe_int8(int64_t n) {
    return probe(step_int8, total_i32, vreinterpretq_f32_s8(vdupq_n_s8(1)), n);
}

void du_kern_fill_probe_dot_neon(du_kern *k) {
    k->probe[DU_PROBE_INT8] = probe_int8;
}
