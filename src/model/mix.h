/* Quantisation mixes: which number type each weight gets, by its role and layer. */
#ifndef DU_MODEL_MIX_H
#define DU_MODEL_MIX_H

#include "model/convert.h"

/* A named recipe. Names, and the roles that get more bits, follow what users know from GGUF files:
 * the output matrix, the value side of attention and the down projections of the first and last
 * eighth of layers and of every third between ("more") suffer most from rounding. What makes the
 * latent cache rows (kv_a, k_b, v_b) is small and read by every later token: 8 bits always. */
typedef struct {
    const char *name;
    uint32_t file_type; /* general.file_type of GGUF */
    du_dtype base, embed, output;
    du_dtype attn_v, attn_v_more, attn_out;
    du_dtype down, down_more;
} du_mix;

/* NULL when unknown; names are compared without regard to case. */
const du_mix *du_mix_find(const char *name);
const du_mix *du_mix_at(int64_t i); /* NULL beyond the last */

/* The type of a tensor under a mix, before any fallback for its row length. */
du_dtype du_mix_choose(const du_mix *mix, const du_model *model, const du_out_tensor *t);

#endif
