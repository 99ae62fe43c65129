/* What layers compute with, for tests. */
#ifndef DU_TESTS_CTX_H
#define DU_TESTS_CTX_H

#include "nn/ctx.h"
#include "test.h"

/* Threads, scratch that grows, and the kernel level under test. For test_ctx_drop. */
static inline du_ctx test_ctx_make(int64_t n_threads) {
    du_diag diag;
    du_diag_reset(&diag);
    du_ctx ctx = {.kern = du_kern_get(test_isa()), .scratch = du_arena_new(1 << 16)};
    assert_non_null(ctx.scratch);
    assert_ok(du_pool_new(&ctx.pool, n_threads, false, &diag), &diag);
    return ctx;
}

static inline void test_ctx_drop(du_ctx *ctx) {
    du_pool_free(ctx->pool);
    du_arena_free(ctx->scratch);
}

#endif
