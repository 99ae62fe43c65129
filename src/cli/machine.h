/* What `dure bench --machine` measures and prints: the limits that speeds are compared with. */
#ifndef DU_CLI_MACHINE_H
#define DU_CLI_MACHINE_H

#include "cli/bandwidth.h"

/* Measures with 1 and with n_threads threads at one level of kernels, and prints a text or a JSON
 * object. Returns DU_OK, DU_ENOMEM, DU_ELIMIT (more threads than the system gives). */
DU_NODISCARD
du_err du_cli_machine(const du_kern *kern, int64_t n_threads, bool pin, bool as_json,
                      du_diag *diag);

#endif
