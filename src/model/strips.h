/* Room for the layout of block-quantised weights that products like best (kern/strips.h). The first
 * product with a matrix writes it there (nn/product.h). */
#ifndef DU_MODEL_STRIPS_H
#define DU_MODEL_STRIPS_H

#include "model/model.h"

/* Bytes that the strips of all matrices which the kernels want in strips take; 0: none are. */
size_t du_model_strips_bytes(const du_model *model, const du_kern *kern);

/* Gives these matrices room, once per model however often it is called; thread-safe.
 * Returns DU_OK, DU_ENOMEM (the model is as it was). */
DU_NODISCARD
du_err du_model_strips_reserve(const du_model *model, const du_kern *kern, du_diag *diag);

/* Writes the strips of all matrices that have room and were not written yet. */
void du_model_strips_write(du_ctx *ctx, const du_model *model);

/* Called when a model is loaded and closed. */
DU_NODISCARD
du_err du_model_strips_init(du_model *model);
void du_model_strips_done(du_model *model);

#endif
