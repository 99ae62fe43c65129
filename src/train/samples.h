/* OUT/samples.jsonl: what the model makes of the prompts that the configuration names, a line per
 * checkpoint that is due:
 *
 *     {"step": 100, "samples": [{"prompt": "...", "text": "..."}]} */
#ifndef DU_TRAIN_SAMPLES_H
#define DU_TRAIN_SAMPLES_H

#include "train/config.h"
#include "train/lines.h"

#define DU_SAMPLES_FILE "samples.jsonl"

/* The texts of sample.prompt, an array; json_decref *out. *out NULL: there are none.
 * Returns DU_OK, DU_EINVAL (it begins as JSON does, and is neither a text nor an array of texts),
 * DU_ENOMEM. */
DU_NODISCARD
du_err du_samples_prompts(json_t **out, const du_train_config *config, du_diag *diag);

/* Adds the line of a step. texts: an array as long as prompts. Returns DU_OK, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_samples_add(du_lines *file, int64_t step, const json_t *prompts, const json_t *texts,
                      du_diag *diag);

#endif
