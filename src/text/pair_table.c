#include "text/pair_table_int.h"

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

enum { SLOTS_MIN = 1 << 10 };

bool du_pair_table_init(du_pair_table *t) {
    *t = (du_pair_table){.free_pair = DU_PAIR_NONE, .free_block = DU_PAIR_NONE};
    t->slots = du_alloc_array(SLOTS_MIN, sizeof t->slots[0]);
    if (!t->slots) {
        return false;
    }
    memset(t->slots, 0xff, SLOTS_MIN * sizeof t->slots[0]);
    t->n_slots = SLOTS_MIN;
    du_hash_draw_seed(t->seed);
    t->seed[1] |= 1;
    return true;
}

void du_pair_table_done(du_pair_table *t) {
    du_free(t->pairs);
    du_free(t->slots);
    du_free(t->blocks);
    *t = (du_pair_table){0};
}

static size_t home_of(const du_pair_table *t, int32_t left, int32_t right) {
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    return du_hash_fold(key ^ t->seed[0], t->seed[1]) & (t->n_slots - 1);
}

/* The slot that holds the pair, or the free one where it belongs. */
static size_t slot_of(const du_pair_table *t, int32_t left, int32_t right) {
    size_t i = home_of(t, left, right);
    for (; t->slots[i] != DU_PAIR_NONE; i = (i + 1) & (t->n_slots - 1)) {
        const du_pair *p = &t->pairs[t->slots[i]];
        if (p->left == left && p->right == right) {
            break;
        }
    }
    return i;
}

uint32_t du_pair_find(const du_pair_table *t, int32_t left, int32_t right) {
    return t->slots[slot_of(t, left, right)];
}

/* Twice as many slots. */
static bool grow_slots(du_pair_table *t) {
    size_t n_old = t->n_slots;
    uint32_t *old = t->slots, *slots = du_alloc_array(2 * n_old, sizeof slots[0]);
    if (!slots) {
        return false;
    }
    memset(slots, 0xff, 2 * n_old * sizeof slots[0]);
    t->slots = slots;
    t->n_slots = 2 * n_old;
    for (size_t i = 0; i < n_old; i++) {
        if (old[i] != DU_PAIR_NONE) {
            const du_pair *p = &t->pairs[old[i]];
            t->slots[slot_of(t, p->left, p->right)] = old[i];
        }
    }
    du_free(old);
    return true;
}

/* The number of an entry that is free; DU_PAIR_NONE when memory is short. */
static uint32_t take_entry(du_pair_table *t) {
    uint32_t i = t->free_pair;
    if (i != DU_PAIR_NONE) {
        t->free_pair = t->pairs[i].places;
        return i;
    }
    if (t->n == DU_PAIR_NONE || !du_grow((void **)&t->pairs, &t->cap, t->n, sizeof t->pairs[0])) {
        return DU_PAIR_NONE;
    }
    return (uint32_t)t->n++;
}

uint32_t du_pair_get(du_pair_table *t, int32_t left, int32_t right) {
    if (t->n_used == t->n_slots / 2 && !grow_slots(t)) {
        return DU_PAIR_NONE;
    }
    size_t slot = slot_of(t, left, right);
    uint32_t i = t->slots[slot];
    if (i == DU_PAIR_NONE && (i = take_entry(t)) != DU_PAIR_NONE) {
        t->pairs[i] = (du_pair){.left = left, .right = right, .places = DU_PAIR_NONE};
        t->slots[slot] = i;
        t->n_used++;
    }
    return i;
}

bool du_pair_add_place(du_pair_table *t, uint32_t i, uint32_t word) {
    uint32_t first = t->pairs[i].places;
    if (first != DU_PAIR_NONE) {
        du_places *b = &t->blocks[first];
        if (b->words[b->n - 1] == word) {
            return true;
        }
        if (b->n < DU_PLACES_PER_BLOCK) {
            b->words[b->n++] = word;
            return true;
        }
    }
    uint32_t block = t->free_block;
    if (block != DU_PAIR_NONE) {
        t->free_block = t->blocks[block].next;
    } else if (t->n_blocks == DU_PAIR_NONE ||
               !du_grow((void **)&t->blocks, &t->cap_blocks, t->n_blocks, sizeof t->blocks[0])) {
        return false;
    } else {
        block = (uint32_t)t->n_blocks++;
    }
    t->blocks[block] = (du_places){.next = first, .n = 1, .words = {word}};
    t->pairs[i].places = block;
    return true;
}

/* Frees a slot and moves up those behind it that would not be found across the gap. */
static void close_gap(du_pair_table *t, size_t gap) {
    size_t mask = t->n_slots - 1;
    for (size_t i = (gap + 1) & mask; t->slots[i] != DU_PAIR_NONE; i = (i + 1) & mask) {
        const du_pair *p = &t->pairs[t->slots[i]];
        size_t home = home_of(t, p->left, p->right);
        if (((i - home) & mask) >= ((i - gap) & mask)) {
            t->slots[gap] = t->slots[i];
            gap = i;
        }
    }
    t->slots[gap] = DU_PAIR_NONE;
}

void du_pair_remove(du_pair_table *t, uint32_t i) {
    du_pair *p = &t->pairs[i];
    close_gap(t, slot_of(t, p->left, p->right));
    t->n_used--;
    for (uint32_t block = p->places, next; block != DU_PAIR_NONE; block = next) {
        next = t->blocks[block].next;
        t->blocks[block].next = t->free_block;
        t->free_block = block;
    }
    *p = (du_pair){.left = -1, .places = t->free_pair};
    t->free_pair = i;
}
