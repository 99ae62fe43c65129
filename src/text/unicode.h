/* UTF-8 and the few Unicode properties that tokenizers need.
 *
 * Text from outside may hold bytes that are not UTF-8. Nothing here loses them: functions say how
 * far the text is valid, and pass the rest through as it is. */
#ifndef DU_TEXT_UNICODE_H
#define DU_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

enum {
    DU_CP_MAX = 0x10ffff,
    DU_CP_REPLACEMENT = 0xfffd,
    DU_CP_LOW_LINE = 0x2581 /* the blank of SentencePiece */
};

/* Decodes the character at s[0..len), len >= 1. *cp is the code point, or -1 where the bytes are
 * not UTF-8 (overlong forms, surrogates and values above U+10FFFF are not). Returns the bytes used,
 * at least 1; of invalid ones the longest prefix of some valid character ("maximal subpart",
 * Unicode 15, section 3.9), which is what one U+FFFD stands for. */
size_t du_utf8_next(const char *s, size_t len, int32_t *cp);

/* Writes the character and returns its bytes, 1 to 4. cp is a code point, no surrogate. */
size_t du_utf8_put(char out[4], int32_t cp);
void du_utf8_add(du_str *out, int32_t cp);

/* How many bytes of s[0..len) from the start are valid UTF-8, up to the first that are not. */
size_t du_utf8_valid(const char *s, size_t len);

/* How many bytes at the end of s[0..len) begin a character that is cut off: 0 to 3. */
size_t du_utf8_cut(const char *s, size_t len);

/* Appends text with U+FFFD for what is not UTF-8. */
void du_utf8_add_replaced(du_str *out, du_sv text);

/* Appends text in normalisation form C; bytes that are not UTF-8 stay where they are. */
void du_utf8_add_nfc(du_str *out, du_sv text);

/* Whether a character is inert under NFC: the form of any text is that of the parts before and from
 * it, and it is its own form unless a character follows that is not inert. False for some that are:
 * it decides speed, never the result. */
bool du_unicode_nfc_inert(int32_t cp);

/* Characters that Unicode 15 and 16 have added are unknown to libraries of Unicode 14 (PCRE2 before
 * 10.43), but not to the reference tokenizers. Each has a proxy here: an older character of the
 * same length in UTF-8, general category and script (as far as patterns name scripts), so that a
 * pattern over categories treats the two alike. */

/* Whether text, which is valid UTF-8, holds such a character. */
bool du_unicode_has_new(du_sv text);

/* Appends text with the proxies of such characters: as many bytes. */
void du_unicode_add_proxies(du_str *out, du_sv text);

bool du_unicode_is_space(int32_t cp); /* White_Space */
bool du_unicode_is_word(int32_t cp);  /* a letter, mark, digit, connector: \w (UTS 18, annex C) */

#endif
