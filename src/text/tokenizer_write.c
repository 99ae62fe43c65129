/* The tables of GGUF. Three things have to hold for the same text to give the same ids there:
 *
 *   byte-level   the passes are those of a named rule, which also says whether a piece that is a
 *                token is taken whole; where the tokenizer says otherwise, merging has to lead to
 *                every token anyway
 *   characters   the steps around the model are SentencePiece's (a blank in front, blanks to
 *                U+2581), and the merges are those that scores imply: every two tokens whose joint
 *                text is a token merge, and all merges to one token rank together */
#include "text/tokenizer_write.h"

#include <stdio.h>

#include "base/mem.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

#define BLANK "\xe2\x96\x81" /* U+2581 */

static du_err unsupported(du_diag *diag, const char *why) {
    return du_fail(diag, DU_EUNSUPPORTED, "GGUF cannot say what this tokenizer does: %s", why);
}

/* Whether merging makes each normal token out of its own bytes. */
static du_err merges_reach_all(const du_tokenizer *tok, bool *all, du_diag *diag) {
    du_merge_work work = {0};
    du_ids ids = {0};
    du_err err = DU_OK;
    *all = true;
    for (int32_t id = 0; id < tok->vocab.n && err == DU_OK && *all; id++) {
        if (tok->vocab.types[id] == DU_TOKEN_NORMAL) {
            ids.n = 0;
            err = du_encode_merged(tok, &work, tok->vocab.pieces[id], &ids, diag);
            *all = ids.n == 1 && ids.ids[0] == id;
        }
    }
    du_merge_work_done(&work);
    du_ids_done(&ids);
    return err;
}

static du_err check_byte_level(const du_tokenizer *tok, du_diag *diag) {
    if (!tok->rule) {
        return unsupported(diag, "its pre-tokenizer is none that has a name");
    }
    if (tok->edits.n) {
        return unsupported(diag, "it puts a blank before the text");
    }
    if (tok->rule->ignore_merges != tok->ignore_merges) {
        bool all = false;
        du_err err = merges_reach_all(tok, &all, diag);
        return err != DU_OK || all ? err : unsupported(diag, "its use of ignore_merges");
    }
    return DU_OK;
}

/* Whether the steps are an optional blank in front and blanks to U+2581; *prefix: there is one. */
static bool is_sentencepiece(const du_normalizer *z, bool *prefix) {
    bool replaces = false;
    *prefix = false;
    for (size_t i = 0; i < z->n; i++) {
        const du_normalize_step *step = &z->steps[i];
        if (strcmp(step->to, BLANK) != 0) {
            return false;
        }
        if (step->kind == DU_NORMALIZE_REPLACE && strcmp(step->from, " ") == 0 && !replaces) {
            replaces = true;
        } else if (step->kind == DU_NORMALIZE_PREPEND && !*prefix) {
            *prefix = true;
        } else {
            return false;
        }
    }
    return replaces;
}

static bool joins(const du_tokenizer *tok, int32_t id) {
    return tok->vocab.types[id] == DU_TOKEN_NORMAL || tok->vocab.types[id] == DU_TOKEN_USER_DEFINED;
}

static int32_t find_joining(const du_tokenizer *tok, du_sv text) {
    int32_t id = du_vocab_find(&tok->vocab, text);
    return id >= 0 && joins(tok, id) ? id : -1;
}

/* Pairs of tokens that make token id, as sentencepiece would join them. */
static int64_t count_pairs(const du_tokenizer *tok, int32_t id) {
    du_sv text = tok->vocab.texts[id];
    int64_t n = 0;
    for (size_t cut = 1; cut < text.len; cut++) {
        if (((uint8_t)text.s[cut] & 0xc0) != 0x80) {
            n += find_joining(tok, (du_sv){text.s, cut}) >= 0 &&
                 find_joining(tok, (du_sv){text.s + cut, text.len - cut}) >= 0;
        }
    }
    return n;
}

/* Whether every pair that makes a token is a merge, and no merge to another token ranks between
 * two to the same. */
static bool merges_are_scores(const du_tokenizer *tok, int32_t *n_to) {
    memset(n_to, 0, (size_t)tok->vocab.n * sizeof n_to[0]);
    int32_t last = -1;
    for (size_t i = 0; i < tok->n_merges; i++) {
        const du_merge *m = &tok->merges[i];
        if (m->left < 0) {
            continue;
        }
        if (m->merged != last && n_to[m->merged]) {
            return false;
        }
        last = m->merged;
        n_to[last]++;
    }
    for (int32_t id = 0; id < tok->vocab.n; id++) {
        if (joins(tok, id) && count_pairs(tok, id) != n_to[id]) {
            return false;
        }
    }
    return true;
}

static du_err check_chars(const du_tokenizer *tok, du_diag *diag) {
    bool prefix;
    if (!is_sentencepiece(&tok->normalizer, &prefix) || tok->edits.n) {
        return unsupported(diag, "its normaliser is not SentencePiece's");
    }
    if (tok->pretok) {
        return unsupported(diag, "it splits text before it merges");
    }
    for (size_t i = 0; i < 256; i++) {
        if (tok->vocab.bytes[i] < 0) {
            return unsupported(diag, "it has no tokens for all bytes");
        }
    }
    int32_t *n_to = du_alloc_array((size_t)tok->vocab.n, sizeof n_to[0]);
    if (!n_to) {
        return du_fail_nomem(diag, "the scores");
    }
    bool same = merges_are_scores(tok, n_to);
    du_free(n_to);
    return same ? DU_OK : unsupported(diag, "its merges are not those of scores");
}

/* The names that converters take for control tokens though tokenizer.json does not say so. */
static bool looks_special(du_sv text) {
    return (du_sv_starts(text, "<|") && du_sv_ends(text, "|>")) ||
           (du_sv_starts(text, "<｜") && du_sv_ends(text, "｜>"));
}

enum { PAD_BYTES = 32 }; /* "[PAD9223372036854775807]" and its end */

static void fill_tokens(du_tokenizer_tables *t, const du_tokenizer *tok, char *pads) {
    for (int64_t i = 0; i < t->n_tokens; i++) {
        if (i < tok->vocab.n) {
            t->tokens[i] = tok->vocab.texts[i];
            t->types[i] = tok->vocab.types[i];
            if (t->types[i] == DU_TOKEN_USER_DEFINED && looks_special(t->tokens[i])) {
                t->types[i] = DU_TOKEN_CONTROL;
            }
        } else {
            int len = snprintf(pads, PAD_BYTES, "[PAD%lld]", (long long)i);
            t->tokens[i] = (du_sv){pads, (size_t)len};
            t->types[i] = DU_TOKEN_UNUSED;
            pads += PAD_BYTES;
        }
    }
}

static void fill_merges(du_tokenizer_tables *t, const du_tokenizer *tok, char *to) {
    for (size_t i = 0; i < tok->n_merges; i++) {
        const du_merge *m = &tok->merges[i];
        if (m->left < 0) {
            continue;
        }
        du_sv left = tok->vocab.texts[m->left], right = tok->vocab.texts[m->right];
        memcpy(to, left.s, left.len);
        to[left.len] = ' ';
        memcpy(to + left.len + 1, right.s, right.len);
        t->merges[t->n_merges++] = (du_sv){to, left.len + 1 + right.len};
        to += left.len + 1 + right.len;
    }
}

/* Scores fall with the rank of the first merge that makes the token; what no merge makes is behind.
 */
static void fill_scores(du_tokenizer_tables *t, const du_tokenizer *tok) {
    for (int64_t i = 0; i < t->n_tokens; i++) {
        if (tok->kind == DU_TOKENIZE_SPM) {
            t->scores[i] = i < tok->vocab.n ? tok->vocab.scores[i] : 0;
        } else {
            t->scores[i] = t->types[i] == DU_TOKEN_NORMAL ? -(float)tok->n_merges - 1 : 0;
        }
    }
    for (size_t i = tok->n_merges; i-- > 0;) {
        if (tok->merges[i].left >= 0) {
            t->scores[tok->merges[i].merged] = -(float)i;
        }
    }
}

/* Bytes of all merges as text. */
static size_t merges_bytes(const du_tokenizer *tok) {
    size_t n = 0;
    for (size_t i = 0; i < tok->n_merges; i++) {
        const du_merge *m = &tok->merges[i];
        n += m->left < 0 ? 0 : tok->vocab.texts[m->left].len + tok->vocab.texts[m->right].len + 1;
    }
    return n;
}

static const char *what_is_lost(const du_tokenizer *tok) {
    const du_added_set *sets[] = {&tok->added, &tok->added_normalized};
    if (tok->kind == DU_TOKENIZE_BYTES && tok->normalizer.n) {
        return "the normaliser";
    }
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; k < sets[i]->n; k++) {
            const du_added *a = &sets[i]->tokens[k];
            if (a->lstrip || a->rstrip || a->single_word) {
                return "what added tokens do to white space and words beside them";
            }
        }
    }
    return NULL;
}

static bool reserve(du_tokenizer_tables *t, const du_tokenizer *tok) {
    bool spm = tok->kind != DU_TOKENIZE_BYTES;
    size_t n = (size_t)t->n_tokens, n_pads = n - (size_t)tok->vocab.n, pads, all;
    t->tokens = du_alloc_array(n, sizeof t->tokens[0]);
    t->types = du_alloc_array(n, sizeof t->types[0]);
    t->scores = spm ? du_alloc_array(n, sizeof t->scores[0]) : NULL;
    t->merges = du_alloc_array(tok->n_merges, sizeof t->merges[0]);
    if (du_mul_size(n_pads, PAD_BYTES, &pads) && du_add_size(pads, merges_bytes(tok), &all)) {
        t->storage = du_alloc(all);
    }
    return t->tokens && t->types && t->merges && t->storage && (t->scores || !spm);
}

du_err du_tokenizer_tables_make(du_tokenizer_tables *out, const du_tokenizer *tok, int64_t n_tokens,
                                du_diag *diag) {
    *out = (du_tokenizer_tables){.n_tokens = n_tokens};
    if (n_tokens < tok->vocab.n || n_tokens > DU_VOCAB_TOKENS_MAX) {
        return du_fail(diag, DU_EINVAL, "%lld rows for a vocabulary of %d tokens",
                       (long long)n_tokens, tok->vocab.n);
    }
    du_err err = tok->kind == DU_TOKENIZE_BYTES   ? check_byte_level(tok, diag)
                 : tok->kind == DU_TOKENIZE_CHARS ? check_chars(tok, diag)
                                                  : DU_OK;
    if (err == DU_OK && !reserve(out, tok)) {
        err = du_fail_nomem(diag, "the tokenizer's tables");
    }
    if (err != DU_OK) {
        du_tokenizer_tables_done(out);
        return err;
    }
    size_t n_pads = (size_t)(n_tokens - tok->vocab.n);
    out->model = tok->info.model;
    out->pre = tok->rule ? tok->rule->name : "default";
    out->lost = what_is_lost(tok);
    fill_tokens(out, tok, out->storage);
    if (out->scores) {
        fill_scores(out, tok);
    } else {
        fill_merges(out, tok, out->storage + n_pads * PAD_BYTES);
    }
    return DU_OK;
}

void du_tokenizer_tables_done(du_tokenizer_tables *t) {
    du_free(t->tokens);
    du_free(t->types);
    du_free(t->scores);
    du_free(t->merges);
    du_free(t->storage);
    *t = (du_tokenizer_tables){0};
}
