#include "kern/cpu/simd_avx512.h"

#include "kern/cpu/attn_simd.h"

/* As du_bf16_of_f32. */
static void store_bf16(void *kv, const float *x, int64_t dim) {
    const __m512i half = _mm512_set1_epi32(0x7fff), one = _mm512_set1_epi32(1);
    for (int64_t i = 0; i < dim; i += 16) {
        __mmask16 some = (__mmask16)(dim - i < 16 ? (1u << (dim - i)) - 1 : 0xffff);
        __m512 v = _mm512_maskz_loadu_ps(some, x + i);
        __m512i bits = _mm512_castps_si512(v), upper = _mm512_srli_epi32(bits, 16);
        __m512i odd = _mm512_and_si512(upper, one);
        __m512i h = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(half, odd)), 16);
        h = _mm512_mask_or_epi32(h, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), upper,
                                 _mm512_set1_epi32(0x40));
        _mm256_mask_storeu_epi16((uint16_t *)kv + i, some, _mm512_cvtepi32_epi16(h));
    }
}

void du_kern_fill_attn_avx512(du_kern *k) {
    fill_attn(k);
    k->kv_store[DU_BF16] = store_bf16;
}
