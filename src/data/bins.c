#include "data/bins.h"

#include <string.h>

#include "base/mem.h"
#include "data/shards.h"

/* A sequence that is being filled. Its last slot, number seq_len, holds a target and no row. */
typedef struct {
    int32_t *tokens; /* [seq_len + 1], NULL: not made yet */
    uint8_t *marks;
    int64_t used; /* slots; 0: empty */
} bin;

struct du_bins {
    int64_t seq_len;
    int32_t fill;
    du_sequence_fn *fn;
    void *arg;
    bin stream; /* of documents that may be cut */
    bin bins[DU_BINS_MAX];
    du_bins_stats stats;
};

du_err du_bins_new(du_bins **out, int64_t seq_len, int32_t fill, du_sequence_fn *fn, void *arg,
                   du_diag *diag) {
    du_bins *bins = du_alloc_zero(1, sizeof *bins);
    if (!bins) {
        return du_fail_nomem(diag, "sequences");
    }
    *bins = (du_bins){.seq_len = seq_len, .fill = fill, .fn = fn, .arg = arg};
    *out = bins;
    return DU_OK;
}

static void bin_done(bin *b) {
    du_free(b->tokens);
    du_free(b->marks);
}

void du_bins_free(du_bins *bins) {
    if (bins) {
        bin_done(&bins->stream);
        for (int i = 0; i < DU_BINS_MAX; i++) {
            bin_done(&bins->bins[i]);
        }
        du_free(bins);
    }
}

static du_err make(const du_bins *bins, bin *b, du_diag *diag) {
    size_t n = (size_t)bins->seq_len + 1;
    b->tokens = b->tokens ? b->tokens : du_alloc_array(n, sizeof b->tokens[0]);
    b->marks = b->marks ? b->marks : du_alloc_array(n, sizeof b->marks[0]);
    return b->tokens && b->marks ? DU_OK : du_fail_nomem(diag, "sequences");
}

/* Slots that a document could take: none where only a target would fit. */
static int64_t room(const du_bins *bins, const bin *b) {
    return b->used < bins->seq_len ? bins->seq_len + 1 - b->used : 0;
}

static void put(bin *b, const int32_t *ids, const char *counts, int64_t n) {
    memcpy(b->tokens + b->used, ids, (size_t)n * sizeof ids[0]);
    for (int64_t i = 0; i < n; i++) {
        b->marks[b->used + i] = i > 0 && counts[i] ? DU_MARK_COUNTS : 0;
    }
    b->marks[b->used] = DU_MARK_BEGINS;
    b->used += n;
}

/* Gives a sequence out, filling what is left of it. */
static du_err give(du_bins *bins, bin *b, du_diag *diag) {
    int64_t n = bins->seq_len + 1;
    for (int64_t i = b->used; i < n; i++) {
        b->tokens[i] = bins->fill;
        b->marks[i] = i == b->used ? DU_MARK_BEGINS : 0;
    }
    for (int64_t i = 1; i < n; i++) {
        bins->stats.n_learned += b->marks[i] & DU_MARK_COUNTS ? 1 : 0;
    }
    bins->stats.n_fill += b->used < bins->seq_len ? bins->seq_len - b->used : 0;
    bins->stats.n_seqs++;
    b->used = 0;
    return bins->fn(bins->arg, b->tokens, b->marks, diag);
}

static du_err add_stream(du_bins *bins, const int32_t *ids, const char *counts, int64_t n,
                         du_diag *diag) {
    bin *b = &bins->stream;
    du_err err = make(bins, b, diag);
    for (int64_t done = 0; err == DU_OK && done < n;) {
        int64_t left = bins->seq_len + 1 - b->used;
        int64_t take = n - done < left ? n - done : left;
        put(b, ids + done, counts + done, take);
        done += take;
        if (b->used == bins->seq_len + 1) {
            done -= done < n; /* the last target is the next sequence's first token */
            err = give(bins, b, diag);
        }
    }
    return err;
}

/* The open sequence with the least room for n, or an empty one, or the fullest. */
static bin *choose(du_bins *bins, int64_t n) {
    bin *best = NULL, *empty = NULL, *fullest = &bins->bins[0];
    for (int i = 0; i < DU_BINS_MAX; i++) {
        bin *b = &bins->bins[i];
        if (b->used == 0) {
            empty = empty ? empty : b;
        } else if (room(bins, b) >= n && (!best || b->used > best->used)) {
            best = b;
        }
        fullest = b->used > fullest->used ? b : fullest;
    }
    return best ? best : empty ? empty : fullest;
}

du_err du_bins_add(du_bins *bins, const int32_t *ids, const char *counts, int64_t n, bool whole,
                   du_diag *diag) {
    if (!whole) {
        return add_stream(bins, ids, counts, n, diag);
    }
    DU_CHECK(n <= bins->seq_len + 1);
    bin *b = choose(bins, n);
    du_err err = make(bins, b, diag);
    if (err == DU_OK && b->used > 0 && room(bins, b) < n) {
        err = give(bins, b, diag);
    }
    if (err != DU_OK) {
        return err;
    }
    put(b, ids, counts, n);
    return room(bins, b) < 2 ? give(bins, b, diag) : DU_OK;
}

du_err du_bins_flush(du_bins *bins, du_diag *diag) {
    du_err err = bins->stream.used > 1 ? give(bins, &bins->stream, diag) : DU_OK;
    for (int i = 0; i < DU_BINS_MAX && err == DU_OK; i++) {
        err = bins->bins[i].used > 0 ? give(bins, &bins->bins[i], diag) : DU_OK;
    }
    return err;
}

du_bins_stats du_bins_get_stats(const du_bins *bins) {
    return bins->stats;
}
