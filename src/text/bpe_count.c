/* Counting words. In a round each thread counts into tables of its own; then the threads' tables
 * are joined, one task for each of DU_BPE_TABLES. A sum does not depend on its order, so neither
 * does what follows. */
#include "text/bpe_train_int.h"

#include "base/mem.h"

static du_err add_word(void *arg, du_sv word) {
    du_bpe_counter *c = arg;
    c->n_words++;
    if (word.len > DU_WORD_BYTES_MAX) {
        c->n_long_bytes += (int64_t)word.len;
        return DU_OK;
    }
    uint64_t h = du_checksum(0x9e3779b97f4a7c15u, word.s, word.len);
    return du_word_table_add(&c->tables[h >> 32 & (DU_BPE_TABLES - 1)], word, 1) ? DU_OK
                                                                                 : DU_ENOMEM;
}

du_err du_bpe_count(du_bpe_counter *counter, du_sv text, du_diag *diag) {
    counter->n_bytes += (int64_t)text.len;
    du_err err = du_pretok_split(counter->pretok, counter->work, text, add_word, counter, diag);
    return err == DU_ENOMEM ? du_fail_nomem(diag, "the words of the texts") : err;
}

typedef struct {
    du_bpe_trainer *trainer;
    du_bpe_texts_fn *texts;
    void *arg;
} round_of_texts;

static du_err count_group(void *arg, int64_t i_task, int64_t i_thread, du_diag *diag) {
    const round_of_texts *r = arg;
    return r->texts(r->arg, i_task, r->trainer->counters[i_thread], diag);
}

/* Moves the threads' words of one table into that of all rounds. */
static du_err join_tables(void *arg, int64_t i_task, int64_t i_thread, du_diag *diag) {
    (void)i_thread;
    du_bpe_trainer *trainer = arg;
    bool ok = true;
    for (int64_t t = 0; t < trainer->n_counters; t++) {
        du_word_table *from = &trainer->counters[t]->tables[i_task];
        for (size_t i = 0; i < from->n && ok; i++) {
            ok = du_word_table_add(&trainer->tables[i_task], from->words[i].text,
                                   from->words[i].count);
        }
        du_word_table_done(from);
    }
    return ok ? DU_OK : du_fail_nomem(diag, "the words of the texts");
}

static int64_t n_different(const du_bpe_trainer *trainer) {
    int64_t n = 0;
    for (int64_t i = 0; i < DU_BPE_TABLES; i++) {
        n += (int64_t)trainer->tables[i].n;
    }
    return n;
}

/* How many words occur `count` times or less. */
static int64_t n_rare(const du_bpe_trainer *trainer, int64_t count) {
    int64_t n = 0;
    for (int64_t i = 0; i < DU_BPE_TABLES; i++) {
        const du_word_table *t = &trainer->tables[i];
        for (size_t k = 0; k < t->n; k++) {
            n += t->words[k].count <= count;
        }
    }
    return n;
}

/* Keeps the number of words within its limit. */
static du_err forget(du_bpe_trainer *trainer, du_diag *diag) {
    int64_t n = n_different(trainer), most = trainer->params.words_max, count = 0, gone = 0;
    if (n <= most) {
        return DU_OK;
    }
    while (n - gone > most / 2) {
        gone = n_rare(trainer, ++count);
    }
    for (int64_t i = 0; i < DU_BPE_TABLES; i++) {
        if (!du_word_table_prune(&trainer->tables[i], count)) {
            return du_fail_nomem(diag, "the words of the texts");
        }
    }
    trainer->stats.n_forgotten += gone;
    return DU_OK;
}

du_err du_bpe_trainer_count(du_bpe_trainer *trainer, int64_t n, du_bpe_texts_fn *texts, void *arg,
                            du_diag *diag) {
    round_of_texts r = {trainer, texts, arg};
    du_err err = du_pool_try(trainer->pool, count_group, &r, n, diag);
    err = err ? err : du_pool_try(trainer->pool, join_tables, trainer, DU_BPE_TABLES, diag);
    err = err ? err : forget(trainer, diag);
    du_bpe_train_stats *stats = &trainer->stats;
    for (int64_t i = 0; i < trainer->n_counters; i++) {
        du_bpe_counter *c = trainer->counters[i];
        stats->n_bytes += c->n_bytes;
        stats->n_words += c->n_words;
        stats->n_long_bytes += c->n_long_bytes;
        c->n_bytes = c->n_words = c->n_long_bytes = 0;
    }
    stats->n_different = n_different(trainer);
    return err;
}
