/* Packing and the shuffle before it: nothing lost, nothing twice, documents apart. */
#include "test.h"

#include "base/mem.h"
#include "base/rng.h"
#include "data/bins.h"
#include "data/shards.h"
#include "data/shuffle.h"

enum { N_DOCUMENTS = 700, TOKENS_MAX = 1 << 18, FILL = -7 };

/* Every token has a number of its own; a document is a run of them. */
static struct {
    int64_t seq_len;
    int64_t n_tokens;
    int64_t start[N_DOCUMENTS], len[N_DOCUMENTS];
    bool whole[N_DOCUMENTS];
    int32_t document_of[TOKENS_MAX];
    char counts[TOKENS_MAX];
    int64_t n_as_row[TOKENS_MAX], n_as_target[TOKENS_MAX]; /* how often it came out */
    int64_t n_pieces[N_DOCUMENTS];
    int64_t n_seqs, n_fill;
} seen;

static du_err look(void *arg, const int32_t *tokens, const uint8_t *marks, du_diag *diag) {
    (void)arg;
    (void)diag;
    seen.n_seqs++;
    for (int64_t t = 0; t < seen.seq_len; t++) {
        bool fresh = t == 0 || (marks[t] & DU_MARK_BEGINS);
        if (tokens[t] == FILL) {
            seen.n_fill++;
            assert_false(marks[t] & DU_MARK_COUNTS);
            assert_false(marks[t + 1] & DU_MARK_COUNTS);
            continue;
        }
        int32_t document = seen.document_of[tokens[t]];
        seen.n_as_row[tokens[t]]++;
        seen.n_pieces[document] += fresh;
        if (!fresh) {
            assert_int_equal(tokens[t], tokens[t - 1] + 1);
            assert_int_equal(document, seen.document_of[tokens[t - 1]]);
        }
        if (marks[t + 1] & DU_MARK_COUNTS) { /* a target is the next token of the same document */
            assert_int_equal(tokens[t + 1], tokens[t] + 1);
            assert_int_equal(document, seen.document_of[tokens[t + 1]]);
            seen.n_as_target[tokens[t + 1]]++;
        }
    }
    return DU_OK;
}

static void make_documents(int64_t seq_len, int whole_of_ten, int64_t longest, uint64_t seed) {
    du_rng rng;
    du_rng_init(&rng, seed);
    memset(&seen, 0, sizeof seen);
    seen.seq_len = seq_len;
    for (int32_t d = 0; d < N_DOCUMENTS; d++) {
        seen.whole[d] = (int)du_rng_below(&rng, 10) < whole_of_ten;
        int64_t most = seen.whole[d] && longest > seq_len + 1 ? seq_len + 1 : longest;
        seen.start[d] = seen.n_tokens;
        seen.len[d] = 1 + (int64_t)du_rng_below(&rng, (uint64_t)most);
        for (int64_t i = 0; i < seen.len[d]; i++) {
            assert_true(seen.n_tokens < TOKENS_MAX);
            seen.document_of[seen.n_tokens] = d;
            seen.counts[seen.n_tokens++] = du_rng_below(&rng, 4) > 0;
        }
    }
}

static du_err add(du_bins *bins, int64_t d, du_diag *diag) {
    int32_t ids[4096];
    for (int64_t i = 0; i < seen.len[d]; i++) {
        ids[i] = (int32_t)(seen.start[d] + i);
    }
    return du_bins_add(bins, ids, seen.counts + seen.start[d], seen.len[d], seen.whole[d], diag);
}

static void every_target_comes_once(void **state) {
    (void)state;
    static const struct {
        int64_t seq_len, longest;
        int whole_of_ten;
    } shapes[] = {{32, 20, 0}, {32, 200, 0}, {32, 33, 10}, {32, 60, 5}, {1, 9, 3},
                  {7, 8, 10},  {256, 40, 8}, {8, 4, 10},   {2, 3, 5}};
    du_diag diag;
    du_diag_reset(&diag);
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        make_documents(shapes[k].seq_len, shapes[k].whole_of_ten, shapes[k].longest, k);
        du_bins *bins = NULL;
        assert_ok(du_bins_new(&bins, shapes[k].seq_len, FILL, look, NULL, &diag), &diag);
        for (int64_t d = 0; d < N_DOCUMENTS; d++) {
            assert_ok(add(bins, d, &diag), &diag);
        }
        assert_ok(du_bins_flush(bins, &diag), &diag);
        int64_t n_learned = 0;
        for (int64_t d = 0; d < N_DOCUMENTS; d++) {
            for (int64_t i = 0; i < seen.len[d]; i++) {
                int64_t token = seen.start[d] + i;
                bool counts = i > 0 && seen.counts[token];
                assert_int_equal(seen.n_as_target[token], counts);
                assert_true(seen.n_as_row[token] == 1 || i == seen.len[d] - 1);
                n_learned += counts;
            }
            assert_true(seen.n_pieces[d] <= 1 || !seen.whole[d]);
        }
        du_bins_stats stats = du_bins_get_stats(bins);
        assert_int_equal(stats.n_seqs, seen.n_seqs);
        assert_int_equal(stats.n_learned, n_learned);
        assert_int_equal(stats.n_fill, seen.n_fill);
        du_bins_free(bins);
    }
}

/* Texts leave rows free in the last sequence alone; short answers leave few. */
static void little_is_filled(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    for (int whole = 0; whole < 2; whole++) {
        make_documents(256, 10 * whole, 100, 5);
        du_bins *bins = NULL;
        assert_ok(du_bins_new(&bins, 256, FILL, look, NULL, &diag), &diag);
        for (int64_t d = 0; d < N_DOCUMENTS; d++) {
            assert_ok(add(bins, d, &diag), &diag);
        }
        int64_t n_before = seen.n_fill;
        assert_ok(du_bins_flush(bins, &diag), &diag);
        assert_true(whole ? n_before < seen.n_tokens / 50 : n_before == 0 && seen.n_fill < 256);
        du_bins_free(bins);
    }
}

/* ---- shuffle ----------------------------------------------------------------------------------
 */

static struct {
    int64_t n;
    int32_t first[N_DOCUMENTS];
} order;

static du_err note(void *arg, const int32_t *ids, const char *counts, int64_t n, bool whole,
                   du_diag *diag) {
    (void)arg;
    (void)diag;
    int64_t d = seen.document_of[ids[0]];
    assert_int_equal(ids[0], seen.start[d]);
    assert_int_equal(ids[n - 1], seen.start[d] + n - 1);
    assert_int_equal(n, seen.len[d]);
    assert_int_equal(whole, seen.whole[d]);
    assert_memory_equal(counts, seen.counts + seen.start[d], (size_t)n);
    order.first[order.n++] = (int32_t)d;
    return DU_OK;
}

static void shuffle(int64_t window, uint64_t seed) {
    du_diag diag;
    du_diag_reset(&diag);
    du_shuffle *s = NULL;
    assert_ok(du_shuffle_new(&s, window, seed, note, NULL, &diag), &diag);
    order.n = 0;
    for (int64_t d = 0; d < N_DOCUMENTS; d++) {
        int32_t ids[4096];
        for (int64_t i = 0; i < seen.len[d]; i++) {
            ids[i] = (int32_t)(seen.start[d] + i);
        }
        assert_ok(
            du_shuffle_add(s, ids, seen.counts + seen.start[d], seen.len[d], seen.whole[d], &diag),
            &diag);
    }
    assert_ok(du_shuffle_flush(s, &diag), &diag);
    du_shuffle_free(s);
    bool came[N_DOCUMENTS] = {false};
    assert_int_equal(order.n, N_DOCUMENTS);
    for (int64_t i = 0; i < N_DOCUMENTS; i++) {
        assert_false(came[order.first[i]]);
        came[order.first[i]] = true;
    }
}

static void shuffled_documents_are_the_same_ones(void **state) {
    (void)state;
    make_documents(64, 5, 60, 9);
    shuffle(0, 1);
    for (int32_t i = 0; i < N_DOCUMENTS; i++) {
        assert_int_equal(order.first[i], i);
    }
    static const int64_t windows[] = {1000, 1 << 14, 1 << 24};
    for (size_t k = 0; k < sizeof windows / sizeof windows[0]; k++) {
        shuffle(windows[k], 1);
        int32_t first[N_DOCUMENTS];
        memcpy(first, order.first, sizeof first);
        shuffle(windows[k], 1);
        assert_memory_equal(first, order.first, sizeof first);
        shuffle(windows[k], 2);
        assert_memory_not_equal(first, order.first, sizeof first);
    }
    /* With room for all of them each place is as likely: the first has come from everywhere. */
    int64_t sum = 0;
    for (uint64_t seed = 0; seed < 300; seed++) {
        shuffle(1 << 24, seed);
        sum += order.first[0];
    }
    /* mean (n - 1) / 2, deviation of the mean n / sqrt(12 * 300): within five of them */
    double mean = (double)sum / 300, deviation = N_DOCUMENTS / 60.0;
    assert_true(mean > (N_DOCUMENTS - 1) / 2.0 - 5 * deviation);
    assert_true(mean < (N_DOCUMENTS - 1) / 2.0 + 5 * deviation);
}

static du_err refuse(void *arg, const int32_t *tokens, const uint8_t *marks, du_diag *diag) {
    (void)tokens;
    (void)marks;
    return ++*(int *)arg > 2 ? du_fail(diag, DU_EIO, "no third one") : DU_OK;
}

static void failures_are_told(void **state) {
    (void)state;
    du_diag diag;
    for (int whole = 0; whole < 2; whole++) {
        make_documents(16, 10 * whole, 17, 3);
        int n_calls = 0;
        du_bins *bins = NULL;
        du_diag_reset(&diag);
        assert_ok(du_bins_new(&bins, 16, FILL, refuse, &n_calls, &diag), &diag);
        du_err err = DU_OK;
        for (int64_t d = 0; d < N_DOCUMENTS && err == DU_OK; d++) {
            err = add(bins, d, &diag);
        }
        assert_int_equal(err, DU_EIO);
        assert_string_equal(diag.msg, "no third one");
        du_bins_free(bins);
    }
}

static void survives_short_memory(void **state) {
    (void)state;
    du_diag diag;
    make_documents(64, 5, 60, 4);
    int64_t n_live = du_mem_get_stats().n_live;
    for (int64_t n = 1;; n++) {
        du_bins *bins = NULL;
        du_diag_reset(&diag);
        du_mem_fail_at(n, false);
        du_err err = du_bins_new(&bins, 64, FILL, look, NULL, &diag);
        for (int64_t d = 0; d < N_DOCUMENTS && err == DU_OK; d++) {
            err = add(bins, d, &diag);
        }
        du_mem_fail_at(0, false);
        du_bins_free(bins);
        assert_int_equal(du_mem_get_stats().n_live, n_live);
        if (err == DU_OK) {
            assert_true(n > 10);
            break;
        }
        assert_int_equal(err, DU_ENOMEM);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_target_comes_once),
        cmocka_unit_test(little_is_filled),
        cmocka_unit_test(shuffled_documents_are_the_same_ones),
        cmocka_unit_test(failures_are_told),
        cmocka_unit_test(survives_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
