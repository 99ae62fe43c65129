/* tokenizer.json and tokenizer_config.json of Hugging Face directories (huggingface/tokenizers
 * 0.23).
 *
 *     model         {"type": "BPE", "vocab": {text: id}, "merges": ["a b"] or [["a", "b"]], ...}
 *     added_tokens  [{"id", "content", "special", "normalized", "lstrip", "rstrip", "single_word"}]
 *     the rest      pipeline_json.c
 *
 * tokenizer_config.json says which texts are BOS, EOS, padding and unknown, and whether BOS is put
 * before a text; where it does not, the post-processor of tokenizer.json does. */
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "text/pipeline_json.h"
#include "text/tokenizer_int.h"

enum {
    FILE_BYTES_MAX = 256 << 20,
    GAPS_MAX = 1 << 16 /* ids without a token, beyond as many as there are tokens */
};

typedef struct {
    du_tokenizer *tok;
    json_t *model, *vocab, *merges, *added; /* added NULL: there are none */
    bool byte_fallback;
    du_diag *diag;
} loader;

static du_err malformed(const loader *l, const char *place, const char *why) {
    return du_fail(l->diag, DU_EFORMAT, "%s: %s", place, why);
}

/* Options of the model that no known file uses. */
static du_err check_model(loader *l) {
    const char *type = "BPE", *prefix = "", *suffix = "";
    double dropout = 0;
    du_err err = du_json_get_str(l->model, "type", &type, l->diag);
    if (err == DU_OK && strcmp(type, "BPE") != 0) {
        return du_fail(l->diag, DU_EUNSUPPORTED, "type '%.64s' is not supported, only BPE", type);
    }
    if (err == DU_OK) {
        err = du_json_get_str(l->model, "continuing_subword_prefix", &prefix, l->diag);
    }
    if (err == DU_OK) {
        err = du_json_get_str(l->model, "end_of_word_suffix", &suffix, l->diag);
    }
    if (err == DU_OK) {
        err = du_json_get_f64(l->model, "dropout", &dropout, l->diag);
    }
    if (err == DU_OK && (*prefix || *suffix || dropout != 0)) {
        const char *what = *prefix   ? "continuing_subword_prefix"
                           : *suffix ? "end_of_word_suffix"
                                     : "dropout";
        return du_fail(l->diag, DU_EUNSUPPORTED, "%s is not supported", what);
    }
    if (err == DU_OK) {
        err = du_json_get_bool(l->model, "byte_fallback", &l->byte_fallback, l->diag);
    }
    if (err == DU_OK) {
        err = du_json_get_bool(l->model, "fuse_unk", &l->tok->fuse_unk, l->diag);
    }
    return err == DU_OK
               ? du_json_get_bool(l->model, "ignore_merges", &l->tok->ignore_merges, l->diag)
               : err;
}

static du_err find_parts(loader *l, const json_t *json) {
    l->model = json_object_get(json, "model");
    if (!json_is_object(l->model)) {
        return malformed(l, "model", "missing, or not an object");
    }
    l->vocab = json_object_get(l->model, "vocab");
    l->merges = json_object_get(l->model, "merges");
    l->added = json_object_get(json, "added_tokens");
    l->added = json_is_null(l->added) ? NULL : l->added;
    du_err err = check_model(l);
    if (err != DU_OK) {
        du_diag_context(l->diag, "model");
        return err;
    }
    if (!json_is_object(l->vocab)) {
        return malformed(l, "model.vocab", "missing, or not an object");
    }
    if (!json_is_array(l->merges)) {
        return malformed(l, "model.merges", "missing, or not a list");
    }
    return l->added && !json_is_array(l->added) ? malformed(l, "added_tokens", "not a list")
                                                : DU_OK;
}

/* One entry of added_tokens. */
typedef struct {
    du_sv content;
    du_added token;
    bool normalized;
} added;

static du_err read_added(const loader *l, size_t i, added *a) {
    const json_t *entry = json_array_get(l->added, i);
    const json_t *content = json_object_get(entry, "content");
    int64_t id = -1;
    *a = (added){.token.id = -1};
    du_err err = DU_OK;
    if (!json_is_string(content) || json_string_length(content) == 0) {
        err = du_fail(l->diag, DU_EFORMAT, "content: not a text");
    }
    const struct {
        const char *key;
        bool *flag;
    } flags[] = {{"special", &a->token.special},
                 {"lstrip", &a->token.lstrip},
                 {"rstrip", &a->token.rstrip},
                 {"single_word", &a->token.single_word},
                 {"normalized", &a->normalized}};
    if (err == DU_OK) {
        err = du_json_get_i64(entry, "id", 0, DU_VOCAB_TOKENS_MAX - 1, &id, l->diag);
    }
    for (size_t k = 0; k < sizeof flags / sizeof flags[0] && err == DU_OK; k++) {
        err = du_json_get_bool(entry, flags[k].key, flags[k].flag, l->diag);
    }
    if (err == DU_OK && id < 0) {
        err = du_fail(l->diag, DU_EFORMAT, "id: missing");
    }
    if (err != DU_OK) {
        du_diag_context(l->diag, "added_tokens[%zu]", i);
        return err;
    }
    a->content = (du_sv){json_string_value(content), json_string_length(content)};
    a->token.id = (int32_t)id;
    return DU_OK;
}

/* Highest id, number of tokens, bytes of their texts. */
typedef struct {
    int64_t id_max, n;
    size_t bytes;
} extent;

static void extend(extent *e, int64_t id, size_t bytes) {
    e->id_max = id > e->id_max ? id : e->id_max;
    e->n++;
    e->bytes += bytes;
}

static du_err measure(const loader *l, extent *e) {
    *e = (extent){.id_max = -1};
    const char *key;
    size_t key_len;
    json_t *value;
    du_err err = DU_OK;
    json_object_keylen_foreach(l->vocab, key, key_len, value) {
        int64_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= DU_VOCAB_TOKENS_MAX) {
            err = du_fail(l->diag, DU_EFORMAT, "model.vocab: '%.*s' has no id from 0 to %d",
                          key_len > 64 ? 64 : (int)key_len, key, DU_VOCAB_TOKENS_MAX - 1);
            break;
        }
        extend(e, id, key_len);
    }
    for (size_t i = 0; i < json_array_size(l->added) && err == DU_OK; i++) {
        added a;
        err = read_added(l, i, &a);
        extend(e, a.token.id, a.content.len);
    }
    if (err == DU_OK && e->n == 0) {
        err = malformed(l, "model.vocab", "no tokens");
    }
    if (err == DU_OK && e->id_max >= 2 * e->n + GAPS_MAX) {
        err = du_fail(l->diag, DU_ELIMIT, "model.vocab: id %lld with only %lld tokens",
                      (long long)e->id_max, (long long)e->n);
    }
    return err;
}

static du_err load_tokens(loader *l) {
    du_vocab *v = &l->tok->vocab;
    const char *key;
    size_t key_len;
    json_t *value;
    for (size_t i = 0; i < json_array_size(l->added); i++) {
        added a;
        du_err err = read_added(l, i, &a);
        du_token_type type = a.token.special ? DU_TOKEN_CONTROL : DU_TOKEN_USER_DEFINED;
        if (err == DU_OK) {
            err = du_vocab_set(v, a.token.id, a.content, type, l->diag);
        }
        if (err != DU_OK) {
            du_diag_context(l->diag, "added_tokens[%zu]", i);
            return err;
        }
    }
    json_object_keylen_foreach(l->vocab, key, key_len, value) {
        int32_t id = (int32_t)json_integer_value(value);
        du_sv text = {key, key_len};
        if (v->texts[id].s && du_sv_eq(v->texts[id], text)) {
            continue; /* an added token that the vocabulary has too */
        }
        bool byte = l->byte_fallback && key_len == 6 && du_sv_starts(text, "<0x");
        du_err err = du_vocab_set(v, id, text, byte ? DU_TOKEN_BYTE : DU_TOKEN_NORMAL, l->diag);
        if (err != DU_OK) {
            du_diag_context(l->diag, "model.vocab");
            return err;
        }
    }
    return DU_OK;
}

static du_err load_unk(loader *l) {
    const char *unk = NULL;
    du_err err = du_json_get_str(l->model, "unk_token", &unk, l->diag);
    if (err == DU_OK && unk) {
        l->tok->unk = du_vocab_find(&l->tok->vocab, du_sv_of(unk));
        if (l->tok->unk < 0) {
            err = du_fail(l->diag, DU_EFORMAT, "unk_token: '%.64s' is no token", unk);
        } else if (l->tok->kind == DU_TOKENIZE_CHARS) {
            l->tok->vocab.types[l->tok->unk] = DU_TOKEN_UNKNOWN;
        }
    }
    if (err != DU_OK) {
        du_diag_context(l->diag, "model");
    }
    return err;
}

static du_err load_vocab(loader *l) {
    extent e;
    du_err err = measure(l, &e);
    if (err == DU_OK) {
        err = du_vocab_init(&l->tok->vocab, (int32_t)(e.id_max + 1), e.bytes, l->diag);
    }
    if (err == DU_OK) {
        err = load_tokens(l);
    }
    if (err == DU_OK) {
        err = load_unk(l);
    }
    return err == DU_OK ? du_vocab_finish(&l->tok->vocab,
                                          l->tok->kind == DU_TOKENIZE_BYTES ? DU_VOCAB_BYTE_LEVEL
                                                                            : DU_VOCAB_SPM,
                                          l->diag)
                        : err;
}

/* The two parts of a merge; false: it is none. */
static bool read_merge(const json_t *merge, du_sv *left, du_sv *right) {
    if (json_is_array(merge)) {
        const json_t *a = json_array_get(merge, 0), *b = json_array_get(merge, 1);
        if (json_array_size(merge) != 2 || !json_is_string(a) || !json_is_string(b)) {
            return false;
        }
        *left = (du_sv){json_string_value(a), json_string_length(a)};
        *right = (du_sv){json_string_value(b), json_string_length(b)};
        return true;
    }
    if (!json_is_string(merge)) {
        return false;
    }
    du_sv text = {json_string_value(merge), json_string_length(merge)};
    int64_t blank = du_sv_find(text, du_sv_of(" "), 0);
    if (blank < 0 || du_sv_find(text, du_sv_of(" "), (size_t)blank + 1) >= 0) {
        return false;
    }
    *left = (du_sv){text.s, (size_t)blank};
    *right = (du_sv){text.s + blank + 1, text.len - (size_t)blank - 1};
    return true;
}

static du_err load_merges(loader *l) {
    size_t n = json_array_size(l->merges), rank = 0;
    du_str tmp = {0};
    du_err err = du_tokenizer_begin_merges(l->tok, n, l->diag);
    for (size_t i = 0; i < n && err == DU_OK; i++) {
        const json_t *merge = json_array_get(l->merges, i);
        du_sv left, right;
        if (json_is_string(merge) && strncmp(json_string_value(merge), "#version", 8) == 0) {
            continue; /* the heading of a merges.txt */
        }
        if (read_merge(merge, &left, &right)) {
            err = du_tokenizer_add_merge(l->tok, rank++, left, right, true, &tmp, l->diag);
        } else {
            err =
                du_fail(l->diag, DU_EFORMAT, "merge %zu is not two parts with a blank between", i);
        }
    }
    l->tok->n_merges = rank;
    du_str_done(&tmp);
    if (err != DU_OK) {
        du_diag_context(l->diag, "model.merges");
    }
    return err;
}

/* The sets that added tokens are found by: as they stand, or as the normaliser makes them. */
static du_err load_added_sets(loader *l) {
    du_tokenizer *tok = l->tok;
    du_str buffers[2] = {0};
    du_err err = DU_OK;
    for (size_t i = 0; i < json_array_size(l->added) && err == DU_OK; i++) {
        added a;
        err = read_added(l, i, &a);
        du_sv text = a.content;
        if (err == DU_OK && a.normalized) {
            err = du_normalizer_run(&tok->normalizer, text, true, buffers, &text, l->diag);
        }
        if (err == DU_OK) {
            a.token.special = tok->vocab.types[a.token.id] != DU_TOKEN_USER_DEFINED;
            err = du_added_add(a.normalized ? &tok->added_normalized : &tok->added, text, &a.token,
                               l->diag);
        }
        if (err != DU_OK) {
            du_diag_context(l->diag, "added_tokens[%zu]", i);
        }
    }
    du_str_done(&buffers[0]);
    du_str_done(&buffers[1]);
    return err;
}

/* config[key]: a text, an object with a "content", or null; -1 where it is no token. */
static du_err config_token(loader *l, const json_t *config, const char *key, int32_t *id) {
    const json_t *value = json_object_get(config, key);
    if (!value) {
        return DU_OK;
    }
    const json_t *text = json_is_object(value) ? json_object_get(value, "content") : value;
    if (!json_is_string(text) && !json_is_null(value)) {
        return du_fail(l->diag, DU_EFORMAT, "%s: not a text", key);
    }
    du_sv name = {json_string_value(text), json_string_length(text)};
    *id = json_is_null(value) ? -1 : du_vocab_find(&l->tok->vocab, name);
    return DU_OK;
}

static du_err load_config(loader *l, const json_t *config) {
    if (!config) {
        return DU_OK;
    }
    if (!json_is_object(config)) {
        return malformed(l, "tokenizer_config", "not an object");
    }
    du_tokenizer_info *info = &l->tok->info;
    const struct {
        const char *key;
        int32_t *id;
    } tokens[] = {{"bos_token", &info->bos},
                  {"eos_token", &info->eos},
                  {"pad_token", &info->pad},
                  {"unk_token", &info->unk}};
    du_err err = DU_OK;
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0] && err == DU_OK; i++) {
        err = config_token(l, config, tokens[i].key, tokens[i].id);
    }
    if (err == DU_OK) {
        err = du_json_get_bool(config, "add_bos_token", &info->add_bos, l->diag);
    }
    if (err == DU_OK) {
        err = du_json_get_bool(config, "add_eos_token", &info->add_eos, l->diag);
    }
    if (err != DU_OK) {
        du_diag_context(l->diag, "tokenizer_config");
    }
    return err;
}

static du_err load(loader *l, const json_t *json, const json_t *config) {
    du_err err = json_is_object(json) ? find_parts(l, json) : malformed(l, "root", "not an object");
    if (err == DU_OK) {
        err = du_pipeline_load(l->tok, json, l->diag);
    }
    if (err == DU_OK) {
        err = load_vocab(l);
    }
    if (err == DU_OK) {
        err = load_merges(l);
    }
    if (err == DU_OK) {
        err = load_added_sets(l);
    }
    l->tok->info.unk = l->tok->unk;
    if (err == DU_OK) {
        err = du_pipeline_load_post(l->tok, json, l->diag);
    }
    if (err == DU_OK) {
        err = load_config(l, config);
    }
    if (err == DU_OK && l->tok->kind == DU_TOKENIZE_BYTES && l->tok->pretok) {
        err = du_pretok_find_rule(l->tok->pretok, &l->tok->rule, l->diag);
    }
    return err == DU_OK ? du_tokenizer_finish(l->tok, l->diag) : err;
}

du_err du_tokenizer_from_json(du_tokenizer **out, const json_t *json, const json_t *config,
                              du_diag *diag) {
    loader l = {.tok = du_tokenizer_new(), .diag = diag};
    du_err err = l.tok ? load(&l, json, config) : du_fail_nomem(diag, "a tokenizer");
    if (err != DU_OK) {
        du_tokenizer_free(l.tok);
        return err;
    }
    *out = l.tok;
    return DU_OK;
}

du_err du_tokenizer_from_dir(du_tokenizer **out, const char *dir, du_diag *diag) {
    char *path = du_path_join(dir, "tokenizer.json");
    char *config_path = du_path_join(dir, "tokenizer_config.json");
    json_t *json = NULL, *config = NULL;
    du_err err = path && config_path ? du_json_load(&json, path, FILE_BYTES_MAX, diag)
                                     : du_fail_nomem(diag, dir);
    if (err == DU_OK && du_file_exists(config_path)) {
        err = du_json_load(&config, config_path, FILE_BYTES_MAX, diag);
    }
    if (err == DU_OK) {
        err = du_tokenizer_from_json(out, json, config, diag);
        if (err != DU_OK) {
            du_diag_context(diag, "%s", path);
        }
    }
    json_decref(json);
    json_decref(config);
    du_free(path);
    du_free(config_path);
    return err;
}
