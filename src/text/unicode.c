/* UTF-8 after table 3-7 of the Unicode standard, and form C over utf8proc.
 *
 * utf8proc decomposes and composes; the canonical ordering between the two is done here, because
 * its own takes quadratic time on long runs of marks. Text is cut before every inert character, so
 * that only [inert character + what may combine with it] goes the slow way and plain text is
 * copied in long pieces. */
#include "text/unicode.h"

#include <utf8proc.h>

#include "base/mem.h"

/* The bytes of a character by its first byte, 0 where none begins so. */
static size_t char_len(uint8_t first) {
    return first < 0x80   ? 1
           : first < 0xc2 ? 0
           : first < 0xe0 ? 2
           : first < 0xf0 ? 3
           : first < 0xf5 ? 4
                          : 0;
}

/* The second byte is bounded more tightly after E0 and F0 (overlong), ED (surrogates), F4. */
static bool second_fits(uint8_t first, uint8_t second) {
    uint8_t min = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t max = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    return second >= min && second <= max;
}

size_t du_utf8_next(const char *s, size_t len, int32_t *cp) {
    const uint8_t *b = (const uint8_t *)s;
    size_t n = char_len(b[0]);
    if (n == 1) {
        *cp = b[0];
        return 1;
    }
    *cp = -1;
    if (n == 0 || len < 2 || !second_fits(b[0], b[1])) {
        return 1;
    }
    int32_t v = ((b[0] & (0x7f >> n)) << 6) | (b[1] & 0x3f);
    for (size_t i = 2; i < n; i++) {
        if (i == len || (b[i] & 0xc0) != 0x80) {
            return i;
        }
        v = (v << 6) | (b[i] & 0x3f);
    }
    *cp = v;
    return n;
}

size_t du_utf8_put(char out[4], int32_t cp) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, cp >>= 6) {
        out[i] = (char)(0x80 | (cp & 0x3f));
    }
    out[0] = (char)((0xf00 >> n) | cp);
    return n;
}

void du_utf8_add(du_str *out, int32_t cp) {
    char bytes[4];
    du_str_add(out, bytes, du_utf8_put(bytes, cp));
}

size_t du_utf8_valid(const char *s, size_t len) {
    size_t i = 0;
    while (i < len) {
        uint64_t eight;
        if (i + sizeof eight <= len) {
            memcpy(&eight, s + i, sizeof eight);
            if (!(eight & 0x8080808080808080)) {
                i += sizeof eight;
                continue;
            }
        }
        int32_t cp;
        size_t n = du_utf8_next(s + i, len - i, &cp);
        if (cp < 0) {
            return i;
        }
        i += n;
    }
    return len;
}

size_t du_utf8_cut(const char *s, size_t len) {
    for (size_t n = 1; n <= 3 && n <= len; n++) {
        const char *start = s + len - n;
        if (((uint8_t)*start & 0xc0) == 0x80) {
            continue;
        }
        int32_t cp;
        size_t whole = char_len((uint8_t)*start);
        return whole > n && du_utf8_next(start, n, &cp) == n ? n : 0;
    }
    return 0;
}

void du_utf8_add_replaced(du_str *out, du_sv text) {
    size_t i = 0;
    while (i < text.len) {
        size_t valid = du_utf8_valid(text.s + i, text.len - i);
        du_str_add(out, text.s + i, valid);
        i += valid;
        if (i < text.len) {
            int32_t cp;
            i += du_utf8_next(text.s + i, text.len - i, &cp);
            du_utf8_add(out, DU_CP_REPLACEMENT);
        }
    }
}

typedef struct {
    int32_t first, last;
} range;

static bool in_ranges(const range *ranges, size_t n, int32_t cp) {
    for (size_t i = 0; i < n && ranges[i].first <= cp; i++) {
        if (cp <= ranges[i].last) {
            return true;
        }
    }
    return false;
}

/* Latin, Cyrillic, punctuation, symbols, kana, compatibility jamo, ideographs, Hangul syllables,
 * full- and half-width forms, pictographs: blocks without combining marks and without characters
 * that form C replaces. And U+11A7, a vowel that combines with nothing: utf8proc before 2.9 takes
 * it for a final consonant and loses it. */
bool du_unicode_nfc_inert(int32_t cp) {
    static const range inert[] = {
        {0x0000, 0x02ff}, {0x0400, 0x0482}, {0x11a7, 0x11a7}, {0x2010, 0x2027},
        {0x2030, 0x205e}, {0x2190, 0x2328}, {0x2330, 0x27ff}, {0x3000, 0x3029},
        {0x3030, 0x3098}, {0x309b, 0x30ff}, {0x3131, 0x318e}, {0x3400, 0x4dbf},
        {0x4e00, 0x9fff}, {0xac00, 0xd7a3}, {0xff00, 0xffef}, {0x1f300, 0x1faff},
    };
    return cp < 0x300 || in_ranges(inert, sizeof inert / sizeof inert[0], cp);
}

bool du_unicode_is_space(int32_t cp) {
    static const range spaces[] = {
        {0x09, 0x0d},     {0x20, 0x20},     {0x85, 0x85},     {0xa0, 0xa0},     {0x1680, 0x1680},
        {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000},
    };
    return in_ranges(spaces, sizeof spaces / sizeof spaces[0], cp);
}

bool du_unicode_is_word(int32_t cp) {
    /* Join controls, and the letters among the symbols (Other_Alphabetic). */
    static const range more[] = {
        {0x200c, 0x200d},   {0x24b6, 0x24e9},   {0x1f130, 0x1f149},
        {0x1f150, 0x1f169}, {0x1f170, 0x1f189},
    };
    switch (utf8proc_category(cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return in_ranges(more, sizeof more / sizeof more[0], cp);
    }
}

enum { DECOMPOSED_MAX = 4 }; /* code points of the longest canonical decomposition */

/* The decomposition of text (valid UTF-8) into cps, which has room. Returns its length. */
static size_t decompose(int32_t *cps, du_sv text) {
    size_t n = 0;
    for (size_t i = 0; i < text.len;) {
        int32_t cp;
        i += du_utf8_next(text.s + i, text.len - i, &cp);
        int boundary = 0;
        utf8proc_ssize_t got = utf8proc_decompose_char(
            cp, cps + n, DECOMPOSED_MAX, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &boundary);
        if (got < 1 || got > DECOMPOSED_MAX) { /* not in this version of Unicode */
            cps[n] = cp;
            got = 1;
        }
        n += (size_t)got;
    }
    return n;
}

static uint8_t combining_class(int32_t cp) {
    return (uint8_t)utf8proc_get_property(cp)->combining_class;
}

/* Sorts run[0..n) by combining class, stably, through tmp [n]. */
static void order_run(int32_t *run, size_t n, int32_t *tmp) {
    size_t start[257] = {0};
    for (size_t i = 0; i < n; i++) {
        start[combining_class(run[i]) + 1]++;
    }
    for (size_t c = 1; c < 257; c++) {
        start[c] += start[c - 1];
    }
    for (size_t i = 0; i < n; i++) {
        tmp[start[combining_class(run[i])]++] = run[i];
    }
    memcpy(run, tmp, n * sizeof run[0]);
}

/* Canonical ordering: every run of characters with a class other than 0 is sorted by it. */
static void order(int32_t *cps, size_t n, int32_t *tmp) {
    for (size_t i = 0; i < n;) {
        size_t end = i;
        bool sorted = true;
        for (uint8_t before = 0; end < n && combining_class(cps[end]); end++) {
            sorted = sorted && before <= combining_class(cps[end]);
            before = combining_class(cps[end]);
        }
        if (!sorted) {
            order_run(cps + i, end - i, tmp);
        }
        i = end + 1;
    }
}

static void add_composed(du_str *out, du_sv text) {
    size_t n_chars = 0;
    for (size_t i = 0; i < text.len; i++) {
        n_chars += ((uint8_t)text.s[i] & 0xc0) != 0x80;
    }
    int32_t *cps = du_alloc_array(n_chars, 2 * DECOMPOSED_MAX * sizeof cps[0]);
    if (!cps) {
        out->failed = true;
        return;
    }
    size_t n = decompose(cps, text);
    order(cps, n, cps + n);
    utf8proc_ssize_t composed =
        utf8proc_normalize_utf32(cps, (utf8proc_ssize_t)n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (utf8proc_ssize_t i = 0; i < composed; i++) {
        du_utf8_add(out, cps[i]);
    }
    du_free(cps);
}

void du_utf8_add_nfc(du_str *out, du_sv text) {
    size_t copied = 0;    /* what is before it is in out */
    size_t base = 0;      /* start of the last inert character, or of what follows invalid bytes */
    bool combine = false; /* something after base is not inert */
    for (size_t i = 0; i < text.len;) {
        int32_t cp;
        size_t n = du_utf8_next(text.s + i, text.len - i, &cp);
        bool inert = cp < 0 || du_unicode_nfc_inert(cp);
        if (inert && combine) {
            add_composed(out, (du_sv){text.s + base, i - base});
            copied = i;
            combine = false;
        } else if (!inert && !combine) {
            du_str_add(out, text.s + copied, base - copied);
            combine = true;
        }
        i += n;
        if (inert) {
            base = cp < 0 ? i : i - n;
        }
    }
    if (combine) {
        add_composed(out, (du_sv){text.s + base, text.len - base});
    } else {
        du_str_add(out, text.s + copied, text.len - copied);
    }
}
