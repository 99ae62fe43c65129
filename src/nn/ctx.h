/* What every layer gets first: where to run, where to put temporary values, with which kernels. */
#ifndef DU_NN_CTX_H
#define DU_NN_CTX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "kern/kern.h"

/* Sees an activation: x [T, D] f32, rows D apart, borrowed for the call. name is that of the step
 * in the architecture file; layer is -1 outside the layers, expert -1 outside the routed experts.
 */
typedef void du_tap_fn(void *user, const char *name, int64_t layer, int64_t expert, const float *x,
                       int64_t T, int64_t D);

typedef struct {
    du_pool *pool;     /* NULL: run in the calling thread */
    du_arena *scratch; /* released by whoever marked it; layers release what they take */
    const du_kern *kern;
    bool same_bits; /* a row's bits must not depend on how many rows are computed together */
    du_tap_fn *tap; /* NULL: nobody listens */
    void *tap_user;
    bool strips;         /* products may use strips, and write them */
    size_t repack_bytes; /* of strips: while some are left in this pass, products write more */
    double *products_s;  /* seconds in products of nn/gemm.h and attention of training are added
                            to it; NULL: they are not timed */
    /* Told that stored weights will not be read again soon; NULL: nobody minds */
    void (*unload)(void *user, const void *p, size_t n_bytes);
    void *unload_user;
} du_ctx;

/* Shows an activation to the tap, if there is one: golden dumps, NaN search, importance matrices
 * and expert statistics all hang here. */
static inline void du_tap(const du_ctx *ctx, const char *name, int64_t layer, const float *x,
                          int64_t T, int64_t D) {
    if (ctx->tap) {
        ctx->tap(ctx->tap_user, name, layer, -1, x, T, D);
    }
}

/* Around products: their beginning, and what is added behind them. */
static inline double du_products_begin(const du_ctx *ctx) {
    return ctx->products_s ? du_clock_s() : 0;
}
static inline void du_products_end(const du_ctx *ctx, double begin_s) {
    if (ctx->products_s) {
        *ctx->products_s += du_clock_s() - begin_s;
    }
}

/* n values of a type from the scratch arena; NULL when memory is short. */
#define DU_SCRATCH(ctx, type, n) ((type *)du_arena_alloc((ctx)->scratch, (size_t)(n), sizeof(type)))

#endif
