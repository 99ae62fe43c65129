/* However many ranks there are, each leaf of a step is computed once, and what a rank computes
 * together is a node of the tree. */
#include "test.h"

#include "train/batch_split.h"

enum { RANKS_MAX = 7, LEAVES_MAX = 60 };

static du_diag diag;

/* Of one rank, whose leaves count in seen [n]; returns them. */
static int64_t walk(const du_batch_split *s, int *seen) {
    int64_t n = 0;
    for (int64_t i = 0; i < s->n_rounds; i++) {
        int64_t first = s->first + i * s->step;
        du_leaves round = du_batch_split_round(s, i), nodes = du_batch_split_nodes(s, i);
        assert_int_equal(round.last, i == s->n_rounds - 1);
        assert_int_equal(round.first, i * s->step);
        if (s->spread) {
            du_span own = du_batch_split_spans(s, i)[du_ranks_rank(s->ranks)];
            assert_int_equal(own.first, first < s->n ? first : s->n);
            assert_int_equal(own.end - own.first, first < s->end ? s->n_seq : 0);
            assert_int_equal(nodes.n * s->n_seq, round.n);
        }
        for (int64_t k = first; k < first + s->n_seq && first < s->end; k++, n++) {
            assert_true(k < s->n);
            seen[k]++;
        }
        if (s->ranks && first < s->end) { /* else they are taken as they come */
            assert_int_equal(s->n_seq & (s->n_seq - 1), 0);
            assert_int_equal(first % s->n_seq, 0);
            assert_int_equal((s->before + first) % s->n_seq, 0);
        }
    }
    return n;
}

static void check(int64_t n_ranks, bool alone, bool spread, int64_t batch_seqs, int64_t n_micros) {
    int seen[LEAVES_MAX] = {0};
    int64_t most = 0, n_nodes = 0, n = batch_seqs * n_micros, of_first = 0;
    for (int64_t rank = 0; rank < n_ranks; rank++) {
        du_ranks ranks = {.link = {.rank = rank, .n = n_ranks}};
        du_train_config config;
        du_batch_split s;
        assert_ok(du_train_config_init(&config, &diag), &diag);
        config.batch_seqs = batch_seqs;
        config.accumulate = n_micros + 1;
        config.ranks.experts = spread ? DU_EXPERTS_SPREAD : DU_EXPERTS_WHOLE;
        assert_ok(du_batch_split_init(&s, &config, alone ? NULL : &ranks, &diag), &diag);
        assert_int_equal(s.n, n + batch_seqs); /* the largest step */
        assert_int_equal(s.spread, spread && !alone);
        du_batch_split_set(&s, 3 * batch_seqs, n);
        int64_t mine = walk(&s, seen);
        of_first = rank == 0 ? mine : of_first;
        most = mine > most ? mine : most;
        n_nodes += mine > 0;
        if (!s.spread) {
            du_span own = du_batch_split_spans(&s, 0)[rank];
            assert_int_equal(own.end - own.first, mine);
            assert_true(s.end == own.end && (mine == 0 || s.first == own.first));
        }
        if (!s.spread && rank == n_ranks - 1) {
            assert_int_equal(du_batch_split_nodes(&s, 0).n, n_nodes);
        }
        du_batch_split_done(&s);
        du_train_config_done(&config);
    }
    assert_int_equal(of_first, most);
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(seen[i], 1);
    }
}

static void test_each_once(void **state) {
    (void)state;
    for (int64_t batch_seqs = 1; batch_seqs <= 6; batch_seqs++) {
        for (int64_t n_micros = 1; n_micros <= LEAVES_MAX / 6; n_micros++) {
            check(1, true, false, batch_seqs, n_micros);
            for (int64_t n_ranks = 1; n_ranks <= RANKS_MAX; n_ranks++) {
                check(n_ranks, false, false, batch_seqs, n_micros);
                check(n_ranks, false, true, batch_seqs, n_micros);
            }
        }
    }
}

/* The picture in the header. */
static void test_spread(void **state) {
    (void)state;
    du_train_config config;
    du_batch_split s;
    du_ranks ranks = {.link = {.rank = 1, .n = 3}};
    assert_ok(du_train_config_init(&config, &diag), &diag);
    config.batch_seqs = 2;
    config.accumulate = 5;
    config.ranks.experts = DU_EXPERTS_SPREAD;
    assert_ok(du_batch_split_init(&s, &config, &ranks, &diag), &diag);
    assert_int_equal(s.n_seq, 2);
    assert_int_equal(s.n_rounds, 2);
    du_leaves round = du_batch_split_round(&s, 1), nodes = du_batch_split_nodes(&s, 1);
    assert_true(round.first == 6 && round.n == 4 && round.last);
    assert_true(nodes.first == 3 && nodes.n == 2 && nodes.last);
    const du_span want[] = {{6, 8}, {8, 10}, {10, 10}};
    assert_memory_equal(du_batch_split_spans(&s, 1), want, sizeof want);
    du_batch_split_done(&s);
    du_train_config_done(&config);
}

/* 24 sequences in two ranks are computed 8 at a time, the 36 of steps of full size 4. */
static void test_most(void **state) {
    (void)state;
    du_train_config config;
    du_batch_split s;
    du_ranks ranks = {.link = {.rank = 1, .n = 2}};
    assert_ok(du_train_config_init(&config, &diag), &diag);
    config.batch_seqs = 12;
    config.accumulate = 3;
    assert_ok(du_batch_split_init(&s, &config, &ranks, &diag), &diag);
    assert_true(s.n_seq == 4 && s.n_seq_max == 4 && s.n_rounds_max == 8);
    du_batch_split_done(&s);
    config.schedule.batch_from = 2;
    config.schedule.batch_steps = 1; /* 24, 36, ... */
    assert_ok(du_batch_split_init(&s, &config, &ranks, &diag), &diag);
    assert_true(s.n_seq == 4 && s.n_seq_max == 8 && s.n_rounds_max == 8);
    int64_t before = 0;
    for (int64_t i = 1; i < 9; i++) {
        int64_t n = i == 1 ? 24 : 36;
        du_batch_split_set(&s, before, n);
        assert_true(s.n_seq <= s.n_seq_max && s.n_rounds <= s.n_rounds_max);
        before += n;
    }
    s.batch_seqs = s.n_seq_max;
    for (int64_t n = 1; n < 100; n++) {
        du_batch_split_set(&s, 0, n);
        assert_true(s.n_seq <= s.n_seq_max);
    }
    du_batch_split_done(&s);
    du_train_config_done(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_once),
                                       cmocka_unit_test(test_spread), cmocka_unit_test(test_most)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
