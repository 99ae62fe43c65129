/* A shuffle in bounded memory: documents wait in a window, and when it is full one of them, drawn
 * at random, goes on. The order depends on the seed and the documents alone. */
#ifndef DU_DATA_SHUFFLE_H
#define DU_DATA_SHUFFLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* Takes a document (du_bins_add). */
typedef du_err du_document_fn(void *arg, const int32_t *ids, const char *counts, int64_t n,
                              bool whole, du_diag *diag);

typedef struct du_shuffle du_shuffle;

/* window_bytes  of memory; 0: documents go on in their order
 * fn            takes what leaves the window; what it returns when not DU_OK ends the call
 * Returns DU_OK, DU_ENOMEM. Free with du_shuffle_free, which takes NULL. */
DU_NODISCARD
du_err du_shuffle_new(du_shuffle **out, int64_t window_bytes, uint64_t seed, du_document_fn *fn,
                      void *arg, du_diag *diag);
void du_shuffle_free(du_shuffle *shuffle);

/* Adds a document, which is copied; the parameters of du_bins_add. Returns DU_OK, DU_ENOMEM, fn's
 * errors. */
DU_NODISCARD
du_err du_shuffle_add(du_shuffle *shuffle, const int32_t *ids, const char *counts, int64_t n,
                      bool whole, du_diag *diag);

/* Empties the window. */
DU_NODISCARD
du_err du_shuffle_flush(du_shuffle *shuffle, du_diag *diag);

#endif
