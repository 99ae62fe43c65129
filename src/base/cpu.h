/* What this processor can do, and the levels of kernels that follow from it. */
#ifndef DU_BASE_CPU_H
#define DU_BASE_CPU_H

#include <stdbool.h>
#include <stdint.h>

/* Kernel levels, each complete by itself; a higher one of the same machine is faster.
 *   c       portable C
 *   avx2    AVX2 + FMA + F16C
 *   avx512  AVX-512 F, BW, DQ, VL, VNNI on top of avx2 (BF16 used where present)
 *   neon    AArch64 Advanced SIMD (dot product used where present) */
#define DU_ISA_LIST(X)                                                                             \
    X(DU_ISA_C, "c")                                                                               \
    X(DU_ISA_AVX2, "avx2")                                                                         \
    X(DU_ISA_AVX512, "avx512")                                                                     \
    X(DU_ISA_NEON, "neon")

#define DU_ISA_ENUM(code, name) code,
typedef enum { DU_ISA_LIST(DU_ISA_ENUM) DU_ISA_COUNT } du_isa;
#undef DU_ISA_ENUM

typedef struct {
    bool avx2, avx512, avx_vnni, avx512_bf16, amx_int8, amx_bf16; /* x86-64 */
    bool neon, dotprod;                                           /* AArch64 */
} du_cpu_features;

/* Read once from CPUID and XGETBV (or the auxiliary vector); thread-safe. */
const du_cpu_features *du_cpu_get_features(void);

const char *du_isa_name(du_isa isa);
bool du_isa_find(du_isa *out, const char *name); /* false: no such level */
bool du_isa_available(du_isa isa);               /* on this machine */
du_isa du_isa_best(void);

/* Physical cores this process may use: of those it was allowed to run on at the first call
 * (hyper-threads count once) at most as many as the processor time that its control groups grant it
 * would keep busy. At least 1. */
int64_t du_cpu_n_cores(void);

/* The processor that thread i of n should run on: one of each core first, then the other
 * hyper-threads, then from the beginning. */
int du_cpu_of_thread(int64_t index);

/* Memory this process could take now without swapping, in bytes, at least 1: MemAvailable, what its
 * control groups leave it and what is left of its address space (ulimit -v) beside 64 MiB for
 * stacks; 0 when the kernel does not say. */
int64_t du_mem_available_bytes(void);

#endif
