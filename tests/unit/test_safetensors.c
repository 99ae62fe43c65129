#include "test.h"
#include "tmp.h"

#include "base/json.h"
#include "base/str.h"
#include "formats/safetensors.h"

/* A file with this header (padded as told) and n bytes 0, 1, 2, ... of data. */
static du_str file_of(const char *header, size_t pad, size_t n) {
    du_str s = {0};
    uint64_t len = strlen(header) + pad;
    du_str_add(&s, &len, sizeof len);
    du_str_add_s(&s, header);
    while (pad--) {
        du_str_add_c(&s, ' ');
    }
    for (size_t i = 0; i < n; i++) {
        du_str_add_c(&s, (char)i);
    }
    assert_false(s.failed);
    return s;
}

/* Parses a copy that ends where its block ends, for the sanitizer to see reads beyond. */
static du_err parse(du_st **st, const du_str *s, void **block, du_diag *diag) {
    *block = malloc(s->len ? s->len : 1);
    assert_non_null(*block);
    memcpy(*block, du_str_get(s), s->len);
    return du_st_parse(st, *block, s->len, "f.safetensors", diag);
}

static void assert_refused(du_str s, du_err code, const char *message) {
    du_diag diag;
    du_st *st = NULL;
    void *block;
    int64_t live = du_mem_get_stats().n_live;
    assert_fails(parse(&st, &s, &block, &diag), code, &diag, message);
    assert_true(strncmp(diag.msg, "f.safetensors: ", 15) == 0);
    assert_null(st);
    assert_int_equal(du_mem_get_stats().n_live, live);
    free(block);
    du_str_done(&s);
}

#define ENTRY(name, dtype, shape, offsets)                                                         \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void a_file_is_read(void **state) {
    (void)state;
    du_str s = file_of(
        "{\"__metadata__\":{\"format\":\"pt\",\"x\":\"{[,\\\"\"}," ENTRY(
            "second", "BF16", "[2, 3]", "[16,28]") " ,\n " ENTRY("first", "F32", "[4]",
                                                                 "[0,16]") ","
        /* a name with escapes, a scalar, an empty tensor, one byte of each rest */
        ENTRY("\\uc790/\\\"b\\\"", "I64", "[]", "[28,36]") "," ENTRY(
            "none", "F32", "[0,7]", "[36,36]") "," ENTRY("bits", "BOOL", "[3]", "[36,39]") "}",
        5, 39);
    du_diag diag;
    du_st *st = NULL;
    void *block;
    assert_ok(parse(&st, &s, &block, &diag), &diag);
    assert_int_equal(du_st_n_tensors(st), 5);
    assert_int_equal(du_st_n_shards(st), 1);
    assert_int_equal(du_st_file_bytes(st), s.len);
    assert_string_equal(du_st_tensor_at(st, 0)->name, "first");

    const du_st_tensor *t = du_st_tensor_find(st, "second");
    assert_ptr_equal(t, du_st_tensor_at(st, 1));
    assert_string_equal(t->type_name, "BF16");
    assert_int_equal(t->dtype, DU_BF16);
    assert_int_equal(t->elem_bytes, 2);
    assert_int_equal(t->n_dims, 2);
    assert_true(t->dims[0] == 2 && t->dims[1] == 3 && t->dims[2] == 1);
    assert_int_equal(t->n_bytes, 12);
    assert_int_equal(*(const uint8_t *)t->data, 16);
    assert_int_equal(t->offset, s.len - 39 + 16);

    t = du_st_tensor_find(st, "자/\"b\"");
    assert_non_null(t);
    assert_int_equal(t->n_dims, 0);
    assert_int_equal(t->dtype, DU_DTYPE_COUNT);
    assert_int_equal(*(const uint8_t *)t->data, 28);
    assert_int_equal(du_st_tensor_find(st, "none")->n_bytes, 0);
    assert_int_equal(*(const uint8_t *)du_st_tensor_find(st, "bits")->data, 36);
    assert_null(du_st_tensor_find(st, "third"));
    assert_null(du_st_tensor_find(st, "__metadata__"));
    du_st_close(st);
    free(block);
    du_str_done(&s);
}

static void every_number_type_has_its_size(void **state) {
    (void)state;
#define TYPE_ROW(name, bytes, dtype) {name, bytes, dtype},
    static const struct {
        const char *name;
        int bytes;
        du_dtype dtype;
    } types[] = {DU_ST_TYPE_LIST(TYPE_ROW)};
#undef TYPE_ROW
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char header[128];
        snprintf(header, sizeof header, "{" ENTRY("t", "%s", "[3]", "[0,%d]") "}", types[i].name,
                 3 * types[i].bytes);
        du_str s = file_of(header, 0, 3 * (size_t)types[i].bytes);
        du_diag diag;
        du_st *st = NULL;
        void *block;
        assert_ok(parse(&st, &s, &block, &diag), &diag);
        assert_int_equal(du_st_tensor_at(st, 0)->dtype, types[i].dtype);
        du_st_close(st);
        free(block);
        du_str_done(&s);
    }
}

static void hostile_sizes_are_refused(void **state) {
    (void)state;
    du_str s = {0};
    assert_refused(s, DU_EFORMAT, "shorter than 8 bytes");
    du_str_add(&s, "\1\0\0\0\0\0\0", 7);
    assert_refused(s, DU_EFORMAT, "shorter than 8 bytes");
    static const uint64_t lens[] = {1, 1u << 30, UINT64_MAX, UINT64_MAX - 7, 1ull << 63};
    for (size_t i = 0; i < 5; i++) {
        s = (du_str){0};
        du_str_add(&s, &lens[i], 8);
        assert_refused(s, DU_EFORMAT, "a header of ");
    }
    s = (du_str){0};
    uint64_t large = DU_ST_HEADER_BYTES_MAX + 1;
    du_str_add(&s, &large, 8);
    du_str_reserve(&s, large);
    memset(s.data + 8, ' ', large);
    s.len += large;
    assert_refused(s, DU_ELIMIT, "a header of 100000001 bytes (at most 100000000)");
}

static void hostile_headers_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *header, *message;
        du_err code;
    } cases[] = {
        {"", "header: JSON: an object expected", DU_EFORMAT},
        {"[]", "an object expected", DU_EFORMAT},
        {"{", "a name expected", DU_EFORMAT},
        {"{}x", "the end of the text expected", DU_EFORMAT},
        {"{,}", "a name expected", DU_EFORMAT},
        {"{\"a", "'}' expected", DU_EFORMAT},
        {"{\"a\\", "'}' expected", DU_EFORMAT},
        {"{\"a\":{\"dtype\":\"F32\"", "'}' expected", DU_EFORMAT},
        {"{\"a\":1]}", "'}' expected", DU_EFORMAT},
        {"{\"a\" 1}", "header: entry at byte 9", DU_EFORMAT},
        {"{\"a\":1 \"b\":2}", "header: entry at byte 9", DU_EFORMAT},
        {"{\"a\":1}", "a: no dtype", DU_EFORMAT},
        {"{\"a\":null}", "a: no dtype", DU_EFORMAT},
        {"{\"a\":{\"dtype\":7}}", "a: no dtype", DU_EFORMAT},
        {"{\"\xff\":{}}", "entry at byte 9", DU_EFORMAT},
        {"{" ENTRY("", "F32", "[1]", "[0,4]") "}", "name of 0 bytes", DU_EFORMAT},
        {"{" ENTRY("a\\u0000b", "F32", "[1]", "[0,4]") "}", "entry at byte 9", DU_EFORMAT},
        {"{" ENTRY("a", "F4", "[1]", "[0,4]") "}", "a: number type F4 is none that dure reads",
         DU_EUNSUPPORTED},
        {"{" ENTRY("a", "F32", "4", "[0,4]") "}", "a: its shape is no list", DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", "a: its shape is no list",
         DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[-1]", "[0,4]") "}", "a: its shape holds something other",
         DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[1.0]", "[0,4]") "}", "a: its shape holds", DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[[1]]", "[0,4]") "}", "a: its shape holds", DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[4611686018427387904]", "[0,0]") "}", "a: its size overflows",
         DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[4294967296,4294967296]", "[0,0]") "}", "a: its size overflows",
         DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[99999999999999999999]", "[0,4]") "}",
         "a: its shape holds something other than counts", DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[1]", "[0]") "}", "a: its data_offsets are no begin and end",
         DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[1]", "[0,4,8]") "}", "a: its data_offsets", DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[1]", "[4,0]") "}", "a: its data_offsets", DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[1]", "[-4,0]") "}", "a: its data_offsets", DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[1]", "{}") "}", "a: its data_offsets", DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[2]", "[0,4]") "}",
         "a: 4 bytes of data, but its shape and type "
         "F32 need 8",
         DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[5]", "[0,20]") "}", "a: its data ends at 20, beyond the file's 16",
         DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[4]", "[9223372036854775791,9223372036854775807]") "}",
         "beyond the file's 16", DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[3]", "[0,12]") "}", "4 bytes of data belong to no tensor",
         DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[3]", "[4,16]") "}", "a: its data begins behind a hole",
         DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[1]", "[0,4]") "," ENTRY("b", "F32", "[2]", "[8,16]") "}",
         "b: its data begins behind a hole", DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[3]", "[0,12]") "," ENTRY("b", "F32", "[2]", "[8,16]") "}",
         "b: its data overlaps another tensor's", DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[4]", "[0,16]") "," ENTRY("b", "F32", "[1]", "[4,8]") "}",
         "b: its data overlaps", DU_EFORMAT},
        {"{" ENTRY("a", "F32", "[2]", "[0,8]") "," ENTRY("a", "F32", "[2]", "[8,16]") "}",
         "a: the name occurs twice", DU_EFORMAT},
        {"{\"__metadata__\":{}}", "16 bytes of data belong to no tensor", DU_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_refused(file_of(cases[i].header, 0, 16), cases[i].code, cases[i].message);
    }
    char name[DU_ST_NAME_BYTES_MAX + 2], header[2 * DU_ST_NAME_BYTES_MAX];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(header, sizeof header, "{" ENTRY("%s", "F32", "[4]", "[0,16]") "}", name);
    assert_refused(file_of(header, 0, 16), DU_ELIMIT, "a tensor's name of 1025 bytes");
}

/* What the header's JSON nests or repeats is neither parsed as a whole nor followed deeply. */
static void hostile_json_is_bounded(void **state) {
    (void)state;
    du_str header = {0};
    du_str_add_s(&header, "{\"a\":");
    for (int i = 0; i < 100000; i++) {
        du_str_add_c(&header, '[');
    }
    du_str nested = file_of(header.data, 0, 0);
    assert_refused(nested, DU_EFORMAT, "'}' expected");
    for (int i = 0; i < 100000; i++) {
        du_str_add_c(&header, ']');
    }
    du_str_add_c(&header, '}');
    assert_refused(file_of(header.data, 0, 0), DU_ELIMIT, "an entry of 200004 bytes");
    du_str_reset(&header);
    du_str_add_s(&header, "{\"a\":");
    for (int i = 0; i < 1000; i++) {
        du_str_add_c(&header, '[');
    }
    for (int i = 0; i < 1000; i++) {
        du_str_add_c(&header, ']');
    }
    du_str_add_c(&header, '}');
    assert_refused(file_of(header.data, 0, 0), DU_ELIMIT, "levels deep");
    du_str_done(&header);
}

static const char example[] =
    "{" ENTRY("a", "F32", "[2,2]", "[0,16]") "," ENTRY("b", "F16", "[4]", "[16,24]") "}";

static void truncated_files_are_refused(void **state) {
    (void)state;
    du_str whole = file_of(example, 0, 24);
    int64_t live = du_mem_get_stats().n_live;
    for (size_t len = 0; len < whole.len; len++) {
        du_str s = {.data = whole.data, .len = len};
        du_st *st = NULL;
        void *block;
        assert_int_equal(parse(&st, &s, &block, NULL), DU_EFORMAT);
        free(block);
    }
    assert_int_equal(du_mem_get_stats().n_live, live);
    du_str_done(&whole);
}

static void damaged_files_do_no_harm(void **state) {
    (void)state;
    du_str s = file_of(example, 0, 24);
    static const uint8_t changes[] = {0x01, 0x02, 0x04, 0x10, 0x80, 0xff};
    int64_t live = du_mem_get_stats().n_live;
    for (size_t i = 0; i < s.len - 24; i++) {
        for (size_t j = 0; j < sizeof changes; j++) {
            s.data[i] = (char)((uint8_t)s.data[i] ^ changes[j]);
            du_st *st = NULL;
            void *block;
            if (parse(&st, &s, &block, NULL) == DU_OK) {
                size_t sum = 0;
                for (int64_t k = 0; k < du_st_n_tensors(st); k++) {
                    const du_st_tensor *t = du_st_tensor_at(st, k);
                    assert_true((const uint8_t *)t->data >= (const uint8_t *)block);
                    assert_true(t->offset >= 0 && (size_t)t->offset + t->n_bytes <= s.len);
                    sum += t->n_bytes;
                }
                assert_int_equal(sum, 24);
            }
            du_st_close(st);
            free(block);
            s.data[i] = (char)((uint8_t)s.data[i] ^ changes[j]);
        }
    }
    assert_int_equal(du_mem_get_stats().n_live, live);
    du_str_done(&s);
}

/* Two shards and an index that is this text. */
static test_tmp make_shards(const char *index) {
    test_tmp tmp = test_tmp_make();
    du_str one = file_of(
        "{" ENTRY("a", "F32", "[1]", "[0,4]") "," ENTRY("b", "F32", "[1]", "[4,8]") "}", 0, 8);
    du_str two = file_of("{" ENTRY("c", "F32", "[1]", "[0,4]") "}", 0, 4);
    test_tmp_write(&tmp, "one.safetensors", one.data, one.len);
    test_tmp_write(&tmp, "two.safetensors", two.data, two.len);
    test_tmp_write(&tmp, "x.index.json", index, strlen(index));
    du_str_done(&one);
    du_str_done(&two);
    return tmp;
}

static const char good_index[] =
    "{\"metadata\": {\"total_size\": 12}, \"weight_map\" : {\"c\": \"two.safetensors\",\n"
    "\"a\": \"one.safetensors\", \"b\": \"one.safetensors\"}}";

static void shards_are_read_as_one(void **state) {
    (void)state;
    test_tmp tmp = make_shards(good_index);
    du_diag diag;
    du_st *st = NULL;
    const char *path = test_tmp_file(&tmp, "x.index.json");
    assert_ok(du_st_open(&st, path, &diag), &diag);
    assert_string_equal(du_st_path(st), path);
    assert_int_equal(du_st_n_shards(st), 2);
    assert_int_equal(du_st_n_tensors(st), 3);
    assert_int_equal(du_st_tensor_find(st, "c")->i_shard, 0);
    assert_int_equal(du_st_tensor_find(st, "b")->i_shard, 1);
    assert_int_equal(*(const uint8_t *)du_st_tensor_find(st, "b")->data, 4);
    du_st_close(st);
    test_tmp_remove(&tmp);
}

static void broken_indexes_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *index, *message;
        du_err code;
    } cases[] = {
        {"", "an object expected", DU_EFORMAT},
        {"{}", "x.index.json: no weight_map", DU_EFORMAT},
        {"{\"weight_map\":{}}", "its weight_map is empty", DU_EFORMAT},
        {"{\"weight_map\":[]}", "an object expected", DU_EFORMAT},
        {"{\"weight_map\" {}}", "weight_map: twice, or without a value", DU_EFORMAT},
        {"{\"weight_map\":{},\"weight_map\":{}}", "weight_map: twice", DU_EFORMAT},
        {"{\"weight_map\":{\"a\":1}}", "a: lies in something that is no .safetensors file",
         DU_EFORMAT},
        {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", "a: lies in something", DU_EFORMAT},
        {"{\"weight_map\":{\"a\":\"x.index.json\"}}", "a: lies in something", DU_EFORMAT},
        {"{\"weight_map\":{\"a\":\"six.safetensors\"}}", "six.safetensors: cannot open it",
         DU_ENOENT},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"d\":\"one.safetensors\"}}",
         "x.index.json: d: not in one.safetensors", DU_EFORMAT},
        {"{\"weight_map\":{\"a\":\"two.safetensors\",\"b\":\"one.safetensors\"}}",
         "x.index.json: a: not in two.safetensors", DU_EFORMAT},
        {"{\"weight_map\":{\"a\":\"one.safetensors\"", "'}' expected", DU_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_tmp tmp = make_shards(cases[i].index);
        du_diag diag;
        du_st *st = NULL;
        int64_t live = du_mem_get_stats().n_live;
        assert_fails(du_st_open(&st, test_tmp_file(&tmp, "x.index.json"), &diag), cases[i].code,
                     &diag, cases[i].message);
        assert_null(st);
        assert_int_equal(du_mem_get_stats().n_live, live);
        test_tmp_remove(&tmp);
    }
    test_tmp tmp = make_shards("{\"weight_map\":{\"c\":\"two.safetensors\","
                               "\"d\":\"again.safetensors\"}}");
    du_str again = file_of("{" ENTRY("c", "F32", "[1]", "[0,4]") "}", 0, 4);
    test_tmp_write(&tmp, "again.safetensors", again.data, again.len);
    du_diag diag;
    du_st *st = NULL;
    assert_fails(du_st_open(&st, test_tmp_file(&tmp, "x.index.json"), &diag), DU_EFORMAT, &diag,
                 "again.safetensors: c: the name occurs twice");
    du_str_done(&again);
    test_tmp_remove(&tmp);
}

static void failed_allocations_are_survived(void **state) {
    (void)state;
    test_tmp tmp = make_shards(good_index);
    const char *path = test_tmp_file(&tmp, "x.index.json");
    int64_t live = du_mem_get_stats().n_live;
    int n = 1;
    for (bool opened = false; !opened; n++) {
        du_diag diag;
        du_diag_reset(&diag);
        du_st *st = NULL;
        du_mem_fail_at(n, false);
        du_err err = du_st_open(&st, path, &diag);
        opened = err == DU_OK;
        du_mem_fail_at(0, false);
        if (!opened) {
            assert_int_equal(err, DU_ENOMEM);
            assert_null(st);
        }
        du_st_close(st);
        assert_int_equal(du_mem_get_stats().n_live, live);
    }
    assert_true(n > 20);
    test_tmp_remove(&tmp);
}

/* The tensors of the writer's tests: 40 bytes of F8, 24 of F32, none, 4 of BF16, 6 of F16. */
enum { N_WRITTEN = 5 };
static const struct {
    const char *name;
    du_dtype dtype;
    int32_t n_dims;
    int64_t dims[2];
    size_t n_bytes;
} written[N_WRITTEN] = {
    {"w.weight", DU_F8_E4M3, 2, {5, 8}, 40},
    {"w.weight_scale_inv", DU_F32, 2, {2, 3}, 24},
    {"empty", DU_F32, 1, {0}, 0},
    {"scalars", DU_BF16, 1, {2}, 4},
    {"h", DU_F16, 1, {3}, 6},
};

static uint8_t byte_of(int64_t i_tensor, size_t i) {
    return (uint8_t)(i_tensor * 50 + (int64_t)i);
}

/* Writes them in pieces; stop_at: tensor after which nothing more comes (N_WRITTEN: none). */
static du_err write_all(const char *dir, int64_t shard_bytes, int stop_at, du_diag *diag) {
    du_st_writer *w = NULL;
    du_err err = du_st_writer_new(&w, diag);
    if (err == DU_OK) {
        for (int i = 0; i < N_WRITTEN; i++) {
            du_st_put_tensor(w, written[i].name, written[i].dtype, written[i].n_dims,
                             written[i].dims);
        }
        err = du_st_writer_begin(w, dir, shard_bytes, diag);
    }
    int64_t i;
    for (int n = 0; err == DU_OK && n < stop_at && (i = du_st_writer_next(w)) >= 0; n++) {
        for (size_t j = 0; j < written[i].n_bytes; j++) {
            uint8_t byte = byte_of(i, j);
            du_st_write(w, &byte, 1);
        }
    }
    if (err == DU_OK) {
        err = du_st_writer_commit(w, diag);
    }
    du_st_writer_close(w);
    return err;
}

static void what_is_written_is_read(void **state) {
    (void)state;
    static const struct {
        int64_t shard_bytes;
        int32_t n_shards;
    } cases[] = {{DU_ST_SHARD_BYTES, 1}, {74, 1}, {73, 2}, {64, 2}, {63, 2}, {34, 2}, {1, 4}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        test_tmp tmp = test_tmp_make();
        du_diag diag;
        du_diag_reset(&diag);
        du_st *st = NULL;
        assert_ok(write_all(tmp.path, cases[k].shard_bytes, N_WRITTEN, &diag), &diag);
        assert_int_equal(test_tmp_count(&tmp), cases[k].n_shards == 1 ? 1 : cases[k].n_shards + 1);
        const char *name =
            cases[k].n_shards == 1 ? "model.safetensors" : "model.safetensors.index.json";
        assert_ok(du_st_open(&st, test_tmp_file(&tmp, name), &diag), &diag);
        assert_int_equal(du_st_n_shards(st), cases[k].n_shards);
        assert_int_equal(du_st_n_tensors(st), N_WRITTEN);
        for (int i = 0; i < N_WRITTEN; i++) {
            const du_st_tensor *t = du_st_tensor_find(st, written[i].name);
            assert_non_null(t);
            assert_int_equal(t->dtype, written[i].dtype);
            assert_int_equal(t->n_dims, written[i].n_dims);
            assert_memory_equal(t->dims, written[i].dims, (size_t)t->n_dims * sizeof *t->dims);
            assert_int_equal(t->n_bytes, written[i].n_bytes);
            assert_int_equal((uintptr_t)t->data % t->elem_bytes, 0);
            for (size_t j = 0; j < t->n_bytes; j++) {
                assert_int_equal(((const uint8_t *)t->data)[j], byte_of(i, j));
            }
        }
        du_st_close(st);
        test_tmp_remove(&tmp);
    }
}

static void unfinished_files_do_not_remain(void **state) {
    (void)state;
    for (int stop_at = 0; stop_at < N_WRITTEN; stop_at++) {
        test_tmp tmp = test_tmp_make();
        du_diag diag;
        assert_fails(write_all(tmp.path, DU_ST_SHARD_BYTES, stop_at, &diag), DU_EINVAL, &diag,
                     "its data is missing");
        assert_int_equal(test_tmp_count(&tmp), 0);
        test_tmp_remove(&tmp);
    }
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    du_diag_reset(&diag);
    assert_fails(write_all(test_tmp_file(&tmp, "absent"), 5, N_WRITTEN, &diag), DU_ENOENT, &diag,
                 "absent/model-00001-of-00004.safetensors: cannot create it");
    test_tmp_remove(&tmp);
}

static void a_full_disk_leaves_no_file(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    du_diag_reset(&diag);
    test_limit_files(64);
    du_err err = write_all(tmp.path, 34, N_WRITTEN, &diag);
    test_limit_files(-1);
    assert_int_equal(err, DU_EIO);
    assert_non_null(strstr(diag.msg, "/model-00001-of-00002.safetensors: cannot write it"));
    assert_int_equal(test_tmp_count(&tmp), 0);
    test_tmp_remove(&tmp);
}

static void wrong_sizes_are_refused(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    const uint8_t bytes[5] = {0};
    const int64_t dims[1] = {4};
    for (size_t n = 0; n < 6; n++) {
        du_diag diag;
        du_diag_reset(&diag);
        du_st_writer *w = NULL;
        assert_ok(du_st_writer_new(&w, &diag), &diag);
        du_st_put_tensor(w, "a", DU_F8_E4M3, 1, dims);
        du_st_put_tensor(w, "b", DU_F8_E4M3, 1, dims);
        assert_ok(du_st_writer_begin(w, tmp.path, 100, &diag), &diag);
        assert_int_equal(du_st_writer_next(w), 0);
        du_st_write(w, bytes, n);
        assert_int_equal(du_st_writer_next(w), n == 4 ? 1 : -1);
        assert_fails(du_st_writer_commit(w, &diag), DU_EINVAL, &diag,
                     n > 4   ? "a: more bytes than its shape needs"
                     : n < 4 ? "a: "
                             : "b: 0 bytes written of 4");
        du_st_writer_close(w);
        assert_int_equal(test_tmp_count(&tmp), 0);
    }
    test_tmp_remove(&tmp);
}

static void refuse_tensor(const char *name, du_dtype dtype, int32_t n_dims, int64_t dim,
                          const char *message) {
    const int64_t dims[DU_ST_DIMS_MAX + 1] = {dim, 4, 1, 1, 1, 1, 1, 1, 1};
    du_diag diag;
    du_diag_reset(&diag);
    du_st_writer *w = NULL;
    assert_ok(du_st_writer_new(&w, &diag), &diag);
    du_st_put_tensor(w, "a", DU_F32, 0, NULL);
    du_st_put_tensor(w, name, dtype, n_dims, dims);
    assert_fails(du_st_writer_begin(w, "/nowhere", 100, &diag), DU_EINVAL, &diag, message);
    du_st_writer_close(w);
}

static void writer_refuses_what_is_no_safetensors(void **state) {
    (void)state;
    refuse_tensor("a", DU_F32, 1, 1, "a: exists already");
    refuse_tensor("", DU_F32, 1, 1, "no name for one");
    refuse_tensor("__metadata__", DU_F32, 1, 1, "no name for one");
    refuse_tensor("a\"b", DU_F32, 1, 1, "no name for one");
    refuse_tensor("자", DU_F32, 1, 1, "no name for one");
    refuse_tensor("t", DU_Q4_0, 1, 32, "t: safetensors has no number type Q4_0");
    refuse_tensor("t", DU_F32, 1, -1, "t: no shape");
    refuse_tensor("t", DU_F32, 2, INT64_MAX, "t: no shape");
    refuse_tensor("t", DU_F32, DU_ST_DIMS_MAX + 1, 1, "t: no shape");
    refuse_tensor("t", DU_F32, -1, 1, "t: no shape");
    du_diag diag;
    du_diag_reset(&diag);
    du_st_writer *w = NULL;
    assert_ok(du_st_writer_new(&w, &diag), &diag);
    assert_fails(du_st_writer_begin(w, "/nowhere", 100, &diag), DU_EINVAL, &diag, "no tensors");
    du_st_writer_close(w);
}

static void writer_survives_failed_allocations(void **state) {
    (void)state;
    int64_t live = du_mem_get_stats().n_live;
    int n = 1;
    for (bool done = false; !done; n++) {
        test_tmp tmp = test_tmp_make();
        du_diag diag;
        du_diag_reset(&diag);
        du_mem_fail_at(n, false);
        du_err err = write_all(tmp.path, 34, N_WRITTEN, &diag);
        done = err == DU_OK;
        du_mem_fail_at(0, false);
        if (!done) {
            assert_int_equal(err, DU_ENOMEM);
            assert_false(du_file_exists(test_tmp_file(&tmp, "model.safetensors.index.json")));
        }
        assert_int_equal(du_mem_get_stats().n_live, live);
        test_tmp_remove(&tmp);
    }
    assert_true(n > 20);
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_read),
        cmocka_unit_test(every_number_type_has_its_size),
        cmocka_unit_test(hostile_sizes_are_refused),
        cmocka_unit_test(hostile_headers_are_refused),
        cmocka_unit_test(hostile_json_is_bounded),
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(damaged_files_do_no_harm),
        cmocka_unit_test(shards_are_read_as_one),
        cmocka_unit_test(broken_indexes_are_refused),
        cmocka_unit_test(failed_allocations_are_survived),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(unfinished_files_do_not_remain),
        cmocka_unit_test(a_full_disk_leaves_no_file),
        cmocka_unit_test(wrong_sizes_are_refused),
        cmocka_unit_test(writer_refuses_what_is_no_safetensors),
        cmocka_unit_test(writer_survives_failed_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
