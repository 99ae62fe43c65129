/* A layer with latent attention. */
#ifndef DU_MODEL_ARCH_DEEPSEEK2_H
#define DU_MODEL_ARCH_DEEPSEEK2_H

#include "model/model.h"

typedef struct {
    du_block block;
    du_mat q;                  /* [H*(nope+P), D]; or factored: */
    du_mat q_a, q_b;           /* [Rq, D], [H*(nope+P), Rq] */
    const float *q_a_norm;     /* [Rq] */
    du_mat kv_a;               /* [R+P, D] */
    const float *kv_a_norm;    /* [R] */
    du_mat kv_b;               /* [H*(nope+v), R] as stored, or absent */
    du_mat *k_heads, *v_heads; /* [H] of K_h^T [R, nope], [H] of V_h [v, R] */
    du_mat attn_out;           /* [D, H*v] */
} du_deepseek2_layer;

extern const struct du_arch_train du_deepseek2_train;

#endif
