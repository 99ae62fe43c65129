/* Lines of a file, a pipe or standard input; what zstd has packed is unpacked on the way. */
#ifndef DU_DATA_STREAM_H
#define DU_DATA_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { DU_STREAM_LINE_BYTES_MAX = 64 << 20 };

typedef struct du_stream du_stream;

/* Opens a path, "-" being standard input. Whether the bytes are zstd's is seen from the first four
 * of them.
 * out  new handle, free with du_stream_close (takes NULL); untouched on failure
 * Returns DU_OK, DU_ENOENT, DU_EIO, DU_EUNSUPPORTED (gzip), DU_ENOMEM. */
DU_NODISCARD
du_err du_stream_open(du_stream **out, const char *path, du_diag *diag);
void du_stream_close(du_stream *s);

/* The next line, with its line feed where it has one, until the next call; empty at the end.
 * Returns DU_OK, DU_EIO, DU_EFORMAT (damaged zstd data), DU_ELIMIT (a line longer than
 * DU_STREAM_LINE_BYTES_MAX), DU_ENOMEM. */
DU_NODISCARD
du_err du_stream_line(du_stream *s, du_sv *line, du_diag *diag);

int64_t du_stream_n_lines(const du_stream *s); /* given out: the number of the last one */
int64_t du_stream_pos(const du_stream *s);     /* bytes read, packed ones as they are */

/* What messages call it: the path, or "standard input". */
const char *du_stream_name(const du_stream *s);

#endif
