/* Shards: what is written comes back, by sequence and through the loader; damage is told. */
#include "test.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "data/loader.h"
#include "data/shards.h"
#include "tmp.h"

enum { LEN = 12, N_SEQS = 50 };

typedef struct {
    int32_t tokens[LEN + 1];
    uint8_t marks[LEN + 1];
} sequence;

static uint64_t data_of = 0; /* which texts the sequences are made of */

static sequence sequence_of(du_shards_part part, int64_t i, int64_t n_vocab) {
    sequence s;
    for (int64_t t = 0; t <= LEN; t++) {
        uint64_t h = du_rng_hash((uint64_t)(i * DU_SHARDS_PARTS + part) + data_of, (uint64_t)t);
        s.tokens[t] = (int32_t)(h % (uint64_t)n_vocab);
        s.marks[t] = (uint8_t)(h >> 60 & 3);
    }
    return s;
}

/* Rows [from, from + n) are those of a sequence, by the definition of its marks. */
static void check_rows(const sequence *s, int64_t from, int64_t n, const du_shards_rows *rows) {
    int64_t first = 0, n_targets = 0;
    for (int64_t t = 0; t < n; t++) {
        first = s->marks[from + t] & DU_MARK_BEGINS ? t : first;
        bool counts = s->marks[from + t + 1] & DU_MARK_COUNTS;
        n_targets += counts;
        assert_int_equal(rows->tokens[t], s->tokens[from + t]);
        assert_int_equal(rows->targets[t], counts ? s->tokens[from + t + 1] : -1);
        assert_int_equal(rows->first[t], first);
    }
    assert_int_equal(rows->n_targets, n_targets);
}

static int64_t n_of(du_shards_part part) {
    return part == DU_SHARDS_TRAIN ? N_SEQS : 3;
}

static int32_t row_memory[3][LEN];
static du_shards_rows rows = {row_memory[0], row_memory[1], row_memory[2], 0};

static du_err write_shards(const char *dir, int64_t n_vocab, int64_t shard_bytes, du_diag *diag) {
    du_shards_params params = {LEN, n_vocab, shard_bytes};
    du_shards_writer *w = NULL;
    json_t *about = json_pack("{s:i}", "answer", 42);
    du_err err = about ? du_shards_writer_open(&w, dir, &params, diag) : DU_ENOMEM;
    for (int part = 0; part < DU_SHARDS_PARTS; part++) {
        for (int64_t i = 0; i < n_of((du_shards_part)part) && err == DU_OK; i++) {
            sequence s = sequence_of((du_shards_part)part, i, n_vocab);
            err = du_shards_write(w, (du_shards_part)part, s.tokens, s.marks, diag);
        }
    }
    err = err ? err : du_shards_writer_commit(w, about, diag);
    du_shards_writer_close(w);
    json_decref(about);
    return err;
}

static void sequences_come_back(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    du_diag_reset(&diag);
    static const int64_t vocabs[] = {1, 1 << 16, (1 << 16) + 1, 1 << 20},
                         sizes[] = {1, 500, 1 << 20};
    for (int k = 0; k < 12; k++) {
        char dir[TEST_PATH_BYTES];
        snprintf(dir, sizeof dir, "%s/d/%d", tmp.path, k);
        int64_t n_vocab = vocabs[k % 4];
        assert_ok(write_shards(dir, n_vocab, sizes[k / 4], &diag), &diag);
        for (int part = 0; part < DU_SHARDS_PARTS; part++) {
            du_shards *s = NULL;
            assert_ok(du_shards_open(&s, dir, (du_shards_part)part, &diag), &diag);
            assert_int_equal(du_shards_n_seqs(s), n_of((du_shards_part)part));
            assert_int_equal(du_shards_seq_len(s), LEN);
            assert_int_equal(du_shards_n_vocab(s), n_vocab);
            for (int64_t i = du_shards_n_seqs(s) - 1; i >= 0; i--) {
                sequence want = sequence_of((du_shards_part)part, i, n_vocab);
                for (int64_t from = 0; from < LEN; from++) {
                    assert_ok(du_shards_read(s, i, from, LEN - from, &rows, &diag), &diag);
                    check_rows(&want, from, LEN - from, &rows);
                }
            }
            du_shards_close(s);
        }
    }
    test_tmp_remove(&tmp);
}

/* A micro-batch by the definition: tokens, targets that count, where documents begin. */
static void loader_gives_what_was_packed(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(write_shards(test_tmp_file(&tmp, "d"), 1000, 700, &diag), &diag);
    static const int64_t lens[] = {LEN, 6, 4, 1};
    for (int k = 0; k < 8; k++) {
        int64_t len = lens[k / 2], n = N_SEQS * LEN / len;
        du_loader_params params = {.shards = test_tmp_file(&tmp, "d"),
                                   .n_vocab = 1000,
                                   .seq_len = len,
                                   .batch_seqs = 3,
                                   .shuffled = k % 2 == 1,
                                   .seed = 3};
        du_loader *loader = NULL;
        du_loader_batch batch;
        assert_ok(du_loader_open(&loader, &params, &diag), &diag);
        assert_ok(du_loader_batch_init(&batch, loader, &diag), &diag);
        assert_int_equal(du_loader_n_tokens(loader), N_SEQS * LEN);
        for (int64_t s = 0; s < n; s++) {
            int64_t n_calls = du_mem_get_stats().n_calls, n_targets = 0;
            assert_ok(du_loader_read(loader, s, &batch, &diag), &diag);
            assert_int_equal(du_mem_get_stats().n_calls, n_calls);
            for (int64_t b = 0; b < 3; b++) {
                int64_t q = s * 3 + b, i = q % n;
                if (params.shuffled) {
                    uint64_t key = du_rng_hash(3, (uint64_t)(q / n));
                    i = (int64_t)du_rng_permute(key, (uint64_t)n, (uint64_t)i);
                }
                sequence want = sequence_of(DU_SHARDS_TRAIN, i * len / LEN, 1000);
                du_shards_rows got = {batch.tokens + b * len, batch.targets + b * len,
                                      batch.first + b * len, 0};
                for (int64_t t = 0; t < len; t++) {
                    got.n_targets += got.targets[t] >= 0;
                }
                check_rows(&want, i * len % LEN, len, &got);
                n_targets += got.n_targets;
            }
            assert_int_equal(batch.n_targets, n_targets);
        }
        du_loader_batch_done(&batch);
        du_loader_close(loader);
    }
    test_tmp_remove(&tmp);
}

static void unfit_shards_are_refused(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(write_shards(test_tmp_file(&tmp, "d"), 1000, 700, &diag), &diag);
    assert_fails(write_shards(test_tmp_file(&tmp, "d"), 1000, 700, &diag), DU_EEXIST, &diag,
                 "holds packed data already");
    du_loader *loader = NULL;
    du_loader_params params = {
        .shards = test_tmp_file(&tmp, "d"), .n_vocab = 1000, .seq_len = 5, .batch_seqs = 1};
    assert_fails(du_loader_open(&loader, &params, &diag), DU_EINVAL, &diag,
                 "sequences of 12 tokens, which is no multiple of 5");
    params.seq_len = 24;
    assert_fails(du_loader_open(&loader, &params, &diag), DU_EINVAL, &diag, "no multiple of 24");
    params.seq_len = 12;
    params.n_vocab = 999;
    assert_fails(du_loader_open(&loader, &params, &diag), DU_EINVAL, &diag,
                 "a vocabulary of 1000 tokens, but the model has 999");
    params.shards = "/nowhere";
    assert_fails(du_loader_open(&loader, &params, &diag), DU_ENOENT, &diag, "/nowhere/index.json");
    assert_null(loader);
    test_tmp_remove(&tmp);
}

/* Opens the folder and reads all of it. */
static du_err read_all(const char *dir, du_diag *diag) {
    du_shards *s = NULL;
    du_err err = du_shards_open(&s, dir, DU_SHARDS_TRAIN, diag);
    for (int64_t i = 0; err == DU_OK && i < du_shards_n_seqs(s); i++) {
        err = du_shards_read(s, i, 0, LEN, &rows, diag);
    }
    du_shards_close(s);
    return err;
}

static void damage_is_told(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    du_diag_reset(&diag);
    char path[TEST_PATH_BYTES];
    const char *dir = tmp.path;
    assert_ok(write_shards(dir, 1000, 1 << 20, &diag), &diag);
    snprintf(path, sizeof path, "%s/train-00000.bin", dir);
    char *bytes = NULL;
    size_t len = 0;
    assert_ok(du_file_read(&bytes, &len, path, 1 << 20, &diag), &diag);
    for (size_t at = 0; at < len; at += at < 256 ? 1 : 7) { /* each byte changed */
        bytes[at] ^= 0x10;
        test_tmp_write(&tmp, "train-00000.bin", bytes, len);
        du_diag_reset(&diag);
        assert_true(read_all(dir, &diag) != DU_OK);
        assert_non_null(strstr(diag.msg, "train-00000.bin"));
        bytes[at] ^= 0x10;
    }
    for (size_t n = 0; n < len; n += 13) { /* cut off */
        test_tmp_write(&tmp, "train-00000.bin", bytes, n);
        assert_fails(read_all(dir, &diag), DU_EFORMAT, &diag, "train-00000.bin");
    }
    test_tmp_write(&tmp, "train-00000.bin", bytes, len);
    du_diag_reset(&diag);
    assert_ok(read_all(dir, &diag), &diag);
    char sum[17];
    uint64_t checksum;
    memcpy(&checksum, bytes + 48, 8);
    snprintf(sum, sizeof sum, "%016llx", (unsigned long long)checksum);
    du_free(bytes);
#define DASHES "----------------" /* for the file's checksum */
#define BEGIN  "{\"format\": \"dure shards\", \"version\": 2"
#define SIZES  BEGIN ", \"seq_len\": 12, \"vocab\": 1000, \"token_bytes\": 2, \"parts\": "
#define PART(n, all, sum)                                                                          \
    "{\"train\": {\"sequences\": " all ", \"checksum\": \"0000000000000000\", \"files\": "         \
    "[{\"sequences\": " n ", \"checksum\": \"" sum "\"}]}}}"
    static const struct {
        const char *text, *says;
    } indexes[] = {
        {"{}", "\"format\" is not"},
        {"{\"format\": \"dure shards\", \"version\": 1}", "reads version 2: pack the data anew"},
        {BEGIN "}", "\"seq_len\", \"vocab\" or"},
        {SIZES PART("50", "51", DASHES), "50 sequences are said to be 51"},
        {SIZES PART("49", "49", DASHES), "other data"},
        {SIZES PART("50", "50", "0123456789abcdef"), "other data"},
        {SIZES PART("50", "50", "0123"), "\"checksum\" is none"},
        {SIZES "{}}", "\"checksum\" is none"},
        {BEGIN ", \"seq_len\": 12, \"vocab\": 1000, \"parts\": " PART("50", "50", DASHES),
         "\"token_bytes\" is missing"},
    };
    for (size_t i = 0; i < sizeof indexes / sizeof indexes[0]; i++) {
        char text[512];
        snprintf(text, sizeof text, "%s", indexes[i].text);
        char *place = strstr(text, DASHES);
        if (place) {
            memcpy(place, sum, 16);
        }
        test_tmp_write(&tmp, "index.json", text, strlen(text));
        assert_fails(read_all(dir, &diag), i == 1 ? DU_EUNSUPPORTED : DU_EFORMAT, &diag,
                     "index.json");
        assert_non_null(strstr(diag.msg, indexes[i].says));
    }
    test_tmp_remove(&tmp);
}

/* Shards as many, as long and of as many sequences, but of other texts. */
static void shards_of_other_data_are_refused(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    du_diag_reset(&diag);
    char dir[TEST_PATH_BYTES];
    snprintf(dir, sizeof dir, "%s", test_tmp_file(&tmp, "d"));
    assert_ok(write_shards(dir, 1000, 700, &diag), &diag);
    data_of = 1 << 20;
    assert_ok(write_shards(test_tmp_file(&tmp, "other"), 1000, 700, &diag), &diag);
    data_of = 0;
    assert_ok(read_all(dir, &diag), &diag);
    char from[TEST_PATH_BYTES], to[TEST_PATH_BYTES];
    snprintf(from, sizeof from, "%s", test_tmp_file(&tmp, "other/train-00001.bin"));
    snprintf(to, sizeof to, "%s", test_tmp_file(&tmp, "d/train-00001.bin"));
    assert_int_equal(rename(from, to), 0);
    assert_fails(read_all(dir, &diag), DU_EFORMAT, &diag, "train-00001.bin: belongs to other data");
    test_tmp_remove(&tmp);
}

static void changed_shards_are_refused(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    du_diag_reset(&diag);
    du_shards *s = NULL;
    assert_ok(write_shards(test_tmp_file(&tmp, "d"), 1000, 700, &diag), &diag);
    assert_ok(du_shards_open(&s, test_tmp_file(&tmp, "d"), DU_SHARDS_TRAIN, &diag), &diag);
    assert_int_equal(truncate(test_tmp_file(&tmp, "d/train-00001.bin"), 100), 0);
    assert_ok(du_shards_read(s, 0, 0, LEN, &rows, &diag), &diag);
    assert_fails(du_shards_read(s, 30, 0, LEN, &rows, &diag), DU_EIO, &diag,
                 "train-00001.bin: changed since");
    du_shards_close(s);
    test_tmp_remove(&tmp);
}

/* A failure at any place leaves neither memory nor files. */
static void survives_short_memory(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    test_tmp inner;
    snprintf(inner.path, sizeof inner.path, "%.40s/d", tmp.path);
    const char *dir = inner.path;
    int64_t n_live = du_mem_get_stats().n_live;
    for (int64_t n = 1;; n++) {
        du_diag_reset(&diag);
        du_mem_fail_at(n, false);
        du_err err = write_shards(dir, 1000, 700, &diag);
        bool written = err == DU_OK;
        assert_int_equal(du_dir_exists(dir), written);
        err = err ? err : read_all(dir, &diag);
        du_mem_fail_at(0, false);
        assert_int_equal(du_mem_get_stats().n_live, n_live);
        if (err == DU_OK) {
            assert_true(n > 20);
            break;
        }
        assert_int_equal(err, DU_ENOMEM);
        if (written) {
            test_tmp_remove(&inner);
        }
    }
    test_tmp_remove(&tmp);
}

static void full_disk_leaves_nothing(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    test_limit_files(300);
    assert_fails(write_shards(test_tmp_file(&tmp, "d"), 1000, 200, &diag), DU_EIO, &diag, "index");
    assert_fails(write_shards(test_tmp_file(&tmp, "d"), 1000, 700, &diag), DU_EIO, &diag, "train-");
    test_limit_files(-1);
    assert_int_equal(test_tmp_count(&tmp), 0);
    test_tmp_remove(&tmp);
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_come_back),
        cmocka_unit_test(loader_gives_what_was_packed),
        cmocka_unit_test(unfit_shards_are_refused),
        cmocka_unit_test(damage_is_told),
        cmocka_unit_test(shards_of_other_data_are_refused),
        cmocka_unit_test(changed_shards_are_refused),
        cmocka_unit_test(survives_short_memory),
        cmocka_unit_test(full_disk_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
