#include "cli/bandwidth.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"

enum { PIECE_BYTES = 1 << 20, N_PIECES = 512, N_PASSES_MIN = 3 };

typedef struct {
    const uint64_t *words;
    uint64_t sums[N_PIECES]; /* so that the reads are not optimised away */
} reading;

/* A du_task_fn: sums one piece. */
static void read_piece(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    reading *r = arg;
    enum { N = PIECE_BYTES / sizeof(uint64_t) };
    const uint64_t *words = r->words + i_task * N;
    uint64_t sum = 0;
    for (int64_t i = 0; i < N; i++) {
        sum += words[i];
    }
    r->sums[i_task] = sum;
}

du_err du_cli_bandwidth(double *bytes_per_s, int64_t n_threads, du_diag *diag) {
    const size_t n_bytes = (size_t)PIECE_BYTES * N_PIECES;
    reading *r = du_alloc_zero(1, sizeof *r);
    uint64_t *block = du_alloc_aligned(n_bytes);
    du_pool *pool = NULL;
    du_err err = r && block ? du_pool_new(&pool, n_threads, false, diag)
                            : du_fail_nomem(diag, "measuring the memory bandwidth");
    if (err == DU_OK) {
        memset(block, 1, n_bytes);
        r->words = block;
        *bytes_per_s = 0;
        double begin = du_clock_s();
        for (int pass = 0; pass < N_PASSES_MIN || du_clock_s() - begin < 0.5; pass++) {
            double start = du_clock_s();
            du_pool_run(pool, read_piece, r, N_PIECES);
            double speed = (double)n_bytes / (du_clock_s() - start);
            *bytes_per_s = speed > *bytes_per_s ? speed : *bytes_per_s;
        }
    }
    du_pool_free(pool);
    du_free(block);
    du_free(r);
    return err;
}
