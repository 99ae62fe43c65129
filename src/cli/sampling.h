/* How run and chat choose tokens: their options, and what follows from them. */
#ifndef DU_CLI_SAMPLING_H
#define DU_CLI_SAMPLING_H

#include "base/opt.h"
#include "cli/cli.h"
#include "infer/generate.h"

extern const du_opt du_cli_sampling_opts[];
extern const size_t du_cli_n_sampling_opts;

/* Fills the sampler's parameters (what the options leave open comes from the model), n_max,
 * ignore_eos and the stop strings; the rest of *out stays. Memory belongs to this file until
 * du_cli_sampling_done. A wrong --logit-bias is DU_CLI_USAGE. */
DU_NODISCARD
du_cli_status du_cli_sampling_read(du_generate_params *out, const du_lm *lm, du_diag *diag);
void du_cli_sampling_done(void);

#endif
