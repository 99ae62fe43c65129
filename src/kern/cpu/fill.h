/* What each kernel file puts into the table: a level is the plain C entries, then those of every
 * lower level of the machine, then its own. */
#ifndef DU_KERN_CPU_FILL_H
#define DU_KERN_CPU_FILL_H

#include "kern/kern.h"

/* A group whose largest magnitude is below this counts as zeros: 127 / max must be finite. */
#define DU_QUANTIZE_MIN 0x1p-100f

void du_kern_fill_mm_float_c(du_kern *k);
void du_kern_fill_mm_block_c(du_kern *k);
void du_kern_fill_attn_c(du_kern *k);
void du_kern_fill_vec_c(du_kern *k);
void du_kern_fill_strips_c(du_kern *k);
void du_kern_fill_probe_c(du_kern *k);
void du_kern_fill_gemm_c(du_kern *k);
void du_kern_fill_gemm_bf16_c(du_kern *k);

#if defined(__x86_64__)
void du_kern_fill_mm_float_avx2(du_kern *k);
void du_kern_fill_mm_block_avx2(du_kern *k);
void du_kern_fill_mm_strips_avx2(du_kern *k);
void du_kern_fill_attn_avx2(du_kern *k);
void du_kern_fill_vec_avx2(du_kern *k);
void du_kern_fill_strips_avx2(du_kern *k);
void du_kern_fill_probe_avx2(du_kern *k);
void du_kern_fill_gemm_avx2(du_kern *k);

void du_kern_fill_mm_float_avx512(du_kern *k);
void du_kern_fill_mm_block_avx512(du_kern *k);
void du_kern_fill_mm_strips_avx512(du_kern *k);
void du_kern_fill_mm_strips_amx_avx512(du_kern *k); /* needs du_cpu_features.amx_bf16 */
void du_kern_fill_attn_avx512(du_kern *k);
void du_kern_fill_attn_tiles_bf16_avx512(du_kern *k); /* needs du_cpu_features.avx512_bf16 */
void du_kern_fill_attn_tiles_amx_avx512(du_kern *k);  /* on top of it; needs amx_bf16 */
void du_kern_fill_vec_avx512(du_kern *k);
void du_kern_fill_probe_avx512(du_kern *k);
void du_kern_fill_gemm_avx512(du_kern *k);
void du_kern_fill_gemm_bf16_avx512(du_kern *k); /* needs du_cpu_features.avx512_bf16 */
void du_kern_fill_gemm_amx_avx512(du_kern *k);  /* needs avx512_bf16 and amx_bf16 */
#endif

#if defined(__aarch64__)
void du_kern_fill_mm_float_neon(du_kern *k);
void du_kern_fill_mm_block_neon(du_kern *k);
void du_kern_fill_mm_block_dot_neon(du_kern *k); /* needs du_cpu_features.dotprod */
void du_kern_fill_attn_neon(du_kern *k);
void du_kern_fill_vec_neon(du_kern *k);
void du_kern_fill_probe_neon(du_kern *k);
void du_kern_fill_gemm_neon(du_kern *k);
void du_kern_fill_probe_dot_neon(du_kern *k);
#endif

#endif
