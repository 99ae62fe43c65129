/* Rewriting of text before it is split: the normaliser of tokenizer.json, and what its
 * pre-tokenizers change before they split. */
#ifndef DU_TEXT_NORMALIZER_H
#define DU_TEXT_NORMALIZER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

typedef enum {
    DU_NORMALIZE_NFC,
    DU_NORMALIZE_PREPEND,       /* `to` before a text that is not empty */
    DU_NORMALIZE_PREPEND_ONCE,  /* the same unless the text begins with it */
    DU_NORMALIZE_PREPEND_FIRST, /* the same, and only where the whole text begins */
    DU_NORMALIZE_REPLACE        /* every `from` by `to` */
} du_normalize_kind;

typedef struct {
    du_normalize_kind kind;
    char *from, *to; /* owned */
    size_t n_from, n_to;
} du_normalize_step;

enum { DU_NORMALIZE_STEPS_MAX = 16, DU_NORMALIZE_BYTES_MAX = 64 };

typedef struct {
    du_normalize_step steps[DU_NORMALIZE_STEPS_MAX];
    size_t n;
} du_normalizer;

void du_normalizer_done(du_normalizer *z); /* also of a zeroed one */

/* Adds a step behind the others; from and to are copied, at most DU_NORMALIZE_BYTES_MAX long, from
 * not empty where it counts. Returns DU_OK, DU_EUNSUPPORTED, DU_ELIMIT, DU_ENOMEM. */
DU_NODISCARD
du_err du_normalizer_add(du_normalizer *z, du_normalize_kind kind, du_sv from, du_sv to,
                         du_diag *diag);

/* Rewrites text, which begins the whole text where at_start says so. *out is text itself where
 * there is nothing to do, else it lies in one of the two buffers, which are reused. Returns DU_OK,
 * DU_ENOMEM, DU_ELIMIT (the result is over 16 times as long). */
DU_NODISCARD
du_err du_normalizer_run(const du_normalizer *z, du_sv text, bool at_start, du_str buffers[2],
                         du_sv *out, du_diag *diag);

#endif
