#include "nn/product.h"

#include <stdatomic.h>

#include "kern/strips.h"

du_product du_product_begin(du_ctx *ctx, const du_mat *w) {
    du_product p = {.w = w, .mm = ctx->kern->mm[w->dtype], .ctx = ctx};
    du_mm_fn *mm_strips = ctx->kern->mm_strips[w->dtype];
    if (ctx->same_bits && !ctx->kern->strips_same_bits) {
        return p;
    }
    if (!ctx->strips || !mm_strips || !w->strips || !w->strips->data) {
        return p;
    }
    int state = atomic_load(&w->strips->state);
    size_t n_bytes = du_strips_bytes(w);
    /* The last may go beyond what is left: a matrix larger than all of it would stay as it is. */
    if (state == DU_STRIPS_EMPTY && ctx->repack_bytes > 0 &&
        atomic_compare_exchange_strong(&w->strips->state, &state, DU_STRIPS_WRITING)) {
        ctx->repack_bytes -= n_bytes < ctx->repack_bytes ? n_bytes : ctx->repack_bytes;
        p.write = ctx->kern->strips_write;
    }
    if (p.write || state == DU_STRIPS_READY) {
        p.mm = mm_strips;
    }
    return p;
}

/* Rows that were written to strips are not read again. */
static void unload(const du_product *p, int64_t row0, int64_t row1) {
    const du_ctx *ctx = p->ctx;
    if (ctx->unload) {
        size_t n_bytes = (size_t)(row1 - row0) * p->w->row_bytes;
        ctx->unload(ctx->unload_user, du_mat_row(p->w, row0), n_bytes);
    }
}

void du_product_run(const du_product *p, float *y, int64_t ldy, int64_t row0, int64_t row1,
                    const du_acts *x, const int32_t *i_row, int64_t n_rows) {
    if (p->write) {
        p->write(p->w, row0, row1);
        unload(p, row0, row1);
    }
    p->mm(y, ldy, p->w, row0, row1, x, i_row, n_rows);
}

void du_product_end(const du_product *p) {
    if (!p->write) {
        return;
    }
    atomic_store(&p->w->strips->state, DU_STRIPS_READY);
    unload(p, 0, p->w->rows); /* the pages that tasks shared */
}
