/* A layer of experts spread over processes, with threads of this process for them: forward and
 * backward are those of one that has all experts and all rows, to the bit. */
#include "test.h"

#include <pthread.h>

#include "base/rng.h"
#include "nn/moe_train.h"

enum { MOST = 4, E = 7, K = 3, D = 20, F = 12, S = 5, N_LEAVES = 4, T = N_LEAVES * S };
enum { N_WEIGHTS = E * D + 3 * E * F * D };

static pthread_barrier_t barrier;
static const du_spread_part *sent[MOST];
static du_err told[MOST];
static int64_t n; /* processes */
static float given[N_WEIGHTS], x[T * D], dy[T * D];
static const du_router router = {
    .n_expert = E, .n_used = K, .score = DU_SCORE_SIGMOID, .normalise = true, .scale = 1.5f};

static du_err exchange(void *user, du_err before, const du_spread_part *send,
                       const du_spread_part *receive) {
    int64_t me = *(const int64_t *)user;
    told[me] = before;
    sent[me] = send;
    pthread_barrier_wait(&barrier);
    du_err err = DU_OK;
    for (int64_t p = 0; p < n && err == DU_OK; p++) {
        err = told[p];
    }
    for (int64_t p = 0; p < n && err == DU_OK; p++) {
        assert_int_equal(sent[p][me].n_bytes, receive[p].n_bytes);
        if (receive[p].n_bytes > 0) {
            memcpy(receive[p].data, sent[p][me].data, receive[p].n_bytes);
        }
    }
    pthread_barrier_wait(&barrier);
    return err;
}

static du_mat mat(const float *data, int64_t rows, int64_t cols) {
    return (du_mat){.data = data,
                    .dtype = DU_F32,
                    .rows = rows,
                    .cols = cols,
                    .row_bytes = (size_t)cols * sizeof(float)};
}

/* What a process has and makes. */
typedef struct {
    int64_t me, leaf, n_leaves;
    float values[N_WEIGHTS], grads[N_WEIGHTS]; /* the router, then gate, up, down of each expert */
    du_mat of_router, gate[E], up[E], down[E];
    float y[T * D], dx[T * D];
    du_arena *scratch, *arena; /* arena: of what is kept */
    du_moe_room room;
    du_moe_kept kept;
    du_err err;
} process;

static void place(process *p, int64_t e0, int64_t e1) {
    p->of_router = mat(p->values, E, D);
    for (int64_t e = 0; e < E; e++) {
        const float *w = e >= e0 && e < e1 ? p->values + E * D + 3 * e * F * D : NULL;
        p->gate[e] = mat(w, F, D);
        p->up[e] = mat(w ? w + F * D : NULL, F, D);
        p->down[e] = mat(w ? w + 2 * F * D : NULL, D, F);
    }
}

static du_moe_kept take_kept(du_arena *arena, int64_t rows, du_moe_room *room) {
    du_moe_kept k = {.scores = du_arena_alloc(arena, (size_t)(rows * E), sizeof(float)),
                     .weights = du_arena_alloc(arena, (size_t)(rows * K), sizeof(float)),
                     .ids = du_arena_alloc(arena, (size_t)(rows * K), sizeof(int32_t)),
                     .slot_of = du_arena_alloc(arena, (size_t)(rows * K), sizeof(int32_t)),
                     .i_token = du_arena_alloc(arena, (size_t)(rows * K), sizeof(int32_t)),
                     .first = du_arena_alloc(arena, E + 1, sizeof(int64_t)),
                     .room = room};
    if (!room) {
        k.gate = du_arena_alloc(arena, (size_t)(rows * K * F), sizeof(float));
        k.up = du_arena_alloc(arena, (size_t)(rows * K * F), sizeof(float));
    }
    return k;
}

/* Everything but what passes themselves take. */
static void begin(process *p, bool is_alone) {
    memcpy(p->values, given, sizeof given);
    p->scratch = du_arena_new(1 << 12);
    p->arena = du_arena_new(1 << 16);
    assert_true(p->scratch && p->arena);
    p->kept = take_kept(p->arena, T, is_alone ? NULL : &p->room);
}

static void end(process *p) {
    du_moe_room_done(&p->room);
    du_arena_free(p->scratch);
    du_arena_free(p->arena);
}

/* Forward and backward of the process's rows; link NULL: it is alone. */
static du_err pass(process *p, const du_spread_link *link) {
    du_ctx ctx = {.kern = du_kern_get(test_isa()), .scratch = p->scratch};
    int64_t rows = p->n_leaves * S, end[N_LEAVES];
    for (int64_t i = 0; i < p->n_leaves; i++) {
        end[i] = (i + 1) * S;
    }
    du_spread spread = {link, {0, N_LEAVES, true}, p->leaf, S};
    du_moe_weights w = {.router = &p->of_router,
                        .gate = p->gate,
                        .up = p->up,
                        .down = p->down,
                        .rule = &router,
                        .spread = link ? &spread : NULL};
    du_train train = {.kind = DU_GEMM_F32,
                      .end = end,
                      .sums = {.leaves = {0, p->n_leaves, true},
                               .values = p->values,
                               .grads = p->grads,
                               .n_values = N_WEIGHTS}};
    double losses[N_LEAVES];
    du_router_balance balance = {p->n_leaves, S, 0.1, losses};
    const float *own_x = x + p->leaf * S * D, *own_dy = dy + p->leaf * S * D;
    du_err err = du_moe_train_fwd(&ctx, &train, p->y, own_x, &w, &p->kept, rows);
    return err ? err
               : du_moe_train_bwd(&ctx, &train, p->dx, own_dy, own_x, &w, &p->kept, &balance, rows);
}

static process alone;

static void *run_process(void *arg) {
    process *p = arg;
    du_spread_link link = {p->me, n, exchange, &p->me};
    p->err = pass(p, &link);
    return NULL;
}

/* Gradients of the experts of a process, and what its rows get. */
static void check(const process *p) {
    int64_t e0 = du_spread_first(E, p->me, n), e1 = du_spread_first(E, p->me + 1, n);
    size_t rows_bytes = (size_t)(p->n_leaves * S * D) * sizeof(float);
    assert_memory_equal(p->y, alone.y + p->leaf * S * D, rows_bytes);
    assert_memory_equal(p->dx, alone.dx + p->leaf * S * D, rows_bytes);
    int64_t at = E * D + 3 * e0 * F * D;
    assert_memory_equal(p->grads + at, alone.grads + at,
                        (size_t)(3 * (e1 - e0) * F * D) * sizeof(float));
}

static process all[MOST];

/* The n-th allocation of all fails, 0: none. */
static void run(int64_t n_processes, int64_t leaves_each, int64_t failing) {
    pthread_t threads[MOST];
    n = n_processes;
    pthread_barrier_init(&barrier, NULL, (unsigned)n);
    for (int64_t p = 0; p < n; p++) {
        int64_t first = p * leaves_each < N_LEAVES ? p * leaves_each : N_LEAVES;
        int64_t left = N_LEAVES - first;
        memset(&all[p], 0, sizeof all[p]);
        all[p].me = p;
        all[p].leaf = first;
        all[p].n_leaves = left < leaves_each ? left : leaves_each;
        begin(&all[p], false);
        place(&all[p], du_spread_first(E, p, n), du_spread_first(E, p + 1, n));
    }
    du_mem_fail_at(failing, false);
    for (int64_t p = 0; p < n; p++) {
        assert_int_equal(pthread_create(&threads[p], NULL, run_process, &all[p]), 0);
    }
    for (int64_t p = 0; p < n; p++) {
        pthread_join(threads[p], NULL);
        end(&all[p]);
    }
    du_mem_fail_at(0, false);
    pthread_barrier_destroy(&barrier);
}

static void check_run(int64_t n_processes, int64_t leaves_each) {
    run(n_processes, leaves_each, 0);
    for (int64_t p = 0; p < n; p++) {
        assert_int_equal(all[p].err, DU_OK);
        check(&all[p]);
    }
}

static int setup(void **state) {
    (void)state;
    du_rng rng;
    du_rng_init(&rng, 5);
    float *const of[] = {given, x, dy};
    const int64_t sizes[] = {N_WEIGHTS, T * D, T * D};
    for (int i = 0; i < 3; i++) {
        for (int64_t k = 0; k < sizes[i]; k++) {
            of[i][k] = (float)du_rng_normal(&rng);
        }
    }
    alone.n_leaves = N_LEAVES;
    begin(&alone, true);
    place(&alone, 0, E);
    du_err err = pass(&alone, NULL);
    end(&alone);
    return err == DU_OK ? 0 : -1;
}

/* Experts are spread unevenly, and leaves too; some processes have no rows. */
static void test_same_bits(void **state) {
    (void)state;
    check_run(1, 4);
    check_run(2, 2);
    check_run(2, 4);
    check_run(3, 2);
    check_run(4, 1);
    check_run(4, 2);
}

/* Whichever allocation fails, of whichever process, nobody waits for it: all come back, and where
 * the trouble was not behind the last exchange all have the error. */
static void test_no_memory(void **state) {
    (void)state;
    int64_t n_failed = 3, n_runs = 0, n_of_all = 0;
    for (int64_t k = 1; n_failed > 0; k++, n_runs++) {
        run(3, 2, k);
        n_failed = 0;
        for (int64_t p = 0; p < n; p++) {
            assert_true(all[p].err == DU_OK || all[p].err == DU_ENOMEM);
            n_failed += all[p].err == DU_ENOMEM;
        }
        n_of_all += n_failed == n;
    }
    assert_true(n_runs > 20 && n_of_all > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits),
                                       cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
