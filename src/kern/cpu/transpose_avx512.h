/* A transposition within registers. */
#ifndef DU_KERN_CPU_TRANSPOSE_AVX512_H
#define DU_KERN_CPU_TRANSPOSE_AVX512_H

#include <immintrin.h>

#include "kern/cpu/inline.h"

/* x[i] lane j <-> x[j] lane i, lanes of 32 bits */
INLINE void transpose_16(__m512i x[16]) {
    __m512i y[16];
    UNROLL
    for (int i = 0; i < 16; i += 4) {
        __m512i a = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        __m512i b = _mm512_unpackhi_epi32(x[i], x[i + 1]);
        __m512i c = _mm512_unpacklo_epi32(x[i + 2], x[i + 3]);
        __m512i d = _mm512_unpackhi_epi32(x[i + 2], x[i + 3]);
        y[i] = _mm512_unpacklo_epi64(a, c);
        y[i + 1] = _mm512_unpackhi_epi64(a, c);
        y[i + 2] = _mm512_unpacklo_epi64(b, d);
        y[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    /* y[4m + k]: quarter n holds column 4n + k of rows 4m .. 4m + 3 */
    UNROLL
    for (int k = 0; k < 4; k++) {
        __m512i a = _mm512_shuffle_i32x4(y[k], y[4 + k], 0x88);
        __m512i b = _mm512_shuffle_i32x4(y[8 + k], y[12 + k], 0x88);
        __m512i c = _mm512_shuffle_i32x4(y[k], y[4 + k], 0xdd);
        __m512i d = _mm512_shuffle_i32x4(y[8 + k], y[12 + k], 0xdd);
        x[k] = _mm512_shuffle_i32x4(a, b, 0x88);
        x[4 + k] = _mm512_shuffle_i32x4(c, d, 0x88);
        x[8 + k] = _mm512_shuffle_i32x4(a, b, 0xdd);
        x[12 + k] = _mm512_shuffle_i32x4(c, d, 0xdd);
    }
}

#endif
