#include "train/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

enum { FORGET_BYTES = 1 << 24 }; /* of a long file, that are read before they leave memory */

bool du_lines_exist(const char *dir, const char *name) {
    char *path = du_path_join(dir, name);
    struct stat st;
    bool exist = path && stat(path, &st) == 0 && st.st_size > 0;
    du_free(path);
    return exist;
}

/* The step of a line; 0: it is none of ours. json_decref *out. */
static int64_t step_of(json_t **out, du_sv line) {
    *out = NULL;
    return du_json_parse(out, line.s, line.len, "a line", NULL) == DU_OK
               ? json_integer_value(json_object_get(*out, "step"))
               : 0;
}

/* Tells fn (NULL: nobody) of the lines that ascend to at most that step. *last: the step of the
 * last of them. Returns their bytes. */
static int64_t walk(const du_map *map, int64_t step, int64_t *last, du_line_fn *fn, void *user) {
    du_sv all = {(const char *)map->data, map->len};
    size_t at = 0, forgotten = 0;
    *last = 0;
    for (;;) {
        json_t *json = NULL;
        int64_t end = du_sv_find(all, du_sv_of("\n"), at), of_line = 0;
        if (end >= 0) {
            of_line = step_of(&json, (du_sv){all.s + at, (size_t)end - at});
        }
        bool good = of_line > *last && of_line <= step;
        if (good && fn) {
            fn(user, of_line, json);
        }
        json_decref(json);
        if (!good) {
            return (int64_t)at;
        }
        *last = of_line;
        at = (size_t)end + 1;
        if (at - forgotten > FORGET_BYTES) {
            du_map_unload(map, map->data + forgotten, at - forgotten);
            forgotten = at;
        }
    }
}

du_err du_lines_open(du_lines *out, const char *dir, const char *name, int64_t step,
                     du_diag *diag) {
    *out = (du_lines){.fd = -1, .path = du_path_join(dir, name)};
    if (!out->path) {
        return du_fail_nomem(diag, name);
    }
    out->fd = open(out->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (out->fd < 0) {
        return du_fail_errno(diag, out->path, "open it", errno);
    }
    du_map map;
    du_err err = du_map_open(&map, out->path, diag);
    if (err == DU_OK) {
        out->n_bytes = walk(&map, step, &out->last_step, NULL, NULL);
        du_map_close(&map);
        if (ftruncate(out->fd, out->n_bytes) != 0) {
            err = du_fail_errno(diag, out->path, "cut it", errno);
        }
    }
    return err;
}

/* The bytes behind the whole lines; what a failure leaves of them is cut off. */
static bool write_all(du_lines *file, const char *bytes, size_t n) {
    int64_t at = file->n_bytes;
    while (n > 0) {
        ssize_t put = pwrite(file->fd, bytes, n, at);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            int code = put < 0 ? errno : ENOSPC;
            (void)!ftruncate(file->fd, file->n_bytes);
            errno = code;
            return false;
        }
        bytes += put;
        n -= (size_t)put;
        at += put;
    }
    file->n_bytes = at;
    return true;
}

du_err du_lines_add(du_lines *file, int64_t step, du_diag *diag) {
    if (file->line.failed) {
        return du_fail_nomem(diag, file->path);
    }
    if (!write_all(file, file->line.data, file->line.len)) {
        return du_fail_errno(diag, file->path, "write it", errno);
    }
    file->last_step = step;
    return DU_OK;
}

du_err du_lines_sync(du_lines *file, du_diag *diag) {
    return fsync(file->fd) == 0 || errno == EINVAL
               ? DU_OK
               : du_fail_errno(diag, file->path, "sync it", errno);
}

void du_lines_close(du_lines *file) {
    if (file->fd >= 0) {
        close(file->fd);
    }
    du_free(file->path);
    du_str_done(&file->line);
    *file = (du_lines){.fd = -1};
}

du_err du_lines_read(const char *dir, const char *name, du_line_fn *fn, void *user, du_diag *diag) {
    char *path = du_path_join(dir, name);
    du_map map;
    int64_t last;
    du_err err = path ? DU_OK : du_fail_nomem(diag, name);
    if (err == DU_OK && du_file_exists(path) && (err = du_map_open(&map, path, diag)) == DU_OK) {
        walk(&map, INT64_MAX, &last, fn, user);
        du_map_close(&map);
    }
    du_free(path);
    return err;
}
