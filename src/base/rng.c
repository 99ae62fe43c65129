#include "base/rng.h"

#include <math.h>

static uint64_t rotl(uint64_t x, int k) {
    return (x << k) | (x >> (64 - k));
}

void du_rng_init(du_rng *rng, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        seed += 0x9e3779b97f4a7c15u;
        uint64_t z = seed;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        rng->s[i] = z ^ (z >> 31);
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
