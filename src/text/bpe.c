#include "text/bpe.h"

struct du_bpe_slot {
    uint64_t pair; /* left << 32 | right; PAIR_NONE: free */
    uint32_t rank; /* of a free slot DU_RANK_NONE */
    int32_t merged;
};

#define PAIR_NONE UINT64_MAX

bool du_bpe_init(du_bpe *bpe, size_t n) {
    size_t n_slots = 64;
    while (n_slots / 2 < n) {
        n_slots *= 2;
    }
    bpe->slots = du_alloc_array(n_slots, sizeof bpe->slots[0]);
    bpe->n_slots = bpe->slots ? n_slots : 0;
    for (size_t i = 0; i < bpe->n_slots; i++) {
        bpe->slots[i] = (struct du_bpe_slot){PAIR_NONE, DU_RANK_NONE, -1};
    }
    return bpe->slots;
}

void du_bpe_done(du_bpe *bpe) {
    du_free(bpe->slots);
    *bpe = (du_bpe){0};
}

/* The slot of a pair, or the free one where it belongs. */
static struct du_bpe_slot *slot_of(const du_bpe *bpe, int32_t left, int32_t right) {
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t hash = pair * 0x9e3779b97f4a7c15;
    hash ^= hash >> 32;
    for (size_t i = hash & (bpe->n_slots - 1);; i = (i + 1) & (bpe->n_slots - 1)) {
        struct du_bpe_slot *slot = &bpe->slots[i];
        if (slot->pair == pair || slot->pair == PAIR_NONE) {
            return slot;
        }
    }
}

uint32_t du_bpe_add(du_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t merged,
                    bool replace) {
    struct du_bpe_slot *slot = slot_of(bpe, left, right);
    uint32_t before = slot->rank;
    if (before == DU_RANK_NONE || replace) {
        uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
        *slot = (struct du_bpe_slot){pair, rank, merged};
    }
    return before;
}

static void find_pair(const void *arg, du_symbol *left, const du_symbol *right, uint32_t end) {
    (void)end;
    const struct du_bpe_slot *slot = slot_of(arg, left->id, right->id);
    left->rank = slot->rank;
    left->merged = slot->merged;
}

bool du_bpe_merge(const du_bpe *bpe, du_merge_work *w) {
    return du_merge_run(w, find_pair, bpe);
}
