#include "nn/kv.h"

du_err du_kv_layout_init(du_kv_layout *out, du_dtype dtype, int64_t n_layer, int64_t n_head,
                         int64_t k_dim, int64_t v_dim, bool latent, du_diag *diag) {
    const du_dtype_info *type = du_dtype_get(dtype);
    if (k_dim % type->block != 0 || v_dim % type->block != 0) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "cache type %s wants rows of a multiple of %lld values, this model has %lld "
                       "and %lld: use f16",
                       type->name, (long long)type->block, (long long)k_dim, (long long)v_dim);
    }
    du_kv_layout kv = {.dtype = dtype,
                       .n_layer = n_layer,
                       .n_head = n_head,
                       .k_dim = k_dim,
                       .v_dim = v_dim,
                       .latent = latent};
    kv.k_row_bytes = du_dtype_row_bytes(dtype, k_dim);
    kv.v_row_bytes = latent ? kv.k_row_bytes : du_dtype_row_bytes(dtype, v_dim);
    size_t row_bytes = kv.k_row_bytes + (latent ? 0 : kv.v_row_bytes);
    kv.layer_bytes = (size_t)n_head * DU_KV_PAGE * row_bytes;
    kv.page_bytes = (size_t)n_layer * kv.layer_bytes;
    *out = kv;
    return DU_OK;
}
