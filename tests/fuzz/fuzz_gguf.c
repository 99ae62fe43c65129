/* GGUF files from memory. */
#include "formats/gguf.h"
#include "fuzz.h"

static void use_key(const du_gguf *g, const du_gguf_kv *kv) {
    FUZZ_CHECK(du_gguf_key_find(g, kv->name) == kv);
    fuzz_touch(kv->bytes, kv->n_bytes);
    int64_t i64 = 0, n = 0, per_layer[4];
    double f64 = 0;
    bool flag = false;
    du_sv text = {0}, *texts = NULL;
    int32_t *ints = NULL;
    float *floats = NULL;
    if (du_gguf_get_i64(g, kv->name, -9, 1000, &i64, NULL) == DU_OK) {
        FUZZ_CHECK(i64 >= -9 && i64 <= 1000);
    }
    (void)!du_gguf_get_f64(g, kv->name, &f64, NULL);
    (void)!du_gguf_get_bool(g, kv->name, &flag, NULL);
    if (du_gguf_get_str(g, kv->name, &text, NULL) == DU_OK) {
        fuzz_touch(text.s, text.len);
    }
    (void)!du_gguf_get_i64_per_layer(g, kv->name, 0, 1000, 4, per_layer, NULL);
    if (du_gguf_get_i32s(g, kv->name, INT32_MIN, INT32_MAX, &ints, &n, NULL) == DU_OK) {
        fuzz_touch(ints, (size_t)n * sizeof *ints);
    }
    if (du_gguf_get_f32s(g, kv->name, &floats, &n, NULL) == DU_OK) {
        fuzz_touch(floats, (size_t)n * sizeof *floats);
    }
    if (du_gguf_get_strs(g, kv->name, &texts, &n, NULL) == DU_OK) {
        for (int64_t i = 0; i < n; i++) {
            fuzz_touch(texts[i].s, texts[i].len);
        }
    }
    du_free(ints);
    du_free(floats);
    du_free(texts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    du_diag diag;
    du_diag_reset(&diag);
    du_gguf *g = NULL;
    if (du_gguf_parse(&g, data, size, "input", &diag) != DU_OK) {
        FUZZ_CHECK(!g && diag.code != DU_OK && diag.msg[0] != '\0');
        return 0;
    }
    for (int64_t i = 0; i < du_gguf_n_keys(g); i++) {
        use_key(g, du_gguf_key(g, i));
    }
    size_t n_bytes = 0;
    for (int64_t i = 0; i < du_gguf_n_tensors(g); i++) {
        const du_gguf_tensor *t = du_gguf_tensor_at(g, i);
        FUZZ_CHECK(du_gguf_tensor_find(g, t->name) == t);
        fuzz_touch(t->data, t->n_bytes);
        n_bytes += t->n_bytes;
    }
    FUZZ_CHECK(n_bytes <= size); /* no two tensors overlap */
    du_gguf_close(g);
    return 0;
}
