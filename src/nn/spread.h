/* Routed experts spread over processes: of E experts of every layer process i of n holds
 * [E i / n, E (i+1) / n), and the rows of tokens go to where their experts are. Between processes
 * there is one operation, bytes from each to each, which the caller gives.
 *
 *     own tokens x [T,D]          du_spread_rows        rows [n_rows,D] of the guests, a row per
 *                               ----------------->      token and process that has an expert of it
 *     own slots (nn/slots.h)      du_spread_take        slots of the experts here, sorted by
 *     [T*K,W]                   ----------------->      expert, then by leaf and token
 *                                 du_spread_return
 *                               <-----------------
 *
 * So the slots of an expert stand in the order in which one process has them: its products and its
 * gradient are the same sums. All processes call these functions in the same order; the error of
 * one is that of all. */
#ifndef DU_NN_SPREAD_H
#define DU_NN_SPREAD_H

#include "nn/leaves.h"

typedef struct {
    void *data;
    size_t n_bytes;
} du_spread_part;

/* Between processes. exchange sends send[p] to process p and receives receive[p] from it, the own
 * part too. `before` is what became of the work that led here: where it is an error at any process,
 * all return that of the first and nothing is moved. */
typedef struct {
    int64_t i, n;
    du_err (*exchange)(void *user, du_err before, const du_spread_part *send,
                       const du_spread_part *receive);
    void *user;
} du_spread_link;

/* One pass. The first processes have rows of whole leaves, all but these none. */
typedef struct {
    const du_spread_link *link;
    du_leaves leaves; /* of all processes */
    int64_t i_leaf;   /* the first of this process's, from leaves.first */
    int64_t seq_len;  /* rows of a leaf */
} du_spread;

/* The first expert of process i of n; that of process n is E. */
static inline int64_t du_spread_first(int64_t E, int64_t i, int64_t n) {
    return E * i / n;
}

/* Whose rows come to the experts here, and which go from here. In scratch. */
typedef struct {
    int64_t e0, n_expert;           /* experts [e0, e0 + n_expert) are here */
    int64_t n_rows, n_slots;        /* that come */
    int64_t *first;                 /* [n_expert+1] slots of each expert */
    int32_t *i_row;                 /* [n_slots] the row of a slot */
    int32_t *leaf;                  /* [n_rows] from leaves.first */
    int64_t n_own;                  /* own slots */
    int64_t *counts;                /* [n, n_expert] slots that come from each process */
    int64_t *slots, *rows;          /* [n+1] the first that comes from each process */
    int64_t *own, *sent;            /* [n+1] the first own slot and the first row that go to each */
    int32_t *tokens;                /* [sent[n]] of the rows that go */
    du_spread_part *send, *receive; /* [n] */
} du_guests;

/* Tells all processes what each sends.
 * first [E+1], i_token [T*K]  the own slots
 * Returns DU_OK, DU_ENOMEM (scratch), and errors of the link. */
DU_NODISCARD
du_err du_spread_find(du_ctx *ctx, const du_spread *spread, du_err before, du_guests *guests,
                      const int64_t *first, const int32_t *i_token, int64_t E, int64_t T);

/* Values of the guests' rows: to [n_rows, n_x D], side by side those of each of x [T,D]. As above.
 */
DU_NODISCARD
du_err du_spread_rows(du_ctx *ctx, const du_spread *spread, du_err before, const du_guests *guests,
                      float *to, const float *const *x, int64_t n_x, int64_t D);

/* Values of slots, own [n_own, W] to those of the experts here [n_slots, W], and back. As above. */
DU_NODISCARD
du_err du_spread_take(du_ctx *ctx, const du_spread *spread, du_err before, const du_guests *guests,
                      float *to, const float *own, int64_t W);
DU_NODISCARD
du_err du_spread_return(du_ctx *ctx, const du_spread *spread, du_err before,
                        const du_guests *guests, float *own, const float *from, int64_t W);

#endif
