/* Inside model/: what an architecture adds to the training pass of grad.c, its attention. */
#ifndef DU_MODEL_GRAD_INT_H
#define DU_MODEL_GRAD_INT_H

#include "model/grad.h"
#include "nn/attn_train.h"
#include "nn/linear_train.h"

/* One micro-batch. */
typedef struct {
    du_ctx *ctx;
    const du_model *model;
    const du_train *train;
    const du_grad_rows *rows;
    int64_t T;
    const float *cos, *sin, *sin_back; /* [T, rope_dim/2]; sin_back = -sin */
} du_grad_pass;

/* What attention keeps is a struct of the architecture's, its arrays in an arena.
 *   take  makes one for T rows; all false: what is cheap is computed again; NULL: no memory
 *   fwd   y [T,D] out from x [T,D], the normalised input of the layer
 *   bwd   dx [T,D] out, and gradients of the weights, from dy */
struct du_arch_train {
    void *(*take)(du_arena *arena, const du_hparams *hp, int64_t T, bool all);
    du_err (*fwd)(const du_grad_pass *pass, int64_t layer, float *y, const float *x, void *kept);
    du_err (*bwd)(const du_grad_pass *pass, int64_t layer, float *dx, const float *dy,
                  const float *x, void *kept);
};

/* n values from the arena of what is kept */
#define DU_KEEP(arena, type, n) ((type *)du_arena_alloc(arena, (size_t)(n), sizeof(type)))

/* The training attention of H query and G key heads over the rows of the pass, heads side by side.
 */
du_attn_train du_grad_attention(const du_grad_pass *pass, int64_t H, int64_t G, int64_t dk,
                                int64_t dv);

#endif
