#include "test.h"
#include "tmp.h"

#include "base/json.h"
#include "base/str.h"
#include "formats/gguf_write.h"
#include "formats/weights.h"

static void gguf_dims_are_turned_round(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    const char *path = test_tmp_file(&tmp, "a.gguf");
    du_diag diag;
    du_diag_reset(&diag);
    du_gguf_writer *gw = NULL;
    const int64_t dims_a[3] = {32, 3, 2}, dims_b[1] = {5};
    const uint8_t data[6 * 34 + 20] = {0};
    assert_ok(du_gguf_writer_new(&gw, &diag), &diag);
    du_gguf_put_tensor(gw, "a", DU_Q8_0, 3, dims_a);
    du_gguf_put_tensor(gw, "b", DU_F32, 1, dims_b);
    assert_ok(du_gguf_writer_begin(gw, path, &diag), &diag);
    du_gguf_write(gw, data, sizeof data);
    assert_ok(du_gguf_writer_commit(gw, &diag), &diag);
    du_gguf_writer_close(gw);

    du_weights *w = NULL;
    assert_ok(du_weights_open(&w, path, &diag), &diag);
    assert_string_equal(du_weights_path(w), path);
    assert_int_equal(du_weights_get_kind(w), DU_WEIGHTS_GGUF);
    assert_non_null(du_weights_gguf(w));
    assert_null(du_weights_hf(w));
    assert_int_equal(du_weights_n(w), 2);
    assert_int_equal(du_weights_file_bytes(w), du_gguf_file_bytes(du_weights_gguf(w)));
    const du_weight *a = du_weights_find(w, "a");
    assert_ptr_equal(a, du_weights_at(w, 0));
    assert_string_equal(a->name, "a");
    assert_string_equal(a->type_name, "Q8_0");
    assert_int_equal(a->dtype, DU_Q8_0);
    assert_int_equal(a->n_dims, 3);
    assert_true(a->dims[0] == 2 && a->dims[1] == 3 && a->dims[2] == 32 && a->dims[3] == 1);
    assert_int_equal(a->n_bytes, 6 * 34);
    assert_ptr_equal(a->data, du_gguf_tensor_find(du_weights_gguf(w), "a")->data);
    assert_null(a->scale_inv);
    assert_true(du_weights_find(w, "b")->dims[0] == 5 && du_weights_find(w, "b")->dims[1] == 1);
    assert_null(du_weights_find(w, "c"));
    du_weights_close(w);

    char *bytes;
    size_t len;
    assert_ok(du_file_read(&bytes, &len, path, 1 << 20, &diag), &diag);
    assert_ok(du_weights_open_memory(&w, bytes, len, "built in", &diag), &diag);
    assert_string_equal(du_weights_path(w), "built in");
    assert_int_equal(du_weights_n(w), 2);
    a = du_weights_find(w, "a");
    assert_true((const char *)a->data > bytes && (const char *)a->data + a->n_bytes < bytes + len);
    du_weights_close(w);
    assert_fails(du_weights_open_memory(&w, bytes, len / 2, "built in", &diag), DU_EFORMAT, &diag,
                 "built in: ");
    du_free(bytes);
    test_tmp_remove(&tmp);
}

/* Puts config.json and a model.safetensors with this header, whose tensors take n bytes. */
static test_tmp make_model(const char *header, size_t n) {
    test_tmp tmp = test_tmp_make();
    du_str s = {0};
    uint64_t len = strlen(header);
    du_str_add(&s, &len, sizeof len);
    du_str_add_s(&s, header);
    for (size_t i = 0; i < n; i++) {
        du_str_add_c(&s, (char)i);
    }
    test_tmp_write(&tmp, "model.safetensors", s.data, s.len);
    test_tmp_write(&tmp, "config.json", "{}", 2);
    du_str_done(&s);
    return tmp;
}

#define ENTRY(name, dtype, shape, offsets)                                                         \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void a_directory_gives_its_tensors(void **state) {
    (void)state;
    test_tmp tmp = make_model(
        "{" ENTRY("n", "BF16", "[3]", "[0,6]") "," ENTRY("ids", "I64", "[1]", "[6,14]") "}  ", 14);
    du_diag diag;
    du_weights *w = NULL;
    assert_ok(du_weights_open(&w, tmp.path, &diag), &diag);
    assert_int_equal(du_weights_get_kind(w), DU_WEIGHTS_SAFETENSORS);
    assert_null(du_weights_gguf(w));
    assert_string_equal(du_hf_dir(du_weights_hf(w)), tmp.path);
    assert_int_equal(du_weights_n(w), 2);
    const du_weight *t = du_weights_find(w, "n");
    assert_int_equal(t->dtype, DU_BF16);
    assert_true(t->n_dims == 1 && t->dims[0] == 3 && t->dims[1] == 1 && t->n_bytes == 6);
    t = du_weights_find(w, "ids");
    assert_int_equal(t->dtype, DU_DTYPE_COUNT);
    assert_string_equal(t->type_name, "I64");
    assert_null(du_weights_find(w, "x"));
    du_weights_close(w);
    test_tmp_remove(&tmp);
}

/* Headers of four lengths put the f32 at every place within its alignment. */
static void data_is_aligned_whatever_the_header(void **state) {
    (void)state;
    static const char *const spaces[] = {"", " ", "  ", "   "};
    for (int i = 0; i < 4; i++) {
        char header[128];
        snprintf(header, sizeof header, "{%s" ENTRY("a", "F32", "[2,2]", "[0,16]") "}", spaces[i]);
        test_tmp tmp = make_model(header, 16);
        du_diag diag;
        du_weights *w = NULL;
        assert_ok(du_weights_open(&w, tmp.path, &diag), &diag);
        const du_weight *a = du_weights_find(w, "a");
        assert_int_equal((uintptr_t)a->data % sizeof(float), 0);
        for (int j = 0; j < 16; j++) {
            assert_int_equal(((const uint8_t *)a->data)[j], j);
        }
        du_weights_close(w);
        test_tmp_remove(&tmp);
    }
}

static void fp8_comes_with_its_scales(void **state) {
    (void)state;
    test_tmp tmp =
        make_model("{" ENTRY("w_scale_inv", "F32", "[2,3]", "[0,24]") "," ENTRY(
                       "w", "F8_E4M3", "[129,257]", "[24,33177]") "}                           ",
                   33177);
    du_diag diag;
    du_weights *w = NULL;
    assert_ok(du_weights_open(&w, tmp.path, &diag), &diag);
    const du_weight *t = du_weights_find(w, "w");
    assert_int_equal(t->dtype, DU_F8_E4M3);
    assert_ptr_equal(t->scale_inv, du_weights_find(w, "w_scale_inv")->data);
    assert_null(du_weights_find(w, "w_scale_inv")->scale_inv);
    du_weights_close(w);
    test_tmp_remove(&tmp);
}

/* As in Qwen's FP8 files. */
static void fp8_scales_may_be_bf16(void **state) {
    (void)state;
    test_tmp tmp = make_model("{" ENTRY("w_scale_inv", "BF16", "[1,2]", "[0,4]") "," ENTRY(
                                  "w", "F8_E4M3", "[2,129]", "[4,262]") "}",
                              262);
    du_diag diag;
    du_weights *w = NULL;
    assert_ok(du_weights_open(&w, tmp.path, &diag), &diag);
    const float *scales = du_weights_find(w, "w")->scale_inv;
    const uint32_t bits[2] = {0x01000000, 0x03020000}; /* bytes 0 to 3 as two bfloat16 */
    assert_memory_equal(scales, bits, sizeof bits);
    du_weights_close(w);
    test_tmp_remove(&tmp);
}

static void wrong_directories_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t n;
        const char *message;
        du_err code;
    } cases[] = {
        {"{" ENTRY("w", "F8_E4M3", "[2,2]", "[0,4]") "}", 4,
         ": w: FP8 without its scales (w_scale_inv)", DU_EFORMAT},
        {"{" ENTRY("w", "F8_E4M3", "[4]", "[0,4]") "}", 4, ": w: FP8 with 1 dimensions",
         DU_EUNSUPPORTED},
        {"{" ENTRY("w_scale_inv", "F32", "[1,2]", "[0,8]") "," ENTRY("w", "F8_E4M3", "[2,2]",
                                                                     "[8,12]") "}",
         12, ": w_scale_inv: not F32 or BF16 [1, 1]", DU_EFORMAT},
        {"{" ENTRY("w_scale_inv", "F32", "[1]", "[0,4]") "," ENTRY("w", "F8_E4M3", "[2,2]",
                                                                   "[4,8]") "}",
         8, ": w_scale_inv: not F32 or BF16 [1, 1]", DU_EFORMAT},
        {"{" ENTRY("w_scale_inv", "I32", "[1,1]", "[0,4]") "," ENTRY("w", "F8_E4M3", "[2,2]",
                                                                     "[4,8]") "}",
         8, ": w_scale_inv: not F32 or BF16 [1, 1]", DU_EFORMAT},
        {"{" ENTRY("w", "F4", "[2,2]", "[0,4]") "}", 4, "/model.safetensors: w: number type F4",
         DU_EUNSUPPORTED},
    };
    int64_t live = du_mem_get_stats().n_live;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_tmp tmp = make_model(cases[i].header, cases[i].n);
        du_diag diag;
        du_weights *w = NULL;
        assert_fails(du_weights_open(&w, tmp.path, &diag), cases[i].code, &diag, cases[i].message);
        assert_null(w);
        test_tmp_remove(&tmp);
    }
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    du_weights *w = NULL;
    test_tmp_write(&tmp, "config.json", "{}", 2);
    assert_fails(du_weights_open(&w, tmp.path, &diag), DU_ENOENT, &diag,
                 "neither model.safetensors nor its index");
    test_tmp_write(&tmp, "pytorch_model.bin", "", 0);
    assert_fails(du_weights_open(&w, tmp.path, &diag), DU_ENOENT, &diag, "pytorch_model.bin runs");
    test_tmp_write(&tmp, "adapter_config.json", "{}", 2);
    assert_fails(du_weights_open(&w, tmp.path, &diag), DU_ENOENT, &diag, "dure merge BASE ");
    assert_fails(du_weights_open(&w, test_tmp_file(&tmp, "config.json"), &diag), DU_EFORMAT, &diag,
                 "config.json: not a GGUF file");
    assert_fails(du_weights_open(&w, test_tmp_file(&tmp, "x.gguf"), &diag), DU_ENOENT, &diag,
                 "x.gguf");
    test_tmp_remove(&tmp);
    assert_int_equal(du_mem_get_stats().n_live, live);
}

static void failed_allocations_are_survived(void **state) {
    (void)state;
    test_tmp tmp = make_model("{" ENTRY("s_scale_inv", "BF16", "[1,1]",
                                        "[0,2]") "," ENTRY("s", "F8_E4M3", "[2,2]", "[2,6]") "}",
                              6);
    int64_t live = du_mem_get_stats().n_live;
    int n = 1;
    for (bool opened = false; !opened; n++) {
        du_diag diag;
        du_diag_reset(&diag);
        du_weights *w = NULL;
        du_mem_fail_at(n, false);
        du_err err = du_weights_open(&w, tmp.path, &diag);
        opened = err == DU_OK;
        du_mem_fail_at(0, false);
        assert_true(opened || (err == DU_ENOMEM && !w));
        du_weights_close(w);
        assert_int_equal(du_mem_get_stats().n_live, live);
    }
    assert_true(n > 20);
    test_tmp_remove(&tmp);
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_dims_are_turned_round),
        cmocka_unit_test(a_directory_gives_its_tensors),
        cmocka_unit_test(data_is_aligned_whatever_the_header),
        cmocka_unit_test(fp8_comes_with_its_scales),
        cmocka_unit_test(fp8_scales_may_be_bf16),
        cmocka_unit_test(wrong_directories_are_refused),
        cmocka_unit_test(failed_allocations_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
