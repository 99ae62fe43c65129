#include "kern/cpu/simd_neon.h"

#include "kern/cpu/probe_simd.h"

/* What a product of bytes takes without the dot-product instructions. */
INLINE vf step_int8(vf sums, vf ones) {
    int8x16_t a = vreinterpretq_s8_f32(ones);
    int16x8_t v = vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(a)), a, a);
    return vreinterpretq_f32_s32(vpadalq_s16(vreinterpretq_s32_f32(sums), v));
}

static double probe_int8(int64_t n) {
    return probe(step_int8, total_i32, vreinterpretq_f32_s8(vdupq_n_s8(1)), n);
}

void du_kern_fill_probe_neon(du_kern *k) {
    k->probe[DU_PROBE_INT8] = probe_int8;
    k->probe[DU_PROBE_F32] = probe_f32;
    k->read_sum = read_sum;
}
