/* Feed-forward layers in training, dense and as a mixture of experts. The forward pass fills what
 * the backward pass is then given. */
#ifndef DU_NN_MOE_TRAIN_H
#define DU_NN_MOE_TRAIN_H

#include "nn/linear_train.h"
#include "nn/router.h"
#include "nn/spread.h"

typedef struct {
    const du_mat *gate, *up, *down; /* [F,D], [F,D], [D,F] */
} du_ffn_weights;

/* Of a dense feed-forward. hidden NULL: computed again from gate and up. */
typedef struct {
    float *gate, *up, *hidden; /* [T,F] */
} du_ffn_kept;

/* y = down (silu(gate x) * up x); y, x [T,D]. bwd: gradients of the weights, and dx (add: to what
 * it holds), from dy. kept->hidden and gate and up hold nothing of use afterwards. Return DU_OK,
 * DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_ffn_train_fwd(du_ctx *ctx, const du_train *tr, float *y, const float *x,
                        const du_ffn_weights *w, const du_ffn_kept *kept, int64_t T);
DU_NODISCARD
du_err du_ffn_train_bwd(du_ctx *ctx, const du_train *tr, float *dx, bool add, const float *dy,
                        const float *x, const du_ffn_weights *w, const du_ffn_kept *kept,
                        int64_t T);

typedef struct {
    const du_mat *router;           /* [E,D] */
    const float *bias;              /* [E] or NULL: moves the choice alone */
    const du_mat *gate, *up, *down; /* [E] of [F,D], [F,D], [D,F] */
    const du_router *rule;
    const du_spread *spread; /* NULL: all experts are here; else those that it says have data */
} du_moe_weights;

/* Of the slots that come to the experts of a process where they are spread; their number is known
 * behind the router alone, so room grows. */
typedef struct {
    float *values;  /* [slots, wide] */
    size_t n_bytes; /* reserved */
} du_moe_room;

/* Of a layer of experts. hidden NULL: computed again from gate and up. */
typedef struct {
    float *scores;             /* [T,E] */
    float *weights;            /* [T,K] */
    int32_t *ids;              /* [T,K] */
    int32_t *slot_of;          /* [T,K]; nn/slots.h */
    int32_t *i_token;          /* [T*K] */
    int64_t *first;            /* [E+1] */
    float *gate, *up, *hidden; /* [T*K,F]: rows are slots */
    /* Where experts are spread: gate, up and hidden are in the room, if not NULL */
    du_moe_room *room;
    bool keeps_hidden;
} du_moe_kept;

void du_moe_room_done(du_moe_room *room);

/* y[t] = sum_k weight[t,k] down_e (silu(gate_e x[t]) * up_e x[t]), e = ids[t,k] chosen by the
 * router (nn/router.h), whose product is always F32. bwd: gradients of all weights, and dx,
 * written, from dy; balance as du_router_bwd has it. kept's gate, up and hidden hold nothing of use
 * afterwards. Where experts are spread all processes call both, with T = 0 where they have no rows;
 * gradients of experts are of spread->leaves, those of the router of tr's. Return DU_OK, DU_ENOMEM
 * (scratch), and errors of the link. */
DU_NODISCARD
du_err du_moe_train_fwd(du_ctx *ctx, const du_train *tr, float *y, const float *x,
                        const du_moe_weights *w, const du_moe_kept *kept, int64_t T);
DU_NODISCARD
du_err du_moe_train_bwd(du_ctx *ctx, const du_train *tr, float *dx, const float *dy, const float *x,
                        const du_moe_weights *w, const du_moe_kept *kept,
                        const du_router_balance *balance, int64_t T);

#endif
