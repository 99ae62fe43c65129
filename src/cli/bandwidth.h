/* How fast this machine reads memory: what decoding is measured against. */
#ifndef DU_CLI_BANDWIDTH_H
#define DU_CLI_BANDWIDTH_H

#include "base/err.h"

/* Bytes per second that n_threads threads read together out of a block much larger than the caches;
 * the best of several passes, about a second in all. Returns DU_OK, DU_ENOMEM, DU_ELIMIT. */
DU_NODISCARD
du_err du_cli_bandwidth(double *bytes_per_s, int64_t n_threads, du_diag *diag);

#endif
