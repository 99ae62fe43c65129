/* Documents: what training data is made of, read from text files and JSON lines in their order.
 *
 *   text   a file is one document; a line equal to the separator, where there is one, ends it and
 *          belongs to none. What is longer than DU_DOCS_PART_BYTES goes on behind a line's end as
 *          another part of the document.
 *   JSON   each line is an object: {"text": ...}, {"prompt": ..., "response": ...}, or {"messages":
 *          [{"role": ..., "content": ...}, ...]} with "tools" where there are any. Other members
 *          are passed over, lines of white space too. */
#ifndef DU_DATA_DOCS_H
#define DU_DATA_DOCS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* What a file holds; auto: JSON lines when its name ends in .jsonl, .ndjson, or one of these and
 * .zst. */
typedef enum { DU_DOCS_AUTO, DU_DOCS_TEXT, DU_DOCS_JSONL } du_docs_form;

enum { DU_DOCS_PART_BYTES = 1 << 20 };

typedef struct {
    const char *const *paths; /* [n_paths] borrowed; "-": standard input */
    int64_t n_paths;
    du_docs_form form;
    const char *separator; /* borrowed; NULL: none */
} du_docs_params;

typedef struct du_docs du_docs;

/* Opens the list; files that are missing are told now.
 * out  new handle, free with du_docs_close (takes NULL); untouched on failure
 * Returns DU_OK, DU_ENOENT, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_docs_open(du_docs **out, const du_docs_params *params, du_diag *diag);
void du_docs_close(du_docs *docs);

int64_t du_docs_bytes(const du_docs *docs); /* of all regular files, packed ones as they are */
int64_t du_docs_pos(const du_docs *docs);   /* of these, read so far */

/* A document, or a part of one, as its file has it. */
typedef struct {
    int64_t i_file, line; /* paths[i_file]; its first line, from 1 */
    size_t start, len;    /* in the batch's bytes */
    bool json;
    bool begins, ends; /* it is the first part, the last part of its document */
} du_doc;

/* Start from {0}. */
typedef struct {
    du_doc *docs;
    size_t n, cap;
    du_str bytes;
} du_doc_batch;

void du_doc_batch_done(du_doc_batch *batch);

/* Replaces the batch by the next documents, some of `bytes` in all; it is empty at the end. Where
 * batches end depends on the files and `bytes` alone. Returns DU_OK and the errors of stream.h. */
DU_NODISCARD
du_err du_docs_read(du_docs *docs, du_doc_batch *batch, size_t bytes, du_diag *diag);

typedef enum { DU_RECORD_TEXT, DU_RECORD_ANSWER, DU_RECORD_CHAT } du_record_kind;

/* What a document says. */
typedef struct {
    du_record_kind kind;
    du_sv text;             /* DU_RECORD_TEXT */
    du_sv prompt, response; /* DU_RECORD_ANSWER */
    const json_t *messages; /* DU_RECORD_CHAT: an array of objects with a "role" each */
    const json_t *tools;    /* an array, NULL: none */
    json_t *json;           /* what holds all of them; NULL for text */
} du_record;

/* Reads a document of the batch. Close what has been opened with du_record_close. Thread-safe.
 * Returns DU_OK, DU_EFORMAT (not UTF-8, no JSON, none of the three kinds) naming file and line,
 * DU_ELIMIT, DU_ENOMEM. */
DU_NODISCARD
du_err du_record_open(du_record *out, const du_docs *docs, const du_doc_batch *batch, size_t i,
                      du_diag *diag);
void du_record_close(du_record *record);

#endif
