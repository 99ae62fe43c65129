/* Text to ids.
 *
 *     text -> [added tokens as they stand] -> normaliser -> [added tokens that are normalised]
 *          -> edits of the pre-tokenizer -> pieces -> ids of each piece
 *
 * Most pieces of a text have been seen before, so each working memory holds a cache of pieces and
 * their ids: a table of cache lines, one for every slot, where a new piece takes the place of the
 * old. It needs no memory that grows and nothing is ever thrown out but by a newer piece.
 *
 * Working memories (cache, buffers, match data) are kept in a pool beside the tokenizer and lent to
 * one call at a time, so that the tokenizer itself never changes. */
#include "base/mem.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

enum {
    TEXT_BYTES_MAX = 1 << 30,
    PIECE_BYTES_MAX = 38, /* of a cached piece */
    PIECE_IDS_MAX = 6,
    CACHE_SLOTS = 1 << 15
};

typedef struct {
    uint8_t n_bytes, n_ids; /* n_bytes 0: free */
    char bytes[PIECE_BYTES_MAX];
    int32_t ids[PIECE_IDS_MAX];
} cached;
_Static_assert(sizeof(cached) == 64, "a slot of the cache is a cache line");

typedef struct du_encode_work du_encode_work;
struct du_encode_work {
    du_encode_work *next;
    du_pretok_work *pretok;
    du_merge_work merge;
    du_str normal[2], edited[2], prefixed;
    cached *cache;
};

static void work_free(du_encode_work *work) {
    for (du_encode_work *next; work; work = next) {
        next = work->next;
        du_pretok_work_free(work->pretok);
        du_merge_work_done(&work->merge);
        for (size_t i = 0; i < 2; i++) {
            du_str_done(&work->normal[i]);
            du_str_done(&work->edited[i]);
        }
        du_str_done(&work->prefixed);
        du_free(work->cache);
        du_free(work);
    }
}

du_work_pool *du_work_pool_new(void) {
    du_work_pool *pool = du_alloc_zero(1, sizeof *pool);
    if (pool) {
        pthread_mutex_init(&pool->lock, NULL);
    }
    return pool;
}

void du_work_pool_free(du_work_pool *pool) {
    if (pool) {
        work_free(pool->idle);
        pthread_mutex_destroy(&pool->lock);
        du_free(pool);
    }
}

static du_err take_work(const du_tokenizer *tok, du_encode_work **out, du_diag *diag) {
    du_work_pool *pool = tok->pool;
    pthread_mutex_lock(&pool->lock);
    du_encode_work *work = pool->idle;
    pool->idle = work ? work->next : NULL;
    pthread_mutex_unlock(&pool->lock);
    if (!work) {
        work = du_alloc_zero(1, sizeof *work);
        cached *cache = du_alloc_aligned(CACHE_SLOTS * sizeof cache[0]);
        if (!work || !cache) {
            du_free(work);
            du_free(cache);
            return du_fail_nomem(diag, "a tokenizer's working memory");
        }
        memset(cache, 0, CACHE_SLOTS * sizeof cache[0]);
        work->cache = cache;
        du_err err = tok->pretok ? du_pretok_work_new(&work->pretok, tok->pretok, diag) : DU_OK;
        if (err != DU_OK) {
            work_free(work);
            return err;
        }
    }
    work->next = NULL;
    *out = work;
    return DU_OK;
}

enum { KEPT_BYTES_MAX = 4 << 20 }; /* buffers beyond are not kept after a call */

static void give_work_back(const du_tokenizer *tok, du_encode_work *work) {
    du_str *buffers[] = {&work->normal[0], &work->normal[1], &work->edited[0], &work->edited[1],
                         &work->prefixed};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        if (buffers[i]->cap > KEPT_BYTES_MAX || buffers[i]->failed) {
            du_str_done(buffers[i]);
        }
    }
    if (work->merge.cap * sizeof work->merge.symbols[0] > KEPT_BYTES_MAX) {
        du_merge_work_done(&work->merge);
    }
    pthread_mutex_lock(&tok->pool->lock);
    work->next = tok->pool->idle;
    tok->pool->idle = work;
    pthread_mutex_unlock(&tok->pool->lock);
}

/* A call of encode. */
typedef struct {
    const du_tokenizer *tok;
    du_encode_work *work;
    bool special;
    bool after_added; /* nothing stands between here and the start or an added token */
    du_ids *out;
    du_diag *diag;
} call;

static du_err nomem(du_diag *diag) {
    return du_fail_nomem(diag, "the ids of a text");
}

static inline du_err add_id(du_ids *out, int32_t id, du_diag *diag) {
    if (out->n < out->cap) {
        out->ids[out->n++] = id;
        return DU_OK;
    }
    return du_ids_add(out, id) ? DU_OK : nomem(diag);
}

/* The characters of a piece as symbols. A character of a BPE vocabulary that has no token becomes
 * the tokens of its bytes, where the vocabulary has all of them. */
static void chars_to_symbols(const du_tokenizer *tok, du_merge_work *w, du_sv piece) {
    size_t n = 0;
    for (size_t i = 0; i < piece.len;) {
        int32_t cp;
        size_t len = du_utf8_next(piece.s + i, piece.len - i, &cp);
        du_symbol s = {.id = -1, .start = (uint32_t)i};
        bool by_bytes = false;
        if (tok->kind == DU_TOKENIZE_CHARS) {
            s.id = du_vocab_find(&tok->vocab, (du_sv){piece.s + i, len});
            bool usable = s.id >= 0 && (tok->vocab.types[s.id] == DU_TOKEN_NORMAL ||
                                        tok->vocab.types[s.id] == DU_TOKEN_USER_DEFINED);
            s.id = usable ? s.id : -1;
            by_bytes = !usable;
            for (size_t k = 0; k < len && by_bytes; k++) {
                by_bytes = tok->vocab.bytes[(uint8_t)piece.s[i + k]] >= 0;
            }
        }
        for (size_t k = 0; k < len && by_bytes; k++) {
            w->symbols[n++] = (du_symbol){.id = tok->vocab.bytes[(uint8_t)piece.s[i + k]],
                                          .start = (uint32_t)(i + k)};
        }
        if (!by_bytes) {
            w->symbols[n++] = s;
        }
        i += len;
    }
    w->n = n;
}

static void bytes_to_symbols(const du_tokenizer *tok, du_merge_work *w, du_sv piece) {
    for (size_t i = 0; i < piece.len; i++) {
        w->symbols[i] =
            (du_symbol){.id = tok->vocab.bytes[(uint8_t)piece.s[i]], .start = (uint32_t)i};
    }
    w->n = piece.len;
}

/* A symbol that is no token: in SentencePiece vocabularies the tokens of its bytes, else, and for
 * bytes without one, the unknown token. */
static du_err add_unknown(const du_tokenizer *tok, du_sv text, bool after_unknown, du_ids *out,
                          du_diag *diag) {
    bool all = tok->kind == DU_TOKENIZE_SPM;
    for (size_t i = 0; i < text.len && all; i++) {
        all = tok->vocab.bytes[(uint8_t)text.s[i]] >= 0;
    }
    if (all) {
        du_err err = DU_OK;
        for (size_t i = 0; i < text.len && err == DU_OK; i++) {
            err = add_id(out, tok->vocab.bytes[(uint8_t)text.s[i]], diag);
        }
        return err;
    }
    bool leave_out = tok->unk < 0 || (tok->fuse_unk && after_unknown);
    return leave_out ? DU_OK : add_id(out, tok->unk, diag);
}

du_err du_encode_merged(const du_tokenizer *tok, du_merge_work *w, du_sv piece, du_ids *out,
                        du_diag *diag) {
    if (piece.len > TEXT_BYTES_MAX) { /* a normaliser may make a text longer */
        return du_fail(diag, DU_ELIMIT, "a piece of %zu bytes, more than %d", piece.len,
                       TEXT_BYTES_MAX);
    }
    if (!du_merge_reserve(w, piece.len)) {
        return nomem(diag);
    }
    if (tok->kind == DU_TOKENIZE_BYTES) {
        bytes_to_symbols(tok, w, piece);
    } else {
        chars_to_symbols(tok, w, piece);
    }
    w->symbols[w->n] = (du_symbol){.id = -1, .start = (uint32_t)piece.len};
    bool ok = tok->kind == DU_TOKENIZE_SPM ? du_spm_merge(&tok->spm, w, piece.s)
                                           : du_bpe_merge(&tok->bpe, w);
    du_err err = ok ? DU_OK : nomem(diag);
    for (size_t i = 0; i < w->n && err == DU_OK; i++) {
        const du_symbol *s = &w->symbols[i];
        if (s->id >= 0) {
            err = add_id(out, s->id, diag);
        } else {
            du_sv text = {piece.s + s->start, s[1].start - s->start};
            err = add_unknown(tok, text, i > 0 && s[-1].id < 0, out, diag);
        }
    }
    return err;
}

/* Which slot of the cache: texts that are chosen to share one are only not remembered. */
static inline uint64_t piece_hash(const char *s, size_t len) {
    uint64_t h = 0x9e3779b97f4a7c15 ^ len, word = 0;
    for (; len > 8; s += 8, len -= 8) {
        memcpy(&word, s, sizeof word);
        h = (h ^ word) * 0xff51afd7ed558ccd;
        h ^= h >> 32;
    }
    if (len >= 4) { /* two loads that overlap: shorter than a copy of len bytes */
        uint32_t first, last;
        memcpy(&first, s, sizeof first);
        memcpy(&last, s + len - sizeof last, sizeof last);
        word = (uint64_t)first << 32 | last;
    } else if (len) {
        word = (uint64_t)(uint8_t)s[0] << 16 | (uint64_t)(uint8_t)s[len / 2] << 8 |
               (uint8_t)s[len - 1];
    }
    h = (h ^ word) * 0xff51afd7ed558ccd;
    h = (h ^ (h >> 32)) * 0xc4ceb9fe1a85ec53;
    return h ^ (h >> 29);
}

static du_err encode_piece(void *arg, du_sv piece) {
    call *c = arg;
    cached *slot = NULL;
    if (piece.len <= PIECE_BYTES_MAX) {
        slot = &c->work->cache[piece_hash(piece.s, piece.len) % CACHE_SLOTS];
        if (slot->n_bytes == piece.len && memcmp(slot->bytes, piece.s, piece.len) == 0) {
            du_err err = DU_OK;
            for (size_t i = 0; i < slot->n_ids && err == DU_OK; i++) {
                err = add_id(c->out, slot->ids[i], c->diag);
            }
            return err;
        }
    }
    size_t before = c->out->n;
    const int64_t *whole = du_hash_find(&c->tok->whole, piece);
    du_err err = whole ? add_id(c->out, (int32_t)*whole, c->diag)
                       : du_encode_merged(c->tok, &c->work->merge, piece, c->out, c->diag);
    size_t n = c->out->n - before;
    if (err == DU_OK && slot && n <= PIECE_IDS_MAX) {
        slot->n_bytes = (uint8_t)piece.len;
        slot->n_ids = (uint8_t)n;
        memcpy(slot->bytes, piece.s, piece.len);
        if (n) {
            memcpy(slot->ids, c->out->ids + before, n * sizeof slot->ids[0]);
        }
    }
    return err;
}

#define LOW_LINE "\xe2\x96\x81" /* U+2581 */

static bool blank_at(du_sv text, size_t i) {
    return text.len - i >= 3 && memcmp(text.s + i, LOW_LINE, 3) == 0;
}

/* Hands a piece on in parts that no token goes across: before each run of U+2581. */
static du_err encode_parts(void *arg, du_sv piece) {
    const du_sv blank = {LOW_LINE, 3};
    size_t start = 0;
    du_err err = DU_OK;
    for (int64_t at = 0; err == DU_OK && (at = du_sv_find(piece, blank, (size_t)at)) >= 0;
         at += 3) {
        size_t cut = (size_t)at;
        if (cut > start && !(cut >= 3 && blank_at(piece, cut - 3))) {
            err = encode_piece(arg, (du_sv){piece.s + start, cut - start});
            start = cut;
        }
    }
    return err == DU_OK ? encode_piece(arg, (du_sv){piece.s + start, piece.len - start}) : err;
}

/* Text in which every added token has been found. */
static du_err encode_plain(call *c, du_sv text, bool at_start) {
    const du_tokenizer *tok = c->tok;
    if (tok->prefix_after_added) {
        bool prefix = tok->info.add_space_prefix && c->after_added;
        du_str *to = &c->work->prefixed;
        du_str_reset(to);
        du_str_add_s(to, prefix ? " " : "");
        du_str_add_sv(to, text);
        if (to->failed) {
            return nomem(c->diag);
        }
        text = du_str_view(to);
    }
    c->after_added = false;
    du_err err = du_normalizer_run(&tok->edits, text, at_start, c->work->edited, &text, c->diag);
    if (err != DU_OK) {
        return err;
    }
    du_piece_fn *fn = tok->cut_at_blank ? encode_parts : encode_piece;
    return tok->pretok ? du_pretok_split(tok->pretok, c->work->pretok, text, fn, c, c->diag)
                       : fn(c, text);
}

typedef du_err text_fn(call *c, du_sv text, bool at_start);

/* Cuts text at the added tokens of a set and hands what is between them to fn. */
static du_err cut_added(call *c, const du_added_set *set, du_sv text, bool at_start, text_fn *fn) {
    size_t done = 0;
    du_added_match match;
    while (done < text.len && du_added_find(set, text, done, c->special, &match)) {
        du_err err = match.start > done
                         ? fn(c, (du_sv){text.s + done, match.start - done}, at_start && !done)
                         : DU_OK;
        if (err == DU_OK) {
            err = add_id(c->out, match.token->id, c->diag);
        }
        if (err != DU_OK) {
            return err;
        }
        c->after_added = true;
        done = match.end;
    }
    return done < text.len ? fn(c, (du_sv){text.s + done, text.len - done}, at_start && !done)
                           : DU_OK;
}

static du_err encode_raw(call *c, du_sv text, bool at_start) {
    du_err err =
        du_normalizer_run(&c->tok->normalizer, text, at_start, c->work->normal, &text, c->diag);
    return err == DU_OK ? cut_added(c, &c->tok->added_normalized, text, at_start, encode_plain)
                        : err;
}

du_err du_tokenizer_encode(const du_tokenizer *tok, du_sv text, unsigned flags, du_ids *out,
                           du_diag *diag) {
    if (text.len > TEXT_BYTES_MAX) {
        return du_fail(diag, DU_ELIMIT, "a text of %zu bytes, more than %d", text.len,
                       TEXT_BYTES_MAX);
    }
    call c = {.tok = tok,
              .special = flags & DU_ENCODE_SPECIAL,
              .after_added = true,
              .out = out,
              .diag = diag};
    du_err err = take_work(tok, &c.work, diag);
    if (err != DU_OK) {
        return err;
    }
    size_t before = out->n;
    err = cut_added(&c, &tok->added, text, true, encode_raw);
    if (err != DU_OK) {
        out->n = before;
    }
    give_work_back(tok, c.work);
    return err;
}

du_err du_tokenizer_encode_prompt(const du_tokenizer *tok, du_sv text, unsigned flags, du_ids *out,
                                  du_diag *diag) {
    size_t before = out->n;
    int32_t bos = tok->info.add_bos ? tok->info.bos : -1;
    if (bos >= 0) {
        du_err err = add_id(out, bos, diag);
        if (err != DU_OK) {
            return err;
        }
    }
    du_err err = du_tokenizer_encode(tok, text, flags, out, diag);
    if (err != DU_OK) {
        out->n = before;
    } else if (bos >= 0 && out->n >= before + 2 && out->ids[before + 1] == bos) {
        /* The text has its own. */
        out->n--;
        memmove(out->ids + before, out->ids + before + 1, (out->n - before) * sizeof out->ids[0]);
    }
    return err;
}
