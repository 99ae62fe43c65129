/* Errors: one code list, and a diagnostic that says what, where and why.
 *
 * A function that can fail returns du_err. Detail for people goes to a du_diag that the caller
 * owns: the first failure writes it, callers on the way up put their context in front
 * ("blk.3.ffn_gate_exps.weight: type 99 is unknown"). The library never prints it. */
#ifndef DU_BASE_ERR_H
#define DU_BASE_ERR_H

#include <stdint.h>

#define DU_NODISCARD                  __attribute__((warn_unused_result))
#define DU_PRINTF(fmt_arg, first_arg) __attribute__((format(__printf__, fmt_arg, first_arg)))

/* X(code, text) */
#define DU_ERR_LIST(X)                                                                             \
    X(DU_OK, "no error")                                                                           \
    X(DU_EINVAL, "invalid argument")                                                               \
    X(DU_EIO, "input or output failed")                                                            \
    X(DU_ENOENT, "not found")                                                                      \
    X(DU_EEXIST, "exists already")                                                                 \
    X(DU_EFORMAT, "the bytes do not follow their format")                                          \
    X(DU_EUNSUPPORTED, "not supported")                                                            \
    X(DU_ELIMIT, "a limit is exceeded")                                                            \
    X(DU_ENOMEM, "out of memory")                                                                  \
    X(DU_ECANCELLED, "cancelled")

#define DU_ERR_ENUM(code, text) code,
typedef enum { DU_ERR_LIST(DU_ERR_ENUM) DU_ERR_COUNT } du_err;
#undef DU_ERR_ENUM

typedef struct {
    du_err code;
    int64_t offset; /* byte in the file or text, -1 when there is none */
    char msg[480];  /* one line, no newline at the end */
} du_diag;

/* The text of a code: a static string. */
const char *du_err_text(du_err code);

/* Makes *diag empty. diag may be NULL. */
void du_diag_reset(du_diag *diag);

/* Records a failure unless *diag already holds one, and returns code, so that a failing function
 * can end with `return du_fail(diag, DU_EFORMAT, ...)`. diag may be NULL. Control characters of
 * the message become '?': names from files are printed to terminals. */
du_err du_fail(du_diag *diag, du_err code, const char *fmt, ...) DU_PRINTF(3, 4);

/* As du_fail, with the byte offset at which the input is wrong. */
du_err du_fail_at(du_diag *diag, du_err code, int64_t offset, const char *fmt, ...) DU_PRINTF(4, 5);

/* The failure of an allocation: DU_ENOMEM, naming what was wanted. */
du_err du_fail_nomem(du_diag *diag, const char *what);

/* Puts "context: " in front of the message that *diag holds; nothing when it holds none. */
void du_diag_context(du_diag *diag, const char *fmt, ...) DU_PRINTF(2, 3);

/* Checks for our own bugs only (never for input): prints and aborts. DU_DCHECK is compiled only
 * when NDEBUG is not defined, for kernels. */
void du_check_failed(const char *expr, const char *file, int line) __attribute__((noreturn));
#define DU_CHECK(expr) ((expr) ? (void)0 : du_check_failed(#expr, __FILE__, __LINE__))
#ifdef NDEBUG
#define DU_DCHECK(expr) ((void)0)
#else
#define DU_DCHECK(expr) DU_CHECK(expr)
#endif

#endif
