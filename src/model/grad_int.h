/* Inside model/: the training pass, in parts, and what an architecture adds to it, its attention.
 */
#ifndef DU_MODEL_GRAD_INT_H
#define DU_MODEL_GRAD_INT_H

#include "model/grad.h"
#include "nn/attn_train.h"
#include "nn/moe_train.h"

/* One micro-batch. */
typedef struct {
    du_ctx *ctx;
    const du_model *model;
    const du_train *train;
    const du_grad_rows *rows;
    int64_t T;
    const float *cos, *sin, *sin_back; /* [T, rope_dim/2]; sin_back = -sin */
} du_grad_pass;

/* What attention takes from scratch in the backward pass, and computes again. */
typedef struct {
    int64_t row_values; /* floats per row */
    int64_t again;      /* multiply-adds per row of products that are computed again */
} du_attn_scratch;

/* What attention keeps is a struct of the architecture's, its arrays in an arena.
 *   take     makes one for T rows; all false: what is cheap is computed again; NULL: no memory
 *   scratch  as the passes take it (grad_memory.c)
 *   fwd   y [T,D] out from x [T,D], the normalised input of the layer
 *   bwd   dx [T,D] out, and gradients of the weights, from dy */
struct du_arch_train {
    void *(*take)(du_arena *arena, const du_hparams *hp, int64_t T, bool all);
    du_attn_scratch (*scratch)(const du_hparams *hp, bool all);
    du_err (*fwd)(const du_grad_pass *pass, int64_t layer, float *y, const float *x, void *kept);
    du_err (*bwd)(const du_grad_pass *pass, int64_t layer, float *dx, const float *dy,
                  const float *x, void *kept);
};

typedef struct {
    float *x, *norm1, *mid, *norm2; /* [T,D] */
    void *attn;
    du_ffn_kept ffn; /* dense, or the shared experts */
    du_moe_kept moe;
} du_grad_layer;

struct du_grad {
    const du_params *params;
    du_grad_params how;
    int64_t n_layers; /* of the trunk and behind it */
    float *values;    /* gradients [n_values] */
    float *nodes[DU_LEAF_LEVELS];
    /* Of the output matrix, whose leaves are parts of sequences, from the trunk and from behind it;
     * of the embedding of next tokens. [V*D] */
    float *out_nodes[2][DU_LEAF_LEVELS], *next_nodes[DU_LEAF_LEVELS];
    int64_t *counts;                 /* [n_layers, E] */
    double *balances;                /* [n_leaves] */
    float *terms[DU_GRAD_TERMS_MAX]; /* [V*D], where sums are kept apart; else NULL */
    du_arena *arena;
    du_grad_layer *layers; /* [n_layers] */
    du_moe_room *rooms;    /* [n_layers], where experts are spread */
    float *x, *norm;       /* [T,D] behind the trunk, and normalised */
    /* Behind the trunk: embeddings of the next tokens, [T,2D] what is projected, and the layer's
     * output, normalised too */
    float *next_embed, *next_in, *next_x, *next_norm;
    int64_t T; /* rows there is room for */
};

/* A pass over one micro-batch. */
typedef struct {
    du_grad_pass pass;
    du_train train;
    du_grad *grad;
    du_spread spread; /* where grad->how.spread is */
    int64_t i_leaf;   /* of the first row: number of its leaf in the step */
    bool backward;
    float *dx, *dy; /* [T,D]; dy also receives what layers put out in the forward pass */
} du_grad_run;

/* A layer from its input, and its output to `out` (NULL: not wanted); backward from r->dx to r->dx,
 * d(loss)/d(input). */
DU_NODISCARD
du_err du_grad_layer_fwd(const du_grad_run *r, int64_t i, float *out);
DU_NODISCARD
du_err du_grad_layer_bwd(const du_grad_run *r, int64_t i);

/* The same for a process that has no rows: its experts compute for others. Returns as above. */
DU_NODISCARD
du_err du_grad_layer_serve(const du_grad_run *r, int64_t i, bool backward);

void du_grad_norm_fwd(const du_grad_run *r, float *y, const float *x, const float *w);

/* r->dx += the gradient through a norm, from r->dy */
DU_NODISCARD
du_err du_grad_norm_bwd(const du_grad_run *r, const float *x, const float *w);

/* Everything that is kept for T rows, from g->arena; false: no memory. */
DU_NODISCARD
bool du_grad_take_kept(du_grad *g, int64_t T);

/* Rows whose logits exist at once: whole sequences, a power of two of them, or one of a power of
 * two of parts of a sequence. Each sequence of a step, or part of one, is a leaf of the output
 * matrix's gradient. */
typedef struct {
    int64_t rows;   /* at once, at most */
    int64_t n_seqs; /* at once, 1 where there are parts */
    int64_t parts;  /* of a sequence */
} du_grad_out_plan;
du_grad_out_plan du_grad_plan_out(const du_hparams *hp, int64_t seq_len);

/* The output matrix over the rows of `norm`: logits, objective, r->dy = d(loss)/d(norm).
 * i  0 for the trunk, whose gradient of the matrix is written; 1 behind it: added */
DU_NODISCARD
du_err du_grad_out(const du_grad_run *r, const float *norm, du_objective *objective, int64_t i);

/* The block behind the trunk, forward and backward; r->dy, the gradient of the trunk's normalised
 * output, is added to, r->dx overwritten. dnext [T,D] out: of the next tokens' embeddings. */
DU_NODISCARD
du_err du_grad_nextn(const du_grad_run *r, float *dnext);

/* That gradient into the embedding's, behind everything else. */
DU_NODISCARD
du_err du_grad_nextn_embed(const du_grad_run *r, const float *dnext);

/* What is added to gradients of the embedding or the output matrix, by its place in the order. */
enum { DU_TERM_NEXT_OUT, DU_TERM_EMBED, DU_TERM_NEXT_EMBED };

/* Where such a sum goes: to the gradient [V*D] that it is added to, or to a place of its own.
 * nodes  the levels of that gradient; borrowed */
static inline du_sums du_grad_term_sums(const du_grad *grad, int i_term, const du_mat *weight,
                                        float *gradient, du_leaves leaves, float *const *nodes) {
    float *to = gradient && grad->terms[i_term] ? grad->terms[i_term] : gradient;
    int64_t n = to ? weight->rows * weight->cols : 0;
    return (du_sums){leaves, weight->data, to, n, nodes, to == gradient};
}

/* n values from the arena of what is kept */
#define DU_KEEP(arena, type, n) ((type *)du_arena_alloc(arena, (size_t)(n), sizeof(type)))

/* The training attention of H query and G key heads over the rows of the pass, heads side by side.
 */
du_attn_train du_grad_attention(const du_grad_pass *pass, int64_t H, int64_t G, int64_t dk,
                                int64_t dv);

#endif
