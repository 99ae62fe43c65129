/* The probes on Advanced SIMD. */
#include "kern/cpu/fill.h"
#include "kern/cpu/simd_neon.h"

/* The compiler forgets what it knows of a register, so that no product is computed only once. */
#define FORGET(v) __asm__ volatile("" : "+w"(v))

enum { N_ACC = 16 };

/* What a product of bytes takes without the dot-product instructions. */
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
            FORGET(a);
            int16x8_t v = vmull_s8(vget_low_s8(a), vget_low_s8(a));
            acc[k] = vpadalq_s16(acc[k], vmlal_high_s8(v, a, a));
        }
    }
    double total = 0;
    UNROLL
    for (int k = 0; k < N_ACC; k++) {
        total += vaddvq_s32(acc[k]);
    }
    return total;
}

static double f32(int64_t n) {
    vf acc[N_ACC], a = vf_set1(1);
    UNROLL
    for (int k = 0; k < N_ACC; k++) {
        acc[k] = vf_set1(0);
    }
    for (int64_t i = 0; i < n; i++) {
        UNROLL
        for (int k = 0; k < N_ACC; k++) {
            acc[k] = vf_fma(a, a, acc[k]);
            FORGET(acc[k]);
        }
    }
    double total = 0;
    UNROLL
    for (int k = 0; k < N_ACC; k++) {
        total += (double)vf_sum(acc[k]);
    }
    return total;
}

static uint64_t read_sum(const void *p, int64_t n) {
    const uint8_t *bytes = p;
    uint64x2_t acc[16];
    UNROLL
    for (int k = 0; k < 16; k++) {
        acc[k] = vdupq_n_u64(0);
    }
    for (int64_t i = 0; i < n; i += 256) {
        UNROLL
        for (int k = 0; k < 16; k++) {
            if (k % 4 == 0) {
                __builtin_prefetch(bytes + i + 1024 + 16 * k);
            }
            acc[k] = vaddq_u64(acc[k], vreinterpretq_u64_u8(vld1q_u8(bytes + i + 16 * k)));
        }
    }
    uint64_t sum = 0;
    UNROLL
    for (int k = 0; k < 16; k++) {
        sum += vaddvq_u64(acc[k]);
    }
    return sum;
}

void du_kern_fill_probe_neon(du_kern *k) {
    k->probe[DU_PROBE_INT8] = int8;
    k->probe[DU_PROBE_F32] = f32;
    k->read_sum = read_sum;
}
