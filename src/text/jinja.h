/* Jinja templates: the language that models ship their chat format in.
 *
 * The output is byte for byte what Jinja2 3.1 gives (immutable sandbox, trim_blocks, lstrip_blocks,
 * loop controls) with the additions of Hugging Face: tojson that keeps non-ASCII text,
 * raise_exception, strftime_now, the generation block. Not there, and a named error: template
 * inheritance and inclusion (one text is the whole template), autoescape, whatever is random
 * (random, lipsum), HTML helpers (urlize, xmlattr, striptags), pprint, wordwrap, integers beyond 64
 * bits.
 *
 * A template is text from outside: parsing is bounded by its size and nesting, rendering by steps,
 * memory, depth and output. */
#ifndef DU_TEXT_JINJA_H
#define DU_TEXT_JINJA_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* A parsed template. It never changes, so several threads may render it at once. */
typedef struct du_jinja du_jinja;

/* Zero in a field: its default. */
typedef struct {
    int64_t steps_max;       /* evaluation steps, default 20 million (some seconds) */
    size_t memory_bytes_max; /* values made while rendering, default 256 MiB */
    size_t output_bytes_max; /* default 64 MiB */
    int64_t now_s;           /* strftime_now's time, seconds since 1970; default: the clock */
} du_jinja_options;

/* Parses a template of at most 1 MiB of UTF-8.
 * out   new handle, free with du_jinja_free; untouched on failure
 * name  what messages call it (a path, a metadata key); copied
 * Returns DU_OK; DU_EFORMAT for a mistake in the template, DU_EUNSUPPORTED for a construct that is
 * not there (both name line and construct), DU_ELIMIT, DU_ENOMEM. */
DU_NODISCARD
du_err du_jinja_parse(du_jinja **out, const char *text, size_t len, const char *name,
                      du_diag *diag);
void du_jinja_free(du_jinja *template);

/* Renders the template and appends the text to *out.
 * vars     JSON object of the template's variables, borrowed; NULL: none
 * options  may be NULL
 * out      as it was on failure
 * Returns DU_OK; DU_EINVAL when the template called raise_exception (the message is its text
 * alone); DU_EFORMAT when an operation does not suit its values, DU_EUNSUPPORTED, DU_ELIMIT (these
 * name the line); DU_ENOMEM. */
DU_NODISCARD
du_err du_jinja_render(const du_jinja *template, const json_t *vars,
                       const du_jinja_options *options, du_str *out, du_diag *diag);

/* Whether the template reads a variable of this name anywhere. */
bool du_jinja_reads(const du_jinja *template, const char *name);

#endif
