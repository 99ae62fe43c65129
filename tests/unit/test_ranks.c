/* What ranks exchange, with threads of this process for ranks. */
#include "train/ranks.h"

#include <math.h>
#include <pthread.h>

#include "nn/leaves.h"
#include "test.h"
#include "train/same.h"

enum { MOST = 5, VALUES = 5000 };

static pthread_barrier_t barrier;
static const du_ranks_part *sent[MOST];
static _Thread_local int64_t me;
static int64_t n_ranks, n_parts;
static float given[MOST][VALUES];

static const char *exchange(const du_ranks_part *send, const du_ranks_part *receive) {
    sent[me] = send;
    pthread_barrier_wait(&barrier);
    for (int64_t r = 0; r < n_ranks; r++) {
        if (r == me || receive[r].n_bytes == 0) {
            continue;
        }
        assert_int_equal(sent[r][me].n_bytes, receive[r].n_bytes);
        memcpy(receive[r].data, sent[r][me].data, receive[r].n_bytes);
    }
    pthread_barrier_wait(&barrier);
    return NULL;
}

/* Spans of all values, of different lengths. */
static void fill_spans(du_span *spans) {
    for (int64_t r = 0; r < n_ranks; r++) {
        spans[r].first = VALUES * r * r / (n_ranks * n_ranks);
        spans[r].end = VALUES * (r + 1) * (r + 1) / (n_ranks * n_ranks);
    }
}

/* Value i of node p. */
static float value_of(int64_t p, int64_t i) {
    return given[p % MOST][(i + p / MOST * 17) % VALUES];
}

/* The sum that one process makes of so many nodes. */
static float whole_sum(int64_t n_nodes, int64_t i) {
    static _Thread_local float waiting[DU_LEAF_LEVELS];
    int64_t n = 0;
    for (int64_t p = 0; p < n_nodes; p++, n++) {
        float v = value_of(p, i);
        int64_t level = 0;
        for (; n >> level & 1; level++) {
            v = waiting[level] + v;
        }
        waiting[level] = v;
    }
    float sum = 0;
    for (int64_t level = 0; level < DU_LEAF_LEVELS; level++) {
        sum = n >> level & 1 ? waiting[level] + sum : sum;
    }
    return sum;
}

static void check_add(du_ranks *ranks, du_ctx *ctx, du_diag *diag) {
    float values[VALUES], *wait[DU_LEAF_LEVELS] = {0};
    du_span spans[MOST];
    fill_spans(spans);
    for (int64_t n_rounds = 1; n_rounds <= 4; n_rounds++) { /* the last one has fewer nodes */
        int64_t n_nodes = (n_rounds - 1) * n_ranks + n_parts;
        for (int64_t first = 0; first < n_nodes; first += n_ranks) {
            int64_t left = n_nodes - first;
            du_leaves nodes = {first, left < n_ranks ? left : n_ranks, left <= n_ranks};
            for (int64_t i = 0; i < VALUES; i++) {
                values[i] = me < nodes.n ? value_of(first + me, i) : NAN;
            }
            assert_int_equal(du_sums_take_nodes(wait, VALUES, first + nodes.n), DU_OK);
            assert_ok(du_ranks_add(ranks, ctx, values, spans, nodes, wait, diag), diag);
        }
        for (int64_t i = spans[me].first; i < spans[me].end; i++) {
            assert_true(values[i] == whole_sum(n_nodes, i));
        }
    }
    for (int64_t l = 0; l < DU_LEAF_LEVELS; l++) {
        du_mem_unreserve(wait[l], VALUES * sizeof(float));
    }
}

static void check_moves(du_ranks *ranks, du_diag *diag) {
    float values[VALUES], got[VALUES];
    du_span spans[MOST];
    fill_spans(spans);
    for (int64_t i = 0; i < VALUES; i++) {
        bool own = i >= spans[me].first && i < spans[me].end;
        values[i] = own ? (float)i : -1;
    }
    for (int64_t first = 0; first < VALUES; first += 777) {
        du_span wanted = {first, first + 1500 < VALUES ? first + 1500 : VALUES};
        assert_ok(du_ranks_collect(ranks, got, values, spans, wanted, diag), diag);
        for (int64_t i = wanted.first; me == 0 && i < wanted.end; i++) {
            assert_true(got[i - first] == (float)i);
        }
    }
    assert_ok(du_ranks_share(ranks, values, sizeof *values, spans, diag), diag);
    for (int64_t i = 0; i < VALUES; i++) {
        assert_true(values[i] == (float)i);
    }
}

enum { LONGEST = 3 * MOST * MOST }; /* bytes of a part below */

/* The own part is longest: exchange() wants all ranks as often. */
static size_t part_bytes(int64_t from, int64_t to) {
    return from == to ? LONGEST : (size_t)(LONGEST * from * (to + 1) / (MOST * MOST));
}

static uint8_t byte_of(int64_t from, int64_t to, size_t i) {
    return (uint8_t)((size_t)(from * 83 + to * 29) + i * 7);
}

/* Parts of all lengths, none too, to and from each, own ones too. */
static void check_parts(du_ranks *ranks, du_diag *diag) {
    uint8_t out[MOST][LONGEST], in[MOST][LONGEST];
    du_ranks_part send[MOST], receive[MOST];
    memset(in, 0, sizeof in);
    for (int64_t r = 0; r < n_ranks; r++) {
        send[r] = (du_ranks_part){out[r], part_bytes(me, r)};
        receive[r] = (du_ranks_part){in[r], part_bytes(r, me)};
        for (size_t i = 0; i < send[r].n_bytes; i++) {
            out[r][i] = byte_of(me, r, i);
        }
    }
    assert_ok(du_ranks_exchange(ranks, send, receive, diag), diag);
    for (int64_t r = 0; r < n_ranks; r++) {
        for (size_t i = 0; i < LONGEST; i++) {
            assert_int_equal(in[r][i], i < part_bytes(r, me) ? byte_of(r, me, i) : 0);
        }
    }
}

static void check_words(du_ranks *ranks, du_ctx *ctx, du_diag *diag) {
    int64_t sums[2] = {me + 1, -me};
    assert_ok(du_ranks_sum(ranks, ctx, sums, 2, diag), diag);
    assert_int_equal(sums[0], n_ranks * (n_ranks + 1) / 2);
    assert_int_equal(sums[1], -n_ranks * (n_ranks - 1) / 2);
    for (int64_t r = -1; r < n_ranks; r++) {
        bool flag = me == r;
        assert_ok(du_ranks_any(ranks, &flag, diag), diag);
        assert_int_equal(flag, r >= 0);
        int64_t least = (me + r + 1) % n_ranks - 2;
        assert_ok(du_ranks_min(ranks, &least, diag), diag);
        assert_int_equal(least, -2);
    }
    du_err err = me >= n_ranks - 2 ? du_fail(diag, DU_EFORMAT, "trouble of %d", (int)me) : DU_OK;
    assert_int_equal(du_ranks_agree(ranks, err, diag), DU_EFORMAT);
    char want[40];
    snprintf(want, sizeof want, n_ranks > 2 ? "rank %d: trouble of %d" : "trouble of %d",
             (int)n_ranks - 2, (int)n_ranks - 2);
    assert_string_equal(diag->msg, want);
    du_diag_reset(diag);
    assert_ok(du_ranks_agree(ranks, DU_OK, diag), diag);
    sums[0] = 7 * me + 5;
    assert_ok(du_ranks_take_first(ranks, sums, sizeof sums[0], diag), diag);
    assert_int_equal(sums[0], 5);
}

/* Of one kernel level, some with AMX's tiles: no bits would be those of one process. */
static void check_programs(du_ranks *ranks, du_diag *diag) {
    du_kern kern = {.isa = DU_ISA_AVX512, .gemm_f32 = DU_GEMM_F32, .gemm_bf16 = DU_GEMM_BF16_TILES};
    assert_ok(du_same_program(ranks, &kern, diag), diag);
    kern.gemm_f32 = me > 0 ? DU_GEMM_F32_TILES : DU_GEMM_F32;
    assert_int_equal(du_same_program(ranks, &kern, diag), DU_EINVAL);
    assert_string_equal(diag->msg,
                        "rank 1: computes with avx512 kernels, products F32 in tiles (AMX) and "
                        "BF16 in tiles (AMX), rank 0 with avx512, F32 and BF16 in tiles (AMX): "
                        "start all with --isa avx2");
    du_diag_reset(diag);
    kern.gemm_f32 = DU_GEMM_F32;
    kern.gemm_bf16 = me == n_ranks - 1 ? DU_GEMM_BF16 : DU_GEMM_BF16_TILES;
    assert_int_equal(du_same_program(ranks, &kern, diag), DU_EINVAL);
    du_diag_reset(diag);
    kern = (du_kern){.isa = me > 0 ? DU_ISA_NEON : DU_ISA_AVX2};
    assert_int_equal(du_same_program(ranks, &kern, diag), DU_EINVAL);
    assert_non_null(strstr(diag->msg, "neon"));
    assert_non_null(strstr(diag->msg, "start all with --isa c"));
    du_diag_reset(diag);
}

static void *run_rank(void *arg) {
    me = (int64_t)(intptr_t)arg;
    du_diag diag;
    du_diag_reset(&diag);
    du_ranks ranks = {.link = {me, n_ranks, n_ranks, exchange, NULL}, .sizes = DU_RANKS_SIZES};
    du_ctx ctx = {.kern = du_kern_get(du_isa_best()), .scratch = du_arena_new(1 << 16)};
    check_words(&ranks, &ctx, &diag);
    check_programs(&ranks, &diag);
    for (int i = 0; i < 2; i++) {
        check_parts(&ranks, &diag);
        check_moves(&ranks, &diag);
        check_add(&ranks, &ctx, &diag);
        /* Several exchanges, rounds and tasks each, of sizes that divide nothing */
        ranks.sizes = (du_ranks_sizes){11, 1234, 1111, 90};
    }
    du_arena_free(ctx.scratch);
    return NULL;
}

static void test_exchange(void **state) {
    (void)state;
    for (int64_t r = 0; r < MOST; r++) {
        for (int64_t i = 0; i < VALUES; i++) {
            given[r][i] = (float)((i * 7919 + r * 104729) % 10007) * 1.37e-3f - 5;
        }
    }
    for (n_ranks = 2; n_ranks <= MOST; n_ranks++) {
        for (n_parts = 1; n_parts <= n_ranks; n_parts++) {
            pthread_t threads[MOST];
            pthread_barrier_init(&barrier, NULL, (unsigned)n_ranks);
            for (int64_t r = 0; r < n_ranks; r++) {
                assert_int_equal(pthread_create(&threads[r], NULL, run_rank, (void *)(intptr_t)r),
                                 0);
            }
            for (int64_t r = 0; r < n_ranks; r++) {
                pthread_join(threads[r], NULL);
            }
            pthread_barrier_destroy(&barrier);
        }
    }
}

static const char *lose(const du_ranks_part *send, const du_ranks_part *receive) {
    (void)send;
    (void)receive;
    return "gone";
}

/* What a lost rank leaves: an error, and nobody waits for it again. */
static void test_lost(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    du_ranks ranks = {.link = {1, 2, 2, lose, NULL}};
    bool flag = false;
    assert_int_equal(du_ranks_any(&ranks, &flag, &diag), DU_EIO);
    assert_string_equal(diag.msg, "rank 1 of 2: gone");
    assert_true(ranks.lost);
    assert_int_equal(du_ranks_agree(&ranks, DU_OK, &diag), DU_EIO);
}

static void test_alone(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    float values[3] = {1, 2, 3}, got[2];
    int64_t sum = 4;
    bool flag = true;
    int64_t least = 5;
    du_span all = {0, 3}, wanted = {1, 3};
    assert_int_equal(du_ranks_n(NULL), 1);
    assert_ok(du_ranks_sum(NULL, NULL, &sum, 1, &diag), &diag);
    assert_ok(du_ranks_any(NULL, &flag, &diag), &diag);
    assert_ok(du_ranks_min(NULL, &least, &diag), &diag);
    assert_ok(du_ranks_add(NULL, NULL, values, &all, (du_leaves){0, 1, true}, NULL, &diag), &diag);
    assert_ok(du_ranks_share(NULL, values, sizeof *values, &all, &diag), &diag);
    assert_ok(du_ranks_collect(NULL, got, values, &all, wanted, &diag), &diag);
    assert_true(sum == 4 && least == 5 && flag && got[0] == 2 && got[1] == 3 && values[2] == 3);
    assert_int_equal(du_ranks_agree(NULL, DU_ELIMIT, &diag), DU_ELIMIT);
    du_ranks *ranks = NULL;
    assert_int_equal(du_ranks_open(&ranks, "/nowhere/libdure-mpi.so", &diag), DU_EUNSUPPORTED);
    assert_null(ranks);
    assert_non_null(strstr(diag.msg, "no MPI: /nowhere/libdure-mpi.so"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exchange), cmocka_unit_test(test_lost),
                                       cmocka_unit_test(test_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
