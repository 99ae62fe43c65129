#include "text/normalizer.h"

#include "base/mem.h"
#include "text/unicode.h"

enum { GROWTH_MAX = 16 }; /* NFC makes 3 of 1 byte at most, U+2581 for a blank too */

void du_normalizer_done(du_normalizer *z) {
    for (size_t i = 0; i < z->n; i++) {
        du_free(z->steps[i].from);
        du_free(z->steps[i].to);
    }
    *z = (du_normalizer){0};
}

du_err du_normalizer_add(du_normalizer *z, du_normalize_kind kind, du_sv from, du_sv to,
                         du_diag *diag) {
    if (z->n == DU_NORMALIZE_STEPS_MAX) {
        return du_fail(diag, DU_ELIMIT, "more than %d steps", DU_NORMALIZE_STEPS_MAX);
    }
    if (from.len > DU_NORMALIZE_BYTES_MAX || to.len > DU_NORMALIZE_BYTES_MAX) {
        return du_fail(diag, DU_ELIMIT, "a text of more than %d bytes", DU_NORMALIZE_BYTES_MAX);
    }
    if (kind == DU_NORMALIZE_REPLACE && from.len == 0) {
        return du_fail(diag, DU_EUNSUPPORTED, "an empty pattern to replace");
    }
    du_normalize_step *step = &z->steps[z->n];
    *step = (du_normalize_step){kind, du_strndup(from.s, from.len), du_strndup(to.s, to.len),
                                from.len, to.len};
    if (!step->from || !step->to) {
        du_free(step->from);
        du_free(step->to);
        return du_fail_nomem(diag, "a normaliser");
    }
    z->n++;
    return DU_OK;
}

/* Gives up once out has more than len_max bytes. */
static void replace_all(du_str *out, du_sv text, const du_normalize_step *step, size_t len_max) {
    du_sv from = {step->from, step->n_from};
    size_t done = 0;
    for (int64_t at; out->len <= len_max && (at = du_sv_find(text, from, done)) >= 0;
         done = (size_t)at + from.len) {
        du_str_add(out, text.s + done, (size_t)at - done);
        du_str_add(out, step->to, step->n_to);
    }
    du_str_add(out, text.s + done, text.len - done);
}

/* Whether the step would leave the text as it is. */
static bool is_idle(const du_normalize_step *step, du_sv text, bool at_start) {
    bool begins = text.len >= step->n_to && memcmp(text.s, step->to, step->n_to) == 0;
    switch (step->kind) {
    case DU_NORMALIZE_PREPEND:
        return text.len == 0;
    case DU_NORMALIZE_PREPEND_ONCE:
        return begins;
    case DU_NORMALIZE_PREPEND_FIRST:
        return begins || !at_start;
    case DU_NORMALIZE_REPLACE:
        return du_sv_find(text, (du_sv){step->from, step->n_from}, 0) < 0;
    default:
        break;
    }
    for (size_t i = 0; i < text.len;) {
        int32_t cp;
        i += du_utf8_next(text.s + i, text.len - i, &cp);
        if (cp >= 0 && !du_unicode_nfc_inert(cp)) {
            return false;
        }
    }
    return true;
}

du_err du_normalizer_run(const du_normalizer *z, du_sv text, bool at_start, du_str buffers[2],
                         du_sv *out, du_diag *diag) {
    size_t i_buffer = 0, len_max = text.len * GROWTH_MAX + DU_NORMALIZE_BYTES_MAX;
    for (size_t i = 0; i < z->n; i++) {
        const du_normalize_step *step = &z->steps[i];
        if (is_idle(step, text, at_start)) {
            continue;
        }
        du_str *to = &buffers[i_buffer];
        i_buffer ^= 1;
        du_str_reset(to);
        if (step->kind == DU_NORMALIZE_NFC) {
            du_utf8_add_nfc(to, text);
        } else if (step->kind == DU_NORMALIZE_REPLACE) {
            replace_all(to, text, step, len_max);
        } else {
            du_str_add(to, step->to, step->n_to);
            du_str_add_sv(to, text);
        }
        if (to->failed) {
            return du_fail_nomem(diag, "a text");
        }
        if (to->len > len_max) {
            return du_fail(diag, DU_ELIMIT, "the normaliser makes a text over %d times as long",
                           GROWTH_MAX);
        }
        text = du_str_view(to);
    }
    *out = text;
    return DU_OK;
}
