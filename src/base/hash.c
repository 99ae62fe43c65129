#include "base/hash.h"

#include <sys/random.h>

#include "base/clock.h"
#include "base/mem.h"

static uint64_t load_8(const char *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* n bytes, at most 8, as a number: the same of different bytes never, given n. */
static uint64_t load_up_to_8(const char *p, size_t n) {
    if (n >= 4) { /* two loads that overlap: shorter than a copy of n bytes */
        uint32_t first, last;
        memcpy(&first, p, sizeof first);
        memcpy(&last, p + n - sizeof last, sizeof last);
        return (uint64_t)first << 32 | last;
    }
    return n ? (uint64_t)(uint8_t)p[0] << 16 | (uint64_t)(uint8_t)p[n / 2] << 8 | (uint8_t)p[n - 1]
             : 0;
}

/* Both factors hold a random seed, so no choice of the text alone makes one of them zero. */
static uint64_t hash_of(const du_hash *h, du_sv key) {
    const char *p = key.s;
    size_t left = key.len;
    uint64_t a = h->seed[0] ^ key.len, b = h->seed[1];
    for (; left > 16; left -= 16, p += 16) {
        a = du_hash_fold(load_8(p) ^ a, load_8(p + 8) ^ b);
    }
    uint64_t lo = left > 8 ? load_8(p) : load_up_to_8(p, left);
    uint64_t hi = left > 8 ? load_8(p + left - 8) : 0;
    return du_hash_fold(du_hash_fold(lo ^ a, hi ^ b), h->seed[1] ^ 0x9e3779b97f4a7c15u);
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

void du_hash_draw_seed(uint64_t seed[2]) {
    const ssize_t n_bytes = 2 * sizeof seed[0];
    if (getrandom(seed, (size_t)n_bytes, GRND_NONBLOCK) != n_bytes) {
        seed[0] = (uint64_t)(du_clock_s() * 1e9); /* early at boot: better than a constant */
        seed[1] = (uint64_t)(uintptr_t)seed * 0x9e3779b97f4a7c15u;
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
        du_hash_draw_seed(h->seed);
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

static uint64_t mix(uint64_t h, uint64_t word) {
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

uint64_t du_checksum(uint64_t h, const void *bytes, size_t n) {
    const uint8_t *p = bytes;
    uint64_t word;
    for (; n >= sizeof word; n -= sizeof word, p += sizeof word) {
        memcpy(&word, p, sizeof word);
        h = mix(h, word);
    }
    if (n > 0) {
        word = n << 56; /* fewer than 8 bytes are left: "a" and "a\0" differ */
        memcpy(&word, p, n);
        h = mix(h, word);
    }
    return h;
}
