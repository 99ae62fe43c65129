/* Glue over jansson: strict parsing with limits, getters that name the key that is wrong. */
#ifndef DU_BASE_JSON_H
#define DU_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* Parses one JSON value (UTF-8, no duplicate keys, nothing behind it, at most 256 levels deep). An
 * integer beyond int64_t becomes a real number: published tokenizers give 10^30 as the most tokens
 * they take (model_max_length).
 * what  names the text in messages (a path)
 * Returns DU_OK with *out to json_decref, DU_EFORMAT with line and column, DU_ELIMIT, DU_ENOMEM.
 */
DU_NODISCARD
du_err du_json_parse(json_t **out, const char *text, size_t len, const char *what, du_diag *diag);

/* Reads and parses a file of at most `limit` bytes; also the errors of du_file_read. */
DU_NODISCARD
du_err du_json_load(json_t **out, const char *path, size_t limit, du_diag *diag);

/* Appends the text of a value of any kind, as jansson's flags (JSON_COMPACT, ...) say. The buffer
 * remembers where memory was short. */
void du_json_add(du_str *out, const json_t *value, size_t flags);

/* Appends the value as files have it: indented by two, with a newline at its end. Returns DU_OK,
 * DU_ENOMEM; what names the text in messages. */
DU_NODISCARD
du_err du_json_text(du_str *out, const json_t *value, const char *what, du_diag *diag);

/* Writes that text to a file, atomically.
 * Returns DU_OK, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_json_save(const json_t *value, const char *path, du_diag *diag);

/* A copy of an object or array that shares its elements; NULL when memory is short. jansson's own
 * leaves out what it could not allocate. */
json_t *du_json_copy(const json_t *value);

/* obj[key] as an integer within [min, max] into *out; *out stays as it is when the key is absent or
 * null. A number with a fraction, another type or a value outside gives DU_EFORMAT naming the key.
 */
DU_NODISCARD
du_err du_json_get_i64(const json_t *obj, const char *key, int64_t min, int64_t max, int64_t *out,
                       du_diag *diag);

/* The same for a finite number, a boolean, and a string (borrowed from obj). */
DU_NODISCARD
du_err du_json_get_f64(const json_t *obj, const char *key, double *out, du_diag *diag);
DU_NODISCARD
du_err du_json_get_bool(const json_t *obj, const char *key, bool *out, du_diag *diag);
DU_NODISCARD
du_err du_json_get_str(const json_t *obj, const char *key, const char **out, du_diag *diag);

/* Makes jansson allocate through base/mem.h. Called by every program once at its start, before any
 * JSON value exists. */
void du_json_use_counted_heap(void);

#endif
