/* The tensors of a model by name, whichever container they lie in: the one view that a model loader
 * reads. Shapes are row-major, outermost first, as the papers write them. */
#ifndef DU_FORMATS_WEIGHTS_H
#define DU_FORMATS_WEIGHTS_H

#include <stdint.h>

#include "base/err.h"
#include "formats/gguf.h"
#include "formats/hf.h"
#include "formats/safetensors.h"
#include "tensor/dtype.h"

typedef enum { DU_WEIGHTS_GGUF, DU_WEIGHTS_SAFETENSORS } du_weights_kind;

typedef struct {
    const char *name;      /* as in the file: "blk.0.attn_q.weight", "model.norm.weight" */
    const char *type_name; /* as the container says it */
    du_dtype dtype;        /* DU_DTYPE_COUNT: numbers that are no weights (integers, F64) */
    int32_t n_dims;
    int64_t dims[DU_ST_DIMS_MAX]; /* outermost first; 1 from n_dims on */
    const void *data;             /* aligned to its numbers */
    size_t n_bytes;
    /* F8_E4M3: the scales of NAME_scale_inv, [ceil(dims[0]/128), ceil(dims[1]/128)] f32 (BF16 in
     * some files), as du_mat's aux wants them; NULL for every other type. */
    const float *scale_inv;
} du_weight;

typedef struct du_weights du_weights;

/* Opens a GGUF file (any part of a split set) or a Hugging Face directory with safetensors.
 * out  new handle, free with du_weights_close; untouched on failure
 * Returns the errors of du_gguf_open, du_hf_open and du_st_open; DU_EFORMAT also for an FP8 tensor
 * whose scales are absent or of another shape, DU_ENOENT for a directory without weights. */
DU_NODISCARD
du_err du_weights_open(du_weights **out, const char *path, du_diag *diag);

/* The same for one whole GGUF file in memory (du_gguf_parse); what names it in messages. */
DU_NODISCARD
du_err du_weights_open_memory(du_weights **out, const void *bytes, size_t len, const char *what,
                              du_diag *diag);

/* Puts in the place of every tensor of a directory the one that a safetensors file has under
 * prefix and its name, of the same type and shape. w is for du_weights_close alone after a failure.
 * Returns the errors of du_st_open, DU_EFORMAT (naming a tensor that is not there so), DU_ENOMEM.
 */
DU_NODISCARD
du_err du_weights_replace(du_weights *w, const char *path, const char *prefix, du_diag *diag);

void du_weights_close(du_weights *w); /* takes NULL; closes all that was opened */

const char *du_weights_path(const du_weights *w);
du_weights_kind du_weights_get_kind(const du_weights *w);

/* The container's other contents, borrowed: one of the two is not NULL. */
const du_gguf *du_weights_gguf(const du_weights *w);
const du_hf *du_weights_hf(const du_weights *w);

int64_t du_weights_n(const du_weights *w);
const du_weight *du_weights_at(const du_weights *w, int64_t i);
const du_weight *du_weights_find(const du_weights *w, const char *name); /* NULL: absent */
/* Bytes [p, p + n) of a tensor will not be read again soon (du_map_unload). */
void du_weights_unload(const du_weights *w, const void *p, size_t n);

int64_t du_weights_file_bytes(const du_weights *w);

#endif
