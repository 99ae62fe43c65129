/* The probes on AVX2. */
#include "kern/cpu/fill.h"
#include "kern/cpu/simd_avx2.h"

/* The compiler forgets what it knows of a register, so that no product is computed only once. */
#define FORGET(v) __asm__ volatile("" : "+x"(v))

enum { N_ACC = 10 };

/* The three instructions that a product of bytes takes without VNNI. */
static double int8(int64_t n) {
    __m256i acc[N_ACC], a = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
    UNROLL
    for (int k = 0; k < N_ACC; k++) {
        acc[k] = _mm256_setzero_si256();
    }
    for (int64_t i = 0; i < n; i++) {
        UNROLL
        for (int k = 0; k < N_ACC; k++) {
            FORGET(a);
            acc[k] = _mm256_add_epi32(acc[k], _mm256_madd_epi16(_mm256_maddubs_epi16(a, a), ones));
        }
    }
    double total = 0;
    UNROLL
    for (int k = 0; k < N_ACC; k++) {
        int32_t lanes[8];
        _mm256_storeu_si256((__m256i *)lanes, acc[k]);
        for (int i = 0; i < 8; i++) {
            total += lanes[i];
        }
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
    const char *bytes = p;
    __m256i acc[8];
    UNROLL
    for (int k = 0; k < 8; k++) {
        acc[k] = _mm256_setzero_si256();
    }
    for (int64_t i = 0; i < n; i += 256) {
        UNROLL
        for (int k = 0; k < 8; k++) {
            if (k % 2 == 0) {
                _mm_prefetch(bytes + i + 1024 + 32 * k, _MM_HINT_T0);
            }
            __m256i v = _mm256_loadu_si256((const __m256i *)(bytes + i + 32 * k));
            acc[k] = _mm256_add_epi64(acc[k], v);
        }
    }
    uint64_t sum = 0, lanes[4];
    UNROLL
    for (int k = 0; k < 8; k++) {
        _mm256_storeu_si256((__m256i *)lanes, acc[k]);
        sum += lanes[0] + lanes[1] + lanes[2] + lanes[3];
    }
    return sum;
}

void du_kern_fill_probe_avx2(du_kern *k) {
    k->probe[DU_PROBE_INT8] = int8;
    k->probe[DU_PROBE_F32] = f32;
    k->read_sum = read_sum;
}
