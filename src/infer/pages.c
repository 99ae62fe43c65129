#include "infer/infer_int.h"

du_err du_page_pool_init(du_page_pool *pool, int64_t n_pages, size_t page_bytes, du_diag *diag) {
    *pool = (du_page_pool){.page_bytes = page_bytes, .n_pages = n_pages, .n_free = n_pages};
    size_t bytes;
    if (du_mul_size((size_t)n_pages, page_bytes, &bytes)) {
        pool->block = du_alloc_aligned(bytes);
    }
    pool->free_list = du_alloc_array((size_t)n_pages, sizeof *pool->free_list);
    pool->refs = du_alloc_zero((size_t)n_pages, sizeof *pool->refs);
    if (!pool->block || !pool->free_list || !pool->refs) {
        du_page_pool_done(pool);
        return du_fail(diag, DU_ENOMEM,
                       "not enough memory for a cache of %.1f MB: use a smaller context (-c)",
                       (double)n_pages * (double)page_bytes / 1e6);
    }
    for (int64_t i = 0; i < n_pages; i++) {
        pool->free_list[i] = (int32_t)(n_pages - 1 - i);
    }
    return DU_OK;
}

void du_page_pool_done(du_page_pool *pool) {
    du_free(pool->block);
    du_free(pool->free_list);
    du_free(pool->refs);
    *pool = (du_page_pool){0};
}

static int64_t number_of(const du_page_pool *pool, const uint8_t *page) {
    return (page - pool->block) / (int64_t)pool->page_bytes;
}

uint8_t *du_page_take(du_page_pool *pool) {
    if (pool->n_free == 0) {
        return NULL;
    }
    int32_t i = pool->free_list[--pool->n_free];
    pool->refs[i] = 1;
    return pool->block + (size_t)i * pool->page_bytes;
}

void du_page_ref(du_page_pool *pool, const uint8_t *page) {
    pool->refs[number_of(pool, page)]++;
}

void du_page_unref(du_page_pool *pool, const uint8_t *page) {
    int64_t i = number_of(pool, page);
    if (--pool->refs[i] == 0) {
        pool->free_list[pool->n_free++] = (int32_t)i;
    }
}

bool du_page_shared(const du_page_pool *pool, const uint8_t *page) {
    return pool->refs[number_of(pool, page)] > 1;
}
