/* What a run's samples are made with. */
#ifndef DU_CLI_TRAIN_SAMPLE_H
#define DU_CLI_TRAIN_SAMPLE_H

#include <jansson.h>

#include "infer/infer.h"
#include "train/config.h"

/* Answers as `dure run CHECKPOINT -p PROMPT --temp 0 -n SAMPLE.TOKENS --deterministic` gives them,
 * with reasoning, or with --raw where the checkpoint has no chat template; appended to texts,
 * null for a prompt that fills the context. Adapters are folded into init's model in memory.
 * config  of the run: init, lora.rank, sample.tokens
 * how     threads and kernels
 * Returns DU_ECANCELLED (a signal came), DU_ENOMEM, the errors of du_lm_open, du_lora_file_open,
 * du_lora_load, du_lm_apply_chat, du_infer_new, du_generate. */
DU_NODISCARD
du_err du_cli_train_sample(const char *checkpoint, const du_train_config *config,
                           const json_t *prompts, json_t *texts, du_infer_params how,
                           du_diag *diag);

#endif
