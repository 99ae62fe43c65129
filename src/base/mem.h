/* Memory: the counted heap, and arenas.
 *
 * Every heap block of the library comes from here (malloc and free are poisoned elsewhere), so that
 * tests can count allocations, let the n-th one fail, and assert that a decode step makes none.
 * An arena hands out pieces that live until a mark is released; it keeps its chunks for the next
 * round, so that a steady state allocates nothing. */
#ifndef DU_BASE_MEM_H
#define DU_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Heap blocks. All return NULL when memory is short (or the test hook says so); n = 0 gives a
 * unique pointer. Free with du_free, which takes NULL. Thread-safe. */
void *du_alloc(size_t n_bytes);
void *du_alloc_zero(size_t n, size_t size_bytes);  /* n * size, overflow-checked, zeroed */
void *du_alloc_array(size_t n, size_t size_bytes); /* n * size, overflow-checked */
void *du_alloc_aligned(size_t n_bytes);            /* aligned to DU_ALIGN */
void *du_realloc(void *p, size_t n_bytes);         /* p from du_alloc*, not _aligned */
void *du_realloc_array(void *p, size_t n, size_t size_bytes);
char *du_strdup(const char *s);
char *du_strndup(const char *s, size_t len); /* copies len bytes and adds a NUL */
void du_free(void *p);

#define DU_ALIGN 64 /* bytes: a cache line, and the widest vector */

/* Makes room for one more element of *items (capacity *cap, count n): doubles when full.
 * Returns false, with everything unchanged, when memory is short. */
bool du_grow(void **items, size_t *cap, size_t n, size_t size_bytes);

/* a * b and a + b into *out; false when the result does not fit. */
static inline bool du_mul_size(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool du_add_size(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}
static inline bool du_mul_i64(int64_t a, int64_t b, int64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

typedef struct {
    int64_t n_calls;    /* allocations asked for since the start */
    int64_t n_live;     /* blocks not yet freed */
    int64_t bytes_live; /* their size */
} du_mem_stats;

du_mem_stats du_mem_get_stats(void);

/* Test hook: the n-th allocation from now (1 = the next) fails, and with `forever` all after it;
 * n = 0 switches it off. */
void du_mem_fail_at(int64_t n, bool forever);

/* n_bytes of zeros of which each page takes memory only once it is written; large pages where the
 * system has them. Not counted as heap. NULL when there is no room for the addresses (or the test
 * hook says so); give back with du_mem_unreserve (takes NULL). Aligned to a page. */
void *du_mem_reserve(size_t n_bytes);
void du_mem_unreserve(void *p, size_t n_bytes);

typedef struct du_arena du_arena;

/* Makes an arena whose chunks are at least chunk_bytes. Free with du_arena_free (takes NULL).
 * Returns NULL when memory is short. Not thread-safe. */
du_arena *du_arena_new(size_t chunk_bytes);

/* An arena that only counts: each piece it hands out is the same DU_ARENA_DUMMY_BYTES bytes, to be
 * written by structs and never read, and du_arena_bytes is what an arena would have handed out. To
 * learn what code that takes its memory from an arena will take. Free with du_arena_free. */
enum { DU_ARENA_DUMMY_BYTES = 4096 };
du_arena *du_arena_new_counting(void);
void du_arena_free(du_arena *arena);

/* n * size bytes aligned to DU_ALIGN, not zeroed; NULL when memory is short. */
void *du_arena_alloc(du_arena *arena, size_t n, size_t size_bytes);

typedef struct {
    void *chunk;
    size_t used;
} du_arena_mark;

/* What was allocated after the mark is given back by the release; marks nest. */
du_arena_mark du_arena_get_mark(const du_arena *arena);
void du_arena_release(du_arena *arena, du_arena_mark mark);

/* Does the arena own this address? */
bool du_arena_holds(const du_arena *arena, const void *p);

/* Bytes held in chunks, used or not; of a counting arena those asked for. */
size_t du_arena_bytes(const du_arena *arena);

#endif
