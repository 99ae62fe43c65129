#include "text/bpe_train_int.h"

#include "base/mem.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

static du_err bad_special(du_diag *diag, du_sv text, const char *why) {
    return du_fail(diag, DU_EINVAL, "special token '%.*s': %s", text.len > 64 ? 64 : (int)text.len,
                   text.s, why);
}

static du_err check_special(const du_bpe_train_params *p, int32_t i, du_diag *diag) {
    du_sv text = p->special[i];
    int32_t cp;
    if (text.len == 0) {
        return bad_special(diag, text, "it is empty");
    }
    if (text.len > DU_ADDED_BYTES_MAX || du_utf8_valid(text.s, text.len) < text.len) {
        return bad_special(diag, text, text.len > DU_ADDED_BYTES_MAX ? "too long" : "no UTF-8");
    }
    for (int32_t k = 0; k < i; k++) {
        if (du_sv_eq(p->special[k], text)) {
            return bad_special(diag, text, "it is there twice");
        }
    }
    bool alone = du_utf8_next(text.s, text.len, &cp) == text.len;
    for (int32_t byte = 0; byte < 256 && alone; byte++) {
        if (du_byte_level_char((uint8_t)byte) == cp) {
            return bad_special(diag, text, "it is the name of a byte's token");
        }
    }
    return DU_OK;
}

static du_err check(const du_bpe_train_params *p, du_diag *diag) {
    if (p->n_vocab < p->n_special + 256) {
        return du_fail(diag, DU_EINVAL,
                       "a vocabulary of %d: 256 bytes and %d special tokens are %d", p->n_vocab,
                       p->n_special, p->n_special + 256);
    }
    if (p->n_vocab > DU_VOCAB_TOKENS_MAX) {
        return du_fail(diag, DU_ELIMIT, "a vocabulary of %d, more than %d", p->n_vocab,
                       DU_VOCAB_TOKENS_MAX);
    }
    du_err err = DU_OK;
    for (int32_t i = 0; i < p->n_special && err == DU_OK; i++) {
        err = check_special(p, i, diag);
    }
    return err;
}

/* A counter for each thread. */
static du_err make_counters(du_bpe_trainer *trainer, du_diag *diag) {
    int64_t n = du_pool_n_threads(trainer->pool);
    trainer->counters = du_alloc_zero((size_t)n, sizeof trainer->counters[0]);
    du_err err = trainer->counters ? DU_OK : du_fail_nomem(diag, "the words of the texts");
    for (int64_t i = 0; i < n && err == DU_OK; i++) {
        du_bpe_counter *c = trainer->counters[i] = du_alloc_zero(1, sizeof *c);
        trainer->n_counters = i + 1;
        err = c ? du_pretok_work_new(&c->work, trainer->pretok, diag)
                : du_fail_nomem(diag, "the words of the texts");
        if (c) {
            c->pretok = trainer->pretok;
        }
    }
    return err;
}

du_err du_bpe_trainer_new(du_bpe_trainer **out, const du_bpe_train_params *params, du_pool *pool,
                          du_diag *diag) {
    du_err err = check(params, diag);
    if (err != DU_OK) {
        return err;
    }
    du_bpe_trainer *trainer = du_alloc_zero(1, sizeof *trainer);
    if (!trainer) {
        return du_fail_nomem(diag, "the tokenizer");
    }
    trainer->params = *params;
    trainer->params.words_max = params->words_max ? params->words_max : DU_BPE_WORDS_MAX;
    trainer->pool = pool;
    err = du_pretok_from_rule(&trainer->pretok, &trainer->rule, du_sv_of(params->rule), diag);
    err = err ? err : make_counters(trainer, diag);
    if (err != DU_OK) {
        du_bpe_trainer_free(trainer);
        return err;
    }
    *out = trainer;
    return DU_OK;
}

static void free_tables(du_word_table *tables) {
    for (int64_t i = 0; i < DU_BPE_TABLES; i++) {
        du_word_table_done(&tables[i]);
    }
}

void du_bpe_trainer_free(du_bpe_trainer *trainer) {
    if (!trainer) {
        return;
    }
    for (int64_t i = 0; i < trainer->n_counters; i++) {
        if (trainer->counters[i]) {
            du_pretok_work_free(trainer->counters[i]->work);
            free_tables(trainer->counters[i]->tables);
            du_free(trainer->counters[i]);
        }
    }
    du_free(trainer->counters);
    free_tables(trainer->tables);
    du_pretok_free(trainer->pretok);
    du_free(trainer);
}

du_bpe_train_stats du_bpe_trainer_stats(const du_bpe_trainer *trainer) {
    return trainer->stats;
}

static du_err fill_vocab(du_tokenizer *tok, const du_bpe_tokens *t, const du_bpe_train_params *p,
                         du_diag *diag) {
    int32_t n_control = p->n_special - p->n_visible;
    size_t n_bytes = 0;
    for (int32_t id = 0; id < t->n; id++) {
        n_bytes += t->texts[id].len;
    }
    du_err err = du_vocab_init(&tok->vocab, t->n, n_bytes, diag);
    for (int32_t id = 0; id < t->n && err == DU_OK; id++) {
        bool control = id < n_control, added_one = id < p->n_special;
        du_token_type type = control     ? DU_TOKEN_CONTROL
                             : added_one ? DU_TOKEN_USER_DEFINED
                                         : DU_TOKEN_NORMAL;
        err = du_vocab_set(&tok->vocab, id, t->texts[id], type, diag);
        if (added_one && err == DU_OK) {
            du_added added = {.id = id, .special = control};
            err = du_added_add(&tok->added, t->texts[id], &added, diag);
        }
    }
    return err ? err : du_vocab_finish(&tok->vocab, DU_VOCAB_BYTE_LEVEL, diag);
}

static du_err fill_merges(du_tokenizer *tok, const du_bpe_tokens *t, int32_t n_special,
                          du_diag *diag) {
    int32_t first = n_special + 256;
    du_str tmp = {0};
    du_err err = du_tokenizer_begin_merges(tok, (size_t)(t->n - first), diag);
    for (int32_t id = first; id < t->n && err == DU_OK; id++) {
        err = du_tokenizer_add_merge(tok, (size_t)(id - first), t->texts[t->parts[id].left],
                                     t->texts[t->parts[id].right], false, &tmp, diag);
    }
    du_str_done(&tmp);
    return err;
}

static du_err make_tokenizer(du_tokenizer **out, const du_bpe_trainer *trainer,
                             const du_bpe_tokens *t, du_diag *diag) {
    const du_bpe_train_params *p = &trainer->params;
    du_tokenizer *tok = du_tokenizer_new();
    if (!tok) {
        return du_fail_nomem(diag, "the tokenizer");
    }
    tok->kind = DU_TOKENIZE_BYTES;
    tok->ignore_merges = trainer->rule->ignore_merges;
    tok->info.bos = p->bos;
    tok->info.eos = p->eos;
    tok->info.pad = p->pad;
    tok->info.add_bos = p->add_bos && p->bos >= 0;
    du_err err = du_pretok_from_rule(&tok->pretok, &tok->rule, du_sv_of(p->rule), diag);
    err = err ? err : fill_vocab(tok, t, p, diag);
    err = err ? err : fill_merges(tok, t, p->n_special, diag);
    err = err ? err : du_tokenizer_finish(tok, diag);
    if (err != DU_OK) {
        du_tokenizer_free(tok);
        return err;
    }
    *out = tok;
    return DU_OK;
}

du_err du_bpe_trainer_run(du_bpe_trainer *trainer, du_bpe_watch_fn *watch, void *arg,
                          du_tokenizer **out, du_diag *diag) {
    du_bpe_train_stats *stats = &trainer->stats;
    du_bpe_tokens tokens;
    for (int64_t t = 0; t < DU_BPE_TABLES; t++) {
        for (size_t i = 0; i < trainer->tables[t].n; i++) {
            const du_word *w = &trainer->tables[t].words[i];
            stats->n_token_bytes += (int64_t)w->text.len * w->count;
            stats->n_tokens += w->text.len == 1 ? w->count : 0;
        }
    }
    du_err err = du_bpe_join(&tokens, &trainer->params, trainer->tables, watch, arg, diag);
    if (err == DU_OK) {
        stats->n_merges = tokens.n - trainer->params.n_special - 256;
        stats->n_tokens += tokens.n_in_words;
        err = make_tokenizer(out, trainer, &tokens, diag);
    }
    du_bpe_tokens_done(&tokens);
    return err;
}
