/* Number types of weights: one list, and per type its block layout.
 *
 * A row of n weights is stored as n / block blocks of block_bytes bytes; n is a multiple of block.
 * The ids are those of GGUF files (ggml's numbering); F8_E4M3 exists only in safetensors files.
 *
 * Adding a type: a line here, its block in tensor/quant.h, tensor/quant_<name>.c with
 * du_unpack_<name> (and du_pack_<name>), its product kernel in kern/, and its reference blocks in
 * tools/ref/make_quants.py; the tests walk the list. */
#ifndef DU_TENSOR_DTYPE_H
#define DU_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* X(suffix, function name part, GGUF id or -1, weights per block, bytes per block) */
#define DU_DTYPE_LIST(X)                                                                           \
    X(F32, f32, 0, 1, 4)                                                                           \
    X(F16, f16, 1, 1, 2)                                                                           \
    X(BF16, bf16, 30, 1, 2)                                                                        \
    X(F8_E4M3, f8_e4m3, -1, 1, 1)                                                                  \
    X(Q4_0, q4_0, 2, 32, 18)                                                                       \
    X(Q4_1, q4_1, 3, 32, 20)                                                                       \
    X(Q5_0, q5_0, 6, 32, 22)                                                                       \
    X(Q5_1, q5_1, 7, 32, 24)                                                                       \
    X(Q8_0, q8_0, 8, 32, 34)                                                                       \
    X(Q2_K, q2_k, 10, 256, 84)                                                                     \
    X(Q3_K, q3_k, 11, 256, 110)                                                                    \
    X(Q4_K, q4_k, 12, 256, 144)                                                                    \
    X(Q5_K, q5_k, 13, 256, 176)                                                                    \
    X(Q6_K, q6_k, 14, 256, 210)                                                                    \
    X(IQ4_NL, iq4_nl, 20, 32, 18)                                                                  \
    X(IQ4_XS, iq4_xs, 23, 256, 136)                                                                \
    X(IQ1_S, iq1_s, 19, 256, 50)                                                                   \
    X(IQ1_M, iq1_m, 29, 256, 56)                                                                   \
    X(IQ2_XXS, iq2_xxs, 16, 256, 66)                                                               \
    X(IQ2_XS, iq2_xs, 17, 256, 74)                                                                 \
    X(IQ2_S, iq2_s, 22, 256, 82)                                                                   \
    X(IQ3_XXS, iq3_xxs, 18, 256, 98)                                                               \
    X(IQ3_S, iq3_s, 21, 256, 110)                                                                  \
    X(MXFP4, mxfp4, 39, 32, 17)

/* The types that dure writes: X(suffix, function name part) */
#define DU_DTYPE_PACK_LIST(X)                                                                      \
    X(F32, f32)                                                                                    \
    X(F16, f16)                                                                                    \
    X(BF16, bf16)                                                                                  \
    X(F8_E4M3, f8_e4m3)                                                                            \
    X(Q4_0, q4_0)                                                                                  \
    X(Q4_1, q4_1)                                                                                  \
    X(Q5_0, q5_0)                                                                                  \
    X(Q5_1, q5_1)                                                                                  \
    X(Q8_0, q8_0)                                                                                  \
    X(Q2_K, q2_k)                                                                                  \
    X(Q3_K, q3_k)                                                                                  \
    X(Q4_K, q4_k)                                                                                  \
    X(Q5_K, q5_k)                                                                                  \
    X(Q6_K, q6_k)                                                                                  \
    X(IQ4_NL, iq4_nl)                                                                              \
    X(IQ4_XS, iq4_xs)

#define DU_DTYPE_ENUM(suffix, name, id, block, bytes) DU_##suffix,
typedef enum { DU_DTYPE_LIST(DU_DTYPE_ENUM) DU_DTYPE_COUNT } du_dtype;
#undef DU_DTYPE_ENUM

/* y [n] f32 out  <-  x: n weights of the type; n a multiple of its block. */
typedef void du_unpack_fn(float *y, const void *x, int64_t n);

/* x: n weights of the type out  <-  y [n] f32; n a multiple of its block.
 *
 * Floats are rounded to the nearest, ties to even; F16 and F8_E4M3 write a finite value beyond
 * their range as their largest.
 *
 * Block types search for the scales that make sum_i importance[i] * (y[i] - back[i])^2 least. Their
 * scales are always finite: a NaN is written as if it were 0, what lies beyond the range of the
 * scales as the largest value. The bytes do not depend on compiler or processor.
 *
 * importance [n] f32 is what an importance matrix says of the columns; negative and NaN count as 0.
 * Where it is NULL, or without a positive value in a block, the packer takes its own (quant_fit.c).
 */
typedef void du_pack_fn(void *x, const float *y, int64_t n, const float *importance);

typedef struct {
    const char *name; /* "Q4_K" */
    int32_t gguf_id;  /* -1: not in GGUF files */
    int64_t block;    /* weights per block */
    size_t block_bytes;
    du_unpack_fn *unpack; /* never NULL */
    du_pack_fn *pack;     /* NULL: dure reads the type and does not write it */
} du_dtype_info;

/* Properties of a type; dtype is valid. Static storage. */
const du_dtype_info *du_dtype_get(du_dtype dtype);

/* By GGUF id, and by name without regard to case; false when unknown. */
bool du_dtype_of_gguf(du_dtype *out, uint32_t gguf_id);
bool du_dtype_find(du_dtype *out, const char *name);

/* True for the types stored in blocks with shared scales (everything below F8_E4M3 in the list). */
static inline bool du_dtype_is_block(du_dtype dtype) {
    return dtype > DU_F8_E4M3;
}

/* The type to write for rows of n weights where `dtype` is wanted: itself when its block divides n,
 * else the type of 32-weight blocks that llama.cpp's quantiser takes, else F16. */
du_dtype du_dtype_fallback(du_dtype dtype, int64_t n);

/* Bytes of a row of n weights; n a multiple of the block. */
static inline size_t du_dtype_row_bytes(du_dtype dtype, int64_t n) {
    const du_dtype_info *info = du_dtype_get(dtype);
    return (size_t)(n / info->block) * info->block_bytes;
}

#define DU_DTYPE_DECLARE(suffix, name, id, block, bytes)                                           \
    void du_unpack_##name(float *y, const void *x, int64_t n);
DU_DTYPE_LIST(DU_DTYPE_DECLARE)
#undef DU_DTYPE_DECLARE

#define DU_DTYPE_DECLARE(suffix, name)                                                             \
    void du_pack_##name(void *x, const float *y, int64_t n, const float *importance);
DU_DTYPE_PACK_LIST(DU_DTYPE_DECLARE)
#undef DU_DTYPE_DECLARE

#endif
