#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "data/shards_int.h"

const char *const du_shards_part_names[] = {"train", "validation"};

typedef struct {
    du_writer *file; /* NULL: none is open */
    int64_t n_files; /* finished ones */
    int64_t n_seqs;  /* of the part; of them before the open file */
    int64_t first;
    uint64_t checksum; /* of the checksums of all sequences so far */
    json_t *files;     /* what the index says of the finished ones */
} part;

struct du_shards_writer {
    du_shards_params params;
    du_shards_layout layout;
    char *dir;
    uint8_t *bytes; /* [layout.bytes] a sequence */
    part parts[DU_SHARDS_PARTS];
    bool committed;
};

du_shards_layout du_shards_layout_of(int64_t seq_len, int64_t token_bytes) {
    int64_t n = seq_len + 1, n_bits = (n + 7) / 8;
    du_shards_layout l = {.seq_len = seq_len, .token_bytes = token_bytes};
    l.bits_at = n * token_bytes;
    l.counts_at = l.bits_at + n_bits;
    l.sum_at = (l.counts_at + n_bits + 7) / 8 * 8;
    l.bytes = l.sum_at + 8;
    return l;
}

void du_shards_header_write(uint8_t out[DU_SHARDS_HEADER_BYTES], const du_shards_header *header) {
    memset(out, 0, DU_SHARDS_HEADER_BYTES);
    memcpy(out, DU_SHARDS_MAGIC, 8);
    memcpy(out + 8, &header->version, 4);
    memcpy(out + 12, &header->token_bytes, 4);
    memcpy(out + 16, &header->seq_len, 8);
    memcpy(out + 24, &header->n_seqs, 8);
    memcpy(out + 32, &header->first, 8);
    memcpy(out + 40, &header->n_vocab, 8);
    memcpy(out + 48, &header->checksum, 8);
    uint64_t sum = du_checksum(0, out, 56);
    memcpy(out + 56, &sum, 8);
}

void du_shards_name(char *name, du_shards_part i_part, int64_t i) {
    snprintf(name, 32, "%s-%05lld.bin", du_shards_part_names[i_part], (long long)i);
}

enum { SUM_BYTES = 17 };

static const char *sum_text(char out[SUM_BYTES], uint64_t sum) {
    snprintf(out, SUM_BYTES, "%016llx", (unsigned long long)sum);
    return out;
}

static du_err start(du_shards_writer *w, const char *dir, du_diag *diag) {
    w->dir = du_strdup(dir);
    w->bytes = du_alloc_zero(1, (size_t)w->layout.bytes);
    char *index = du_path_join(dir, DU_SHARDS_INDEX);
    bool ok = w->dir && w->bytes && index;
    for (du_shards_part i = 0; i < DU_SHARDS_PARTS; i++) {
        w->parts[i].files = json_array();
        ok = ok && w->parts[i].files;
    }
    du_err err = ok ? DU_OK : du_fail_nomem(diag, "shards");
    if (err == DU_OK && du_file_exists(index)) {
        err = du_fail(diag, DU_EEXIST,
                      "%s holds packed data already: name another folder or remove it", dir);
    }
    du_free(index);
    return err ? err : du_dir_make(dir, diag);
}

du_err du_shards_writer_open(du_shards_writer **out, const char *dir,
                             const du_shards_params *params, du_diag *diag) {
    DU_CHECK(params->seq_len > 0 && params->seq_len <= DU_SHARDS_SEQ_LEN_MAX);
    du_shards_writer *w = du_alloc_zero(1, sizeof *w);
    if (!w) {
        return du_fail_nomem(diag, "shards");
    }
    w->params = *params;
    w->layout = du_shards_layout_of(params->seq_len, params->n_vocab <= 1 << 16 ? 2 : 4);
    du_err err = start(w, dir, diag);
    if (err != DU_OK) {
        du_shards_writer_close(w);
        return err;
    }
    *out = w;
    return DU_OK;
}

/* The path of a part's i-th file, du_free. */
static char *path_of(const du_shards_writer *w, du_shards_part i_part, int64_t i) {
    char name[32];
    du_shards_name(name, i_part, i);
    return du_path_join(w->dir, name);
}

static du_err open_file(du_shards_writer *w, du_shards_part i_part, du_diag *diag) {
    part *p = &w->parts[i_part];
    char *path = path_of(w, i_part, p->n_files);
    du_err err = path ? du_writer_open(&p->file, path, diag) : du_fail_nomem(diag, "shards");
    if (err == DU_OK) {
        du_write_zeros(p->file, DU_SHARDS_HEADER_BYTES);
        p->first = p->n_seqs;
    }
    du_free(path);
    return err;
}

/* Gives the open file its header and its name. */
static du_err finish_file(du_shards_writer *w, du_shards_part i_part, du_diag *diag) {
    part *p = &w->parts[i_part];
    du_shards_header header = {.version = DU_SHARDS_VERSION,
                               .token_bytes = (uint32_t)w->layout.token_bytes,
                               .seq_len = (uint64_t)w->layout.seq_len,
                               .n_seqs = (uint64_t)(p->n_seqs - p->first),
                               .first = (uint64_t)p->first,
                               .n_vocab = (uint64_t)w->params.n_vocab,
                               .checksum = p->checksum};
    uint8_t bytes[DU_SHARDS_HEADER_BYTES];
    char name[32], sum[SUM_BYTES];
    du_shards_header_write(bytes, &header);
    du_shards_name(name, i_part, p->n_files);
    du_write_at(p->file, 0, bytes, sizeof bytes);
    du_err err = du_writer_commit(p->file, diag);
    du_writer_close(p->file);
    p->file = NULL;
    if (err != DU_OK) {
        return err;
    }
    p->n_files++;
    json_t *said = json_pack("{s:s, s:I, s:s}", "file", name, "sequences",
                             (json_int_t)header.n_seqs, "checksum", sum_text(sum, p->checksum));
    return json_array_append_new(p->files, said) == 0 ? DU_OK : du_fail_nomem(diag, "shards");
}

/* The bytes of a sequence, which is number i of its part. */
static void fill_bytes(du_shards_writer *w, int64_t i, const int32_t *tokens,
                       const uint8_t *marks) {
    const du_shards_layout *l = &w->layout;
    memset(w->bytes + l->bits_at, 0, (size_t)(l->bytes - l->bits_at));
    for (int64_t t = 0; t <= l->seq_len; t++) {
        memcpy(w->bytes + t * l->token_bytes, &tokens[t], (size_t)l->token_bytes);
        uint8_t bit = (uint8_t)(1u << (t % 8));
        w->bytes[l->bits_at + t / 8] |= marks[t] & DU_MARK_BEGINS ? bit : 0;
        w->bytes[l->counts_at + t / 8] |= marks[t] & DU_MARK_COUNTS ? bit : 0;
    }
    uint64_t sum = du_checksum((uint64_t)i, w->bytes, (size_t)l->sum_at);
    memcpy(w->bytes + l->sum_at, &sum, sizeof sum);
}

du_err du_shards_write(du_shards_writer *w, du_shards_part i_part, const int32_t *tokens,
                       const uint8_t *marks, du_diag *diag) {
    part *p = &w->parts[i_part];
    du_err err = p->file ? DU_OK : open_file(w, i_part, diag);
    if (err != DU_OK) {
        return err;
    }
    fill_bytes(w, p->n_seqs, tokens, marks);
    p->checksum = du_checksum(p->checksum, w->bytes + w->layout.sum_at, 8);
    du_write(p->file, w->bytes, (size_t)w->layout.bytes);
    p->n_seqs++;
    bool full = du_writer_pos(p->file) >= w->params.shard_bytes;
    return full || du_writer_failed(p->file) ? finish_file(w, i_part, diag) : DU_OK;
}

static json_t *part_to_json(const part *p) {
    char sum[SUM_BYTES];
    return json_pack("{s:I, s:s, s:O}", "sequences", (json_int_t)p->n_seqs, "checksum",
                     sum_text(sum, p->checksum), "files", p->files);
}

static du_err write_index(const du_shards_writer *w, const json_t *about, du_diag *diag) {
    json_t *parts = json_pack("{s:o, s:o}", du_shards_part_names[0], part_to_json(&w->parts[0]),
                              du_shards_part_names[1], part_to_json(&w->parts[1]));
    json_t *index =
        json_pack("{s:s, s:i, s:I, s:I, s:I, s:o, s:O}", "format", DU_SHARDS_FORMAT, "version",
                  DU_SHARDS_VERSION, "seq_len", (json_int_t)w->layout.seq_len, "vocab",
                  (json_int_t)w->params.n_vocab, "token_bytes", (json_int_t)w->layout.token_bytes,
                  "parts", parts, "about", about);
    char *path = du_path_join(w->dir, DU_SHARDS_INDEX);
    du_err err = index && path ? du_json_save(index, path, diag) : du_fail_nomem(diag, "shards");
    du_free(path);
    json_decref(index);
    return err;
}

du_err du_shards_writer_commit(du_shards_writer *w, const json_t *about, du_diag *diag) {
    du_err err = DU_OK;
    for (du_shards_part i = 0; i < DU_SHARDS_PARTS && err == DU_OK; i++) {
        err = w->parts[i].file ? finish_file(w, i, diag) : DU_OK;
    }
    err = err ? err : write_index(w, about, diag);
    w->committed = err == DU_OK;
    return err;
}

/* Removes the files that have got their names, and the folder when it is empty then. */
static void remove_files(const du_shards_writer *w) {
    for (du_shards_part i = 0; i < DU_SHARDS_PARTS; i++) {
        for (int64_t k = 0; k < w->parts[i].n_files; k++) {
            char *path = path_of(w, i, k);
            if (path) {
                unlink(path);
            }
            du_free(path);
        }
    }
    rmdir(w->dir);
}

void du_shards_writer_close(du_shards_writer *w) {
    if (!w) {
        return;
    }
    for (du_shards_part i = 0; i < DU_SHARDS_PARTS; i++) {
        du_writer_close(w->parts[i].file);
        json_decref(w->parts[i].files);
    }
    if (!w->committed && w->dir) {
        remove_files(w);
    }
    du_free(w->bytes);
    du_free(w->dir);
    du_free(w);
}
