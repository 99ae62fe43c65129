/* Strings: a growing byte buffer with a sticky failure, and a borrowed view. */
#ifndef DU_BASE_STR_H
#define DU_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"

/* A borrowed piece of text, not terminated. */
typedef struct {
    const char *s;
    size_t len;
} du_sv;

static inline du_sv du_sv_of(const char *s) {
    return (du_sv){s, strlen(s)};
}
static inline bool du_sv_eq(du_sv a, du_sv b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.s, b.s, a.len) == 0);
}
static inline bool du_sv_is(du_sv a, const char *b) {
    return du_sv_eq(a, du_sv_of(b));
}
static inline bool du_sv_starts(du_sv a, const char *prefix) {
    size_t n = strlen(prefix);
    return a.len >= n && memcmp(a.s, prefix, n) == 0;
}
static inline bool du_sv_ends(du_sv a, const char *suffix) {
    size_t n = strlen(suffix);
    return a.len >= n && memcmp(a.s + a.len - n, suffix, n) == 0;
}
/* The place of needle in hay at or after from; -1 when absent. */
/* Without blanks, tabs and carriage returns at its ends. */
static inline du_sv du_sv_trim(du_sv text) {
    while (text.len > 0 && strchr(" \t\r", text.s[0])) {
        text = (du_sv){text.s + 1, text.len - 1};
    }
    while (text.len > 0 && strchr(" \t\r", text.s[text.len - 1])) {
        text.len--;
    }
    return text;
}

int64_t du_sv_find(du_sv hay, du_sv needle, size_t from);

/* A growing buffer. Start from {0}; append; look at `failed` once at the end: after a failed
 * allocation every append does nothing. data is always terminated when not NULL. */
typedef struct {
    char *data;
    size_t len, cap;
    bool failed;
} du_str;

void du_str_done(du_str *s);  /* frees and empties */
void du_str_reset(du_str *s); /* len = 0, keeps the memory and clears `failed` */
void du_str_add(du_str *s, const void *bytes, size_t n);
void du_str_add_c(du_str *s, char c);
void du_str_add_s(du_str *s, const char *text);
void du_str_add_sv(du_str *s, du_sv text);
void du_str_addf(du_str *s, const char *fmt, ...) DU_PRINTF(2, 3);
void du_str_add_f64(du_str *s, double v); /* finite: the shortest decimal that reads back as v */
void du_str_reserve(du_str *s, size_t more);

/* The text, "" when nothing was added; valid until the next change. */
const char *du_str_get(const du_str *s);
static inline du_sv du_str_view(const du_str *s) {
    return (du_sv){du_str_get(s), s->len};
}
/* Hands the heap block over (free with du_free), leaving *s empty; NULL when it had failed. */
char *du_str_take(du_str *s);

/* The entry of names[0..n) nearest to word by edit distance, for "did you mean"; NULL when none is
 * near (more than a third of its letters away). */
const char *du_nearest(const char *word, const char *const *names, size_t n);

#endif
