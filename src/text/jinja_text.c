#include "text/jinja_text.h"

#include <utf8proc.h>

#include "text/unicode.h"

size_t du_jinja_count_chars(du_sv text) {
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        n += ((unsigned char)text.s[i] & 0xc0) != 0x80;
    }
    return n;
}

int32_t du_jinja_char_get(const char *s, size_t *n_bytes) {
    const unsigned char *p = (const unsigned char *)s;
    if (p[0] < 0x80) {
        *n_bytes = 1;
        return p[0];
    }
    if (p[0] < 0xe0) {
        *n_bytes = 2;
        return (int32_t)(p[0] & 0x1f) << 6 | (p[1] & 0x3f);
    }
    if (p[0] < 0xf0) {
        *n_bytes = 3;
        return (int32_t)(p[0] & 0x0f) << 12 | (int32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
    }
    *n_bytes = 4;
    return (int32_t)(p[0] & 0x07) << 18 | (int32_t)(p[1] & 0x3f) << 12 |
           (int32_t)(p[2] & 0x3f) << 6 | (p[3] & 0x3f);
}

int32_t du_jinja_char_before(const char *s, size_t at, size_t *n_bytes) {
    do {
        at--;
    } while (((unsigned char)s[at] & 0xc0) == 0x80);
    return du_jinja_char_get(s + at, n_bytes);
}

void du_jinja_mend(char *message) {
    size_t len = strlen(message);
    for (size_t at; (at = du_utf8_valid(message, len)) < len;) {
        message[at] = '?';
    }
}

/* ---- classes ------------------------------------------------------------------------------- */

static utf8proc_category_t category(int32_t c) {
    return utf8proc_category(c);
}

typedef struct {
    int32_t first, last;
} range;

static bool in_ranges(int32_t c, const range *ranges, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (c >= ranges[i].first && c <= ranges[i].last) {
            return true;
        }
    }
    return false;
}

#define IN_RANGES(c, table) in_ranges(c, table, sizeof(table) / sizeof((table)[0]))

bool du_jinja_is_space(int32_t c) {
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

bool du_jinja_is_line_end(int32_t c) {
    return (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

bool du_jinja_is_printable(int32_t c) {
    switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return c == ' ';
    default:
        return true;
    }
}

bool du_jinja_is_alpha(int32_t c) {
    switch (category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return true;
    default:
        return false;
    }
}

bool du_jinja_is_decimal(int32_t c) {
    return category(c) == UTF8PROC_CATEGORY_ND;
}

bool du_jinja_is_digit(int32_t c) {
    /* Numeric_Type=Digit of DerivedNumericType.txt */
    static const range digits[] = {
        {0xb2, 0xb3},       {0xb9, 0xb9},       {0x1369, 0x1371},   {0x19da, 0x19da},
        {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
        {0x2474, 0x247c},   {0x2488, 0x2490},   {0x24ea, 0x24ea},   {0x24f5, 0x24fd},
        {0x24ff, 0x24ff},   {0x2776, 0x277e},   {0x2780, 0x2788},   {0x278a, 0x2792},
        {0x10a40, 0x10a43}, {0x10e60, 0x10e68}, {0x11052, 0x1105a}, {0x1f100, 0x1f10a},
    };
    return du_jinja_is_decimal(c) || IN_RANGES(c, digits);
}

bool du_jinja_is_alnum(int32_t c) {
    utf8proc_category_t cat = category(c);
    return du_jinja_is_alpha(c) || cat == UTF8PROC_CATEGORY_ND || cat == UTF8PROC_CATEGORY_NL ||
           cat == UTF8PROC_CATEGORY_NO;
}

bool du_jinja_is_id_start(int32_t c) {
    return c == '_' || du_jinja_is_alpha(c) || category(c) == UTF8PROC_CATEGORY_NL;
}

bool du_jinja_is_word(int32_t c) {
    utf8proc_category_t cat = category(c);
    return c == '_' || du_jinja_is_alnum(c) || cat == UTF8PROC_CATEGORY_MN ||
           cat == UTF8PROC_CATEGORY_MC || cat == UTF8PROC_CATEGORY_PC;
}

bool du_jinja_is_lower(int32_t c) {
    /* Other_Lowercase of PropList.txt */
    static const range other[] = {
        {0xaa, 0xaa},       {0xba, 0xba},       {0x2b0, 0x2b8},     {0x2c0, 0x2c1},
        {0x2e0, 0x2e4},     {0x345, 0x345},     {0x37a, 0x37a},     {0x1d2c, 0x1d6a},
        {0x1d78, 0x1d78},   {0x1d9b, 0x1dbf},   {0x2071, 0x2071},   {0x207f, 0x207f},
        {0x2090, 0x209c},   {0x2170, 0x217f},   {0x24d0, 0x24e9},   {0x2c7c, 0x2c7d},
        {0xa69c, 0xa69d},   {0xa770, 0xa770},   {0xa7f8, 0xa7f9},   {0xab5c, 0xab5f},
        {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107b0}, {0x107b2, 0x107ba},
    };
    return category(c) == UTF8PROC_CATEGORY_LL || IN_RANGES(c, other);
}

bool du_jinja_is_upper(int32_t c) {
    /* Other_Uppercase of PropList.txt */
    static const range other[] = {
        {0x2160, 0x216f},   {0x24b6, 0x24cf},   {0x1f130, 0x1f149},
        {0x1f150, 0x1f169}, {0x1f170, 0x1f189},
    };
    return category(c) == UTF8PROC_CATEGORY_LU || IN_RANGES(c, other);
}

bool du_jinja_is_title(int32_t c) {
    return category(c) == UTF8PROC_CATEGORY_LT;
}

static bool is_cased(int32_t c) {
    return du_jinja_is_lower(c) || du_jinja_is_upper(c) || du_jinja_is_title(c);
}

/* Case_Ignorable of DerivedCoreProperties.txt: marks, modifiers, and what stands inside words. */
static bool is_case_ignorable(int32_t c) {
    static const range inside[] = {
        {0x27, 0x27},     {0x2e, 0x2e},     {0x3a, 0x3a},     {0xb7, 0xb7},
        {0x387, 0x387},   {0x55f, 0x55f},   {0x5f4, 0x5f4},   {0x2018, 0x2019},
        {0x2024, 0x2024}, {0x2027, 0x2027}, {0xfe13, 0xfe13}, {0xfe52, 0xfe52},
        {0xfe55, 0xfe55}, {0xff07, 0xff07}, {0xff0e, 0xff0e}, {0xff1a, 0xff1a},
    };
    switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return true;
    default:
        return IN_RANGES(c, inside);
    }
}

/* ---- case ---------------------------------------------------------------------------------- */

enum { FOLD_MAX = 3 };

/* The full case folding; its length. */
static int fold(int32_t c, utf8proc_int32_t out[FOLD_MAX]) {
    int boundary = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char(c, out, FOLD_MAX, UTF8PROC_CASEFOLD, &boundary);
    if (n < 1 || n > FOLD_MAX) {
        out[0] = c;
        return 1;
    }
    return (int)n;
}

/* SpecialCasing.txt, without a table: a small letter that folds to several (ß, ﬁ, ᾀ) becomes
 * the capitals of these. */
static void add_upper(du_str *to, int32_t c) {
    utf8proc_int32_t folded[FOLD_MAX];
    int n = du_jinja_is_lower(c) || du_jinja_is_title(c) ? fold(c, folded) : 1;
    if (n == 1) {
        du_utf8_add(to, utf8proc_toupper(c));
        return;
    }
    for (int i = 0; i < n; i++) {
        du_utf8_add(to, utf8proc_toupper(folded[i]));
    }
}

/* The same for title case: only the first is a capital, and an iota goes below (U+0345). */
static void add_title(du_str *to, int32_t c) {
    enum { SMALL_IOTA = 0x3b9, IOTA_BELOW = 0x345, N_AFTER_APOSTROPHE = 0x149 };
    utf8proc_int32_t folded[FOLD_MAX];
    int32_t simple = utf8proc_totitle(c);
    int n = du_jinja_is_lower(c) && !du_jinja_is_title(simple) ? fold(c, folded) : 1;
    if (n == 1) {
        du_utf8_add(to, simple);
        return;
    }
    du_utf8_add(to, utf8proc_toupper(folded[0]));
    for (int i = 1; i < n; i++) {
        int32_t f = folded[i];
        if (c == N_AFTER_APOSTROPHE) {
            f = utf8proc_toupper(folded[i]);
        } else if (f == SMALL_IOTA) {
            f = IOTA_BELOW;
        }
        du_utf8_add(to, f);
    }
}

/* Whether the capital sigma at byte `at` ends a word: a letter before it, none after. */
static bool is_final_sigma(du_sv text, size_t at) {
    size_t n = 0;
    int32_t c = 0;
    size_t i = at;
    while (i > 0 && (c = du_jinja_char_before(text.s, i, &n), is_case_ignorable(c))) {
        i -= n;
    }
    if (i == 0 || !is_cased(c)) {
        return false;
    }
    du_jinja_char_get(text.s + at, &n);
    for (i = at + n; i < text.len; i += n) {
        c = du_jinja_char_get(text.s + i, &n);
        if (!is_case_ignorable(c)) {
            return !is_cased(c);
        }
    }
    return true;
}

static void add_lower(du_str *to, du_sv text, size_t at, int32_t c) {
    enum { CAPITAL_SIGMA = 0x3a3, FINAL_SIGMA = 0x3c2, CAPITAL_I_DOT = 0x130, DOT_ABOVE = 0x307 };
    if (c == CAPITAL_SIGMA && is_final_sigma(text, at)) {
        du_utf8_add(to, FINAL_SIGMA);
    } else if (c == CAPITAL_I_DOT) {
        du_utf8_add(to, 'i');
        du_utf8_add(to, DOT_ABOVE);
    } else {
        du_utf8_add(to, utf8proc_tolower(c));
    }
}

void du_jinja_add_case(du_str *to, du_sv text, du_case how) {
    bool after_cased = false;
    size_t n;
    for (size_t i = 0; i < text.len; i += n) {
        int32_t c = du_jinja_char_get(text.s + i, &n);
        if (how == CASE_FOLD) {
            utf8proc_int32_t folded[FOLD_MAX];
            int n_folded = fold(c, folded);
            for (int k = 0; k < n_folded; k++) {
                du_utf8_add(to, folded[k]);
            }
        } else if (how == CASE_UPPER || (how == CASE_SWAP && du_jinja_is_lower(c))) {
            add_upper(to, c);
        } else if ((how == CASE_TITLE && !after_cased) || (how == CASE_CAPITALIZE && i == 0)) {
            add_title(to, c);
        } else if (how == CASE_SWAP && !du_jinja_is_upper(c)) {
            du_utf8_add(to, c);
        } else {
            add_lower(to, text, i, c);
        }
        after_cased = is_cased(c);
    }
}

/* ---- strip --------------------------------------------------------------------------------- */

static bool stripped(int32_t c, const char *at, size_t n, const du_sv *chars) {
    return chars ? du_sv_find(*chars, (du_sv){at, n}, 0) >= 0 : du_jinja_is_space(c);
}

size_t du_jinja_strip_start(du_sv text, const du_sv *chars) {
    size_t i = 0, n;
    while (i < text.len) {
        int32_t c = du_jinja_char_get(text.s + i, &n);
        if (!stripped(c, text.s + i, n, chars)) {
            break;
        }
        i += n;
    }
    return i;
}

size_t du_jinja_strip_end(du_sv text, const du_sv *chars) {
    size_t i = text.len, n;
    while (i > 0) {
        int32_t c = du_jinja_char_before(text.s, i, &n);
        if (!stripped(c, text.s + i - n, n, chars)) {
            break;
        }
        i -= n;
    }
    return text.len - i;
}
