/* Joining pairs.
 *
 * Every different word is a row of token ids with its count. A table holds the pairs of neighbours,
 * how often each occurs (the counts of the words, summed) and in which words; a heap holds the
 * pairs by count. Joining (a, b) to c rewrites the words that hold it. Where x a b y becomes x c y,
 * the pairs (x, a) and (b, y) have gone and (x, c) and (c, y) are made: these changes are summed by
 * x and by y while the words are rewritten, and entered into the table once at the end.
 *
 * A pair that is made holds the new token, so it comes into being in one step, whole; later its
 * count can only fall. So a pair that is below DU_BPE_COUNT_MIN at the end of its step never comes
 * back and is removed, and an entry of the heap whose count is no longer true is put back with the
 * true one when it is met. */
#include "text/bpe_train_int.h"

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "text/pair_table_int.h"
#include "text/unicode.h"
#include "text/vocab.h"

/* A word: n ids of the row from start on. */
typedef struct {
    size_t start;
    uint32_t n;
    int64_t count;
} row;

typedef struct {
    int64_t count;
    int32_t left, right;
} candidate;

/* What joining (a, b) to c does to the pairs with one neighbour. */
typedef struct {
    int64_t gone, made;
    uint32_t pair; /* the one that is made, DU_PAIR_NONE: not looked up yet */
} change;

typedef struct {
    change *of;       /* [n_vocab] by the neighbour's id */
    int32_t *touched; /* [n_touched] the neighbours that have one */
    int32_t n_touched;
} changes;

typedef struct {
    const du_bpe_train_params *params;
    du_bpe_tokens t;
    du_hash ids; /* texts to ids */
    int32_t *ids_of_words;
    row *rows;
    size_t n_rows;
    du_pair_table pairs;
    candidate *heap;
    size_t n_heap, cap_heap;
    changes left, right; /* by the neighbour before and behind */
    uint32_t joined;     /* the pair that is being joined, and the token it makes */
    int32_t made;
    bool failed; /* memory is short */
} joiner;

/* ---- the tokens ---- */

/* The text of two parts, in the arena; false: memory is short. */
static bool join_texts(joiner *j, du_sv left, du_sv right, du_sv *out) {
    char *to = du_arena_alloc(j->t.arena, left.len + right.len, 1);
    if (to) {
        memcpy(to, left.s, left.len);
        memcpy(to + left.len, right.s, right.len);
    }
    *out = (du_sv){to, left.len + right.len};
    return to;
}

static bool add_token(joiner *j, du_sv text) {
    if (du_hash_add(&j->ids, text, j->t.n) != DU_OK) {
        return false;
    }
    j->t.texts[j->t.n++] = text;
    return true;
}

/* Special tokens and bytes; id_of [256] out. */
static bool add_first_tokens(joiner *j, int32_t *id_of) {
    bool ok = true;
    for (int32_t i = 0; i < j->params->n_special && ok; i++) {
        ok = add_token(j, j->params->special[i]);
    }
    /* GPT-2's alphabet: 256 characters below U+0144. */
    int32_t byte_of[0x144];
    memset(byte_of, 0xff, sizeof byte_of);
    for (int32_t byte = 0; byte < 256; byte++) {
        byte_of[du_byte_level_char((uint8_t)byte)] = byte;
    }
    for (int32_t cp = 0; cp < 0x144 && ok; cp++) {
        if (byte_of[cp] >= 0) {
            char text[4];
            du_sv character = {text, du_utf8_put(text, cp)}, kept;
            id_of[byte_of[cp]] = j->t.n;
            ok = join_texts(j, character, (du_sv){"", 0}, &kept) && add_token(j, kept);
        }
    }
    return ok;
}

/* ---- the words ---- */

/* Copies the words of two bytes and more as rows of ids. */
static bool take_words(joiner *j, const du_word_table *tables, const int32_t *id_of) {
    size_t n_rows = 0, n_ids = 0;
    for (int64_t t = 0; t < DU_BPE_TABLES; t++) {
        for (size_t i = 0; i < tables[t].n; i++) {
            size_t len = tables[t].words[i].text.len;
            n_rows += len > 1;
            n_ids += len > 1 ? len : 0;
        }
    }
    j->rows = du_alloc_array(n_rows, sizeof j->rows[0]);
    j->ids_of_words = du_alloc_array(n_ids, sizeof j->ids_of_words[0]);
    if (!j->rows || !j->ids_of_words || n_rows > UINT32_MAX) {
        return false;
    }
    n_ids = 0;
    for (int64_t t = 0; t < DU_BPE_TABLES; t++) {
        for (size_t i = 0; i < tables[t].n; i++) {
            const du_word *w = &tables[t].words[i];
            if (w->text.len < 2) {
                continue;
            }
            j->rows[j->n_rows++] = (row){n_ids, (uint32_t)w->text.len, w->count};
            for (size_t k = 0; k < w->text.len; k++) {
                j->ids_of_words[n_ids++] = id_of[(uint8_t)w->text.s[k]];
            }
        }
    }
    return true;
}

/* ---- the heap: the most frequent first, of equals the lowest ids ---- */

static bool before(const candidate *a, const candidate *b) {
    if (a->count != b->count) {
        return a->count > b->count;
    }
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static void push(joiner *j, candidate c) {
    if (!du_grow((void **)&j->heap, &j->cap_heap, j->n_heap, sizeof j->heap[0])) {
        j->failed = true;
        return;
    }
    size_t i = j->n_heap++;
    for (; i > 0 && before(&c, &j->heap[(i - 1) / 2]); i = (i - 1) / 2) {
        j->heap[i] = j->heap[(i - 1) / 2];
    }
    j->heap[i] = c;
}

static candidate pop(joiner *j) {
    candidate top = j->heap[0], last = j->heap[--j->n_heap];
    size_t i = 0, n = j->n_heap;
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        child += child + 1 < n && before(&j->heap[child + 1], &j->heap[child]);
        if (!before(&j->heap[child], &last)) {
            break;
        }
        j->heap[i] = j->heap[child];
    }
    if (n > 0) {
        j->heap[i] = last;
    }
    return top;
}

/* A pair whose count is settled: into the heap, or out of the table when it is too rare. */
static void enter(joiner *j, uint32_t i) {
    const du_pair *p = &j->pairs.pairs[i];
    if (p->count >= DU_BPE_COUNT_MIN) {
        push(j, (candidate){p->count, p->left, p->right});
    } else {
        du_pair_remove(&j->pairs, i);
    }
}

/* ---- counting and joining ---- */

static void count_pairs(joiner *j) {
    for (size_t r = 0; r < j->n_rows && !j->failed; r++) {
        const int32_t *ids = j->ids_of_words + j->rows[r].start;
        for (uint32_t k = 0; k + 1 < j->rows[r].n && !j->failed; k++) {
            uint32_t i = du_pair_get(&j->pairs, ids[k], ids[k + 1]);
            j->failed = i == DU_PAIR_NONE || !du_pair_add_place(&j->pairs, i, (uint32_t)r);
            if (!j->failed) {
                j->pairs.pairs[i].count += j->rows[r].count;
            }
        }
    }
    for (uint32_t i = 0; i < j->pairs.n && !j->failed; i++) {
        enter(j, i);
    }
}

/* Notes that a pair with `neighbour` has gone and (left, right) with it was made, in row r. */
static void note(joiner *j, changes *side, int32_t neighbour, int32_t left, int32_t right,
                 size_t r) {
    change *c = &side->of[neighbour];
    if (c->made == 0) {
        side->touched[side->n_touched++] = neighbour;
        c->pair = du_pair_get(&j->pairs, left, right);
    }
    c->gone += j->rows[r].count;
    c->made += j->rows[r].count;
    j->failed |= c->pair == DU_PAIR_NONE || !du_pair_add_place(&j->pairs, c->pair, (uint32_t)r);
}

/* Joins (a, b) to c in row r. */
static void join_in_row(joiner *j, size_t r, int32_t a, int32_t b, int32_t c) {
    int32_t *ids = j->ids_of_words + j->rows[r].start;
    uint32_t n = j->rows[r].n, n_out = 0;
    for (uint32_t i = 0; i < n && !j->failed; i++) {
        if (ids[i] != a || i + 1 == n || ids[i + 1] != b) {
            ids[n_out++] = ids[i];
            continue;
        }
        if (n_out > 0) {
            note(j, &j->left, ids[n_out - 1], ids[n_out - 1], c, r);
        }
        if (i + 2 < n) {
            note(j, &j->right, ids[i + 2], c, ids[i + 2], r);
        }
        ids[n_out++] = c;
        i++;
    }
    j->rows[r].n = n_out;
}

static void add_made(joiner *j, const changes *side) {
    for (int32_t k = 0; k < side->n_touched; k++) {
        const change *c = &side->of[side->touched[k]];
        j->pairs.pairs[c->pair].count += c->made;
    }
}

/* Takes what has gone off a pair, which may be too rare to be in the table, or become so. */
static void take_gone(joiner *j, int32_t left, int32_t right, int64_t gone) {
    uint32_t i = du_pair_find(&j->pairs, left, right);
    if (i == DU_PAIR_NONE) {
        return;
    }
    j->pairs.pairs[i].count -= gone;
    bool settled = i != j->joined && left != j->made;
    if (settled && j->pairs.pairs[i].count < DU_BPE_COUNT_MIN) {
        du_pair_remove(&j->pairs, i);
    }
}

/* Enters the sums of a step: first what was made, since a pair can be made and go again. */
static void settle(joiner *j, int32_t a, int32_t b) {
    changes *sides[] = {&j->left, &j->right};
    add_made(j, &j->left);
    add_made(j, &j->right);
    for (int32_t k = 0; k < j->left.n_touched; k++) {
        int32_t x = j->left.touched[k];
        take_gone(j, x, a, j->left.of[x].gone);
    }
    for (int32_t k = 0; k < j->right.n_touched; k++) {
        int32_t y = j->right.touched[k];
        take_gone(j, b, y, j->right.of[y].gone);
    }
    for (int s = 0; s < 2; s++) {
        for (int32_t k = 0; k < sides[s]->n_touched; k++) {
            change *c = &sides[s]->of[sides[s]->touched[k]];
            enter(j, c->pair);
            *c = (change){0};
        }
        sides[s]->n_touched = 0;
    }
}

/* Makes token c of pair i. */
static void join_pair(joiner *j, uint32_t i, int32_t c) {
    int32_t a = j->pairs.pairs[i].left, b = j->pairs.pairs[i].right;
    j->joined = i;
    j->made = c;
    for (uint32_t block = j->pairs.pairs[i].places; block != DU_PAIR_NONE;
         block = j->pairs.blocks[block].next) {
        for (uint32_t k = 0; k < j->pairs.blocks[block].n && !j->failed; k++) {
            join_in_row(j, j->pairs.blocks[block].words[k], a, b, c);
        }
    }
    if (!j->failed) {
        settle(j, a, b);
        du_pair_remove(&j->pairs, i);
    }
}

/* Takes the heap's first entry and makes a token of it, where it still is one. */
static void step(joiner *j) {
    candidate top = pop(j);
    uint32_t i = du_pair_find(&j->pairs, top.left, top.right);
    if (i == DU_PAIR_NONE) {
        return;
    }
    if (j->pairs.pairs[i].count != top.count) {
        enter(j, i);
        return;
    }
    du_sv text;
    int32_t id = j->t.n;
    if (!join_texts(j, j->t.texts[top.left], j->t.texts[top.right], &text)) {
        j->failed = true;
    } else if (du_hash_find(&j->ids, text)) {
        du_pair_remove(&j->pairs, i);
    } else {
        j->failed = !add_token(j, text);
        j->t.parts[id] = (du_bpe_parts){top.left, top.right};
        join_pair(j, i, id);
    }
}

static bool start(joiner *j, const du_bpe_train_params *p, du_word_table *tables) {
    size_t n = (size_t)p->n_vocab;
    int32_t id_of[256];
    *j = (joiner){.params = p, .t.arena = du_arena_new(1 << 18)};
    j->t.texts = du_alloc_zero(n, sizeof j->t.texts[0]);
    j->t.parts = du_alloc_zero(n, sizeof j->t.parts[0]);
    bool ok = j->t.arena && j->t.texts && j->t.parts && du_hash_reserve(&j->ids, n) == DU_OK &&
              du_pair_table_init(&j->pairs) && add_first_tokens(j, id_of) &&
              take_words(j, tables, id_of);
    for (int64_t i = 0; i < DU_BPE_TABLES; i++) {
        du_word_table_done(&tables[i]);
    }
    changes *sides[] = {&j->left, &j->right};
    for (int s = 0; s < 2; s++) {
        sides[s]->of = du_alloc_zero(n, sizeof sides[s]->of[0]);
        sides[s]->touched = du_alloc_zero(n, sizeof sides[s]->touched[0]);
        ok = ok && sides[s]->of && sides[s]->touched;
    }
    return ok;
}

static void finish(joiner *j) {
    changes *sides[] = {&j->left, &j->right};
    for (int s = 0; s < 2; s++) {
        du_free(sides[s]->of);
        du_free(sides[s]->touched);
    }
    du_hash_done(&j->ids);
    du_free(j->ids_of_words);
    du_free(j->rows);
    du_pair_table_done(&j->pairs);
    du_free(j->heap);
}

void du_bpe_tokens_done(du_bpe_tokens *t) {
    du_arena_free(t->arena);
    du_free(t->texts);
    du_free(t->parts);
    *t = (du_bpe_tokens){0};
}

du_err du_bpe_join(du_bpe_tokens *out, const du_bpe_train_params *params, du_word_table *tables,
                   du_bpe_watch_fn *watch, void *arg, du_diag *diag) {
    joiner j;
    bool stop = false, ok = start(&j, params, tables);
    j.failed = !ok;
    if (ok) {
        count_pairs(&j);
    }
    while (!j.failed && !stop && j.t.n < params->n_vocab && j.n_heap > 0) {
        step(&j);
        stop = watch && watch(arg, j.t.n);
    }
    for (size_t r = 0; r < j.n_rows; r++) {
        j.t.n_in_words += j.rows[r].n * j.rows[r].count;
    }
    finish(&j);
    *out = j.t;
    return j.failed ? du_fail_nomem(diag, "the pairs of tokens")
           : stop   ? du_fail(diag, DU_ECANCELLED, "stopped")
                    : DU_OK;
}
