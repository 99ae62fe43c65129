/* Folders: their names, making what happened in them last, and being alone in one. */
#ifndef DU_BASE_DIR_H
#define DU_BASE_DIR_H

#include <stddef.h>

#include "base/err.h"

/* Names in a folder but `.` and `..`, sorted by their bytes. Start from {0}. */
typedef struct {
    char **items;
    size_t n, cap;
} du_names;

void du_names_done(du_names *names); /* frees and empties */

/* Returns DU_OK, DU_ENOENT, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_dir_names(du_names *out, const char *path, du_diag *diag);

/* Waits until the folder's names are on the disk, as they are now. Returns DU_OK, DU_ENOENT,
 * DU_EIO. */
DU_NODISCARD
du_err du_dir_sync(const char *path, du_diag *diag);

/* Gives a file or folder another name on the same file system. A file that has the name is
 * replaced, a folder only when it is empty. Returns DU_OK, DU_ENOENT, DU_EEXIST, DU_EIO. */
DU_NODISCARD
du_err du_dir_rename(const char *from, const char *to, du_diag *diag);

/* Removes a file, or an empty folder; what is not there is no error. Returns DU_OK, DU_EEXIST (a
 * folder that is not empty), DU_EIO. */
DU_NODISCARD
du_err du_dir_remove(const char *path, du_diag *diag);

/* Makes the file when it is missing and locks it (flock(2)) until du_dir_unlock or the end of the
 * process, however that ends; the file stays.
 * fd  out: for du_dir_unlock
 * Returns DU_OK, DU_EEXIST (another process holds it), DU_ENOENT, DU_EIO. */
DU_NODISCARD
du_err du_dir_lock(int *fd, const char *path, du_diag *diag);
void du_dir_unlock(int fd); /* takes -1 */

#endif
