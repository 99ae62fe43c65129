/* Speed of encoding, in MB/s of one core.
 *
 *   bench_tokenizer               made-up text and vocabulary (deepseek-v3's rule, 100,000 merges)
 *   bench_tokenizer MODEL TEXT    a folder with tokenizer.json or a GGUF file, and a text file
 *
 * The text is encoded in parts of PART_BYTES, as documents come, and in one call. Both times of the
 * processor are given: its own (what counts on a busy machine) and the wall's. `first` is the first
 * pass of a new tokenizer, whose cache of pieces is empty; `best` the best of N_ROUNDS.
 *
 * A cache of pieces flatters a text that repeats itself, so the variety of words is printed as
 * well. The made-up text draws words by Zipf's law from a lexicon of Korean and English look,
 * 300,000 long, as natural text does, and one word in twenty is new and never comes again; with
 * numbers, punctuation and lines of code between. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "formats/gguf.h"
#include "text/bpe.h"
#include "text/pretok.h"
#include "text/tokenizer.h"
#include "text/unicode.h"
#include "text/vocab.h"

enum {
    PART_BYTES = 8192,
    N_ROUNDS = 5,
    TEXT_BYTES = 20 << 20,
    N_WORDS = 300000,
    N_MERGES = 100000,
    TEXT_BYTES_MAX = 1 << 30
};

static du_rng rng;

static void end(const du_diag *diag) {
    fprintf(stderr, "bench_tokenizer: %s\n", diag->msg);
    exit(1);
}

/* ---- made-up text ---- */

static void add_korean_word(du_str *out) {
    static const char *const endings[] = {"은",   "는",   "이",   "가",     "을",
                                          "를",   "에서", "으로", "합니다", "하고",
                                          "했다", "의",   "",     "",       ""};
    uint64_t n = 1 + du_rng_below(&rng, 3);
    for (uint64_t i = 0; i < n; i++) {
        /* Few finals, as in Korean. */
        uint64_t final = du_rng_below(&rng, 3) ? 0 : du_rng_below(&rng, 28);
        uint64_t syllable = (du_rng_below(&rng, 19) * 21 + du_rng_below(&rng, 21)) * 28 + final;
        du_utf8_add(out, 0xac00 + (int32_t)syllable);
    }
    du_str_add_s(out, endings[du_rng_below(&rng, sizeof endings / sizeof endings[0])]);
}

static void add_english_word(du_str *out) {
    static const char *const onsets[] = {"b", "c", "d", "f", "g", "h", "l",  "m",  "n",  "p",
                                         "r", "s", "t", "v", "w", "",  "st", "tr", "pl", "th"};
    static const char *const rimes[] = {"a",  "e",   "i",  "o",   "u",   "an",
                                        "en", "in",  "on", "er",  "ate", "ing",
                                        "al", "ist", "ic", "ion", "ous", "ment"};
    uint64_t n = 1 + du_rng_below(&rng, 4);
    for (uint64_t i = 0; i < n; i++) {
        du_str_add_s(out, onsets[du_rng_below(&rng, sizeof onsets / sizeof onsets[0])]);
        du_str_add_s(out, rimes[du_rng_below(&rng, sizeof rimes / sizeof rimes[0])]);
    }
}

static void add_word(du_str *out) {
    if (du_rng_below(&rng, 2)) {
        add_korean_word(out);
    } else {
        add_english_word(out);
    }
}

static char *lexicon[N_WORDS];

static void make_lexicon(void) {
    for (size_t i = 0; i < N_WORDS; i++) {
        du_str word = {0};
        add_word(&word);
        lexicon[i] = du_str_take(&word);
        DU_CHECK(lexicon[i]);
    }
}

/* A word of rank r with a chance near 1/r: ranks are even over their logarithm. */
static const char *zipf_word(void) {
    return lexicon[(size_t)pow(N_WORDS, du_rng_uniform(&rng)) - 1];
}

static void add_line_of_code(du_str *out) {
    switch (du_rng_below(&rng, 4)) {
    case 0:
        du_str_addf(out, "    if (%s < %s) {\n", zipf_word(), zipf_word());
        break;
    case 1:
        du_str_addf(out, "        return %s(%s);\n", zipf_word(), zipf_word());
        break;
    case 2:
        du_str_addf(out, "    %s_%s += 1;\n", zipf_word(), zipf_word());
        break;
    default:
        du_str_addf(out, "const %s = {%s: null};\n", zipf_word(), zipf_word());
        break;
    }
}

static void add_sentence(du_str *out) {
    for (uint64_t n = 4 + du_rng_below(&rng, 20); n > 0; n--) {
        switch (du_rng_below(&rng, 20)) {
        case 0:
            add_word(out); /* new */
            break;
        case 1:
            du_str_addf(out, "%d", (int)du_rng_below(&rng, 100000));
            break;
        default:
            du_str_add_s(out, zipf_word());
            break;
        }
        du_str_add_s(out, n == 1 ? ".\n" : du_rng_below(&rng, 9) ? " " : ", ");
    }
}

static du_str made_up_text(size_t len) {
    du_str text = {0};
    while (text.len < len && !text.failed) {
        if (du_rng_below(&rng, 8) == 0) {
            add_line_of_code(&text);
        } else {
            add_sentence(&text);
        }
    }
    DU_CHECK(!text.failed);
    return text;
}

/* ---- made-up vocabulary: merges learnt from the text's words as far as it takes ---- */

typedef struct {
    json_t *vocab, *merges;
    du_sv *texts; /* [n] of the tokens so far, in GPT-2's alphabet; owned */
    int32_t n;
    du_bpe bpe;
    du_merge_work work;
} learner;

static void learn_token(learner *l, du_str *text) {
    size_t len = text->len;
    char *copy = du_str_take(text);
    DU_CHECK(copy && json_object_setn_new(l->vocab, copy, len, json_integer(l->n)) == 0);
    l->texts[l->n++] = (du_sv){copy, len};
}

/* Encodes a piece with the merges so far and adds a merge of two neighbours in it. */
static void learn_from(learner *l, du_sv piece) {
    DU_CHECK(du_merge_reserve(&l->work, piece.len));
    for (size_t i = 0; i <= piece.len; i++) {
        l->work.symbols[i] =
            (du_symbol){.id = i < piece.len ? (uint8_t)piece.s[i] : -1, .start = (uint32_t)i};
    }
    l->work.n = piece.len;
    DU_CHECK(du_bpe_merge(&l->bpe, &l->work));
    if (l->work.n < 2) {
        return;
    }
    const du_symbol *s = &l->work.symbols[du_rng_below(&rng, l->work.n - 1)];
    du_str text = {0}, merge = {0};
    du_str_add_sv(&text, l->texts[s[0].id]);
    du_str_add_sv(&text, l->texts[s[1].id]);
    if (json_object_getn(l->vocab, text.data, text.len)) {
        du_str_done(&text); /* another pair has made it */
        return;
    }
    du_str_addf(&merge, "%s %s", l->texts[s[0].id].s, l->texts[s[1].id].s);
    DU_CHECK(json_array_append_new(l->merges, json_string(du_str_get(&merge))) == 0);
    du_bpe_add(&l->bpe, s[0].id, s[1].id, (uint32_t)(l->n - 256), l->n, false);
    learn_token(l, &text);
    du_str_done(&merge);
}

static du_err learn_piece(void *arg, du_sv piece) {
    learner *l = arg;
    if (l->n == 256 + N_MERGES) {
        return DU_ECANCELLED;
    }
    learn_from(l, piece);
    return DU_OK;
}

static json_t *made_up_json(const learner *l) {
    json_t *split = json_array();
    size_t n = 0;
    const char *const *patterns = du_pretok_rule_patterns("deepseek-v3", &n);
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(split, json_pack("{s:s, s:{s:s}, s:s}", "type", "Split", "pattern",
                                               "Regex", patterns[i], "behavior", "Isolated"));
    }
    json_array_append_new(split, json_pack("{s:s, s:b, s:b}", "type", "ByteLevel",
                                           "add_prefix_space", 0, "use_regex", 0));
    return json_pack("{s:{s:O, s:O}, s:{s:s, s:o}}", "model", "vocab", l->vocab, "merges",
                     l->merges, "pre_tokenizer", "type", "Sequence", "pretokenizers", split);
}

static du_tokenizer *made_up_tokenizer(void) {
    learner l = {.vocab = json_object(), .merges = json_array()};
    du_diag diag;
    du_diag_reset(&diag);
    du_pretok *pretok = NULL;
    du_pretok_work *work = NULL;
    du_tokenizer *tok = NULL;
    l.texts = du_alloc_array(256 + N_MERGES, sizeof l.texts[0]);
    DU_CHECK(l.texts && du_bpe_init(&l.bpe, N_MERGES));
    for (int b = 0; b < 256; b++) {
        du_str text = {0};
        du_utf8_add(&text, du_byte_level_char((uint8_t)b));
        learn_token(&l, &text);
    }
    if (du_pretok_from_rule(&pretok, NULL, du_sv_of("deepseek-v3"), &diag) != DU_OK ||
        du_pretok_work_new(&work, pretok, &diag) != DU_OK) {
        end(&diag);
    }
    while (l.n < 256 + N_MERGES) {
        du_str text = made_up_text(1 << 20);
        du_err err = du_pretok_split(pretok, work, du_str_view(&text), learn_piece, &l, &diag);
        DU_CHECK(err == DU_OK || err == DU_ECANCELLED);
        du_str_done(&text);
    }
    json_t *json = made_up_json(&l);
    if (!json || du_tokenizer_from_json(&tok, json, NULL, &diag) != DU_OK) {
        end(&diag);
    }
    json_decref(json);
    json_decref(l.vocab);
    json_decref(l.merges);
    for (int32_t i = 0; i < l.n; i++) {
        void *text;
        memcpy(&text, &l.texts[i].s, sizeof text);
        du_free(text);
    }
    du_free(l.texts);
    du_bpe_done(&l.bpe);
    du_merge_work_done(&l.work);
    du_pretok_work_free(work);
    du_pretok_free(pretok);
    return tok;
}

/* ---- measuring ---- */

static double processor_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Where the part that begins at `start` ends: at a line's end, where documents do. */
static size_t part_end(du_sv text, size_t start, size_t part) {
    if (part >= text.len - start) {
        return text.len;
    }
    const char *line = memchr(text.s + start + part, '\n', text.len - start - part);
    return line ? (size_t)(line - text.s) + 1 : text.len;
}

typedef struct {
    double cpu_s, wall_s;
    size_t n_ids;
} pass;

static pass encode(const du_tokenizer *tok, du_sv text, size_t part) {
    du_ids ids = {0};
    du_diag diag;
    du_diag_reset(&diag);
    pass p = {-processor_s(), -du_clock_s(), 0};
    for (size_t start = 0; start < text.len;) {
        size_t stop = part_end(text, start, part);
        ids.n = 0;
        if (du_tokenizer_encode(tok, (du_sv){text.s + start, stop - start}, 0, &ids, &diag) !=
            DU_OK) {
            end(&diag);
        }
        p.n_ids += ids.n;
        start = stop;
    }
    p.cpu_s += processor_s();
    p.wall_s += du_clock_s();
    du_ids_done(&ids);
    return p;
}

static void print_pass(const char *what, du_sv text, pass p) {
    double mb = (double)text.len * 1e-6;
    printf("  %-6s %6.1f MB/s of processor time, %6.1f MB/s on the wall\n", what, mb / p.cpu_s,
           mb / p.wall_s);
}

static void measure(const du_tokenizer *tok, du_sv text, const char *what, size_t part) {
    pass first = encode(tok, text, part), best = first;
    for (int i = 1; i < N_ROUNDS; i++) {
        pass p = encode(tok, text, part);
        best = p.cpu_s < best.cpu_s ? p : best;
    }
    printf("%s: %zu tokens, %.2f bytes each\n", what, first.n_ids,
           (double)text.len / (double)first.n_ids);
    print_pass("first", text, first);
    print_pass("best", text, best);
}

/* How many words the text has between white space, and how many of them are different. */
static void print_variety(du_sv text) {
    size_t n = 0, cap = 0, different = 0, hangul = 0;
    du_sv *words = NULL;
    for (size_t i = 0, start = 0; i <= text.len; i++) {
        bool space = i == text.len || strchr(" \n\t\r", text.s[i]);
        hangul += i < text.len && (uint8_t)text.s[i] >= 0xea && (uint8_t)text.s[i] <= 0xed;
        if (space && i > start) {
            DU_CHECK(du_grow((void **)&words, &cap, n, sizeof words[0]));
            words[n++] = (du_sv){text.s + start, i - start};
        }
        start = space ? i + 1 : start;
    }
    du_hash map = {0};
    for (size_t i = 0; i < n; i++) {
        different += du_hash_add(&map, words[i], 0) == DU_OK;
    }
    printf("text: %.1f MB, %.0f %% of it Hangul, %zu words, %zu of them different\n",
           (double)text.len * 1e-6, 300.0 * (double)hangul / (double)text.len, n, different);
    du_hash_done(&map);
    du_free(words);
}

static du_tokenizer *open_model(const char *path) {
    du_diag diag;
    du_diag_reset(&diag);
    du_tokenizer *tok = NULL;
    du_gguf *gguf = NULL;
    du_err err;
    if (du_dir_exists(path)) {
        err = du_tokenizer_from_dir(&tok, path, &diag);
    } else {
        err = du_gguf_open(&gguf, path, &diag);
        err = err == DU_OK ? du_tokenizer_from_gguf(&tok, gguf, &diag) : err;
        du_gguf_close(gguf);
    }
    if (err != DU_OK) {
        end(&diag);
    }
    return tok;
}

int main(int argc, char **argv) {
    if (argc != 1 && argc != 3) {
        fprintf(stderr, "usage: bench_tokenizer [MODEL TEXT]\n");
        return 2;
    }
    du_json_use_counted_heap();
    du_rng_init(&rng, 7);
    du_str text = {0};
    double start = du_clock_s();
    du_tokenizer *tok;
    if (argc == 3) {
        du_diag diag;
        du_diag_reset(&diag);
        char *bytes = NULL;
        size_t len = 0;
        if (du_file_read(&bytes, &len, argv[2], TEXT_BYTES_MAX, &diag) != DU_OK) {
            end(&diag);
        }
        text = (du_str){.data = bytes, .len = len, .cap = len + 1};
        tok = open_model(argv[1]);
    } else {
        make_lexicon();
        tok = made_up_tokenizer();
        text = made_up_text(TEXT_BYTES);
    }
    printf("vocabulary: %d tokens, made or loaded in %.2f s\n", du_tokenizer_get_info(tok)->n_vocab,
           du_clock_s() - start);
    print_variety(du_str_view(&text));
    measure(tok, du_str_view(&text), "in parts of 8 KiB", PART_BYTES);
    measure(tok, du_str_view(&text), "in one call", text.len);
    du_str_done(&text);
    du_tokenizer_free(tok);
    for (size_t i = 0; i < N_WORDS; i++) {
        du_free(lexicon[i]);
    }
    return 0;
}
