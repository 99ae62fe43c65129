#include "test.h"

#include <utf8proc.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "text/unicode.h"

static void every_character_comes_back(void **state) {
    (void)state;
    for (int32_t cp = 0; cp <= DU_CP_MAX; cp++) {
        if (cp >= 0xd800 && cp <= 0xdfff) {
            continue;
        }
        char bytes[4];
        int32_t got = -2;
        size_t n = du_utf8_put(bytes, cp);
        assert_int_equal(du_utf8_next(bytes, n, &got), n);
        assert_int_equal(got, cp);
        assert_int_equal(du_utf8_valid(bytes, n), n);
        for (size_t cut = 1; cut < n; cut++) { /* its beginnings are invalid as a whole */
            assert_int_equal(du_utf8_next(bytes, cut, &got), cut);
            assert_int_equal(got, -1);
            assert_int_equal(du_utf8_cut(bytes, cut), cut);
        }
        assert_int_equal(du_utf8_cut(bytes, n), 0);
    }
}

static void replaced(const char *bytes, size_t n, const char *want) {
    du_str out = {0};
    du_utf8_add_replaced(&out, (du_sv){bytes, n});
    assert_string_equal(du_str_get(&out), want);
    du_str_done(&out);
}

/* Unicode 15, tables 3-8 to 3-11; "." stands for U+FFFD. */
static void invalid_bytes_are_replaced_by_maximal_subparts(void **state) {
    (void)state;
    const struct {
        const char *bytes, *want;
    } cases[] = {
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", "........A"},
        {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", "........A"},
        {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", ".....A..B"},
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "....A"},
        {"\xf5\x80\xfe\xff", "...."},
        {"a\xe3\x81", "a."},
        {"두레", "두레"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        du_str want = {0};
        for (const char *c = cases[i].want; *c; c++) {
            if (*c == '.') {
                du_utf8_add(&want, DU_CP_REPLACEMENT);
            } else {
                du_str_add_c(&want, *c);
            }
        }
        replaced(cases[i].bytes, strlen(cases[i].bytes), du_str_get(&want));
        du_str_done(&want);
    }
    replaced("\0\x80", 2, "");
}

static void valid_part_is_found_at_every_place(void **state) {
    (void)state;
    char text[64];
    for (size_t bad = 0; bad < sizeof text; bad++) {
        memset(text, 'x', sizeof text);
        text[bad] = (char)0xff;
        assert_int_equal(du_utf8_valid(text, sizeof text), bad);
    }
    assert_int_equal(du_utf8_valid("가나", 6), 6);
    assert_int_equal(du_utf8_valid("가나", 5), 3);
}

static void nfc_is(const char *text, const char *want) {
    du_str out = {0};
    du_utf8_add_nfc(&out, du_sv_of(text));
    assert_string_equal(du_str_get(&out), want);
    du_str_done(&out);
}

static void form_c_composes_and_orders(void **state) {
    (void)state;
    nfc_is("", "");
    nfc_is("plain, 두레, 漢字, かな", "plain, 두레, 漢字, かな");
    nfc_is("e\u0301", "é");
    nfc_is("xe\u0301y e\u0301", "xéy é");
    nfc_is("\u1112\u1161\u11ab\u1100\u1173\u11af", "한글");
    nfc_is("\uac00\u11a8", "\uac01");                   /* a syllable and a final */
    nfc_is("\uca84\u11a7\u11a8", "\uca84\u11a7\u11a8"); /* a vowel between */
    nfc_is("\u212b \u2126 \u212a", "\u00c5 \u03a9 K");
    nfc_is("a\u0315\u0300\u05ae"
           "b",
           "\u00e0\u05ae\u0315"
           "b"); /* NormalizationTest.txt */
    nfc_is("q\u0323\u0307", "q\u0323\u0307");
    nfc_is("q\u0307\u0323", "q\u0323\u0307");
    nfc_is("\u0958", "\u0915\u093c"); /* composition exclusion */
    nfc_is("か\u3099", "が");
    nfc_is("\u0301e", "\u0301e"); /* a mark with nothing before it */
}

static void form_c_keeps_invalid_bytes(void **state) {
    (void)state;
    nfc_is("e\xff\u0301", "e\xff\u0301"); /* they part what would combine */
    nfc_is("\x80\x80 e\u0301\xe3\x81", "\x80\x80 é\xe3\x81");
}

/* The whole of utf8proc over random text of the characters that matter. */
static void form_c_is_utf8proc_s(void **state) {
    (void)state;
    static const int32_t pool[] = {'a',    'e',    ' ',    0x301,  0x323,  0x307,  0x315,  0x1112,
                                   0x1161, 0x11ab, 0xac00, 0xb450, 0x4e00, 0x3099, 0x304b, 0x212b,
                                   0x958,  0x93c,  0xe9,   0x1e69, 0x5ae,  0xff21, 0x1f600};
    du_rng rng;
    du_rng_init(&rng, 5);
    du_str text = {0}, got = {0};
    for (int round = 0; round < 20000; round++) {
        du_str_reset(&text);
        du_str_reset(&got);
        for (uint64_t n = du_rng_below(&rng, 12); n > 0; n--) {
            du_utf8_add(&text, pool[du_rng_below(&rng, sizeof pool / sizeof pool[0])]);
        }
        int32_t cps[64];
        utf8proc_ssize_t n = utf8proc_decompose((const utf8proc_uint8_t *)du_str_get(&text),
                                                (utf8proc_ssize_t)text.len, cps, 64,
                                                UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        assert_true(n >= 0 && n <= 64);
        n = utf8proc_normalize_utf32(cps, n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        du_str want = {0};
        for (utf8proc_ssize_t i = 0; i < n; i++) {
            du_utf8_add(&want, cps[i]);
        }
        du_utf8_add_nfc(&got, du_str_view(&text));
        assert_string_equal(du_str_get(&got), du_str_get(&want));
        du_str_done(&want);
    }
    du_str_done(&text);
    du_str_done(&got);
}

/* Inert characters have class 0, are their own form, and end no decomposition. */
static void inert_characters_are_inert(void **state) {
    (void)state;
    int32_t n_inert = 0;
    for (int32_t cp = 0; cp <= DU_CP_MAX; cp++) {
        if (cp >= 0xd800 && cp <= 0xdfff) {
            continue;
        }
        int32_t parts[8];
        int boundary = 0;
        utf8proc_ssize_t n =
            utf8proc_decompose_char(cp, parts, 8, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &boundary);
        for (utf8proc_ssize_t i = 1; i < n; i++) {
            assert_false(du_unicode_nfc_inert(parts[i]));
        }
        if (!du_unicode_nfc_inert(cp)) {
            continue;
        }
        n_inert++;
        assert_int_equal(utf8proc_get_property(cp)->combining_class, 0);
        n = utf8proc_normalize_utf32(parts, n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        assert_int_equal(n, 1);
        assert_int_equal(parts[0], cp);
    }
    assert_true(n_inert > 40000); /* Hangul and ideographs are among them */
    assert_true(du_unicode_nfc_inert(0xb450) && du_unicode_nfc_inert(0x4e00));
}

/* Marks that all have to be ordered: quadratic sorting would take hours. */
static void long_runs_of_marks_take_linear_time(void **state) {
    (void)state;
    du_str text = {0}, out = {0};
    du_str_add_c(&text, 'a');
    for (int i = 0; i < 500000; i++) {
        du_str_add_s(&text, "\u0301\u0323");
    }
    double start = du_clock_s();
    du_utf8_add_nfc(&out, du_str_view(&text));
    assert_true(du_clock_s() - start < 20);
    assert_false(out.failed);
    assert_true(out.len > text.len - 8);
    assert_true(du_sv_starts(du_str_view(&out), "\u1ea1\u0323"));
    assert_true(du_sv_ends(du_str_view(&out), "\u0301\u0301"));
    du_str_done(&text);
    du_str_done(&out);
}

static void spaces_and_words(void **state) {
    (void)state;
    static const int32_t spaces[] = {9,      10,     13,     ' ',    0x85,  0xa0,
                                     0x1680, 0x2003, 0x2028, 0x202f, 0x3000};
    static const int32_t others[] = {'a', 0x180e, 0x200b, 0x2060, 0xfeff, 0x1c};
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++) {
        assert_true(du_unicode_is_space(spaces[i]));
        assert_false(du_unicode_is_word(spaces[i]));
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_false(du_unicode_is_space(others[i]));
    }
    static const int32_t words[] = {'a', '_', '0', 0xac00, 0x301, 0x203f, 0x24b6, 0x200d, 0x2160};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        assert_true(du_unicode_is_word(words[i]));
    }
    assert_false(du_unicode_is_word('-') || du_unicode_is_word(0x1f600));
}

static void short_memory_fails_softly(void **state) {
    (void)state;
    for (int64_t n = 1; n < 6; n++) {
        du_str out = {0};
        du_mem_fail_at(n, true);
        du_utf8_add_nfc(
            &out, du_sv_of("xe\u0301 e\u0301 e\u0301 e\u0301 e\u0301 e\u0301 e\u0301 e\u0301"));
        du_mem_fail_at(0, false);
        assert_true(out.failed);
        du_str_done(&out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_character_comes_back),
        cmocka_unit_test(invalid_bytes_are_replaced_by_maximal_subparts),
        cmocka_unit_test(valid_part_is_found_at_every_place),
        cmocka_unit_test(form_c_composes_and_orders),
        cmocka_unit_test(form_c_keeps_invalid_bytes),
        cmocka_unit_test(form_c_is_utf8proc_s),
        cmocka_unit_test(inert_characters_are_inert),
        cmocka_unit_test(long_runs_of_marks_take_linear_time),
        cmocka_unit_test(spaces_and_words),
        cmocka_unit_test(short_memory_fails_softly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
