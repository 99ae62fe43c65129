#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"

int64_t du_sv_find(du_sv hay, du_sv needle, size_t from) {
    if (from > hay.len || needle.len > hay.len - from) {
        return -1;
    }
    if (needle.len == 0) {
        return (int64_t)from;
    }
    const char *at = memmem(hay.s + from, hay.len - from, needle.s, needle.len);
    return at ? at - hay.s : -1;
}

void du_str_done(du_str *s) {
    du_free(s->data);
    *s = (du_str){0};
}

void du_str_reset(du_str *s) {
    s->len = 0;
    s->failed = false;
    if (s->data) {
        s->data[0] = '\0';
    }
}

void du_str_reserve(du_str *s, size_t more) {
    size_t need;
    if (s->failed || !du_add_size(s->len, more, &need) || !du_add_size(need, 1, &need)) {
        s->failed = true;
        return;
    }
    if (need <= s->cap) {
        return;
    }
    size_t cap = s->cap * 2 > need ? s->cap * 2 : need < 32 ? 32 : need;
    char *data = du_realloc(s->data, cap);
    if (!data) {
        s->failed = true;
        return;
    }
    s->data = data;
    s->cap = cap;
}

void du_str_add(du_str *s, const void *bytes, size_t n) {
    du_str_reserve(s, n);
    if (s->failed) {
        return;
    }
    if (n) {
        memcpy(s->data + s->len, bytes, n);
    }
    s->len += n;
    s->data[s->len] = '\0';
}

void du_str_add_c(du_str *s, char c) {
    du_str_add(s, &c, 1);
}

void du_str_add_s(du_str *s, const char *text) {
    du_str_add(s, text, strlen(text));
}

void du_str_add_sv(du_str *s, du_sv text) {
    du_str_add(s, text.s, text.len);
}

void du_str_addf(du_str *s, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n >= 0) {
        du_str_reserve(s, (size_t)n);
    }
    if (n < 0 || s->failed) {
        s->failed = true;
    } else {
        vsnprintf(s->data + s->len, (size_t)n + 1, fmt, again);
        s->len += (size_t)n;
    }
    va_end(again);
}

void du_str_add_f64(du_str *s, double v) {
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) {
            break;
        }
    }
    du_str_add_s(s, text);
}

const char *du_str_get(const du_str *s) {
    return s->data ? s->data : "";
}

char *du_str_take(du_str *s) {
    if (!s->failed && !s->data) {
        du_str_reserve(s, 0);
        if (!s->failed) {
            s->data[0] = '\0';
        }
    }
    char *data = s->data;
    if (s->failed) {
        du_free(data);
        data = NULL;
    }
    *s = (du_str){0};
    return data;
}

/* Edit distance with one row; names longer than the row are never near. */
static size_t edit_distance(const char *a, const char *b) {
    enum { MAX = 64 };
    size_t row[MAX + 1];
    size_t n_a = strlen(a), n_b = strlen(b);
    if (n_a > MAX || n_b > MAX) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= n_b; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= n_a; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            size_t insert = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = change < insert ? change : insert;
        }
    }
    return row[n_b];
}

const char *du_nearest(const char *word, const char *const *names, size_t n) {
    const char *best = NULL;
    size_t best_distance = strlen(word) / 3 + 1;
    for (size_t i = 0; i < n; i++) {
        size_t distance = edit_distance(word, names[i]);
        if (distance <= best_distance && (!best || distance < best_distance)) {
            best = names[i];
            best_distance = distance;
        }
    }
    return best;
}
