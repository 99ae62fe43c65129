/* Files: maps, whole reads, and writers that leave the old file or the whole new one. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/machine.h"
#include "tmp.h"

static void unloaded_pages_come_back(void **state) {
    (void)state;
    enum { BYTES = 32 << 20 };
    du_diag diag;
    du_diag_reset(&diag);
    test_tmp tmp = test_tmp_make();
    du_writer *w;
    assert_ok(du_writer_open(&w, test_tmp_file(&tmp, "f"), &diag), &diag);
    for (uint32_t i = 0; i < BYTES / sizeof i; i++) {
        du_write(w, &i, sizeof i);
    }
    assert_ok(du_writer_commit(w, &diag), &diag);
    du_writer_close(w);
    du_map map;
    assert_ok(du_map_open(&map, test_tmp_file(&tmp, "f"), &diag), &diag);
    const volatile uint32_t *words = (const volatile uint32_t *)(const void *)map.data;
    int64_t without = du_machine_resident().file;
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < BYTES / sizeof i; i++) {
            assert_true(words[i] == i);
        }
        assert_true(du_machine_resident().file - without > BYTES / 4 * 3);
        /* What does not lie in the map is left alone. */
        du_map_unload(&map, map.data - 1, 4096);
        du_map_unload(&map, map.data, BYTES + 1);
        du_map_unload(&map, map.data + BYTES, 1);
        du_map_unload(&map, map.data + 1, 4096); /* no whole page */
        du_map_unload(&map, &map, sizeof map);
        assert_true(du_machine_resident().file - without > BYTES / 4 * 3);
        du_map_unload(&map, map.data + 1, BYTES - 1);
        assert_true(du_machine_resident().file - without < BYTES / 4);
    }
    du_map_close(&map);
    du_map_unload(&map, NULL, 0);
    test_tmp_remove(&tmp);
}

static void last_names(void **state) {
    (void)state;
    static const char *const pairs[][2] = {{"a/b", "b"}, {"a/b//", "b"}, {"b", "b"},  {"/b", "b"},
                                           {"b/", "b"},  {"/", "/"},     {"//", "/"}, {"", ""}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        du_sv last = du_path_last(du_sv_of(pairs[i][0]));
        assert_int_equal(last.len, strlen(pairs[i][1]));
        assert_memory_equal(last.s, pairs[i][1], last.len);
    }
}

static void writer_is_atomic(void **state) {
    (void)state;
    char dir[] = "/tmp/dure-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = du_path_join(dir, "sub/file");
    char *sub = du_path_join(dir, "sub");
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_dir_make(sub, &diag), &diag);
    assert_fails(du_dir_make("", &diag), DU_ENOENT, &diag, "folder");
    du_diag_reset(&diag);
    du_writer *w;
    assert_ok(du_writer_open(&w, path, &diag), &diag);
    du_write(w, "0000", 4);
    du_write_zeros(w, 3 << 20);
    du_write_at(w, 0, "head", 4);
    assert_false(du_file_exists(path));
    assert_ok(du_writer_commit(w, &diag), &diag);
    du_writer_close(w);
    du_map map;
    assert_ok(du_map_open(&map, path, &diag), &diag);
    assert_int_equal(map.len, 4 + (3 << 20));
    assert_memory_equal(map.data, "head", 4);
    du_map_close(&map);

    assert_ok(du_writer_open(&w, path, &diag), &diag);
    du_write(w, "half", 4);
    du_writer_close(w);
    char *text;
    assert_fails(du_file_read(&text, NULL, path, 100, &diag), DU_ELIMIT, &diag, path);
    assert_fails(du_file_read(&text, NULL, sub, 100, &diag), DU_EIO, &diag, "not a regular file");
    unlink(path);
    assert_int_equal(rmdir(sub), 0); /* nothing temporary was left */
    assert_fails(du_map_open(&map, path, &diag), DU_ENOENT, &diag, "No such file");
    rmdir(dir);
    du_free(path);
    du_free(sub);
}

static void full_disk_is_told(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    du_writer *w;
    test_tmp tmp = test_tmp_make();
    assert_ok(du_writer_open(&w, test_tmp_file(&tmp, "f"), &diag), &diag);
    test_limit_files(4096);
    du_write_zeros(w, 3 << 20);
    assert_true(du_writer_failed(w));
    assert_fails(du_writer_commit(w, &diag), DU_EIO, &diag, "File too large");
    test_limit_files(-1);
    du_writer_close(w);
    assert_int_equal(test_tmp_count(&tmp), 0);
    assert_ok(du_writer_open(&w, test_tmp_file(&tmp, "f"), &diag), &diag);
    du_writer_reserve(w, 4096);
    assert_false(du_writer_failed(w));
    du_writer_reserve(w, INT64_MAX); /* told before anything is written */
    assert_true(du_writer_failed(w));
    assert_fails(du_writer_commit(w, &diag), DU_EIO, &diag, "File too large");
    du_writer_close(w);
    assert_int_equal(test_tmp_count(&tmp), 0);
    test_tmp_remove(&tmp);
    assert_fails(du_writer_open(&w, "/proc/none/x", &diag), DU_ENOENT, &diag, "/proc/none/x");
}

static void put(const char *path, const char *text) {
    du_diag diag;
    du_diag_reset(&diag);
    du_writer *w;
    assert_ok(du_writer_open(&w, path, &diag), &diag);
    du_write(w, text, strlen(text));
    assert_ok(du_writer_commit(w, &diag), &diag);
    du_writer_close(w);
}

/* The path of the only file in the folder. */
static const char *only_file(const test_tmp *tmp) {
    assert_int_equal(test_tmp_count(tmp), 1);
    DIR *dir = opendir(tmp->path);
    const char *path = NULL;
    for (struct dirent *e; (e = readdir(dir));) {
        path = e->d_name[0] != '.' ? test_tmp_file(tmp, e->d_name) : path;
    }
    closedir(dir);
    return path;
}

/* Not even a killed writer leaves something. */
static void unfinished_files_have_no_name(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    test_tmp tmp = test_tmp_make();
    int fd = open(tmp.path, O_TMPFILE | O_RDWR, 0600);
    if (fd < 0) {
        test_tmp_remove(&tmp);
        skip();
    }
    close(fd);
    du_writer *w;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool opened = du_writer_open(&w, test_tmp_file(&tmp, "f"), NULL) == DU_OK;
        du_write_zeros(w, 3 << 20);
        raise(opened ? SIGKILL : SIGABRT);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(test_tmp_count(&tmp), 0);

    assert_ok(du_writer_open(&w, test_tmp_file(&tmp, "f"), &diag), &diag);
    du_write_zeros(w, 3 << 20);
    assert_int_equal(test_tmp_count(&tmp), 0);
    assert_ok(du_writer_commit(w, &diag), &diag);
    assert_int_equal(test_tmp_count(&tmp), 1);
    du_writer_close(w);
    assert_true(du_file_exists(test_tmp_file(&tmp, "f")));
    test_tmp_remove(&tmp);
}

/* What a killed writer left is in nobody's way: the next may have its process's number. */
static void writers_choose_new_names(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    test_tmp tmp = test_tmp_make();
    const char *path = test_tmp_file(&tmp, "f");
    du_writer *w;
    assert_ok(du_writer_open(&w, path, &diag), &diag);
    const char *left = only_file(&tmp);
    assert_true(strncmp(left, path, strlen(path)) == 0 && strstr(left, ".tmp-"));
    du_writer_remove_all_temporary(); /* as when a signal ends the process */
    assert_int_equal(test_tmp_count(&tmp), 0);
    du_writer_close(w);
    put(left, "a part");
    put(path, "all");
    assert_int_equal(test_tmp_count(&tmp), 2);
    test_tmp_remove(&tmp);
}

static void writer_keeps_links_and_permissions(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    const char *file = test_tmp_file(&tmp, "file"), *link = test_tmp_file(&tmp, "link");
    put(file, "old");
    assert_int_equal(chmod(file, 0600), 0);
    assert_int_equal(symlink("file", link), 0);
    put(link, "new");
    struct stat st;
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_true(du_same_file(link, file));
    assert_false(du_same_file(file, tmp.path));
    assert_false(du_same_file(file, "/nowhere"));
    assert_int_equal(lstat(file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_size, 3);
    char *text;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_file_read(&text, NULL, file, 100, &diag), &diag);
    assert_string_equal(text, "new");
    du_free(text);
    test_tmp_remove(&tmp);
}

static void writer_takes_room_and_permissions(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    test_tmp tmp = test_tmp_make();
    const char *source = test_tmp_file(&tmp, "source"), *path = test_tmp_file(&tmp, "f");
    put(source, "x");
    assert_int_equal(chmod(source, 0640), 0);
    du_writer *w;
    assert_ok(du_writer_open(&w, path, &diag), &diag);
    du_writer_allow_as(w, source);
    du_writer_reserve(w, 1 << 20);
    du_write(w, "three", 3);
    assert_ok(du_writer_commit(w, &diag), &diag);
    du_writer_close(w);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(st.st_size, 3); /* room is no length */
    assert_ok(du_writer_open(&w, path, &diag), &diag);
    du_writer_allow_as(w, test_tmp_file(&tmp, "absent"));
    assert_true(du_writer_failed(w));
    du_writer_close(w);
    test_tmp_remove(&tmp);
}

static void writer_replaces_nothing_but_files(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    const char *pipe = test_tmp_file(&tmp, "pipe"), *link = test_tmp_file(&tmp, "link");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(symlink("pipe", link), 0);
    const char *const paths[] = {pipe, link, tmp.path, "/dev/null"};
    du_diag diag;
    du_writer *w;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        assert_fails(du_writer_open(&w, paths[i], &diag), DU_EEXIST, &diag, "not a regular file");
    }
    assert_fails(du_writer_open(&w, "", &diag), DU_EINVAL, &diag, "empty file name");
    /* Neither does reading wait for somebody to write into a pipe. */
    char *text;
    assert_fails(du_file_read(&text, NULL, pipe, 100, &diag), DU_EIO, &diag, "not a regular file");
    assert_int_equal(test_tmp_count(&tmp), 2);
    test_tmp_remove(&tmp);
}

/* From now on the system call fails when its third argument has a bit of the mask. */
static bool refuse(uint32_t call, uint32_t mask, uint32_t error) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, mask, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* All the same where files without a name cannot get one (no /proc), and where there are none. */
static void writers_do_without_unnamed_files(void **state) {
    for (int i = 0; i < 2; i++) {
        bool refused = i == 0 ? refuse(__NR_linkat, UINT32_MAX, ENOENT)
                              : refuse(__NR_openat, O_TMPFILE & ~O_DIRECTORY, EOPNOTSUPP);
        if (!refused) {
            skip(); /* nor are there filters here */
        }
        writer_is_atomic(state);
        writers_choose_new_names(state);
        writer_keeps_links_and_permissions(state);
        writer_takes_room_and_permissions(state);
        writer_replaces_nothing_but_files(state);
        full_disk_is_told(state);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unloaded_pages_come_back),
        cmocka_unit_test(last_names),
        cmocka_unit_test(writer_is_atomic),
        cmocka_unit_test(unfinished_files_have_no_name),
        cmocka_unit_test(writer_keeps_links_and_permissions),
        cmocka_unit_test(writer_takes_room_and_permissions),
        cmocka_unit_test(writer_replaces_nothing_but_files),
        cmocka_unit_test(full_disk_is_told),
        cmocka_unit_test(writers_do_without_unnamed_files), /* the last: for good */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
