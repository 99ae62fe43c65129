#include "test.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/dir.h"
#include "tmp.h"

static du_diag diag;
static test_tmp tmp;

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

static void test_names(void **state) {
    (void)state;
    du_names names;
    assert_ok(du_dir_names(&names, tmp.path, &diag), &diag);
    assert_int_equal(names.n, 0);
    du_names_done(&names);
    static const char *const made[] = {"b", "a", "aa", "B", "x y"};
    for (size_t i = 0; i < 5; i++) {
        test_tmp_write(&tmp, made[i], "", 0);
    }
    assert_ok(du_dir_make(test_tmp_file(&tmp, "folder"), &diag), &diag);
    assert_ok(du_dir_names(&names, tmp.path, &diag), &diag);
    static const char *const sorted[] = {"B", "a", "aa", "b", "folder", "x y"};
    assert_int_equal(names.n, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(names.items[i], sorted[i]);
    }
    du_names_done(&names);
    assert_int_equal(du_dir_names(&names, test_tmp_file(&tmp, "absent"), &diag), DU_ENOENT);
    assert_fails(du_dir_names(&names, test_tmp_file(&tmp, "a"), &diag), DU_EIO, &diag,
                 "cannot open the folder");
}

static void test_rename_and_remove(void **state) {
    (void)state;
    char a[TEST_PATH_BYTES], b[TEST_PATH_BYTES];
    snprintf(a, sizeof a, "%s/a", tmp.path);
    snprintf(b, sizeof b, "%s/b", tmp.path);
    assert_ok(du_dir_make(a, &diag), &diag);
    assert_ok(du_dir_make(b, &diag), &diag);
    test_tmp_write(&tmp, "b/file", "x", 1);
    assert_fails(du_dir_rename(a, b, &diag), DU_EEXIST, &diag, "a folder that is not empty");
    assert_fails(du_dir_remove(b, &diag), DU_EEXIST, &diag, "b: the folder is not empty");
    du_diag_reset(&diag);
    assert_ok(du_dir_rename(b, a, &diag), &diag); /* a is empty */
    assert_false(du_dir_exists(b));
    assert_ok(du_dir_remove(test_tmp_file(&tmp, "a/file"), &diag), &diag);
    assert_ok(du_dir_remove(a, &diag), &diag);
    assert_ok(du_dir_remove(a, &diag), &diag); /* it is gone already */
    assert_int_equal(du_dir_rename(a, b, &diag), DU_ENOENT);
    assert_int_equal(test_tmp_count(&tmp), 0);
}

static void test_sync(void **state) {
    (void)state;
    assert_ok(du_dir_sync(tmp.path, &diag), &diag);
    assert_int_equal(du_dir_sync(test_tmp_file(&tmp, "absent"), &diag), DU_ENOENT);
}

/* What another process gets that asks for the lock. */
static du_err ask_elsewhere(const char *path) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int fd = -1;
        _exit((int)du_dir_lock(&fd, path, NULL));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return (du_err)WEXITSTATUS(status);
}

static void test_lock(void **state) {
    (void)state;
    char path[TEST_PATH_BYTES];
    int fd = -1, other = -1;
    snprintf(path, sizeof path, "%s/lock", tmp.path);
    assert_ok(du_dir_lock(&fd, path, &diag), &diag);
    assert_fails(du_dir_lock(&other, path, &diag), DU_EEXIST, &diag,
                 "lock: another process holds it");
    assert_int_equal(ask_elsewhere(path), DU_EEXIST);
    du_dir_unlock(fd);
    assert_int_equal(ask_elsewhere(path), DU_OK);
    du_diag_reset(&diag);
    assert_ok(du_dir_lock(&fd, path, &diag), &diag); /* that process has ended */
    du_dir_unlock(fd);
    assert_true(du_file_exists(path));
    assert_int_equal(du_dir_lock(&fd, test_tmp_file(&tmp, "absent/lock"), &diag), DU_ENOENT);
    assert_int_equal(du_dir_lock(&fd, tmp.path, &diag), DU_EIO);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_names), TEST(test_rename_and_remove),
                                       TEST(test_sync), TEST(test_lock)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
