/* Whole GGUF models from memory: loaded, and where that succeeds, run for two tokens. */
#include "base/json.h"
#include "fuzz.h"
#include "infer/session.h"

/* Runs the model on tokens 0 and 1; finite or not, its logits are written. */
static void run(const du_model *model) {
    du_infer_params params = du_infer_defaults();
    params.n_threads = 1;
    params.n_ctx = 2;
    params.force_isa = true; /* the kernels that the sanitizers look into */
    params.isa = DU_ISA_C;
    du_infer *inf = NULL;
    du_session *s = NULL;
    const int32_t tokens[2] = {0, 1};
    if (du_infer_new(&inf, model, &params, NULL) == DU_OK &&
        du_session_new(&s, inf, NULL) == DU_OK &&
        du_session_sync(s, tokens, 2, NULL, NULL, NULL) == DU_OK) {
        fuzz_touch(du_session_logits(s), (size_t)model->hp.n_vocab * sizeof(float));
    }
    du_session_free(s);
    du_infer_free(inf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    FUZZ_ONCE(du_json_use_counted_heap());
    /* Tensors are aligned as they would be in a map. */
    void *bytes = du_alloc_aligned(size);
    FUZZ_CHECK(bytes != NULL);
    if (size > 0) {
        memcpy(bytes, data, size);
    }
    du_diag diag;
    du_diag_reset(&diag);
    du_weights *files = NULL;
    du_model *model = NULL;
    if (du_weights_open_memory(&files, bytes, size, "input", &diag) == DU_OK &&
        du_model_load(&model, files, &diag) == DU_OK) {
        run(model);
    } else {
        FUZZ_CHECK(!model && diag.code != DU_OK && diag.msg[0] != '\0');
    }
    du_model_close(model);
    du_free(bytes);
    return 0;
}
