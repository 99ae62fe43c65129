/* What a run trains: the weights of a model, or adapters (model/lora.h) of one that stays in its
 * files. Its shape, whether the configuration goes with it, and the values that it begins with. */
#ifndef DU_TRAIN_TRAINABLE_H
#define DU_TRAIN_TRAINABLE_H

#include "model/params.h"
#include "train/config.h"

/* The config.json of the model that the configuration begins with: that of init, or model.*.
 * json_decref *out. NULL with lora.rank, where du_trainable_new opens init. Returns DU_OK, the
 * errors of du_model_open, DU_EINVAL (model.* do not make a model), DU_ENOMEM. */
DU_NODISCARD
du_err du_trainable_shape(json_t **out, const du_train_config *config, du_diag *diag);

/* Zeros; none of their memory is touched.
 * out    free with du_params_free; untouched on failure
 * shape  a config.json; with lora.rank NULL, or an object that says num_hidden_layers: so many
 *        layers of init's model, and none behind its trunk
 * Returns DU_OK and the errors of du_params_new; with lora.rank those of du_model_open and
 * DU_EINVAL (lora.targets names no layer of the whole model). */
DU_NODISCARD
du_err du_trainable_new(du_params **out, const du_train_config *config, const json_t *shape,
                        du_diag *diag);

/* Refuses keys that need what the model, or dure, has not, and models without a backward pass.
 * n_parts  processes that experts are spread over; 0: they are whole
 * Returns DU_OK, DU_EUNSUPPORTED naming the key. */
DU_NODISCARD
du_err du_trainable_check(const du_params *params, const du_train_config *config, int64_t n_parts,
                          du_diag *diag);

/* The first values: those of init, random ones by the seed where it has none; adapters that change
 * nothing yet. Returns DU_OK, the errors of du_model_open and du_params_load. */
DU_NODISCARD
du_err du_trainable_begin(du_params *params, const du_train_config *config, du_diag *diag);

#endif
