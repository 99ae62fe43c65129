#include "text/bpe.h"

#include "base/hash.h"

struct du_bpe_slot {
    uint64_t pair; /* left << 32 | right; PAIR_NONE: free */
    uint32_t rank; /* of a free slot DU_RANK_NONE */
    int32_t merged;
};

#define PAIR_NONE UINT64_MAX

enum { SLOTS_PER_WORD = 16 }; /* of du_bpe.seen */

static uint64_t hash_of(const du_bpe *bpe, uint64_t pair) {
    return du_hash_fold(pair ^ bpe->seed[0], bpe->seed[1]);
}

/* The word of `seen` and the bit in it that belong to a hash. */
static uint64_t *seen_word(const du_bpe *bpe, uint64_t hash, uint64_t *bit) {
    *bit = (uint64_t)1 << (hash >> 58);
    return &bpe->seen[hash & (bpe->n_slots / SLOTS_PER_WORD - 1)];
}

bool du_bpe_init(du_bpe *bpe, size_t n) {
    size_t n_slots = 64;
    while (n_slots / 2 < n) {
        n_slots *= 2;
    }
    bpe->slots = du_alloc_array(n_slots, sizeof bpe->slots[0]);
    bpe->seen = du_alloc_zero(n_slots / SLOTS_PER_WORD, sizeof bpe->seen[0]);
    if (!bpe->slots || !bpe->seen) {
        du_bpe_done(bpe);
        return false;
    }
    bpe->n_slots = n_slots;
    du_hash_draw_seed(bpe->seed);
    bpe->seed[1] |= 1;
    for (size_t i = 0; i < n_slots; i++) {
        bpe->slots[i] = (struct du_bpe_slot){PAIR_NONE, DU_RANK_NONE, -1};
    }
    return true;
}

void du_bpe_done(du_bpe *bpe) {
    du_free(bpe->slots);
    du_free(bpe->seen);
    *bpe = (du_bpe){0};
}

static uint64_t pair_of(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* The slot of a pair, or the free one where it belongs. */
static struct du_bpe_slot *slot_of(const du_bpe *bpe, uint64_t pair, uint64_t hash) {
    for (size_t i = hash & (bpe->n_slots - 1);; i = (i + 1) & (bpe->n_slots - 1)) {
        struct du_bpe_slot *slot = &bpe->slots[i];
        if (slot->pair == pair || slot->pair == PAIR_NONE) {
            return slot;
        }
    }
}

uint32_t du_bpe_add(du_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t merged,
                    bool replace) {
    uint64_t pair = pair_of(left, right), hash = hash_of(bpe, pair), bit;
    struct du_bpe_slot *slot = slot_of(bpe, pair, hash);
    uint32_t before = slot->rank;
    if (before == DU_RANK_NONE || replace) {
        *slot = (struct du_bpe_slot){pair, rank, merged};
        uint64_t *seen = seen_word(bpe, hash, &bit);
        *seen |= bit;
    }
    return before;
}

static void find_pair(const void *arg, du_symbol *left, const du_symbol *right, uint32_t end) {
    (void)end;
    const du_bpe *bpe = arg;
    uint64_t pair = pair_of(left->id, right->id), hash = hash_of(bpe, pair), bit;
    left->rank = DU_RANK_NONE;
    const uint64_t *seen = seen_word(bpe, hash, &bit);
    if (*seen & bit) {
        const struct du_bpe_slot *slot = slot_of(bpe, pair, hash);
        left->rank = slot->rank;
        left->merged = slot->merged;
    }
}

bool du_bpe_merge(const du_bpe *bpe, du_merge_work *w) {
    return du_merge_run(w, find_pair, bpe);
}
