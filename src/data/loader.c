#include "data/loader.h"

#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "data/shards.h"

enum {
    SAMPLES = 64,       /* of a checksum */
    SAMPLE_BYTES = 4096 /* each */
};

struct du_loader {
    du_loader_params params;
    int64_t n_seqs; /* whole ones of a pass */
    char *path;     /* of a file of tokens */
    du_map map;
    int64_t n_tokens;
    du_shards *shards;   /* NULL: a file of tokens */
    int64_t n_in_packed; /* sequences in one of a shard */
};

static du_err open_tokens(du_loader *l, du_diag *diag) {
    const du_loader_params *p = &l->params;
    l->path = du_strdup(p->tokens);
    if (!l->path) {
        return du_fail_nomem(diag, p->tokens);
    }
    du_err err = du_map_open(&l->map, l->path, diag);
    if (err != DU_OK) {
        return err;
    }
    int64_t n_bytes = (int64_t)l->map.len;
    if (n_bytes % p->token_bytes != 0) {
        return du_fail(diag, DU_EFORMAT, "%s: %lld bytes are no whole tokens of %lld bytes",
                       l->path, (long long)n_bytes, (long long)p->token_bytes);
    }
    l->n_tokens = n_bytes / p->token_bytes;
    l->n_seqs = (l->n_tokens - 1) / p->seq_len;
    if (l->n_seqs < 1) {
        return du_fail(diag, DU_ELIMIT,
                       "%s: %lld tokens are less than a sequence of %lld and the token behind it",
                       l->path, (long long)l->n_tokens, (long long)p->seq_len);
    }
    return DU_OK;
}

static du_err open_shards(du_loader *l, du_diag *diag) {
    const du_loader_params *p = &l->params;
    du_shards_part part = p->validation ? DU_SHARDS_VALIDATION : DU_SHARDS_TRAIN;
    du_err err = du_shards_open(&l->shards, p->shards, part, diag);
    if (err != DU_OK) {
        return err;
    }
    int64_t packed = du_shards_seq_len(l->shards), n_vocab = du_shards_n_vocab(l->shards);
    if (packed % p->seq_len != 0) {
        return du_fail(diag, DU_EINVAL,
                       "%s: packed as sequences of %lld tokens, which is no multiple of %lld: set "
                       "seq_len to fit or pack the data anew",
                       p->shards, (long long)packed, (long long)p->seq_len);
    }
    if (n_vocab > p->n_vocab) {
        return du_fail(diag, DU_EINVAL,
                       "%s: packed with a vocabulary of %lld tokens, but the model has %lld",
                       p->shards, (long long)n_vocab, (long long)p->n_vocab);
    }
    l->n_in_packed = packed / p->seq_len;
    if (du_shards_n_seqs(l->shards) == 0) {
        return du_fail(diag, DU_EINVAL, "%s: no sequences%s", p->shards,
                       p->validation ? " for validation: pack it with --validation" : "");
    }
    return du_mul_i64(du_shards_n_seqs(l->shards), l->n_in_packed, &l->n_seqs)
               ? DU_OK
               : du_fail(diag, DU_ELIMIT, "%s: too many sequences", p->shards);
}

du_err du_loader_open(du_loader **out, const du_loader_params *params, du_diag *diag) {
    DU_CHECK(!params->tokens || !params->shards);
    DU_CHECK(!params->tokens || params->token_bytes == 2 || params->token_bytes == 4);
    DU_CHECK(params->seq_len > 0 && params->batch_seqs > 0 && params->n_vocab > 0);
    du_loader *l = du_alloc_zero(1, sizeof *l);
    if (!l) {
        return du_fail_nomem(diag, "training data");
    }
    l->params = *params;
    du_err err = params->tokens   ? open_tokens(l, diag)
                 : params->shards ? open_shards(l, diag)
                                  : DU_OK;
    if (err != DU_OK) {
        du_loader_close(l);
        return err;
    }
    *out = l;
    return DU_OK;
}

void du_loader_close(du_loader *loader) {
    if (loader) {
        du_shards_close(loader->shards);
        du_map_close(&loader->map);
        du_free(loader->path);
        du_free(loader);
    }
}

int64_t du_loader_n_tokens(const du_loader *loader) {
    bool whole = loader->params.shuffled || loader->shards;
    return whole ? loader->n_seqs * loader->params.seq_len : loader->n_tokens;
}

uint64_t du_loader_checksum(const du_loader *loader) {
    if (loader->shards) {
        return du_shards_checksum(loader->shards);
    }
    const du_map *map = &loader->map;
    uint64_t sum = du_checksum(0, &map->len, sizeof map->len);
    size_t n = map->len < SAMPLE_BYTES ? map->len : SAMPLE_BYTES;
    for (size_t i = 0; i < SAMPLES; i++) {
        sum = du_checksum(sum, map->data + (map->len - n) * i / (SAMPLES - 1), n);
    }
    return sum;
}

du_err du_loader_batch_init(du_loader_batch *out, const du_loader *loader, du_diag *diag) {
    int64_t n_seq = loader->params.batch_seqs, seq_len = loader->params.seq_len, n;
    if (!du_mul_i64(n_seq, seq_len, &n)) {
        return du_fail(diag, DU_ELIMIT, "%lld sequences of %lld tokens are too many for a batch",
                       (long long)n_seq, (long long)seq_len);
    }
    du_loader_batch batch = {.n_seq = n_seq, .seq_len = seq_len};
    batch.tokens = du_alloc_array((size_t)n, sizeof batch.tokens[0]);
    batch.targets = du_alloc_array((size_t)n, sizeof batch.targets[0]);
    bool ok = batch.tokens && batch.targets;
    if (ok && loader->shards) {
        batch.first = du_alloc_array((size_t)n, sizeof batch.first[0]);
        ok = batch.first != NULL;
    }
    if (!ok) {
        du_loader_batch_done(&batch);
        return du_fail_nomem(diag, "a batch of sequences");
    }
    *out = batch;
    return DU_OK;
}

void du_loader_batch_done(du_loader_batch *batch) {
    du_free(batch->tokens);
    du_free(batch->targets);
    du_free(batch->first);
    *batch = (du_loader_batch){0};
}

static uint32_t token_at(const du_loader *l, int64_t i) {
    uint32_t token = 0;
    memcpy(&token, l->map.data + i * l->params.token_bytes, (size_t)l->params.token_bytes);
    return token;
}

/* Tokens [from, from + n) of the file. */
static du_err copy_tokens(const du_loader *l, int64_t from, int64_t n, int32_t *out,
                          du_diag *diag) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t token = token_at(l, from + i);
        if (token >= l->params.n_vocab) {
            int64_t at = (from + i) * l->params.token_bytes;
            return du_fail_at(diag, DU_EFORMAT, at,
                              "%s: byte %lld: token %u is outside the vocabulary of %lld", l->path,
                              (long long)at, token, (long long)l->params.n_vocab);
        }
        out[i] = (int32_t)token;
    }
    return DU_OK;
}

/* Which of the sequences of its pass sequence q is. */
static int64_t place_of(const du_loader *l, int64_t q) {
    uint64_t n = (uint64_t)l->n_seqs, pass = (uint64_t)q / n, i = (uint64_t)q % n;
    uint64_t key = du_rng_hash(l->params.seed, pass);
    return (int64_t)(l->params.shuffled ? du_rng_permute(key, n, i) : i);
}

/* Rows [row, row + seq_len) of the batch from the file of tokens. */
static du_err read_tokens(const du_loader *l, int64_t q, du_loader_batch *out, int64_t row,
                          du_diag *diag) {
    int64_t n = out->seq_len, i = l->params.shuffled ? place_of(l, q) : q, first;
    if (!du_mul_i64(i, n, &first)) {
        return du_fail(diag, DU_ELIMIT, "sequence %lld is beyond all numbers of tokens",
                       (long long)q);
    }
    first %= l->n_tokens;
    int64_t next = (first + 1) % l->n_tokens;
    int64_t n_here = n < l->n_tokens - next ? n : l->n_tokens - next;
    du_err err = copy_tokens(l, first, 1, out->tokens + row, diag);
    err = err ? err : copy_tokens(l, next, n_here, out->targets + row, diag);
    err = err ? err : copy_tokens(l, 0, n - n_here, out->targets + row + n_here, diag);
    if (err == DU_OK) {
        memcpy(out->tokens + row + 1, out->targets + row, (size_t)(n - 1) * sizeof(int32_t));
        int64_t bytes = l->params.token_bytes;
        du_map_forget(&l->map, (size_t)(first * bytes), (size_t)(n_here * bytes));
        out->n_targets += n;
    }
    return err;
}

/* The same from the shards. */
static du_err read_packed(const du_loader *l, int64_t q, du_loader_batch *out, int64_t row,
                          du_diag *diag) {
    int64_t n = out->seq_len, i = place_of(l, q);
    du_shards_rows rows = {out->tokens + row, out->targets + row, out->first + row, 0};
    du_err err =
        du_shards_read(l->shards, i / l->n_in_packed, i % l->n_in_packed * n, n, &rows, diag);
    out->n_targets += rows.n_targets;
    return err;
}

static void draw(const du_loader *l, int64_t q, du_loader_batch *out, int64_t row) {
    du_rng rng;
    du_rng_init(&rng, du_rng_hash(l->params.seed, (uint64_t)q));
    for (int64_t i = row; i < row + out->seq_len; i++) {
        uint64_t n_vocab = (uint64_t)l->params.n_vocab;
        out->tokens[i] = i > row ? out->targets[i - 1] : (int32_t)du_rng_below(&rng, n_vocab);
        out->targets[i] = (int32_t)du_rng_below(&rng, n_vocab);
    }
    out->n_targets += out->seq_len;
}

du_err du_loader_read(const du_loader *loader, int64_t s, du_loader_batch *out, du_diag *diag) {
    DU_CHECK(!loader->shards == !out->first && out->seq_len == loader->params.seq_len);
    if (s < 0 || s > INT64_MAX / out->n_seq - 1) {
        return du_fail(diag, DU_ELIMIT, "there is no micro-batch %lld", (long long)s);
    }
    if (loader->path && !du_map_is_current(&loader->map, loader->path)) {
        return du_fail(diag, DU_EIO, "%s: changed since it was opened", loader->path);
    }
    du_err err = DU_OK;
    out->n_targets = 0;
    for (int64_t b = 0; b < out->n_seq && err == DU_OK; b++) {
        int64_t q = s * out->n_seq + b, row = b * out->seq_len;
        if (loader->shards) {
            err = read_packed(loader, q, out, row, diag);
        } else if (loader->path) {
            err = read_tokens(loader, q, out, row, diag);
        } else {
            draw(loader, q, out, row);
        }
    }
    return err;
}
