#include "kern/cpu/simd_avx2.h"

#include "kern/cpu/probe_simd.h"

/* The three instructions that a product of bytes takes without VNNI. */
INLINE vf step_int8(vf sums, vf ones) {
    __m256i a = _mm256_castps_si256(ones);
    __m256i v = _mm256_madd_epi16(_mm256_maddubs_epi16(a, a), _mm256_set1_epi16(1));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sums), v));
}

static double probe_int8(int64_t n) {
    return probe(step_int8, total_i32, _mm256_castsi256_ps(_mm256_set1_epi8(1)), n);
}

void du_kern_fill_probe_avx2(du_kern *k) {
    k->probe[DU_PROBE_INT8] = probe_int8;
    k->probe[DU_PROBE_F32] = probe_f32;
    k->read_sum = read_sum;
}
