#include "test.h"

#include <math.h>
#include <sys/stat.h>

#include "base/json.h"
#include "tmp.h"
#include "train/journal.h"
#include "train/samples.h"

static du_diag diag;
static test_tmp tmp;
static du_lines file;

static int setup(void **state) {
    (void)state;
    du_diag_reset(&diag);
    tmp = test_tmp_make();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_tmp_remove(&tmp);
    return 0;
}

static du_metrics of_step(int64_t step) {
    return (du_metrics){.step = step,
                        .loss = 1.0 / 3,
                        .grad_norm = 0.1,
                        .lr = 3e-4,
                        .tokens = 64 * step,
                        .tok_s = 1234.5,
                        .balance = NAN,
                        .overload = NAN,
                        .mtp_loss = NAN,
                        .products = NAN,
                        .peak = NAN,
                        .validation = step == 2 ? 5 : NAN};
}

static void add(int64_t step) {
    du_metrics m = of_step(step);
    assert_ok(du_metrics_add(&file, &m, &diag), &diag);
}

static void open_at(int64_t step) {
    assert_ok(du_lines_open(&file, tmp.path, DU_METRICS_FILE, step, &diag), &diag);
}

static void assert_text(const char *want) {
    char *text;
    assert_ok(du_file_read(&text, NULL, test_tmp_file(&tmp, "metrics.jsonl"), 1 << 20, &diag),
              &diag);
    assert_string_equal(text, want);
    du_free(text);
}

#define LINE(step, tokens)                                                                         \
    "{\"step\":" step ",\"tokens\":" tokens                                                        \
    ",\"loss\":0.3333333333333333,\"grad_norm\":0.1,\"lr\":0.0003,\"tok_s\":1234.5"
#define LINE_1 LINE("1", "64") "}\n"
#define LINE_2 LINE("2", "128") ",\"validation\":5}\n"
#define LINE_3 LINE("3", "192") "}\n"

static void test_add_and_cut(void **state) {
    (void)state;
    assert_false(du_lines_exist(tmp.path, DU_METRICS_FILE));
    open_at(0);
    assert_false(du_lines_exist(tmp.path, DU_METRICS_FILE)); /* nothing in it yet */
    add(1), add(2), add(3);
    assert_ok(du_lines_sync(&file, &diag), &diag);
    du_lines_close(&file);
    assert_true(du_lines_exist(tmp.path, DU_METRICS_FILE));
    assert_text(LINE_1 LINE_2 LINE_3);
    open_at(3);
    du_lines_close(&file);
    assert_text(LINE_1 LINE_2 LINE_3);
    open_at(2);
    assert_text(LINE_1 LINE_2);
    add(3);
    du_lines_close(&file);
    assert_text(LINE_1 LINE_2 LINE_3);
    open_at(0);
    du_lines_close(&file);
    assert_text("");
}

/* Cut where lines are no steps that ascend; the file stays as a copy then. */
static void test_other_lines(void **state) {
    (void)state;
    static const struct {
        const char *text, *left;
        bool kept;
    } cases[] = {
        {LINE_1 LINE_2 "{\"step\":3,\"lo", LINE_1 LINE_2, false}, /* half a line */
        {LINE_1 "{\"step\":3}", LINE_1, false},                   /* no line feed */
        {LINE_1 "\n" LINE_2, LINE_1, true},
        {LINE_1 LINE_3, LINE_1 LINE_3, false},
        {LINE_1 LINE_1, LINE_1, true},
        {LINE_2 LINE_1, LINE_2, true},
        {"{\"step\":\"1\"}\n" LINE_1, "", true},
        {"{\"step\":-1}\n" LINE_1, "", true},
        {"[1]\n" LINE_1, "", true},
        {"not JSON\n", "", true},
        {LINE_1 LINE("10", "1") "}\n" LINE("11", "1") "}\n{", LINE_1, false}, /* later steps */
        {LINE_1 LINE("10", "1") "}\n" LINE_2, LINE_1, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_tmp_write(&tmp, "metrics.jsonl", cases[i].text, strlen(cases[i].text));
        open_at(9);
        assert_int_equal(file.kept, cases[i].kept);
        du_lines_close(&file);
        assert_text(cases[i].left);
        assert_int_equal(du_lines_exist(tmp.path, "metrics.jsonl.bad"), cases[i].kept);
        if (cases[i].kept) {
            const char *path = test_tmp_file(&tmp, "metrics.jsonl.bad");
            char *text;
            assert_ok(du_file_read(&text, NULL, path, 1 << 20, &diag), &diag);
            assert_string_equal(text, cases[i].text);
            du_free(text);
            assert_int_equal(remove(path), 0);
        }
    }
}

/* Where no copy can be made nothing is cut. */
static void test_no_copy(void **state) {
    (void)state;
    static const char text[] = LINE_1 "garbage\n" LINE_3;
    test_tmp_write(&tmp, "metrics.jsonl", text, strlen(text));
    for (int64_t n = 1; n < 40; n++) {
        du_mem_fail_at(n, false);
        du_err err = du_lines_open(&file, tmp.path, DU_METRICS_FILE, 9, NULL);
        du_mem_fail_at(0, false);
        du_lines_close(&file);
        if (err == DU_OK) {
            assert_text(LINE_1);
            return;
        }
        assert_text(text);
    }
    fail();
}

/* The other end of a pipe is not waited for. */
static void test_pipe(void **state) {
    (void)state;
    assert_int_equal(mkfifo(test_tmp_file(&tmp, "metrics.jsonl"), 0600), 0);
    assert_int_equal(du_lines_open(&file, tmp.path, DU_METRICS_FILE, 9, &diag), DU_EIO);
    assert_non_null(strstr(diag.msg, "metrics.jsonl: not a regular file"));
    du_lines_close(&file);
    du_diag_reset(&diag);
    assert_int_equal(du_lines_read(tmp.path, DU_METRICS_FILE, NULL, NULL, &diag), DU_EIO);
    assert_non_null(strstr(diag.msg, "metrics.jsonl: not a regular file"));
}

/* Lines longer than what is read at once, and an error that must not cut what it could not read. */
static void test_long_lines(void **state) {
    (void)state;
    enum { N = 200000 };
    char *line = malloc(N + 512);
    assert_non_null(line);
    int head = snprintf(line, 64, "{\"step\":1,\"x\":\"");
    memset(line + head, 'x', N);
    memcpy(line + head + N, "\"}\n" LINE_2, strlen("\"}\n" LINE_2) + 1);
    test_tmp_write(&tmp, "metrics.jsonl", line, strlen(line));
    for (int64_t n = 1; n < 8; n++) {
        du_mem_fail_at(n, true);
        du_err err = du_lines_open(&file, tmp.path, DU_METRICS_FILE, 9, &diag);
        du_mem_fail_at(0, false);
        assert_int_equal(err, DU_ENOMEM);
        du_lines_close(&file);
    }
    open_at(9);
    assert_int_equal(file.last_step, 2);
    du_lines_close(&file);
    assert_text(line);
    free(line);
}

/* What a full disk takes of a line is taken away again. */
static void test_full_disk(void **state) {
    (void)state;
    open_at(0);
    add(1);
    test_limit_files((int64_t)strlen(LINE_1) + 20);
    du_metrics m = of_step(2);
    du_err err = du_metrics_add(&file, &m, &diag);
    test_limit_files(-1);
    assert_int_equal(err, DU_EIO);
    assert_non_null(strstr(diag.msg, "metrics.jsonl: cannot write it: File too large"));
    assert_text(LINE_1);
    add(2);
    assert_text(LINE_1 LINE_2);
    du_lines_close(&file);
}

/* All files of lines, those that are open: where one is lost before a checkpoint it is told. */
static void test_sync(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        du_journal j = DU_JOURNAL_CLOSED;
        du_lines *both[] = {&j.metrics, &j.samples};
        static const char *const names[] = {DU_METRICS_FILE, DU_SAMPLES_FILE};
        assert_ok(du_lines_open(&j.metrics, tmp.path, names[0], 0, &diag), &diag);
        assert_ok(du_journal_sync(&j, &diag), &diag);
        assert_ok(du_lines_open(&j.samples, tmp.path, names[1], 0, &diag), &diag);
        if (i < 2) {
            assert_int_equal(close(both[i]->fd), 0); /* the disk says no */
            assert_fails(du_journal_sync(&j, &diag), DU_EIO, &diag, names[i]);
            both[i]->fd = -1;
        } else {
            assert_ok(du_journal_sync(&j, &diag), &diag);
        }
        du_journal_close(&j);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        TEST(test_add_and_cut), TEST(test_other_lines), TEST(test_no_copy), TEST(test_pipe),
        TEST(test_long_lines),  TEST(test_full_disk),   TEST(test_sync)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
