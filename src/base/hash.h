/* A fixed checksum, and a map from byte strings to int64 values: open addressing, at most half
 * full.
 *
 * The hash is keyed with random numbers drawn per map, so that names from a hostile file cannot be
 * chosen to collide. The order of entries is not visible, so results do not depend on the key. */
#ifndef DU_BASE_HASH_H
#define DU_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

typedef struct {
    const char *key; /* borrowed */
    uint32_t len;
    uint32_t hash; /* upper half of the hash; 0 marks an empty slot */
    int64_t value;
} du_hash_slot;

/* h taken on over n bytes: the same on every machine. Finds damage and tells files apart; whoever
 * wants to can make two of one checksum. */
uint64_t du_checksum(uint64_t h, const void *bytes, size_t n);

/* Start from {0}. */
typedef struct {
    du_hash_slot *slots;
    size_t n, cap; /* entries; slots, a power of two */
    uint64_t seed[2];
} du_hash;

void du_hash_done(du_hash *h); /* frees and empties */

/* Random numbers to key a hash with. */
void du_hash_draw_seed(uint64_t seed[2]);

/* The two halves of the 128-bit product, folded: mixes two numbers, of which one at least holds a
 * seed. All of its bits may be used. */
static inline uint64_t du_hash_fold(uint64_t a, uint64_t b) {
    __extension__ typedef unsigned __int128 u128;
    u128 product = (u128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Makes room for n entries in all, so that the next n - h->n additions allocate nothing.
 * Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_hash_reserve(du_hash *h, size_t n);

/* Adds key -> value. The key's bytes are borrowed: they outlive the map.
 * Returns DU_OK, DU_EEXIST with the map unchanged when the key is there already, DU_ENOMEM,
 * DU_ELIMIT (a key of 4 GiB). */
DU_NODISCARD
du_err du_hash_add(du_hash *h, du_sv key, int64_t value);

/* The place of the key's value, to read or to change, until the next addition; NULL when absent.
 * Thread-safe while nobody adds. */
int64_t *du_hash_find(const du_hash *h, du_sv key);

#endif
