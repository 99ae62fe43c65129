/* SentencePiece's BPE: neighbours whose joint text is a token are joined, the highest score first
 * (Kudo & Richardson 2018, section 3). */
#ifndef DU_TEXT_SPM_H
#define DU_TEXT_SPM_H

#include "base/err.h"
#include "text/merge_int.h"
#include "text/vocab.h"

typedef struct {
    const du_vocab *vocab; /* borrowed */
    uint32_t *ranks;     /* [n] by falling score, equal ones equal; DU_RANK_NONE: never joined to */
    size_t text_len_max; /* bytes of the longest token */
} du_spm;

/* vocab has scores. Returns false when memory is short. */
DU_NODISCARD
bool du_spm_init(du_spm *spm, const du_vocab *vocab);
void du_spm_done(du_spm *spm); /* also of a zeroed one */

/* The token that stands for this text and may come out of merging, -1: none. Control tokens may
 * not: text must never turn into one by itself. */
int32_t du_spm_find(const du_spm *spm, du_sv text);

/* Merges the symbols of w, whose text this is; afterwards their ids are tokens or, where a single
 * character has none, -1. Returns false when memory is short. */
DU_NODISCARD
bool du_spm_merge(const du_spm *spm, du_merge_work *w, const char *text);

#endif
