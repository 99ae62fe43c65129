/* The steps of a tokenizer.json around its model: normalizer, pre_tokenizer, decoder,
 * post_processor (huggingface/tokenizers 0.23; each is an object with a "type", lists of them are a
 * "Sequence").
 *
 * What a pre-tokenizer changes becomes steps of `edits`, what it splits by becomes passes of
 * `pretok`, in that order: a change behind a split is refused. ByteLevel, when there is one, has to
 * come last. A type or option that is not known is an error, never passed over. */
#include "text/pipeline_json.h"

#include "base/json.h"
#include "base/mem.h"

#define BLANK "\xe2\x96\x81" /* U+2581 */

typedef struct {
    du_tokenizer *tok;
    du_diag *diag;
    bool byte_level; /* a ByteLevel pre-tokenizer has been seen */
} loader;

typedef du_err step_fn(loader *l, const json_t *step);

typedef struct {
    const char *type;
    step_fn *load;
} step_type;

/* Puts "what type: " in front of a message. */
static du_err in_step(loader *l, du_err err, const char *type) {
    if (err != DU_OK) {
        du_diag_context(l->diag, "%s", type);
    }
    return err;
}

static du_err unsupported(loader *l, const char *what) {
    return du_fail(l->diag, DU_EUNSUPPORTED, "%s is not supported", what);
}

/* Runs the loader of the step's type. null: nothing to do. */
static du_err load_step(loader *l, const json_t *step, const step_type *types, size_t n) {
    if (!step || json_is_null(step)) {
        return DU_OK;
    }
    const char *type = NULL;
    du_err err = json_is_object(step) ? du_json_get_str(step, "type", &type, l->diag) : DU_OK;
    if (err != DU_OK) {
        return err;
    }
    if (!type) {
        return du_fail(l->diag, DU_EFORMAT, "not an object with a type");
    }
    for (size_t i = 0; i < n; i++) {
        if (strcmp(type, types[i].type) == 0) {
            return in_step(l, types[i].load(l, step), type);
        }
    }
    du_str known = {0};
    for (size_t i = 0; i < n; i++) {
        du_str_addf(&known, "%s%s", i ? ", " : "", types[i].type);
    }
    err = du_fail(l->diag, DU_EUNSUPPORTED, "type '%.64s' is not supported; known are %s", type,
                  du_str_get(&known));
    du_str_done(&known);
    return err;
}

/* The members of a Sequence, one after the other. */
static du_err load_sequence(loader *l, const json_t *step, const char *key, step_fn *member) {
    const json_t *list = json_object_get(step, key);
    if (!json_is_array(list)) {
        return du_fail(l->diag, DU_EFORMAT, "%s: not a list", key);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        du_err err = member(l, json_array_get(list, i));
        if (err != DU_OK) {
            du_diag_context(l->diag, "%s[%zu]", key, i);
            return err;
        }
    }
    return DU_OK;
}

static du_sv string_of(const json_t *s) {
    return (du_sv){json_string_value(s), json_string_length(s)};
}

/* step[key], which has to be a string. */
static du_err get_string(loader *l, const json_t *step, const char *key, du_sv *out) {
    const json_t *value = json_object_get(step, key);
    if (!json_is_string(value)) {
        return du_fail(l->diag, DU_EFORMAT, "%s: not a string", key);
    }
    *out = string_of(value);
    return DU_OK;
}

/* step.pattern: {"Regex": ...} or {"String": ...}. */
static du_err get_pattern(loader *l, const json_t *step, du_sv *out, bool *literal) {
    const json_t *pattern = json_object_get(step, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex");
    const json_t *text = json_object_get(pattern, "String");
    if (!json_is_string(regex) == !json_is_string(text)) {
        return du_fail(l->diag, DU_EFORMAT, "pattern: neither a Regex nor a String");
    }
    *literal = json_is_string(text);
    *out = string_of(*literal ? text : regex);
    return DU_OK;
}

/* ---- normalizer ---- */

static du_err load_normalizer(loader *l, const json_t *step);

static du_err normalizer_sequence(loader *l, const json_t *step) {
    return load_sequence(l, step, "normalizers", load_normalizer);
}

static du_err normalizer_nfc(loader *l, const json_t *step) {
    (void)step;
    return du_normalizer_add(&l->tok->normalizer, DU_NORMALIZE_NFC, du_sv_of(""), du_sv_of(""),
                             l->diag);
}

static du_err normalizer_prepend(loader *l, const json_t *step) {
    du_sv text = {0};
    du_err err = get_string(l, step, "prepend", &text);
    return err == DU_OK ? du_normalizer_add(&l->tok->normalizer, DU_NORMALIZE_PREPEND, du_sv_of(""),
                                            text, l->diag)
                        : err;
}

static du_err normalizer_replace(loader *l, const json_t *step) {
    du_sv from = {0}, to = {0};
    bool literal = false;
    du_err err = get_pattern(l, step, &from, &literal);
    if (err == DU_OK) {
        err = literal ? get_string(l, step, "content", &to) : unsupported(l, "pattern: Regex");
    }
    return err == DU_OK
               ? du_normalizer_add(&l->tok->normalizer, DU_NORMALIZE_REPLACE, from, to, l->diag)
               : err;
}

static du_err load_normalizer(loader *l, const json_t *step) {
    static const step_type types[] = {
        {"Sequence", normalizer_sequence},
        {"NFC", normalizer_nfc},
        {"Prepend", normalizer_prepend},
        {"Replace", normalizer_replace},
    };
    return load_step(l, step, types, sizeof types / sizeof types[0]);
}

/* ---- pre_tokenizer ---- */

static du_err load_pre_tokenizer(loader *l, const json_t *step);

static du_err add_pass(loader *l, du_sv pattern, bool literal, du_split split, bool invert) {
    du_tokenizer *tok = l->tok;
    du_err err = tok->pretok ? DU_OK : du_pretok_new(&tok->pretok, l->diag);
    return err == DU_OK ? du_pretok_add(tok->pretok, pattern, literal, split, invert, l->diag)
                        : err;
}

static du_err add_edit(loader *l, du_normalize_kind kind, const char *from, const char *to) {
    if (l->tok->pretok) {
        return unsupported(l, "changing the text behind a split");
    }
    return du_normalizer_add(&l->tok->edits, kind, du_sv_of(from), du_sv_of(to), l->diag);
}

static du_err pre_sequence(loader *l, const json_t *step) {
    return load_sequence(l, step, "pretokenizers", load_pre_tokenizer);
}

static du_err pre_byte_level(loader *l, const json_t *step) {
    bool prefix = true, regex = true;
    du_err err = du_json_get_bool(step, "add_prefix_space", &prefix, l->diag);
    if (err == DU_OK) {
        err = du_json_get_bool(step, "use_regex", &regex, l->diag);
    }
    if (err == DU_OK && prefix) {
        err = add_edit(l, DU_NORMALIZE_PREPEND_ONCE, "", " ");
    }
    if (err == DU_OK && regex) {
        err = add_pass(l, du_sv_of(du_pretok_gpt2_pattern), false, DU_SPLIT_ISOLATED, false);
    }
    l->byte_level = true;
    return err;
}

static du_err get_split(loader *l, const json_t *step, du_split *out) {
#define NAME(code, name) name,
    static const char *const names[] = {DU_SPLIT_LIST(NAME)};
#undef NAME
    const char *name = "Isolated";
    du_err err = du_json_get_str(step, "behavior", &name, l->diag);
    for (size_t i = 0; err == DU_OK && i < DU_SPLIT_COUNT; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (du_split)i;
            return DU_OK;
        }
    }
    return err == DU_OK ? du_fail(l->diag, DU_EUNSUPPORTED, "behavior: '%.64s' is not known", name)
                        : err;
}

static du_err pre_split(loader *l, const json_t *step) {
    du_sv pattern = {0};
    bool literal = false, invert = false;
    du_split split = DU_SPLIT_ISOLATED;
    du_err err = get_pattern(l, step, &pattern, &literal);
    if (err == DU_OK) {
        err = get_split(l, step, &split);
    }
    if (err == DU_OK) {
        err = du_json_get_bool(step, "invert", &invert, l->diag);
    }
    return err == DU_OK ? add_pass(l, pattern, literal, split, invert) : err;
}

static du_err pre_digits(loader *l, const json_t *step) {
    bool single = false;
    du_err err = du_json_get_bool(step, "individual_digits", &single, l->diag);
    return err == DU_OK ? add_pass(l, du_sv_of(single ? "\\p{N}" : "\\p{N}+"), false,
                                   DU_SPLIT_ISOLATED, false)
                        : err;
}

static du_err pre_punctuation(loader *l, const json_t *step) {
    du_split split = DU_SPLIT_ISOLATED;
    du_err err = get_split(l, step, &split);
    return err == DU_OK ? add_pass(l, du_sv_of("[!-/:-@\\[-`{-~\\p{P}]"), false, split, false)
                        : err;
}

static du_err pre_whitespace(loader *l, const json_t *step) {
    (void)step;
    return add_pass(l, du_sv_of("\\w+|[^\\w\\s]+"), false, DU_SPLIT_REMOVED, true);
}

static du_err pre_whitespace_split(loader *l, const json_t *step) {
    (void)step;
    return add_pass(l, du_sv_of("\\s"), false, DU_SPLIT_REMOVED, false);
}

/* prepend_scheme of a Metaspace: *kind is what it does, *never whether it does nothing. */
static du_err get_scheme(loader *l, const json_t *step, du_normalize_kind *kind, bool *never) {
    const char *scheme = "always";
    bool prefix = true;
    du_err err = du_json_get_bool(step, "add_prefix_space", &prefix, l->diag);
    if (err == DU_OK) {
        err = du_json_get_str(step, "prepend_scheme", &scheme, l->diag);
    }
    if (err != DU_OK) {
        return err;
    }
    *never = !prefix || strcmp(scheme, "never") == 0;
    *kind = strcmp(scheme, "first") == 0 ? DU_NORMALIZE_PREPEND_FIRST : DU_NORMALIZE_PREPEND_ONCE;
    bool known = *never || *kind == DU_NORMALIZE_PREPEND_FIRST || strcmp(scheme, "always") == 0;
    return known
               ? DU_OK
               : du_fail(l->diag, DU_EUNSUPPORTED, "prepend_scheme: '%.64s' is not known", scheme);
}

static du_err check_replacement(loader *l, const json_t *step) {
    du_sv replacement = {0};
    du_err err = get_string(l, step, "replacement", &replacement);
    return err == DU_OK && !du_sv_is(replacement, BLANK)
               ? unsupported(l, "a replacement other than U+2581")
               : err;
}

static du_err pre_metaspace(loader *l, const json_t *step) {
    du_normalize_kind kind = DU_NORMALIZE_PREPEND_ONCE;
    bool never = false, split = true;
    du_err err = check_replacement(l, step);
    if (err == DU_OK) {
        err = get_scheme(l, step, &kind, &never);
    }
    if (err == DU_OK) {
        err = du_json_get_bool(step, "split", &split, l->diag);
    }
    if (err == DU_OK) {
        err = add_edit(l, DU_NORMALIZE_REPLACE, " ", BLANK);
    }
    if (err == DU_OK && !never) {
        l->tok->info.add_space_prefix = true;
        err = add_edit(l, kind, "", BLANK);
    }
    return err == DU_OK && split ? add_pass(l, du_sv_of(BLANK), true, DU_SPLIT_NEXT, false) : err;
}

static du_err load_pre_tokenizer(loader *l, const json_t *step) {
    static const step_type types[] = {
        {"Sequence", pre_sequence},       {"Split", pre_split},
        {"ByteLevel", pre_byte_level},    {"Digits", pre_digits},
        {"Punctuation", pre_punctuation}, {"Metaspace", pre_metaspace},
        {"Whitespace", pre_whitespace},   {"WhitespaceSplit", pre_whitespace_split},
    };
    if (l->byte_level) {
        return unsupported(l, "a pre-tokenizer behind ByteLevel");
    }
    return load_step(l, step, types, sizeof types / sizeof types[0]);
}

/* ---- decoder ---- */

static du_err load_decoder(loader *l, const json_t *step);

static du_err decoder_sequence(loader *l, const json_t *step) {
    return load_sequence(l, step, "decoders", load_decoder);
}

static du_err decoder_byte_level(loader *l, const json_t *step) {
    (void)step;
    return l->byte_level ? DU_OK : unsupported(l, "without a ByteLevel pre-tokenizer");
}

static du_err decoder_of_chars(loader *l, const json_t *step) {
    (void)step;
    return l->byte_level ? unsupported(l, "with a ByteLevel pre-tokenizer") : DU_OK;
}

static du_err decoder_replace(loader *l, const json_t *step) {
    du_sv from = {0}, to = {0};
    bool literal = false;
    du_err err = decoder_of_chars(l, step);
    if (err == DU_OK) {
        err = get_pattern(l, step, &from, &literal);
    }
    if (err == DU_OK) {
        err = get_string(l, step, "content", &to);
    }
    if (err == DU_OK && !(literal && du_sv_is(from, BLANK) && du_sv_is(to, " "))) {
        err = unsupported(l, "anything but U+2581 by a blank");
    }
    return err;
}

static du_err decoder_strip(loader *l, const json_t *step) {
    int64_t start = 0, stop = 0;
    du_sv content = {0};
    du_err err = get_string(l, step, "content", &content);
    if (err == DU_OK) {
        err = du_json_get_i64(step, "start", 0, 1, &start, l->diag);
    }
    if (err == DU_OK) {
        err = du_json_get_i64(step, "stop", 0, 0, &stop, l->diag);
    }
    if (err == DU_OK && !du_sv_is(content, " ")) {
        err = unsupported(l, "content other than a blank");
    }
    l->tok->strip_start = start == 1;
    return err;
}

static du_err decoder_metaspace(loader *l, const json_t *step) {
    du_normalize_kind kind;
    bool never = true;
    du_err err = decoder_of_chars(l, step);
    if (err == DU_OK) {
        err = check_replacement(l, step);
    }
    if (err == DU_OK) {
        err = get_scheme(l, step, &kind, &never);
    }
    l->tok->strip_start = !never;
    return err;
}

static du_err load_decoder(loader *l, const json_t *step) {
    static const step_type types[] = {
        {"Sequence", decoder_sequence},   {"ByteLevel", decoder_byte_level},
        {"Replace", decoder_replace},     {"ByteFallback", decoder_of_chars},
        {"Fuse", decoder_of_chars},       {"Strip", decoder_strip},
        {"Metaspace", decoder_metaspace},
    };
    return load_step(l, step, types, sizeof types / sizeof types[0]);
}

/* ---- post_processor ---- */

static du_err load_post_processor(loader *l, const json_t *step);

static du_err post_sequence(loader *l, const json_t *step) {
    return load_sequence(l, step, "processors", load_post_processor);
}

static du_err post_byte_level(loader *l, const json_t *step) {
    (void)l; /* about offsets */
    (void)step;
    return DU_OK;
}

/* The token of a template's part, -1 for the text itself or a token that does not exist. */
static int32_t template_token(loader *l, const json_t *part) {
    const json_t *name = json_object_get(json_object_get(part, "SpecialToken"), "id");
    return json_is_string(name) ? du_vocab_find(&l->tok->vocab, string_of(name)) : -1;
}

/* One token before the text is BOS, one behind it EOS; more (as GLM has) belong to chat templates.
 */
static du_err post_template(loader *l, const json_t *step) {
    const json_t *parts = json_object_get(step, "single");
    size_t n = json_array_size(parts), text = 0;
    if (!json_is_array(parts)) {
        return du_fail(l->diag, DU_EFORMAT, "single: not a list");
    }
    while (text < n && !json_object_get(json_array_get(parts, text), "Sequence")) {
        text++;
    }
    du_tokenizer_info *info = &l->tok->info;
    int32_t before = text == 1 ? template_token(l, json_array_get(parts, 0)) : -1;
    int32_t behind = text + 2 == n ? template_token(l, json_array_get(parts, n - 1)) : -1;
    if (before >= 0) {
        info->bos = before;
        info->add_bos = true;
    }
    if (behind >= 0) {
        info->eos = behind;
        info->add_eos = true;
    }
    return DU_OK;
}

static du_err load_post_processor(loader *l, const json_t *step) {
    static const step_type types[] = {
        {"Sequence", post_sequence},
        {"ByteLevel", post_byte_level},
        {"TemplateProcessing", post_template},
    };
    return load_step(l, step, types, sizeof types / sizeof types[0]);
}

du_err du_pipeline_load(du_tokenizer *tok, const json_t *json, du_diag *diag) {
    loader l = {.tok = tok, .diag = diag};
    du_err err =
        in_step(&l, load_normalizer(&l, json_object_get(json, "normalizer")), "normalizer");
    if (err == DU_OK) {
        err = in_step(&l, load_pre_tokenizer(&l, json_object_get(json, "pre_tokenizer")),
                      "pre_tokenizer");
    }
    if (err == DU_OK) {
        err = in_step(&l, load_decoder(&l, json_object_get(json, "decoder")), "decoder");
    }
    tok->kind = l.byte_level ? DU_TOKENIZE_BYTES : DU_TOKENIZE_CHARS;
    return err;
}

du_err du_pipeline_load_post(du_tokenizer *tok, const json_t *json, du_diag *diag) {
    loader l = {.tok = tok, .diag = diag};
    return in_step(&l, load_post_processor(&l, json_object_get(json, "post_processor")),
                   "post_processor");
}
