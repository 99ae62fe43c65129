/* One buffer holds what has been read and not given out: [start, end). A line that is not whole
 * yet moves to the buffer's beginning, and the buffer doubles when it is full of one line, so that
 * each byte is moved a bounded number of times.
 *
 * zstd (RFC 8878): frames, one behind the other, skippable ones among them. The library's window is
 * left at its limit of 128 MiB, so that a hostile frame cannot ask for more memory. */
#include "data/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/mem.h"

enum { BLOCK_BYTES = 1 << 18 }; /* of one read */

struct du_stream {
    char *name;
    int fd;
    int64_t pos, n_lines;
    bool eof; /* nothing more comes into the buffer */
    char *buffer;
    size_t start, end, cap;
    size_t n_seen;    /* bytes from start on that hold no line feed */
    ZSTD_DCtx *zstd;  /* NULL: the bytes are not packed */
    ZSTD_inBuffer in; /* packed bytes */
    char *packed;     /* [BLOCK_BYTES] */
    size_t frame;     /* 0: between two frames */
    bool held;        /* the library may hold unpacked bytes that had no room */
};

/* Reads up to n bytes; *got 0 at the end. */
static du_err read_some(du_stream *s, void *out, size_t n, size_t *got, du_diag *diag) {
    ssize_t r;
    do {
        r = read(s->fd, out, n);
    } while (r < 0 && errno == EINTR);
    if (r < 0) {
        return du_fail(diag, DU_EIO, "%s: cannot read it: %s", s->name, strerror(errno));
    }
    *got = (size_t)r;
    s->pos += r;
    return DU_OK;
}

/* Unpacks into out [n]; *got is 0 only at the end. */
static du_err unpack(du_stream *s, void *out, size_t n, size_t *got, du_diag *diag) {
    ZSTD_outBuffer to = {out, n, 0};
    while (to.pos == 0) {
        if (s->in.pos == s->in.size && !s->held) {
            size_t more = 0;
            du_err err = read_some(s, s->packed, BLOCK_BYTES, &more, diag);
            if (err == DU_OK && more == 0 && s->frame != 0) {
                err =
                    du_fail_at(diag, DU_EFORMAT, s->pos, "%s: byte %lld: the zstd data is cut off",
                               s->name, (long long)s->pos);
            }
            if (err != DU_OK || more == 0) {
                *got = 0;
                return err;
            }
            s->in = (ZSTD_inBuffer){s->packed, more, 0};
        }
        s->frame = ZSTD_decompressStream(s->zstd, &to, &s->in);
        if (ZSTD_isError(s->frame)) {
            int64_t at = s->pos - (int64_t)(s->in.size - s->in.pos);
            return du_fail_at(diag, DU_EFORMAT, at, "%s: byte %lld: zstd: %s", s->name,
                              (long long)at, ZSTD_getErrorName(s->frame));
        }
        s->held = s->frame != 0 && to.pos == to.size;
    }
    *got = to.pos;
    return DU_OK;
}

/* Looks at the file's first bytes, which are in the buffer. */
static du_err look(du_stream *s, du_diag *diag) {
    uint32_t magic = 0;
    memcpy(&magic, s->buffer, s->end < sizeof magic ? s->end : sizeof magic);
    if ((magic & 0xffff) == 0x8b1f && s->end >= 2) {
        return du_fail(diag, DU_EUNSUPPORTED, "%s: packed by gzip: unpack it first (gzip -dc)",
                       s->name);
    }
    bool skippable = (magic & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START;
    if (s->end < sizeof magic || (magic != ZSTD_MAGICNUMBER && !skippable)) {
        return DU_OK;
    }
    s->zstd = ZSTD_createDCtx();
    s->packed = s->buffer;
    s->in = (ZSTD_inBuffer){s->packed, s->end, 0};
    s->buffer = du_alloc(BLOCK_BYTES);
    s->end = 0;
    return s->zstd && s->buffer ? DU_OK : du_fail_nomem(diag, s->name);
}

static du_err start(du_stream *s, const char *path, du_diag *diag) {
    bool standard = strcmp(path, "-") == 0;
    s->fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    s->name = du_strdup(standard ? "standard input" : path);
    s->buffer = du_alloc(BLOCK_BYTES);
    s->cap = BLOCK_BYTES;
    if (!s->name || !s->buffer) {
        return du_fail_nomem(diag, path);
    }
    if (s->fd < 0) {
        return du_fail(diag, errno == ENOENT ? DU_ENOENT : DU_EIO, "%s: cannot open it: %s", path,
                       strerror(errno));
    }
    while (s->end < sizeof(uint32_t) && !s->eof) {
        size_t got = 0;
        du_err err = read_some(s, s->buffer + s->end, s->cap - s->end, &got, diag);
        if (err != DU_OK) {
            return err;
        }
        s->end += got;
        s->eof = got == 0;
    }
    return look(s, diag);
}

du_err du_stream_open(du_stream **out, const char *path, du_diag *diag) {
    du_stream *s = du_alloc_zero(1, sizeof *s);
    if (!s) {
        return du_fail_nomem(diag, path);
    }
    s->fd = -1;
    du_err err = start(s, path, diag);
    if (err != DU_OK) {
        du_stream_close(s);
        return err;
    }
    *out = s;
    return DU_OK;
}

void du_stream_close(du_stream *s) {
    if (!s) {
        return;
    }
    if (s->fd > STDIN_FILENO) {
        close(s->fd);
    }
    ZSTD_freeDCtx(s->zstd);
    du_free(s->packed);
    du_free(s->buffer);
    du_free(s->name);
    du_free(s);
}

/* Room for a block behind `end`. */
static du_err make_room(du_stream *s, du_diag *diag) {
    size_t n = s->end - s->start;
    if (n > DU_STREAM_LINE_BYTES_MAX) {
        return du_fail(diag, DU_ELIMIT, "%s:%lld: a line of more than %d bytes", s->name,
                       (long long)s->n_lines + 1, DU_STREAM_LINE_BYTES_MAX);
    }
    if (s->start > 0 && n <= s->cap / 2) {
        memmove(s->buffer, s->buffer + s->start, n);
        s->start = 0;
        s->end = n;
    }
    if (s->cap - s->end < BLOCK_BYTES / 2) {
        char *larger = du_realloc(s->buffer, 2 * s->cap);
        if (!larger) {
            return du_fail_nomem(diag, s->name);
        }
        s->buffer = larger;
        s->cap *= 2;
    }
    return DU_OK;
}

static du_err fill(du_stream *s, du_diag *diag) {
    du_err err = make_room(s, diag);
    size_t got = 0;
    if (err == DU_OK) {
        err = s->zstd ? unpack(s, s->buffer + s->end, s->cap - s->end, &got, diag)
                      : read_some(s, s->buffer + s->end, s->cap - s->end, &got, diag);
    }
    s->end += got;
    s->eof = got == 0;
    return err;
}

du_err du_stream_line(du_stream *s, du_sv *line, du_diag *diag) {
    for (;;) {
        char *from = s->buffer + s->start, *feed = NULL;
        size_t n = s->end - s->start;
        if (n > s->n_seen) {
            feed = memchr(from + s->n_seen, '\n', n - s->n_seen);
        }
        if (feed || s->eof) {
            *line = (du_sv){from, feed ? (size_t)(feed - from) + 1 : n};
            s->start += line->len;
            s->n_seen = 0;
            s->n_lines += line->len > 0;
            return DU_OK;
        }
        s->n_seen = n;
        du_err err = fill(s, diag);
        if (err != DU_OK) {
            return err;
        }
    }
}

int64_t du_stream_n_lines(const du_stream *s) {
    return s->n_lines;
}

int64_t du_stream_pos(const du_stream *s) {
    return s->pos;
}

const char *du_stream_name(const du_stream *s) {
    return s->name;
}
