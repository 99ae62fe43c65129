/* Hyper-parameters: what a model's files say about its shape, under one set of names.
 *
 * Both readers refuse what the forward pass would not compute exactly (a sliding window, biases it
 * has no place for, an unknown scaling rule), naming file key and value; every number is checked
 * against limits that keep all later products of dimensions far from overflow. */
#ifndef DU_MODEL_HPARAMS_H
#define DU_MODEL_HPARAMS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "formats/gguf.h"
#include "formats/gguf_write.h"
#include "nn/rope.h"
#include "nn/router.h"

/* Limits that no real model reaches; products of three of them fit 63 bits. The readers check their
 * keys against them, du_hparams_check what follows from several keys. */
enum {
    DU_LAYERS_MAX = 4096,
    DU_WIDTH_MAX = 1 << 20,
    DU_HEADS_MAX = 4096,
    DU_HEAD_DIM_MAX = 2048,
    DU_VOCAB_MAX = 1 << 24,
    DU_CONTEXT_MAX = 1 << 28
};

typedef enum { DU_SCALING_NONE, DU_SCALING_LINEAR, DU_SCALING_YARN, DU_SCALING_LLAMA3 } du_scaling;

typedef struct {
    int64_t n_layer, n_vocab, d_model, n_ctx_train;
    int64_t n_head, n_head_kv; /* n_head_kv = n_head for latent attention */
    int64_t k_dim, v_dim;      /* per head; latent attention: nope + rope values, and v values */
    int64_t d_ff;              /* dense feed-forward width */
    float eps;                 /* of every RMS norm but the latent ones */
    bool tied;                 /* the output matrix is the embedding */

    du_rope_layout rope_layout;
    int64_t rope_dim; /* rotated values per head */
    double rope_theta;
    du_scaling scaling;
    du_yarn yarn;           /* factor: also of DU_SCALING_LINEAR and _LLAMA3 */
    double yarn_mscale;     /* 0: not given */
    double yarn_mscale_all; /* 0: not given */
    double llama3_low, llama3_high;

    int64_t q_rank;   /* 0: queries are not factored */
    int64_t kv_rank;  /* 0: plain attention */
    float latent_eps; /* of the two latent norms */

    int64_t n_dense_layer; /* leading layers without experts; n_layer when there are none at all */
    int64_t d_ff_expert, n_shared_expert;
    du_router router; /* n_expert 0: dense model */

    int64_t n_nextn; /* layers behind the trunk that predict further tokens; used in training */
} du_hparams;

/* Latent attention splits a head's k_dim in a part without positions and a rotated part. */
static inline int64_t du_hparams_nope(const du_hparams *hp) {
    return hp->k_dim - hp->rope_dim;
}

/* Has layer i, of the trunk or behind it, experts? */
static inline bool du_hparams_has_experts(const du_hparams *hp, int64_t i) {
    return i >= hp->n_dense_layer && hp->router.n_expert > 0;
}

/* The factor of q . k before the softmax: k_dim^-0.5, times YaRN's squared magnitude where
 * mscale_all_dim is given (DeepSeek-V2, arXiv 2405.04434, section 2.1.4 and published code). */
double du_hparams_attn_scale(const du_hparams *hp);

/* What cos and sin are multiplied with: magnitude(mscale) / magnitude(mscale_all). */
double du_hparams_rope_magnitude(const du_hparams *hp);

/* The pairs' frequencies, [rope_dim / 2] f32 out; factors [rope_dim / 2] f32 or NULL divides them
 * (rope_freqs.weight of GGUF files). */
void du_hparams_rope_freqs(const du_hparams *hp, float *freq, const float *factors);

/* Llama 3's rule as GGUF files keep it (rope_freqs.weight): plain frequency / scaled one of each
 * pair, [rope_dim / 2] f32 out. */
void du_hparams_llama3_factors(const du_hparams *hp, float *factors);

/* Readers and writers of the two containers. The arch's own file calls the parts it needs and
 * checks the whole with du_hparams_check. g is a GGUF whose keys begin with "ARCH."; config is
 * config.json. Errors: DU_EFORMAT (missing, wrong type, outside its limits), DU_EUNSUPPORTED. */
DU_NODISCARD
du_err du_hparams_read_gguf(du_hparams *hp, const du_gguf *g, const char *arch, du_diag *diag);
DU_NODISCARD
du_err du_hparams_read_hf(du_hparams *hp, const json_t *config, du_diag *diag);

/* The keys of general use under "ARCH.", and the fields of config.json, from which the readers get
 * the same hyper-parameters back. write_hf adds to obj, and returns DU_OK or DU_ENOMEM. */
void du_hparams_write_gguf(const du_hparams *hp, du_gguf_writer *w, const char *arch);
DU_NODISCARD
du_err du_hparams_write_hf(const du_hparams *hp, json_t *obj, du_diag *diag);

/* Dimensions that belong together do so: heads divide, groups divide, ranges fit. */
DU_NODISCARD
du_err du_hparams_check(const du_hparams *hp, du_diag *diag);

#endif
