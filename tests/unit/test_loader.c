/* Micro-batches of raw tokens: which tokens lie where, permutations, resuming, refusals. */
#include "test.h"

#include "base/mem.h"
#include "base/rng.h"
#include "data/loader.h"
#include "tmp.h"

enum { N_VOCAB = 60000 };

static uint32_t token_of(int64_t i) {
    return (uint32_t)(du_rng_hash(5, (uint64_t)i) % N_VOCAB);
}

/* n tokens of `bytes` bytes in a file. */
static void write_tokens(const test_tmp *tmp, const char *name, int64_t n, int64_t bytes) {
    uint8_t *data = du_alloc_array((size_t)n + 1, (size_t)bytes);
    assert_non_null(data);
    for (int64_t i = 0; i < n; i++) {
        uint32_t token = token_of(i);
        for (int64_t k = 0; k < bytes; k++) {
            data[i * bytes + k] = (uint8_t)(token >> (8 * k));
        }
    }
    test_tmp_write(tmp, name, data, (size_t)(n * bytes));
    du_free(data);
}

static du_loader *open_loader(const test_tmp *tmp, const char *name, du_loader_params params) {
    du_diag diag;
    du_diag_reset(&diag);
    params.tokens = test_tmp_file(tmp, name);
    params.n_vocab = params.n_vocab ? params.n_vocab : N_VOCAB;
    du_loader *loader = NULL;
    assert_ok(du_loader_open(&loader, &params, &diag), &diag);
    return loader;
}

static du_loader_batch batch_of(const du_loader *loader) {
    du_diag diag;
    du_diag_reset(&diag);
    du_loader_batch batch;
    assert_ok(du_loader_batch_init(&batch, loader, &diag), &diag);
    return batch;
}

static void read_batch(const du_loader *loader, int64_t s, du_loader_batch *batch) {
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_loader_read(loader, s, batch, &diag), &diag);
}

/* The contract of `sequential`, by its definition. */
static void sequential_is_as_defined(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    static const struct {
        int64_t n_tokens, seq_len, batch_seqs;
    } shapes[] = {{1000, 7, 3}, {1000, 10, 4}, {17, 16, 1},
                  {17, 16, 5},  {2, 1, 3},     {40000, 4096, 2}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        int64_t n = shapes[i].n_tokens, len = shapes[i].seq_len, rows = shapes[i].batch_seqs;
        for (int64_t bytes = 2; bytes <= 4; bytes += 2) {
            write_tokens(&tmp, "t", n, bytes);
            du_loader *loader = open_loader(
                &tmp, "t",
                (du_loader_params){.token_bytes = bytes, .seq_len = len, .batch_seqs = rows});
            assert_int_equal(du_loader_n_tokens(loader), n);
            du_loader_batch batch = batch_of(loader);
            assert_null(batch.first);
            for (int64_t s = 0; s < 3 * n / (len * rows) + 3; s++) {
                read_batch(loader, s, &batch);
                assert_int_equal(batch.n_targets, rows * len);
                for (int64_t r = 0; r < rows * len; r++) {
                    int64_t at = (s * rows + r / len) * len + r % len;
                    assert_int_equal(batch.tokens[r], token_of(at % n));
                    assert_int_equal(batch.targets[r], token_of((at + 1) % n));
                }
            }
            du_loader_batch_done(&batch);
            du_loader_close(loader);
        }
    }
    test_tmp_remove(&tmp);
}

/* Each pass takes every whole sequence once, in an order that pass and seed choose. */
static void shuffled_passes_are_permutations(void **state) {
    (void)state;
    enum { LEN = 5, SEQS = 101, PASSES = 3, SEEDS = 3 };
    static int64_t order[SEEDS][PASSES][SEQS];
    test_tmp tmp = test_tmp_make();
    write_tokens(&tmp, "t", SEQS * LEN + LEN, 2); /* one short of another sequence's last target */
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        du_loader *loader = open_loader(
            &tmp, "t",
            (du_loader_params){
                .token_bytes = 2, .seq_len = LEN, .batch_seqs = 1, .shuffled = true, .seed = seed});
        assert_int_equal(du_loader_n_tokens(loader), SEQS * LEN);
        du_loader_batch batch = batch_of(loader);
        for (int64_t s = 0; s < PASSES * SEQS; s++) {
            read_batch(loader, s, &batch);
            int64_t i = 0;
            while (token_of(i * LEN) != (uint32_t)batch.tokens[0] ||
                   token_of(i * LEN + 1) != (uint32_t)batch.targets[0]) {
                i++;
                assert_true(i < SEQS);
            }
            for (int64_t t = 0; t < LEN; t++) {
                assert_int_equal(batch.tokens[t], token_of(i * LEN + t));
                assert_int_equal(batch.targets[t], token_of(i * LEN + t + 1));
            }
            order[seed][s / SEQS][s % SEQS] = i;
        }
        du_loader_batch_done(&batch);
        du_loader_close(loader);
    }
    for (int k = 0; k < SEEDS * PASSES; k++) {
        const int64_t *one = order[k / PASSES][k % PASSES];
        bool seen[SEQS] = {false};
        int64_t n_in_place = 0;
        for (int64_t i = 0; i < SEQS; i++) {
            assert_false(seen[one[i]]);
            seen[one[i]] = true;
            n_in_place += one[i] == i;
        }
        assert_true(n_in_place < 10); /* 1 is to be expected */
        for (int other = 0; other < k; other++) {
            assert_memory_not_equal(one, order[other / PASSES][other % PASSES], sizeof order[0][0]);
        }
    }
    test_tmp_remove(&tmp);
}

/* A micro-batch depends on its number alone: not on what was read before, nor on how many rows the
 * micro-batches have. */
static void number_is_all_the_state(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    write_tokens(&tmp, "t", 3000, 2);
    for (int shuffled = 0; shuffled < 2; shuffled++) {
        du_loader_params params = {
            .token_bytes = 2, .seq_len = 16, .batch_seqs = 4, .shuffled = shuffled == 1, .seed = 7};
        du_loader *fours = open_loader(&tmp, "t", params);
        params.batch_seqs = 1;
        du_loader *ones = open_loader(&tmp, "t", params);
        du_loader_batch four = batch_of(fours), one = batch_of(ones);
        for (int64_t s = 99; s >= 0; s -= 3) {
            int64_t n_calls = du_mem_get_stats().n_calls;
            read_batch(fours, s, &four);
            assert_int_equal(du_mem_get_stats().n_calls, n_calls);
            for (int64_t b = 0; b < 4; b++) {
                read_batch(ones, s * 4 + b, &one);
                assert_memory_equal(four.tokens + 16 * b, one.tokens, 16 * sizeof(int32_t));
                assert_memory_equal(four.targets + 16 * b, one.targets, 16 * sizeof(int32_t));
            }
        }
        du_loader_batch_done(&four);
        du_loader_batch_done(&one);
        du_loader_close(fours);
        du_loader_close(ones);
    }
    test_tmp_remove(&tmp);
}

static void unfit_files_are_refused(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    du_loader *loader = NULL;
    write_tokens(&tmp, "t", 8, 2);
    du_loader_params params = {.tokens = test_tmp_file(&tmp, "t"),
                               .token_bytes = 2,
                               .n_vocab = N_VOCAB,
                               .seq_len = 8,
                               .batch_seqs = 2};
    assert_fails(du_loader_open(&loader, &params, &diag), DU_ELIMIT, &diag,
                 "/t: 8 tokens are less than a sequence of 8 and the token behind it");
    test_tmp_write(&tmp, "t", "", 0);
    assert_fails(du_loader_open(&loader, &params, &diag), DU_ELIMIT, &diag, "/t: 0 tokens");
    params.token_bytes = 4;
    test_tmp_write(&tmp, "t", "0123456789", 10);
    assert_fails(du_loader_open(&loader, &params, &diag), DU_EFORMAT, &diag,
                 "/t: 10 bytes are no whole tokens of 4 bytes");
    params.tokens = "/nowhere/t";
    assert_fails(du_loader_open(&loader, &params, &diag), DU_ENOENT, &diag, "/nowhere/t");
    assert_null(loader);
    test_tmp_remove(&tmp);
}

static void tokens_outside_the_vocabulary_are_refused(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    static const uint32_t wide[] = {1, 2, 3, 99, 100, 0x80000000};
    static const uint16_t narrow[] = {1, 2, 3, 99, 100, 0x8000};
    for (int64_t bytes = 2; bytes <= 4; bytes += 2) {
        test_tmp_write(&tmp, "t", bytes == 2 ? (const void *)narrow : wide, (size_t)(6 * bytes));
        du_loader *loader =
            open_loader(&tmp, "t",
                        (du_loader_params){
                            .token_bytes = bytes, .n_vocab = 100, .seq_len = 3, .batch_seqs = 1});
        du_loader_batch batch = batch_of(loader);
        read_batch(loader, 0, &batch);
        char message[80];
        snprintf(message, sizeof message, "/t: byte %d: token 100 is outside the vocabulary of 100",
                 (int)(4 * bytes));
        assert_fails(du_loader_read(loader, 1, &batch, &diag), DU_EFORMAT, &diag, message);
        assert_int_equal(diag.offset, 4 * bytes);
        assert_fails(du_loader_read(loader, -1, &batch, &diag), DU_ELIMIT, &diag, "micro-batch -1");
        assert_fails(du_loader_read(loader, INT64_MAX, &batch, &diag), DU_ELIMIT, &diag,
                     "no micro");
        assert_fails(du_loader_read(loader, INT64_MAX / 2, &batch, &diag), DU_ELIMIT, &diag,
                     "beyond");
        du_loader_batch_done(&batch);
        du_loader_close(loader);
    }
    test_tmp_remove(&tmp);
}

static void changed_files_are_refused(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    write_tokens(&tmp, "t", 100000, 2);
    write_tokens(&tmp, "same", 100000, 2);
    du_loader_params params = {.token_bytes = 2, .seq_len = 64, .batch_seqs = 2};
    du_loader *loader = open_loader(&tmp, "t", params), *same = open_loader(&tmp, "same", params);
    uint64_t sum = du_loader_checksum(loader);
    assert_int_equal(sum, du_loader_checksum(same));
    du_loader_batch batch = batch_of(loader);
    read_batch(loader, 700, &batch);
    assert_int_equal(truncate(test_tmp_file(&tmp, "t"), 50), 0);
    assert_fails(du_loader_read(loader, 700, &batch, &diag), DU_EIO, &diag, "/t: changed since");
    assert_int_equal(unlink(test_tmp_file(&tmp, "same")), 0);
    assert_fails(du_loader_read(same, 0, &batch, &diag), DU_EIO, &diag, "/same: changed since");
    du_loader_close(loader);
    du_loader_close(same);
    write_tokens(&tmp, "t", 100001, 2);
    loader = open_loader(&tmp, "t", params);
    assert_true(du_loader_checksum(loader) != sum);
    du_loader_close(loader);
    du_loader_batch_done(&batch);
    test_tmp_remove(&tmp);
}

static uint64_t checksum_of(const test_tmp *tmp, const char *name) {
    du_loader *loader = open_loader(
        tmp, name, (du_loader_params){.token_bytes = 2, .seq_len = 64, .batch_seqs = 2});
    uint64_t sum = du_loader_checksum(loader);
    du_loader_close(loader);
    return sum;
}

/* The file with one bit of a byte changed. */
static void flip(const test_tmp *tmp, const char *name, long at) {
    FILE *file = fopen(test_tmp_file(tmp, name), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
    assert_int_equal(fclose(file), 0);
}

/* All of a small file counts, both ends and places between them of a large one. */
static void checksums_tell_files_apart(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    for (long n_bytes = 200000; n_bytes <= 6400000; n_bytes *= 32) {
        write_tokens(&tmp, "t", n_bytes / 2, 2);
        uint64_t sum = checksum_of(&tmp, "t");
        long gap = n_bytes < 250000 ? 9973 : (n_bytes - 4096) / 63;
        for (long at = 100; at < n_bytes; at += gap) {
            flip(&tmp, "t", at);
            assert_true(checksum_of(&tmp, "t") != sum);
            flip(&tmp, "t", at);
        }
        flip(&tmp, "t", n_bytes - 1);
        assert_true(checksum_of(&tmp, "t") != sum);
        flip(&tmp, "t", n_bytes - 1);
        assert_true(checksum_of(&tmp, "t") == sum);
    }
    test_tmp_remove(&tmp);
}

static void survives_short_memory(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    write_tokens(&tmp, "t", 1000, 2);
    du_loader_params params = {.tokens = test_tmp_file(&tmp, "t"),
                               .token_bytes = 2,
                               .n_vocab = N_VOCAB,
                               .seq_len = 8,
                               .batch_seqs = 2};
    int64_t n_live = du_mem_get_stats().n_live;
    for (int64_t n = 1;; n++) {
        du_loader *loader = NULL;
        du_loader_batch batch = {0};
        du_diag_reset(&diag);
        du_mem_fail_at(n, false);
        du_err err = du_loader_open(&loader, &params, &diag);
        err = err ? err : du_loader_batch_init(&batch, loader, &diag);
        du_mem_fail_at(0, false);
        du_loader_batch_done(&batch);
        du_loader_close(loader);
        assert_int_equal(du_mem_get_stats().n_live, n_live);
        if (err == DU_OK) {
            assert_true(n > 4);
            break;
        }
        assert_int_equal(err, DU_ENOMEM);
    }
    test_tmp_remove(&tmp);
}

/* No data: random tokens, of which each is the target of the one before, the same by the same seed.
 */
static void random_tokens(void **state) {
    (void)state;
    du_diag diag;
    du_loader *a, *b;
    du_loader_params params = {.n_vocab = 50, .seq_len = 40, .batch_seqs = 3, .seed = 4};
    du_diag_reset(&diag);
    assert_ok(du_loader_open(&a, &params, &diag), &diag);
    params.seed = 5;
    assert_ok(du_loader_open(&b, &params, &diag), &diag);
    du_loader_batch one = batch_of(a), other = batch_of(b);
    int64_t n = params.seq_len * params.batch_seqs, n_same = 0;
    read_batch(b, 2, &other);
    int32_t seen[50] = {0};
    for (int64_t s = 0; s < 3; s++) {
        read_batch(a, s, &one);
        assert_int_equal(one.n_targets, n);
        for (int64_t i = 0; i < n; i++) {
            assert_in_range(one.tokens[i], 0, 49);
            assert_true(i % params.seq_len == 0 || one.tokens[i] == one.targets[i - 1]);
            seen[one.targets[i]]++;
            n_same += s == 2 && one.tokens[i] == other.tokens[i];
        }
    }
    for (int i = 0; i < 50; i++) {
        assert_true(seen[i] > 0);
    }
    assert_true(n_same < n / 10);
    read_batch(b, 2, &one);
    assert_memory_equal(one.tokens, other.tokens, (size_t)n * sizeof *one.tokens);
    du_loader_batch_done(&one);
    du_loader_batch_done(&other);
    du_loader_close(a);
    du_loader_close(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequential_is_as_defined),
        cmocka_unit_test(shuffled_passes_are_permutations),
        cmocka_unit_test(number_is_all_the_state),
        cmocka_unit_test(unfit_files_are_refused),
        cmocka_unit_test(tokens_outside_the_vocabulary_are_refused),
        cmocka_unit_test(changed_files_are_refused),
        cmocka_unit_test(checksums_tell_files_apart),
        cmocka_unit_test(survives_short_memory),
        cmocka_unit_test(random_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
