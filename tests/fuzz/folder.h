/* A folder of the fuzz target's own, in memory where the system has such a file system: every input
 * is written there. It goes with the process, with the files of one level of folders in it. */
#ifndef DU_TESTS_FUZZ_FOLDER_H
#define DU_TESTS_FUZZ_FOLDER_H

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "fuzz.h"

static char fuzz_dir[] = "/dev/shm/dure-fuzz-XXXXXX";

/* The path of a file in the folder, in one of four buffers that take turns. */
static inline const char *fuzz_path(const char *name) {
    static char paths[4][sizeof fuzz_dir + 128];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", fuzz_dir, name);
    return path;
}

static inline void fuzz_put(const char *name, const void *bytes, size_t n) {
    FILE *f = fopen(fuzz_path(name), "wb");
    FUZZ_CHECK(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

/* The bytes of a file; du_free them. */
static inline char *fuzz_get(const char *name, size_t *n) {
    char *bytes = NULL;
    FUZZ_CHECK(du_file_read(&bytes, n, fuzz_path(name), (size_t)1 << 26, NULL) == DU_OK);
    return bytes;
}

/* Removes the files of a folder, and those of folders in it. */
static inline void fuzz_empty(const char *path) {
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char inner[512];
        int n = snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        if (e->d_name[0] != '.' && n < (int)sizeof inner && unlink(inner) != 0) {
            fuzz_empty(inner);
            rmdir(inner);
        }
    }
    if (dir) {
        closedir(dir);
    }
}

static inline void fuzz_remove_dir(void) {
    fuzz_empty(fuzz_dir);
    rmdir(fuzz_dir);
}

/* Makes the folder; what JSON takes counts as ours from then on. */
static inline void fuzz_make_dir(void) {
    du_json_use_counted_heap();
    static const char other[] = "/tmp/dure-fuzz-XXXXXX";
    if (!mkdtemp(fuzz_dir)) {
        memcpy(fuzz_dir, other, sizeof other);
        FUZZ_CHECK(mkdtemp(fuzz_dir) != NULL);
    }
    atexit(fuzz_remove_dir);
}

#endif
