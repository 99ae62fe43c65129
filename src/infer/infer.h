/* Running a model: threads, memory and the pages of the key/value cache, and one step over rows of
 * any number of sessions. A runner and its sessions are one thread's at a time. */
#ifndef DU_INFER_INFER_H
#define DU_INFER_INFER_H

#include "infer/repack.h"

typedef struct du_infer du_infer;
typedef struct du_session du_session;

typedef struct {
    int64_t n_threads; /* 0: the physical cores */
    bool pin;          /* bind each thread to a core */
    bool force_isa;    /* use `isa` instead of the best level of this machine */
    du_isa isa;
    bool auto_cache;     /* f16 for block-quantised models, f32 for the others */
    du_dtype cache_type; /* F32, F16, BF16 or Q8_0, when not auto_cache */
    int64_t n_ctx;       /* positions a session may have; 0: what fits in free memory, at most what
                            the model was trained for */
    int64_t n_sessions;  /* how many sessions of n_ctx positions the cache has pages for; 0: 1 */
    int64_t n_chunk;     /* rows per forward pass of a long prompt; 0: 512 */
    du_repack repack;
    size_t repack_bytes; /* after which a step of few rows repacks no more; 0: 32 MiB */
    du_repack_watch watch;
    bool deterministic; /* the same bits whatever the chunks and whoever shares a step; without it
                           many rows may be computed in BF16 where the processor is faster so,
                           repacked weights be summed in another order, and latent attention
                           of many rows be expanded */
} du_infer_params;

/* The parameters that suit most: everything 0, auto_cache. */
du_infer_params du_infer_defaults(void);

/* Makes a runner for a model, which is borrowed until du_infer_free.
 * Returns DU_OK; DU_EUNSUPPORTED (an isa this machine lacks, a cache type that does not divide the
 * model's rows); DU_ELIMIT (n_ctx larger than the model was trained for, or than memory);
 * DU_ENOMEM. */
DU_NODISCARD
du_err du_infer_new(du_infer **out, const du_model *model, const du_infer_params *params,
                    du_diag *diag);
void du_infer_free(du_infer *inf); /* takes NULL; its sessions are freed before */

const du_model *du_infer_model(const du_infer *inf);
const du_kv_layout *du_infer_kv_layout(const du_infer *inf);
int64_t du_infer_n_ctx(const du_infer *inf);
int64_t du_infer_n_threads(const du_infer *inf);
int64_t du_infer_n_chunk(const du_infer *inf);
du_isa du_infer_isa(const du_infer *inf);
int64_t du_infer_pages_free(const du_infer *inf);

/* What came of params.repack: OFF (the weights are read as they lie), AUTO (from memory) or CACHE
 * (from the file). */
du_repack du_infer_repacked(const du_infer *inf);

/* Turns params.deterministic on or off, and tells whether that changes what steps of so many rows
 * compute on this machine. */
void du_infer_set_deterministic(du_infer *inf, bool deterministic);
bool du_infer_deterministic_differs(const du_infer *inf, int64_t n_rows);

/* Rewrites now all weights that steps would rewrite as they come across them, so that what follows
 * runs at full speed. */
void du_infer_repack(du_infer *inf);

/* Listens to activations (nn/ctx.h); NULL stops. */
void du_infer_set_tap(du_infer *inf, du_tap_fn *tap, void *user);

/* What one session adds in a step: n tokens behind those it has; the logits after the last n_logits
 * of them go to logits [n_logits, V] f32. */
typedef struct {
    du_session *session;
    const int32_t *tokens;
    int64_t n;
    int64_t n_logits;
    float *logits;
} du_step_item;

/* One forward pass over the new tokens of n_items different sessions of one runner. What a session
 * gets does not depend on the others. On failure every session has the tokens and pages it had;
 * what the items' logits hold then is undefined. Returns DU_OK; DU_EINVAL (a token id outside the
 * vocabulary); DU_ELIMIT (a session would outgrow n_ctx, or no page of the cache is free);
 * DU_ENOMEM; an expert source's error. */
DU_NODISCARD
du_err du_infer_step(du_infer *inf, const du_step_item *items, int64_t n_items, du_diag *diag);

/* Bytes of cache for n positions of one session in a number type. */
DU_NODISCARD
du_err du_infer_cache_bytes(const du_model *model, du_dtype cache_type, int64_t n_ctx, int64_t *out,
                            du_diag *diag);

/* The cache type that auto_cache means for this model. */
du_dtype du_infer_auto_cache_type(const du_model *model);

#endif
