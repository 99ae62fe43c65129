#include "tensor/dtype.h"

#include <strings.h>

#include "base/err.h"
#include "tensor/quant.h"

/* The list's sizes are those of the structs. */
typedef float du_block_f32;
typedef uint16_t du_block_f16;
typedef uint16_t du_block_bf16;
typedef uint8_t du_block_f8_e4m3;
#define BLOCK_SIZE_CHECK(suffix, name, id, block, bytes)                                           \
    _Static_assert(sizeof(du_block_##name) == (bytes), "size of a " #suffix " block");
DU_DTYPE_LIST(BLOCK_SIZE_CHECK)

#define SET_INFO(suffix, fn, id, n, bytes)                                                         \
    [DU_##suffix].name = #suffix, [DU_##suffix].gguf_id = id, [DU_##suffix].block = n,             \
    [DU_##suffix].block_bytes = bytes, [DU_##suffix].unpack = du_unpack_##fn,
#define SET_PACK(suffix, fn) [DU_##suffix].pack = du_pack_##fn,
static const du_dtype_info infos[DU_DTYPE_COUNT] = {DU_DTYPE_LIST(SET_INFO)
                                                        DU_DTYPE_PACK_LIST(SET_PACK)};

const du_dtype_info *du_dtype_get(du_dtype dtype) {
    DU_DCHECK((unsigned)dtype < DU_DTYPE_COUNT);
    return &infos[dtype];
}

bool du_dtype_of_gguf(du_dtype *out, uint32_t gguf_id) {
    for (int t = 0; t < DU_DTYPE_COUNT; t++) {
        if (infos[t].gguf_id >= 0 && (uint32_t)infos[t].gguf_id == gguf_id) {
            *out = (du_dtype)t;
            return true;
        }
    }
    return false;
}

bool du_dtype_find(du_dtype *out, const char *name) {
    for (int t = 0; t < DU_DTYPE_COUNT; t++) {
        if (strcasecmp(infos[t].name, name) == 0) {
            *out = (du_dtype)t;
            return true;
        }
    }
    return false;
}

du_dtype du_dtype_fallback(du_dtype dtype, int64_t n) {
    if (n % infos[dtype].block == 0) {
        return dtype;
    }
    du_dtype next;
    switch (dtype) {
    case DU_Q6_K:
        next = DU_Q8_0;
        break;
    case DU_Q5_K:
        next = DU_Q5_1;
        break;
    case DU_Q4_K:
        next = DU_Q5_0;
        break;
    case DU_Q2_K:
    case DU_Q3_K:
        next = DU_Q4_0;
        break;
    default:
        next = DU_IQ4_NL;
    }
    return n % infos[next].block == 0 ? next : DU_F16;
}
