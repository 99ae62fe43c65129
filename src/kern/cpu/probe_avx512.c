/* The probes on AVX-512, with BF16 and AMX where the machine has them. */
#include <string.h>

#include "kern/cpu/amx_tiles.h"
#include "kern/cpu/fill.h"
#include "kern/cpu/simd_avx512.h"

/* The compiler forgets what it knows of a register, so that no product is computed only once. */
#define FORGET(v) __asm__ volatile("" : "+v"(v))

enum { N_ACC = 16 };

static double int8(int64_t n) {
    __m512i acc[N_ACC], a = _mm512_set1_epi8(1);
    UNROLL
    for (int k = 0; k < N_ACC; k++) {
        acc[k] = _mm512_setzero_si512();
    }
    for (int64_t i = 0; i < n; i++) {
        UNROLL
        for (int k = 0; k < N_ACC; k++) {
            acc[k] = _mm512_dpbusd_epi32(acc[k], a, a);
            FORGET(acc[k]);
        }
    }
    double total = 0;
    UNROLL
    for (int k = 0; k < N_ACC; k++) {
        total += _mm512_reduce_add_epi32(acc[k]);
    }
    return total;
}

__attribute__((target("avx512bf16"))) static double bf16(int64_t n) {
    vf acc[N_ACC];
    __m512i ones = _mm512_set1_epi16(0x3f80);
    UNROLL
    for (int k = 0; k < N_ACC; k++) {
        acc[k] = _mm512_setzero_ps();
    }
    for (int64_t i = 0; i < n; i++) {
        UNROLL
        for (int k = 0; k < N_ACC; k++) {
            acc[k] = _mm512_dpbf16_ps(acc[k], (__m512bh)ones, (__m512bh)ones);
            FORGET(acc[k]);
        }
    }
    double total = 0;
    UNROLL
    for (int k = 0; k < N_ACC; k++) {
        total += (double)_mm512_reduce_add_ps(acc[k]);
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

#define AMX __attribute__((target("amx-tile,amx-int8,amx-bf16")))

/* Four tiles of sums, two of each factor. */
AMX static void tiles_start(const void *ones) {
    _tile_loadconfig(&amx_tiles);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, ones, 64);
    _tile_loadd(5, ones, 64);
    _tile_loadd(6, ones, 64);
    _tile_loadd(7, ones, 64);
}

AMX static void tiles_end(void *sums) {
    char *at = sums;
    _tile_stored(0, at, 64);
    _tile_stored(1, at + 1024, 64);
    _tile_stored(2, at + 2048, 64);
    _tile_stored(3, at + 3072, 64);
    _tile_release();
}

AMX static double amx_int8(int64_t n) {
    int8_t ones[1024];
    int32_t sums[1024];
    memset(ones, 1, sizeof ones);
    tiles_start(ones);
    for (int64_t i = 0; i < n; i++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    tiles_end(sums);
    double total = 0;
    for (int i = 0; i < 1024; i++) {
        total += sums[i];
    }
    return total;
}

AMX static double amx_bf16(int64_t n) {
    uint16_t ones[512];
    float sums[1024];
    for (int i = 0; i < 512; i++) {
        ones[i] = 0x3f80;
    }
    tiles_start(ones);
    for (int64_t i = 0; i < n; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    tiles_end(sums);
    double total = 0;
    for (int i = 0; i < 1024; i++) {
        total += (double)sums[i];
    }
    return total;
}

static uint64_t read_sum(const void *p, int64_t n) {
    const char *bytes = p;
    __m512i acc[4];
    UNROLL
    for (int k = 0; k < 4; k++) {
        acc[k] = _mm512_setzero_si512();
    }
    for (int64_t i = 0; i < n; i += 256) {
        UNROLL
        for (int k = 0; k < 4; k++) {
            _mm_prefetch(bytes + i + 1024 + 64 * k, _MM_HINT_T0);
            acc[k] = _mm512_add_epi64(acc[k], _mm512_loadu_si512(bytes + i + 64 * k));
        }
    }
    __m512i half0 = _mm512_add_epi64(acc[0], acc[1]), half1 = _mm512_add_epi64(acc[2], acc[3]);
    uint64_t lanes[8], sum = 0;
    _mm512_storeu_si512(lanes, _mm512_add_epi64(half0, half1));
    for (int k = 0; k < 8; k++) {
        sum += lanes[k];
    }
    return sum;
}

void du_kern_fill_probe_avx512(du_kern *k) {
    const du_cpu_features *f = du_cpu_get_features();
    k->probe[DU_PROBE_INT8] = int8;
    k->probe[DU_PROBE_BF16] = f->avx512_bf16 ? bf16 : NULL;
    k->probe[DU_PROBE_F32] = f32;
    k->probe[DU_PROBE_AMX_INT8] = f->amx_int8 ? amx_int8 : NULL;
    k->probe[DU_PROBE_AMX_BF16] = f->amx_bf16 ? amx_bf16 : NULL;
    k->read_sum = read_sum;
}
