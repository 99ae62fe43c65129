/* The keys tokenizer.ggml.* of GGUF files (docs/gguf.md of ggml-org/ggml), with the defaults that
 * llama.cpp gives to absent ones.
 *
 *     model              "gpt2" (byte-level BPE) or "llama" (SentencePiece BPE)
 *     pre                named pre-tokenizer rule of "gpt2"; absent: "default"
 *     tokens             texts; "gpt2" in GPT-2's byte alphabet
 *     token_type         one of du_token_type per token; absent: all normal
 *     scores             of "llama"
 *     merges             of "gpt2": "left right", rank by rank
 *     bos_token_id ...   ids of special tokens
 *     add_bos_token, add_eos_token, add_space_prefix
 *
 * No normaliser is named, so none is applied. Published files repeat texts of tokens they do not
 * use, and name special tokens outside the vocabulary for want of one; neither is an error. */
#include <math.h>

#include "base/mem.h"
#include "formats/gguf.h"
#include "text/tokenizer_int.h"

#define KEY(name) "tokenizer.ggml." name

typedef struct {
    const du_gguf *gguf;
    du_tokenizer *tok;
    du_diag *diag;
    du_sv *tokens; /* [n], as all that follows */
    int32_t *types;
    float *scores;
    du_sv *merges;
    int64_t n, n_types, n_scores, n_merges;
} loader;

static du_err malformed(const loader *l, const char *key, const char *why) {
    return du_fail(l->diag, DU_EFORMAT, "%s: " KEY("%s") ": %s", du_gguf_path(l->gguf), key, why);
}

static du_err read_arrays(loader *l) {
    du_err err = du_gguf_get_strs(l->gguf, KEY("tokens"), &l->tokens, &l->n, l->diag);
    if (err == DU_OK) {
        err = du_gguf_get_i32s(l->gguf, KEY("token_type"), 0, DU_TOKEN_BYTE, &l->types, &l->n_types,
                               l->diag);
    }
    if (err == DU_OK && l->tok->kind == DU_TOKENIZE_SPM) {
        err = du_gguf_get_f32s(l->gguf, KEY("scores"), &l->scores, &l->n_scores, l->diag);
    } else if (err == DU_OK) {
        err = du_gguf_get_strs(l->gguf, KEY("merges"), &l->merges, &l->n_merges, l->diag);
    }
    if (err != DU_OK) {
        return err;
    }
    if (l->n < 1 || l->n > DU_VOCAB_TOKENS_MAX) {
        return malformed(l, "tokens", l->n < 1 ? "missing or empty" : "too many");
    }
    if (l->types && l->n_types != l->n) {
        return malformed(l, "token_type", "not as many as tokens");
    }
    if (l->tok->kind == DU_TOKENIZE_SPM && l->n_scores != l->n) {
        return malformed(l, "scores", l->scores ? "not as many as tokens" : "missing");
    }
    if (l->tok->kind == DU_TOKENIZE_BYTES && !l->merges) {
        return malformed(l, "merges", "missing");
    }
    return DU_OK;
}

/* Without token types everything is normal but the byte tokens, which only SentencePiece has. */
static du_token_type type_of(const loader *l, int64_t i) {
    bool spm = l->tok->kind == DU_TOKENIZE_SPM;
    du_sv text = l->tokens[i];
    if (!l->types) {
        return spm && text.len == 6 && du_sv_starts(text, "<0x") ? DU_TOKEN_BYTE : DU_TOKEN_NORMAL;
    }
    du_token_type type = (du_token_type)l->types[i];
    return !type ? DU_TOKEN_UNUSED : type == DU_TOKEN_BYTE && !spm ? DU_TOKEN_NORMAL : type;
}

static du_err load_vocab(loader *l) {
    du_vocab *v = &l->tok->vocab;
    size_t bytes = 0;
    for (int64_t i = 0; i < l->n; i++) {
        bytes += l->tokens[i].len;
    }
    du_err err = du_vocab_init(v, (int32_t)l->n, bytes, l->diag);
    for (int32_t id = 0; id < l->n && err == DU_OK; id++) {
        if (l->tokens[id].len) { /* an empty one is left unused */
            err = du_vocab_set_twin(v, id, l->tokens[id], type_of(l, id), l->diag);
        }
    }
    if (err == DU_OK) {
        err = du_vocab_finish(
            v, l->tok->kind == DU_TOKENIZE_SPM ? DU_VOCAB_SPM : DU_VOCAB_BYTE_LEVEL, l->diag);
    }
    for (int32_t id = 0; id < l->n && err == DU_OK; id++) {
        bool special = v->types[id] == DU_TOKEN_CONTROL || v->types[id] == DU_TOKEN_UNKNOWN;
        if ((special || v->types[id] == DU_TOKEN_USER_DEFINED) && !du_vocab_is_twin(v, id)) {
            const du_added token = {.id = id, .special = special};
            err = du_added_add(&l->tok->added, v->texts[id], &token, l->diag);
        }
    }
    if (err != DU_OK) {
        du_diag_context(l->diag, "%s: " KEY("tokens"), du_gguf_path(l->gguf));
    }
    return err;
}

static du_err load_merges(loader *l) {
    du_str tmp = {0};
    du_err err = du_tokenizer_begin_merges(l->tok, (size_t)l->n_merges, l->diag);
    for (int64_t i = 0; i < l->n_merges && err == DU_OK; i++) {
        du_sv merge = l->merges[i];
        int64_t blank = merge.len ? du_sv_find(merge, du_sv_of(" "), 1) : -1;
        if (blank < 0) {
            err = du_fail(l->diag, DU_EFORMAT, "merge %lld has no blank", (long long)i);
            break;
        }
        du_sv left = {merge.s, (size_t)blank};
        du_sv right = {merge.s + blank + 1, merge.len - (size_t)blank - 1};
        err = du_tokenizer_add_merge(l->tok, (size_t)i, left, right, false, &tmp, l->diag);
    }
    du_str_done(&tmp);
    if (err != DU_OK) {
        du_diag_context(l->diag, "%s: " KEY("merges"), du_gguf_path(l->gguf));
    }
    return err;
}

static du_err load_scores(loader *l) {
    for (int64_t i = 0; i < l->n; i++) {
        if (!isfinite(l->scores[i])) {
            return malformed(l, "scores", "not a finite number");
        }
    }
    l->tok->vocab.scores = l->scores;
    l->scores = NULL;
    du_err err = du_normalizer_add(&l->tok->edits, DU_NORMALIZE_REPLACE, du_sv_of(" "),
                                   du_sv_of("\xe2\x96\x81"), l->diag);
    if (err == DU_OK && !du_spm_init(&l->tok->spm, &l->tok->vocab)) {
        err = du_fail_nomem(l->diag, "the vocabulary");
    }
    return err;
}

/* An id. One that lies outside the vocabulary says nothing, but for BOS: without it every prompt
 * would be another one. */
static du_err load_id(loader *l, const char *key, int32_t *id) {
    bool strict = id == &l->tok->info.bos;
    int64_t v = *id;
    du_err err = du_gguf_get_i64(l->gguf, key, strict ? 0 : INT64_MIN,
                                 strict ? l->tok->vocab.n - 1 : INT64_MAX, &v, l->diag);
    if (err == DU_OK && v >= 0 && v < l->tok->vocab.n) {
        *id = (int32_t)v;
    }
    return err;
}

static du_err load_ids(loader *l) {
    du_tokenizer_info *info = &l->tok->info;
    const struct {
        const char *key;
        int32_t *id;
        int32_t spm_default;
    } ids[] = {
        {KEY("bos_token_id"), &info->bos, 1},
        {KEY("eos_token_id"), &info->eos, 2},
        {KEY("unknown_token_id"), &info->unk, 0},
        {KEY("eot_token_id"), &info->eot, -1},
        {KEY("eom_token_id"), &info->eom, -1},
        {KEY("padding_token_id"), &info->pad, -1},
        {KEY("fim_pre_token_id"), &info->fim_prefix, -1},
        {KEY("fim_suf_token_id"), &info->fim_suffix, -1},
        {KEY("fim_mid_token_id"), &info->fim_middle, -1},
    };
    bool spm = l->tok->kind == DU_TOKENIZE_SPM;
    du_err err = DU_OK;
    for (size_t i = 0; i < sizeof ids / sizeof ids[0] && err == DU_OK; i++) {
        if (spm && ids[i].spm_default < l->tok->vocab.n) {
            *ids[i].id = ids[i].spm_default;
        }
        err = load_id(l, ids[i].key, ids[i].id);
    }
    if (spm) {
        l->tok->unk = info->unk;
    }
    return err;
}

static du_err load_flags(loader *l) {
    du_tokenizer_info *info = &l->tok->info;
    bool spm = l->tok->kind == DU_TOKENIZE_SPM;
    info->add_bos = spm || l->tok->rule->add_bos;
    info->add_space_prefix = spm;
    du_err err = du_gguf_get_bool(l->gguf, KEY("add_bos_token"), &info->add_bos, l->diag);
    if (err == DU_OK) {
        err = du_gguf_get_bool(l->gguf, KEY("add_eos_token"), &info->add_eos, l->diag);
    }
    if (err == DU_OK && spm) {
        err = du_gguf_get_bool(l->gguf, KEY("add_space_prefix"), &info->add_space_prefix, l->diag);
    }
    l->tok->prefix_after_added = spm;
    l->tok->strip_start = info->add_space_prefix;
    return err;
}

static du_err load_model(loader *l) {
    du_sv model = {0}, pre = du_sv_of("default");
    du_err err = du_gguf_get_str(l->gguf, KEY("model"), &model, l->diag);
    if (err == DU_OK) {
        err = du_gguf_get_str(l->gguf, KEY("pre"), &pre, l->diag);
    }
    if (err != DU_OK) {
        return err;
    }
    if (!model.s) {
        return malformed(l, "model", "missing: the file has no tokenizer");
    }
    if (du_sv_is(model, "llama")) {
        l->tok->kind = DU_TOKENIZE_SPM;
        return DU_OK;
    }
    if (!du_sv_is(model, "gpt2")) {
        return du_fail(l->diag, DU_EUNSUPPORTED,
                       "%s: " KEY("model") ": '%.*s' is not supported, only gpt2 and llama",
                       du_gguf_path(l->gguf), model.len > 64 ? 64 : (int)model.len, model.s);
    }
    l->tok->kind = DU_TOKENIZE_BYTES;
    err = du_pretok_from_rule(&l->tok->pretok, &l->tok->rule, pre, l->diag);
    if (err != DU_OK) {
        du_diag_context(l->diag, "%s: " KEY("pre"), du_gguf_path(l->gguf));
        return err;
    }
    l->tok->ignore_merges = l->tok->rule->ignore_merges;
    return DU_OK;
}

static du_err load(loader *l) {
    du_err err = load_model(l);
    if (err == DU_OK) {
        err = read_arrays(l);
    }
    if (err == DU_OK) {
        err = load_vocab(l);
    }
    if (err == DU_OK) {
        err = l->tok->kind == DU_TOKENIZE_SPM ? load_scores(l) : load_merges(l);
    }
    if (err == DU_OK) {
        err = load_ids(l);
    }
    if (err == DU_OK) {
        err = load_flags(l);
    }
    return err == DU_OK ? du_tokenizer_finish(l->tok, l->diag) : err;
}

du_err du_tokenizer_from_gguf(du_tokenizer **out, const du_gguf *gguf, du_diag *diag) {
    loader l = {.gguf = gguf, .tok = du_tokenizer_new(), .diag = diag};
    du_err err = l.tok ? load(&l) : du_fail_nomem(diag, "a tokenizer");
    du_free(l.tokens);
    du_free(l.types);
    du_free(l.scores);
    du_free(l.merges);
    if (err != DU_OK) {
        du_tokenizer_free(l.tok);
        return err;
    }
    *out = l.tok;
    return DU_OK;
}
