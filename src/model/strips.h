/* Room for the layout of block-quantised weights that products like best (kern/strips.h): memory,
 * where the first product with a matrix writes it (nn/product.h), or a file beside the model, which
 * is written once and mapped by every process. Whichever comes first stays as long as the model. */
#ifndef DU_MODEL_STRIPS_H
#define DU_MODEL_STRIPS_H

#include "base/pool.h"
#include "model/model.h"

/* Bytes that the strips of all matrices which the kernels want in strips take; 0: none are. */
size_t du_model_strips_bytes(const du_model *model, const du_kern *kern);

/* Whether the matrices have room already. Thread-safe. */
bool du_model_strips_has_room(const du_model *model);

/* Whether that room is a file's. Thread-safe. */
bool du_model_strips_in_file(const du_model *model);

/* Gives these matrices room in memory, unless they have some; thread-safe.
 * Returns DU_OK, DU_ENOMEM (the model is as it was). */
DU_NODISCARD
du_err du_model_strips_reserve(const du_model *model, const du_kern *kern, du_diag *diag);

/* Writes the strips of all matrices that have room and were not written yet. */
void du_model_strips_write(du_ctx *ctx, const du_model *model);

/* The file beside a model: "MODEL.gguf.strips" (of the first part), on the heap (du_free).
 * Returns DU_OK, DU_ENOENT (the model is in no file), DU_ENOMEM. */
DU_NODISCARD
du_err du_model_strips_path(char **out, const du_model *model, du_diag *diag);

/* Maps a file of strips and gives the matrices these, unless they have room already; thread-safe.
 * Nothing that the file says is used before it was found to be what this model calls for.
 * Returns DU_OK; DU_ENOENT, DU_EIO, DU_ENOMEM; DU_EEXIST (something else than strips has the name);
 * DU_EFORMAT (damaged, cut off, of another version or another model, or without matrices that
 * `kern` wants: to be written anew). */
DU_NODISCARD
du_err du_model_strips_map(const du_model *model, const du_kern *kern, const char *path,
                           du_diag *diag);

typedef void du_strips_progress_fn(void *user, int64_t bytes_done, int64_t bytes_all);

/* Writes that file, or replaces it whole.
 * pool      may be NULL
 * progress  may be NULL
 * Returns DU_OK, DU_ENOENT (the model is in no file), DU_ENOMEM, and the errors of du_writer_open
 * and du_writer_commit. */
DU_NODISCARD
du_err du_model_strips_save(const du_model *model, const du_kern *kern, const char *path,
                            du_pool *pool, du_strips_progress_fn *progress, void *user,
                            du_diag *diag);

/* Called when a model is loaded and closed. */
DU_NODISCARD
du_err du_model_strips_init(du_model *model);
void du_model_strips_done(du_model *model);

#endif
