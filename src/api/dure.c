/* The installed C interface: thin handles over infer/. Programs pass anything, so each function
 * checks its own arguments; below, NULL is a defect. */
#include "dure/dure.h"

#include <string.h>

#include "base/json.h"
#include "infer/generate.h"
#include "infer/lm.h"
#include "text/unicode.h"

/* The public codes are the internal ones. */
#define SAME(name) _Static_assert((int)DURE_##name == (int)DU_##name, "the same numbers")
SAME(OK);
SAME(EINVAL);
SAME(EIO);
SAME(ENOENT);
SAME(EEXIST);
SAME(EFORMAT);
SAME(EUNSUPPORTED);
SAME(ELIMIT);
SAME(ENOMEM);
SAME(ECANCELLED);
SAME(FINISH_STOP);
SAME(FINISH_LENGTH);
SAME(FINISH_CANCELLED);

struct dure_model {
    du_lm *lm;
};

struct dure_session {
    dure_model *model;
    du_infer *inf;
    du_session *session;
    dure_finish finish; /* of the last answer */
};

static dure_status tell(dure_error *error, du_err err, const du_diag *diag) {
    if (error) {
        error->status = (dure_status)err;
        memset(error->message, 0, sizeof error->message);
        const char *text = diag->msg[0] ? diag->msg : du_err_text(err);
        if (err != DU_OK) {
            memcpy(error->message, text, strnlen(text, sizeof error->message - 1));
        }
    }
    return (dure_status)err;
}

static du_diag empty_diag(void) {
    du_diag diag;
    du_diag_reset(&diag);
    return diag;
}

/* DU_EINVAL naming the argument when a needed pointer is NULL. */
static du_err need(const void *p, const char *name, du_diag *diag) {
    return p ? DU_OK : du_fail(diag, DU_EINVAL, "%s is NULL", name);
}

const char *dure_status_text(dure_status status) {
    return du_err_text((du_err)status);
}

const char *dure_version(void) {
    return DURE_VERSION;
}

void dure_free(void *p) {
    du_free(p);
}

dure_model *dure_model_open(const char *path, dure_error *error) {
    du_diag diag = empty_diag();
    dure_model *model = NULL;
    du_err err = need(path, "path", &diag);
    if (err == DU_OK) {
        model = du_alloc_zero(1, sizeof *model);
        err = model ? du_lm_open(&model->lm, path, &diag) : du_fail_nomem(&diag, "a model");
    }
    if (tell(error, err, &diag) != DURE_OK) {
        du_free(model);
        return NULL;
    }
    return model;
}

void dure_model_close(dure_model *model) {
    if (model) {
        du_lm_close(model->lm);
        du_free(model);
    }
}

int32_t dure_model_n_vocab(const dure_model *model) {
    return model ? (int32_t)model->lm->model->hp.n_vocab : 0;
}

int64_t dure_model_n_ctx_train(const dure_model *model) {
    return model ? model->lm->model->hp.n_ctx_train : 0;
}

bool dure_model_has_chat(const dure_model *model) {
    return model && model->lm->chat;
}

bool dure_model_is_end(const dure_model *model, int32_t id) {
    return model && du_tokenizer_is_eog(model->lm->tok, id);
}

dure_status dure_tokenize(const dure_model *model, const char *text, size_t len, bool with_bos,
                          bool parse_special, int32_t **ids, size_t *n_ids, dure_error *error) {
    du_diag diag = empty_diag();
    du_ids list = {0};
    du_sv sv = {len > 0 ? text : "", len};
    unsigned flags = parse_special ? DU_ENCODE_SPECIAL : 0;
    du_err err = need(model, "model", &diag);
    err = err ? err : need(sv.s, "text", &diag);
    err = err ? err : need(ids, "ids", &diag);
    err = err ? err : need(n_ids, "n_ids", &diag);
    if (err == DU_OK) {
        err = with_bos ? du_tokenizer_encode_prompt(model->lm->tok, sv, flags, &list, &diag)
                       : du_tokenizer_encode(model->lm->tok, sv, flags, &list, &diag);
    }
    if (err == DU_OK) {
        *ids = list.ids;
        *n_ids = list.n;
    } else {
        du_ids_done(&list);
    }
    return tell(error, err, &diag);
}

static du_err decode(du_str *out, const dure_model *model, const int32_t *ids, size_t n_ids,
                     du_diag *diag) {
    int32_t n_vocab = dure_model_n_vocab(model);
    du_detok detok;
    du_detok_init(&detok, model->lm->tok, DU_DECODE_START);
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || ids[i] >= n_vocab) {
            return du_fail(diag, DU_EINVAL, "token %d at position %zu: the vocabulary has %d",
                           ids[i], i, n_vocab);
        }
        du_detok_push(&detok, ids[i], out);
    }
    du_detok_flush(&detok, out);
    return out->failed ? du_fail_nomem(diag, "text") : DU_OK;
}

char *dure_detokenize(const dure_model *model, const int32_t *ids, size_t n_ids, size_t *len,
                      dure_error *error) {
    du_diag diag = empty_diag();
    du_str text = {0};
    du_err err = need(model, "model", &diag);
    err = err || n_ids == 0 ? err : need(ids, "ids", &diag);
    err = err ? err : decode(&text, model, ids, n_ids, &diag);
    size_t n = text.len;
    char *out = err == DU_OK ? du_str_take(&text) : NULL;
    if (err == DU_OK && !out) {
        err = du_fail_nomem(&diag, "text");
    }
    du_str_done(&text);
    tell(error, err, &diag);
    if (out && len) {
        *len = n;
    }
    return out;
}

enum { N_THREADS_MAX = 1024 };

static du_err repack_of(du_repack *out, const char *name, du_diag *diag) {
    static const char *const names[] = {"auto", "off", "cache"};
    for (int i = 0; name && i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (du_repack)i;
            return DU_OK;
        }
    }
    return name ? du_fail(diag, DU_EINVAL, "repack '%s' is not auto, off or cache", name) : DU_OK;
}

static du_err infer_params(du_infer_params *out, const dure_session_params *params, du_diag *diag) {
    *out = du_infer_defaults();
    if (!params) {
        return DU_OK;
    }
    if (params->n_threads < 0 || params->n_threads > N_THREADS_MAX) {
        return du_fail(diag, DU_EINVAL, "n_threads %d is not between 0 and %d", params->n_threads,
                       N_THREADS_MAX);
    }
    if (params->n_ctx < 0) {
        return du_fail(diag, DU_EINVAL, "n_ctx is negative");
    }
    out->n_threads = params->n_threads;
    out->n_ctx = params->n_ctx;
    du_err err = repack_of(&out->repack, params->repack, diag);
    if (err != DU_OK) {
        return err;
    }
    if (!params->cache_type || strcmp(params->cache_type, "auto") == 0) {
        return DU_OK;
    }
    static const struct {
        const char *name;
        du_dtype type;
    } types[] = {{"f32", DU_F32}, {"f16", DU_F16}, {"bf16", DU_BF16}, {"q8_0", DU_Q8_0}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(params->cache_type, types[i].name) == 0) {
            out->auto_cache = false;
            out->cache_type = types[i].type;
            return DU_OK;
        }
    }
    return du_fail(diag, DU_EINVAL, "cache_type '%s' is not auto, f32, f16, bf16 or q8_0",
                   params->cache_type);
}

dure_session *dure_session_new(dure_model *model, const dure_session_params *params,
                               dure_error *error) {
    du_diag diag = empty_diag();
    du_infer_params p;
    dure_session *s = NULL;
    du_err err = need(model, "model", &diag);
    err = err ? err : infer_params(&p, params, &diag);
    if (err == DU_OK) {
        s = du_alloc_zero(1, sizeof *s);
        err = s ? DU_OK : du_fail_nomem(&diag, "a session");
    }
    if (err == DU_OK) {
        *s = (dure_session){.model = model, .finish = DURE_FINISH_LENGTH};
        err = du_infer_new(&s->inf, model->lm->model, &p, &diag);
    }
    if (err == DU_OK) {
        err = du_session_new(&s->session, s->inf, &diag);
    }
    if (tell(error, err, &diag) != DURE_OK) {
        dure_session_free(s);
        return NULL;
    }
    return s;
}

void dure_session_free(dure_session *s) {
    if (s) {
        du_session_free(s->session);
        du_infer_free(s->inf);
        du_free(s);
    }
}

int64_t dure_session_n_ctx(const dure_session *s) {
    return s ? du_infer_n_ctx(s->inf) : 0;
}

dure_finish dure_session_finish(const dure_session *s) {
    return s ? s->finish : DURE_FINISH_LENGTH;
}

dure_status dure_session_sync(dure_session *s, const int32_t *ids, size_t n_ids,
                              const float **logits, dure_error *error) {
    du_diag diag = empty_diag();
    du_err err = need(s, "session", &diag);
    err = err ? err : need(ids, "ids", &diag);
    if (err == DU_OK) {
        err = n_ids > 0 ? du_session_sync(s->session, ids, (int64_t)n_ids, NULL, NULL, &diag)
                        : du_fail(&diag, DU_EINVAL, "n_ids is 0");
    }
    if (err == DU_OK && logits) {
        *logits = du_session_logits(s->session);
    }
    return tell(error, err, &diag);
}

/* Appends a model's text as C strings hold it: UTF-8, no NUL. */
static void add_clean(du_str *out, du_sv text) {
    while (text.len > 0) {
        size_t n = strnlen(text.s, text.len), skipped = n < text.len;
        du_utf8_add_replaced(out, (du_sv){text.s, n});
        text = (du_sv){text.s + n + skipped, text.len - n - skipped};
    }
}

/* Terminated copies for the caller's callback. */
typedef struct {
    const dure_generate_params *params;
    du_str reasoning, content;
} forwarding;

static bool forward_text(void *user, du_sv reasoning, du_sv content) {
    forwarding *f = user;
    du_str_reset(&f->reasoning);
    du_str_reset(&f->content);
    add_clean(&f->reasoning, reasoning);
    add_clean(&f->content, content);
    return f->params->on_text &&
           f->params->on_text(f->params->user, du_str_get(&f->reasoning), du_str_get(&f->content));
}

static bool forward_prompt(void *user, int64_t n_done, int64_t n_all) {
    const dure_generate_params *params = ((forwarding *)user)->params;
    return params->on_prompt && params->on_prompt(params->user, n_done, n_all);
}

static du_err generate(dure_session *s, const du_ids *prompt, bool split, du_reasoning_start start,
                       const dure_generate_params *params, du_generation *out, du_diag *diag) {
    forwarding f = {.params = params};
    du_generate_params p = {.sampler = s->model->lm->sampling, .split = split, .start = start};
    if (params) {
        if (params->n_max < 0) {
            return du_fail(diag, DU_EINVAL, "n_max is negative");
        }
        if (params->n_stop > 0 && !params->stop) {
            return du_fail(diag, DU_EINVAL, "stop is NULL");
        }
        p.n_max = params->n_max;
        p.stop = params->stop;
        p.n_stop = (int64_t)params->n_stop;
        p.ignore_eos = params->ignore_end;
        p.sampler.seed = params->seed;
        if (params->temperature >= 0) {
            p.sampler.temperature = params->temperature;
            p.sampler.top_k = params->top_k;
            p.sampler.top_p = params->top_p > 0 ? params->top_p : 1;
            p.sampler.min_p = params->min_p;
        }
        p.on_text = forward_text;
        p.progress = forward_prompt;
        p.user = &f;
    }
    du_err err =
        du_generate(out, s->session, s->model->lm, prompt->ids, (int64_t)prompt->n, &p, diag);
    du_str_done(&f.reasoning);
    du_str_done(&f.content);
    return err;
}

static char *clean_copy(const du_str *text) {
    du_str copy = {0};
    add_clean(&copy, du_str_view(text));
    return du_str_take(&copy);
}

/* Hands over what was generated. */
static char *take(dure_session *s, du_generation *g, du_err err, char **reasoning,
                  dure_error *error, du_diag *diag) {
    char *content = err == DU_OK ? clean_copy(&g->content) : NULL;
    char *thought = content && reasoning ? clean_copy(&g->reasoning) : NULL;
    if (err == DU_OK) {
        s->finish = (dure_finish)g->finish;
    }
    du_generation_done(g);
    if (err == DU_OK && (!content || (reasoning && !thought))) {
        err = du_fail_nomem(diag, "the answer");
        du_free(content);
        du_free(thought);
        content = NULL;
    }
    tell(error, err, diag);
    if (content && reasoning) {
        *reasoning = thought;
    }
    return content;
}

char *dure_chat(dure_session *s, const char *messages_json, const dure_generate_params *params,
                char **reasoning, dure_error *error) {
    du_diag diag = empty_diag();
    json_t *messages = NULL;
    du_str prompt = {0};
    du_ids ids = {0};
    du_generation g = {0};
    du_err err = need(s, "session", &diag);
    err = err ? err : need(messages_json, "messages_json", &diag);
    if (err == DU_OK) {
        err = du_json_parse(&messages, messages_json, strlen(messages_json), "messages", &diag);
    }
    if (err == DU_OK) {
        err = du_lm_apply_chat(s->model->lm, messages, NULL, NULL, &prompt, &ids, &diag);
    }
    if (err == DU_OK) {
        du_reasoning_start start = du_reasoning_start_of(du_str_get(&prompt), prompt.len);
        err = generate(s, &ids, true, start, params, &g, &diag);
    }
    json_decref(messages);
    du_str_done(&prompt);
    du_ids_done(&ids);
    return take(s, &g, err, reasoning, error, &diag);
}

char *dure_complete(dure_session *s, const char *text, const dure_generate_params *params,
                    dure_error *error) {
    du_diag diag = empty_diag();
    du_ids ids = {0};
    du_generation g = {0};
    du_err err = need(s, "session", &diag);
    err = err ? err : need(text, "text", &diag);
    if (err == DU_OK) {
        err = du_tokenizer_encode_prompt(s->model->lm->tok, du_sv_of(text), 0, &ids, &diag);
    }
    if (err == DU_OK) {
        err = generate(s, &ids, false, DU_REASONING_CLOSED, params, &g, &diag);
    }
    du_ids_done(&ids);
    return take(s, &g, err, NULL, error, &diag);
}
