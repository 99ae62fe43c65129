#include "kern/kern.h"

#include <pthread.h>

#include "kern/cpu/fill.h"

static du_kern tables[DU_ISA_COUNT];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void fill_c(du_kern *k) {
    k->isa = DU_ISA_C;
    du_kern_fill_mm_float_c(k);
    du_kern_fill_mm_block_c(k);
    du_kern_fill_attn_c(k);
    du_kern_fill_vec_c(k);
    du_kern_fill_strips_c(k);
    du_kern_fill_probe_c(k);
    du_kern_fill_gemm_c(k);
    du_kern_fill_gemm_bf16_c(k);
}

#if defined(__x86_64__)
static void fill_avx2(du_kern *k) {
    *k = tables[DU_ISA_C];
    k->isa = DU_ISA_AVX2;
    du_kern_fill_mm_float_avx2(k);
    du_kern_fill_mm_block_avx2(k);
    du_kern_fill_attn_avx2(k);
    du_kern_fill_vec_avx2(k);
    du_kern_fill_strips_avx2(k);
    du_kern_fill_mm_strips_avx2(k);
    du_kern_fill_probe_avx2(k);
    du_kern_fill_gemm_avx2(k);
}

static void fill_avx512(du_kern *k) {
    *k = tables[DU_ISA_AVX2];
    k->isa = DU_ISA_AVX512;
    du_kern_fill_mm_float_avx512(k);
    du_kern_fill_attn_avx512(k);
    du_kern_fill_vec_avx512(k);
    du_kern_fill_probe_avx512(k);
    du_kern_fill_gemm_avx512(k);
    du_kern_fill_mm_block_avx512(k);
    du_kern_fill_mm_strips_avx512(k);
    if (du_cpu_get_features()->avx512_bf16) {
        du_kern_fill_attn_tiles_bf16_avx512(k);
        if (du_cpu_get_features()->amx_bf16) {
            du_kern_fill_attn_tiles_amx_avx512(k);
            du_kern_fill_mm_strips_amx_avx512(k);
            du_kern_fill_gemm_amx_avx512(k);
        } else {
            /* Where there is AMX, processors do a VDPBF16PS in the time of two multiply-adds in
             * F32: docs/KERNELS.md. */
            du_kern_fill_gemm_bf16_avx512(k);
        }
    }
}
#endif

#if defined(__aarch64__)
static void fill_neon(du_kern *k) {
    *k = tables[DU_ISA_C];
    k->isa = DU_ISA_NEON;
    du_kern_fill_mm_float_neon(k);
    du_kern_fill_attn_neon(k);
    du_kern_fill_vec_neon(k);
    du_kern_fill_probe_neon(k);
    du_kern_fill_gemm_neon(k);
    if (du_cpu_get_features()->dotprod) {
        du_kern_fill_mm_block_dot_neon(k);
        du_kern_fill_probe_dot_neon(k);
    } else {
        du_kern_fill_mm_block_neon(k);
    }
}
#endif

/* The functions that fill a level's table are compiled for that level themselves. */
static void fill_tables(void) {
    fill_c(&tables[DU_ISA_C]);
#if defined(__x86_64__)
    if (du_isa_available(DU_ISA_AVX2)) {
        fill_avx2(&tables[DU_ISA_AVX2]);
    }
    if (du_isa_available(DU_ISA_AVX512)) {
        fill_avx512(&tables[DU_ISA_AVX512]);
    }
#endif
#if defined(__aarch64__)
    fill_neon(&tables[DU_ISA_NEON]);
#endif
}

const du_kern *du_kern_get(du_isa isa) {
    pthread_once(&tables_once, fill_tables);
    return du_isa_available(isa) && tables[isa].mm[0] ? &tables[isa] : NULL;
}
