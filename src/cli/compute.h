/* What commands that run a model share: their options, and opening the model. */
#ifndef DU_CLI_COMPUTE_H
#define DU_CLI_COMPUTE_H

#include "cli/cli.h"
#include "infer/lm.h"
#include "infer/session.h"
#include "nn/ctx.h"

/* The options under their heading; what is not NOTHING. */
du_opt_group du_cli_compute_group(du_cli_computing what);

/* The seed that --seed names; without it a different one in every run. */
uint64_t du_cli_seed(void);

/* Was --deterministic given? */
bool du_cli_deterministic(void);

/* What the options say. */
du_infer_params du_cli_infer_params(void);

/* The kernels that --isa names, by default the best ones. Returns DU_OK, DU_EUNSUPPORTED. */
DU_NODISCARD
du_err du_cli_kern(const du_kern **out, du_diag *diag);

/* What passes of training are computed with: these kernels, as many threads as --threads says, else
 * n_threads, and scratch memory.
 * out  du_cli_ctx_done also after a failure
 * Returns DU_OK, DU_EUNSUPPORTED, DU_ENOMEM, the errors of du_pool_new. */
DU_NODISCARD
du_err du_cli_ctx_init(du_ctx *out, int64_t n_threads, du_diag *diag);
void du_cli_ctx_done(du_ctx *ctx);

/* Opens the weights that a MODEL argument names, NULL being the built-in one. The errors of
 * du_model_open. */
DU_NODISCARD
du_err du_cli_model_open(du_model **out, const char *model, du_diag *diag);

/* The same with the running means of a checkpoint's weights in their place (ema.decay of `dure
 * train`). Also the errors of du_weights_replace. */
DU_NODISCARD
du_err du_cli_model_open_mean(du_model **out, const char *checkpoint, du_diag *diag);

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
