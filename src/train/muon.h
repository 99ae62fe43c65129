/* Muon: the momentum of a matrix, made orthogonal, is its step (Jordan et al. 2024; scaling of
 * Moonlight, arXiv 2502.16982, section 2.2). */
#ifndef DU_TRAIN_MUON_H
#define DU_TRAIN_MUON_H

#include "nn/gemm.h"

enum { DU_MUON_STEPS = 5 };

/* A matrix [rows, cols]; w and m are changed. */
typedef struct {
    float *w, *m;
    const float *g;
    int64_t rows, cols;
} du_muon_matrix;

typedef struct {
    du_gemm_kind kind; /* of the products */
    float lr, clip;    /* clip: factor of the gradients */
    float decay, momentum;
    bool moonlight; /* else the first publication's scaling */
} du_muon;

/* One step of n matrices, g being clip times the gradient:
 *
 *     m = momentum m + (1 - momentum) g,  u = (1 - momentum) g + momentum m       (Nesterov)
 *     X = u / max(|u|, 1e-7), |u| the Frobenius norm; transposed where rows > cols
 *     5 times: A = X X^T,  X = a X + (b A + c A^2) X    (a, b, c) = (3.4445, -4.7750, 2.0315)
 *     w = (1 - lr decay) w - lr k X
 *     k = 0.2 sqrt(max(rows, cols)) (Moonlight), sqrt(max(1, rows / cols)) (first publication)
 *
 * All matrices of a call are computed side by side. Returns DU_OK, DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_muon_step(du_ctx *ctx, const du_muon *how, const du_muon_matrix *matrices, int64_t n);

#endif
