#include "data/shuffle.h"

#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

typedef struct {
    int32_t *ids; /* [n], the counts behind them: one block */
    int64_t n;
    bool whole;
} document;

struct du_shuffle {
    int64_t window_bytes, n_bytes;
    du_rng rng;
    du_document_fn *fn;
    void *arg;
    document *documents;
    size_t n, cap;
};

du_err du_shuffle_new(du_shuffle **out, int64_t window_bytes, uint64_t seed, du_document_fn *fn,
                      void *arg, du_diag *diag) {
    du_shuffle *s = du_alloc_zero(1, sizeof *s);
    if (!s) {
        return du_fail_nomem(diag, "the shuffle");
    }
    *s = (du_shuffle){.window_bytes = window_bytes, .fn = fn, .arg = arg};
    du_rng_init(&s->rng, seed);
    *out = s;
    return DU_OK;
}

void du_shuffle_free(du_shuffle *shuffle) {
    if (shuffle) {
        for (size_t i = 0; i < shuffle->n; i++) {
            du_free(shuffle->documents[i].ids);
        }
        du_free(shuffle->documents);
        du_free(shuffle);
    }
}

static int64_t bytes_of(const document *d) {
    return d->n * (int64_t)(sizeof(int32_t) + 1) + (int64_t)sizeof *d;
}

/* Lets a document go on that is drawn from all that wait. */
static du_err draw(du_shuffle *s, du_diag *diag) {
    size_t i = (size_t)du_rng_below(&s->rng, s->n);
    document d = s->documents[i];
    s->documents[i] = s->documents[--s->n];
    s->n_bytes -= bytes_of(&d);
    du_err err = s->fn(s->arg, d.ids, (const char *)(d.ids + d.n), d.n, d.whole, diag);
    du_free(d.ids);
    return err;
}

du_err du_shuffle_add(du_shuffle *shuffle, const int32_t *ids, const char *counts, int64_t n,
                      bool whole, du_diag *diag) {
    if (shuffle->window_bytes == 0) {
        return shuffle->fn(shuffle->arg, ids, counts, n, whole, diag);
    }
    document d = {du_alloc_array((size_t)n, sizeof *ids + 1), n, whole};
    if (!d.ids || !du_grow((void **)&shuffle->documents, &shuffle->cap, shuffle->n, sizeof d)) {
        du_free(d.ids);
        return du_fail_nomem(diag, "the shuffle");
    }
    memcpy(d.ids, ids, (size_t)n * sizeof *ids);
    memcpy(d.ids + n, counts, (size_t)n);
    shuffle->documents[shuffle->n++] = d;
    shuffle->n_bytes += bytes_of(&d);
    du_err err = DU_OK;
    while (err == DU_OK && shuffle->n_bytes > shuffle->window_bytes) {
        err = draw(shuffle, diag);
    }
    return err;
}

du_err du_shuffle_flush(du_shuffle *shuffle, du_diag *diag) {
    du_err err = DU_OK;
    while (err == DU_OK && shuffle->n > 0) {
        err = draw(shuffle, diag);
    }
    return err;
}
