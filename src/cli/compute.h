/* What commands that run a model share: their options, and opening the model. */
#ifndef DU_CLI_COMPUTE_H
#define DU_CLI_COMPUTE_H

#include "base/opt.h"
#include "infer/lm.h"
#include "infer/session.h"

/* The first is --ctx. */
extern const du_opt du_cli_compute_opts[];
extern const size_t du_cli_n_compute_opts;

/* The seed that --seed names; without it a different one in every run. */
uint64_t du_cli_seed(void);

/* Was --deterministic given? */
bool du_cli_deterministic(void);

/* What --threads, --pin, --ctx, --cache-type and --isa say. */
du_infer_params du_cli_infer_params(void);

/* Opens the weights that a MODEL argument names, NULL being the built-in one. The errors of
 * du_model_open. */
DU_NODISCARD
du_err du_cli_model_open(du_model **out, const char *model, du_diag *diag);

/* A model with one session, ready to run. Close also after a failure. */
typedef struct {
    du_lm *lm;
    du_infer *infer;
    du_session *session;
} du_cli_runner;

/* ids_only: the model needs no tokenizer (du_lm_open_ids). params NULL: du_cli_infer_params(). The
 * errors of du_lm_open, du_infer_new, du_session_new. */
DU_NODISCARD
du_err du_cli_runner_open(du_cli_runner *out, const char *model, bool ids_only,
                          const du_infer_params *params, du_diag *diag);
/* A runner for texts that are cut into chunks: the context is --ctx, 512 by default, at most what
 * the model was trained for. The errors of du_cli_runner_open. */
DU_NODISCARD
du_err du_cli_runner_open_chunks(du_cli_runner *out, const char *model, bool ids_only,
                                 du_diag *diag);
void du_cli_runner_close(du_cli_runner *runner);

#endif
