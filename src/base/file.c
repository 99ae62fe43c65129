/* Files: maps, whole reads, writers with a temporary name.
 *
 * A writer keeps one buffer and a sticky error number. Its file has no name until it is whole,
 * where the file system knows such files (O_TMPFILE), and a temporary one elsewhere. That stands in
 * a small table of fixed size, so that a signal handler can unlink what is half-written without
 * touching the heap. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"

du_err du_fail_errno(du_diag *diag, const char *path, const char *doing, int code) {
    du_err err = code == ENOENT ? DU_ENOENT : code == ENOMEM ? DU_ENOMEM : DU_EIO;
    return du_fail(diag, err, "%s: cannot %s: %s", path, doing, strerror(code));
}

du_err du_fd_open_regular(int *fd, struct stat *st, const char *path, int flags, du_diag *diag) {
    *fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, 0666); /* no wait for a pipe's other end */
    if (*fd < 0) {
        return du_fail_errno(diag, path, "open it", errno);
    }
    du_err err = fstat(*fd, st) != 0    ? du_fail_errno(diag, path, "open it", errno)
                 : S_ISREG(st->st_mode) ? DU_OK
                                        : du_fail(diag, DU_EIO, "%s: not a regular file", path);
    if (err != DU_OK) {
        close(*fd);
        *fd = -1;
    }
    return err;
}

int du_fd_write_at(int fd, const void *bytes, size_t n, int64_t offset) {
    const uint8_t *from = bytes;
    while (n > 0) {
        ssize_t put = pwrite(fd, from, n, offset);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return put < 0 ? errno : ENOSPC;
        }
        from += put;
        offset += put;
        n -= (size_t)put;
    }
    return 0;
}

static int64_t changed_ns(const struct stat *st) {
    return st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

du_err du_map_open(du_map *out, const char *path, du_diag *diag) {
    struct stat st;
    int fd;
    du_err err = du_fd_open_regular(&fd, &st, path, O_RDONLY, diag);
    if (err != DU_OK) {
        return err;
    }
    du_map map = {.len = (size_t)st.st_size, .changed_ns = changed_ns(&st)};
    if (map.len > 0) {
        void *p = mmap(NULL, map.len, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            err = du_fail_errno(diag, path, "map it", errno);
        }
        map.data = p;
    }
    close(fd);
    if (err == DU_OK) {
        *out = map;
    }
    return err;
}

void du_map_close(du_map *map) {
    if (map->data) {
        munmap((void *)(uintptr_t)map->data, map->len);
    }
    *map = (du_map){0};
}

bool du_map_is_current(const du_map *map, const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && (size_t)st.st_size == map->len &&
           changed_ns(&st) == map->changed_ns;
}

void du_map_unload(const du_map *map, const void *p, size_t n) {
    uintptr_t base = (uintptr_t)map->data, start = (uintptr_t)p, page = (uintptr_t)getpagesize();
    if (!map->data || start < base || start - base > map->len || n > map->len - (start - base)) {
        return;
    }
    uintptr_t first = (start + page - 1) / page * page, end = (start + n) / page * page;
    if (first < end) {
        (void)madvise((void *)first, end - first, MADV_DONTNEED);
    }
}

void du_map_forget(const du_map *map, size_t start, size_t n) {
    const size_t block = 1 << 16; /* as much as the kernel maps at once around what is read */
    size_t from = start / block * block, to = (start + n + block - 1) / block * block;
    to = to < map->len ? to : map->len;
    if (from < to) {
        du_map_unload(map, map->data + from, to - from);
    }
}

du_err du_fd_read(char **out, size_t *len, int fd, const char *name, size_t limit, du_diag *diag) {
    size_t cap = 4096, n = 0;
    char *data = du_alloc(cap + 1);
    while (data) {
        ssize_t got = read(fd, data + n, cap - n);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            int code = errno;
            du_free(data);
            return du_fail_errno(diag, name, "read it", code);
        }
        n += (size_t)got;
        if (n > limit) {
            du_free(data);
            return du_fail(diag, DU_ELIMIT, "%s: larger than the limit of %zu bytes", name, limit);
        }
        if (got == 0) {
            data[n] = '\0';
            *out = data;
            if (len) {
                *len = n;
            }
            return DU_OK;
        }
        if (n == cap) {
            char *more = du_realloc(data, cap * 2 + 1);
            if (!more) {
                break;
            }
            data = more;
            cap *= 2;
        }
    }
    du_free(data);
    return du_fail_nomem(diag, name);
}

du_err du_file_read(char **out, size_t *len, const char *path, size_t limit, du_diag *diag) {
    struct stat st;
    int fd;
    du_err err = du_fd_open_regular(&fd, &st, path, O_RDONLY, diag);
    if (err != DU_OK) {
        return err;
    }
    err = du_fd_read(out, len, fd, path, limit, diag);
    close(fd);
    return err;
}

du_err du_stream_read(char **out, size_t *len, const char *path, size_t limit, du_diag *diag) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return du_fail_errno(diag, path, "open it", errno);
    }
    du_err err = du_fd_read(out, len, fd, path, limit, diag);
    close(fd);
    return err;
}

bool du_file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool du_dir_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool du_same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

du_err du_dir_make(const char *path, du_diag *diag) {
    char *copy = du_strdup(path);
    if (!copy) {
        return du_fail_nomem(diag, "a path");
    }
    du_err err = DU_OK;
    for (char *at = copy + (*copy == '/'); err == DU_OK; at++) {
        bool last = *at == '\0';
        if (!last && *at != '/') {
            continue;
        }
        *at = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST) {
            err = du_fail_errno(diag, copy, "make the folder", errno);
        }
        if (last) {
            break;
        }
        *at = '/';
    }
    du_free(copy);
    if (err == DU_OK && !du_dir_exists(path)) {
        err = du_fail(diag, DU_EIO, "%s: exists and is not a folder", path);
    }
    return err;
}

char *du_path_join(const char *dir, const char *name) {
    size_t n_dir = strlen(dir), n_name = strlen(name);
    bool slash = n_dir > 0 && dir[n_dir - 1] != '/';
    char *path = du_alloc(n_dir + n_name + 2);
    if (path) {
        snprintf(path, n_dir + n_name + 2, "%s%s%s", dir, slash ? "/" : "", name);
    }
    return path;
}

du_sv du_path_last(du_sv path) {
    while (path.len > 1 && path.s[path.len - 1] == '/') {
        path.len--;
    }
    const char *slash = path.len > 1 ? memrchr(path.s, '/', path.len - 1) : NULL;
    return slash ? (du_sv){slash + 1, path.len - (size_t)(slash + 1 - path.s)} : path;
}

enum { N_TEMPORARY = 16, PATH_BYTES = 4096, BUFFER_BYTES = 1 << 20 };

/* Names to unlink when the process is interrupted; `used` guards the slot. */
static struct {
    atomic_bool used, ready;
    char path[PATH_BYTES];
} temporary[N_TEMPORARY];

struct du_writer {
    int fd;
    int slot;
    int error; /* errno of the first failure, 0 */
    char *path;
    uint8_t *buffer;
    size_t n_buffer;
    int64_t pos;
    bool named; /* the file lies under its temporary name */
    bool committed;
};

static int take_slot(void) {
    for (int i = 0; i < N_TEMPORARY; i++) {
        bool expected = false;
        if (atomic_compare_exchange_strong(&temporary[i].used, &expected, true)) {
            return i;
        }
    }
    return -1;
}

static void release_slot(int slot) {
    atomic_store(&temporary[slot].ready, false);
    atomic_store(&temporary[slot].used, false);
}

void du_writer_remove_all_temporary(void) {
    for (int i = 0; i < N_TEMPORARY; i++) {
        if (atomic_load(&temporary[i].ready)) {
            unlink(temporary[i].path);
        }
    }
}

/* Where the file will lie: behind a symbolic link its target, so that the link stays. *mode gets
 * the permissions to give it: those of the file it replaces. path [PATH_BYTES] out. */
static du_err find_target(char *path, mode_t *mode, const char *wanted, du_diag *diag) {
    struct stat st;
    *mode = 0;
    if (*wanted == '\0') {
        return du_fail(diag, DU_EINVAL, "an empty file name");
    }
    bool is_link = lstat(wanted, &st) == 0 && S_ISLNK(st.st_mode);
    if (is_link && !realpath(wanted, path)) {
        return du_fail_errno(diag, wanted, "follow the link", errno);
    }
    if (!is_link && snprintf(path, PATH_BYTES, "%s", wanted) >= PATH_BYTES) {
        return du_fail(diag, DU_ELIMIT, "%s: the path is too long", wanted);
    }
    if (stat(path, &st) != 0) {
        return DU_OK;
    }
    *mode = st.st_mode & 0777;
    return S_ISREG(st.st_mode)
               ? DU_OK
               : du_fail(diag, DU_EEXIST, "%s: exists and is not a regular file", wanted);
}

/* A name that nobody else takes, nor took before being killed: the processes of two containers may
 * have the same number. name [PATH_BYTES] out; false: too long. */
static bool name_temporary(char *name, const char *path) {
    uint64_t seed[2];
    du_hash_draw_seed(seed);
    int n = snprintf(name, PATH_BYTES, "%s.tmp-%08x", path, (unsigned)seed[0]);
    return n > 0 && n < PATH_BYTES;
}

/* Gives a file that has no name one. */
static bool link_unnamed(int fd, const char *name) {
    char at[32];
    snprintf(at, sizeof at, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, at, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0;
}

/* A file without a name in the folder of `name`, which is gone with the process however that ends;
 * -1 where there are no such files, or none that can get a name later: a first one tries it. */
static int create_unnamed(const char *name) {
    char dir[PATH_BYTES];
    const char *slash = strrchr(name, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - name) + 1 : 1, slash ? name : ".");
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
    bool works = fd >= 0 && link_unnamed(fd, name);
    if (fd >= 0) {
        close(fd);
    }
    if (!works) {
        return -1;
    }
    unlink(name);
    return open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
}

/* Creates the temporary file beside the final name. */
static du_err create(du_writer *w, const char *wanted, du_diag *diag) {
    char path[PATH_BYTES];
    mode_t mode;
    du_err err = find_target(path, &mode, wanted, diag);
    if (err != DU_OK) {
        return err;
    }
    w->path = du_strdup(path);
    w->slot = take_slot();
    if (!w->path || w->slot < 0) {
        return w->path ? du_fail(diag, DU_ELIMIT, "%s: too many files are being written at once",
                                 wanted)
                       : du_fail_nomem(diag, wanted);
    }
    char *name = temporary[w->slot].path;
    if (!name_temporary(name, path)) {
        return du_fail(diag, DU_ELIMIT, "%s: the path is too long", wanted);
    }
    atomic_store(&temporary[w->slot].ready, true); /* before it exists: no gap for a signal */
    w->fd = create_unnamed(name);
    w->named = w->fd < 0;
    if (w->named) {
        w->fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    }
    if (w->fd < 0) {
        return du_fail_errno(diag, wanted, "create it", errno);
    }
    return mode == 0 || fchmod(w->fd, mode) == 0 ? DU_OK
                                                 : du_fail_errno(diag, wanted, "write it", errno);
}

du_err du_writer_open(du_writer **out, const char *path, du_diag *diag) {
    du_writer *w = du_alloc_zero(1, sizeof *w);
    if (!w) {
        return du_fail_nomem(diag, path);
    }
    w->fd = w->slot = -1;
    w->buffer = du_alloc(BUFFER_BYTES);
    du_err err = w->buffer ? create(w, path, diag) : du_fail_nomem(diag, path);
    if (err != DU_OK) {
        du_writer_close(w);
        return err;
    }
    *out = w;
    return DU_OK;
}

static void write_all(du_writer *w, const void *bytes, size_t n, int64_t offset) {
    w->error = w->error ? w->error : du_fd_write_at(w->fd, bytes, n, offset);
}

static void flush(du_writer *w) {
    write_all(w, w->buffer, w->n_buffer, w->pos - (int64_t)w->n_buffer);
    w->n_buffer = 0;
}

void du_write(du_writer *w, const void *bytes, size_t n) {
    if (n > BUFFER_BYTES - w->n_buffer) {
        flush(w);
    }
    if (n > BUFFER_BYTES) {
        write_all(w, bytes, n, w->pos);
    } else if (n > 0) {
        memcpy(w->buffer + w->n_buffer, bytes, n);
        w->n_buffer += n;
    }
    w->pos += (int64_t)n;
}

void du_write_zeros(du_writer *w, size_t n) {
    static const uint8_t zeros[4096];
    for (; n > sizeof zeros; n -= sizeof zeros) {
        du_write(w, zeros, sizeof zeros);
    }
    du_write(w, zeros, n);
}

void du_writer_reserve(du_writer *w, int64_t n) {
    if (!w->error && fallocate(w->fd, FALLOC_FL_KEEP_SIZE, 0, n) != 0 &&
        (errno == ENOSPC || errno == EFBIG || errno == EDQUOT)) {
        w->error = errno;
    }
}

void du_writer_allow_as(du_writer *w, const char *source) {
    struct stat st;
    if (!w->error && (stat(source, &st) != 0 || fchmod(w->fd, st.st_mode & 0666) != 0)) {
        w->error = errno;
    }
}

int64_t du_writer_pos(const du_writer *w) {
    return w->pos;
}

bool du_writer_failed(const du_writer *w) {
    return w->error != 0;
}

void du_write_at(du_writer *w, int64_t offset, const void *bytes, size_t n) {
    DU_CHECK(offset >= 0 && offset + (int64_t)n <= w->pos);
    flush(w);
    write_all(w, bytes, n, offset);
}

du_err du_writer_commit(du_writer *w, du_diag *diag) {
    flush(w);
    if (!w->error && fsync(w->fd) != 0 && errno != EINVAL) {
        w->error = errno;
    }
    if (!w->error && !w->named) {
        w->named = link_unnamed(w->fd, temporary[w->slot].path);
        w->error = w->named ? 0 : errno;
    }
    if (!w->error && rename(temporary[w->slot].path, w->path) != 0) {
        w->error = errno;
    }
    if (w->error) {
        return du_fail_errno(diag, w->path, "write it", w->error);
    }
    w->committed = true;
    return DU_OK;
}

void du_writer_close(du_writer *w) {
    if (!w) {
        return;
    }
    if (w->fd >= 0) {
        close(w->fd);
        if (w->named && !w->committed) {
            unlink(temporary[w->slot].path);
        }
    }
    if (w->slot >= 0) {
        release_slot(w->slot);
    }
    du_free(w->path);
    du_free(w->buffer);
    du_free(w);
}
