/* What every test program includes: cmocka with the headers it wants, and our error check. */
#ifndef DU_TESTS_TEST_H
#define DU_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/err.h"

/* Fails the test with the diagnostic when the call did not succeed. */
#define assert_ok(call, diag)                                                                      \
    do {                                                                                           \
        du_err got_ = (call);                                                                      \
        if (got_ != DU_OK) {                                                                       \
            fail_msg("%s: %s: %s", #call, du_err_text(got_), (diag)->msg);                         \
        }                                                                                          \
    } while (0)

/* The call fails with this code and a message that holds `part`. */
#define assert_fails(call, code_, diag, part)                                                      \
    do {                                                                                           \
        du_diag_reset(diag);                                                                       \
        assert_int_equal((call), code_);                                                           \
        if (!strstr((diag)->msg, part)) {                                                          \
            fail_msg("message without '%s': %s", part, (diag)->msg);                               \
        }                                                                                          \
    } while (0)

/* The kernel level under test: DURE_TEST_ISA (.ci/run sets each that the machine has), otherwise
 * the machine's best. */
static inline du_isa test_isa(void) {
    const char *name = getenv("DURE_TEST_ISA");
    du_isa isa = du_isa_best();
    if (name && !du_isa_find(&isa, name)) {
        fail_msg("DURE_TEST_ISA=%s: no such level", name);
    }
    return isa;
}

#endif
