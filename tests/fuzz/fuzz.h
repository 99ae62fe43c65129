/* What every fuzz target includes.
 *
 * A target fuzz_<name>.c defines LLVMFuzzerTestOneInput: it feeds the bytes to one parser of the
 * library and uses whatever the parser makes of them. tools/fuzz.sh builds it with clang's
 * libFuzzer and runs it; the ordinary build links it with standalone.c, and CTest runs the inputs
 * in corpus/<name>/ as regressions. */
#ifndef DU_TESTS_FUZZ_H
#define DU_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the program, so that the fuzzer keeps the input, when a promise of the library is broken. */
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* What the first input needs: later ones find it done. */
#define FUZZ_ONCE(call)                                                                            \
    do {                                                                                           \
        static bool done_;                                                                         \
        if (!done_) {                                                                              \
            call;                                                                                  \
            done_ = true;                                                                          \
        }                                                                                          \
    } while (0)

/* Reads the bytes, for the address sanitizer to check. */
static inline void fuzz_touch(const void *bytes, size_t n) {
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum = (uint8_t)(sum + ((const uint8_t *)bytes)[i]);
    }
}

#endif
