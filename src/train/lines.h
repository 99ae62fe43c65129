/* A file of a run with a JSON object per line, whose "step" ascends from line to line. */
#ifndef DU_TRAIN_LINES_H
#define DU_TRAIN_LINES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#define DU_LINES_KEPT ".bad" /* behind the name of a file that is kept as it was */

typedef struct {
    int fd; /* -1: closed */
    char *path;
    int64_t n_bytes;   /* of whole lines */
    int64_t last_step; /* of the last one; 0: there is none */
    bool kept;         /* the opening cut off what was damaged, and kept the file as it was */
    du_str line;       /* the one that is being written */
} du_lines;

/* Does the folder hold such a file, with something in it? */
bool du_lines_exist(const char *dir, const char *name);

/* Opens DIR/NAME, which is made when it is missing, and cuts off what follows the line of that
 * step: later steps, and from where lines are not those of ascending steps.
 * Where that is more than whole lines of later steps and half a line, a copy of the file is made
 * first, whose name ends with DU_LINES_KEPT.
 * out  for du_lines_close, also after a failure
 * Returns DU_OK, DU_EIO, DU_ENOENT, DU_ENOMEM, DU_EEXIST and DU_ELIMIT (of the copy's name). */
DU_NODISCARD
du_err du_lines_open(du_lines *out, const char *dir, const char *name, int64_t step, du_diag *diag);

/* Adds file->line, which ends with a line feed, whole or not at all. Returns DU_OK, DU_EIO,
 * DU_ENOMEM (the line's memory was short). */
DU_NODISCARD
du_err du_lines_add(du_lines *file, int64_t step, du_diag *diag);

/* Waits until the lines are on the disk. Returns DU_OK, DU_EIO. */
DU_NODISCARD
du_err du_lines_sync(du_lines *file, du_diag *diag);

void du_lines_close(du_lines *file);

/* A line that was read: json is borrowed for the call. */
typedef void du_line_fn(void *user, int64_t step, const json_t *json);

/* Reads DIR/NAME up to where lines are not those of ascending steps; a file that is missing has
 * none. Memory does not grow with the file. Returns DU_OK, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_lines_read(const char *dir, const char *name, du_line_fn *fn, void *user, du_diag *diag);

#endif
