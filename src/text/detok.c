#include "text/tokenizer_int.h"
#include "text/unicode.h"

void du_detok_init(du_detok *d, const du_tokenizer *tok, unsigned flags) {
    *d = (du_detok){.tok = tok, .flags = flags, .at_start = flags & DU_DECODE_START};
}

static void give(const du_detok *d, du_str *out, const char *bytes, size_t n) {
    if (d->flags & DU_DECODE_REPLACE) {
        du_utf8_add_replaced(out, (du_sv){bytes, n});
    } else {
        du_str_add(out, bytes, n);
    }
}

/* Joins held bytes and new ones until they are a character or cannot become one. Returns how many
 * of the new bytes are used up. */
static size_t join_held(du_detok *d, du_sv piece, du_str *out) {
    size_t used = 0;
    while (d->n_held && used < piece.len) {
        d->held[d->n_held] = (uint8_t)piece.s[used];
        size_t n = d->n_held + 1U;
        if (du_utf8_cut((const char *)d->held, n) == n) {
            d->n_held++;
            used++;
            continue;
        }
        bool whole = du_utf8_valid((const char *)d->held, n) == n;
        used += whole;
        give(d, out, (const char *)d->held, whole ? n : d->n_held);
        d->n_held = 0;
    }
    return used;
}

void du_detok_push(du_detok *d, int32_t id, du_str *out) {
    du_sv piece = du_tokenizer_piece(d->tok, id, d->flags);
    if (d->at_start && piece.len) {
        bool blank = d->tok->strip_start && piece.s[0] == ' ';
        piece.s += blank;
        piece.len -= blank;
        d->at_start = false;
    }
    size_t used = join_held(d, piece, out);
    piece.s += used;
    piece.len -= used;
    size_t cut = du_utf8_cut(piece.s, piece.len);
    give(d, out, piece.s, piece.len - cut);
    if (cut) {
        memcpy(d->held, piece.s + piece.len - cut, cut);
        d->n_held = (uint8_t)cut;
    }
}

void du_detok_flush(du_detok *d, du_str *out) {
    give(d, out, (const char *)d->held, d->n_held);
    du_detok_init(d, d->tok, d->flags);
}
