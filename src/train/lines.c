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

typedef struct {
    int64_t last, n_bytes; /* the step of the last line that is meant, and the length of all */
    bool damaged;          /* behind it are others than lines of later steps and half a line */
} extent;

/* Tells fn (NULL: nobody) of the lines that ascend to at most that step. Returns errno; 0: all were
 * read. */
static int walk(int fd, int64_t step, extent *out, du_line_fn *fn, void *user) {
    reader r = {.fd = fd};
    du_sv line;
    int64_t before = 0;
    *out = (extent){0};
    while (!out->damaged && next_line(&r, &line)) {
        json_t *json;
        int64_t of_line = step_of(&json, &r, line);
        out->damaged = of_line <= before;
        before = of_line;
        if (!out->damaged && of_line <= step) {
            if (fn) {
                fn(user, of_line, json);
            }
            out->last = of_line;
            out->n_bytes += (int64_t)line.len + 1;
        }
        json_decref(json);
    }
    out->damaged = out->damaged || r.text.len - r.at > LINE_BYTES_MAX;
    du_str_done(&r.text);
    return r.error;
}

static int copy(du_writer *w, int fd) {
    char *piece = du_alloc(PIECE_BYTES);
    ssize_t got = piece ? 1 : -1;
    int code = piece ? 0 : ENOMEM;
    for (int64_t at = 0; got > 0; at += got) {
        while ((got = pread(fd, piece, PIECE_BYTES, at)) < 0 && errno == EINTR) {
        }
        code = got < 0 ? errno : 0;
        du_write(w, piece, got > 0 ? (size_t)got : 0);
    }
    du_free(piece);
    return code;
}

/* A copy of the file under its name with DU_LINES_KEPT behind it. */
static du_err keep(const du_lines *file, const char *dir, const char *name, du_diag *diag) {
    du_str kept = {0};
    du_str_addf(&kept, "%s/%s" DU_LINES_KEPT, dir, name);
    du_writer *w = NULL;
    du_err err =
        kept.failed ? du_fail_nomem(diag, name) : du_writer_open(&w, du_str_get(&kept), diag);
    if (err == DU_OK) {
        int code = copy(w, file->fd);
        err = code == 0 ? du_writer_commit(w, diag)
                        : du_fail_errno(diag, file->path, "read it", code);
    }
    du_writer_close(w);
    du_str_done(&kept);
    return err;
}

du_err du_lines_open(du_lines *out, const char *dir, const char *name, int64_t step,
                     du_diag *diag) {
    *out = (du_lines){.fd = -1, .path = du_path_join(dir, name)};
    if (!out->path) {
        return du_fail_nomem(diag, name);
    }
    struct stat st;
    du_err err = du_fd_open_regular(&out->fd, &st, out->path, O_RDWR | O_CREAT, diag);
    if (err != DU_OK) {
        return err;
    }
    extent e;
    int code = walk(out->fd, step, &e, NULL, NULL);
    if (code != 0) {
        return du_fail_errno(diag, out->path, "read it", code);
    }
    out->last_step = e.last;
    out->n_bytes = e.n_bytes;
    out->kept = e.damaged;
    if (e.damaged && (err = keep(out, dir, name, diag)) != DU_OK) {
        return err;
    }
    return ftruncate(out->fd, out->n_bytes) == 0 ? DU_OK
                                                 : du_fail_errno(diag, out->path, "cut it", errno);
}

du_err du_lines_add(du_lines *file, int64_t step, du_diag *diag) {
    if (file->line.failed) {
        return du_fail_nomem(diag, file->path);
    }
    int code = du_fd_write_at(file->fd, file->line.data, file->line.len, file->n_bytes);
    if (code != 0) {
        (void)!ftruncate(file->fd, file->n_bytes); /* what a failure leaves of the line */
        return du_fail_errno(diag, file->path, "write it", code);
    }
    file->n_bytes += (int64_t)file->line.len;
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
    struct stat st;
    int fd = -1;
    du_diag why;
    du_diag_reset(&why);
    du_err err =
        path ? du_fd_open_regular(&fd, &st, path, O_RDONLY, &why) : du_fail_nomem(&why, name);
    if (err == DU_ENOENT) {
        err = DU_OK;
    } else if (err != DU_OK) {
        (void)du_fail(diag, err, "%s", why.msg);
    }
    if (fd >= 0) {
        extent e;
        int code = walk(fd, INT64_MAX, &e, fn, user);
        err = code != 0 ? du_fail_errno(diag, path, "read it", code) : DU_OK;
        close(fd);
    }
    du_free(path);
    return err;
}
