#include "text/pretok.h"

/* The named rules. Their expressions are those of the families' published tokenizer.json (kimi-k2:
 * tokenization_kimi.py; default: llama.cpp's passes for files that name no rule), with the names
 * and defaults of ggml-org/llama.cpp:src/llama-vocab.cpp. */

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL         " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3       CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" TAIL
#define QWEN2        CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" TAIL
#define GPT2         "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define KIMI_UPPER   "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define KIMI_LOWER   "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define KIMI                                                                                       \
    "[\\p{Han}]+"                                                                                  \
    "|[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER "*" KIMI_LOWER "+" CONTRACTIONS "?"                       \
    "|[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER "+" KIMI_LOWER "*" CONTRACTIONS "?"                       \
    "|\\p{N}{1,3}|" TAIL

/* U+4E00-9FA5, U+0800-4E00, Hangul. */
#define CJK "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"

/* deepseek-llm's cased letters, by number: some change under normalisation. */
#define CASED                                                                                      \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}"                 \
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}" \
    "\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}"         \
    "\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}"                     \
    "\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}"                 \
    "\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}"                 \
    "\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}"         \
    "\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}"        \
    "\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}"                 \
    "\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}"         \
    "\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}"         \
    "\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}"                   \
    "\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}"                  \
    "\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}"                 \
    "\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}"                 \
    "\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}"             \
    "\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}"         \
    "\\x{1e900}-\\x{1e943}"

enum { NAMES_MAX = 5, PATTERNS_MAX = 7 };

typedef struct {
    du_pretok_rule rule;
    const char *synonyms[NAMES_MAX];
    const char *patterns[PATTERNS_MAX];
} named_rule;

const char *const du_pretok_gpt2_pattern = GPT2;

/* Where several rules have the same passes, the first names them. */
static const named_rule rules[] = {
    {{"deepseek-llm", false, false},
     {0},
     {"[\\r\\n]", "\\s?[" CASED "]+",
      "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+",
      "\\s+$", CJK, "\\p{N}"}},
    {{"deepseek-coder", false, false},
     {0},
     {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}"}},
    {{"deepseek-v3", false, false},
     {"joyai-llm"},
     {"\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
      "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
      "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {{"qwen2", false, false}, {"deepseek-r1-qwen", "megrez"}, {QWEN2}},
    {{"llama-bpe", true, true}, {"llama3", "llama-v3", "falcon3", "midm-2.0", "pixtral"}, {LLAMA3}},
    {{"glm4", true, false}, {"glm5", "chatglm-bpe"}, {LLAMA3}},
    {{"smollm", false, false}, {0}, {"\\p{N}", GPT2}},
    {{"gpt-2", false, false}, {"gigachat", "a.x-4.0"}, {GPT2}},
    {{"kimi-k2", false, false}, {0}, {KIMI}},
    {{"default", false, false},
     {0},
     {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
};
enum { N_RULES = sizeof rules / sizeof rules[0] };

static const named_rule *find(du_sv name) {
    for (size_t i = 0; i < N_RULES; i++) {
        if (du_sv_is(name, rules[i].rule.name)) {
            return &rules[i];
        }
        for (size_t k = 0; k < NAMES_MAX && rules[i].synonyms[k]; k++) {
            if (du_sv_is(name, rules[i].synonyms[k])) {
                return &rules[i];
            }
        }
    }
    return NULL;
}

static size_t n_patterns(const named_rule *named) {
    size_t n = 0;
    while (n < PATTERNS_MAX && named->patterns[n]) {
        n++;
    }
    return n;
}

const char *const *du_pretok_rule_patterns(const char *name, size_t *n) {
    const named_rule *named = find(du_sv_of(name));
    if (!named) {
        return NULL;
    }
    *n = n_patterns(named);
    return named->patterns;
}

static du_err unknown(du_sv name, du_diag *diag) {
    du_str known = {0};
    for (size_t i = 0; i < N_RULES; i++) {
        du_str_addf(&known, "%s%s", i ? ", " : "", rules[i].rule.name);
        for (size_t k = 0; k < NAMES_MAX && rules[i].synonyms[k]; k++) {
            du_str_addf(&known, ", %s", rules[i].synonyms[k]);
        }
    }
    int shown = name.len > 64 ? 64 : (int)name.len;
    du_err err =
        du_fail(diag, DU_EUNSUPPORTED, "pre-tokenizer rule '%.*s' is not known; known are %s",
                shown, name.s, du_str_get(&known));
    du_str_done(&known);
    return err;
}

du_err du_pretok_from_rule(du_pretok **out, const du_pretok_rule **rule, du_sv name,
                           du_diag *diag) {
    const named_rule *named = find(name);
    if (!named) {
        return unknown(name, diag);
    }
    du_pretok *p = NULL;
    du_err err = du_pretok_new(&p, diag);
    for (size_t i = 0; err == DU_OK && i < n_patterns(named); i++) {
        err = du_pretok_add(p, du_sv_of(named->patterns[i]), false, DU_SPLIT_ISOLATED, false, diag);
    }
    if (err != DU_OK) {
        du_pretok_free(p);
        return err;
    }
    if (rule) {
        *rule = &named->rule;
    }
    *out = p;
    return DU_OK;
}

du_err du_pretok_find_rule(const du_pretok *p, const du_pretok_rule **rule, du_diag *diag) {
    *rule = NULL;
    du_err err = DU_OK;
    for (size_t i = 0; i < N_RULES && err == DU_OK && !*rule; i++) {
        bool is = false;
        err = du_pretok_is(p, rules[i].patterns, n_patterns(&rules[i]), &is, diag);
        *rule = is ? &rules[i].rule : NULL;
    }
    return err;
}
