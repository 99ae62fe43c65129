/* One view of a model's tensors over GGUF files and Hugging Face directories.
 *
 * The list is built once, in the container's order, and borrows everything from the container's
 * maps. Three things are put right here, so that nobody above has to know of them: GGUF's
 * dimensions are turned round, a safetensors tensor whose data is not aligned to its numbers (the
 * format does not ask for that) is copied, and scales of FP8 weights are f32. */
#include "formats/weights.h"

#include <inttypes.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "tensor/mat.h"

struct du_weights {
    char *path;
    du_gguf *gguf;
    du_hf *hf;
    du_st *st;
    du_st *other; /* what has the data instead of st; NULL: st */
    du_weight *list;
    int64_t n;
    du_arena *copies; /* of what could not stay in the map; NULL when all could */
};

_Static_assert((int)DU_ST_DIMS_MAX >= (int)DU_GGUF_DIMS_MAX, "a weight has room for either's dims");

static void weight_of_gguf(du_weight *w, const du_gguf_tensor *t) {
    *w = (du_weight){.name = t->name,
                     .type_name = t->type_name,
                     .dtype = t->dtype,
                     .n_dims = t->n_dims,
                     .data = t->data,
                     .n_bytes = t->n_bytes};
    for (int32_t i = 0; i < DU_ST_DIMS_MAX; i++) {
        w->dims[i] = i < t->n_dims ? t->dims[t->n_dims - 1 - i] : 1;
    }
}

static void weight_of_st(du_weight *w, const du_st_tensor *t) {
    *w = (du_weight){.name = t->name,
                     .type_name = t->type_name,
                     .dtype = t->dtype,
                     .n_dims = t->n_dims,
                     .data = t->data,
                     .n_bytes = t->n_bytes};
    memcpy(w->dims, t->dims, sizeof w->dims);
}

/* Room for n elements that lives as long as w; NULL when memory is short. */
static void *copy_room(du_weights *w, size_t n, size_t elem_bytes) {
    if (!w->copies) {
        w->copies = du_arena_new(0);
    }
    return w->copies ? du_arena_alloc(w->copies, n, elem_bytes) : NULL;
}

static du_err align(du_weights *w, du_weight *t, size_t elem_bytes, du_diag *diag) {
    if ((uintptr_t)t->data % elem_bytes == 0) {
        return DU_OK;
    }
    void *copy = copy_room(w, t->n_bytes, 1);
    if (!copy) {
        return du_fail_nomem(diag, t->name);
    }
    memcpy(copy, t->data, t->n_bytes);
    t->data = copy;
    return DU_OK;
}

/* Finds the scales of an FP8 tensor: one number for each 128 x 128 tile, F32 in DeepSeek's files,
 * BF16 in Qwen's. */
static du_err set_scales(du_weights *w, du_weight *t, du_diag *diag) {
    if (t->n_dims != 2) {
        return du_fail(diag, DU_EUNSUPPORTED, "%s: %s: FP8 with %" PRId32 " dimensions", w->path,
                       t->name, t->n_dims);
    }
    du_str name = {0};
    du_str_addf(&name, "%s_scale_inv", t->name);
    if (name.failed) {
        return du_fail_nomem(diag, t->name);
    }
    const du_weight *scales = du_weights_find(w, name.data);
    du_str_done(&name);
    if (!scales) {
        return du_fail(diag, DU_EFORMAT, "%s: %s: FP8 without its scales (%s_scale_inv)", w->path,
                       t->name, t->name);
    }
    int64_t rows = t->dims[0] / DU_F8_TILE + (t->dims[0] % DU_F8_TILE != 0);
    int64_t cols = t->dims[1] / DU_F8_TILE + (t->dims[1] % DU_F8_TILE != 0);
    if ((scales->dtype != DU_F32 && scales->dtype != DU_BF16) || scales->n_dims != 2 ||
        scales->dims[0] != rows || scales->dims[1] != cols) {
        return du_fail(diag, DU_EFORMAT,
                       "%s: %s: not F32 or BF16 [%" PRId64 ", %" PRId64 "], one scale "
                       "for each 128 x 128 tile",
                       w->path, scales->name, rows, cols);
    }
    if (scales->dtype == DU_F32) {
        t->scale_inv = scales->data;
        return DU_OK;
    }
    float *copy = copy_room(w, (size_t)(rows * cols), sizeof *copy);
    if (!copy) {
        return du_fail_nomem(diag, t->name);
    }
    du_dtype_get(scales->dtype)->unpack(copy, scales->data, rows * cols);
    t->scale_inv = copy;
    return DU_OK;
}

static du_err make_list(du_weights *w, int64_t n, du_diag *diag) {
    w->list = du_alloc_array((size_t)n, sizeof *w->list);
    w->n = n;
    return w->list ? DU_OK : du_fail_nomem(diag, "a list of tensors");
}

static du_err list_gguf(du_weights *w, du_diag *diag) {
    du_err err = make_list(w, du_gguf_n_tensors(w->gguf), diag);
    for (int64_t i = 0; err == DU_OK && i < w->n; i++) {
        weight_of_gguf(&w->list[i], du_gguf_tensor_at(w->gguf, i));
    }
    return err;
}

static du_err open_gguf(du_weights *w, du_diag *diag) {
    du_err err = du_gguf_open(&w->gguf, w->path, diag);
    return err == DU_OK ? list_gguf(w, diag) : err;
}

static du_err no_weights(const du_weights *w, du_diag *diag) {
    du_err err = du_hf_refuse_adapter(w->path, diag);
    if (err != DU_OK) {
        return err;
    }
    char *other = du_path_join(w->path, "pytorch_model.bin");
    if (!other) {
        return du_fail_nomem(diag, w->path);
    }
    bool pickled = du_file_exists(other);
    du_free(other);
    return du_fail(diag, DU_ENOENT, "%s: neither model.safetensors nor its index%s", w->path,
                   pickled ? " (pytorch_model.bin runs code when loaded; dure reads safetensors)"
                           : "");
}

static du_err open_hf(du_weights *w, du_diag *diag) {
    du_err err = du_hf_open(&w->hf, w->path, diag);
    if (err == DU_OK && !du_hf_weights_path(w->hf)) {
        err = no_weights(w, diag);
    }
    if (err == DU_OK) {
        err = du_st_open(&w->st, du_hf_weights_path(w->hf), diag);
    }
    if (err == DU_OK) {
        err = make_list(w, du_st_n_tensors(w->st), diag);
    }
    for (int64_t i = 0; err == DU_OK && i < w->n; i++) {
        const du_st_tensor *t = du_st_tensor_at(w->st, i);
        weight_of_st(&w->list[i], t);
        err = align(w, &w->list[i], t->elem_bytes, diag);
    }
    for (int64_t i = 0; err == DU_OK && i < w->n; i++) {
        if (w->list[i].dtype == DU_F8_E4M3) {
            err = set_scales(w, &w->list[i], diag);
        }
    }
    return err;
}

/* An empty handle with its path; NULL when memory is short. */
static du_weights *new_weights(const char *path) {
    du_weights *w = du_alloc_zero(1, sizeof *w);
    if (w) {
        w->path = du_strdup(path);
    }
    if (w && !w->path) {
        du_free(w);
        return NULL;
    }
    return w;
}

static du_err hand_out(du_weights **out, du_weights *w, du_err err) {
    if (err != DU_OK) {
        du_weights_close(w);
        return err;
    }
    *out = w;
    return DU_OK;
}

du_err du_weights_open(du_weights **out, const char *path, du_diag *diag) {
    du_weights *w = new_weights(path);
    if (!w) {
        return du_fail_nomem(diag, path);
    }
    return hand_out(out, w, du_dir_exists(path) ? open_hf(w, diag) : open_gguf(w, diag));
}

du_err du_weights_open_memory(du_weights **out, const void *bytes, size_t len, const char *what,
                              du_diag *diag) {
    du_weights *w = new_weights(what);
    if (!w) {
        return du_fail_nomem(diag, what);
    }
    du_err err = du_gguf_parse(&w->gguf, bytes, len, what, diag);
    return hand_out(out, w, err == DU_OK ? list_gguf(w, diag) : err);
}

/* The tensor's data are those of PREFIX + its name. */
static du_err replace(du_weights *w, du_weight *t, const char *prefix, du_diag *diag) {
    du_str name = {0};
    du_str_addf(&name, "%s%s", prefix, t->name);
    if (name.failed) {
        return du_fail_nomem(diag, t->name);
    }
    const du_st_tensor *from = du_st_tensor_find(w->other, name.data);
    bool same = from && from->dtype == t->dtype && from->n_dims == t->n_dims &&
                memcmp(from->dims, t->dims, (size_t)t->n_dims * sizeof *t->dims) == 0;
    du_err err = same ? DU_OK
                      : du_fail(diag, DU_EFORMAT, "%s: %s is %s", du_st_path(w->other), name.data,
                                from ? "of another shape or type" : "missing");
    du_str_done(&name);
    if (err != DU_OK) {
        return err;
    }
    t->data = from->data;
    return align(w, t, from->elem_bytes, diag);
}

du_err du_weights_replace(du_weights *w, const char *path, const char *prefix, du_diag *diag) {
    DU_CHECK(w->st && !w->other);
    du_err err = du_st_open(&w->other, path, diag);
    for (int64_t i = 0; i < w->n && err == DU_OK; i++) {
        err = replace(w, &w->list[i], prefix, diag);
    }
    return err;
}

void du_weights_close(du_weights *w) {
    if (!w) {
        return;
    }
    du_gguf_close(w->gguf);
    du_st_close(w->st);
    du_st_close(w->other);
    du_hf_close(w->hf);
    du_arena_free(w->copies);
    du_free(w->list);
    du_free(w->path);
    du_free(w);
}

const char *du_weights_path(const du_weights *w) {
    return w->path;
}

du_weights_kind du_weights_get_kind(const du_weights *w) {
    return w->gguf ? DU_WEIGHTS_GGUF : DU_WEIGHTS_SAFETENSORS;
}

const du_gguf *du_weights_gguf(const du_weights *w) {
    return w->gguf;
}

const du_hf *du_weights_hf(const du_weights *w) {
    return w->hf;
}

int64_t du_weights_n(const du_weights *w) {
    return w->n;
}

const du_weight *du_weights_at(const du_weights *w, int64_t i) {
    return &w->list[i];
}

/* The list is parallel to the container's, whose index of names serves both. */
const du_weight *du_weights_find(const du_weights *w, const char *name) {
    if (w->gguf) {
        const du_gguf_tensor *t = du_gguf_tensor_find(w->gguf, name);
        return t ? &w->list[t - du_gguf_tensor_at(w->gguf, 0)] : NULL;
    }
    const du_st_tensor *t = du_st_tensor_find(w->st, name);
    return t ? &w->list[t - du_st_tensor_at(w->st, 0)] : NULL;
}

void du_weights_unload(const du_weights *w, const void *p, size_t n) {
    if (w->gguf) {
        du_gguf_unload(w->gguf, p, n);
    }
}

int64_t du_weights_file_bytes(const du_weights *w) {
    return w->gguf ? du_gguf_file_bytes(w->gguf) : du_st_file_bytes(w->st);
}
