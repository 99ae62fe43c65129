#include "base/rng.h"

#include <math.h>

static uint64_t rotl(uint64_t x, int k) {
    return (x << k) | (x >> (64 - k));
}

/* splitmix64's output function. */
static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void du_rng_init(du_rng *rng, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        seed += 0x9e3779b97f4a7c15u;
        rng->s[i] = mix(seed);
    }
}

uint64_t du_rng_u64(du_rng *rng) {
    uint64_t *s = rng->s;
    uint64_t result = rotl(s[0] + s[3], 23) + s[0];
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

double du_rng_uniform(du_rng *rng) {
    return (double)(du_rng_u64(rng) >> 11) * 0x1p-53;
}

uint64_t du_rng_below(du_rng *rng, uint64_t n) {
    uint64_t first = -n % n; /* 2^64 mod n: values below it would be one too many */
    for (;;) {
        uint64_t v = du_rng_u64(rng);
        if (v >= first) {
            return v % n;
        }
    }
}

double du_rng_normal(du_rng *rng) {
    double radius = sqrt(-2 * log(1 - du_rng_uniform(rng)));
    return radius * cos(2 * 3.14159265358979323846 * du_rng_uniform(rng));
}

uint64_t du_rng_hash(uint64_t a, uint64_t b) {
    return mix(mix(a + 0x9e3779b97f4a7c15u) + b * 0xd1342543de82ef95u + 0x9e3779b97f4a7c15u);
}

/* A Feistel network (Luby & Rackoff 1988) permutes numbers of an even count of bits, at most four
 * times as many as wanted; walking on until one falls below n makes it a permutation of these. */
uint64_t du_rng_permute(uint64_t key, uint64_t n, uint64_t i) {
    enum { N_ROUNDS = 8 };
    unsigned half = 1;
    while (half < 32 && (n - 1) >> (2 * half)) {
        half++;
    }
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < N_ROUNDS; round++) {
            uint64_t next = left ^ (du_rng_hash(key, right << 4 | round) & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
