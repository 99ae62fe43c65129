#include "test.h"
#include "tmp.h"

#include "base/str.h"
#include "formats/gguf.h"
#include "formats/gguf_write.h"

static void add_u32(du_str *s, uint32_t v) {
    du_str_add(s, &v, sizeof v);
}

static void add_u64(du_str *s, uint64_t v) {
    du_str_add(s, &v, sizeof v);
}

static void add_str(du_str *s, const char *text) {
    add_u64(s, strlen(text));
    du_str_add_s(s, text);
}

static void add_head(du_str *s, uint32_t version, uint64_t n_tensors, uint64_t n_keys) {
    du_str_add_s(s, "GGUF");
    add_u32(s, version);
    add_u64(s, n_tensors);
    add_u64(s, n_keys);
}

static void add_key_u32(du_str *s, const char *key, uint32_t value) {
    add_str(s, key);
    add_u32(s, DU_GGUF_U32);
    add_u32(s, value);
}

/* A description with one or two dimensions (d1 = 0: one). */
static void add_tensor(du_str *s, const char *name, uint64_t d0, uint64_t d1, uint32_t type,
                       uint64_t offset) {
    add_str(s, name);
    add_u32(s, d1 ? 2 : 1);
    add_u64(s, d0);
    if (d1) {
        add_u64(s, d1);
    }
    add_u32(s, type);
    add_u64(s, offset);
}

/* Zeros up to the next multiple of 32, then n bytes 0, 1, 2, ... of data. */
static void add_data(du_str *s, size_t n) {
    while (s->len % DU_GGUF_ALIGNMENT) {
        du_str_add_c(s, 0);
    }
    for (size_t i = 0; i < n; i++) {
        du_str_add_c(s, (char)i);
    }
}

/* Parses a copy that ends where its block ends, for the sanitizer to see reads beyond. */
static du_err parse(du_gguf **g, const du_str *s, void **block, du_diag *diag) {
    assert_false(s->failed);
    *block = malloc(s->len ? s->len : 1);
    assert_non_null(*block);
    memcpy(*block, du_str_get(s), s->len);
    return du_gguf_parse(g, *block, s->len, "test.gguf", diag);
}

/* Parsing fails with this code and message, and holds on to nothing. */
static void assert_refused(du_str *s, du_err code, const char *part) {
    du_diag diag;
    du_gguf *g = NULL;
    void *block;
    int64_t live = du_mem_get_stats().n_live;
    assert_fails(parse(&g, s, &block, &diag), code, &diag, part);
    assert_true(strncmp(diag.msg, "test.gguf: ", 11) == 0);
    assert_null(g);
    assert_int_equal(du_mem_get_stats().n_live, live);
    free(block);
    du_str_done(s);
}

static const uint8_t bool_values[3] = {1, 0, 1};
static const int16_t i16_values[3] = {-1, 0, 32767};
static const float f32_values[4] = {0.5f, -2, 3, 1e30f};
static const int32_t i32_values[2] = {7, -9};

static void put_every_type(du_gguf_writer *w) {
    uint8_t u8 = 200;
    int8_t i8 = -100;
    uint16_t u16 = 60000;
    int16_t i16 = -30000;
    int64_t i64 = -5000000000;
    double f64 = 0.1;
    du_gguf_put_str(w, "general.architecture", du_sv_of("llama"));
    du_gguf_put_value(w, "a.u8", DU_GGUF_U8, &u8);
    du_gguf_put_value(w, "a.i8", DU_GGUF_I8, &i8);
    du_gguf_put_value(w, "a.u16", DU_GGUF_U16, &u16);
    du_gguf_put_value(w, "a.i16", DU_GGUF_I16, &i16);
    du_gguf_put_u32(w, "a.u32", 4000000000);
    du_gguf_put_i32(w, "a.i32", -2000000000);
    du_gguf_put_f32(w, "a.f32", 1.5f);
    du_gguf_put_bool(w, "a.true", true);
    du_gguf_put_bool(w, "a.false", false);
    du_gguf_put_str(w, "a.empty", du_sv_of(""));
    du_gguf_put_str(w, "a.str", (du_sv){"두\0레", 7});
    du_gguf_put_u64(w, "a.u64", UINT64_MAX);
    du_gguf_put_value(w, "a.i64", DU_GGUF_I64, &i64);
    du_gguf_put_value(w, "a.f64", DU_GGUF_F64, &f64);
    du_gguf_put_array(w, "b.bool", DU_GGUF_BOOL, bool_values, 3);
    du_gguf_put_array(w, "b.i16", DU_GGUF_I16, i16_values, 3);
    du_gguf_put_array(w, "b.f32", DU_GGUF_F32, f32_values, 4);
    du_gguf_put_array(w, "b.i32", DU_GGUF_I32, i32_values, 2);
    du_gguf_put_array(w, "b.none", DU_GGUF_U32, NULL, 0);
    const du_sv texts[3] = {du_sv_of("a"), du_sv_of(""), du_sv_of("bc")};
    du_gguf_put_strs(w, "b.strs", texts, 3);
    du_gguf_put_u32(w, "c.replaced", 1);
    du_gguf_put_u32(w, "c.dropped", 2);
    du_gguf_put_u32(w, "c.replaced", 3);
    du_gguf_drop(w, "c.dropped");
    du_gguf_drop(w, "c.absent");
}

enum { N_KEYS = 22 };

/* Three tensors: 30 f32, 64 x 2 Q8_0 (136 bytes), 3 x 5 x 7 F16 (210 bytes); bytes count up. */
static const int64_t dims_a[1] = {30}, dims_b[2] = {64, 2}, dims_c[3] = {3, 5, 7};
enum { BYTES_A = 120, BYTES_B = 136, BYTES_C = 210, BYTES_ALL = BYTES_A + BYTES_B + BYTES_C };

static void put_tensors(du_gguf_writer *w) {
    du_gguf_put_tensor(w, "blk.0.a.weight", DU_F32, 1, dims_a);
    du_gguf_put_tensor(w, "blk.0.b.weight", DU_Q8_0, 2, dims_b);
    du_gguf_put_tensor(w, "blk.0.c.weight", DU_F16, 3, dims_c);
}

/* Writes the example model, its data in pieces of `piece` bytes. */
static du_err write_example(const char *path, size_t piece, du_diag *diag) {
    uint8_t data[BYTES_ALL];
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)i;
    }
    du_gguf_writer *w = NULL;
    du_err err = du_gguf_writer_new(&w, diag);
    if (err == DU_OK) {
        put_every_type(w);
        put_tensors(w);
        err = du_gguf_writer_begin(w, path, diag);
    }
    for (size_t i = 0; err == DU_OK && i < sizeof data; i += piece) {
        du_gguf_write(w, data + i, piece < sizeof data - i ? piece : sizeof data - i);
    }
    if (err == DU_OK) {
        err = du_gguf_writer_commit(w, diag);
    }
    du_gguf_writer_close(w);
    return err;
}

static void check_tensor(const du_gguf *g, const char *name, du_dtype dtype, int32_t n_dims,
                         const int64_t *dims, size_t n_bytes, size_t first) {
    const du_gguf_tensor *t = du_gguf_tensor_find(g, name);
    assert_non_null(t);
    assert_string_equal(t->name, name);
    assert_int_equal(t->dtype, dtype);
    assert_string_equal(t->type_name, du_dtype_get(dtype)->name);
    assert_int_equal(t->n_dims, n_dims);
    for (int i = 0; i < DU_GGUF_DIMS_MAX; i++) {
        assert_int_equal(t->dims[i], i < n_dims ? dims[i] : 1);
    }
    assert_int_equal(t->n_bytes, n_bytes);
    assert_int_equal(t->offset % DU_GGUF_ALIGNMENT, 0);
    assert_int_equal((uintptr_t)t->data % DU_GGUF_ALIGNMENT, 0);
    const uint8_t *data = t->data;
    for (size_t i = 0; i < n_bytes; i++) {
        assert_int_equal(data[i], (uint8_t)(first + i));
    }
}

static void check_numbers(const du_gguf *g) {
    static const struct {
        const char *key;
        int64_t value;
    } cases[] = {{"a.u8", 200},          {"a.i8", -100},        {"a.u16", 60000},
                 {"a.i16", -30000},      {"a.u32", 4000000000}, {"a.i32", -2000000000},
                 {"a.i64", -5000000000}, {"c.replaced", 3}};
    du_diag diag;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t v = 0;
        double d = 0;
        assert_ok(du_gguf_get_i64(g, cases[i].key, INT64_MIN, INT64_MAX, &v, &diag), &diag);
        assert_ok(du_gguf_get_f64(g, cases[i].key, &d, &diag), &diag);
        assert_int_equal(v, cases[i].value);
        assert_true(d == (double)v);
    }
    double d = 0;
    assert_ok(du_gguf_get_f64(g, "a.f32", &d, &diag), &diag);
    assert_true(d == 1.5);
    assert_ok(du_gguf_get_f64(g, "a.f64", &d, &diag), &diag);
    assert_true(d == 0.1);
}

static void check_arrays(const du_gguf *g) {
    du_diag diag;
    int32_t *ints = NULL;
    float *floats = NULL;
    du_sv *texts = NULL;
    int64_t n = 0;
    assert_ok(du_gguf_get_i32s(g, "b.bool", 0, 1, &ints, &n, &diag), &diag);
    assert_int_equal(n, 3);
    assert_true(ints[0] == 1 && ints[1] == 0 && ints[2] == 1);
    du_free(ints);
    assert_ok(du_gguf_get_i32s(g, "b.i16", -1, 32767, &ints, &n, &diag), &diag);
    assert_true(n == 3 && ints[0] == -1 && ints[2] == 32767);
    du_free(ints);
    assert_ok(du_gguf_get_i32s(g, "b.none", 0, 0, &ints, &n, &diag), &diag);
    assert_int_equal(n, 0);
    du_free(ints);
    assert_ok(du_gguf_get_f32s(g, "b.f32", &floats, &n, &diag), &diag);
    assert_int_equal(n, 4);
    assert_memory_equal(floats, f32_values, sizeof f32_values);
    du_free(floats);
    assert_ok(du_gguf_get_f32s(g, "b.i32", &floats, &n, &diag), &diag);
    assert_true(n == 2 && floats[0] == 7 && floats[1] == -9);
    du_free(floats);
    assert_ok(du_gguf_get_strs(g, "b.strs", &texts, &n, &diag), &diag);
    assert_int_equal(n, 3);
    assert_true(du_sv_is(texts[0], "a") && texts[1].len == 0 && du_sv_is(texts[2], "bc"));
    du_free(texts);
}

static void check_example(const du_gguf *g) {
    du_diag diag;
    bool flag = false;
    du_sv text = {0};
    assert_int_equal(du_gguf_n_keys(g), N_KEYS);
    assert_int_equal(du_gguf_n_tensors(g), 3);
    assert_string_equal(du_gguf_key(g, 0)->name, "general.architecture");
    assert_string_equal(du_gguf_tensor_at(g, 2)->name, "blk.0.c.weight");
    assert_null(du_gguf_key_find(g, "c.dropped"));
    assert_null(du_gguf_tensor_find(g, "blk.0.d.weight"));
    check_numbers(g);
    assert_ok(du_gguf_get_bool(g, "a.true", &flag, &diag), &diag);
    assert_true(flag);
    assert_ok(du_gguf_get_bool(g, "a.false", &flag, &diag), &diag);
    assert_false(flag);
    assert_ok(du_gguf_get_str(g, "a.str", &text, &diag), &diag);
    assert_true(du_sv_eq(text, (du_sv){"두\0레", 7}));
    assert_ok(du_gguf_get_str(g, "a.empty", &text, &diag), &diag);
    assert_int_equal(text.len, 0);
    check_arrays(g);
    check_tensor(g, "blk.0.a.weight", DU_F32, 1, dims_a, BYTES_A, 0);
    check_tensor(g, "blk.0.b.weight", DU_Q8_0, 2, dims_b, BYTES_B, BYTES_A);
    check_tensor(g, "blk.0.c.weight", DU_F16, 3, dims_c, BYTES_C, BYTES_A + BYTES_B);
}

static void what_is_written_is_read(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    const char *path = test_tmp_file(&tmp, "a.gguf");
    static const size_t pieces[] = {1, 7, 136, BYTES_ALL};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        du_diag diag;
        du_gguf *g = NULL;
        du_diag_reset(&diag);
        assert_ok(write_example(path, pieces[i], &diag), &diag);
        assert_ok(du_gguf_open(&g, path, &diag), &diag);
        assert_string_equal(du_gguf_path(g), path);
        assert_int_equal(du_gguf_version(g), 3);
        assert_int_equal(du_gguf_n_parts(g), 1);
        check_example(g);
        du_gguf_close(g);
    }
    assert_int_equal(test_tmp_count(&tmp), 1);
    test_tmp_remove(&tmp);
}

/* The example as bytes. */
static du_str example_bytes(void) {
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    du_diag_reset(&diag);
    const char *path = test_tmp_file(&tmp, "a.gguf");
    assert_ok(write_example(path, 64, &diag), &diag);
    char *bytes;
    size_t len;
    assert_ok(du_file_read(&bytes, &len, path, 1 << 20, &diag), &diag);
    du_str s = {0};
    du_str_add(&s, bytes, len);
    du_free(bytes);
    test_tmp_remove(&tmp);
    return s;
}

static void copied_keys_are_the_same(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    du_diag_reset(&diag);
    du_str bytes = example_bytes();
    du_gguf *g = NULL;
    assert_ok(du_gguf_parse(&g, bytes.data, bytes.len, "example", &diag), &diag);
    du_gguf_writer *w = NULL;
    assert_ok(du_gguf_writer_new(&w, &diag), &diag);
    for (int64_t i = 0; i < du_gguf_n_keys(g); i++) {
        du_gguf_put_kv(w, du_gguf_key(g, i));
    }
    put_tensors(w);
    const char *path = test_tmp_file(&tmp, "copy.gguf");
    assert_int_equal(du_gguf_writer_bytes(w), bytes.len);
    assert_ok(du_gguf_writer_begin(w, path, &diag), &diag);
    for (int64_t i = 0; i < 3; i++) {
        const du_gguf_tensor *t = du_gguf_tensor_at(g, i);
        du_gguf_write(w, t->data, t->n_bytes);
    }
    assert_ok(du_gguf_writer_commit(w, &diag), &diag);
    du_gguf_writer_close(w);
    char *copy;
    size_t len;
    assert_ok(du_file_read(&copy, &len, path, 1 << 20, &diag), &diag);
    assert_int_equal(len, bytes.len);
    assert_memory_equal(copy, bytes.data, len);
    du_free(copy);
    du_gguf_close(g);
    du_str_done(&bytes);
    test_tmp_remove(&tmp);
}

static void version_2_is_read(void **state) {
    (void)state;
    du_str bytes = example_bytes();
    bytes.data[4] = 2;
    du_diag diag;
    du_gguf *g = NULL;
    assert_ok(du_gguf_parse(&g, bytes.data, bytes.len, "example", &diag), &diag);
    assert_int_equal(du_gguf_version(g), 2);
    assert_int_equal(du_gguf_n_keys(g), N_KEYS);
    check_numbers(g);
    du_gguf_close(g);
    du_str_done(&bytes);
}

static void getters_check_type_and_range(void **state) {
    (void)state;
    du_str bytes = example_bytes();
    du_diag diag;
    du_gguf *g = NULL;
    assert_ok(du_gguf_parse(&g, bytes.data, bytes.len, "f.gguf", &diag), &diag);
    int64_t v = 17;
    double d = 17;
    bool flag = true;
    du_sv text = du_sv_of("before");
    int32_t *ints = NULL;
    float *floats = NULL;
    du_sv *texts = NULL;
    int64_t n = 17;

    assert_ok(du_gguf_get_i64(g, "no", 0, 1, &v, &diag), &diag);
    assert_ok(du_gguf_get_f64(g, "no", &d, &diag), &diag);
    assert_ok(du_gguf_get_bool(g, "no", &flag, &diag), &diag);
    assert_ok(du_gguf_get_str(g, "no", &text, &diag), &diag);
    assert_ok(du_gguf_get_i32s(g, "no", 0, 1, &ints, &n, &diag), &diag);
    assert_ok(du_gguf_get_f32s(g, "no", &floats, &n, &diag), &diag);
    assert_ok(du_gguf_get_strs(g, "no", &texts, &n, &diag), &diag);

    assert_fails(du_gguf_get_i64(g, "a.u8", 0, 199, &v, &diag), DU_EFORMAT, &diag,
                 "f.gguf: a.u8: 200 is not between 0 and 199");
    assert_fails(du_gguf_get_i64(g, "a.u8", 201, 900, &v, &diag), DU_EFORMAT, &diag, "a.u8");
    assert_fails(du_gguf_get_i64(g, "a.u64", 0, INT64_MAX, &v, &diag), DU_EFORMAT, &diag, "a.u64");
    assert_fails(du_gguf_get_i64(g, "a.f32", 0, 9, &v, &diag), DU_EFORMAT, &diag,
                 "f.gguf: a.f32: not an integer below 2^63 (it has the type f32)");
    assert_fails(du_gguf_get_i64(g, "a.true", 0, 9, &v, &diag), DU_EFORMAT, &diag, "a.true");
    assert_fails(du_gguf_get_i64(g, "b.i32", -9, 9, &v, &diag), DU_EFORMAT, &diag, "array of i32");
    assert_fails(du_gguf_get_f64(g, "a.str", &d, &diag), DU_EFORMAT, &diag, "a.str");
    assert_fails(du_gguf_get_f64(g, "b.f32", &d, &diag), DU_EFORMAT, &diag, "b.f32");
    assert_fails(du_gguf_get_bool(g, "a.u8", &flag, &diag), DU_EFORMAT, &diag, "a.u8");
    assert_fails(du_gguf_get_bool(g, "b.bool", &flag, &diag), DU_EFORMAT, &diag, "b.bool");
    assert_fails(du_gguf_get_str(g, "a.u8", &text, &diag), DU_EFORMAT, &diag, "a.u8");
    assert_fails(du_gguf_get_str(g, "b.strs", &text, &diag), DU_EFORMAT, &diag, "b.strs");
    assert_fails(du_gguf_get_i32s(g, "b.i16", 0, 9, &ints, &n, &diag), DU_EFORMAT, &diag,
                 "b.i16: -1");
    assert_fails(du_gguf_get_i32s(g, "b.f32", 0, 9, &ints, &n, &diag), DU_EFORMAT, &diag, "b.f32");
    assert_fails(du_gguf_get_i32s(g, "a.u8", 0, 9, &ints, &n, &diag), DU_EFORMAT, &diag, "a.u8");
    assert_fails(du_gguf_get_f32s(g, "b.strs", &floats, &n, &diag), DU_EFORMAT, &diag, "b.strs");
    assert_fails(du_gguf_get_strs(g, "b.i32", &texts, &n, &diag), DU_EFORMAT, &diag, "b.i32");
    assert_fails(du_gguf_get_strs(g, "a.str", &texts, &n, &diag), DU_EFORMAT, &diag, "a.str");

    assert_true(v == 17 && d == 17 && flag && du_sv_is(text, "before") && n == 17);
    assert_true(!ints && !floats && !texts);
    du_gguf_close(g);
    du_str_done(&bytes);
}

static void one_value_stands_for_all_layers(void **state) {
    (void)state;
    du_str bytes = example_bytes();
    du_diag diag;
    du_gguf *g = NULL;
    assert_ok(du_gguf_parse(&g, bytes.data, bytes.len, "f.gguf", &diag), &diag);
    int64_t v[4] = {0};
    double d[4] = {0};
    assert_ok(du_gguf_get_i64_per_layer(g, "no", 0, 9, 3, v, &diag), &diag);
    assert_int_equal(v[0], 0);
    assert_ok(du_gguf_get_i64_per_layer(g, "a.u8", 0, 255, 3, v, &diag), &diag);
    assert_true(v[0] == 200 && v[1] == 200 && v[2] == 200 && v[3] == 0);
    assert_ok(du_gguf_get_i64_per_layer(g, "b.i16", -1, 32767, 3, v, &diag), &diag);
    assert_true(v[0] == -1 && v[1] == 0 && v[2] == 32767 && v[3] == 0);
    assert_ok(du_gguf_get_i64_per_layer(g, "b.bool", 0, 1, 3, v, &diag), &diag);
    assert_true(v[0] == 1 && v[1] == 0 && v[2] == 1);
    assert_fails(du_gguf_get_i64_per_layer(g, "b.i16", -1, 32767, 4, v, &diag), DU_EFORMAT, &diag,
                 "b.i16: 3 values, but the model has 4 layers");
    assert_fails(du_gguf_get_i64_per_layer(g, "b.i16", 0, 9, 3, v, &diag), DU_EFORMAT, &diag,
                 "b.i16: -1");
    assert_ok(du_gguf_get_f64_per_layer(g, "b.f32", 4, d, &diag), &diag);
    assert_true(d[0] == 0.5 && d[2] == 3);
    assert_ok(du_gguf_get_f64_per_layer(g, "a.f32", 4, d, &diag), &diag);
    assert_true(d[0] == 1.5 && d[3] == 1.5);
    du_gguf_close(g);
    du_str_done(&bytes);
}

static void hostile_headers_are_refused(void **state) {
    (void)state;
    du_str s = {0};
    assert_refused(&s, DU_EFORMAT, "not a GGUF file");
    du_str_add_s(&s, "GGU");
    assert_refused(&s, DU_EFORMAT, "not a GGUF file");
    du_str_add_s(&s, "GGML, some other file");
    assert_refused(&s, DU_EFORMAT, "not a GGUF file");
    du_str_add_s(&s, "GGUF");
    assert_refused(&s, DU_EFORMAT, "header: the file ends too early");
    add_head(&s, 1, 0, 0);
    assert_refused(&s, DU_EUNSUPPORTED, "GGUF version 1;");
    add_head(&s, 4, 0, 0);
    assert_refused(&s, DU_EUNSUPPORTED, "GGUF version 4;");
    add_head(&s, 0x03000000, 0, 0);
    assert_refused(&s, DU_EUNSUPPORTED, "big-endian");
    add_head(&s, 3, UINT64_MAX, 0);
    assert_refused(&s, DU_EFORMAT, "18446744073709551615 tensors do not fit");
    add_head(&s, 3, 0, UINT64_MAX / 16);
    assert_refused(&s, DU_EFORMAT, "keys do not fit");
    add_head(&s, 3, 0, DU_GGUF_KEYS_MAX + 1);
    du_str_reserve(&s, (size_t)DU_GGUF_KEYS_MAX * 20);
    memset(s.data + s.len, 0, (size_t)DU_GGUF_KEYS_MAX * 20);
    s.len += (size_t)DU_GGUF_KEYS_MAX * 20;
    assert_refused(&s, DU_ELIMIT, "65537 keys (at most 65536)");
}

static void hostile_keys_are_refused(void **state) {
    (void)state;
    du_str s = {0};
    add_head(&s, 3, 0, 1);
    add_u64(&s, UINT64_MAX);
    add_data(&s, 32);
    assert_refused(&s, DU_EFORMAT, "key 1 of 1: a string of 18446744073709551615 bytes");

    add_head(&s, 3, 0, 1);
    add_u64(&s, DU_GGUF_KEY_BYTES_MAX + 1);
    add_data(&s, DU_GGUF_KEY_BYTES_MAX + 100);
    assert_refused(&s, DU_ELIMIT, "key 1 of 1: a string of 65536 bytes");

    add_head(&s, 3, 0, 1);
    add_u64(&s, 200);
    add_data(&s, 64);
    assert_refused(&s, DU_EFORMAT, "key 1 of 1: the file ends too early");

    add_head(&s, 3, 0, 1);
    add_key_u32(&s, "", 1);
    assert_refused(&s, DU_EFORMAT, "key 1 of 1: its name is empty or holds a NUL");

    add_head(&s, 3, 0, 1);
    add_u64(&s, 3);
    du_str_add(&s, "a\0b\4\0\0\0\0\0\0\0", 11);
    assert_refused(&s, DU_EFORMAT, "holds a NUL");

    add_head(&s, 3, 0, 2);
    add_key_u32(&s, "twice", 1);
    add_key_u32(&s, "twice", 1);
    assert_refused(&s, DU_EFORMAT, "twice: the name occurs twice");

    add_head(&s, 3, 0, 1);
    add_str(&s, "odd");
    add_u32(&s, 13);
    add_u64(&s, 0);
    assert_refused(&s, DU_EFORMAT, "odd: value type 13 is unknown");

    add_head(&s, 3, 0, 1);
    add_str(&s, "nested");
    add_u32(&s, DU_GGUF_ARRAY);
    add_u32(&s, DU_GGUF_ARRAY);
    add_u64(&s, 1);
    assert_refused(&s, DU_EUNSUPPORTED, "nested: an array of arrays");

    static const uint64_t counts[] = {3, UINT64_MAX, UINT64_MAX / 8 + 2, 1u << 30};
    for (size_t i = 0; i < 4; i++) {
        add_head(&s, 3, 0, 1);
        add_str(&s, "large");
        add_u32(&s, DU_GGUF_ARRAY);
        add_u32(&s, DU_GGUF_U64);
        add_u64(&s, counts[i]);
        add_u64(&s, 1);
        add_u64(&s, 2);
        assert_refused(&s, DU_EFORMAT, "large: ");
    }
    for (size_t i = 0; i < 4; i++) {
        add_head(&s, 3, 0, 1);
        add_str(&s, "texts");
        add_u32(&s, DU_GGUF_ARRAY);
        add_u32(&s, DU_GGUF_STR);
        add_u64(&s, counts[i]);
        add_str(&s, "abcdefgh");
        add_u64(&s, UINT64_MAX - 5);
        assert_refused(&s, DU_EFORMAT, "texts: ");
    }
    add_head(&s, 3, 0, 1);
    add_str(&s, "general.alignment");
    add_u32(&s, DU_GGUF_STR);
    add_str(&s, "32");
    assert_refused(&s, DU_EFORMAT, "general.alignment: not an integer");

    static const uint32_t alignments[] = {0, 1, 4, 24, 1u << 17, UINT32_MAX};
    for (size_t i = 0; i < 6; i++) {
        add_head(&s, 3, 0, 1);
        add_key_u32(&s, "general.alignment", alignments[i]);
        assert_refused(&s, DU_EFORMAT, "general.alignment: ");
    }
}

/* A file of one tensor "t" described as told, with 64 bytes of data. */
static du_str one_tensor(uint64_t d0, uint64_t d1, uint32_t type, uint64_t offset) {
    du_str s = {0};
    add_head(&s, 3, 1, 0);
    add_tensor(&s, "t", d0, d1, type, offset);
    add_data(&s, 64);
    return s;
}

static void hostile_tensors_are_refused(void **state) {
    (void)state;
    static const struct {
        uint64_t d0, d1;
        uint32_t type;
        uint64_t offset;
        du_err code;
        const char *message;
    } cases[] = {
        {17, 0, 0, 0, DU_EFORMAT, "t: its 68 bytes at offset 0 reach beyond the end"},
        {16, 0, 0, 32, DU_EFORMAT, "reach beyond the end"},
        {1, 0, 0, 96, DU_EFORMAT, "reach beyond the end"},
        {1, 0, 0, UINT64_MAX - 31, DU_EFORMAT, "reach beyond the end"},
        {1, 0, 0, 1ull << 63, DU_EFORMAT, "reach beyond the end"},
        {1, 0, 0, 4, DU_EFORMAT, "offset 4 is no multiple of the alignment 32"},
        {0, 0, 0, 0, DU_EFORMAT, "t: its shape is zero, negative or too large"},
        {1ull << 63, 0, 0, 0, DU_EFORMAT, "its shape is zero, negative"},
        {UINT64_MAX, 1, 0, 0, DU_EFORMAT, "its shape is zero, negative"},
        {1ull << 32, 1ull << 32, 0, 0, DU_EFORMAT, "its shape is zero, negative or too large"},
        {1ull << 62, 1, 0, 0, DU_EFORMAT, "t: its size overflows"},
        {33, 0, 8, 0, DU_EFORMAT, "rows of 33 numbers are no multiple of Q8_0's block of 32"},
        {1, 32, 8, 0, DU_EFORMAT, "rows of 1 numbers"},
        {256, 1, 12, 0, DU_EFORMAT, "reach beyond the end"},
        {32, 0, 99, 0, DU_EUNSUPPORTED, "t: number type 99 is none that dure reads"},
        {32, 0, 4, 0, DU_EUNSUPPORTED, "number type 4 "},
        {32, 0, UINT32_MAX, 0, DU_EUNSUPPORTED, "number type 4294967295 "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        du_str s = one_tensor(cases[i].d0, cases[i].d1, cases[i].type, cases[i].offset);
        assert_refused(&s, cases[i].code, cases[i].message);
    }
    static const uint32_t n_dims[] = {0, 5, UINT32_MAX};
    for (size_t i = 0; i < 3; i++) {
        du_str s = {0};
        add_head(&s, 3, 1, 0);
        add_str(&s, "t");
        add_u32(&s, n_dims[i]);
        add_data(&s, 128);
        assert_refused(&s, DU_EFORMAT, "t: ");
    }
    du_str s = {0};
    add_head(&s, 3, 2, 0);
    add_tensor(&s, "t", 8, 0, 0, 0);
    add_tensor(&s, "t", 8, 0, 0, 32);
    add_data(&s, 64);
    assert_refused(&s, DU_EFORMAT, "t: the name occurs twice");

    add_head(&s, 3, 1, 0);
    char name[DU_GGUF_NAME_BYTES_MAX + 2];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    add_tensor(&s, name, 8, 0, 0, 0);
    add_data(&s, 64);
    assert_refused(&s, DU_ELIMIT, "tensor 1 of 1: a string of 256 bytes (at most 255)");
}

static void overlapping_tensors_are_refused(void **state) {
    (void)state;
    static const uint64_t second[] = {0, 32, 64};
    for (size_t i = 0; i < 3; i++) {
        du_str s = {0};
        add_head(&s, 3, 3, 0);
        add_tensor(&s, "first", 17, 0, 0, 32); /* to byte 100, whatever the order */
        add_tensor(&s, "second", 16, 0, 0, second[i]);
        add_tensor(&s, "far", 8, 0, 0, 128);
        add_data(&s, 160);
        assert_refused(&s, DU_EFORMAT, "its data overlaps");
    }
    du_str s = {0};
    add_head(&s, 3, 2, 0);
    add_tensor(&s, "behind", 8, 0, 0, 64);
    add_tensor(&s, "before", 16, 0, 0, 0);
    add_data(&s, 96);
    du_diag diag;
    du_gguf *g = NULL;
    void *block;
    assert_ok(parse(&g, &s, &block, &diag), &diag);
    assert_int_equal(*(const uint8_t *)du_gguf_tensor_find(g, "behind")->data, 64);
    assert_int_equal(*(const uint8_t *)du_gguf_tensor_find(g, "before")->data, 0);
    du_gguf_close(g);
    free(block);
    du_str_done(&s);
}

static void other_number_types_are_carried(void **state) {
    (void)state;
    static const struct {
        uint32_t type;
        const char *name;
        size_t bytes;
    } cases[] = {{24, "I8", 1}, {25, "I16", 2}, {26, "I32", 4}, {27, "I64", 8}, {28, "F64", 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        du_str s = one_tensor(4, 2, cases[i].type, 0);
        du_diag diag;
        du_gguf *g = NULL;
        void *block;
        assert_ok(parse(&g, &s, &block, &diag), &diag);
        const du_gguf_tensor *t = du_gguf_tensor_at(g, 0);
        assert_int_equal(t->dtype, DU_DTYPE_COUNT);
        assert_string_equal(t->type_name, cases[i].name);
        assert_int_equal(t->n_bytes, 8 * cases[i].bytes);
        du_gguf_close(g);
        free(block);
        du_str_done(&s);
    }
}

static void another_alignment_is_followed(void **state) {
    (void)state;
    du_str s = {0};
    add_head(&s, 3, 2, 1);
    add_key_u32(&s, "general.alignment", 256);
    add_tensor(&s, "a", 8, 0, 0, 0);
    add_tensor(&s, "b", 8, 0, 0, 256);
    assert_true(s.len < 256);
    while (s.len < 256) {
        du_str_add_c(&s, 0);
    }
    for (int i = 0; i < 288; i++) {
        du_str_add_c(&s, (char)(i / 32));
    }
    du_diag diag;
    du_gguf *g = NULL;
    void *block;
    assert_ok(parse(&g, &s, &block, &diag), &diag);
    assert_int_equal(du_gguf_tensor_find(g, "b")->offset, 512);
    assert_int_equal(*(const uint8_t *)du_gguf_tensor_find(g, "b")->data, 8);
    du_gguf_close(g);
    free(block);
    du_str_done(&s);
}

/* Every prefix of a file either fails with a reason or, short of padding only, is the file. */
static void truncated_files_are_refused(void **state) {
    (void)state;
    du_str whole = example_bytes();
    size_t padding = 0;
    while (whole.data[whole.len - 1 - padding] == 0) {
        padding++;
    }
    int64_t live = du_mem_get_stats().n_live;
    for (size_t len = 0; len < whole.len; len++) {
        du_str s = {.data = whole.data, .len = len};
        du_diag diag;
        du_diag_reset(&diag);
        du_gguf *g = NULL;
        void *block;
        du_err err = parse(&g, &s, &block, &diag);
        if (len + padding < whole.len) {
            assert_int_equal(err, DU_EFORMAT);
            assert_null(g);
            assert_int_equal(diag.code, DU_EFORMAT);
        } else {
            assert_int_equal(err, DU_OK);
        }
        du_gguf_close(g);
        free(block);
    }
    assert_int_equal(du_mem_get_stats().n_live, live);
    du_str_done(&whole);
}

/* Reads everything that the handle gives access to. */
static void touch_all(const du_gguf *g, const uint8_t *bytes, size_t len) {
    uint64_t sum = 0;
    for (int64_t i = 0; i < du_gguf_n_keys(g); i++) {
        const du_gguf_kv *kv = du_gguf_key(g, i);
        assert_true(kv->bytes >= bytes && kv->bytes + kv->n_bytes <= bytes + len);
        assert_ptr_equal(du_gguf_key_find(g, kv->name), kv);
        du_sv *texts = NULL;
        int64_t n = 0;
        if (du_gguf_get_strs(g, kv->name, &texts, &n, NULL) == DU_OK) {
            for (int64_t j = 0; j < n; j++) {
                sum += texts[j].len ? (uint8_t)texts[j].s[texts[j].len - 1] : 0;
            }
            du_free(texts);
        }
    }
    for (int64_t i = 0; i < du_gguf_n_tensors(g); i++) {
        const du_gguf_tensor *t = du_gguf_tensor_at(g, i);
        const uint8_t *data = t->data;
        assert_true(t->n_bytes > 0 && data >= bytes && data + t->n_bytes <= bytes + len);
        sum += data[0] + data[t->n_bytes - 1];
    }
    assert_true(sum < UINT64_MAX); /* used, so that the reads stay */
}

/* A file with any one byte changed parses or fails, and never leads outside itself. */
static void damaged_files_do_no_harm(void **state) {
    (void)state;
    du_str s = example_bytes();
    static const uint8_t changes[] = {0x01, 0x80, 0xff};
    int64_t live = du_mem_get_stats().n_live;
    for (size_t i = 0; i < s.len - BYTES_ALL; i++) {
        for (size_t j = 0; j < sizeof changes; j++) {
            s.data[i] = (char)((uint8_t)s.data[i] ^ changes[j]);
            du_gguf *g = NULL;
            void *block;
            if (parse(&g, &s, &block, NULL) == DU_OK) {
                touch_all(g, block, s.len);
            }
            du_gguf_close(g);
            free(block);
            s.data[i] = (char)((uint8_t)s.data[i] ^ changes[j]);
        }
    }
    assert_int_equal(du_mem_get_stats().n_live, live);
    du_str_done(&s);
}

static void a_part_alone_is_refused_in_memory(void **state) {
    (void)state;
    du_str s = {0};
    add_head(&s, 3, 0, 1);
    add_key_u32(&s, "split.count", 2);
    assert_refused(&s, DU_EFORMAT, "one of 2 parts of a model");
}

static void writer_survives_failed_allocations(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    const char *path = test_tmp_file(&tmp, "a.gguf");
    int64_t live = du_mem_get_stats().n_live;
    int n = 1;
    for (bool written = false; !written; n++) {
        du_diag diag;
        du_diag_reset(&diag);
        du_mem_fail_at(n, false);
        du_err err = write_example(path, 100, &diag);
        written = err == DU_OK;
        du_mem_fail_at(0, false);
        if (!written) {
            assert_int_equal(err, DU_ENOMEM);
        }
        assert_int_equal(test_tmp_count(&tmp), written);
        assert_int_equal(du_mem_get_stats().n_live, live);
    }
    assert_true(n > 30);
    test_tmp_remove(&tmp);
}

static void a_full_disk_leaves_the_old_file(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    const char *path = test_tmp_file(&tmp, "a.gguf");
    test_tmp_write(&tmp, "a.gguf", "old", 3);
    du_diag diag;
    du_diag_reset(&diag);
    test_limit_files(1000);
    du_err err = write_example(path, 100, &diag);
    test_limit_files(-1);
    assert_int_equal(err, DU_EIO);
    assert_non_null(strstr(diag.msg, "a.gguf: cannot write it: File too large"));
    char *bytes;
    assert_ok(du_file_read(&bytes, NULL, path, 100, &diag), &diag);
    assert_string_equal(bytes, "old");
    du_free(bytes);
    assert_int_equal(test_tmp_count(&tmp), 1);
    test_tmp_remove(&tmp);
}

static void refuse_tensor(const char *name, du_dtype dtype, int32_t n_dims, const int64_t *dims,
                          const char *message) {
    du_diag diag;
    du_diag_reset(&diag);
    du_gguf_writer *w = NULL;
    assert_ok(du_gguf_writer_new(&w, &diag), &diag);
    du_gguf_put_tensor(w, "a", DU_F32, 1, dims_a);
    du_gguf_put_tensor(w, name, dtype, n_dims, dims);
    assert_fails(du_gguf_writer_begin(w, "/tmp/never-written.gguf", &diag), DU_EINVAL, &diag,
                 message);
    du_gguf_writer_close(w);
}

static void writer_refuses_what_is_no_gguf(void **state) {
    (void)state;
    static const int64_t negative[2] = {4, -1}, huge[2] = {INT64_MAX, 4}, odd[1] = {33};
    static const int64_t five[5] = {1, 1, 1, 1, 1};
    char name[65];
    memset(name, 'n', 64);
    name[64] = '\0';
    refuse_tensor("a", DU_F32, 1, dims_a, "a: exists already");
    refuse_tensor("t", DU_F32, 2, negative, "t: no shape for a tensor of F32");
    refuse_tensor("t", DU_F32, 2, huge, "no shape");
    refuse_tensor("t", DU_F32, 5, five, "no shape");
    refuse_tensor("t", DU_F32, 0, five, "no shape");
    refuse_tensor("t", DU_Q4_0, 1, odd, "no shape for a tensor of Q4_0");
    refuse_tensor("t", DU_F8_E4M3, 1, odd, "GGUF has no number type F8_E4M3");
    refuse_tensor("", DU_F32, 1, odd, "a tensor's name has 1 to 63 bytes");
    refuse_tensor(name, DU_F32, 1, odd, "a tensor's name has 1 to 63 bytes");

    du_diag diag;
    du_diag_reset(&diag);
    du_gguf_writer *w = NULL;
    assert_ok(du_gguf_writer_new(&w, &diag), &diag);
    du_gguf_put_u32(w, "general.alignment", 64);
    assert_fails(du_gguf_writer_begin(w, "/tmp/never-written.gguf", &diag), DU_EINVAL, &diag,
                 "general.alignment");
    du_gguf_writer_close(w);
}

static void unfinished_files_do_not_remain(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    uint8_t data[BYTES_ALL + 1] = {0};
    static const size_t sizes[] = {0, BYTES_A, BYTES_ALL - 1, BYTES_ALL + 1};
    for (size_t i = 0; i < 4; i++) {
        du_diag diag;
        du_diag_reset(&diag);
        du_gguf_writer *w = NULL;
        assert_ok(du_gguf_writer_new(&w, &diag), &diag);
        put_tensors(w);
        assert_ok(du_gguf_writer_begin(w, test_tmp_file(&tmp, "a.gguf"), &diag), &diag);
        du_gguf_write(w, data, sizes[i]);
        assert_int_equal(du_gguf_writer_failed(w), i == 3);
        assert_fails(du_gguf_writer_commit(w, &diag), DU_EINVAL, &diag,
                     i == 3 ? "more tensor data than declared" : "its data is missing");
        assert_false(du_file_exists(test_tmp_file(&tmp, "a.gguf")));
        du_gguf_writer_close(w);
        assert_int_equal(test_tmp_count(&tmp), 0);
    }
    test_tmp_remove(&tmp);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(copied_keys_are_the_same),
        cmocka_unit_test(version_2_is_read),
        cmocka_unit_test(getters_check_type_and_range),
        cmocka_unit_test(one_value_stands_for_all_layers),
        cmocka_unit_test(hostile_headers_are_refused),
        cmocka_unit_test(hostile_keys_are_refused),
        cmocka_unit_test(hostile_tensors_are_refused),
        cmocka_unit_test(overlapping_tensors_are_refused),
        cmocka_unit_test(other_number_types_are_carried),
        cmocka_unit_test(another_alignment_is_followed),
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(damaged_files_do_no_harm),
        cmocka_unit_test(a_part_alone_is_refused_in_memory),
        cmocka_unit_test(writer_survives_failed_allocations),
        cmocka_unit_test(a_full_disk_leaves_the_old_file),
        cmocka_unit_test(writer_refuses_what_is_no_gguf),
        cmocka_unit_test(unfinished_files_do_not_remain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
