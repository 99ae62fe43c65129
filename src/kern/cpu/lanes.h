/* Sums of products in eight fixed partial sums (column c goes to lane c % 8), so that a result
 * depends neither on what the compiler vectorises nor on addresses. */
#ifndef DU_KERN_CPU_LANES_H
#define DU_KERN_CPU_LANES_H

#include <stdint.h>

enum { DU_LANES = 8 };

/* acc[c % 8] += a[c] * b[c] */
static inline void du_lanes_add_dot(float acc[DU_LANES], const float *a, const float *b,
                                    int64_t n) {
    int64_t c = 0;
    for (; c + DU_LANES <= n; c += DU_LANES) {
        for (int l = 0; l < DU_LANES; l++) {
            acc[l] += a[c + l] * b[c + l];
        }
    }
    for (int l = 0; c + l < n; l++) {
        acc[l] += a[c + l] * b[c + l];
    }
}

static inline float du_lanes_sum(const float a[DU_LANES]) {
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}

#endif
