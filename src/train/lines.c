#include "train/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

enum { PIECE_BYTES = 1 << 16, LINE_BYTES_MAX = 1 << 28 };

bool du_lines_exist(const char *dir, const char *name) {
    char *path = du_path_join(dir, name);
    struct stat st;
    bool exist = path && stat(path, &st) == 0 && st.st_size > 0;
    du_free(path);
    return exist;
}

/* A file that is read piece by piece. It may be written, and even cut, meanwhile: what was mapped
 * would end the process then. */
typedef struct {
    int fd;
    du_str text; /* read and not passed yet, from `at` on */
    size_t at;
    int error; /* errno; 0: none so far */
} reader;

/* Reads on. False: the end, an error, a line too long, no memory. */
static bool read_more(reader *r) {
    size_t left = r->text.len - r->at;
    if (r->at > 0) {
        memmove(r->text.data, r->text.data + r->at, left);
        r->text.len = left;
        r->at = 0;
    }
    du_str_reserve(&r->text, PIECE_BYTES);
    ssize_t got = -1;
    while (left <= LINE_BYTES_MAX && !r->text.failed) {
        got = read(r->fd, r->text.data + left, PIECE_BYTES);
        if (got >= 0 || errno != EINTR) {
            break;
        }
    }
    r->text.len += got > 0 ? (size_t)got : 0;
    r->error = r->text.failed ? ENOMEM : left <= LINE_BYTES_MAX && got < 0 ? errno : 0;
    return got > 0;
}

/* The next line without its line feed, until the next call. False: there is none. */
static bool next_line(reader *r, du_sv *line) {
    size_t looked = 0;
    for (;;) {
        const char *from = du_str_get(&r->text) + r->at;
        size_t n = r->text.len - r->at;
        const char *end = memchr(from + looked, '\n', n - looked);
        if (end) {
            *line = (du_sv){from, (size_t)(end - from)};
            r->at += line->len + 1;
            return true;
        }
        looked = n;
        if (!read_more(r)) {
            return false;
        }
    }
}

/* The step of a line; 0: it is none of ours. json_decref *out. */
static int64_t step_of(json_t **out, reader *r, du_sv line) {
    *out = NULL;
    du_err err = du_json_parse(out, line.s, line.len, "a line", NULL);
    r->error = err == DU_ENOMEM ? ENOMEM : r->error;
    return err == DU_OK ? json_integer_value(json_object_get(*out, "step")) : 0;
}

/* Tells fn (NULL: nobody) of the lines that ascend to at most that step. *last: the step of the
 * last of them, *n_bytes: their length. Returns errno; 0: all were read. */
static int walk(int fd, int64_t step, int64_t *last, int64_t *n_bytes, du_line_fn *fn, void *user) {
    reader r = {.fd = fd};
    du_sv line;
    bool good = true;
    *last = *n_bytes = 0;
    while (good && next_line(&r, &line)) {
        json_t *json;
        int64_t of_line = step_of(&json, &r, line);
        good = of_line > *last && of_line <= step;
        if (good && fn) {
            fn(user, of_line, json);
        }
        json_decref(json);
        *last = good ? of_line : *last;
        *n_bytes += good ? (int64_t)line.len + 1 : 0;
    }
    du_str_done(&r.text);
    return r.error;
}

du_err du_lines_open(du_lines *out, const char *dir, const char *name, int64_t step,
                     du_diag *diag) {
    *out = (du_lines){.fd = -1, .path = du_path_join(dir, name)};
    if (!out->path) {
        return du_fail_nomem(diag, name);
    }
    out->fd = open(out->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (out->fd < 0) {
        return du_fail_errno(diag, out->path, "open it", errno);
    }
    int code = walk(out->fd, step, &out->last_step, &out->n_bytes, NULL, NULL);
    if (code != 0) {
        return du_fail_errno(diag, out->path, "read it", code);
    }
    return ftruncate(out->fd, out->n_bytes) == 0 ? DU_OK
                                                 : du_fail_errno(diag, out->path, "cut it", errno);
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
    du_err err = path ? DU_OK : du_fail_nomem(diag, name);
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (err == DU_OK && fd < 0 && errno != ENOENT) {
        err = du_fail_errno(diag, path, "open it", errno);
    }
    if (fd >= 0) {
        int64_t last, n_bytes;
        int code = walk(fd, INT64_MAX, &last, &n_bytes, fn, user);
        err = code != 0 ? du_fail_errno(diag, path, "read it", code) : DU_OK;
        close(fd);
    }
    du_free(path);
    return err;
}
