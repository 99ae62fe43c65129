#include "model/hparams.h"

#include <math.h>

double du_hparams_attn_scale(const du_hparams *hp) {
    double scale = 1 / sqrt((double)hp->k_dim);
    if (hp->scaling == DU_SCALING_YARN && hp->yarn_mscale_all != 0 && hp->kv_rank > 0) {
        double m = du_yarn_magnitude(hp->yarn.factor, hp->yarn_mscale_all);
        scale *= m * m;
    }
    return scale;
}

double du_hparams_rope_magnitude(const du_hparams *hp) {
    if (hp->scaling != DU_SCALING_YARN) {
        return 1;
    }
    if (hp->yarn_mscale != 0 && hp->yarn_mscale_all != 0) {
        return du_yarn_magnitude(hp->yarn.factor, hp->yarn_mscale) /
               du_yarn_magnitude(hp->yarn.factor, hp->yarn_mscale_all);
    }
    return du_yarn_magnitude(hp->yarn.factor, 1);
}

void du_hparams_rope_freqs(const du_hparams *hp, float *freq, const float *factors) {
    double exact[DU_HEAD_DIM_MAX / 2];
    int64_t n_pair = hp->rope_dim / 2;
    DU_CHECK(hp->rope_dim <= DU_HEAD_DIM_MAX);
    du_rope_freqs(exact, hp->rope_dim, hp->rope_theta);
    switch (hp->scaling) {
    case DU_SCALING_LINEAR:
        du_rope_scale_linear(exact, hp->rope_dim, hp->yarn.factor);
        break;
    case DU_SCALING_YARN:
        du_rope_scale_yarn(exact, hp->rope_dim, hp->rope_theta, &hp->yarn);
        break;
    case DU_SCALING_LLAMA3:
        du_rope_scale_llama3(exact, hp->rope_dim, hp->yarn.factor, hp->llama3_low, hp->llama3_high,
                             hp->yarn.n_ctx_original);
        break;
    case DU_SCALING_NONE:
        break;
    }
    for (int64_t i = 0; i < n_pair; i++) {
        freq[i] = (float)(factors ? exact[i] / (double)factors[i] : exact[i]);
    }
}

void du_hparams_llama3_factors(const du_hparams *hp, float *factors) {
    double plain[DU_HEAD_DIM_MAX / 2], scaled[DU_HEAD_DIM_MAX / 2];
    DU_CHECK(hp->rope_dim <= DU_HEAD_DIM_MAX);
    du_rope_freqs(plain, hp->rope_dim, hp->rope_theta);
    du_rope_freqs(scaled, hp->rope_dim, hp->rope_theta);
    du_rope_scale_llama3(scaled, hp->rope_dim, hp->yarn.factor, hp->llama3_low, hp->llama3_high,
                         hp->yarn.n_ctx_original);
    for (int64_t i = 0; i < hp->rope_dim / 2; i++) {
        factors[i] = (float)(plain[i] / scaled[i]);
    }
}

static du_err check(bool good, const char *what, int64_t a, int64_t b, du_diag *diag) {
    if (good) {
        return DU_OK;
    }
    return du_fail(diag, DU_EFORMAT, "hyper-parameters do not fit together: %s (%lld, %lld)", what,
                   (long long)a, (long long)b);
}

du_err du_hparams_check(const du_hparams *hp, du_diag *diag) {
    const du_router *r = &hp->router;
    const struct {
        bool good;
        const char *what;
        int64_t a, b;
    } rules[] = {
        {hp->k_dim >= 1 && hp->k_dim <= DU_HEAD_DIM_MAX, "the width of a head", hp->k_dim,
         DU_HEAD_DIM_MAX},
        {hp->v_dim >= 1 && hp->v_dim <= DU_HEAD_DIM_MAX, "the width of a head's values", hp->v_dim,
         DU_HEAD_DIM_MAX},
        {hp->n_vocab >= 1 && hp->n_vocab <= DU_VOCAB_MAX, "the vocabulary", hp->n_vocab,
         DU_VOCAB_MAX},
        {hp->n_head % hp->n_head_kv == 0, "query heads are no multiple of key heads", hp->n_head,
         hp->n_head_kv},
        {hp->rope_dim % 2 == 0 && hp->rope_dim >= 2 && hp->rope_dim <= hp->k_dim,
         "the rotated part of a head is odd or larger than the head", hp->rope_dim, hp->k_dim},
        {hp->kv_rank == 0 || hp->rope_dim < hp->k_dim,
         "latent attention leaves no values without position", hp->rope_dim, hp->k_dim},
        {hp->kv_rank > 0 || hp->rope_dim == hp->k_dim, "partly rotated heads", hp->rope_dim,
         hp->k_dim},
        {hp->n_dense_layer <= hp->n_layer, "more dense layers than layers", hp->n_dense_layer,
         hp->n_layer},
        {r->n_used <= r->n_expert, "more experts per token than experts", r->n_used, r->n_expert},
        {r->n_expert == 0 || r->n_used >= 1, "no expert per token", r->n_used, r->n_expert},
        {r->n_expert > 0 || hp->n_dense_layer == hp->n_layer, "expert layers without experts",
         hp->n_dense_layer, hp->n_layer},
        {r->n_group <= 1 || r->n_expert % r->n_group == 0, "experts are no multiple of groups",
         r->n_expert, r->n_group},
        {r->n_group <= 1 || (r->n_group_used >= 1 && r->n_group_used <= r->n_group),
         "chosen groups and groups", r->n_group_used, r->n_group},
        {r->n_group <= 1 || r->n_group_used * (r->n_expert / r->n_group) >= r->n_used,
         "the chosen groups hold fewer experts than a token uses", r->n_group_used, r->n_used},
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        du_err err = check(rules[i].good, rules[i].what, rules[i].a, rules[i].b, diag);
        if (err != DU_OK) {
            return err;
        }
    }
    return DU_OK;
}
