/* Kernels are functions of compile-time constants: inlined without fail, their short loops over
 * registers unrolled whole (arrays then live in registers). */
#ifndef DU_KERN_CPU_INLINE_H
#define DU_KERN_CPU_INLINE_H

#define INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#endif
