/* A layer of the decoders with grouped-query attention. */
#ifndef DU_MODEL_ARCH_LLAMA_H
#define DU_MODEL_ARCH_LLAMA_H

#include "model/model.h"

typedef struct {
    du_block block;
    du_mat q, k, v;                        /* [H*Dh, D], [G*Dh, D], [G*Dh, D] */
    const float *q_bias, *k_bias, *v_bias; /* or NULL */
    const float *q_norm, *k_norm;          /* [Dh] or NULL */
    du_mat attn_out;                       /* [D, H*Dh] */
} du_llama_layer;

extern const struct du_arch_train du_llama_train;

#endif
