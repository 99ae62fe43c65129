#include "data/shards.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/reader.h"
#include "data/shards_int.h"

enum {
    INDEX_BYTES_MAX = 64 << 20,
    FILES_MAX = 100000 /* of a part */
};

typedef struct {
    char *path;
    du_map map;
    int64_t first, n_seqs; /* sequences of the part before it; in it */
    uint64_t checksum;     /* of the part up to its end */
} shard;

struct du_shards {
    du_shards_layout layout;
    int64_t n_vocab, n_seqs;
    uint64_t checksum;
    shard *files; /* [n_files] */
    int64_t n_files;
};

/* What the header says, checked by itself. */
static du_err read_header(const du_map *map, const char *path, du_shards_header *out,
                          du_diag *diag) {
    du_reader r = du_reader_of(map->data, map->len);
    const uint8_t *bytes = du_read_bytes(&r, DU_SHARDS_HEADER_BYTES);
    if (!bytes || memcmp(bytes, DU_SHARDS_MAGIC, 8) != 0) {
        return du_fail_at(diag, DU_EFORMAT, 0, "%s: no shard of packed data", path);
    }
    r.pos = 8;
    out->version = du_read_u32(&r);
    out->token_bytes = du_read_u32(&r);
    out->seq_len = du_read_u64(&r);
    out->n_seqs = du_read_u64(&r);
    out->first = du_read_u64(&r);
    out->n_vocab = du_read_u64(&r);
    out->checksum = du_read_u64(&r);
    if (out->version != DU_SHARDS_VERSION) {
        return du_fail_at(diag, DU_EUNSUPPORTED, 8,
                          "%s: version %u, but this program reads version %d: pack the data anew",
                          path, out->version, DU_SHARDS_VERSION);
    }
    if (du_read_u64(&r) != du_checksum(0, bytes, 56)) {
        return du_fail_at(diag, DU_EFORMAT, 56, "%s: damaged: the header's checksum is wrong",
                          path);
    }
    return DU_OK;
}

/* Whether a file is the one that the index tells of. */
static du_err check_file(const du_shards *s, const shard *f, du_diag *diag) {
    du_shards_header h = {0};
    du_err err = read_header(&f->map, f->path, &h, diag);
    if (err != DU_OK) {
        return err;
    }
    const du_shards_layout *l = &s->layout;
    if (h.token_bytes != (uint64_t)l->token_bytes || h.seq_len != (uint64_t)l->seq_len ||
        h.n_vocab != (uint64_t)s->n_vocab || h.n_seqs != (uint64_t)f->n_seqs ||
        h.first != (uint64_t)f->first || h.checksum != f->checksum) {
        return du_fail(diag, DU_EFORMAT, "%s: belongs to other data than its folder's index",
                       f->path);
    }
    int64_t bytes;
    if (!du_mul_i64(f->n_seqs, l->bytes, &bytes) ||
        (int64_t)f->map.len - DU_SHARDS_HEADER_BYTES != bytes) {
        return du_fail_at(diag, DU_EFORMAT, (int64_t)f->map.len,
                          "%s: %zu bytes are not %lld sequences of %lld", f->path, f->map.len,
                          (long long)f->n_seqs, (long long)l->bytes);
    }
    return DU_OK;
}

/* "checksum" of a part or a file in the index. */
static du_err get_sum(const json_t *said, uint64_t *out, du_diag *diag) {
    const char *text = "";
    char *end = NULL;
    du_err err = du_json_get_str(said, "checksum", &text, diag);
    *out = strtoull(text, &end, 16);
    return err == DU_OK && (strlen(text) != 16 || *end)
               ? du_fail(diag, DU_EFORMAT, "\"checksum\" is none")
               : err;
}

static du_err open_file(du_shards *s, const char *dir, du_shards_part part, const json_t *said,
                        du_diag *diag) {
    char name[32];
    du_shards_name(name, part, s->n_files);
    shard *f = &s->files[s->n_files];
    f->path = du_path_join(dir, name);
    f->first = s->n_seqs;
    du_err err = f->path ? du_json_get_i64(said, "sequences", 1, INT64_MAX / 2, &f->n_seqs, diag)
                         : du_fail_nomem(diag, dir);
    err = err ? err : get_sum(said, &f->checksum, diag);
    if (err == DU_OK) {
        err = du_map_open(&f->map, f->path, diag);
    }
    s->n_files++;
    err = err ? err : check_file(s, f, diag);
    s->n_seqs += err ? 0 : f->n_seqs;
    return err;
}

static du_err open_part(du_shards *s, const char *dir, du_shards_part part, const json_t *said,
                        du_diag *diag) {
    const json_t *files = json_object_get(said, "files");
    int64_t n_seqs = 0;
    du_err err = du_json_get_i64(said, "sequences", 0, INT64_MAX / 2, &n_seqs, diag);
    err = err ? err : get_sum(said, &s->checksum, diag);
    if (err == DU_OK && json_array_size(files) > FILES_MAX) {
        err = du_fail(diag, DU_EFORMAT, "%zu files are too many", json_array_size(files));
    }
    s->files = err ? NULL : du_alloc_zero(json_array_size(files) + 1, sizeof s->files[0]);
    if (err == DU_OK && !s->files) {
        err = du_fail_nomem(diag, "shards");
    }
    for (size_t i = 0; err == DU_OK && i < json_array_size(files); i++) {
        err = open_file(s, dir, part, json_array_get(files, i), diag);
    }
    if (err == DU_OK && s->n_seqs != n_seqs) {
        err = du_fail(diag, DU_EFORMAT, "%lld sequences are said to be %lld", (long long)s->n_seqs,
                      (long long)n_seqs);
    }
    return err;
}

static du_err open_index(du_shards *s, const char *dir, du_shards_part part, const json_t *index,
                         du_diag *diag) {
    const char *format = "";
    int64_t version = 0, seq_len = 0, token_bytes = 0;
    du_err err = du_json_get_str(index, "format", &format, diag);
    if (err == DU_OK && strcmp(format, DU_SHARDS_FORMAT) != 0) {
        err = du_fail(diag, DU_EFORMAT, "\"format\" is not \"%s\"", DU_SHARDS_FORMAT);
    }
    err = err ? err : du_json_get_i64(index, "version", 0, INT32_MAX, &version, diag);
    if (err == DU_OK && version != DU_SHARDS_VERSION) {
        err = du_fail(diag, DU_EUNSUPPORTED,
                      "version %lld, but this program reads version %d: pack the data anew",
                      (long long)version, DU_SHARDS_VERSION);
    }
    err = err ? err : du_json_get_i64(index, "seq_len", 1, DU_SHARDS_SEQ_LEN_MAX, &seq_len, diag);
    err = err ? err : du_json_get_i64(index, "vocab", 1, INT32_MAX, &s->n_vocab, diag);
    err = err ? err : du_json_get_i64(index, "token_bytes", 2, 4, &token_bytes, diag);
    if (err == DU_OK &&
        (seq_len == 0 || s->n_vocab == 0 || (token_bytes != 2 && token_bytes != 4))) {
        err = du_fail(diag, DU_EFORMAT, "\"seq_len\", \"vocab\" or \"token_bytes\" is missing");
    }
    if (err != DU_OK) {
        return err;
    }
    s->layout = du_shards_layout_of(seq_len, token_bytes);
    const json_t *parts = json_object_get(index, "parts");
    return open_part(s, dir, part, json_object_get(parts, du_shards_part_names[part]), diag);
}

du_err du_shards_open(du_shards **out, const char *dir, du_shards_part part, du_diag *diag) {
    du_shards *s = du_alloc_zero(1, sizeof *s);
    char *path = du_path_join(dir, DU_SHARDS_INDEX);
    json_t *index = NULL;
    du_err err = s && path ? du_json_load(&index, path, INDEX_BYTES_MAX, diag)
                           : du_fail_nomem(diag, "shards");
    if (err == DU_OK) {
        err = open_index(s, dir, part, index, diag);
        du_diag_context(diag, "%s", path);
    }
    json_decref(index);
    du_free(path);
    if (err != DU_OK) {
        du_shards_close(s);
        return err;
    }
    *out = s;
    return DU_OK;
}

void du_shards_close(du_shards *shards) {
    if (!shards) {
        return;
    }
    for (int64_t i = 0; i < shards->n_files; i++) {
        du_map_close(&shards->files[i].map);
        du_free(shards->files[i].path);
    }
    du_free(shards->files);
    du_free(shards);
}

int64_t du_shards_n_seqs(const du_shards *shards) {
    return shards->n_seqs;
}

int64_t du_shards_seq_len(const du_shards *shards) {
    return shards->layout.seq_len;
}

int64_t du_shards_n_vocab(const du_shards *shards) {
    return shards->n_vocab;
}

uint64_t du_shards_checksum(const du_shards *shards) {
    return shards->checksum;
}

/* The file that holds sequence i: the last one that does not begin behind it. */
static const shard *find_file(const du_shards *s, int64_t i) {
    int64_t low = 0, high = s->n_files;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (s->files[middle].first <= i) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &s->files[low];
}

static bool bit_of(const uint8_t *bits, int64_t t) {
    return bits[t / 8] >> (t % 8) & 1;
}

static uint32_t token_of(const du_shards_layout *l, const uint8_t *bytes, int64_t t) {
    uint32_t token = 0;
    memcpy(&token, bytes + t * l->token_bytes, (size_t)l->token_bytes);
    return token;
}

/* The rows out of a sequence's bytes; false: a token is outside the vocabulary, though the checksum
 * is right. */
static bool take_rows(const du_shards *s, const uint8_t *bytes, int64_t from, int64_t n,
                      du_shards_rows *out) {
    const du_shards_layout *l = &s->layout;
    int32_t first = 0;
    uint32_t token = token_of(l, bytes, from);
    bool ok = token < s->n_vocab;
    out->n_targets = 0;
    for (int64_t t = 0; t < n; t++) {
        uint32_t next = token_of(l, bytes, from + t + 1);
        bool counts = bit_of(bytes + l->counts_at, from + t + 1);
        first = bit_of(bytes + l->bits_at, from + t) ? (int32_t)t : first;
        out->tokens[t] = (int32_t)token;
        out->targets[t] = counts ? (int32_t)next : -1;
        out->first[t] = first;
        out->n_targets += counts;
        ok = ok && next < s->n_vocab;
        token = next;
    }
    return ok;
}

du_err du_shards_read(const du_shards *shards, int64_t i, int64_t from, int64_t n,
                      du_shards_rows *out, du_diag *diag) {
    const du_shards_layout *l = &shards->layout;
    DU_CHECK(i >= 0 && i < shards->n_seqs && from >= 0 && n > 0 && from <= l->seq_len - n);
    const shard *f = find_file(shards, i);
    if (!du_map_is_current(&f->map, f->path)) {
        return du_fail(diag, DU_EIO, "%s: changed since it was opened", f->path);
    }
    int64_t at = DU_SHARDS_HEADER_BYTES + (i - f->first) * l->bytes;
    const uint8_t *bytes = f->map.data + at;
    uint64_t sum;
    memcpy(&sum, bytes + l->sum_at, sizeof sum);
    if (sum != du_checksum((uint64_t)i, bytes, (size_t)l->sum_at) ||
        !take_rows(shards, bytes, from, n, out)) {
        return du_fail_at(diag, DU_EFORMAT, at,
                          "%s: byte %lld: damaged: not the sequence that was written", f->path,
                          (long long)at);
    }
    du_map_forget(&f->map, (size_t)at, (size_t)l->bytes);
    return DU_OK;
}
