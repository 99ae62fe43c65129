/* The tensors of a checkpoint: the weights, as a Hugging Face directory or the adapters of one has
 * them, and what the optimizer keeps of each weight NAME, F32, as m.NAME, v.NAME and mean.NAME in
 * state.safetensors; in the order of the weight table, whatever ranks have them. */
#ifndef DU_TRAIN_CHECKPOINT_TENSORS_H
#define DU_TRAIN_CHECKPOINT_TENSORS_H

#include "formats/companions.h"
#include "train/optim.h"

/* What goes into a checkpoint; borrowed. */
typedef struct {
    const du_train_config *config;
    const du_params *params;
    const du_optim *optim;
    const du_companions *companions;
    du_pool *pool; /* may be NULL */
} du_checkpoint;

/* Writes model and config.json, or adapters; then state.safetensors, where the optimizer has a
 * state. All ranks call each: rank 0 writes, the others send what they own.
 * dir     exists; not read at the other ranks
 * before  what became of the work before it: an error at rank 0 is told to the others, so that they
 *         do not wait
 * Returns `before` where that is an error, DU_OK, DU_EIO, DU_ENOMEM, DU_EUNSUPPORTED
 * (du_convert_hf). */
DU_NODISCARD
du_err du_checkpoint_write_model(const du_checkpoint *c, const char *dir, du_err before,
                                 du_diag *diag);
DU_NODISCARD
du_err du_checkpoint_write_optim(const du_checkpoint *c, const char *dir, du_err before,
                                 du_diag *diag);

/* The weights that are here, and the moments that the optimizer owns, into a model of config.json's
 * shape, or adapters of the run's, and an optimizer of the run's kind. Returns DU_OK, DU_EFORMAT
 * (tensors missing, too many, of another shape or type), DU_EIO, DU_ENOENT, DU_ENOMEM. */
DU_NODISCARD
du_err du_checkpoint_load(const char *dir, du_params *params, du_optim *optim, du_diag *diag);

#endif
