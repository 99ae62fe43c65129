/* tokenizer.json of a tokenizer, in the layout that tokenizer_json.c reads. Every token stands in
 * the model's vocabulary, added ones too: readers number those that do not by themselves. */
#include <stdlib.h>

#include "base/mem.h"
#include "text/tokenizer_int.h"
#include "text/tokenizer_write.h"
#include "text/unicode.h"

#define BLANK "\xe2\x96\x81" /* U+2581 */

/* A builder whose failures are sticky: memory is short. */
typedef struct {
    bool failed;
} builder;

static void put(builder *b, json_t *object, const char *key, json_t *value) {
    b->failed |= json_object_set_new(object, key, value) != 0;
}

static void append(builder *b, json_t *list, json_t *value) {
    b->failed |= json_array_append_new(list, value) != 0;
}

static json_t *text_of(du_sv text) {
    return json_stringn(text.s, text.len);
}

static json_t *object_of_type(builder *b, const char *type) {
    json_t *object = json_object();
    put(b, object, "type", json_string(type));
    return object;
}

/* {"type": "Sequence", key: list} */
static json_t *sequence(builder *b, const char *key, json_t *list) {
    json_t *object = object_of_type(b, "Sequence");
    put(b, object, key, list);
    return object;
}

static json_t *byte_level(builder *b, bool trim_offsets, bool others) {
    json_t *step = object_of_type(b, "ByteLevel");
    put(b, step, "add_prefix_space", json_boolean(others));
    put(b, step, "trim_offsets", json_boolean(trim_offsets));
    put(b, step, "use_regex", json_boolean(others));
    return step;
}

static json_t *replace(builder *b, const char *from, const char *to) {
    json_t *step = object_of_type(b, "Replace"), *pattern = json_object();
    put(b, pattern, "String", json_string(from));
    put(b, step, "pattern", pattern);
    put(b, step, "content", json_string(to));
    return step;
}

static json_t *pre_tokenizer(builder *b, const du_tokenizer *tok) {
    size_t n = 0;
    const char *const *patterns = du_pretok_rule_patterns(tok->rule->name, &n);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *step = object_of_type(b, "Split"), *pattern = json_object();
        put(b, pattern, "Regex", json_string(patterns[i]));
        put(b, step, "pattern", pattern);
        put(b, step, "behavior", json_string("Isolated"));
        put(b, step, "invert", json_false());
        append(b, list, step);
    }
    append(b, list, byte_level(b, true, false));
    return sequence(b, "pretokenizers", list);
}

static json_t *normalizer(builder *b, const du_tokenizer *tok) {
    json_t *list = json_array();
    if (tok->kind == DU_TOKENIZE_BYTES) {
        for (size_t i = 0; i < tok->normalizer.n; i++) { /* NFC: the others are refused */
            append(b, list, object_of_type(b, "NFC"));
        }
    } else {
        if (tok->info.add_space_prefix) {
            json_t *step = object_of_type(b, "Prepend");
            put(b, step, "prepend", json_string(BLANK));
            append(b, list, step);
        }
        append(b, list, replace(b, " ", BLANK));
    }
    if (json_array_size(list) == 0) {
        json_decref(list);
        return json_null();
    }
    return sequence(b, "normalizers", list);
}

static json_t *decoder(builder *b, const du_tokenizer *tok) {
    if (tok->kind == DU_TOKENIZE_BYTES) {
        return byte_level(b, true, true);
    }
    json_t *list = json_array();
    append(b, list, replace(b, BLANK, " "));
    append(b, list, object_of_type(b, "ByteFallback"));
    append(b, list, object_of_type(b, "Fuse"));
    if (tok->strip_start) {
        json_t *step = object_of_type(b, "Strip");
        put(b, step, "content", json_string(" "));
        put(b, step, "start", json_integer(1));
        put(b, step, "stop", json_integer(0));
        append(b, list, step);
    }
    return sequence(b, "decoders", list);
}

/* Puts a token into a template and into its list of special tokens. */
static void template_token(builder *b, const du_tokenizer *tok, int32_t id, json_t *parts,
                           json_t *specials) {
    du_sv text = tok->vocab.texts[id];
    json_t *part = json_object(), *token = json_object(), *special = json_object();
    json_t *ids = json_array(), *tokens = json_array();
    put(b, token, "id", text_of(text));
    put(b, token, "type_id", json_integer(0));
    put(b, part, "SpecialToken", token);
    append(b, parts, part);
    append(b, ids, json_integer(id));
    append(b, tokens, text_of(text));
    put(b, special, "id", text_of(text));
    put(b, special, "ids", ids);
    put(b, special, "tokens", tokens);
    b->failed |= json_object_setn_new(specials, text.s, text.len, special) != 0;
}

static void template_text(builder *b, json_t *parts, const char *name, int type_id) {
    json_t *part = json_object(), *text = json_object();
    put(b, text, "id", json_string(name));
    put(b, text, "type_id", json_integer(type_id));
    put(b, part, "Sequence", text);
    append(b, parts, part);
}

static json_t *post_processor(builder *b, const du_tokenizer *tok) {
    const du_tokenizer_info *info = &tok->info;
    bool bos = info->add_bos && info->bos >= 0, eos = info->add_eos && info->eos >= 0;
    if (!bos && !eos) {
        return tok->kind == DU_TOKENIZE_BYTES ? byte_level(b, false, true) : json_null();
    }
    json_t *step = object_of_type(b, "TemplateProcessing"), *specials = json_object();
    const char *const keys[] = {"single", "pair"};
    for (int i = 0; i < 2; i++) {
        json_t *parts = json_array();
        if (bos) {
            template_token(b, tok, info->bos, parts, specials);
        }
        template_text(b, parts, "A", 0);
        if (i == 1) {
            template_text(b, parts, "B", 1);
        }
        if (eos) {
            template_token(b, tok, info->eos, parts, specials);
        }
        put(b, step, keys[i], parts);
    }
    put(b, step, "special_tokens", specials);
    return step;
}

/* Ids up to this one are written: behind it only unused ones follow. */
static int32_t last_used(const du_tokenizer *tok) {
    int32_t id = tok->vocab.n - 1;
    while (id > 0 && tok->vocab.types[id] == DU_TOKEN_UNUSED) {
        id--;
    }
    return id;
}

static bool is_added(const du_tokenizer *tok, int32_t id) {
    du_token_type type = tok->vocab.types[id];
    return type == DU_TOKEN_CONTROL || type == DU_TOKEN_UNKNOWN || type == DU_TOKEN_USER_DEFINED;
}

static json_t *added_tokens(builder *b, const du_tokenizer *tok) {
    static const char *const no[] = {"single_word", "lstrip", "rstrip", "normalized"};
    json_t *list = json_array();
    for (int32_t id = 0; id <= last_used(tok); id++) {
        if (!is_added(tok, id) || du_vocab_is_twin(&tok->vocab, id)) {
            continue;
        }
        json_t *token = json_object();
        put(b, token, "id", json_integer(id));
        put(b, token, "content", text_of(tok->vocab.texts[id]));
        for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
            put(b, token, no[i], json_false());
        }
        put(b, token, "special", json_boolean(tok->vocab.types[id] != DU_TOKEN_USER_DEFINED));
        append(b, list, token);
    }
    return list;
}

static json_t *vocab(builder *b, const du_tokenizer *tok) {
    json_t *object = json_object();
    for (int32_t id = 0; id <= last_used(tok); id++) {
        du_sv text = tok->vocab.texts[id];
        if (!du_vocab_is_twin(&tok->vocab, id)) {
            b->failed |= json_object_setn_new(object, text.s, text.len, json_integer(id)) != 0;
        }
    }
    return object;
}

/* Two tokens that SentencePiece joins, by the score of what they make. */
typedef struct {
    du_merge merge;
    uint32_t rank;
} implied;

static int by_rank(const void *a, const void *b) {
    const implied *x = a, *y = b;
    if (x->rank != y->rank) {
        return x->rank < y->rank ? -1 : 1;
    }
    if (x->merge.merged != y->merge.merged) {
        return x->merge.merged < y->merge.merged ? -1 : 1;
    }
    return (x->merge.left > y->merge.left) - (x->merge.left < y->merge.left);
}

/* All pairs that scores imply, on the heap; false: memory is short. */
static bool implied_merges(const du_tokenizer *tok, implied **out, size_t *n) {
    size_t cap = 0;
    *out = NULL;
    *n = 0;
    for (int32_t id = 0; id < tok->vocab.n; id++) {
        du_sv text = tok->vocab.texts[id];
        if (tok->spm.ranks[id] == DU_RANK_NONE) {
            continue;
        }
        for (size_t cut = 1; cut < text.len; cut++) {
            int32_t left = du_spm_find(&tok->spm, (du_sv){text.s, cut});
            int32_t right =
                left < 0 ? -1 : du_spm_find(&tok->spm, (du_sv){text.s + cut, text.len - cut});
            if (right < 0) {
                continue;
            }
            if (!du_grow((void **)out, &cap, *n, sizeof **out)) {
                return false;
            }
            (*out)[(*n)++] = (implied){{left, right, id}, tok->spm.ranks[id]};
        }
    }
    if (*n) {
        qsort(*out, *n, sizeof **out, by_rank);
    }
    return true;
}

static void append_merge(builder *b, json_t *list, const du_tokenizer *tok, const du_merge *m,
                         du_str *tmp) {
    du_str_reset(tmp);
    du_str_add_sv(tmp, tok->vocab.texts[m->left]);
    du_str_add_c(tmp, ' ');
    du_str_add_sv(tmp, tok->vocab.texts[m->right]);
    b->failed |= tmp->failed;
    append(b, list, text_of(du_str_view(tmp)));
}

static json_t *merges(builder *b, const du_tokenizer *tok) {
    json_t *list = json_array();
    du_str tmp = {0};
    implied *pairs = NULL;
    size_t n = 0;
    if (tok->kind == DU_TOKENIZE_SPM) {
        b->failed |= !implied_merges(tok, &pairs, &n);
    }
    for (size_t i = 0; i < n; i++) {
        append_merge(b, list, tok, &pairs[i].merge, &tmp);
    }
    for (size_t i = 0; i < tok->n_merges; i++) {
        if (tok->merges[i].left >= 0) {
            append_merge(b, list, tok, &tok->merges[i], &tmp);
        }
    }
    du_free(pairs);
    du_str_done(&tmp);
    return list;
}

static json_t *model(builder *b, const du_tokenizer *tok) {
    bool bytes = tok->kind == DU_TOKENIZE_BYTES;
    json_t *object = object_of_type(b, "BPE");
    put(b, object, "dropout", json_null());
    put(b, object, "unk_token", tok->unk < 0 ? json_null() : text_of(tok->vocab.texts[tok->unk]));
    put(b, object, "continuing_subword_prefix", json_null());
    put(b, object, "end_of_word_suffix", json_null());
    put(b, object, "fuse_unk", json_boolean(tok->fuse_unk));
    put(b, object, "byte_fallback", json_boolean(!bytes));
    put(b, object, "ignore_merges", json_boolean(tok->ignore_merges));
    put(b, object, "vocab", vocab(b, tok));
    put(b, object, "merges", merges(b, tok));
    return object;
}

static du_err check(const du_tokenizer *tok, du_diag *diag) {
    const char *why = NULL;
    if (tok->kind == DU_TOKENIZE_CHARS) {
        why = "it was not read from GGUF";
    } else if (tok->kind == DU_TOKENIZE_BYTES && (!tok->rule || tok->edits.n)) {
        why = "its pre-tokenizer is none that has a name";
    }
    for (size_t i = 0; i < tok->normalizer.n && !why; i++) {
        why = tok->normalizer.steps[i].kind == DU_NORMALIZE_NFC ? NULL : "its normaliser";
    }
    return why ? du_fail(diag, DU_EUNSUPPORTED, "this tokenizer cannot be written: %s", why)
               : DU_OK;
}

static du_err finish(const builder *b, json_t *value, json_t **out, du_diag *diag) {
    if (b->failed) {
        json_decref(value);
        return du_fail_nomem(diag, "the tokenizer's JSON");
    }
    *out = value;
    return DU_OK;
}

du_err du_tokenizer_to_json(const du_tokenizer *tok, json_t **out, du_diag *diag) {
    du_err err = check(tok, diag);
    if (err != DU_OK) {
        return err;
    }
    builder b = {false};
    json_t *json = json_object();
    put(&b, json, "version", json_string("1.0"));
    put(&b, json, "truncation", json_null());
    put(&b, json, "padding", json_null());
    put(&b, json, "added_tokens", added_tokens(&b, tok));
    put(&b, json, "normalizer", normalizer(&b, tok));
    put(&b, json, "pre_tokenizer",
        tok->kind == DU_TOKENIZE_BYTES ? pre_tokenizer(&b, tok) : json_null());
    put(&b, json, "post_processor", post_processor(&b, tok));
    put(&b, json, "decoder", decoder(&b, tok));
    put(&b, json, "model", model(&b, tok));
    return finish(&b, json, out, diag);
}

du_err du_tokenizer_config_to_json(const du_tokenizer *tok, json_t **out, du_diag *diag) {
    const du_tokenizer_info *info = &tok->info;
    const struct {
        const char *key;
        int32_t id;
    } tokens[] = {{"bos_token", info->bos},
                  {"eos_token", info->eos},
                  {"pad_token", info->pad},
                  {"unk_token", info->unk}};
    builder b = {false};
    json_t *json = json_object();
    put(&b, json, "add_bos_token", json_boolean(info->add_bos));
    put(&b, json, "add_eos_token", json_boolean(info->add_eos));
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        put(&b, json, tokens[i].key,
            tokens[i].id < 0 ? json_null() : text_of(tok->vocab.texts[tokens[i].id]));
    }
    put(&b, json, "clean_up_tokenization_spaces", json_false());
    put(&b, json, "tokenizer_class", json_string("PreTrainedTokenizerFast"));
    return finish(&b, json, out, diag);
}
