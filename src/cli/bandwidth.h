/* How fast this machine reads memory and computes: what the tests of `dure bench` are compared
 * with. */
#ifndef DU_CLI_BANDWIDTH_H
#define DU_CLI_BANDWIDTH_H

#include "base/pool.h"
#include "kern/kern.h"

/* Bytes per second that a pool's threads read together out of a block much larger than the caches;
 * the best of several passes, about half a second in all.
 * huge  ask for huge pages; else for 4 KiB pages
 * Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_cli_bandwidth(double *bytes_per_s, const du_kern *kern, du_pool *pool, bool huge,
                        du_diag *diag);

/* Operations (two per multiply-add) per second that a pool's threads do together; 0 where the level
 * has no such instruction. The best of several passes, some tens of milliseconds in all. */
double du_cli_peak(const du_kern *kern, du_probe probe, du_pool *pool);

#endif
