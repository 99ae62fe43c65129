/* Inside infer/: the page pool, and what a session consists of. */
#ifndef DU_INFER_INFER_INT_H
#define DU_INFER_INFER_INT_H

#include "infer/infer.h"

/* Pages that n positions take. */
static inline int64_t du_pages_for(int64_t n) {
    return (n + DU_KV_PAGE - 1) / DU_KV_PAGE;
}

/* Pages of equal size in one block of address space (touched when first used), with a reference
 * count each and a list of the free ones. One thread at a time. */
typedef struct {
    uint8_t *block;
    size_t page_bytes;
    int64_t n_pages, n_free;
    int32_t *free_list; /* [n_free] page numbers */
    int32_t *refs;      /* [n_pages] */
} du_page_pool;

DU_NODISCARD
du_err du_page_pool_init(du_page_pool *pool, int64_t n_pages, size_t page_bytes, du_diag *diag);
void du_page_pool_done(du_page_pool *pool);

uint8_t *du_page_take(du_page_pool *pool); /* with one reference; NULL when none is free */
void du_page_ref(du_page_pool *pool, const uint8_t *page);
void du_page_unref(du_page_pool *pool, const uint8_t *page);
bool du_page_shared(const du_page_pool *pool, const uint8_t *page);

struct du_infer {
    const du_model *model;
    du_pool *threads;
    du_ctx ctx;
    du_kv_layout kv;
    du_page_pool pages;
    int64_t n_ctx, n_chunk;
    size_t repack_bytes; /* after which a step of few rows repacks no more */
};

struct du_session {
    du_infer *inf;
    du_kv_seq seq;   /* seq.pages [n_ctx / DU_KV_PAGE, rounded up] */
    int64_t n_pages; /* pages held */
    int64_t n;       /* tokens cached */
    int32_t *tokens; /* [n_ctx] */
    float *logits;   /* [V] after the last token */
};

/* Makes pages [0, ceil(n / DU_KV_PAGE)) exist, and those from position s->n on writable by this
 * session alone. On failure the session holds no more pages than it needs for s->n. */
DU_NODISCARD
du_err du_session_reserve(du_session *s, int64_t n, du_diag *diag);

#endif
