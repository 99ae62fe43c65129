#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *du_err_text(du_err code) {
#define DU_ERR_TEXT(name, text) text,
    static const char *const texts[] = {DU_ERR_LIST(DU_ERR_TEXT)};
#undef DU_ERR_TEXT
    return code >= 0 && code < DU_ERR_COUNT ? texts[code] : "unknown error";
}

void du_diag_reset(du_diag *diag) {
    if (diag) {
        *diag = (du_diag){.code = DU_OK, .offset = -1};
    }
}

static void blank_controls(char *s) {
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f) {
            *s = '?';
        }
    }
}

DU_PRINTF(4, 0)
static du_err fail_va(du_diag *diag, du_err code, int64_t offset, const char *fmt, va_list args) {
    if (diag && diag->code == DU_OK) {
        diag->code = code;
        diag->offset = offset;
        vsnprintf(diag->msg, sizeof diag->msg, fmt, args);
        blank_controls(diag->msg);
    }
    return code;
}

du_err du_fail(du_diag *diag, du_err code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fail_va(diag, code, -1, fmt, args);
    va_end(args);
    return code;
}

du_err du_fail_at(du_diag *diag, du_err code, int64_t offset, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fail_va(diag, code, offset, fmt, args);
    va_end(args);
    return code;
}

du_err du_fail_nomem(du_diag *diag, const char *what) {
    return du_fail(diag, DU_ENOMEM, "not enough memory for %s", what);
}

void du_diag_context(du_diag *diag, const char *fmt, ...) {
    if (!diag || diag->code == DU_OK) {
        return;
    }
    char whole[2 * sizeof diag->msg];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(whole, sizeof diag->msg, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n + 3 > sizeof diag->msg) {
        return; /* the reason is worth more than its context */
    }
    snprintf(whole + n, sizeof whole - (size_t)n, ": %s", diag->msg);
    whole[sizeof diag->msg - 1] = '\0';
    blank_controls(whole);
    memcpy(diag->msg, whole, sizeof diag->msg);
}

void du_check_failed(const char *expr, const char *file, int line) {
    fprintf(stderr, "dure: internal error, please report it: %s:%d: %s\n", file, line, expr);
    abort();
}
