/* The contract that every architecture keeps (STYLE: one function for T rows): however a sequence
 * is computed, the same bits come out. */
#include <math.h>
#include <unistd.h>

#include "models.h"

enum { N = 64 };

static char names[64][64];
static int64_t n_models;

/* The logits of all N positions in the plainest way: one thread, one chunk. */
typedef struct {
    du_model *model;
    int32_t ids[N];
    float *want; /* [N, V] */
    int64_t V;
} fixture;

static fixture fixture_open(const char *name) {
    fixture f = {.model = open_fixture(name)};
    f.V = f.model->hp.n_vocab;
    read_ids(name, "ids.txt", f.ids, N);
    du_infer *inf = open_infer(
        f.model, (du_infer_params){.deterministic = true, .auto_cache = true, .n_threads = 1});
    du_session *s = open_session(inf);
    f.want = all_logits(s, f.ids, N);
    du_session_free(s);
    du_infer_free(inf);
    return f;
}

static void fixture_close(fixture *f) {
    du_free(f->want);
    du_model_close(f->model);
}

static void expect_row(const fixture *f, const char *name, const char *what, int64_t t,
                       const float *got) {
    if (memcmp(got, f->want + t * f->V, (size_t)f->V * sizeof *got) != 0) {
        fail_msg("%s: %s: the logits after token %d have other bits", name, what, (int)t);
    }
}

static void chunks_and_threads_do_not_change_bits(void **state) {
    (void)state;
    static const int64_t threads[] = {1, 2, 3, 7}, chunks[] = {1, 5, 17, 64};
    for (int64_t k = 0; k < n_models; k++) {
        fixture f = fixture_open(names[k]);
        for (size_t i = 0; i < 4; i++) {
            du_infer *inf = open_infer(f.model, (du_infer_params){.deterministic = true,
                                                                  .auto_cache = true,
                                                                  .n_threads = threads[i],
                                                                  .n_chunk = chunks[i]});
            du_session *s = open_session(inf);
            float *got = all_logits(s, f.ids, N);
            for (int64_t t = 0; t < N; t++) {
                expect_row(&f, names[k], "chunks and threads", t, got + t * f.V);
            }
            du_free(got);
            du_session_free(s);
            du_infer_free(inf);
        }
        fixture_close(&f);
    }
}

static void rewinding_and_forking_keep_bits(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    for (int64_t k = 0; k < n_models; k++) {
        fixture f = fixture_open(names[k]);
        du_infer *inf = open_infer(
            f.model, (du_infer_params){.deterministic = true, .auto_cache = true, .n_sessions = 2});
        int64_t free_before = du_infer_pages_free(inf);
        du_session *s = open_session(inf), *fork;
        int32_t other[N];
        memcpy(other, f.ids, sizeof other);
        for (int64_t i = 40; i < N; i++) {
            other[i] = (int32_t)((other[i] + 7) % 300);
        }
        assert_ok(du_session_sync(s, f.ids, 50, NULL, NULL, &diag), &diag);
        assert_ok(du_session_fork(&fork, s, &diag), &diag);
        expect_row(&f, names[k], "a fork's logits", 49, du_session_logits(fork));
        assert_ok(du_session_sync(fork, other, N, NULL, NULL, &diag), &diag);
        assert_ok(du_session_sync(s, f.ids, N, NULL, NULL, &diag), &diag);
        expect_row(&f, names[k], "after a fork wrote elsewhere", N - 1, du_session_logits(s));
        assert_int_equal(du_session_common(fork, f.ids, N), 40);
        assert_ok(du_session_sync(fork, f.ids, N, NULL, NULL, &diag), &diag);
        expect_row(&f, names[k], "a rewound fork", N - 1, du_session_logits(fork));
        assert_ok(du_session_sync(s, f.ids, N, NULL, NULL, &diag), &diag);
        expect_row(&f, names[k], "synced twice", N - 1, du_session_logits(s));
        du_session_free(s);
        du_session_free(fork);
        assert_int_equal(du_infer_pages_free(inf), free_before);
        du_infer_free(inf);
        fixture_close(&f);
    }
}

static void batch_neighbours_do_not_change_bits(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    for (int64_t k = 0; k < n_models; k++) {
        fixture f = fixture_open(names[k]);
        du_infer *inf = open_infer(
            f.model, (du_infer_params){.deterministic = true, .auto_cache = true, .n_sessions = 3});
        du_session *s[3];
        float *logits[3];
        int32_t reversed[N];
        for (int64_t i = 0; i < N; i++) {
            reversed[i] = f.ids[N - 1 - i];
        }
        for (int i = 0; i < 3; i++) {
            s[i] = open_session(inf);
            logits[i] = du_alloc((size_t)f.V * sizeof(float));
        }
        assert_ok(du_session_sync(s[0], f.ids, 30, NULL, NULL, &diag), &diag);
        assert_ok(du_session_sync(s[2], reversed, 11, NULL, NULL, &diag), &diag);
        /* One decodes, one reads its prompt, one goes on with a few tokens. */
        du_step_item items[] = {{s[0], f.ids + 30, 1, 1, logits[0]},
                                {s[1], f.ids, 21, 1, logits[1]},
                                {s[2], reversed + 11, 3, 0, NULL}};
        assert_ok(du_infer_step(inf, items, 3, &diag), &diag);
        expect_row(&f, names[k], "decoding beside others", 30, logits[0]);
        expect_row(&f, names[k], "a prompt beside others", 20, logits[1]);
        for (int i = 0; i < 3; i++) {
            du_session_free(s[i]);
            du_free(logits[i]);
        }
        du_infer_free(inf);
        fixture_close(&f);
    }
}

static void saved_and_restored_cache_keeps_bits(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    char dir[] = "/tmp/dure-parity-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = du_path_join(dir, "session");
    for (int64_t k = 0; k < n_models; k++) {
        fixture f = fixture_open(names[k]);
        du_infer *inf = open_infer(
            f.model, (du_infer_params){.deterministic = true, .auto_cache = true, .n_sessions = 2});
        du_session *s = open_session(inf), *back = open_session(inf);
        assert_ok(du_session_sync(s, f.ids, 45, NULL, NULL, &diag), &diag);
        assert_ok(du_session_save(s, path, &diag), &diag);
        assert_ok(du_session_restore(back, path, &diag), &diag);
        assert_int_equal(du_session_common(back, f.ids, N), 45);
        assert_ok(du_session_sync(back, f.ids, N, NULL, NULL, &diag), &diag);
        expect_row(&f, names[k], "restored", N - 1, du_session_logits(back));

        FILE *file = fopen(path, "r+b"); /* one damaged byte in the last page */
        assert_non_null(file);
        fseek(file, -100, SEEK_END);
        int c = fgetc(file);
        fseek(file, -100, SEEK_END);
        fputc(c ^ 1, file);
        fclose(file);
        assert_fails(du_session_restore(back, path, &diag), DU_EFORMAT, &diag, "damaged");
        assert_int_equal(truncate(path, 20), 0);
        assert_fails(du_session_restore(back, path, &diag), DU_EFORMAT, &diag, path);
        du_diag_reset(&diag);
        du_session_free(s);
        du_session_free(back);
        du_infer_free(inf);
        fixture_close(&f);
    }
    unlink(path);
    rmdir(dir);
    du_free(path);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median over positions of |got - want| / |want|: where rounding makes a token take another
 * expert, that position jumps, which says nothing about the cache. */
static double median_distance(const fixture *f, const float *got) {
    double rows[N];
    for (int64_t t = 0; t < N; t++) {
        double difference = 0, size = 0;
        for (int64_t v = t * f->V; v < (t + 1) * f->V; v++) {
            difference += pow((double)got[v] - (double)f->want[v], 2);
            size += pow((double)f->want[v], 2);
        }
        rows[t] = sqrt(difference / size);
    }
    qsort(rows, N, sizeof *rows, by_value);
    return rows[N / 2];
}

/* Rounded caches are near; how near follows from their mantissas (units in the last place: f16
 * 2^-11, bf16 2^-8, q8_0 about 2^-8 of the largest in 32), times 8 for what the layers make of it.
 */
static void rounded_caches_are_near(void **state) {
    (void)state;
    static const struct {
        du_dtype type;
        double bound;
    } caches[] = {{DU_F16, 0x1p-8}, {DU_BF16, 0x1p-5}, {DU_Q8_0, 0x1p-5}};
    for (int64_t k = 0; k < n_models; k++) {
        fixture f = fixture_open(names[k]);
        for (size_t c = 0; c < 3; c++) {
            du_infer_params params = {
                .deterministic = true, .cache_type = caches[c].type, .n_ctx = 256};
            du_kv_layout kv;
            du_diag diag;
            du_diag_reset(&diag);
            if (f.model->arch->kv_layout(&f.model->hp, params.cache_type, &kv, &diag) != DU_OK) {
                assert_non_null(strstr(diag.msg, "multiple"));
                continue;
            }
            du_infer *inf = open_infer(f.model, params);
            du_session *s = open_session(inf);
            float *got = all_logits(s, f.ids, N);
            double distance = median_distance(&f, got);
            if (!(distance > 0 && distance < caches[c].bound)) {
                fail_msg("%s with a cache of %s: off by %g", names[k],
                         du_dtype_get(caches[c].type)->name, distance);
            }
            du_free(got);
            du_session_free(s);
            du_infer_free(inf);
        }
        fixture_close(&f);
    }
}

static void a_decode_step_allocates_nothing(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    for (int64_t k = 0; k < n_models; k++) {
        fixture f = fixture_open(names[k]);
        du_infer *inf = open_infer(f.model, du_infer_defaults());
        du_session *s = open_session(inf);
        assert_ok(du_session_sync(s, f.ids, 60, NULL, NULL, &diag), &diag);
        int64_t before = du_mem_get_stats().n_calls;
        int32_t tokens[200];
        memcpy(tokens, f.ids, sizeof f.ids);
        for (int64_t n = 61; n < 200; n++) { /* crosses pages */
            tokens[n - 1] = f.ids[n % N];
            assert_ok(du_session_sync(s, tokens, n, NULL, NULL, &diag), &diag);
        }
        assert_int_equal(du_mem_get_stats().n_calls, before);
        du_session_free(s);
        du_infer_free(inf);
        fixture_close(&f);
    }
}

/* A page that another session used before is saved as a new one is. */
static void a_saved_session_holds_nothing_of_others(void **state) {
    (void)state;
    char dir[] = "/tmp/dure-parity-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = du_path_join(dir, "session"), *bytes[2];
    size_t len[2];
    du_diag diag;
    du_diag_reset(&diag);
    for (int64_t k = 0; k < n_models; k++) {
        fixture f = fixture_open(names[k]);
        for (int used = 0; used < 2; used++) {
            du_infer *inf = open_infer(
                f.model, (du_infer_params){.deterministic = true, .auto_cache = true, .n_ctx = 64});
            du_session *other = open_session(inf), *s = open_session(inf);
            if (used) {
                assert_ok(du_session_sync(other, f.ids + 4, N - 4, NULL, NULL, &diag), &diag);
                du_session_truncate(other, 0);
            }
            assert_ok(du_session_sync(s, f.ids, 10, NULL, NULL, &diag), &diag);
            assert_ok(du_session_save(s, path, &diag), &diag);
            assert_ok(du_file_read(&bytes[used], &len[used], path, 1 << 24, &diag), &diag);
            du_session_free(other);
            du_session_free(s);
            du_infer_free(inf);
        }
        assert_int_equal(len[0], len[1]);
        assert_memory_equal(bytes[0], bytes[1], len[0]);
        du_free(bytes[0]);
        du_free(bytes[1]);
        fixture_close(&f);
    }
    unlink(path);
    rmdir(dir);
    du_free(path);
}

/* A step that finds no page for its second session leaves the first as it was. */
static void a_failed_step_gives_its_pages_back(void **state) {
    (void)state;
    du_diag diag;
    fixture f = fixture_open(names[0]);
    du_infer *inf = open_infer(
        f.model, (du_infer_params){.deterministic = true, .auto_cache = true, .n_ctx = 64});
    du_session *first = open_session(inf), *second = open_session(inf); /* one page for both */
    du_step_item items[] = {{first, f.ids, 3, 0, NULL}, {second, f.ids, 3, 0, NULL}};
    assert_int_equal(du_infer_pages_free(inf), 1);
    assert_fails(du_infer_step(inf, items, 2, &diag), DU_ELIMIT, &diag, "cache");
    assert_int_equal(du_infer_pages_free(inf), 1);
    assert_ok(du_session_sync(second, f.ids, 3, NULL, NULL, &diag), &diag);
    du_session_free(first);
    du_session_free(second);
    du_infer_free(inf);
    fixture_close(&f);
}

static void limits_are_errors(void **state) {
    (void)state;
    du_diag diag;
    fixture f = fixture_open(names[0]);
    du_infer *inf = open_infer(
        f.model, (du_infer_params){.deterministic = true, .auto_cache = true, .n_ctx = 50});
    du_session *s = open_session(inf);
    assert_fails(du_session_sync(s, f.ids, 51, NULL, NULL, &diag), DU_ELIMIT, &diag,
                 "context is full");
    int32_t bad[] = {1, (int32_t)f.V};
    assert_fails(du_session_sync(s, bad, 2, NULL, NULL, &diag), DU_EINVAL, &diag, "vocabulary");
    du_diag_reset(&diag);
    assert_ok(du_session_sync(s, f.ids, 50, NULL, NULL, &diag), &diag);
    expect_row(&f, names[0], "a full context", 49, du_session_logits(s));
    du_session_free(s);
    du_infer_free(inf);
    du_infer_params params = {.auto_cache = true, .n_ctx = f.model->hp.n_ctx_train + 1};
    assert_fails(du_infer_new(&inf, f.model, &params, &diag), DU_ELIMIT, &diag, "trained");
    params = (du_infer_params){.cache_type = DU_Q4_0};
    assert_fails(du_infer_new(&inf, f.model, &params, &diag), DU_EUNSUPPORTED, &diag, "cache type");
    fixture_close(&f);
}

/* A prefix's continuations: scores are the sums of log softmax, and the prefix is reused. */
static void scores_are_log_likelihoods(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    fixture f = fixture_open(names[0]);
    du_infer *inf = open_infer(f.model, du_infer_defaults());
    du_session *s = open_session(inf);
    double got, want = 0;
    bool greedy;
    assert_ok(du_session_score(s, f.ids, 20, f.ids + 20, 5, &got, &greedy, &diag), &diag);
    for (int64_t i = 20; i < 25; i++) {
        want += du_log_softmax_at(f.want + (i - 1) * f.V, f.V, f.ids[i]);
    }
    assert_true(fabs(got - want) < 1e-12 * fabs(want));
    int32_t best = 0;
    for (int32_t v = 1; v < f.V; v++) {
        best = f.want[19 * f.V + v] > f.want[19 * f.V + best] ? v : best;
    }
    assert_ok(du_session_score(s, f.ids, 20, &best, 1, &got, &greedy, &diag), &diag);
    assert_true(greedy);
    best = best == 0 ? 1 : 0;
    assert_ok(du_session_score(s, f.ids, 20, &best, 1, &got, &greedy, &diag), &diag);
    assert_false(greedy);
    du_session_free(s);
    du_infer_free(inf);
    fixture_close(&f);
}

int main(void) {
    n_models = list_models(names, 64);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_and_threads_do_not_change_bits),
        cmocka_unit_test(rewinding_and_forking_keep_bits),
        cmocka_unit_test(batch_neighbours_do_not_change_bits),
        cmocka_unit_test(saved_and_restored_cache_keeps_bits),
        cmocka_unit_test(rounded_caches_are_near),
        cmocka_unit_test(a_decode_step_allocates_nothing),
        cmocka_unit_test(a_saved_session_holds_nothing_of_others),
        cmocka_unit_test(a_failed_step_gives_its_pages_back),
        cmocka_unit_test(limits_are_errors),
        cmocka_unit_test(scores_are_log_likelihoods),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
