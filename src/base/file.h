/* Files: read-only maps, bounded whole-file reads, and writers that leave either the old file or
 * the whole new one under the final name. Errors name the path and the system's reason. */
#ifndef DU_BASE_FILE_H
#define DU_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* The failure of a system call: "PATH: cannot DOING: reason" with DU_ENOENT, DU_ENOMEM or DU_EIO.
 */
du_err du_fail_errno(du_diag *diag, const char *path, const char *doing, int code);

/* A read-only map of a regular file. */
typedef struct {
    const uint8_t *data; /* NULL when len = 0 */
    size_t len;
    int64_t changed_ns; /* when the file was last written, since 1970 */
} du_map;

/* Maps the file at path. *out is for du_map_close; untouched on failure.
 * Returns DU_OK, DU_ENOENT, DU_EIO (also: not a regular file), DU_ENOMEM. */
DU_NODISCARD
du_err du_map_open(du_map *out, const char *path, du_diag *diag);
void du_map_close(du_map *map);

/* Whether the file at path is as it was when it was mapped from there: reading what has been cut
 * off since would end the process. */
bool du_map_is_current(const du_map *map, const char *path);

/* Bytes [p, p + n) will not be read again soon: whole pages of them that lie in the map leave the
 * process's memory, and come back when they are read. */
void du_map_unload(const du_map *map, const void *p, size_t n);

/* The same for bytes [start, start + n) and what lies beside them: pieces read here and there in a
 * large file do not add up to all of it in the process's memory. */
void du_map_forget(const du_map *map, size_t start, size_t n);

/* Reads the whole file into a heap block with a NUL after its last byte (free with du_free).
 * limit  largest size accepted, in bytes: DU_ELIMIT beyond
 * len    may be NULL when the text cannot hold NUL bytes
 * Returns DU_OK, DU_ENOENT, DU_EIO, DU_ELIMIT, DU_ENOMEM. */
DU_NODISCARD
du_err du_file_read(char **out, size_t *len, const char *path, size_t limit, du_diag *diag);

/* As du_file_read for a path that a person named, which may also be a pipe or a device. */
DU_NODISCARD
du_err du_stream_read(char **out, size_t *len, const char *path, size_t limit, du_diag *diag);

/* As du_file_read for what comes from an open descriptor (standard input); name is for messages. */
DU_NODISCARD
du_err du_fd_read(char **out, size_t *len, int fd, const char *name, size_t limit, du_diag *diag);

/* Opens a regular file and tells what it is; a pipe or a device of the name is an error, and not
 * waited for.
 * fd     -1 on failure
 * st     stat of the open file, out
 * flags  of open(2), besides O_CLOEXEC
 * Returns DU_OK, DU_ENOENT, DU_EIO, DU_ENOMEM. */
struct stat;
DU_NODISCARD
du_err du_fd_open_regular(int *fd, struct stat *st, const char *path, int flags, du_diag *diag);

/* Writes all n bytes at the offset. Returns 0, or errno with any part of them written. */
DU_NODISCARD
int du_fd_write_at(int fd, const void *bytes, size_t n, int64_t offset);

bool du_file_exists(const char *path); /* a regular file */
bool du_dir_exists(const char *path);
bool du_same_file(const char *a, const char *b); /* both exist and are one, by any name */

/* Makes the folder and its missing parents; one that exists is no error. */
DU_NODISCARD
du_err du_dir_make(const char *path, du_diag *diag);

/* dir + "/" + name on the heap (du_free), NULL when memory is short. */
char *du_path_join(const char *dir, const char *name);

/* The last name of a path, whatever slashes stand at its end: "b" of "a/b/", "/" of "/". */
du_sv du_path_last(du_sv path);

/* A buffered writer to a file without a name in the final one's folder or, where the file system
 * has none, to PATH.tmp-XXXXXXXX. */
typedef struct du_writer du_writer;

/* A symbolic link stays and its target is written; a file that is replaced passes on its
 * permissions. Returns DU_OK, DU_EINVAL (an empty name), DU_EIO, DU_ENOENT, DU_EEXIST (a folder, a
 * pipe or a device has the name), DU_ELIMIT, DU_ENOMEM. Free with du_writer_close. */
DU_NODISCARD
du_err du_writer_open(du_writer **out, const char *path, du_diag *diag);

/* Failures are sticky and told by du_writer_commit, so that format code can write on. */
void du_write(du_writer *w, const void *bytes, size_t n);
void du_write_zeros(du_writer *w, size_t n);
/* Takes room for n bytes in all on the disk now, so that a full one is told before long work; does
 * nothing where the file system cannot. */
void du_writer_reserve(du_writer *w, int64_t n);
/* Gives the file the permissions of another one, which is its source. */
void du_writer_allow_as(du_writer *w, const char *source);
int64_t du_writer_pos(const du_writer *w); /* bytes written so far */
bool du_writer_failed(const du_writer *w); /* to stop long work early */

/* Overwrites bytes written before (a header whose sizes were unknown). offset + n <= pos. */
void du_write_at(du_writer *w, int64_t offset, const void *bytes, size_t n);

/* Flushes, syncs and renames to the final name, by way of the temporary one. On failure (also of
 * any earlier write) the final name is as it was. Returns DU_OK, DU_EIO. */
DU_NODISCARD
du_err du_writer_commit(du_writer *w, du_diag *diag);

/* Closes; without a commit the temporary file is removed. Takes NULL. */
void du_writer_close(du_writer *w);

/* Removes the temporary files of all open writers; async-signal-safe, for a signal handler that is
 * about to end the process. */
void du_writer_remove_all_temporary(void);

#endif
