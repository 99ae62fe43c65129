#include "base/mem.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

static atomic_llong n_calls, n_live, bytes_live;
static atomic_llong fail_countdown; /* 0: off */
static atomic_bool fail_forever;

static bool told_to_fail(void) {
    long long left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    if (left == 0) {
        return false;
    }
    left = atomic_fetch_sub(&fail_countdown, 1);
    if (left > 1) {
        return false;
    }
    atomic_store(&fail_countdown, atomic_load(&fail_forever) ? 1 : 0);
    return true;
}

static void *counted(void *p) {
    if (p) {
        atomic_fetch_add_explicit(&n_live, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&bytes_live, (long long)malloc_usable_size(p),
                                  memory_order_relaxed);
    }
    return p;
}

static void uncount(void *p) {
    if (p) {
        atomic_fetch_sub_explicit(&n_live, 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&bytes_live, (long long)malloc_usable_size(p),
                                  memory_order_relaxed);
    }
}

static bool may_allocate(void) {
    atomic_fetch_add_explicit(&n_calls, 1, memory_order_relaxed);
    return !told_to_fail();
}

void *du_alloc(size_t n_bytes) {
    return may_allocate() ? counted(malloc(n_bytes ? n_bytes : 1)) : NULL;
}

void *du_alloc_zero(size_t n, size_t size_bytes) {
    return may_allocate() ? counted(calloc(n ? n : 1, size_bytes ? size_bytes : 1)) : NULL;
}

void *du_mem_reserve(size_t n_bytes) {
    if (told_to_fail()) {
        return NULL;
    }
    void *p = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        return NULL;
    }
    (void)madvise(p, n_bytes, MADV_HUGEPAGE);
    return p;
}

void du_mem_unreserve(void *p, size_t n_bytes) {
    if (p) {
        munmap(p, n_bytes);
    }
}

void *du_alloc_array(size_t n, size_t size_bytes) {
    size_t n_bytes;
    return du_mul_size(n, size_bytes, &n_bytes) ? du_alloc(n_bytes) : NULL;
}

void *du_alloc_aligned(size_t n_bytes) {
    size_t whole;
    if (!may_allocate() || !du_add_size(n_bytes, DU_ALIGN, &whole)) {
        return NULL;
    }
    return counted(aligned_alloc(DU_ALIGN, whole / DU_ALIGN * DU_ALIGN));
}

/* Memory that is used again and again, in huge pages where it is large. */
static void *alloc_lasting(size_t n_bytes) {
    if (n_bytes < HUGE_PAGE) {
        return du_alloc_aligned(n_bytes);
    }
    size_t whole;
    if (!may_allocate() || !du_add_size(n_bytes, HUGE_PAGE - 1, &whole)) {
        return NULL;
    }
    whole = whole / HUGE_PAGE * HUGE_PAGE;
    void *p = counted(aligned_alloc(HUGE_PAGE, whole));
    if (p) {
        (void)madvise(p, whole, MADV_HUGEPAGE);
    }
    return p;
}

void *du_realloc(void *p, size_t n_bytes) {
    if (!may_allocate()) {
        return NULL;
    }
    size_t before = p ? malloc_usable_size(p) : 0;
    void *q = realloc(p, n_bytes ? n_bytes : 1);
    if (q) {
        atomic_fetch_add_explicit(&n_live, p ? 0 : 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&bytes_live, (long long)malloc_usable_size(q) - (long long)before,
                                  memory_order_relaxed);
    }
    return q;
}

void *du_realloc_array(void *p, size_t n, size_t size_bytes) {
    size_t n_bytes;
    return du_mul_size(n, size_bytes, &n_bytes) ? du_realloc(p, n_bytes) : NULL;
}

char *du_strndup(const char *s, size_t len) {
    char *copy = len < SIZE_MAX ? du_alloc(len + 1) : NULL;
    if (copy) {
        memcpy(copy, s, len);
        copy[len] = '\0';
    }
    return copy;
}

char *du_strdup(const char *s) {
    return du_strndup(s, strlen(s));
}

void du_free(void *p) {
    uncount(p);
    free(p);
}

bool du_grow(void **items, size_t *cap, size_t n, size_t size_bytes) {
    if (n < *cap) {
        return true;
    }
    size_t more = *cap ? *cap * 2 : 8;
    void *grown = more > *cap ? du_realloc_array(*items, more, size_bytes) : NULL;
    if (!grown) {
        return false;
    }
    *items = grown;
    *cap = more;
    return true;
}

du_mem_stats du_mem_get_stats(void) {
    return (du_mem_stats){atomic_load(&n_calls), atomic_load(&n_live), atomic_load(&bytes_live)};
}

void du_mem_fail_at(int64_t n, bool forever) {
    atomic_store(&fail_forever, forever);
    atomic_store(&fail_countdown, n);
}

/* A chunk's bytes follow its header, which is one alignment unit long. */
typedef struct chunk {
    struct chunk *next;
    size_t size; /* bytes after the header */
    size_t used;
} chunk;

struct du_arena {
    chunk *first, *current;
    size_t chunk_bytes;
    bool counting;
    size_t counted; /* bytes */
};

_Static_assert(sizeof(chunk) <= DU_ALIGN, "an arena chunk's header fits one alignment unit");

static chunk *chunk_new(size_t size) {
    size_t whole;
    chunk *c = du_add_size(size, DU_ALIGN, &whole) ? alloc_lasting(whole) : NULL;
    if (c) {
        *c = (chunk){.size = size};
    }
    return c;
}

du_arena *du_arena_new(size_t chunk_bytes) {
    du_arena *arena = du_alloc_zero(1, sizeof *arena);
    if (arena) {
        arena->chunk_bytes = chunk_bytes < 4096 ? 4096 : chunk_bytes;
    }
    return arena;
}

du_arena *du_arena_new_counting(void) {
    du_arena *arena = du_arena_new(DU_ARENA_DUMMY_BYTES);
    if (arena && !du_arena_alloc(arena, DU_ARENA_DUMMY_BYTES, 1)) {
        du_arena_free(arena);
        return NULL;
    }
    if (arena) {
        arena->counting = true;
    }
    return arena;
}

void du_arena_free(du_arena *arena) {
    if (!arena) {
        return;
    }
    for (chunk *c = arena->first, *next; c; c = next) {
        next = c->next;
        du_free(c);
    }
    du_free(arena);
}

/* The first chunk after `current` that has room; a new one, put after `current`, when none has. */
static chunk *chunk_with_room(du_arena *arena, size_t n_bytes) {
    chunk *c = arena->current ? arena->current->next : arena->first;
    for (; c; c = c->next) {
        c->used = 0;
        if (c->size >= n_bytes) {
            return c;
        }
    }
    c = chunk_new(n_bytes > arena->chunk_bytes ? n_bytes : arena->chunk_bytes);
    if (!c) {
        return NULL;
    }
    if (arena->current) {
        c->next = arena->current->next;
        arena->current->next = c;
    } else {
        c->next = arena->first;
        arena->first = c;
    }
    return c;
}

void *du_arena_alloc(du_arena *arena, size_t n, size_t size_bytes) {
    size_t n_bytes;
    if (!du_mul_size(n, size_bytes, &n_bytes) || !du_add_size(n_bytes, DU_ALIGN - 1, &n_bytes)) {
        return NULL;
    }
    n_bytes = n_bytes / DU_ALIGN * DU_ALIGN;
    if (arena->counting) {
        arena->counted += n_bytes;
        return (char *)arena->first + DU_ALIGN;
    }
    chunk *c = arena->current;
    if (!c || c->size - c->used < n_bytes) {
        c = chunk_with_room(arena, n_bytes);
        if (!c) {
            return NULL;
        }
        arena->current = c;
    }
    void *p = (char *)c + DU_ALIGN + c->used;
    c->used += n_bytes;
    return p;
}

du_arena_mark du_arena_get_mark(const du_arena *arena) {
    return (du_arena_mark){arena->current, arena->current ? arena->current->used : 0};
}

void du_arena_release(du_arena *arena, du_arena_mark mark) {
    arena->current = mark.chunk;
    if (mark.chunk) {
        arena->current->used = mark.used;
    } else if (arena->first) {
        arena->current = arena->first;
        arena->current->used = 0;
    }
}

bool du_arena_holds(const du_arena *arena, const void *p) {
    for (const chunk *c = arena->first; c; c = c->next) {
        const char *start = (const char *)c + DU_ALIGN, *at = p;
        if (at >= start && at < start + c->size) {
            return true;
        }
    }
    return false;
}

size_t du_arena_bytes(const du_arena *arena) {
    size_t total = arena->counted;
    for (const chunk *c = arena->first; c && !arena->counting; c = c->next) {
        total += c->size;
    }
    return total;
}
