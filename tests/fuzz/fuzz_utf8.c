/* UTF-8, form C and the translation of regular expressions on any bytes. */
#include "fuzz.h"

#include <utf8proc.h>

#include "text/pattern.h"
#include "text/unicode.h"

/* Decoding, validity and cuts agree with one another. */
static void check_decoding(const char *s, size_t len) {
    bool valid = true;
    size_t valid_len = du_utf8_valid(s, len), n_cut = du_utf8_cut(s, len);
    FUZZ_CHECK(valid_len <= len && n_cut <= 3 && n_cut <= len);
    for (size_t i = 0; i < len;) {
        int32_t cp = -2;
        size_t n = du_utf8_next(s + i, len - i, &cp);
        FUZZ_CHECK(n >= 1 && n <= 4 && n <= len - i);
        if (cp < 0 && valid) {
            FUZZ_CHECK(cp == -1 && i == valid_len);
            valid = false;
        }
        if (cp >= 0) {
            char bytes[4];
            FUZZ_CHECK(du_utf8_put(bytes, cp) == n && memcmp(bytes, s + i, n) == 0);
        }
        i += n;
    }
    FUZZ_CHECK(!valid || valid_len == len);
    /* What is cut off is invalid, and becomes a character with the right bytes behind it. */
    FUZZ_CHECK(n_cut == 0 || valid_len <= len - n_cut);
}

static void check_replacement(const char *s, size_t len) {
    du_str out = {0}, again = {0};
    du_utf8_add_replaced(&out, (du_sv){s, len});
    FUZZ_CHECK(!out.failed && du_utf8_valid(du_str_get(&out), out.len) == out.len);
    du_utf8_add_replaced(&again, du_str_view(&out));
    FUZZ_CHECK(du_sv_eq(du_str_view(&out), du_str_view(&again)));
    du_str_done(&out);
    du_str_done(&again);
}

/* utf8proc's own way, for valid text without the vowel that its older versions lose. */
static void check_against_utf8proc(const char *s, size_t len, du_sv got) {
    if (du_sv_find((du_sv){s, len}, du_sv_of("\u11a7"), 0) >= 0) {
        return;
    }
    utf8proc_uint8_t *want = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)len, &want,
                                      UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    FUZZ_CHECK(n >= 0 && (size_t)n == got.len && memcmp(want, got.s, got.len) == 0);
    free(want);
}

static void check_nfc(const char *s, size_t len) {
    du_str once = {0}, twice = {0};
    du_utf8_add_nfc(&once, (du_sv){s, len});
    du_utf8_add_nfc(&twice, du_str_view(&once));
    FUZZ_CHECK(!once.failed && du_sv_eq(du_str_view(&once), du_str_view(&twice)));
    if (du_utf8_valid(s, len) == len) {
        check_against_utf8proc(s, len, du_str_view(&once));
    }
    du_str_done(&once);
    du_str_done(&twice);
}

static void check_proxies(const char *s, size_t len) {
    du_sv text = {s, du_utf8_valid(s, len)};
    du_str out = {0};
    bool has = du_unicode_has_new(text);
    du_unicode_add_proxies(&out, text);
    FUZZ_CHECK(out.len == text.len && du_utf8_valid(du_str_get(&out), out.len) == out.len);
    FUZZ_CHECK(!du_unicode_has_new(du_str_view(&out)));
    FUZZ_CHECK(has == !du_sv_eq(text, du_str_view(&out)));
    du_str_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *s = (const char *)data;
    check_decoding(s, size);
    check_replacement(s, size);
    check_nfc(s, size);
    check_proxies(s, size);
    du_str form = {0};
    du_diag diag;
    du_diag_reset(&diag);
    du_err err = du_pattern_translate(&form, (du_sv){s, size}, &diag);
    FUZZ_CHECK(err == DU_OK ? !form.failed : diag.msg[0] != '\0');
    du_str_done(&form);
    return 0;
}
