/* The probes, plain C. */
#include <string.h>

#include "kern/cpu/fill.h"

/* Loops as the plain kernels have them, over ones that stay in the first-level cache. */
enum { N_ONES = 1024 };

static double int8(int64_t n) {
    int8_t a[N_ONES], b[N_ONES];
    memset(a, 1, sizeof a);
    memset(b, 1, sizeof b);
    double total = 0;
    for (int64_t i = 0; i < n; i++) {
        __asm__ volatile("" : : "r"(a), "r"(b) : "memory"); /* they might have changed */
        int32_t sum = 0;
        for (int k = 0; k < N_ONES; k++) {
            sum += a[k] * b[k];
        }
        total += sum;
    }
    return total;
}

static double f32(int64_t n) {
    float a[N_ONES], b[N_ONES];
    for (int k = 0; k < N_ONES; k++) {
        a[k] = b[k] = 1;
    }
    double total = 0;
    for (int64_t i = 0; i < n; i++) {
        __asm__ volatile("" : : "r"(a), "r"(b) : "memory");
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int k = 0; k < N_ONES; k++) {
            sum += a[k] * b[k];
        }
        total += sum;
    }
    return total;
}

static uint64_t read_sum(const void *p, int64_t n) {
    const char *bytes = p;
    uint64_t sum = 0;
    for (int64_t i = 0; i < n; i += 64) {
        uint64_t w[8];
        __builtin_prefetch(bytes + i + 1024);
        memcpy(w, bytes + i, sizeof w);
        sum += w[0] + w[1] + w[2] + w[3] + w[4] + w[5] + w[6] + w[7];
    }
    return sum;
}

void du_kern_fill_probe_c(du_kern *k) {
    k->probe[DU_PROBE_INT8] = int8;
    k->probe[DU_PROBE_F32] = f32;
    k->read_sum = read_sum;
}
