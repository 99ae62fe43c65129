/* Inside model/: names in adapters' files. */
#ifndef DU_MODEL_LORA_INT_H
#define DU_MODEL_LORA_INT_H

#include "base/str.h"

#define DU_LORA_PREFIX "base_model.model."
#define DU_LORA_A      ".lora_A.weight"
#define DU_LORA_B      ".lora_B.weight"
#define DU_LORA_BIAS   ".e_score_correction_bias"
#define DU_LORA_ROUTER "mlp.gate" /* in modules_to_save */

/* The next name of a list, without blanks around it; false behind the last. */
bool du_lora_next_target(const char **list, du_sv *name);

/* Does the list choose all? */
bool du_lora_is_all(const char *targets);

#endif
