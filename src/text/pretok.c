/* Passes of regular expressions over PCRE2 with its JIT compiler.
 *
 * The passes run depth first: as soon as one yields a piece, the next cuts it, and the last hands
 * its pieces out. So the text is walked through in order, nothing is collected, and the memory
 * needed does not grow with the text. Every call of PCRE2 gets valid UTF-8; characters newer than
 * its tables are shown to it as older ones of their kind. */
#include "text/pretok.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/mem.h"
#include "text/pattern.h"
#include "text/unicode.h"

typedef struct {
    pcre2_code *code;
    char *form; /* the expression as PCRE2 has it, for comparing */
    du_split split;
    bool invert;
} pass;

struct du_pretok {
    pcre2_general_context *memory;
    pcre2_compile_context *compile;
    pass passes[DU_PRETOK_PASSES_MAX];
    size_t n_passes;
};

struct du_pretok_work {
    pcre2_general_context *memory;
    pcre2_match_context *match;
    pcre2_jit_stack *stack;
    pcre2_match_data *data[DU_PRETOK_PASSES_MAX];
    size_t n_passes;
    du_str proxies; /* a text with the proxies of new characters */
};

enum {
    JIT_STACK_BYTES = 64 << 10,
    JIT_STACK_BYTES_MAX = 64 << 20, /* reserved, not used up: kimi-k2 needs some per letter */
    MATCH_LIMIT = 50000000,         /* steps of one match */
};

static void *heap_alloc(PCRE2_SIZE n_bytes, void *data) {
    (void)data;
    return du_alloc(n_bytes);
}

static void heap_free(void *p, void *data) {
    (void)data;
    du_free(p);
}

du_err du_pretok_new(du_pretok **out, du_diag *diag) {
    du_pretok *p = du_alloc_zero(1, sizeof *p);
    if (p) {
        p->memory = pcre2_general_context_create(heap_alloc, heap_free, NULL);
        p->compile = p->memory ? pcre2_compile_context_create(p->memory) : NULL;
    }
    if (!p || !p->compile) {
        du_pretok_free(p);
        return du_fail_nomem(diag, "a pre-tokenizer");
    }
    pcre2_set_newline(p->compile, PCRE2_NEWLINE_LF);
    *out = p;
    return DU_OK;
}

void du_pretok_free(du_pretok *p) {
    if (!p) {
        return;
    }
    for (size_t i = 0; i < p->n_passes; i++) {
        pcre2_code_free(p->passes[i].code);
        du_free(p->passes[i].form);
    }
    pcre2_compile_context_free(p->compile);
    pcre2_general_context_free(p->memory);
    du_free(p);
}

static du_err compile(du_pretok *p, pcre2_code **out, du_sv form, du_diag *diag) {
    int code;
    size_t offset;
    *out = pcre2_compile((PCRE2_SPTR)form.s, form.len,
                         PCRE2_UTF | PCRE2_NO_UTF_CHECK | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                         &code, &offset, p->compile);
    if (!*out && code == PCRE2_ERROR_HEAP_FAILED) {
        return du_fail_nomem(diag, "a regular expression");
    }
    if (!*out) {
        char why[120];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        size_t from = offset > 20 ? offset - 20 : 0;
        return du_fail(diag, DU_EFORMAT, "regular expression: %s at its '%.*s'", why,
                       (int)(offset - from), form.s + from);
    }
    /* Where the system forbids code made at run time, PCRE2 interprets. */
    pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
    return DU_OK;
}

/* The same matches in linear time: when white space is tried from its second character on, the
 * first has failed, and so will it. */
static du_sv quicker(du_sv pattern) {
    return du_sv_is(pattern, "\\s+$") ? du_sv_of("(?<!\\s)\\s+$") : pattern;
}

/* Compiles a pass into *made, which owns what it holds also after a failure. */
static du_err make_pass(du_pretok *p, pass *made, du_sv pattern, bool literal, du_diag *diag) {
    du_str form = {0}, quick = {0};
    du_err err = DU_OK;
    if (literal) {
        du_pattern_add_literal(&form, pattern);
        du_pattern_add_literal(&quick, pattern);
    } else {
        err = du_pattern_translate(&form, pattern, diag);
        if (err == DU_OK) {
            err = du_pattern_translate(&quick, quicker(pattern), diag);
        }
    }
    if (err == DU_OK && (form.failed || quick.failed)) {
        err = du_fail_nomem(diag, "a regular expression");
    }
    if (err == DU_OK) {
        err = compile(p, &made->code, du_str_view(&quick), diag);
    }
    if (err == DU_OK) {
        made->form = du_str_take(&form);
        err = made->form ? DU_OK : du_fail_nomem(diag, "a regular expression");
    }
    du_str_done(&form);
    du_str_done(&quick);
    return err;
}

du_err du_pretok_add(du_pretok *p, du_sv pattern, bool literal, du_split split, bool invert,
                     du_diag *diag) {
    if (p->n_passes == DU_PRETOK_PASSES_MAX) {
        return du_fail(diag, DU_ELIMIT, "a pre-tokenizer of more than %d passes",
                       DU_PRETOK_PASSES_MAX);
    }
    if (pattern.len == 0) {
        return du_fail(diag, DU_EUNSUPPORTED, "an empty pattern to split by");
    }
    if (pattern.len > DU_PATTERN_BYTES_MAX) {
        return du_fail(diag, DU_ELIMIT, "a pattern of %zu bytes, more than %d", pattern.len,
                       DU_PATTERN_BYTES_MAX);
    }
    pass *made = &p->passes[p->n_passes];
    *made = (pass){.split = split, .invert = invert};
    du_err err = make_pass(p, made, pattern, literal, diag);
    if (err != DU_OK) {
        pcre2_code_free(made->code);
        du_free(made->form);
        return err;
    }
    p->n_passes++;
    return DU_OK;
}

du_err du_pretok_is(const du_pretok *p, const char *const *patterns, size_t n, bool *is,
                    du_diag *diag) {
    *is = p->n_passes == n;
    for (size_t i = 0; *is && i < n; i++) {
        du_str form = {0};
        du_err err = du_pattern_translate(&form, du_sv_of(patterns[i]), diag);
        *is = err == DU_OK && p->passes[i].split == DU_SPLIT_ISOLATED && !p->passes[i].invert &&
              du_sv_is(du_str_view(&form), p->passes[i].form);
        du_str_done(&form);
        if (err != DU_OK) {
            return err;
        }
    }
    return DU_OK;
}

du_err du_pretok_work_new(du_pretok_work **out, const du_pretok *p, du_diag *diag) {
    du_pretok_work *work = du_alloc_zero(1, sizeof *work);
    if (!work) {
        return du_fail_nomem(diag, "a pre-tokenizer");
    }
    work->n_passes = p->n_passes;
    work->memory = pcre2_general_context_create(heap_alloc, heap_free, NULL);
    work->match = work->memory ? pcre2_match_context_create(work->memory) : NULL;
    work->stack = work->match
                      ? pcre2_jit_stack_create(JIT_STACK_BYTES, JIT_STACK_BYTES_MAX, work->memory)
                      : NULL;
    uint32_t has_jit = 0;
    pcre2_config(PCRE2_CONFIG_JIT, &has_jit);
    bool ok = work->match && (work->stack || !has_jit);
    for (size_t i = 0; i < p->n_passes && ok; i++) {
        work->data[i] = pcre2_match_data_create(1, work->memory);
        ok = work->data[i];
    }
    if (!ok) {
        du_pretok_work_free(work);
        return du_fail_nomem(diag, "a pre-tokenizer");
    }
    pcre2_set_match_limit(work->match, MATCH_LIMIT);
    if (work->stack) {
        pcre2_jit_stack_assign(work->match, NULL, work->stack);
    }
    *out = work;
    return DU_OK;
}

void du_pretok_work_free(du_pretok_work *work) {
    if (!work) {
        return;
    }
    for (size_t i = 0; i < work->n_passes; i++) {
        pcre2_match_data_free(work->data[i]);
    }
    du_str_done(&work->proxies);
    pcre2_jit_stack_free(work->stack);
    pcre2_match_context_free(work->match);
    pcre2_general_context_free(work->memory);
    du_free(work);
}

typedef struct {
    const du_pretok *p;
    du_pretok_work *work;
    du_piece_fn *fn;
    void *arg;
    du_diag *diag;
    const char *matched, *text; /* what the passes see, and what pieces are made of */
} splitter;

static du_err run_pass(const splitter *s, size_t i, du_sv text);

/* What a pass has made of the text so far: the last part is kept while the next may join it. */
typedef struct {
    size_t start, end;
    bool any, match;
} pending;

static du_err emit(const splitter *s, size_t i, du_sv text, size_t start, size_t end) {
    du_sv piece = {text.s + start, end - start};
    if (piece.len == 0) {
        return DU_OK;
    }
    if (i + 1 < s->p->n_passes) {
        return run_pass(s, i + 1, piece);
    }
    piece.s = s->text + (piece.s - s->matched);
    return s->fn(s->arg, piece);
}

static du_err flush(const splitter *s, size_t i, du_sv text, pending *last) {
    du_err err = last->any ? emit(s, i, text, last->start, last->end) : DU_OK;
    last->any = false;
    return err;
}

/* The part [start, end) of text, which is a match or lies between two. */
static du_err add_part(const splitter *s, size_t i, du_sv text, pending *last, size_t start,
                       size_t end, bool match) {
    bool join = false;
    match ^= s->p->passes[i].invert;
    switch (s->p->passes[i].split) {
    case DU_SPLIT_REMOVED:
        return match ? DU_OK : emit(s, i, text, start, end);
    case DU_SPLIT_CONTIGUOUS:
        join = match == last->match;
        break;
    case DU_SPLIT_PREVIOUS:
        join = match && !last->match;
        break;
    case DU_SPLIT_NEXT:
        join = !match && last->match;
        break;
    default:
        return emit(s, i, text, start, end);
    }
    du_err err = DU_OK;
    if (last->any && join) {
        last->end = end;
    } else {
        err = flush(s, i, text, last);
        *last = (pending){start, end, true, match};
    }
    last->match = match;
    return err;
}

static du_err gave_up(int code, du_diag *diag) {
    if (code == PCRE2_ERROR_NOMEMORY) {
        return du_fail_nomem(diag, "a regular expression");
    }
    char why[120];
    pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
    return du_fail(diag, DU_ELIMIT, "the pre-tokenizer gave up on a text: %s", why);
}

/* Cuts a piece by pass i. An empty match cuts where it is, unless a match ends there; the search
 * goes on a character further. */
static du_err run_pass(const splitter *s, size_t i, du_sv text) {
    const pcre2_code *code = s->p->passes[i].code;
    pcre2_match_data *data = s->work->data[i];
    const size_t *span = pcre2_get_ovector_pointer(data);
    pending last = {0};
    size_t done = 0, from = 0;
    bool matched = false; /* and the last match ended at `done` */
    while (from <= text.len) {
        int code_or_n = pcre2_match(code, (PCRE2_SPTR)text.s, text.len, from, PCRE2_NO_UTF_CHECK,
                                    data, s->work->match);
        if (code_or_n == PCRE2_ERROR_NOMATCH) {
            break;
        }
        if (code_or_n < 0) {
            return gave_up(code_or_n, s->diag);
        }
        size_t start = span[0], end = span[1];
        if (start == end && matched && end == done) {
            int32_t cp;
            from += from < text.len ? du_utf8_next(text.s + from, text.len - from, &cp) : 1;
            continue;
        }
        du_err err = start > done ? add_part(s, i, text, &last, done, start, false) : DU_OK;
        if (err == DU_OK) {
            err = add_part(s, i, text, &last, start, end, true);
        }
        if (err != DU_OK) {
            return err;
        }
        done = from = end;
        matched = true;
    }
    du_err err = done < text.len ? add_part(s, i, text, &last, done, text.len, false) : DU_OK;
    return err == DU_OK ? flush(s, i, text, &last) : err;
}

/* Valid UTF-8. */
static du_err split_valid(splitter *s, du_sv text) {
    if (s->p->n_passes == 0) {
        return s->fn(s->arg, text);
    }
    s->text = s->matched = text.s;
    if (!du_unicode_has_new(text)) {
        return run_pass(s, 0, text);
    }
    du_str *proxies = &s->work->proxies;
    du_str_reset(proxies);
    du_unicode_add_proxies(proxies, text);
    if (proxies->failed) {
        return du_fail_nomem(s->diag, "a text");
    }
    s->matched = proxies->data;
    return run_pass(s, 0, du_str_view(proxies));
}

du_err du_pretok_split(const du_pretok *p, du_pretok_work *work, du_sv text, du_piece_fn *fn,
                       void *arg, du_diag *diag) {
    splitter s = {.p = p, .work = work, .fn = fn, .arg = arg, .diag = diag};
    for (size_t i = 0; i < text.len;) {
        size_t valid = du_utf8_valid(text.s + i, text.len - i);
        du_err err = valid ? split_valid(&s, (du_sv){text.s + i, valid}) : DU_OK;
        i += valid;
        size_t bad = i;
        for (int32_t cp = -1; i < text.len && cp < 0;) {
            size_t n = du_utf8_next(text.s + i, text.len - i, &cp);
            i += cp < 0 ? n : 0;
        }
        if (err == DU_OK && i > bad) {
            err = fn(arg, (du_sv){text.s + bad, i - bad});
        }
        if (err != DU_OK) {
            return err;
        }
    }
    return DU_OK;
}
