#include "data/loader.h"

#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

enum {
    SAMPLES = 64,         /* of a checksum */
    SAMPLE_BYTES = 4096,  /* each */
    BLOCK_BYTES = 1 << 16 /* of a file, leave memory together */
};

struct du_loader {
    du_loader_params params;
    char *path;
    du_map map;
    int64_t n_tokens; /* of the file */
    int64_t n_seqs;   /* of a pass in shuffled order */
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

du_err du_loader_open(du_loader **out, const du_loader_params *params, du_diag *diag) {
    DU_CHECK(params->token_bytes == 2 || params->token_bytes == 4);
    DU_CHECK(params->seq_len > 0 && params->batch_seqs > 0 && params->n_vocab > 0);
    du_loader *l = du_alloc_zero(1, sizeof *l);
    if (!l) {
        return du_fail_nomem(diag, params->tokens);
    }
    l->params = *params;
    du_err err = open_tokens(l, diag);
    if (err != DU_OK) {
        du_loader_close(l);
        return err;
    }
    *out = l;
    return DU_OK;
}

void du_loader_close(du_loader *loader) {
    if (loader) {
        du_map_close(&loader->map);
        du_free(loader->path);
        du_free(loader);
    }
}

int64_t du_loader_n_tokens(const du_loader *loader) {
    return loader->params.shuffled ? loader->n_seqs * loader->params.seq_len : loader->n_tokens;
}

uint64_t du_loader_checksum(const du_loader *loader) {
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
    if (!batch.tokens || !batch.targets) {
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

/* Lets the pages of tokens [from, from + n) go: what a long run has read is not to look like memory
 * that it needs. */
static void forget(const du_loader *l, int64_t from, int64_t n) {
    size_t start = (size_t)(from * l->params.token_bytes) / BLOCK_BYTES * BLOCK_BYTES;
    size_t end = (size_t)((from + n) * l->params.token_bytes);
    end = (end + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    end = end < l->map.len ? end : l->map.len;
    du_map_unload(&l->map, l->map.data + start, end - start);
}

/* The first token of sequence q. */
static du_err find_sequence(const du_loader *l, int64_t q, int64_t *first, du_diag *diag) {
    const du_loader_params *p = &l->params;
    if (p->shuffled) {
        uint64_t n = (uint64_t)l->n_seqs, pass = (uint64_t)q / n;
        uint64_t i = du_rng_permute(du_rng_hash(p->seed, pass), n, (uint64_t)q % n);
        *first = (int64_t)i * p->seq_len;
        return DU_OK;
    }
    if (!du_mul_i64(q, p->seq_len, first)) {
        return du_fail(diag, DU_ELIMIT, "sequence %lld is beyond all numbers of tokens",
                       (long long)q);
    }
    *first %= l->n_tokens;
    return DU_OK;
}

static du_err read_sequence(const du_loader *l, int64_t q, int32_t *tokens, int32_t *targets,
                            du_diag *diag) {
    int64_t n = l->params.seq_len, first = 0;
    du_err err = find_sequence(l, q, &first, diag);
    if (err == DU_OK) {
        err = copy_tokens(l, first, 1, tokens, diag);
    }
    int64_t next = (first + 1) % l->n_tokens;
    int64_t n_here = n < l->n_tokens - next ? n : l->n_tokens - next;
    err = err ? err : copy_tokens(l, next, n_here, targets, diag);
    err = err ? err : copy_tokens(l, 0, n - n_here, targets + n_here, diag);
    if (err == DU_OK) {
        memcpy(tokens + 1, targets, (size_t)(n - 1) * sizeof tokens[0]);
        forget(l, first, n_here);
    }
    return err;
}

du_err du_loader_read(const du_loader *loader, int64_t s, du_loader_batch *out, du_diag *diag) {
    if (s < 0 || s > INT64_MAX / out->n_seq - 1) {
        return du_fail(diag, DU_ELIMIT, "there is no micro-batch %lld", (long long)s);
    }
    if (!du_map_is_current(&loader->map, loader->path)) {
        return du_fail(diag, DU_EIO, "%s: changed since it was opened", loader->path);
    }
    du_err err = DU_OK;
    for (int64_t b = 0; b < out->n_seq && err == DU_OK; b++) {
        int64_t row = b * out->seq_len;
        err =
            read_sequence(loader, s * out->n_seq + b, out->tokens + row, out->targets + row, diag);
    }
    out->n_targets = out->n_seq * out->seq_len;
    return err;
}
