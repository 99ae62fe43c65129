/* The probes, written once in the vectors of a level (simd_<isa>.h is included before). */
#ifndef DU_KERN_CPU_PROBE_SIMD_H
#define DU_KERN_CPU_PROBE_SIMD_H

#include <string.h>

#include "kern/cpu/fill.h"

/* The compiler forgets what it knows of a register, so that no product is computed only once. */
#if defined(__aarch64__)
#define FORGET(v) __asm__ volatile("" : "+w"(v))
#else
#define FORGET(v) __asm__ volatile("" : "+v"(v))
#endif

/* sums + products of ones, which has the bits of the instruction's own type, with themselves; and
 * the sum over the lanes of such sums. */
typedef vf probe_step(vf sums, vf ones);
typedef double probe_total(vf sums);

/* n rounds of PROBE_N steps, none of which waits for another. */
INLINE double probe(probe_step *step, probe_total *total, vf ones, int64_t n) {
    vf acc[PROBE_N];
    UNROLL
    for (int k = 0; k < PROBE_N; k++) {
        acc[k] = vf_set1(0);
    }
    for (int64_t i = 0; i < n; i++) {
        UNROLL
        for (int k = 0; k < PROBE_N; k++) {
            FORGET(ones);
            acc[k] = step(acc[k], ones);
            FORGET(acc[k]);
        }
    }
    double sum = 0;
    UNROLL
    for (int k = 0; k < PROBE_N; k++) {
        sum += total(acc[k]);
    }
    return sum;
}

INLINE double total_i32(vf sums) {
    int32_t lanes[VF];
    double sum = 0;
    memcpy(lanes, &sums, sizeof sums);
    for (int i = 0; i < VF; i++) {
        sum += lanes[i];
    }
    return sum;
}
INLINE double total_f32(vf sums) {
    return (double)vf_sum(sums);
}

INLINE vf step_f32(vf sums, vf ones) {
    return vf_fma(ones, ones, sums);
}

static inline double probe_f32(int64_t n) {
    return probe(step_f32, total_f32, vf_set1(1), n);
}

static inline uint64_t read_sum(const void *p, int64_t n) {
    enum { BYTES = 4 * VF, N_ACC = 256 / BYTES };
    const char *bytes = p;
    vf acc[N_ACC];
    UNROLL
    for (int k = 0; k < N_ACC; k++) {
        acc[k] = vf_set1(0);
    }
    for (int64_t i = 0; i < n; i += 256) {
        UNROLL
        for (int k = 0; k < N_ACC; k++) {
            if (k * BYTES % 64 == 0) {
                __builtin_prefetch(bytes + i + 1024 + k * BYTES);
            }
            acc[k] = vf_add_u64(acc[k], vf_load(bytes + i + k * BYTES));
        }
    }
    uint64_t sum = 0, words[256 / 8];
    memcpy(words, acc, sizeof words);
    for (int k = 0; k < 256 / 8; k++) {
        sum += words[k];
    }
    return sum;
}

#endif
