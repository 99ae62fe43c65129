/* Regular expressions of tokenizer.json in the syntax of PCRE2.
 *
 * The files are written for Oniguruma with Ruby's syntax, where several escapes and operators mean
 * something else than in PCRE2, or the same with other characters in it. A pattern is parsed and
 * written anew, so that everything that reaches PCRE2 is known to mean the same. */
#ifndef DU_TEXT_PATTERN_H
#define DU_TEXT_PATTERN_H

#include "base/err.h"
#include "base/str.h"

enum { DU_PATTERN_BYTES_MAX = 1 << 15 };

/* Appends the PCRE2 form of an Oniguruma pattern to out. It is to be compiled with PCRE2_UTF and
 * PCRE2_MULTILINE, newline LF, without PCRE2_UCP. Equal patterns that are only spelt differently
 * (an escape or the character itself) get the same form.
 * Returns DU_OK; DU_EFORMAT (syntax), DU_EUNSUPPORTED (an operator that is not translated), both
 * with the byte offset; DU_ELIMIT; DU_ENOMEM. out has unspecified additions after a failure. */
DU_NODISCARD
du_err du_pattern_translate(du_str *out, du_sv pattern, du_diag *diag);

/* Appends the PCRE2 form of a literal text. */
void du_pattern_add_literal(du_str *out, du_sv text);

#endif
