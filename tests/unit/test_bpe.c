/* Merging: against the plain definition, short against long, and a megabyte in one piece. */
#include "test.h"

#include "base/clock.h"
#include "base/rng.h"
#include "text/bpe.h"

enum { N_BASE = 4, N_TOKENS = 40 };

typedef struct {
    int32_t left, right;
} pair;

/* Random merges over N_BASE letters: pair i makes token N_BASE + i. */
typedef struct {
    pair pairs[N_TOKENS];
    size_t n;
    du_bpe bpe;
} merges;

static merges random_merges(du_rng *rng) {
    merges m = {.n = 0};
    assert_true(du_bpe_init(&m.bpe, N_TOKENS));
    for (int tries = 0; tries < 200 && m.n < N_TOKENS; tries++) {
        int32_t left = (int32_t)du_rng_below(rng, N_BASE + m.n);
        int32_t right = (int32_t)du_rng_below(rng, N_BASE + m.n);
        int32_t merged = (int32_t)(N_BASE + m.n);
        if (du_bpe_add(&m.bpe, left, right, (uint32_t)m.n, merged, false) == DU_RANK_NONE) {
            m.pairs[m.n++] = (pair){left, right};
        }
    }
    return m;
}

/* The definition: join the leftmost pair of the lowest rank until there is none. */
static size_t merge_plainly(const merges *m, int32_t *ids, size_t n) {
    for (;;) {
        size_t best = m->n, at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            for (size_t k = 0; k < best; k++) {
                if (m->pairs[k].left == ids[i] && m->pairs[k].right == ids[i + 1]) {
                    best = k;
                    at = i;
                }
            }
        }
        if (best == m->n) {
            return n;
        }
        ids[at] = (int32_t)(N_BASE + best);
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof ids[0]);
        n--;
    }
}

static void fill(du_merge_work *w, const int32_t *ids, size_t n) {
    assert_true(du_merge_reserve(w, n));
    for (size_t i = 0; i <= n; i++) {
        w->symbols[i] = (du_symbol){.id = i < n ? ids[i] : -1, .start = (uint32_t)i};
    }
    w->n = n;
}

static void follows_the_definition_at_every_length(void **state) {
    (void)state;
    du_rng rng;
    du_rng_init(&rng, 11);
    du_merge_work w = {0};
    for (int round = 0; round < 400; round++) {
        merges m = random_merges(&rng);
        int32_t ids[3 * DU_MERGE_SHORT_MAX];
        size_t n = 1 + du_rng_below(&rng, 3 * DU_MERGE_SHORT_MAX);
        for (size_t i = 0; i < n; i++) {
            ids[i] = (int32_t)du_rng_below(&rng, round % 3 ? N_BASE : 1);
        }
        fill(&w, ids, n);
        assert_true(du_bpe_merge(&m.bpe, &w));
        size_t want = merge_plainly(&m, ids, n);
        assert_int_equal(w.n, want);
        for (size_t i = 0; i < want; i++) {
            assert_int_equal(w.symbols[i].id, ids[i]);
            assert_true(w.symbols[i].start < w.symbols[i + 1].start);
        }
        assert_int_equal(w.symbols[want].start, n);
        du_bpe_done(&m.bpe);
    }
    du_merge_work_done(&w);
}

static void a_pair_keeps_its_merge_unless_replaced(void **state) {
    (void)state;
    du_bpe bpe;
    assert_true(du_bpe_init(&bpe, 3));
    assert_int_equal(du_bpe_add(&bpe, 1, 2, 0, 10, false), DU_RANK_NONE);
    assert_int_equal(du_bpe_add(&bpe, 1, 2, 1, 11, false), 0);
    du_merge_work w = {0};
    const int32_t ids[] = {1, 2};
    fill(&w, ids, 2);
    assert_true(du_bpe_merge(&bpe, &w));
    assert_int_equal(w.symbols[0].id, 10);
    assert_int_equal(du_bpe_add(&bpe, 1, 2, 2, 12, true), 0);
    fill(&w, ids, 2);
    assert_true(du_bpe_merge(&bpe, &w));
    assert_int_equal(w.n, 1);
    assert_int_equal(w.symbols[0].id, 12);
    du_merge_work_done(&w);
    du_bpe_done(&bpe);
}

/* Unknown symbols (negative ids) join with nothing. */
static void unknown_symbols_stay(void **state) {
    (void)state;
    du_bpe bpe;
    assert_true(du_bpe_init(&bpe, 1));
    du_bpe_add(&bpe, 1, 1, 0, 2, false);
    du_merge_work w = {0};
    const int32_t ids[] = {-1, -1, 1, 1, -1};
    fill(&w, ids, 5);
    assert_true(du_bpe_merge(&bpe, &w));
    assert_int_equal(w.n, 4);
    assert_int_equal(w.symbols[2].id, 2);
    du_merge_work_done(&w);
    du_bpe_done(&bpe);
}

/* a -> aa -> aaaa ...: every merge changes its neighbours. */
static void a_megabyte_in_one_piece(void **state) {
    (void)state;
    enum { N = 1 << 20, DOUBLINGS = 12 };
    du_bpe bpe;
    assert_true(du_bpe_init(&bpe, DOUBLINGS));
    for (int32_t i = 0; i < DOUBLINGS; i++) {
        du_bpe_add(&bpe, i, i, (uint32_t)i, i + 1, false);
    }
    du_merge_work w = {0};
    assert_true(du_merge_reserve(&w, N));
    memset(w.symbols, 0, (N + 1) * sizeof w.symbols[0]);
    for (size_t i = 0; i <= N; i++) {
        w.symbols[i].start = (uint32_t)i;
    }
    w.n = N;
    double start = du_clock_s();
    assert_true(du_bpe_merge(&bpe, &w));
    assert_true(du_clock_s() - start < 30); /* quadratic: 10^12 steps */
    assert_int_equal(w.n, N >> DOUBLINGS);
    for (size_t i = 0; i < w.n; i++) {
        assert_int_equal(w.symbols[i].id, DOUBLINGS);
        assert_int_equal(w.symbols[i].start, i << DOUBLINGS);
    }
    du_merge_work_done(&w);
    du_bpe_done(&bpe);
}

static void short_memory_is_told(void **state) {
    (void)state;
    du_bpe bpe = {0};
    for (int64_t n = 1; n <= 2; n++) {
        du_mem_fail_at(n, false);
        assert_false(du_bpe_init(&bpe, 100));
        du_mem_fail_at(0, false);
        assert_null(bpe.slots);
    }
    assert_true(du_bpe_init(&bpe, 1));
    du_bpe_add(&bpe, 0, 0, 0, 1, false);
    int32_t ids[200] = {0};
    du_merge_work w = {0};
    int64_t n = 1;
    for (bool ok = false; !ok; n++) {
        du_merge_work_done(&w);
        fill(&w, ids, 200);
        du_mem_fail_at(n, false);
        ok = du_bpe_merge(&bpe, &w);
        du_mem_fail_at(0, false);
    }
    assert_true(n > 3);
    assert_int_equal(w.n, 100);
    du_merge_work_done(&w);
    du_bpe_done(&bpe);
}

/* So that merges of a hostile file cannot be chosen to share a slot. */
static void tables_are_keyed_apart(void **state) {
    (void)state;
    du_bpe a, b;
    assert_true(du_bpe_init(&a, 1) && du_bpe_init(&b, 1));
    assert_memory_not_equal(a.seed, b.seed, sizeof a.seed);
    du_bpe_done(&a);
    du_bpe_done(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_definition_at_every_length),
        cmocka_unit_test(a_pair_keeps_its_merge_unless_replaced),
        cmocka_unit_test(unknown_symbols_stay),
        cmocka_unit_test(a_megabyte_in_one_piece),
        cmocka_unit_test(short_memory_is_told),
        cmocka_unit_test(tables_are_keyed_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
