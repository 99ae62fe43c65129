#include "base/dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

void du_names_done(du_names *names) {
    for (size_t i = 0; i < names->n; i++) {
        du_free(names->items[i]);
    }
    du_free(names->items);
    *names = (du_names){0};
}

static int by_bytes(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool add_name(du_names *names, const char *name) {
    void *items = names->items;
    bool grown = du_grow(&items, &names->cap, names->n, sizeof *names->items);
    names->items = items;
    char *copy = grown ? du_strdup(name) : NULL;
    if (copy) {
        names->items[names->n++] = copy;
    }
    return copy != NULL;
}

du_err du_dir_names(du_names *out, const char *path, du_diag *diag) {
    du_names names = {0};
    DIR *dir = opendir(path);
    if (!dir) {
        return du_fail_errno(diag, path, "open the folder", errno);
    }
    du_err err = DU_OK;
    errno = 0;
    for (struct dirent *e; err == DU_OK && (e = readdir(dir)); errno = 0) {
        bool self = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
        if (!self && !add_name(&names, e->d_name)) {
            err = du_fail_nomem(diag, path);
        }
    }
    if (err == DU_OK && errno != 0) {
        err = du_fail_errno(diag, path, "read the folder", errno);
    }
    closedir(dir);
    if (err != DU_OK) {
        du_names_done(&names);
        return err;
    }
    if (names.n > 0) {
        qsort(names.items, names.n, sizeof *names.items, by_bytes);
    }
    *out = names;
    return DU_OK;
}

du_err du_dir_sync(const char *path, du_diag *diag) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some file systems have no such call for folders, and no need of one. */
    bool synced = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL);
    du_err err = synced ? DU_OK : du_fail_errno(diag, path, "sync the folder", errno);
    if (fd >= 0) {
        close(fd);
    }
    return err;
}

du_err du_dir_rename(const char *from, const char *to, du_diag *diag) {
    if (rename(from, to) == 0) {
        return DU_OK;
    }
    if (errno == ENOTEMPTY || errno == EEXIST) {
        return du_fail(diag, DU_EEXIST, "%s: a folder that is not empty has this name", to);
    }
    return du_fail_errno(diag, from, "rename it", errno);
}

du_err du_dir_remove(const char *path, du_diag *diag) {
    if (remove(path) == 0 || errno == ENOENT) {
        return DU_OK;
    }
    if (errno == ENOTEMPTY || errno == EEXIST) {
        return du_fail(diag, DU_EEXIST, "%s: the folder is not empty", path);
    }
    return du_fail_errno(diag, path, "remove it", errno);
}

du_err du_dir_lock(int *fd, const char *path, du_diag *diag) {
    int opened = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (opened < 0) {
        return du_fail_errno(diag, path, "open it", errno);
    }
    if (flock(opened, LOCK_EX | LOCK_NB) != 0) {
        int code = errno;
        close(opened);
        return code == EWOULDBLOCK ? du_fail(diag, DU_EEXIST, "%s: another process holds it", path)
                                   : du_fail_errno(diag, path, "lock it", code);
    }
    *fd = opened;
    return DU_OK;
}

void du_dir_unlock(int fd) {
    if (fd >= 0) {
        close(fd);
    }
}
