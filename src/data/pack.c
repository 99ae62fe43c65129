/* Each source hands out documents one by one, out of a batch whose documents several threads have
 * turned into tokens. The next document comes from the source that is furthest behind its share, so
 * that the mixture holds at every place and not only in the end. Then
 *
 *     training     -> window (shuffle.h) -> bins -> shards
 *     validation   -> bins -> shards
 *
 * where a hash of a document's text says which way it goes, so that a document which comes twice,
 * in one file or in two, is never on both sides. */
#include "data/pack.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "data/bins.h"
#include "data/shuffle.h"

enum { BATCH_BYTES = 8 << 20 }; /* of texts that are turned into tokens at once */

typedef struct {
    const du_pack_source *params;
    du_docs *docs;
    du_doc_batch batch;
    du_examples *examples; /* [n_examples] what the batch has become */
    size_t n_examples;
    size_t i_record, i_document; /* the next one */
    bool validating;             /* the part of a text that comes next is validation as the first */
    int64_t n_pass_tokens;       /* stats.n_tokens when this pass began */
    du_pack_source_stats stats;
} source;

/* What the functions of bins.h and shuffle.h are given. */
typedef struct {
    struct packing *packing;
    du_shards_part part;
} way;

typedef struct packing {
    const du_pack_params *params;
    du_pool *pool;
    du_pack_watch_fn *watch;
    void *watch_arg;
    source *sources; /* [n_sources] */
    du_shards_writer *writer;
    du_shuffle *shuffle;
    du_bins *bins[DU_SHARDS_PARTS];
    way ways[DU_SHARDS_PARTS];
    du_pack_stats stats;
} packing;

static du_err nomem(du_diag *diag) {
    return du_fail_nomem(diag, "packing");
}

static int64_t n_given(const packing *p) {
    return p->stats.parts[DU_SHARDS_TRAIN].n_tokens;
}

/* Tells how far it is; fails when it is to stop. */
static du_err watch(const packing *p, du_diag *diag) {
    int64_t done = 0, total = 0;
    for (int64_t i = 0; i < p->params->n_sources; i++) {
        done += du_docs_pos(p->sources[i].docs);
        total += du_docs_bytes(p->sources[i].docs);
    }
    if (p->params->n_tokens > 0) { /* what is wanted, and not what is there, is all */
        done = n_given(p);
        total = p->params->n_tokens;
    }
    return p->watch && p->watch(p->watch_arg, done, total)
               ? du_fail(diag, DU_ECANCELLED, "packing was stopped")
               : DU_OK;
}

/* A du_sequence_fn. */
static du_err write_sequence(void *arg, const int32_t *tokens, const uint8_t *marks,
                             du_diag *diag) {
    way *w = arg;
    du_err err = watch(w->packing, diag);
    return err ? err : du_shards_write(w->packing->writer, w->part, tokens, marks, diag);
}

/* A du_document_fn. */
static du_err pack_document(void *arg, const int32_t *ids, const char *counts, int64_t n,
                            bool whole, du_diag *diag) {
    way *w = arg;
    return du_bins_add(w->packing->bins[w->part], ids, counts, n, whole, diag);
}

/* ---- sources ----------------------------------------------------------------------------------
 */

static void free_examples(source *s) {
    for (size_t i = 0; i < s->n_examples; i++) {
        du_examples_done(&s->examples[i]);
    }
    du_free(s->examples);
    s->examples = NULL;
    s->n_examples = s->i_record = s->i_document = 0;
}

static void source_done(source *s) {
    free_examples(s);
    du_doc_batch_done(&s->batch);
    du_docs_close(s->docs);
}

static du_err begin_pass(packing *p, source *s, du_diag *diag) {
    du_docs_params in = {.paths = s->params->paths,
                         .n_paths = s->params->n_paths,
                         .form = p->params->form,
                         .separator = p->params->separator};
    du_docs_close(s->docs);
    s->docs = NULL;
    s->stats.n_passes++;
    return du_docs_open(&s->docs, &in, diag);
}

typedef struct {
    const packing *p;
    source *s;
} encoding;

/* A du_try_fn: record i of a batch. */
static du_err encode(void *arg, int64_t i, int64_t i_thread, du_diag *diag) {
    (void)i_thread;
    encoding *e = arg;
    const du_doc *doc = &e->s->batch.docs[i];
    du_record record;
    du_err err = du_record_open(&record, e->s->docs, &e->s->batch, (size_t)i, diag);
    if (err != DU_OK) {
        return err;
    }
    err = du_examples_add(&e->s->examples[i], &e->p->params->example, &record, doc->begins,
                          doc->ends, diag);
    if (err != DU_OK) {
        du_diag_context(diag, "%s:%lld", e->s->params->paths[doc->i_file], (long long)doc->line);
    }
    du_record_close(&record);
    return err;
}

/* Replaces the batch by the next one; it is empty at the end of the files. */
static du_err next_batch(const packing *p, source *s, du_diag *diag) {
    free_examples(s);
    du_err err = du_docs_read(s->docs, &s->batch, BATCH_BYTES, diag);
    if (err != DU_OK || s->batch.n == 0) {
        return err;
    }
    s->examples = du_alloc_zero(s->batch.n, sizeof s->examples[0]);
    if (!s->examples) {
        return nomem(diag);
    }
    s->n_examples = s->batch.n;
    encoding e = {p, s};
    return du_pool_try(p->pool, encode, &e, (int64_t)s->n_examples, diag);
}

/* A document of a source. */
typedef struct {
    const int32_t *ids; /* [n] */
    const char *counts;
    int64_t n; /* 0: the record made none */
    bool begins;
    bool whole;
    du_shards_part part;
} document;

/* Which part the record that comes next belongs to. */
static du_shards_part part_of(const packing *p, source *s) {
    if (s->batch.docs[s->i_record].begins && s->i_document == 0) {
        uint64_t hash = du_rng_hash(s->examples[s->i_record].hash, 0);
        s->validating = (double)(hash >> 11) * 0x1p-53 < p->params->validation;
    }
    return s->validating ? DU_SHARDS_VALIDATION : DU_SHARDS_TRAIN;
}

static document next_document(const packing *p, source *s) {
    const du_examples *e = &s->examples[s->i_record];
    document d = {
        .begins = s->batch.docs[s->i_record].begins, .part = part_of(p, s), .whole = e->whole};
    size_t start = s->i_document > 0 ? e->ends[s->i_document - 1] : 0;
    if (s->i_document < e->n) {
        d.ids = e->ids.ids + start;
        d.counts = e->counts.data + start;
        d.n = (int64_t)(e->ends[s->i_document] - start);
    }
    if (++s->i_document >= e->n) {
        s->i_document = 0;
        s->i_record++;
    }
    return d;
}

/* The source that is furthest behind its share. */
static source *choose(const packing *p) {
    source *best = &p->sources[0];
    for (int64_t i = 1; i < p->params->n_sources; i++) {
        source *s = &p->sources[i];
        if ((double)s->stats.n_tokens / s->params->weight <
            (double)best->stats.n_tokens / best->params->weight) {
            best = s;
        }
    }
    return best;
}

/* ---- documents ---------------------------------------------------------------------------------
 */

static du_err take(packing *p, source *s, const document *d, du_diag *diag) {
    if (d->n == 0 || !memchr(d->counts, 1, (size_t)d->n)) {
        p->stats.n_empty += d->begins; /* not the end of a text whose parts have come before */
        return DU_OK;
    }
    if (d->whole && d->n > p->params->seq_len + 1) {
        p->stats.n_long++;
        return DU_OK;
    }
    if (d->part == DU_SHARDS_VALIDATION && s->stats.n_passes > 1) {
        return DU_OK;
    }
    du_pack_part_stats *part = &p->stats.parts[d->part];
    part->n_documents++;
    part->n_tokens += d->n;
    if (d->part == DU_SHARDS_VALIDATION) {
        return pack_document(&p->ways[d->part], d->ids, d->counts, d->n, d->whole, diag);
    }
    s->stats.n_documents++;
    s->stats.n_tokens += d->n;
    return du_shuffle_add(p->shuffle, d->ids, d->counts, d->n, d->whole, diag);
}

/* Makes the batch of a source that has none begin with its next record, in another pass if need be.
 * *ended: there is none, and none is wanted. */
static du_err fill(packing *p, source *s, bool *ended, du_diag *diag) {
    while (s->i_record >= s->n_examples) {
        du_err err = next_batch(p, s, diag);
        if (err != DU_OK || s->n_examples > 0) {
            return err;
        }
        *ended = p->params->n_tokens == 0;
        if (*ended) {
            return DU_OK;
        }
        if (s->stats.n_tokens == s->n_pass_tokens) {
            return du_fail(diag, DU_EINVAL, "%s: nothing in it to train on", s->params->paths[0]);
        }
        s->n_pass_tokens = s->stats.n_tokens;
        err = begin_pass(p, s, diag);
        if (err != DU_OK) {
            return err;
        }
    }
    return DU_OK;
}

static du_err pack_all(packing *p, du_diag *diag) {
    int64_t limit = p->params->n_tokens > 0 ? p->params->n_tokens : INT64_MAX;
    du_err err = DU_OK;
    while (err == DU_OK && n_given(p) < limit) {
        source *s = choose(p);
        bool ended = false;
        err = s->i_record < s->n_examples ? DU_OK : watch(p, diag);
        err = err ? err : fill(p, s, &ended, diag);
        if (err != DU_OK || ended) {
            break;
        }
        document d = next_document(p, s);
        err = take(p, s, &d, diag);
    }
    err = err ? err : du_shuffle_flush(p->shuffle, diag);
    for (int i = 0; i < DU_SHARDS_PARTS && err == DU_OK; i++) {
        err = du_bins_flush(p->bins[i], diag);
    }
    return err;
}

/* ---- the whole ----------------------------------------------------------------------------------
 */

static du_err open_all(packing *p, du_diag *diag) {
    const du_pack_params *params = p->params;
    const du_tokenizer_info *info = du_tokenizer_get_info(params->example.tok);
    if (info->eos < 0) {
        return du_fail(diag, DU_EUNSUPPORTED, "the tokenizer has no token that ends a text");
    }
    p->sources = du_alloc_zero((size_t)params->n_sources, sizeof p->sources[0]);
    du_err err = p->sources ? DU_OK : nomem(diag);
    for (int64_t i = 0; i < params->n_sources && err == DU_OK; i++) {
        p->sources[i].params = &params->sources[i];
        err = begin_pass(p, &p->sources[i], diag);
    }
    int32_t fill_token = info->pad >= 0 ? info->pad : info->eos;
    for (int i = 0; i < DU_SHARDS_PARTS && err == DU_OK; i++) {
        p->ways[i] = (way){p, (du_shards_part)i};
        err = du_bins_new(&p->bins[i], params->seq_len, fill_token, write_sequence, &p->ways[i],
                          diag);
    }
    err = err ? err
              : du_shuffle_new(&p->shuffle, params->shuffle_bytes, params->seed, pack_document,
                               &p->ways[DU_SHARDS_TRAIN], diag);
    du_shards_params out = {
        .seq_len = params->seq_len, .n_vocab = info->n_vocab, .shard_bytes = params->shard_bytes};
    return err ? err : du_shards_writer_open(&p->writer, params->out, &out, diag);
}

static void close_all(packing *p) {
    for (int64_t i = 0; p->sources && i < p->params->n_sources; i++) {
        source_done(&p->sources[i]);
    }
    du_free(p->sources);
    for (int i = 0; i < DU_SHARDS_PARTS; i++) {
        du_bins_free(p->bins[i]);
    }
    du_shuffle_free(p->shuffle);
    du_shards_writer_close(p->writer);
}

/* What the index keeps for people: where the data came from. */
static json_t *about(const packing *p) {
    json_t *sources = json_array();
    for (int64_t i = 0; i < p->params->n_sources; i++) {
        const source *s = &p->sources[i];
        json_t *paths = json_array();
        for (int64_t k = 0; k < s->params->n_paths; k++) {
            json_array_append_new(paths, json_string(s->params->paths[k]));
        }
        json_array_append_new(sources, json_pack("{s:o, s:f, s:I, s:I, s:I}", "paths", paths,
                                                 "weight", s->params->weight, "documents",
                                                 (json_int_t)s->stats.n_documents, "tokens",
                                                 (json_int_t)s->stats.n_tokens, "passes",
                                                 (json_int_t)s->stats.n_passes));
    }
    return json_pack("{s:o, s:I, s:f, s:I}", "sources", sources, "seed",
                     (json_int_t)p->params->seed, "validation", p->params->validation, "shuffle",
                     (json_int_t)p->params->shuffle_bytes);
}

static du_err commit(packing *p, du_diag *diag) {
    json_t *said = about(p);
    du_err err = said ? du_shards_writer_commit(p->writer, said, diag) : nomem(diag);
    json_decref(said);
    return err;
}

static void tell(const packing *p, du_pack_stats *stats, du_pack_source_stats *sources) {
    *stats = p->stats;
    for (int i = 0; i < DU_SHARDS_PARTS; i++) {
        du_bins_stats b = du_bins_get_stats(p->bins[i]);
        stats->parts[i].n_seqs = b.n_seqs;
        stats->parts[i].n_learned = b.n_learned;
        stats->parts[i].n_fill = b.n_fill;
    }
    for (int64_t i = 0; i < p->params->n_sources; i++) {
        sources[i] = p->sources[i].stats;
    }
}

du_err du_pack(const du_pack_params *params, du_pool *pool, du_pack_watch_fn *fn, void *arg,
               du_pack_stats *stats, du_pack_source_stats *sources, du_diag *diag) {
    packing p = {.params = params, .pool = pool, .watch = fn, .watch_arg = arg};
    du_err err = open_all(&p, diag);
    err = err ? err : pack_all(&p, diag);
    if (err == DU_OK) {
        tell(&p, stats, sources);
        if (stats->parts[DU_SHARDS_TRAIN].n_seqs == 0) {
            err = du_fail(diag, DU_EINVAL,
                          "there is nothing to train on: %lld documents too long, "
                          "%lld with nothing to learn",
                          (long long)p.stats.n_long, (long long)p.stats.n_empty);
        }
    }
    err = err ? err : commit(&p, diag);
    close_all(&p);
    return err;
}
