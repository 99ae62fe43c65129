#include "cli/bandwidth.h"

#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/mem.h"

enum { PIECE_BYTES = 1 << 20, N_PIECES = 512, HUGE_PAGE_BYTES = 2 << 20, N_PASSES_MIN = 3 };

typedef struct {
    const du_kern *kern;
    char *bytes;
    uint64_t sums[N_PIECES]; /* so that the reads are not optimised away */
} reading;

/* A du_task_fn: makes the pages of one piece. */
static void touch_piece(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    reading *r = arg;
    memset(r->bytes + i_task * PIECE_BYTES, 1, PIECE_BYTES);
}

/* A du_task_fn: sums one piece. */
static void read_piece(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    reading *r = arg;
    r->sums[i_task] = r->kern->read_sum(r->bytes + i_task * PIECE_BYTES, PIECE_BYTES);
}

static double best_pass(reading *r, du_pool *pool) {
    double best = 0, begin = du_clock_s();
    for (int pass = 0; pass < N_PASSES_MIN || du_clock_s() - begin < 0.5; pass++) {
        double start = du_clock_s();
        du_pool_run(pool, read_piece, r, N_PIECES);
        double speed = (double)PIECE_BYTES * N_PIECES / (du_clock_s() - start);
        best = speed > best ? speed : best;
    }
    return best;
}

du_err du_cli_bandwidth(double *bytes_per_s, const du_kern *kern, du_pool *pool, bool huge,
                        du_diag *diag) {
    const size_t n_bytes = (size_t)PIECE_BYTES * N_PIECES, mapped = n_bytes + HUGE_PAGE_BYTES;
    reading *r = du_alloc_zero(1, sizeof *r);
    char *map = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    du_err err = DU_OK;
    if (!r || map == MAP_FAILED) {
        err = du_fail_nomem(diag, "measuring the memory bandwidth");
    } else {
        size_t past = (size_t)((uintptr_t)map % HUGE_PAGE_BYTES);
        *r = (reading){.kern = kern, .bytes = map + (past ? HUGE_PAGE_BYTES - past : 0)};
        /* Advice: where the kernel does not take it, the pages are what they are. */
        (void)madvise(r->bytes, n_bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
        du_pool_run(pool, touch_piece, r, N_PIECES);
        *bytes_per_s = best_pass(r, pool);
    }
    if (map != MAP_FAILED) {
        munmap(map, mapped);
    }
    du_free(r);
    return err;
}

enum { N_PEAK_TASKS = 8, N_PEAK_PASSES = 5 }; /* tasks per thread */

typedef struct {
    du_probe_fn *probe;
    int64_t n_rounds;
    double n_products[N_PEAK_TASKS * DU_POOL_THREADS_MAX];
} computing;

static void compute_piece(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    computing *c = arg;
    c->n_products[i_task] = c->probe(c->n_rounds);
}

/* Rounds that take about a millisecond. */
static int64_t rounds_of_a_task(du_probe_fn *probe) {
    for (int64_t n = 1 << 8;; n *= 2) {
        double start = du_clock_s();
        (void)probe(n);
        if (du_clock_s() - start > 0.001 || n == 1 << 20) {
            return n;
        }
    }
}

double du_cli_peak(const du_kern *kern, du_probe probe, du_pool *pool) {
    computing c = {.probe = kern->probe[probe]};
    if (!c.probe) {
        return 0;
    }
    c.n_rounds = rounds_of_a_task(c.probe);
    int64_t n_tasks = N_PEAK_TASKS * du_pool_n_threads(pool);
    double best = 0;
    for (int pass = 0; pass < N_PEAK_PASSES; pass++) {
        double start = du_clock_s(), products = 0;
        du_pool_run(pool, compute_piece, &c, n_tasks);
        double took = du_clock_s() - start;
        for (int64_t i = 0; i < n_tasks; i++) {
            products += c.n_products[i];
        }
        best = 2 * products / took > best ? 2 * products / took : best;
    }
    return best;
}
