#include "train/report.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "test.h"
#include "tmp.h"
#include "train/metrics.h"
#include "train/samples.h"

static du_diag diag;
static test_tmp tmp;

static const char metrics[] =
    "{\"step\":1,\"loss\":7.5,\"lr\":0.001,\"grad_norm\":3,\"tokens\":64,\"tok_s\":32,"
    "\"overload\":0.6,\"experts\":[[],[1,2,3,4]],\"biases\":[[],[0.25,0,0,0]]}\n"
    "{\"step\":2,\"loss\":6.5,\"lr\":0.002,\"grad_norm\":2,\"tokens\":128,\"tok_s\":32,"
    "\"overload\":0.6,\"validation\":6.75,\"experts\":[[],[4,4,1,1]],\"biases\":[[],[0.25,0,0,-1]]}"
    "\n";
static const char samples[] =
    "{\"step\":1,\"samples\":[{\"prompt\":\"one\",\"text\":\"two\"}]}\n"
    "{\"step\":2,\"samples\":[{\"prompt\":\"one\",\"text\":\"<three>\"}]}\n";
static const char run[] =
    "{\"config\":{\"out\":\"runs/first\",\"steps\":\"9\"},\"model\":{\"arch\":\"deepseek_v3\","
    "\"params\":5000000,\"params_active\":2500000},\"processes\":[{\"step\":0}]}";

static int setup(void **state) {
    (void)state;
    du_diag_reset(&diag);
    tmp = test_tmp_make();
    test_tmp_write(&tmp, DU_METRICS_FILE, metrics, sizeof metrics - 1);
    test_tmp_write(&tmp, DU_SAMPLES_FILE, samples, sizeof samples - 1);
    test_tmp_write(&tmp, "run.json", run, sizeof run - 1);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_tmp_remove(&tmp);
    return 0;
}

/* Its files read, a line added, the page written. */
static du_err make(void) {
    static const char line[] = "{\"step\":3,\"loss\":6.25,\"tokens\":192,\"tok_s\":64}\n";
    du_report *report = NULL;
    du_err err = du_report_open(&report, tmp.path, &diag);
    if (err == DU_OK) {
        du_report_add(report, du_sv_of(line));
        err = du_report_write(report, test_tmp_file(&tmp, "page.html"), &diag);
    }
    du_report_free(report);
    return err;
}

static void assert_page(bool there, const char *part) {
    char *text;
    assert_ok(du_file_read(&text, NULL, test_tmp_file(&tmp, "page.html"), 1 << 20, &diag), &diag);
    if ((strstr(text, part) != NULL) != there) {
        fail_msg("%s in the page: %s", there ? "not" : "", part);
    }
    du_free(text);
}

static void test_page(void **state) {
    (void)state;
    assert_ok(make(), &diag);
    static const char *const parts[] = {
        "<h1>first</h1>",
        "deepseek_v3, 5M parameters, of which a token uses 2.5M",
        "<b>3</b><span>of 9</span>",
        "lowest 6.25 at step 3",
        "lowest 6.75 at step 2",
        "<b>38.4</b><span>tokens per second</span>", /* 192 in 2 + 2 + 1 s */
        "<b>5.0 s</b>",
        "step 2\ntraining loss 6.5\nvalidation loss 6.75</title>",
        "layer 1, expert 0: 1.02</title>", /* (15 * 0.4 + 16 * 1.6) / 31 */
        "layer 1, expert 3: -1</title>",
        "step 2\nlayer 1 1.25</title>",
        "&lt;three&gt;",
        "<td>steps *</td><td><bdi>9</bdi>",
        "<td>seq_len</td><td><bdi>256</bdi>",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        assert_page(true, parts[i]);
    }
    assert_page(false, "<three>");
    assert_page(false, "id=\"balance\"");
}

/* The page up to where it says when it was written; du_free it. */
static char *read_page(void) {
    char *text;
    assert_ok(du_file_read(&text, NULL, test_tmp_file(&tmp, "page.html"), 1 << 20, &diag), &diag);
    char *end = strstr(text, "Written");
    assert_non_null(end);
    *end = '\0';
    return text;
}

/* Whichever allocation fails, it alone or all behind it too: the error is told, or nothing is
 * missing; nothing is lost, and the page that was there stays. */
static void test_no_memory(void **state) {
    (void)state;
    assert_ok(make(), &diag);
    char *whole = read_page();
    du_err err = DU_ENOMEM;
    for (int64_t n = 2; err != DU_OK || n % 2 == 0; n++) {
        int64_t live = du_mem_get_stats().n_live;
        du_mem_fail_at(n / 2, n % 2 == 0);
        err = make();
        du_mem_fail_at(0, false);
        assert_true(err == DU_OK || err == DU_ENOMEM);
        assert_int_equal(du_mem_get_stats().n_live, live);
        char *page = read_page();
        assert_string_equal(page, whole);
        du_free(page);
    }
    du_free(whole);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {TEST(test_page), TEST(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
