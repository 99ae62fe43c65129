/* Safetensors files from memory. */
#include "formats/safetensors.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    du_diag diag;
    du_diag_reset(&diag);
    du_st *st = NULL;
    if (du_st_parse(&st, data, size, "input", &diag) != DU_OK) {
        FUZZ_CHECK(!st && diag.code != DU_OK && diag.msg[0] != '\0');
        return 0;
    }
    size_t n_bytes = 0;
    for (int64_t i = 0; i < du_st_n_tensors(st); i++) {
        const du_st_tensor *t = du_st_tensor_at(st, i);
        FUZZ_CHECK(du_st_tensor_find(st, t->name) == t);
        fuzz_touch(t->data, t->n_bytes);
        n_bytes += t->n_bytes;
    }
    FUZZ_CHECK(n_bytes < size);
    du_st_close(st);
    return 0;
}
