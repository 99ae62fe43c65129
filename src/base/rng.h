/* Random numbers: xoshiro256++ (Blackman & Vigna 2019), seeded through splitmix64. The same seed
 * gives the same numbers on every machine. */
#ifndef DU_BASE_RNG_H
#define DU_BASE_RNG_H

#include <stdint.h>

typedef struct {
    uint64_t s[4];
} du_rng;

void du_rng_init(du_rng *rng, uint64_t seed);
uint64_t du_rng_u64(du_rng *rng);
double du_rng_uniform(du_rng *rng);             /* [0, 1), 53 bits */
uint64_t du_rng_below(du_rng *rng, uint64_t n); /* 0 .. n-1 without bias; n > 0 */
double du_rng_normal(du_rng *rng);              /* mean 0, deviation 1 (Box-Muller) */

/* A number that two others choose: no state, and nearly every bit changes with each of theirs. */
uint64_t du_rng_hash(uint64_t a, uint64_t b);

/* The place of i in the permutation of 0 .. n-1 that key chooses. i < n. Any place can be asked
 * for by itself: a shuffle whose state is a number. */
uint64_t du_rng_permute(uint64_t key, uint64_t n, uint64_t i);

#endif
