/* The members of a JSON object one at a time, for files whose one object has very many of them
 * (names of tensors): as jansson values together they would take tens of times the file's size. */
#ifndef DU_BASE_JSON_WALK_H
#define DU_BASE_JSON_WALK_H

#include <stddef.h>

#include "base/json.h"
#include "base/str.h"

/* Start from {.text = ..., .what = ..., .offset = ...}. */
typedef struct {
    du_sv text;       /* the object, borrowed */
    const char *what; /* names the text in messages */
    int64_t offset;   /* of the text in its file, for messages */
    size_t pos;       /* byte behind what was read */
} du_json_walk;

/* Finds the next member: *member is its text, "name": value, with quotes and brackets paired but
 * otherwise unchecked; empty at the end, behind which nothing but spaces is left.
 * Returns DU_OK, DU_EFORMAT. */
DU_NODISCARD
du_err du_json_walk_next(du_json_walk *w, du_sv *member, du_diag *diag);

/* Parses a member as an object that holds nothing else; json_decref *out. Names that occur in two
 * members are not noticed. Returns the errors of du_json_parse. */
DU_NODISCARD
du_err du_json_walk_parse(json_t **out, const du_json_walk *w, du_sv member, du_diag *diag);

#endif
