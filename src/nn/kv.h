/* The layout of the key/value cache: what attention reads and writes. Allocation, sharing and
 * eviction of pages are infer's business.
 *
 * A sequence is a list of pages; a page holds DU_KV_PAGE consecutive positions of every layer:
 *
 *     page:   layer 0            | layer 1 ...
 *     layer:  K of head 0 | K of head 1 | ... | V of head 0 | V of head 1 | ...
 *     head:   row of position 0 | ... | row of position DU_KV_PAGE-1
 *
 * Latent attention has one head whose K row is the normalised latent followed by the rotated key,
 * and no V: the values are the latent part of the same rows (DeepSeek-V2, arXiv 2405.04434,
 * section 2.1). */
#ifndef DU_NN_KV_H
#define DU_NN_KV_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/dtype.h"

/* Positions per page; also the tile of a running softmax, so part of the bits. */
#define DU_KV_PAGE 64

typedef struct {
    du_dtype dtype;          /* F32, F16, BF16 or Q8_0 */
    int64_t n_layer, n_head; /* n_head: key heads G */
    int64_t k_dim;           /* values per K row */
    int64_t v_dim;           /* values per V row; latent attention: of the K row, no V stored */
    bool latent;
    size_t k_row_bytes, v_row_bytes; /* v_row_bytes = k_row_bytes when latent */
    size_t layer_bytes, page_bytes;
} du_kv_layout;

/* Fills *out. Returns DU_OK, or DU_EUNSUPPORTED when rows are no multiple of the type's block. */
DU_NODISCARD
du_err du_kv_layout_init(du_kv_layout *out, du_dtype dtype, int64_t n_layer, int64_t n_head,
                         int64_t k_dim, int64_t v_dim, bool latent, du_diag *diag);

/* A sequence's cache as a layer sees it. */
typedef struct {
    uint8_t **pages; /* pages[pos / DU_KV_PAGE] */
} du_kv_seq;

/* The K rows (V rows) of head g and a layer in one page. */
static inline uint8_t *du_kv_k(const du_kv_layout *kv, uint8_t *page, int64_t layer, int64_t g) {
    return page + (size_t)layer * kv->layer_bytes + (size_t)g * DU_KV_PAGE * kv->k_row_bytes;
}

static inline uint8_t *du_kv_v(const du_kv_layout *kv, uint8_t *page, int64_t layer, int64_t g) {
    if (kv->latent) {
        return du_kv_k(kv, page, layer, g);
    }
    return page + (size_t)layer * kv->layer_bytes +
           (size_t)kv->n_head * DU_KV_PAGE * kv->k_row_bytes +
           (size_t)g * DU_KV_PAGE * kv->v_row_bytes;
}

#endif
