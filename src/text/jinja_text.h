/* Python's view of text: code points, white space, classes and case of Unicode characters.
 *
 * Strings are valid UTF-8 without surrogates (checked where they enter), so decoding here cannot
 * fail and needs no length. Classes and case mappings follow Python's str methods; the data are
 * utf8proc's. */
#ifndef DU_TEXT_JINJA_TEXT_H
#define DU_TEXT_JINJA_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

size_t du_jinja_count_chars(du_sv text);

/* The code point at s, and its length in bytes. */
int32_t du_jinja_char_get(const char *s, size_t *n_bytes);
/* The code point that ends before s[at]; at > 0. */
int32_t du_jinja_char_before(const char *s, size_t at, size_t *n_bytes);

/* Puts ? where a message holds half a character, cut off by its length. */
void du_jinja_mend(char *message);

bool du_jinja_is_space(int32_t c);     /* str.isspace */
bool du_jinja_is_word(int32_t c);      /* \w of the lexer: letters, digits, marks, _ */
bool du_jinja_is_line_end(int32_t c);  /* where str.splitlines cuts (and \r\n) */
bool du_jinja_is_printable(int32_t c); /* repr shows it as it is */
bool du_jinja_is_alpha(int32_t c);
bool du_jinja_is_decimal(int32_t c);
bool du_jinja_is_digit(int32_t c);
bool du_jinja_is_alnum(int32_t c);
bool du_jinja_is_id_start(int32_t c);
bool du_jinja_is_lower(int32_t c);
bool du_jinja_is_upper(int32_t c);
bool du_jinja_is_title(int32_t c);

typedef enum { CASE_LOWER, CASE_UPPER, CASE_TITLE, CASE_CAPITALIZE, CASE_SWAP, CASE_FOLD } du_case;

/* Appends the text in another case, as str.lower, upper, title, capitalize, swapcase, casefold. */
void du_jinja_add_case(du_str *to, du_sv text, du_case how);

/* How many bytes at the start (end) are white space, or characters of `chars` if that is not NULL.
 */
size_t du_jinja_strip_start(du_sv text, const du_sv *chars);
size_t du_jinja_strip_end(du_sv text, const du_sv *chars);

#endif
