/* A state machine over the text that is not decided yet: each step gives out its decided beginning,
 * or waits for more. What is waited for is only what may still become a tag, and white space that a
 * tag behind it would swallow. */
#include "text/reasoning.h"

/* What the undecided text is looked at for. */
enum {
    MAYBE,   /* AUTO: <think> behind white space; otherwise it is PLAIN */
    OPENED,  /* the prompt opened the block: <think> once more, which is dropped */
    LEADING, /* inside the block, before its first character that is no white space */
    INSIDE,  /* </think>; white space before it is dropped */
    PLAIN,   /* </think>, which makes reasoning of what was content */
    BEHIND,  /* behind </think>, before the first character that is no white space */
    CONTENT, /* nothing */
};

#define OPENING "<think>"
#define CLOSING "</think>"

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static du_sv trim_end(du_sv s) {
    while (s.len && is_space(s.s[s.len - 1])) {
        s.len--;
    }
    return s;
}

static du_sv trim_start(du_sv s) {
    while (s.len && is_space(s.s[0])) {
        s = (du_sv){s.s + 1, s.len - 1};
    }
    return s;
}

du_reasoning_start du_reasoning_start_of(const char *prompt, size_t len) {
    du_sv s = trim_end((du_sv){prompt, len});
    return du_sv_ends(s, OPENING)   ? DU_REASONING_OPEN
           : du_sv_ends(s, CLOSING) ? DU_REASONING_CLOSED
                                    : DU_REASONING_AUTO;
}

void du_reasoning_init(du_reasoning *r, du_reasoning_start start) {
    *r = (du_reasoning){.state = start == DU_REASONING_OPEN     ? OPENED
                                 : start == DU_REASONING_CLOSED ? CONTENT
                                                                : MAYBE};
}

void du_reasoning_done(du_reasoning *r) {
    du_str_done(&r->reasoning);
    du_str_done(&r->content);
    du_str_done(&r->held);
}

/* How many bytes at the end may be the beginning of the tag. */
static size_t partial_tag(du_sv s, const char *tag) {
    size_t n = strlen(tag) - 1;
    for (n = n < s.len ? n : s.len; n > 0; n--) {
        if (memcmp(s.s + s.len - n, tag, n) == 0) {
            return n;
        }
    }
    return 0;
}

/* All that was content so far was reasoning; what was handed out of it counts as handed out. */
static void content_was_reasoning(du_reasoning *r) {
    du_sv whole = du_str_view(&r->content), text = trim_start(whole);
    size_t n_space = whole.len - text.len, taken = r->n_content_taken;
    text = trim_end(text);
    du_str_add_sv(&r->reasoning, text);
    r->reasoning.failed = r->reasoning.failed || r->content.failed;
    taken = taken > n_space ? taken - n_space : 0;
    r->n_reasoning_taken = taken < text.len ? taken : text.len;
    r->n_content_taken = 0;
    du_str_reset(&r->content);
}

/* At the start: is there an opening tag? Returns the bytes that are decided; *wait: more is needed.
 */
static size_t at_start(du_reasoning *r, du_sv s, bool last, bool *wait) {
    du_sv text = trim_start(s);
    if (du_sv_starts(text, OPENING)) {
        r->state = LEADING;
        return s.len - text.len + strlen(OPENING);
    }
    *wait = !last && partial_tag(text, OPENING) == text.len;
    if (!*wait) {
        r->state = r->state == MAYBE ? PLAIN : LEADING;
    }
    return 0;
}

/* Up to the closing tag; the same results. `to` gets the text. */
static size_t to_closing(du_reasoning *r, du_sv s, bool last, du_str *to, bool *wait) {
    int64_t close = du_sv_find(s, du_sv_of(CLOSING), 0);
    size_t n_held = close >= 0 || last ? 0 : partial_tag(s, CLOSING);
    du_sv text = {s.s, close >= 0 ? (size_t)close : s.len - n_held};
    if (r->state == INSIDE) { /* white space at its end waits for what comes behind */
        text = trim_end(text);
    }
    du_str_add_sv(to, text);
    *wait = close < 0;
    if (close < 0) {
        return last ? s.len : text.len;
    }
    if (r->state == PLAIN) {
        content_was_reasoning(r);
    }
    r->state = BEHIND;
    return (size_t)close + strlen(CLOSING);
}

/* One step over the undecided text s. */
static size_t step(du_reasoning *r, du_sv s, bool last, bool *wait) {
    switch (r->state) {
    case MAYBE:
    case OPENED:
        return at_start(r, s, last, wait);
    case INSIDE:
        return to_closing(r, s, last, &r->reasoning, wait);
    case PLAIN:
        return to_closing(r, s, last, &r->content, wait);
    case CONTENT:
        du_str_add_sv(&r->content, s);
        *wait = true;
        return s.len;
    default: { /* LEADING, BEHIND */
        du_sv text = trim_start(s);
        *wait = text.len == 0;
        if (!*wait) {
            r->state = r->state == LEADING ? INSIDE : CONTENT;
        }
        return s.len - text.len;
    }
    }
}

static du_err run(du_reasoning *r, bool last) {
    du_sv s = du_str_view(&r->held);
    for (bool wait = false; !wait;) {
        size_t n = step(r, s, last, &wait);
        s = (du_sv){s.s + n, s.len - n};
    }
    if (r->held.failed || r->reasoning.failed || r->content.failed) {
        return DU_ENOMEM;
    }
    if (s.len < r->held.len) {
        memmove(r->held.data, s.s, s.len);
        r->held.len = s.len;
    }
    return DU_OK;
}

du_err du_reasoning_feed(du_reasoning *r, const char *bytes, size_t n) {
    du_str_add(&r->held, bytes, n);
    return run(r, false);
}

du_err du_reasoning_finish(du_reasoning *r) {
    return run(r, true);
}

static du_sv take(const du_str *s, size_t *n_taken) {
    du_sv rest = {du_str_get(s) + *n_taken, s->len - *n_taken};
    *n_taken = s->len;
    return rest;
}

du_sv du_reasoning_take_reasoning(du_reasoning *r) {
    return take(&r->reasoning, &r->n_reasoning_taken);
}

du_sv du_reasoning_take_content(du_reasoning *r) {
    return take(&r->content, &r->n_content_taken);
}
