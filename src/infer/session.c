#include "infer/session.h"

#include <math.h>

#include "infer/infer_int.h"

du_err du_session_new(du_session **out, du_infer *inf, du_diag *diag) {
    du_session *s = du_alloc_zero(1, sizeof *s);
    if (!s) {
        return du_fail_nomem(diag, "a session");
    }
    s->inf = inf;
    int64_t n_pages = du_pages_for(inf->n_ctx);
    s->seq.pages = du_alloc_zero((size_t)n_pages, sizeof *s->seq.pages);
    s->tokens = du_alloc_array((size_t)inf->n_ctx, sizeof *s->tokens);
    s->logits = du_alloc_array((size_t)inf->model->hp.n_vocab, sizeof *s->logits);
    if (!s->seq.pages || !s->tokens || !s->logits) {
        du_session_free(s);
        return du_fail_nomem(diag, "a session");
    }
    *out = s;
    return DU_OK;
}

void du_session_free(du_session *s) {
    if (!s) {
        return;
    }
    du_session_truncate(s, 0);
    du_free(s->seq.pages);
    du_free(s->tokens);
    du_free(s->logits);
    du_free(s);
}

du_err du_session_fork(du_session **out, const du_session *src, du_diag *diag) {
    du_session *s;
    du_err err = du_session_new(&s, src->inf, diag);
    if (err != DU_OK) {
        return err;
    }
    for (int64_t i = 0; i < src->n_pages; i++) {
        s->seq.pages[i] = src->seq.pages[i];
        du_page_ref(&src->inf->pages, src->seq.pages[i]);
    }
    s->n_pages = src->n_pages;
    s->n = src->n;
    memcpy(s->tokens, src->tokens, (size_t)src->n * sizeof *s->tokens);
    memcpy(s->logits, src->logits, (size_t)src->inf->model->hp.n_vocab * sizeof *s->logits);
    *out = s;
    return DU_OK;
}

du_infer *du_session_infer(const du_session *s) {
    return s->inf;
}

int64_t du_session_n(const du_session *s) {
    return s->n;
}

const int32_t *du_session_tokens(const du_session *s) {
    return s->tokens;
}

const float *du_session_logits(const du_session *s) {
    return s->logits;
}

int64_t du_session_common(const du_session *s, const int32_t *tokens, int64_t n) {
    int64_t limit = n < s->n ? n : s->n, common = 0;
    while (common < limit && s->tokens[common] == tokens[common]) {
        common++;
    }
    return common;
}

void du_session_truncate(du_session *s, int64_t n) {
    int64_t keep = du_pages_for(n);
    while (s->n_pages > keep) {
        du_page_unref(&s->inf->pages, s->seq.pages[--s->n_pages]);
    }
    s->n = n < s->n ? n : s->n;
}

static du_err fail_no_page(const du_session *s, du_diag *diag) {
    return du_fail(diag, DU_ELIMIT, "the cache of %lld pages is full: end a session",
                   (long long)s->inf->pages.n_pages);
}

du_err du_session_reserve(du_session *s, int64_t n, du_diag *diag) {
    du_page_pool *pool = &s->inf->pages;
    int64_t i_write = s->n / DU_KV_PAGE;
    if (i_write < s->n_pages && du_page_shared(pool, s->seq.pages[i_write])) {
        uint8_t *own = du_page_take(pool);
        if (!own) {
            return fail_no_page(s, diag);
        }
        memcpy(own, s->seq.pages[i_write], pool->page_bytes);
        du_page_unref(pool, s->seq.pages[i_write]);
        s->seq.pages[i_write] = own;
    }
    while (s->n_pages * DU_KV_PAGE < n) {
        uint8_t *page = du_page_take(pool);
        if (!page) {
            du_session_truncate(s, s->n);
            return fail_no_page(s, diag);
        }
        s->seq.pages[s->n_pages++] = page;
    }
    return DU_OK;
}

du_err du_session_sync(du_session *s, const int32_t *tokens, int64_t n,
                       du_sync_progress_fn *progress, void *user, du_diag *diag) {
    DU_CHECK(n >= 1);
    int64_t common = du_session_common(s, tokens, n);
    /* The logits belong to the last token, which is computed anew when all tokens are cached. */
    du_session_truncate(s, common < n ? common : n - 1);
    while (s->n < n) {
        int64_t left = n - s->n;
        int64_t n_now = left < s->inf->n_chunk ? left : s->inf->n_chunk;
        du_step_item item = {s, tokens + s->n, n_now, n_now == left ? 1 : 0, s->logits};
        du_err err = du_infer_step(s->inf, &item, 1, diag);
        if (err != DU_OK) {
            return err;
        }
        if (progress && progress(user, s->n, n) && s->n < n) {
            return du_fail(diag, DU_ECANCELLED, "cancelled");
        }
    }
    return DU_OK;
}

/* Logits rows kept at once by du_session_sync_rows: a vocabulary of 129,280 makes each 0.5 MB. */
enum { ROWS_AT_ONCE = 64 };

du_err du_session_sync_rows(du_session *s, const int32_t *tokens, int64_t n, int64_t first,
                            du_row_fn *fn, void *user, du_diag *diag) {
    int64_t V = s->inf->model->hp.n_vocab;
    int64_t common = du_session_common(s, tokens, n);
    du_session_truncate(s, common < first ? common : first);
    if (s->n < first) {
        du_err err = du_session_sync(s, tokens, first, NULL, NULL, diag);
        if (err != DU_OK) {
            return err;
        }
    }
    int64_t n_max = s->inf->n_chunk < ROWS_AT_ONCE ? s->inf->n_chunk : ROWS_AT_ONCE;
    float *logits = du_alloc_array((size_t)(n_max * V), sizeof *logits);
    if (!logits) {
        return du_fail_nomem(diag, "logits");
    }
    du_err err = DU_OK;
    while (err == DU_OK && s->n < n) {
        int64_t at = s->n, n_now = n - at < n_max ? n - at : n_max;
        du_step_item item = {s, tokens + at, n_now, n_now, logits};
        err = du_infer_step(s->inf, &item, 1, diag);
        for (int64_t i = 0; err == DU_OK && i < n_now; i++) {
            if (fn(user, at + i, logits + i * V)) {
                err = du_fail(diag, DU_ECANCELLED, "cancelled");
            }
        }
        if (err == DU_OK) {
            memcpy(s->logits, logits + (n_now - 1) * V, (size_t)V * sizeof *logits);
        }
    }
    du_free(logits);
    return err;
}

double du_log_softmax_at(const float *logits, int64_t V, int32_t token) {
    float max = logits[0];
    for (int64_t i = 1; i < V; i++) {
        max = fmaxf(max, logits[i]);
    }
    double sum = 0;
    for (int64_t i = 0; i < V; i++) {
        sum += exp((double)logits[i] - (double)max);
    }
    return (double)logits[token] - (double)max - log(sum);
}

typedef struct {
    const int32_t *tokens;
    int64_t V;
    double log_prob;
    bool greedy;
} score;

static bool score_row(void *user, int64_t i, const float *logits) {
    score *sc = user;
    int32_t next = sc->tokens[i + 1];
    sc->log_prob += du_log_softmax_at(logits, sc->V, next);
    for (int64_t v = 0; v < sc->V && sc->greedy; v++) {
        sc->greedy = logits[v] < logits[next] || (logits[v] == logits[next] && v >= next);
    }
    return false;
}

du_err du_session_score(du_session *s, const int32_t *prefix, int64_t n_prefix, const int32_t *cont,
                        int64_t n_cont, double *log_prob, bool *greedy, du_diag *diag) {
    int64_t n = n_prefix + n_cont;
    int32_t *tokens = du_alloc_array((size_t)n, sizeof *tokens);
    if (!tokens) {
        return du_fail_nomem(diag, "tokens");
    }
    memcpy(tokens, prefix, (size_t)n_prefix * sizeof *tokens);
    memcpy(tokens + n_prefix, cont, (size_t)n_cont * sizeof *tokens);
    score sc = {tokens, s->inf->model->hp.n_vocab, 0, true};
    /* The last token of the continuation is only predicted, never read. */
    du_err err = du_session_sync_rows(s, tokens, n - 1, n_prefix - 1, score_row, &sc, diag);
    if (err == DU_OK) {
        *log_prob = sc.log_prob;
        *greedy = sc.greedy;
    }
    du_free(tokens);
    return err;
}
