/* The probes on AVX-512, with BF16 and AMX where the machine has them. */
#include "kern/cpu/simd_avx512.h"

#include "kern/cpu/amx_tiles.h"
#include "kern/cpu/probe_simd.h"

INLINE vf step_int8(vf sums, vf ones) {
    __m512i a = _mm512_castps_si512(ones);
    return _mm512_castsi512_ps(_mm512_dpbusd_epi32(_mm512_castps_si512(sums), a, a));
}

static double probe_int8(int64_t n) {
    return probe(step_int8, total_i32, _mm512_castsi512_ps(_mm512_set1_epi8(1)), n);
}

#define BF16 __attribute__((target("avx512bf16")))

BF16 INLINE vf step_bf16(vf sums, vf ones) {
    return _mm512_dpbf16_ps(sums, (__m512bh)ones, (__m512bh)ones);
}

BF16 static double probe_bf16(int64_t n) {
    return probe(step_bf16, total_f32, _mm512_castsi512_ps(_mm512_set1_epi16(0x3f80)), n);
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

AMX static double probe_amx_int8(int64_t n) {
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

AMX static double probe_amx_bf16(int64_t n) {
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

void du_kern_fill_probe_avx512(du_kern *k) {
    const du_cpu_features *f = du_cpu_get_features();
    k->probe[DU_PROBE_INT8] = probe_int8;
    k->probe[DU_PROBE_BF16] = f->avx512_bf16 ? probe_bf16 : NULL;
    k->probe[DU_PROBE_F32] = probe_f32;
    k->probe[DU_PROBE_AMX_INT8] = f->amx_int8 ? probe_amx_int8 : NULL;
    k->probe[DU_PROBE_AMX_BF16] = f->amx_bf16 ? probe_amx_bf16 : NULL;
    k->read_sum = read_sum;
}
