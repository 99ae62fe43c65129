#include "base/hash.h"

#include <sys/random.h>

#include "base/clock.h"
#include "base/mem.h"

static uint64_t load(const char *p, size_t n) {
    uint64_t v = 0;
    memcpy(&v, p, n);
    return v;
}

/* The two halves of the 128-bit product, folded. Both factors hold a random seed, so no choice of
 * the text alone makes one of them zero. */
static uint64_t fold(uint64_t a, uint64_t b) {
    __extension__ typedef unsigned __int128 u128;
    u128 product = (u128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash_of(const du_hash *h, du_sv key) {
    const char *p = key.s;
    size_t left = key.len;
    uint64_t a = h->seed[0] ^ key.len, b = h->seed[1];
    for (; left > 16; left -= 16, p += 16) {
        a = fold(load(p, 8) ^ a, load(p + 8, 8) ^ b);
    }
    size_t first = left < 8 ? left : 8;
    uint64_t lo = first ? load(p, first) : 0;
    uint64_t hi = left > 8 ? load(p + 8, left - 8) : 0;
    return fold(fold(lo ^ a, hi ^ b), h->seed[1] ^ 0x9e3779b97f4a7c15u);
}

/* The slot of the key, or the empty one where it belongs. cap > 0. */
static du_hash_slot *slot_of(const du_hash *h, du_sv key, uint32_t *hash) {
    uint64_t whole = hash_of(h, key);
    uint32_t upper = (uint32_t)(whole >> 32) | 1;
    *hash = upper;
    for (size_t i = (size_t)whole & (h->cap - 1);; i = (i + 1) & (h->cap - 1)) {
        du_hash_slot *slot = &h->slots[i];
        if (slot->hash == 0 ||
            (slot->hash == upper && du_sv_eq((du_sv){slot->key, slot->len}, key))) {
            return slot;
        }
    }
}

static void draw_seed(du_hash *h) {
    if (getrandom(h->seed, sizeof h->seed, GRND_NONBLOCK) != (ssize_t)sizeof h->seed) {
        h->seed[0] = (uint64_t)(du_clock_s() * 1e9); /* early at boot: better than a constant */
        h->seed[1] = (uint64_t)(uintptr_t)h * 0x9e3779b97f4a7c15u;
    }
}

du_err du_hash_reserve(du_hash *h, size_t n) {
    if (n <= h->cap / 2) {
        return DU_OK;
    }
    size_t cap = 16;
    while (cap / 2 < n) {
        if (cap > SIZE_MAX / 4) {
            return DU_ENOMEM;
        }
        cap *= 2;
    }
    du_hash_slot *slots = du_alloc_zero(cap, sizeof *slots);
    if (!slots) {
        return DU_ENOMEM;
    }
    if (!h->slots) {
        draw_seed(h);
    }
    du_hash_slot *old = h->slots;
    size_t n_old = h->cap;
    h->slots = slots;
    h->cap = cap;
    for (size_t i = 0; i < n_old; i++) {
        if (old[i].hash) {
            uint32_t hash;
            *slot_of(h, (du_sv){old[i].key, old[i].len}, &hash) = old[i];
        }
    }
    du_free(old);
    return DU_OK;
}

du_err du_hash_add(du_hash *h, du_sv key, int64_t value) {
    if (key.len > UINT32_MAX) {
        return DU_ELIMIT;
    }
    if (h->n == h->cap / 2) {
        du_err err = du_hash_reserve(h, h->n + 1);
        if (err != DU_OK) {
            return err;
        }
    }
    uint32_t hash;
    du_hash_slot *slot = slot_of(h, key, &hash);
    if (slot->hash) {
        return DU_EEXIST;
    }
    *slot = (du_hash_slot){key.s, (uint32_t)key.len, hash, value};
    h->n++;
    return DU_OK;
}

int64_t *du_hash_find(const du_hash *h, du_sv key) {
    if (h->n == 0 || key.len > UINT32_MAX) {
        return NULL;
    }
    uint32_t hash;
    du_hash_slot *slot = slot_of(h, key, &hash);
    return slot->hash ? &slot->value : NULL;
}

void du_hash_done(du_hash *h) {
    du_free(h->slots);
    *h = (du_hash){0};
}
