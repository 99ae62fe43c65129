/* Generation.
 *
 * Bytes flow token -> du_detok (whole characters) -> stop strings (held back while they may begin
 * one) -> du_reasoning (held back while they may begin a tag) -> the caller. `text` keeps
 * everything that passed the stop strings. */
#include "infer/generate.h"

#include <string.h>

#include "base/clock.h"

const char *du_finish_name(du_finish f) {
#define DU_FINISH_TEXT(code, text) text,
    static const char *const names[] = {DU_FINISH_LIST(DU_FINISH_TEXT)};
#undef DU_FINISH_TEXT
    return names[f];
}

void du_generation_done(du_generation *g) {
    du_ids_done(&g->tokens);
    du_str_done(&g->text);
    du_str_done(&g->reasoning);
    du_str_done(&g->content);
    du_free(g->log_probs);
    du_free(g->top_ids);
    du_free(g->top_log_probs);
    *g = (du_generation){0};
}

typedef struct {
    const du_generate_params *params;
    du_generation *out;
    const du_lm *lm;
    du_sampler *sampler;
    du_detok detok;
    du_reasoning split;
    du_str raw;   /* decoded bytes not yet past the stop strings */
    bool stopped; /* a stop string was found */
    bool cancelled;
} state;

/* How many bytes at the end of raw may be the beginning of a stop string. */
static size_t held_for_stop(const state *st) {
    size_t held = 0;
    for (int64_t i = 0; i < st->params->n_stop; i++) {
        const char *stop = st->params->stop[i];
        size_t n = strlen(stop);
        for (size_t k = n > 0 ? n - 1 : 0; k > held; k--) {
            if (k <= st->raw.len && memcmp(st->raw.data + st->raw.len - k, stop, k) == 0) {
                held = k;
            }
        }
    }
    return held;
}

/* Cuts raw at the first stop string; true when there is one. */
static bool cut_at_stop(state *st) {
    int64_t first = -1;
    for (int64_t i = 0; i < st->params->n_stop; i++) {
        du_sv stop = du_sv_of(st->params->stop[i]);
        int64_t at = stop.len > 0 ? du_sv_find(du_str_view(&st->raw), stop, 0) : -1;
        if (at >= 0 && (first < 0 || at < first)) {
            first = at;
        }
    }
    if (first >= 0) {
        st->raw.len = (size_t)first;
    }
    return first >= 0;
}

static void show(state *st) {
    du_sv reasoning = {"", 0}, content = {"", 0};
    if (st->params->split) {
        reasoning = du_reasoning_take_reasoning(&st->split);
        content = du_reasoning_take_content(&st->split);
    }
    if (st->params->on_text && st->params->on_text(st->params->user, reasoning, content)) {
        st->cancelled = true;
    }
}

/* Hands n bytes of raw on. */
static du_err pass_on(state *st, size_t n) {
    du_err err = DU_OK;
    du_str_add(&st->out->text, st->raw.data, n);
    if (st->params->split) {
        err = du_reasoning_feed(&st->split, st->raw.data, n);
        show(st);
    } else if (st->params->on_text &&
               st->params->on_text(st->params->user, (du_sv){"", 0}, (du_sv){st->raw.data, n})) {
        st->cancelled = true;
    }
    memmove(st->raw.data, st->raw.data + n, st->raw.len - n);
    st->raw.len -= n;
    return err;
}

static du_err decode(state *st, int32_t token) {
    if (st->lm->tok) {
        du_detok_push(&st->detok, token, &st->raw);
    }
    du_str_reserve(&st->raw, 0);
    if (st->raw.failed) {
        return DU_ENOMEM;
    }
    st->stopped = cut_at_stop(st);
    return pass_on(st, st->stopped ? st->raw.len : st->raw.len - held_for_stop(st));
}

static du_err finish_text(state *st) {
    if (!st->stopped) {
        du_detok_flush(&st->detok, &st->raw);
        du_str_reserve(&st->raw, 0);
        if (st->raw.failed) {
            return DU_ENOMEM;
        }
        st->stopped = cut_at_stop(st);
    }
    du_err err = pass_on(st, st->raw.len);
    du_generation *out = st->out;
    if (!st->params->split) {
        du_str_add_sv(&out->content, du_str_view(&out->text));
    } else if (err == DU_OK) {
        err = du_reasoning_finish(&st->split);
        show(st);
        du_str_add_sv(&out->reasoning, du_str_view(&st->split.reasoning));
        du_str_add_sv(&out->content, du_str_view(&st->split.content));
    }
    bool failed = out->text.failed || out->reasoning.failed || out->content.failed;
    return err == DU_OK && failed ? DU_ENOMEM : err;
}

static bool keep_log_probs(state *st, const float *logits, int32_t token, int64_t n_max) {
    const du_generate_params *p = st->params;
    du_generation *out = st->out;
    int64_t V = st->lm->model->hp.n_vocab, i = (int64_t)out->tokens.n - 1, k = p->n_log_probs;
    if (!p->keep_log_probs && k == 0) {
        return true;
    }
    if (!out->log_probs) {
        out->log_probs = du_alloc_array((size_t)n_max, sizeof *out->log_probs);
        out->top_ids = du_alloc_array((size_t)(n_max * k), sizeof *out->top_ids);
        out->top_log_probs = du_alloc_array((size_t)(n_max * k), sizeof *out->top_log_probs);
        if (!out->log_probs || !out->top_ids || !out->top_log_probs) {
            return false;
        }
    }
    out->log_probs[i] = du_log_softmax_at(logits, V, token);
    du_top_log_probs(logits, V, k, out->top_ids + i * k, out->top_log_probs + i * k);
    return true;
}

/* One token: sample, keep, decode. *done when the answer has ended. */
static du_err next_token(state *st, du_session *session, int64_t n_max, bool *done) {
    du_generation *out = st->out;
    const float *logits = du_session_logits(session);
    int32_t token = du_sampler_next(st->sampler, logits);
    if (!du_ids_add(&out->tokens, token) || !keep_log_probs(st, logits, token, n_max)) {
        return DU_ENOMEM;
    }
    bool ends = st->lm->tok && du_tokenizer_is_eog(st->lm->tok, token);
    if (ends && !st->params->ignore_eos) {
        out->finish = DU_FINISH_STOP;
        *done = true;
        return DU_OK;
    }
    du_err err = decode(st, token);
    if (st->stopped || st->cancelled) {
        out->finish = st->stopped ? DU_FINISH_STOP : DU_FINISH_CANCELLED;
        *done = true;
    }
    return err;
}

static du_err run(state *st, du_session *session, int64_t n_max, du_diag *diag) {
    du_generation *out = st->out;
    double start = du_clock_s();
    bool done = false;
    du_err err = DU_OK;
    out->finish = DU_FINISH_LENGTH;
    while (err == DU_OK && !done && (int64_t)out->tokens.n < n_max) {
        err = next_token(st, session, n_max, &done);
        if (err == DU_OK && !done && (int64_t)out->tokens.n < n_max) {
            du_step_item item = {session, &out->tokens.ids[out->tokens.n - 1], 1, 1,
                                 (float *)(uintptr_t)du_session_logits(session)};
            err = du_infer_step(du_session_infer(session), &item, 1, diag);
        }
    }
    if (err == DU_OK) {
        err = finish_text(st);
    }
    out->decode_s = du_clock_s() - start;
    return err;
}

du_err du_generate(du_generation *out, du_session *session, const du_lm *lm, const int32_t *prompt,
                   int64_t n_prompt, const du_generate_params *params, du_diag *diag) {
    *out = (du_generation){0};
    int64_t room = du_infer_n_ctx(du_session_infer(session)) - n_prompt;
    if (n_prompt < 1 || room < 1) {
        return du_fail(diag, n_prompt < 1 ? DU_EINVAL : DU_ELIMIT,
                       n_prompt < 1 ? "the prompt is empty"
                                    : "the prompt fills the context: %lld tokens, room for %lld",
                       (long long)n_prompt, (long long)(n_prompt + room));
    }
    if (params->n_log_probs < 0 || params->n_log_probs > lm->model->hp.n_vocab) {
        return du_fail(diag, DU_EINVAL, "%lld alternatives per token, the vocabulary has %lld",
                       (long long)params->n_log_probs, (long long)lm->model->hp.n_vocab);
    }
    int64_t n_max = params->n_max > 0 && params->n_max < room ? params->n_max : room;
    state st = {.params = params, .out = out, .lm = lm};
    du_detok_init(&st.detok, lm->tok, 0);
    du_reasoning_init(&st.split, params->start);
    du_err err = du_sampler_new(&st.sampler, &params->sampler, lm->model->hp.n_vocab,
                                n_prompt + n_max, diag);
    if (err == DU_OK) {
        out->n_reused = du_session_common(session, prompt, n_prompt);
        double start = du_clock_s();
        err = du_session_sync(session, prompt, n_prompt, params->progress, params->user, diag);
        out->prompt_s = du_clock_s() - start;
        int64_t n_done = err == DU_OK ? n_prompt : du_session_n(session);
        out->n_computed = n_done > out->n_reused ? n_done - out->n_reused : 0;
        out->finish = DU_FINISH_CANCELLED;
    }
    for (int64_t i = 0; err == DU_OK && i < n_prompt; i++) {
        du_sampler_see(st.sampler, prompt[i], false);
    }
    if (err == DU_OK) {
        err = run(&st, session, n_max, diag);
    }
    du_sampler_free(st.sampler);
    du_reasoning_done(&st.split);
    du_str_done(&st.raw);
    return err == DU_ENOMEM ? du_fail_nomem(diag, "the answer") : err;
}
