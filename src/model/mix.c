#include "model/mix.h"

#include <strings.h>

/* name, file type | base embed output | attn_v, more, attn_out | down, more */
static const du_mix mixes[] = {
    {"Q8_0", 7, DU_Q8_0, DU_Q8_0, DU_Q8_0, DU_Q8_0, DU_Q8_0, DU_Q8_0, DU_Q8_0, DU_Q8_0},
    {"Q6_K", 18, DU_Q6_K, DU_Q6_K, DU_Q6_K, DU_Q6_K, DU_Q6_K, DU_Q6_K, DU_Q6_K, DU_Q6_K},
    {"Q5_K_M", 17, DU_Q5_K, DU_Q5_K, DU_Q6_K, DU_Q5_K, DU_Q6_K, DU_Q5_K, DU_Q5_K, DU_Q6_K},
    {"Q4_K_M", 15, DU_Q4_K, DU_Q4_K, DU_Q6_K, DU_Q4_K, DU_Q6_K, DU_Q4_K, DU_Q4_K, DU_Q6_K},
    {"Q4_0", 2, DU_Q4_0, DU_Q4_0, DU_Q6_K, DU_Q4_0, DU_Q4_0, DU_Q4_0, DU_Q4_0, DU_Q4_0},
    {"IQ4_XS", 30, DU_IQ4_XS, DU_IQ4_XS, DU_Q6_K, DU_IQ4_XS, DU_Q5_K, DU_IQ4_XS, DU_IQ4_XS,
     DU_Q5_K},
    {"Q3_K_M", 12, DU_Q3_K, DU_Q3_K, DU_Q6_K, DU_Q4_K, DU_Q5_K, DU_Q4_K, DU_Q4_K, DU_Q5_K},
    {"Q2_K", 10, DU_Q2_K, DU_Q2_K, DU_Q6_K, DU_Q3_K, DU_Q4_K, DU_Q3_K, DU_Q3_K, DU_Q3_K},
};
enum { N_MIXES = sizeof mixes / sizeof *mixes };

const du_mix *du_mix_at(int64_t i) {
    return i >= 0 && i < N_MIXES ? &mixes[i] : NULL;
}

const du_mix *du_mix_find(const char *name) {
    for (int64_t i = 0; i < N_MIXES; i++) {
        if (strcasecmp(mixes[i].name, name) == 0) {
            return &mixes[i];
        }
    }
    return NULL;
}

static bool more_bits(int64_t layer, int64_t n_layer) {
    int64_t eighth = n_layer / 8;
    return layer < eighth || layer >= n_layer - eighth || (layer - eighth) % 3 == 2;
}

du_dtype du_mix_choose(const du_mix *mix, const du_model *model, const du_out_tensor *t) {
    bool more = more_bits(t->layer, model->hp.n_layer);
    bool latent = model->hp.kv_rank > 0;
    switch (t->def->role) {
    case DU_ROLE_EMBED:
        /* A tied embedding is the output matrix too. */
        return model->hp.tied ? mix->output : mix->embed;
    case DU_ROLE_OUTPUT:
        return mix->output;
    case DU_ROLE_ATTN_KV:
        return DU_Q8_0;
    case DU_ROLE_ATTN_K:
        return latent ? DU_Q8_0 : mix->base;
    case DU_ROLE_ATTN_V:
        return latent ? DU_Q8_0 : more ? mix->attn_v_more : mix->attn_v;
    case DU_ROLE_ATTN_OUT:
        return mix->attn_out;
    case DU_ROLE_FFN_DOWN:
    case DU_ROLE_EXPERT_DOWN:
    case DU_ROLE_SHARED_DOWN:
        return more ? mix->down_more : mix->down;
    default:
        return mix->base;
    }
}
