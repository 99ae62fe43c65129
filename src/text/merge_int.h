/* The merging of neighbours that byte-pair encodings share, over a function that says what two
 * neighbours make.
 *
 * A piece is a row of symbols. The pair of lowest rank is joined, the leftmost of equals first,
 * until no pair has a rank. Short rows are searched and closed up in place; long ones are linked
 * lists with a heap of their pairs, O(n log n). Both give the same. */
#ifndef DU_TEXT_MERGE_INT_H
#define DU_TEXT_MERGE_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"

#define DU_RANK_NONE UINT32_MAX

enum { DU_MERGE_SHORT_MAX = 64 }; /* symbols; beyond, the heap is quicker (bench_tokenizer) */

typedef struct {
    int32_t id;     /* token; what a negative one means is the caller's affair */
    uint32_t start; /* in the piece, bytes; the symbol ends where the next one starts */
    uint32_t rank;  /* of the pair with the next symbol, DU_RANK_NONE: they do not join */
    int32_t merged; /* what the pair makes */
} du_symbol;

typedef struct {
    int32_t prev, next; /* -1: none */
} du_link;

typedef struct {
    du_symbol *symbols; /* [n+1], the last only ends the one before */
    size_t n, cap;
    du_link *links; /* [n] of long rows */
    size_t cap_links;
    uint64_t *heap; /* rank << 32 | position; entries whose pair has changed are passed over */
    size_t n_heap, cap_heap;
} du_merge_work;

/* rank and merged of the pair (left, right), of which right ends at byte `end`. */
typedef void du_pair_fn(const void *arg, du_symbol *left, const du_symbol *right, uint32_t end);

static inline void du_merge_work_done(du_merge_work *w) {
    du_free(w->symbols);
    du_free(w->links);
    du_free(w->heap);
    *w = (du_merge_work){0};
}

/* Room for n symbols and the end. */
static inline bool du_merge_reserve(du_merge_work *w, size_t n) {
    if (n < w->cap) {
        return true;
    }
    size_t cap = n + n / 2 + 64;
    du_symbol *symbols = du_realloc_array(w->symbols, cap, sizeof symbols[0]);
    if (!symbols) {
        return false;
    }
    w->symbols = symbols;
    w->cap = cap;
    return true;
}

static inline void du_merge_short(du_merge_work *w, du_pair_fn *pair, const void *arg) {
    du_symbol *s = w->symbols;
    size_t n = w->n;
    for (;;) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            best = s[i].rank < s[best].rank ? i : best;
        }
        if (s[best].rank == DU_RANK_NONE) {
            break;
        }
        s[best].id = s[best].merged;
        n--;
        memmove(&s[best + 1], &s[best + 2], (n - best) * sizeof s[0]);
        s[best].rank = DU_RANK_NONE;
        if (best + 1 < n) {
            pair(arg, &s[best], &s[best + 1], s[best + 2].start);
        }
        if (best > 0) {
            pair(arg, &s[best - 1], &s[best], s[best + 1].start);
        }
    }
    w->n = n;
}

static inline void du_heap_sink(uint64_t *heap, size_t n, size_t i) {
    uint64_t key = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        child += child + 1 < n && heap[child + 1] < heap[child];
        if (heap[child] >= key) {
            break;
        }
        heap[i] = heap[child];
    }
    heap[i] = key;
}

static inline bool du_heap_push(du_merge_work *w, uint32_t rank, size_t pos) {
    if (!du_grow((void **)&w->heap, &w->cap_heap, w->n_heap, sizeof w->heap[0])) {
        return false;
    }
    uint64_t key = (uint64_t)rank << 32 | pos;
    size_t i = w->n_heap++;
    for (; i > 0 && w->heap[(i - 1) / 2] > key; i = (i - 1) / 2) {
        w->heap[i] = w->heap[(i - 1) / 2];
    }
    w->heap[i] = key;
    return true;
}

/* The pair that begins at pos anew, after one of its two has changed. */
static inline bool du_merge_renew(du_merge_work *w, int32_t pos, du_pair_fn *pair,
                                  const void *arg) {
    du_symbol *s = w->symbols;
    s[pos].rank = DU_RANK_NONE;
    int32_t next = w->links[pos].next;
    if (next < 0) {
        return true;
    }
    int32_t after = w->links[next].next;
    pair(arg, &s[pos], &s[next], s[after < 0 ? (int32_t)w->n : after].start);
    return s[pos].rank == DU_RANK_NONE || du_heap_push(w, s[pos].rank, (size_t)pos);
}

static inline bool du_merge_long(du_merge_work *w, du_pair_fn *pair, const void *arg) {
    du_symbol *s = w->symbols;
    if (w->n > w->cap_links) {
        du_free(w->links);
        w->links = du_alloc_array(w->cap, sizeof w->links[0]);
        w->cap_links = w->links ? w->cap : 0;
        if (!w->links) {
            return false;
        }
    }
    w->n_heap = 0;
    int32_t n = (int32_t)w->n;
    for (int32_t i = 0; i < n; i++) {
        w->links[i] = (du_link){i - 1, i + 1 < n ? i + 1 : -1};
        if (s[i].rank != DU_RANK_NONE && !du_heap_push(w, s[i].rank, (size_t)i)) {
            return false;
        }
    }
    while (w->n_heap) {
        uint64_t top = w->heap[0];
        w->heap[0] = w->heap[--w->n_heap];
        if (w->n_heap) {
            du_heap_sink(w->heap, w->n_heap, 0);
        }
        int32_t pos = (int32_t)(top & UINT32_MAX);
        if (s[pos].rank != top >> 32) {
            continue;
        }
        int32_t gone = w->links[pos].next, next = w->links[gone].next, prev = w->links[pos].prev;
        s[pos].id = s[pos].merged;
        s[gone].rank = DU_RANK_NONE;
        w->links[pos].next = next;
        if (next >= 0) {
            w->links[next].prev = pos;
        }
        if (!du_merge_renew(w, pos, pair, arg) ||
            (prev >= 0 && !du_merge_renew(w, prev, pair, arg))) {
            return false;
        }
    }
    du_symbol end = s[n];
    w->n = 0;
    for (int32_t i = 0; i >= 0; i = w->links[i].next) {
        s[w->n++] = s[i];
    }
    s[w->n] = end;
    return true;
}

/* Merges symbols[0..n), n >= 1, of which id and start are set, and symbols[n].start. Returns false
 * when memory is short. */
static inline bool du_merge_run(du_merge_work *w, du_pair_fn *pair, const void *arg) {
    du_symbol *s = w->symbols;
    for (size_t i = 0; i < w->n; i++) {
        s[i].rank = DU_RANK_NONE;
        if (i + 1 < w->n) {
            pair(arg, &s[i], &s[i + 1], s[i + 2].start);
        }
    }
    if (w->n > DU_MERGE_SHORT_MAX) {
        return du_merge_long(w, pair, arg);
    }
    du_merge_short(w, pair, arg);
    return true;
}

#endif
