/* The installed C interface: thin handles over infer/. */
#include "dure/dure.h"

#include <string.h>

#include "base/json.h"
#include "infer/generate.h"
#include "infer/lm.h"

/* The public codes are the internal ones. */
#define SAME(name) _Static_assert((int)DURE_##name == (int)DU_##name, "dure_status is du_err")
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

struct dure_model {
    du_lm *lm;
};

struct dure_session {
    dure_model *model;
    du_infer *inf;
    du_session *session;
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

const char *dure_version(void) {
    return DURE_VERSION;
}

void dure_free(void *p) {
    du_free(p);
}

dure_model *dure_model_open(const char *path, dure_error *error) {
    du_diag diag = empty_diag();
    dure_model *model = du_alloc_zero(1, sizeof *model);
    du_err err = model ? du_lm_open(&model->lm, path, &diag) : du_fail_nomem(&diag, "a model");
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
    return (int32_t)model->lm->model->hp.n_vocab;
}

int64_t dure_model_n_ctx_train(const dure_model *model) {
    return model->lm->model->hp.n_ctx_train;
}

bool dure_model_has_chat(const dure_model *model) {
    return model->lm->chat != NULL;
}

dure_status dure_tokenize(const dure_model *model, const char *text, size_t len, bool with_bos,
                          bool parse_special, int32_t **ids, size_t *n_ids, dure_error *error) {
    du_diag diag = empty_diag();
    du_ids list = {0};
    du_sv sv = {text, len};
    unsigned flags = parse_special ? DU_ENCODE_SPECIAL : 0;
    du_err err = with_bos ? du_tokenizer_encode_prompt(model->lm->tok, sv, flags, &list, &diag)
                          : du_tokenizer_encode(model->lm->tok, sv, flags, &list, &diag);
    if (err == DU_OK) {
        *ids = list.ids;
        *n_ids = list.n;
    } else {
        du_ids_done(&list);
    }
    return tell(error, err, &diag);
}

char *dure_detokenize(const dure_model *model, const int32_t *ids, size_t n_ids, size_t *len,
                      dure_error *error) {
    du_diag diag = empty_diag();
    du_str text = {0};
    du_detok detok;
    du_detok_init(&detok, model->lm->tok, DU_DECODE_START);
    for (size_t i = 0; i < n_ids; i++) {
        du_detok_push(&detok, ids[i], &text);
    }
    du_detok_flush(&detok, &text);
    size_t n = text.len;
    char *out = du_str_take(&text);
    tell(error, out ? DU_OK : du_fail_nomem(&diag, "text"), &diag);
    if (out && len) {
        *len = n;
    }
    return out;
}

static du_err infer_params(du_infer_params *out, const dure_session_params *params, du_diag *diag) {
    *out = du_infer_defaults();
    if (!params) {
        return DU_OK;
    }
    out->n_threads = params->n_threads;
    out->n_ctx = params->n_ctx;
    if (params->cache_type && strcmp(params->cache_type, "auto") != 0) {
        out->auto_cache = false;
        if (!du_dtype_find(&out->cache_type, params->cache_type)) {
            return du_fail(diag, DU_EINVAL, "cache_type '%s' is not auto, f32, f16, bf16 or q8_0",
                           params->cache_type);
        }
    }
    return DU_OK;
}

dure_session *dure_session_new(dure_model *model, const dure_session_params *params,
                               dure_error *error) {
    du_diag diag = empty_diag();
    du_infer_params p;
    dure_session *s = du_alloc_zero(1, sizeof *s);
    du_err err = s ? infer_params(&p, params, &diag) : du_fail_nomem(&diag, "a session");
    if (err == DU_OK) {
        s->model = model;
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

dure_status dure_session_sync(dure_session *s, const int32_t *ids, size_t n_ids,
                              const float **logits, dure_error *error) {
    du_diag diag = empty_diag();
    du_err err = n_ids == 0 ? du_fail(&diag, DU_EINVAL, "no tokens")
                            : du_session_sync(s->session, ids, (int64_t)n_ids, NULL, NULL, &diag);
    if (err == DU_OK) {
        *logits = du_session_logits(s->session);
    }
    return tell(error, err, &diag);
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
    du_str_add_sv(&f->reasoning, reasoning);
    du_str_add_sv(&f->content, content);
    return f->params->on_text(f->params->user, du_str_get(&f->reasoning), du_str_get(&f->content));
}

static du_err generate(dure_session *s, const du_ids *prompt, bool split, du_reasoning_start start,
                       const dure_generate_params *params, du_generation *out, du_diag *diag) {
    forwarding f = {.params = params};
    du_generate_params p = {.sampler = s->model->lm->sampling, .split = split, .start = start};
    if (params) {
        p.n_max = params->n_max;
        p.sampler.seed = params->seed;
        if (params->temperature >= 0) {
            p.sampler.temperature = params->temperature;
            p.sampler.top_k = params->top_k;
            p.sampler.top_p = params->top_p > 0 ? params->top_p : 1;
            p.sampler.min_p = params->min_p;
        }
        p.on_text = params->on_text ? forward_text : NULL;
        p.user = &f;
    }
    du_err err =
        du_generate(out, s->session, s->model->lm, prompt->ids, (int64_t)prompt->n, &p, diag);
    du_str_done(&f.reasoning);
    du_str_done(&f.content);
    return err;
}

/* Hands over what was generated. */
static char *take(du_generation *g, du_err err, char **reasoning, dure_error *error,
                  du_diag *diag) {
    char *content = err == DU_OK ? du_str_take(&g->content) : NULL;
    char *thought = content && reasoning ? du_str_take(&g->reasoning) : NULL;
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
    du_err err = du_json_parse(&messages, messages_json, strlen(messages_json), "messages", &diag);
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
    return take(&g, err, reasoning, error, &diag);
}

char *dure_complete(dure_session *s, const char *text, const dure_generate_params *params,
                    dure_error *error) {
    du_diag diag = empty_diag();
    du_ids ids = {0};
    du_generation g = {0};
    du_err err = du_tokenizer_encode_prompt(s->model->lm->tok, du_sv_of(text), 0, &ids, &diag);
    if (err == DU_OK) {
        err = generate(s, &ids, false, DU_REASONING_CLOSED, params, &g, &diag);
    }
    du_ids_done(&ids);
    return take(&g, err, NULL, error, &diag);
}
