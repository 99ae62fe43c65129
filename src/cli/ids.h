/* Token ids in files: numbers separated by white space. */
#ifndef DU_CLI_IDS_H
#define DU_CLI_IDS_H

#include <stdio.h>

#include "base/err.h"
#include "text/tokenizer.h"

/* Appends the ids of a file ("-": standard input) as they stand. The largest id depends on the
 * model and is checked where the ids are used.
 * Returns DU_OK, DU_EFORMAT naming the place, DU_ENOENT, DU_EIO, DU_ELIMIT (over 4 GB), DU_ENOMEM.
 */
DU_NODISCARD
du_err du_cli_ids_read(du_ids *out, const char *path, du_diag *diag);

/* The ids with `between` between them. */
void du_cli_ids_print(FILE *f, const du_ids *ids, const char *between);

/* A JSON array of them; NULL when memory is short. */
json_t *du_cli_ids_json(const int32_t *ids, size_t n);

/* Text that a model made as a JSON string, what is not UTF-8 in it as U+FFFD; NULL when memory is
 * short. */
json_t *du_cli_text_json(const du_str *text);

/* What messages call a path: itself, or "standard input" for "-". */
const char *du_cli_path_name(const char *path);

/* Reads a whole text: a file or a pipe, or standard input for "-". Free *out with du_free. */
DU_NODISCARD
du_err du_cli_text_read(char **out, size_t *len, const char *path, du_diag *diag);

#endif
