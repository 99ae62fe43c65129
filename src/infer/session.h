/* A session: a token sequence that is synced to. The caller says which tokens the sequence should
 * have; the session keeps what it has computed of the common prefix and computes the rest. */
#ifndef DU_INFER_SESSION_H
#define DU_INFER_SESSION_H

#include "infer/infer.h"

/* Returns DU_OK, DU_ENOMEM. Free with du_session_free before the runner. */
DU_NODISCARD
du_err du_session_new(du_session **out, du_infer *inf, du_diag *diag);
void du_session_free(du_session *s); /* takes NULL */

/* A second session with the same tokens, sharing the cache's pages; a shared page is copied by the
 * first session that writes into it. Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_session_fork(du_session **out, const du_session *src, du_diag *diag);

du_infer *du_session_infer(const du_session *s);
int64_t du_session_n(const du_session *s); /* tokens whose keys and values are cached */
const int32_t *du_session_tokens(const du_session *s);

/* How many of the n tokens a sync would find in the cache. */
int64_t du_session_common(const du_session *s, const int32_t *tokens, int64_t n);

/* Called after each forward pass of a long sync; returning true stops it (DU_ECANCELLED, what was
 * computed stays). */
typedef bool du_sync_progress_fn(void *user, int64_t n_done, int64_t n_all);

/* Makes the session hold exactly tokens[0..n), n >= 1: the common prefix stays, the rest of what it
 * had is forgotten, the rest of tokens is computed. Afterwards du_session_logits gives the logits
 * after the last token.
 * Returns what du_infer_step does, and DU_ECANCELLED. */
DU_NODISCARD
du_err du_session_sync(du_session *s, const int32_t *tokens, int64_t n,
                       du_sync_progress_fn *progress, void *user, du_diag *diag);

/* [V] f32, logits after the last token of the last sync; valid until the next. */
const float *du_session_logits(const du_session *s);

/* Sees the logits after tokens[i], i ascending; returning true stops (DU_ECANCELLED). */
typedef bool du_row_fn(void *user, int64_t i, const float *logits);

/* As du_session_sync, with the logits after each of tokens[first..n). */
DU_NODISCARD
du_err du_session_sync_rows(du_session *s, const int32_t *tokens, int64_t n, int64_t first,
                            du_row_fn *fn, void *user, du_diag *diag);

/* Log-likelihood (natural) of a continuation after a prefix, and whether every token of it was the
 * greedy choice. The prefix stays in the cache, so that many continuations share its cost.
 * prefix [n_prefix >= 1]; cont [n_cont >= 1]. Returns what du_session_sync does. */
DU_NODISCARD
du_err du_session_score(du_session *s, const int32_t *prefix, int64_t n_prefix, const int32_t *cont,
                        int64_t n_cont, double *log_prob, bool *greedy, du_diag *diag);

/* Forgets tokens from position n on (n <= du_session_n). */
void du_session_truncate(du_session *s, int64_t n);

/* Writes tokens and cache to a file, atomically, and reads them back into a session of a runner
 * with the same model and cache type. The next sync recomputes the last token only. A file holds
 * nothing of other sessions.
 * Save returns DU_OK, DU_EIO, DU_ENOMEM. Restore returns DU_OK; DU_ENOENT, DU_EIO; DU_EFORMAT
 * (another model or cache type, or damage), DU_ELIMIT (more tokens than n_ctx): the session stays
 * as it was; or DU_ELIMIT (no page is free): it is empty. */
DU_NODISCARD
du_err du_session_save(const du_session *s, const char *path, du_diag *diag);
DU_NODISCARD
du_err du_session_restore(du_session *s, const char *path, du_diag *diag);

/* The natural logarithm of softmax(logits)[token], in double. logits [V] */
double du_log_softmax_at(const float *logits, int64_t V, int32_t token);

#endif
