/* Training data as the loader reads it: a folder of shards, or a file of tokens.
 *
 *     byte 0    1: checksums in the shards are put right, so that what lies behind them is reached;
 *               2: the part for validation; 4: shuffled; 8: the rest is a file of tokens, 16: of
 *               four bytes each
 *     byte 1    sequences in a batch; what a packed sequence is divided by
 *     bytes 2-5 lengths of index.json and of the first shard; what follows them is a second one */
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "data/loader.h"
#include "data/shards.h"
#include "folder.h"

enum { MENDED = 1, VALIDATION = 2, SHUFFLED = 4, TOKENS = 8, WIDE = 16, HEADER = 64, VOCAB = 300 };

static uint64_t number_at(const uint8_t *bytes, size_t n) {
    uint64_t v = 0;
    memcpy(&v, bytes, n);
    return v;
}

/* Checksums of the header and of each sequence that lies in the bytes (docs/design/data.md). */
static void mend(uint8_t *bytes, size_t len) {
    uint64_t seq_len = number_at(bytes + 16, 8), token_bytes = number_at(bytes + 12, 4);
    uint64_t first = number_at(bytes + 32, 8), sum = du_checksum(0, bytes, 56);
    memcpy(bytes + 56, &sum, 8);
    if (seq_len > DU_SHARDS_SEQ_LEN_MAX || token_bytes > 4) {
        return;
    }
    size_t n = seq_len + 1, sum_at = (n * token_bytes + 2 * ((n + 7) / 8) + 7) / 8 * 8;
    for (size_t at = HEADER; at + sum_at + 8 <= len; at += sum_at + 8) {
        sum = du_checksum(first++, bytes + at, sum_at);
        memcpy(bytes + at + sum_at, &sum, 8);
    }
}

static void put_shard(const char *name, const uint8_t *data, size_t len, bool mended) {
    uint8_t *bytes = malloc(len + 1);
    FUZZ_CHECK(bytes != NULL);
    memcpy(bytes, data, len);
    if (mended && len >= HEADER) {
        mend(bytes, len);
    }
    fuzz_put(name, bytes, len);
    free(bytes);
}

/* Writes what the input holds; the kind of data. */
static void put_files(const uint8_t *data, size_t size, uint8_t flags) {
    const char *names[2] = {"train-00000.bin", "train-00001.bin"};
    if (flags & VALIDATION) {
        names[0] = "validation-00000.bin";
        names[1] = "validation-00001.bin";
    }
    size_t n_index = number_at(data, 2), n_first = number_at(data + 2, 2);
    data += 4;
    size -= 4;
    n_index = n_index < size ? n_index : size;
    fuzz_put("index.json", data, n_index);
    data += n_index;
    size -= n_index;
    n_first = n_first < size ? n_first : size;
    put_shard(names[0], data, n_first, flags & MENDED);
    put_shard(names[1], data + n_first, size - n_first, flags & MENDED);
}

static void check_batch(const du_loader_batch *b) {
    int64_t n_targets = 0;
    for (int64_t i = 0; i < b->n_seq * b->seq_len; i++) {
        FUZZ_CHECK(b->tokens[i] >= 0 && b->tokens[i] < VOCAB);
        FUZZ_CHECK(b->targets[i] >= -1 && b->targets[i] < VOCAB);
        FUZZ_CHECK(!b->first || (b->first[i] >= 0 && b->first[i] <= i % b->seq_len));
        n_targets += b->targets[i] >= 0;
    }
    FUZZ_CHECK(b->n_targets == n_targets);
}

static void read_batches(const du_loader *loader) {
    static const int64_t numbers[] = {0, 1, 2, 5, 1000003, INT64_MAX / 2, INT64_MAX};
    du_loader_batch batch;
    FUZZ_CHECK(du_loader_batch_init(&batch, loader, NULL) == DU_OK);
    FUZZ_CHECK(du_loader_n_tokens(loader) > 0);
    (void)du_loader_checksum(loader);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        du_diag diag;
        du_diag_reset(&diag);
        if (du_loader_read(loader, numbers[i], &batch, &diag) == DU_OK) {
            check_batch(&batch);
        } else {
            FUZZ_CHECK(diag.code != DU_OK && diag.msg[0] != '\0');
        }
    }
    du_loader_batch_done(&batch);
}

/* What one packed sequence is, in tokens; 0: the folder cannot be opened. */
static int64_t packed_length(du_shards_part part) {
    du_diag diag;
    du_diag_reset(&diag);
    du_shards *shards = NULL;
    int64_t n = 0;
    if (du_shards_open(&shards, fuzz_dir, part, &diag) == DU_OK) {
        n = du_shards_seq_len(shards);
        FUZZ_CHECK(n > 0 && n <= DU_SHARDS_SEQ_LEN_MAX && du_shards_n_vocab(shards) > 0);
        FUZZ_CHECK(du_shards_n_seqs(shards) >= 0);
    } else {
        FUZZ_CHECK(!shards && diag.code != DU_OK && diag.msg[0] != '\0');
    }
    du_shards_close(shards);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    FUZZ_ONCE(fuzz_make_dir());
    if (size < 6) {
        return 0;
    }
    uint8_t flags = data[0], sizes = data[1];
    int64_t n_parts = 1 + sizes / 16;
    du_loader_params params = {.validation = flags & VALIDATION,
                               .token_bytes = flags & WIDE ? 4 : 2,
                               .n_vocab = VOCAB,
                               .seq_len = n_parts,
                               .batch_seqs = 1 + sizes % 16,
                               .shuffled = flags & SHUFFLED,
                               .seed = 3};
    if (flags & TOKENS) {
        fuzz_put("tokens.bin", data + 2, size - 2);
        params.tokens = fuzz_path("tokens.bin");
    } else {
        put_files(data + 2, size - 2, flags);
        int64_t n = packed_length(flags & VALIDATION ? DU_SHARDS_VALIDATION : DU_SHARDS_TRAIN);
        params.seq_len = n >= n_parts ? n / n_parts : n_parts;
        params.shards = fuzz_dir;
    }
    du_diag diag;
    du_diag_reset(&diag);
    du_loader *loader = NULL;
    if (du_loader_open(&loader, &params, &diag) == DU_OK) {
        read_batches(loader);
    } else {
        FUZZ_CHECK(!loader && diag.code != DU_OK && diag.msg[0] != '\0');
    }
    du_loader_close(loader);
    return 0;
}
