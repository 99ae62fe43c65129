/* A folder of its own for a test that writes files. */
#ifndef DU_TESTS_TMP_H
#define DU_TESTS_TMP_H

#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "test.h"

enum { TEST_PATH_BYTES = 512 };

typedef struct {
    char path[64];
} test_tmp;

static inline test_tmp test_tmp_make(void) {
    test_tmp t;
    snprintf(t.path, sizeof t.path, "/tmp/dure-test-XXXXXX");
    assert_non_null(mkdtemp(t.path));
    return t;
}

/* The path of a file in the folder, in one of eight buffers that take turns. */
static inline const char *test_tmp_file(const test_tmp *t, const char *name) {
    static char paths[8][TEST_PATH_BYTES];
    static unsigned turn;
    char *path = paths[turn++ % 8];
    snprintf(path, TEST_PATH_BYTES, "%s/%s", t->path, name);
    return path;
}

static inline void test_tmp_write(const test_tmp *t, const char *name, const void *bytes,
                                  size_t n) {
    FILE *f = fopen(test_tmp_file(t, name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* How many files the folder holds, temporary ones too. */
static inline int64_t test_tmp_count(const test_tmp *t) {
    DIR *dir = opendir(t->path);
    assert_non_null(dir);
    int64_t n = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        n += e->d_name[0] != '.';
    }
    closedir(dir);
    return n;
}

/* Lets this process write files of at most n bytes, as a full disk would; n < 0: no limit. */
static inline void test_limit_files(int64_t n) {
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = n < 0 ? limit.rlim_max : (rlim_t)n;
    signal(SIGXFSZ, n < 0 ? SIG_DFL : SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* Removes the folder and what is in it. */
static inline void test_tmp_remove(const test_tmp *t) {
    DIR *dir = opendir(t->path);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] != '.' && unlink(test_tmp_file(t, e->d_name)) != 0) {
            test_tmp inner;
            int n = snprintf(inner.path, sizeof inner.path, "%s/%s", t->path, e->d_name);
            assert_true(n < (int)sizeof inner.path);
            test_tmp_remove(&inner);
        }
    }
    closedir(dir);
    assert_int_equal(rmdir(t->path), 0);
}

#endif
