/* The processes that mpirun has started with this one. */
#ifndef DU_CLI_RANKS_H
#define DU_CLI_RANKS_H

#include "train/ranks.h"

/* Are there any? */
bool du_cli_ranks_wanted(void);

/* Joins them; *out stays NULL for a process that was started alone, which loads no MPI. Free with
 * du_ranks_close. Returns DU_OK, DU_EUNSUPPORTED (this dure was built without MPI; what
 * du_ranks_open says). */
DU_NODISCARD
du_err du_cli_ranks_open(du_ranks **out, du_diag *diag);

#endif
