#include "text/word_table_int.h"

#include <string.h>

#include "base/mem.h"

enum { BLOCK_BYTES = 1 << 14 };

void du_word_table_done(du_word_table *t) {
    for (size_t i = 0; i < t->n_blocks; i++) {
        du_free(t->blocks[i]);
    }
    du_free(t->blocks);
    du_free(t->words);
    du_hash_done(&t->places);
    *t = (du_word_table){0};
}

/* Room for n bytes behind the texts; NULL when memory is short. */
static char *reserve(du_word_table *t, size_t n) {
    if (n <= t->n_left) {
        return t->blocks[t->n_blocks - 1] + BLOCK_BYTES - t->n_left;
    }
    if (!du_grow((void **)&t->blocks, &t->cap_blocks, t->n_blocks, sizeof t->blocks[0])) {
        return NULL;
    }
    char *block = du_alloc(BLOCK_BYTES);
    if (block) {
        t->blocks[t->n_blocks++] = block;
        t->n_left = BLOCK_BYTES;
    }
    return block;
}

bool du_word_table_add(du_word_table *t, du_sv text, int64_t n) {
    int64_t *place = du_hash_find(&t->places, text);
    if (place) {
        t->words[*place].count += n;
        return true;
    }
    DU_CHECK(text.len <= DU_WORD_BYTES_MAX);
    char *copy = reserve(t, text.len);
    if (!copy || !du_grow((void **)&t->words, &t->cap, t->n, sizeof t->words[0])) {
        return false;
    }
    memcpy(copy, text.s, text.len);
    du_sv key = {copy, text.len};
    if (du_hash_add(&t->places, key, (int64_t)t->n) != DU_OK) {
        return false;
    }
    t->n_left -= text.len;
    t->words[t->n++] = (du_word){key, n};
    return true;
}

bool du_word_table_prune(du_word_table *t, int64_t count) {
    du_word_table kept = {0};
    for (size_t i = 0; i < t->n; i++) {
        if (t->words[i].count > count &&
            !du_word_table_add(&kept, t->words[i].text, t->words[i].count)) {
            du_word_table_done(&kept);
            return false;
        }
    }
    du_word_table_done(t);
    *t = kept;
    return true;
}
