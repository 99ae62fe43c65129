/* tokenizer.json and tokenizer_config.json: options, and one line for everything that is wrong. */
#include "test.h"

#include "base/json.h"
#include "base/mem.h"
#include "text/tokenizer.h"

/* A small byte-level vocabulary; the parts in front and behind can be put in. */
#define VOCAB                                                                                      \
    "\"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2, \"\xc4\xa0\": 3, \"ab\": 4, \"\xc4\xa0"             \
    "a\": 5, "                                                                                     \
    "\"<s>\": 6, \"abc\": 7}"
#define MODEL      "\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [\"a b\", \"\xc4\xa0 a\"]}"
#define BYTE_LEVEL "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}"
#define PRE        "\"pre_tokenizer\": " BYTE_LEVEL
#define BOS                                                                                        \
    "{\"id\": 6, \"content\": \"<s>\", \"special\": true, \"normalized\": false, "                 \
    "\"lstrip\": false, \"rstrip\": false, \"single_word\": false}"

static json_t *parse(const char *text) {
    json_t *json = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    if (text) {
        assert_ok(du_json_parse(&json, text, strlen(text), "json", &diag), &diag);
    }
    return json;
}

static du_tokenizer *load(const char *text, const char *config_text) {
    json_t *json = parse(text), *config = parse(config_text);
    du_tokenizer *tok = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_tokenizer_from_json(&tok, json, config, &diag), &diag);
    json_decref(json);
    json_decref(config);
    return tok;
}

static void fails_with(const char *text, const char *config_text, du_err code, const char *part) {
    json_t *json = parse(text), *config = parse(config_text);
    du_tokenizer *tok = NULL;
    du_diag diag;
    int64_t live = du_mem_get_stats().n_live;
    assert_fails(du_tokenizer_from_json(&tok, json, config, &diag), code, &diag, part);
    assert_null(tok);
    assert_int_equal(du_mem_get_stats().n_live, live);
    json_decref(json);
    json_decref(config);
}

static void fails(const char *text, du_err code, const char *part) {
    fails_with(text, NULL, code, part);
}

/* The ids as " 1 2 3". */
static void encodes(const du_tokenizer *tok, const char *text, unsigned flags, const char *want) {
    du_ids ids = {0};
    du_str out = {0};
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_tokenizer_encode(tok, du_sv_of(text), flags, &ids, &diag), &diag);
    for (size_t i = 0; i < ids.n; i++) {
        du_str_addf(&out, " %d", ids.ids[i]);
    }
    assert_string_equal(du_str_get(&out), want);
    du_str_done(&out);
    du_ids_done(&ids);
}

/* As encodes, for a tokenizer that is freed. */
static void loads_to(const char *json, const char *text, const char *want) {
    du_tokenizer *tok = load(json, NULL);
    encodes(tok, text, DU_ENCODE_SPECIAL, want);
    du_tokenizer_free(tok);
}

static void merges_in_both_forms(void **state) {
    (void)state;
    loads_to("{" MODEL "," PRE "}", "ab abc", " 4 3 4 2");
    loads_to("{\"model\": {" VOCAB ", \"merges\": [[\"a\", \"b\"], [\"ab\", \"c\"]]}," PRE "}",
             "ab abc", " 4 3 7");
    /* the later merge of a pair counts, headings do not */
    loads_to("{\"model\": {" VOCAB ", \"merges\": [\"#version: 0.2\", \"a b\", \"\xc4\xa0 a\", "
             "\"a b\"]}," PRE "}",
             " ab", " 5 1");
}

static void special_tokens_on_request_only(void **state) {
    (void)state;
    du_tokenizer *tok = load("{" MODEL "," PRE ", \"added_tokens\": [" BOS "]}", NULL);
    encodes(tok, "a<s>b", DU_ENCODE_SPECIAL, " 0 6 1");
    encodes(tok, "ab", 0, " 4");
    assert_int_equal(du_tokenizer_type(tok, 6), DU_TOKEN_CONTROL);
    assert_int_equal(du_tokenizer_piece(tok, 6, 0).len, 0);
    assert_int_equal(du_tokenizer_piece(tok, 6, DU_DECODE_SPECIAL).len, 3);
    du_tokenizer_free(tok);
    tok = load("{" MODEL "," PRE ", \"added_tokens\": [{\"id\": 8, \"content\": \"bc\"}]}", NULL);
    encodes(tok, "abc", 0, " 0 8");
    assert_int_equal(du_tokenizer_type(tok, 8), DU_TOKEN_USER_DEFINED);
    du_tokenizer_free(tok);
}

static void bytes_without_a_token(void **state) {
    (void)state;
    loads_to("{" MODEL "," PRE "}", "axb", " 0 1"); /* left out */
    loads_to("{\"model\": {\"unk_token\": \"<s>\", " VOCAB ", \"merges\": []}," PRE "}", "axxb",
             " 0 6 6 1");
    loads_to("{\"model\": {\"unk_token\": \"<s>\", \"fuse_unk\": true, " VOCAB
             ", \"merges\": []}," PRE "}",
             "axxb", " 0 6 1");
}

static void ignore_merges_takes_pieces_whole(void **state) {
    (void)state;
    loads_to("{\"model\": {\"ignore_merges\": true, " VOCAB ", \"merges\": [\"a b\"]}," PRE "}",
             "abc", " 7");
    loads_to("{\"model\": {\"ignore_merges\": false, " VOCAB ", \"merges\": [\"a b\"]}," PRE "}",
             "abc", " 4 2");
}

static void byte_level_prefix_and_regex(void **state) {
    (void)state;
    const char *with =
        "{" MODEL ", \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true}}";
    loads_to(with, "a", " 5");
    loads_to(with, " a", " 5");
    loads_to(with, "a a", " 5 5");
}

/* The layout of Llama 2, small. */
#define CHARS_VOCAB                                                                                \
    "\"vocab\": {\"<unk>\": 0, \"<0xEA>\": 1, \"<0xB0>\": 2, \"<0x80>\": 3, \"\xe2\x96\x81\": 4, " \
    "\"a\": 5, \"\xe2\x96\x81"                                                                     \
    "a\": 6, \"b\": 7, \"<s>\": 8}, \"merges\": [\"\xe2\x96\x81 a\"]"
#define CHARS_MODEL                                                                                \
    "\"model\": {\"type\": \"BPE\", \"unk_token\": \"<unk>\", \"byte_fallback\": true, "           \
    "\"fuse_unk\": true, " CHARS_VOCAB "}, \"added_tokens\": [{\"id\": 8, \"content\": \"<s>\", "  \
    "\"special\": true}]"

static void characters_with_byte_fallback(void **state) {
    (void)state;
    const char *json =
        "{" CHARS_MODEL ", \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": "
        "\"Prepend\", \"prepend\": \"\xe2\x96\x81\"}, {\"type\": \"Replace\", "
        "\"pattern\": {\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"}]}, "
        "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": "
        "\"Replace\", \"pattern\": {\"String\": \"\xe2\x96\x81\"}, \"content\": "
        "\" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, {\"type\": "
        "\"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}]}}";
    du_tokenizer *tok = load(json, NULL);
    encodes(tok, "a a", 0, " 6 6");
    encodes(tok, "b<s>a", DU_ENCODE_SPECIAL, " 4 7 8 6");
    encodes(tok, "\xea\xb0\x80", 0, " 4 1 2 3");
    encodes(tok, "\xea\xb0", 0, " 4 1 2"); /* not UTF-8: byte by byte */
    encodes(tok, "xyb", 0, " 4 0 7");      /* unknown ones become one */
    assert_string_equal(du_tokenizer_get_info(tok)->model, "llama");
    assert_int_equal(du_tokenizer_get_info(tok)->unk, 0);
    du_detok d;
    du_str out = {0};
    du_detok_init(&d, tok, DU_DECODE_START);
    du_detok_push(&d, 6, &out);
    du_detok_push(&d, 6, &out);
    du_detok_flush(&d, &out);
    assert_string_equal(du_str_get(&out), "a a");
    du_str_done(&out);
    du_tokenizer_free(tok);
}

#define METASPACE(options)                                                                         \
    "{" CHARS_MODEL ", \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": "             \
    "\"\xe2\x96\x81\"" options "}}"

static void metaspace_schemes(void **state) {
    (void)state;
    loads_to(METASPACE(""), "a<s>a", " 6 8 6");
    loads_to(METASPACE(", \"prepend_scheme\": \"first\""), "a<s>a a", " 6 8 5 6");
    loads_to(METASPACE(", \"prepend_scheme\": \"never\", \"split\": false"), "a a", " 5 6");
    loads_to(METASPACE(", \"add_prefix_space\": false"), "a", " 5");
    fails(METASPACE(", \"prepend_scheme\": \"last\""), DU_EUNSUPPORTED,
          "pre_tokenizer: Metaspace: prepend_scheme: 'last' is not known");
}

static void normalized_tokens_are_found_in_normalised_text(void **state) {
    (void)state;
    const char *json = "{" MODEL "," PRE ", \"normalizer\": {\"type\": \"Replace\", \"pattern\": "
                       "{\"String\": \"x\"}, \"content\": \"y\"}, \"added_tokens\": [{\"id\": 8, "
                       "\"content\": \"xx\", \"normalized\": true}, {\"id\": 9, \"content\": "
                       "\"yx\", \"normalized\": false}]}";
    loads_to(json, "axxbxyayx", " 0 8 1 8 0 9");
}

static void config_says_which_tokens(void **state) {
    (void)state;
    const char *json = "{" MODEL "," PRE ", \"added_tokens\": [" BOS "]}";
    du_tokenizer *tok =
        load(json, "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"abc\", "
                   "\"pad_token\": null, \"add_bos_token\": true}");
    const du_tokenizer_info *info = du_tokenizer_get_info(tok);
    assert_int_equal(info->bos, 6);
    assert_int_equal(info->eos, 7);
    assert_int_equal(info->pad, -1);
    assert_true(info->add_bos);
    assert_true(du_tokenizer_is_eog(tok, 7));
    assert_false(du_tokenizer_is_eog(tok, 6));
    assert_false(du_tokenizer_is_eog(tok, -1) || du_tokenizer_is_eog(tok, 100));
    du_tokenizer_add_eog(tok, 6);
    du_tokenizer_add_eog(tok, 100);
    assert_true(du_tokenizer_is_eog(tok, 6));
    du_tokenizer_free(tok);
    fails_with(json, "[]", DU_EFORMAT, "tokenizer_config: not an object");
    fails_with(json, "{\"bos_token\": 1}", DU_EFORMAT, "tokenizer_config: bos_token: not a text");
    fails_with(json, "{\"add_bos_token\": \"yes\"}", DU_EFORMAT, "tokenizer_config: add_bos_token");
}

static void the_post_processor_says_so_too(void **state) {
    (void)state;
    const char *json =
        "{" MODEL "," PRE ", \"added_tokens\": [" BOS "], \"post_processor\": {\"type\": "
        "\"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, {\"type\": "
        "\"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, "
        "{\"Sequence\": {\"id\": \"A\"}}]}]}}";
    du_tokenizer *tok = load(json, NULL);
    assert_true(du_tokenizer_get_info(tok)->add_bos);
    assert_false(du_tokenizer_get_info(tok)->add_eos);
    assert_int_equal(du_tokenizer_get_info(tok)->bos, 6);
    du_tokenizer_free(tok);
    tok = load(json, "{\"add_bos_token\": false}");
    assert_false(du_tokenizer_get_info(tok)->add_bos);
    du_tokenizer_free(tok);
}

static void bad_models_are_refused(void **state) {
    (void)state;
    fails("[]", DU_EFORMAT, "root: not an object");
    fails("{}", DU_EFORMAT, "model: missing");
    fails("{\"model\": {\"type\": \"Unigram\"}}", DU_EUNSUPPORTED, "model: type 'Unigram'");
    fails("{\"model\": {\"merges\": []}}", DU_EFORMAT, "model.vocab: missing");
    fails("{\"model\": {\"vocab\": {}}}", DU_EFORMAT, "model.merges: missing");
    fails("{\"model\": {\"vocab\": {}, \"merges\": []}}", DU_EFORMAT, "model.vocab: no tokens");
    fails("{\"model\": {\"vocab\": {\"a\": -1}, \"merges\": []}}", DU_EFORMAT,
          "model.vocab: 'a' has no id");
    fails("{\"model\": {\"vocab\": {\"a\": \"0\"}, \"merges\": []}}", DU_EFORMAT, "'a' has no id");
    fails("{\"model\": {\"vocab\": {\"a\": 16777215}, \"merges\": []}}", DU_ELIMIT,
          "id 16777215 with only 1 tokens");
    fails("{\"model\": {\"vocab\": {\"a\": 99999999999}, \"merges\": []}}", DU_EFORMAT,
          "'a' has no id");
    fails("{\"model\": {\"vocab\": {\"a\": 1, \"b\": 1}, \"merges\": []}}", DU_EFORMAT,
          "model.vocab: token 1 is both 'a' and 'b'");
    fails("{\"model\": {\"dropout\": 0.1, \"vocab\": {\"a\": 1}, \"merges\": []}}", DU_EUNSUPPORTED,
          "model: dropout is not supported");
    fails("{\"model\": {\"end_of_word_suffix\": \"</w>\"}}", DU_EUNSUPPORTED, "end_of_word_suffix");
    fails("{\"model\": {\"unk_token\": \"x\", \"vocab\": {\"a\": 1}, \"merges\": []}}", DU_EFORMAT,
          "model: unk_token: 'x' is no token");
}

static void bad_merges_are_refused(void **state) {
    (void)state;
#define WITH_MERGES(merges) "{\"model\": {" VOCAB ", \"merges\": [" merges "]}," PRE "}"
    fails(WITH_MERGES("\"a\""), DU_EFORMAT, "model.merges: merge 0 is not two parts");
    fails(WITH_MERGES("\"a b\", \"a b c\""), DU_EFORMAT, "merge 1 is not two parts");
    fails(WITH_MERGES("[\"a\"]"), DU_EFORMAT, "merge 0 is not two parts");
    fails(WITH_MERGES("7"), DU_EFORMAT, "merge 0 is not two parts");
    fails(WITH_MERGES("\"x b\""), DU_EFORMAT,
          "model.merges: merge 0: its left part, 'x', is no token");
    fails(WITH_MERGES("\"a x\""), DU_EFORMAT, "its right part, 'x'");
    fails(WITH_MERGES("\"b a\""), DU_EFORMAT, "what it makes, 'ba'");
}

static void bad_added_tokens_are_refused(void **state) {
    (void)state;
#define WITH_ADDED(added) "{" MODEL "," PRE ", \"added_tokens\": " added "}"
    fails(WITH_ADDED("{}"), DU_EFORMAT, "added_tokens: not a list");
    fails(WITH_ADDED("[7]"), DU_EFORMAT, "added_tokens[0]: content: not a text");
    fails(WITH_ADDED("[{\"content\": \"\", \"id\": 9}]"), DU_EFORMAT, "content: not a text");
    fails(WITH_ADDED("[{\"content\": \"x\"}]"), DU_EFORMAT, "added_tokens[0]: id: missing");
    fails(WITH_ADDED("[{\"content\": \"x\", \"id\": -3}]"), DU_EFORMAT, "added_tokens[0]: id: -3");
    fails(WITH_ADDED("[{\"content\": \"x\", \"id\": 8}, {\"content\": \"x\", \"id\": 9}]"),
          DU_EFORMAT, "added_tokens[1]: tokens 8 and 9 are both 'x'");
    fails(WITH_ADDED("[{\"content\": \"x\", \"id\": 0}]"), DU_EFORMAT,
          "token 0 is both 'x' and 'a'");
    fails(WITH_ADDED("[{\"content\": \"x\", \"id\": 8, \"special\": 1}]"), DU_EFORMAT, "special");
}

static void unknown_steps_are_refused(void **state) {
    (void)state;
#define WITH(step, what) "{" MODEL ", \"" step "\": " what "}"
    fails(WITH("normalizer", "{\"type\": \"Lowercase\"}"), DU_EUNSUPPORTED,
          "normalizer: type 'Lowercase' is not supported; known are Sequence, NFC");
    fails(WITH("normalizer", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, "
                             "{\"type\": \"NFKC\"}]}"),
          DU_EUNSUPPORTED, "normalizer: Sequence: normalizers[1]: type 'NFKC'");
    fails(WITH("normalizer", "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"a\"}, "
                             "\"content\": \"\"}"),
          DU_EUNSUPPORTED, "normalizer: Replace: pattern: Regex");
    fails(WITH("pre_tokenizer", "{\"type\": \"Bert\"}"), DU_EUNSUPPORTED,
          "pre_tokenizer: type 'Bert'");
    fails(WITH("pre_tokenizer", "[]"), DU_EFORMAT, "pre_tokenizer: not an object with a type");
    fails(WITH("pre_tokenizer", "{\"type\": \"Sequence\"}"), DU_EFORMAT,
          "pretokenizers: not a list");
    fails(WITH("pre_tokenizer", "{\"type\": \"Split\", \"behavior\": \"Isolated\"}"), DU_EFORMAT,
          "Split: pattern: neither");
    fails(WITH("pre_tokenizer", "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\"}, "
                                "\"behavior\": \"Glued\"}"),
          DU_EUNSUPPORTED, "Split: behavior: 'Glued'");
    fails(WITH("pre_tokenizer", "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"a(\"}}"),
          DU_EFORMAT, "pre_tokenizer: Split: regular expression, byte 1: a group without its )");
    fails(WITH("pre_tokenizer", "{\"type\": \"Sequence\", \"pretokenizers\": [" BYTE_LEVEL
                                ", {\"type\": \"Digits\"}]}"),
          DU_EUNSUPPORTED, "pretokenizers[1]: a pre-tokenizer behind ByteLevel");
    fails(WITH("pre_tokenizer", "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": "
                                "\"Digits\"}, {\"type\": \"ByteLevel\"}]}"),
          DU_EUNSUPPORTED, "changing the text behind a split");
    fails(WITH("decoder", "{\"type\": \"CTC\"}"), DU_EUNSUPPORTED, "decoder: type 'CTC'");
    fails(WITH("decoder", "{\"type\": \"ByteLevel\"}"), DU_EUNSUPPORTED,
          "decoder: ByteLevel: without");
    fails(WITH("decoder", "{\"type\": \"Strip\", \"content\": \" \", \"start\": 2}"), DU_EFORMAT,
          "decoder: Strip: start: 2");
    fails(WITH("post_processor", "{\"type\": \"BertProcessing\"}"), DU_EUNSUPPORTED,
          "post_processor: type 'BertProcessing'");
}

static void other_splitters(void **state) {
    (void)state;
#define CHARS_WITH(pre)                                                                            \
    "{\"model\": {\"ignore_merges\": true, \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"!\": 3, "  \
    "\"1\": 4, \"11\": 5, \" \": 6, \"a!\": 7, \" a\": 8}, \"merges\": []}, "                      \
    "\"pre_tokenizer\": " pre "}"
    loads_to(CHARS_WITH("{\"type\": \"Whitespace\"}"), " ab a! ", " 2 0 3");
    loads_to(CHARS_WITH("{\"type\": \"WhitespaceSplit\"}"), " ab a! ", " 2 7");
    loads_to(CHARS_WITH("{\"type\": \"Punctuation\"}"), "ab!ab", " 2 3 2");
    loads_to(CHARS_WITH("{\"type\": \"Punctuation\", \"behavior\": \"MergedWithPrevious\"}"),
             "a!ab", " 7 2");
    loads_to(CHARS_WITH("{\"type\": \"Digits\"}"), "ab11", " 2 5");
    loads_to(CHARS_WITH("{\"type\": \"Digits\", \"individual_digits\": true}"), "ab11", " 2 4 4");
    loads_to(CHARS_WITH("{\"type\": \"Split\", \"pattern\": {\"String\": \" \"}, \"behavior\": "
                        "\"MergedWithNext\", \"invert\": false}"),
             "ab a", " 2 8");
    loads_to(CHARS_WITH("null"), "ab a", " 0 1 6 0"); /* one piece, and no merges */
}

static void a_missing_folder_is_named(void **state) {
    (void)state;
    du_tokenizer *tok = NULL;
    du_diag diag;
    assert_fails(du_tokenizer_from_dir(&tok, "/nonexistent", &diag), DU_ENOENT, &diag,
                 "/nonexistent/tokenizer.json");
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_in_both_forms),
        cmocka_unit_test(special_tokens_on_request_only),
        cmocka_unit_test(bytes_without_a_token),
        cmocka_unit_test(ignore_merges_takes_pieces_whole),
        cmocka_unit_test(byte_level_prefix_and_regex),
        cmocka_unit_test(characters_with_byte_fallback),
        cmocka_unit_test(metaspace_schemes),
        cmocka_unit_test(normalized_tokens_are_found_in_normalised_text),
        cmocka_unit_test(config_says_which_tokens),
        cmocka_unit_test(the_post_processor_says_so_too),
        cmocka_unit_test(bad_models_are_refused),
        cmocka_unit_test(bad_merges_are_refused),
        cmocka_unit_test(bad_added_tokens_are_refused),
        cmocka_unit_test(unknown_steps_are_refused),
        cmocka_unit_test(other_splitters),
        cmocka_unit_test(a_missing_folder_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
