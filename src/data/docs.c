#include "data/docs.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"
#include "data/stream.h"
#include "text/unicode.h"

struct du_docs {
    du_docs_params params;
    int64_t n_bytes, n_done; /* of the files; of those that are closed */
    int64_t i_file;          /* the one that is open, or comes next */
    du_stream *stream;       /* NULL: none is open */
    bool inside;             /* the next line of text goes on with a document */
};

/* Whether a name is one of JSON lines. */
static bool named_jsonl(const char *path) {
    du_sv name = du_sv_of(path);
    if (du_sv_ends(name, ".zst")) {
        name.len -= strlen(".zst");
    }
    return du_sv_ends(name, ".jsonl") || du_sv_ends(name, ".ndjson");
}

static bool is_json(const du_docs *docs, int64_t i_file) {
    du_docs_form form = docs->params.form;
    return form == DU_DOCS_JSONL ||
           (form == DU_DOCS_AUTO && named_jsonl(docs->params.paths[i_file]));
}

static const char *name_of(const du_docs *docs, int64_t i_file) {
    const char *path = docs->params.paths[i_file];
    return strcmp(path, "-") == 0 ? "standard input" : path;
}

static du_err measure(du_docs *docs, const char *path, du_diag *diag) {
    struct stat st;
    if (strcmp(path, "-") == 0) {
        return DU_OK;
    }
    if (stat(path, &st) != 0 || access(path, R_OK) != 0) {
        return du_fail(diag, errno == ENOENT ? DU_ENOENT : DU_EIO, "%s: cannot open it: %s", path,
                       strerror(errno));
    }
    docs->n_bytes += S_ISREG(st.st_mode) ? st.st_size : 0;
    return DU_OK;
}

du_err du_docs_open(du_docs **out, const du_docs_params *params, du_diag *diag) {
    du_docs *docs = du_alloc_zero(1, sizeof *docs);
    if (!docs) {
        return du_fail_nomem(diag, "the list of files");
    }
    docs->params = *params;
    du_err err = DU_OK;
    for (int64_t i = 0; i < params->n_paths && err == DU_OK; i++) {
        err = measure(docs, params->paths[i], diag);
    }
    if (err != DU_OK) {
        du_docs_close(docs);
        return err;
    }
    *out = docs;
    return DU_OK;
}

void du_docs_close(du_docs *docs) {
    if (docs) {
        du_stream_close(docs->stream);
        du_free(docs);
    }
}

int64_t du_docs_bytes(const du_docs *docs) {
    return docs->n_bytes;
}

int64_t du_docs_pos(const du_docs *docs) {
    return docs->n_done + (docs->stream ? du_stream_pos(docs->stream) : 0);
}

void du_doc_batch_done(du_doc_batch *batch) {
    du_free(batch->docs);
    du_str_done(&batch->bytes);
    *batch = (du_doc_batch){0};
}

static bool blank(du_sv line) {
    for (size_t i = 0; i < line.len; i++) {
        if (line.s[i] != ' ' && (line.s[i] < '\t' || line.s[i] > '\r')) {
            return false;
        }
    }
    return true;
}

static bool is_separator(const du_docs *docs, du_sv line) {
    line.len -= du_sv_ends(line, "\n");
    line.len -= du_sv_ends(line, "\r");
    return docs->params.separator && du_sv_is(line, docs->params.separator);
}

/* The document that text goes to: the last of the batch, unless it has ended. */
static du_doc *open_part(du_docs *docs, du_doc_batch *batch) {
    du_doc *last = batch->n > 0 ? &batch->docs[batch->n - 1] : NULL;
    if (last && !last->json && !last->ends && last->i_file == docs->i_file &&
        last->len < DU_DOCS_PART_BYTES) {
        return last;
    }
    if (!du_grow((void **)&batch->docs, &batch->cap, batch->n, sizeof *batch->docs)) {
        return NULL;
    }
    batch->docs[batch->n] = (du_doc){.i_file = docs->i_file,
                                     .line = du_stream_n_lines(docs->stream),
                                     .start = batch->bytes.len,
                                     .begins = !docs->inside};
    return &batch->docs[batch->n++];
}

static bool add_text(du_docs *docs, du_doc_batch *batch, du_sv line) {
    du_doc *part = open_part(docs, batch);
    if (part) {
        du_str_add_sv(&batch->bytes, line);
        part->len += line.len;
        docs->inside = true;
    }
    return part && !batch->bytes.failed;
}

/* Ends the document that is open. When its last part has gone with an earlier batch, what is left
 * of it is an empty part. */
static bool end_text(du_docs *docs, du_doc_batch *batch) {
    if (!docs->inside) {
        return true;
    }
    bool ok = add_text(docs, batch, (du_sv){"", 0});
    if (ok) {
        batch->docs[batch->n - 1].ends = true;
        docs->inside = false;
    }
    return ok;
}

static bool add_json(du_docs *docs, du_doc_batch *batch, du_sv line) {
    if (blank(line)) {
        return true;
    }
    if (!du_grow((void **)&batch->docs, &batch->cap, batch->n, sizeof *batch->docs)) {
        return false;
    }
    batch->docs[batch->n++] = (du_doc){.i_file = docs->i_file,
                                       .line = du_stream_n_lines(docs->stream),
                                       .start = batch->bytes.len,
                                       .len = line.len,
                                       .json = true,
                                       .begins = true,
                                       .ends = true};
    du_str_add_sv(&batch->bytes, line);
    return !batch->bytes.failed;
}

static bool add_line(du_docs *docs, du_doc_batch *batch, du_sv line) {
    if (is_json(docs, docs->i_file)) {
        return add_json(docs, batch, line);
    }
    return is_separator(docs, line) ? end_text(docs, batch) : add_text(docs, batch, line);
}

/* Adds one line of the file that is open, or closes it at its end. */
static du_err step(du_docs *docs, du_doc_batch *batch, du_diag *diag) {
    if (!docs->stream) {
        return du_stream_open(&docs->stream, docs->params.paths[docs->i_file], diag);
    }
    du_sv line;
    du_err err = du_stream_line(docs->stream, &line, diag);
    if (err != DU_OK) {
        return err;
    }
    bool ok = line.len > 0 ? add_line(docs, batch, line) : end_text(docs, batch);
    if (line.len == 0) {
        docs->n_done += du_stream_pos(docs->stream);
        du_stream_close(docs->stream);
        docs->stream = NULL;
        docs->i_file++;
    }
    return ok ? DU_OK : du_fail_nomem(diag, "a batch of documents");
}

du_err du_docs_read(du_docs *docs, du_doc_batch *batch, size_t bytes, du_diag *diag) {
    batch->n = 0;
    du_str_reset(&batch->bytes);
    du_err err = DU_OK;
    while (err == DU_OK && docs->i_file < docs->params.n_paths && batch->bytes.len < bytes) {
        err = step(docs, batch, diag);
    }
    return err;
}

/* obj[key] as a text into *out; false: it is none. */
static bool get_text(const json_t *obj, const char *key, du_sv *out) {
    const json_t *value = json_object_get(obj, key);
    if (json_is_string(value)) {
        *out = (du_sv){json_string_value(value), json_string_length(value)};
    }
    return json_is_string(value);
}

static const char *bad_message(const json_t *messages) {
    size_t i;
    json_t *message;
    if (!json_is_array(messages) || json_array_size(messages) == 0) {
        return "\"messages\" is no list of messages";
    }
    json_array_foreach(messages, i, message) {
        if (!json_is_string(json_object_get(message, "role"))) {
            return "a message has no \"role\"";
        }
    }
    return NULL;
}

/* Fills the record from its JSON; what is wrong, or NULL. */
static const char *fill(du_record *r) {
    r->messages = json_object_get(r->json, "messages");
    if (r->messages) {
        r->kind = DU_RECORD_CHAT;
        r->tools = json_object_get(r->json, "tools");
        r->tools = json_is_null(r->tools) ? NULL : r->tools;
        return r->tools && !json_is_array(r->tools) ? "\"tools\" is no list"
                                                    : bad_message(r->messages);
    }
    if (get_text(r->json, "text", &r->text)) {
        r->kind = DU_RECORD_TEXT;
        return NULL;
    }
    r->kind = DU_RECORD_ANSWER;
    bool both =
        get_text(r->json, "prompt", &r->prompt) && get_text(r->json, "response", &r->response);
    return both ? NULL : "no text \"text\", texts \"prompt\" and \"response\", or \"messages\"";
}

static du_err open_text(du_record *out, const du_docs *docs, const du_doc *doc, du_sv text,
                        du_diag *diag) {
    size_t valid = du_utf8_valid(text.s, text.len);
    if (valid < text.len) {
        int64_t line = doc->line;
        for (size_t i = 0; i < valid; i++) {
            line += text.s[i] == '\n';
        }
        return du_fail(diag, DU_EFORMAT, "%s:%lld: bytes that are not UTF-8",
                       name_of(docs, doc->i_file), (long long)line);
    }
    *out = (du_record){.kind = DU_RECORD_TEXT, .text = text};
    return DU_OK;
}

du_err du_record_open(du_record *out, const du_docs *docs, const du_doc_batch *batch, size_t i,
                      du_diag *diag) {
    const du_doc *doc = &batch->docs[i];
    du_sv text = {du_str_get(&batch->bytes) + doc->start, doc->len};
    if (!doc->json) {
        return open_text(out, docs, doc, text, diag);
    }
    du_record r = {0};
    char what[512];
    snprintf(what, sizeof what, "%s:%lld", name_of(docs, doc->i_file), (long long)doc->line);
    du_err err = du_json_parse(&r.json, text.s, text.len, what, diag);
    const char *why = NULL;
    if (err == DU_OK) {
        why = json_is_object(r.json) ? fill(&r) : "not a JSON object";
    }
    if (why) {
        json_decref(r.json);
        return du_fail(diag, DU_EFORMAT, "%s: %s", what, why);
    }
    if (err == DU_OK) {
        *out = r;
    }
    return err;
}

void du_record_close(du_record *record) {
    json_decref(record->json);
    *record = (du_record){0};
}
