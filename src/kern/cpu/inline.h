/* Kernels are functions of compile-time constants: inlined without fail, their short loops over
 * registers unrolled whole (arrays then live in registers). UNROLL_4: a long loop by four. */
#ifndef DU_KERN_CPU_INLINE_H
#define DU_KERN_CPU_INLINE_H

#define INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define UNROLL   _Pragma("clang loop unroll(full)")
#define UNROLL_4 _Pragma("clang loop unroll_count(4)")
#else
#define UNROLL   _Pragma("GCC unroll 16")
#define UNROLL_4 _Pragma("GCC unroll 4")
#endif

#endif
