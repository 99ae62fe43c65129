/* What the kernel tests share: the levels of this machine, guarded buffers, random numbers, and the
 * error bound against a double-precision oracle.
 *
 * Every buffer lies between pages that may not be touched, flush with one of them, so that a read
 * or write outside is a fault; inputs are made read-only before the kernel runs. Outputs start as a
 * NaN of one bit pattern, so that what was not written is seen. */
#ifndef DU_TESTS_KERN_TEST_H
#define DU_TESTS_KERN_TEST_H

#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/cpu.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "tensor/half.h"
#include "test.h"

static du_isa level_first = DU_ISA_C, level_last = DU_ISA_COUNT - 1;

/* One argument forces a level: kern_mm avx2 */
static inline void choose_level(int argc, char **argv) {
    du_isa isa;
    if (argc < 2) {
        return;
    }
    if (!du_isa_find(&isa, argv[1]) || !du_isa_available(isa)) {
        fprintf(stderr, "%s: this machine has no level '%s'\n", argv[0], argv[1]);
        exit(2);
    }
    level_first = level_last = isa;
}

/* Runs fn for every level to be tested; the level is in `kern`. */
static const du_kern *kern;

static inline void each_level(void (*fn)(void)) {
    for (int isa = (int)level_first; isa <= (int)level_last; isa++) {
        kern = du_kern_get((du_isa)isa);
        if (kern) {
            fn();
        }
    }
}

/* Which end of a buffer touches a guard page, and how many bytes it is moved away from there (for
 * alignment: the other end then has slack). */
enum { N_SLOT = 12, SLOT_BYTES = 1 << 22, GUARD_BYTES = 1 << 16 };
static char *slots[N_SLOT];
static bool guard_at_end;

static inline void *guard(int slot, size_t bytes) {
    if (!slots[slot]) {
        char *p =
            mmap(NULL, SLOT_BYTES + 2 * GUARD_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(p != MAP_FAILED);
        slots[slot] = p + GUARD_BYTES;
    }
    assert_true(bytes <= SLOT_BYTES);
    assert_int_equal(mprotect(slots[slot], SLOT_BYTES, PROT_READ | PROT_WRITE), 0);
    return guard_at_end ? slots[slot] + SLOT_BYTES - bytes : slots[slot];
}

static inline void seal(int slot) {
    assert_int_equal(mprotect(slots[slot], SLOT_BYTES, PROT_READ), 0);
}

#define UNWRITTEN 0x7fc0beefu

static inline float *guard_out(int slot, int64_t n) {
    float *y = guard(slot, (size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        y[i] = du_f32_of_bits(UNWRITTEN);
    }
    return y;
}

static inline bool is_unwritten(float y) {
    return du_bits_of_f32(y) == UNWRITTEN;
}

static inline bool same_bits(float a, float b) {
    return du_bits_of_f32(a) == du_bits_of_f32(b);
}

static du_rng rng;

static inline int64_t between(int64_t lo, int64_t hi) {
    return lo + (int64_t)du_rng_below(&rng, (uint64_t)(hi - lo + 1));
}

static inline float *guard_normal(int slot, int64_t n, float scale) {
    float *x = guard(slot, (size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        x[i] = scale * (float)du_rng_normal(&rng);
    }
    return x;
}

/* |got - exact| <= steps * 2^-24 * sum|terms|, the bound for `steps` roundings on the longest way
 * of a term to the sum. A NaN fails. */
static inline bool within(double got, double exact, double terms, double steps) {
    return fabs(got - exact) <= steps * 0x1p-24 * terms;
}

#endif
