/* Processes that train one model together, the ranks: which of them this one is, and what they
 * exchange. NULL stands for one process that is alone: then nothing is exchanged, and every
 * function returns at once.
 *
 * Every function but open and close is called by all ranks, in the same order. What moves the bytes
 * is a plug-in (ranks_mpi.c), so that a dure that is never started by mpirun needs no MPI; all
 * arithmetic is here, in an order that is fixed by the numbers of the ranks. */
#ifndef DU_TRAIN_RANKS_H
#define DU_TRAIN_RANKS_H

#include "nn/spread.h"

enum { DU_RANKS_MAX = 1024, DU_RANKS_PART_BYTES = 1 << 30, DU_RANKS_LINK_VERSION = 1 };

/* Bytes that go to a rank or come from it; at most DU_RANKS_PART_BYTES. */
typedef du_spread_part du_ranks_part;

/* What a plug-in gives. */
typedef struct {
    int64_t rank, n;
    int64_t n_here; /* ranks on this machine */
    /* Sends send[r] to rank r and receives receive[r] from it, for all r but the own; returns when
     * both have happened. NULL, or a static text: why a rank cannot be reached. */
    const char *(*exchange)(const du_ranks_part *send, const du_ranks_part *receive);
    void (*end)(void); /* behind the last exchange of all ranks */
} du_ranks_link;

/* The function that a plug-in has, by its name. NULL, or a static text: why there are no ranks. */
#define DU_RANKS_LINK_OPEN "du_ranks_link_open"
typedef const char *du_ranks_link_open_fn(du_ranks_link *out, int version);

/* Into what pieces large arrays are cut; results do not depend on it. */
typedef struct {
    size_t part_bytes, round_bytes; /* of an exchange; of a span, when it is shared or collected */
    int64_t add_values;             /* of all ranks, that wait to be added */
    int64_t task_values;            /* of a thread's task */
} du_ranks_sizes;

#define DU_RANKS_SIZES ((du_ranks_sizes){DU_RANKS_PART_BYTES, 16 << 20, 4 << 20, 1 << 14})

typedef struct {
    du_ranks_link link;
    du_ranks_sizes sizes; /* DU_RANKS_SIZES save in tests */
    void *plugin;
    bool lost; /* an exchange has failed: no more can be asked */
    bool told; /* du_ranks_agree_within has told an error */
} du_ranks;

/* Loads a plug-in and joins the other ranks; free with du_ranks_close.
 * Returns DU_OK, DU_EUNSUPPORTED (the file cannot be loaded, no MPI), DU_ELIMIT (too many),
 * DU_ENOMEM. */
DU_NODISCARD
du_err du_ranks_open(du_ranks **out, const char *plugin, du_diag *diag);
void du_ranks_close(du_ranks *ranks); /* takes NULL; waits for the others unless one is lost */

static inline int64_t du_ranks_n(const du_ranks *ranks) {
    return ranks ? ranks->link.n : 1;
}

static inline int64_t du_ranks_rank(const du_ranks *ranks) {
    return ranks ? ranks->link.rank : 0;
}

/* All functions below also return DU_EIO: a rank is lost. */

/* What became of a piece of work that each rank does by itself: the error of the first rank that
 * has one, whose message all get. */
DU_NODISCARD
du_err du_ranks_agree(du_ranks *ranks, du_err err, du_diag *diag);

/* The same in the middle of such work, behind which du_ranks_agree follows: a rank that fails
 * leaves the work and meets the others there. An error that has been told is told by neither again.
 */
DU_NODISCARD
du_err du_ranks_agree_within(du_ranks *ranks, du_err err, du_diag *diag);

/* Sends send[r] to rank r and receives receive[r] from it, whatever their lengths, the own part
 * too. ranks is not NULL. */
DU_NODISCARD
du_err du_ranks_exchange(du_ranks *ranks, const du_ranks_part *send, const du_ranks_part *receive,
                         du_diag *diag);

/* bytes [n_bytes] become those of rank 0. */
DU_NODISCARD
du_err du_ranks_take_first(du_ranks *ranks, void *bytes, size_t n_bytes, du_diag *diag);

/* *value becomes the least of all ranks. */
DU_NODISCARD
du_err du_ranks_min(du_ranks *ranks, int64_t *value, du_diag *diag);

/* *flag becomes whether that of any rank is set. */
DU_NODISCARD
du_err du_ranks_any(du_ranks *ranks, bool *flag, du_diag *diag);

/* values [n] become the sums over all ranks. Returns also DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_ranks_sum(du_ranks *ranks, du_ctx *ctx, int64_t *values, int64_t n, du_diag *diag);

/* [first, end) of an array. */
typedef struct {
    int64_t first, end;
} du_span;

/* What lies in both; where nothing does, nothing at the beginning of b. */
static inline du_span du_span_common(du_span a, du_span b) {
    du_span both = {a.first > b.first ? a.first : b.first, a.end < b.end ? a.end : b.end};
    return both.first < both.end ? both : (du_span){b.first, b.first};
}

/* Each rank has its span of an array of items; then all have all of them. spans [n ranks] */
DU_NODISCARD
du_err du_ranks_share(du_ranks *ranks, void *items, size_t item_bytes, const du_span *spans,
                      du_diag *diag);

/* Rank 0 gets the values [wanted.first, wanted.end) of an array of which each rank has its span.
 * to      [wanted.end - wanted.first] out at rank 0
 * values  the array; only the own span is read
 * spans   [n ranks], beside each other */
DU_NODISCARD
du_err du_ranks_collect(du_ranks *ranks, float *to, const float *values, const du_span *spans,
                        du_span wanted, du_diag *diag);

/* Sums arrays of several ranks, the first ones, each of which has in `values` a node of the tree of
 * nn/leaves.h, all of the same level. Nodes are numbered over calls as leaves are there: behind the
 * last ones each rank has the root in its span of values, and nothing of use outside it. A rank
 * behind those that have a node may have anything there.
 * spans  [n ranks]
 * nodes  the calls' next ones; n is the number of ranks that have one
 * wait   [DU_LEAF_LEVELS] of the length of values, for what waits between calls
 *        (du_sums_take_nodes); may be NULL where first is 0 and last set
 * Returns also DU_ENOMEM (scratch). */
DU_NODISCARD
du_err du_ranks_add(du_ranks *ranks, du_ctx *ctx, float *values, const du_span *spans,
                    du_leaves nodes, float *const *wait, du_diag *diag);

#endif
