#include "test.h"
#include "tmp.h"

#include "formats/npy.h"

/* Writes n numbers 0, 1, 2, ... in this shape. */
static void write_npy(const char *path, du_npy_type type, int32_t n_dims, const int64_t *dims,
                      int64_t n) {
    du_diag diag;
    du_diag_reset(&diag);
    du_writer *w = NULL;
    assert_ok(du_writer_open(&w, path, &diag), &diag);
    du_npy_write_header(w, type, n_dims, dims);
    assert_int_equal(du_writer_pos(w) % 64, 0);
    for (int32_t i = 0; i < n; i++) {
        float f = (float)i;
        du_write(w, type == DU_NPY_F32 ? (const void *)&f : (const void *)&i, 4);
    }
    assert_ok(du_writer_commit(w, &diag), &diag);
    du_writer_close(w);
}

static void what_is_written_is_read(void **state) {
    (void)state;
    static const struct {
        int32_t n_dims;
        int64_t dims[DU_NPY_DIMS_MAX];
        int64_t n;
    } cases[] = {{0, {0}, 1},        {1, {7}, 7},
                 {2, {3, 4}, 12},    {2, {0, 1ll << 40}, 0},
                 {3, {2, 1, 5}, 10}, {8, {1, 2, 1, 2, 1, 2, 1, 2}, 16}};
    test_tmp tmp = test_tmp_make();
    const char *path = test_tmp_file(&tmp, "a.npy");
    for (size_t k = 0; k < 2 * sizeof cases / sizeof *cases; k++) {
        du_npy_type type = k % 2 ? DU_NPY_I32 : DU_NPY_F32;
        write_npy(path, type, cases[k / 2].n_dims, cases[k / 2].dims, cases[k / 2].n);
        du_diag diag;
        du_npy npy;
        assert_ok(du_npy_read(&npy, path, &diag), &diag);
        assert_int_equal(npy.type, type);
        assert_int_equal(npy.n_dims, cases[k / 2].n_dims);
        assert_memory_equal(npy.dims, cases[k / 2].dims, (size_t)npy.n_dims * sizeof *npy.dims);
        assert_int_equal(npy.n, cases[k / 2].n);
        for (int32_t i = 0; i < npy.n; i++) {
            assert_true(type == DU_NPY_F32 ? npy.data.f32[i] == (float)i : npy.data.i32[i] == i);
        }
        du_npy_done(&npy);
    }
    test_tmp_remove(&tmp);
}

/* The bytes that numpy.save(file, numpy.zeros((3, 4), "f4")) begins with. */
static void the_header_is_numpys(void **state) {
    (void)state;
    static const char expected[] =
        "\x93NUMPY\1\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }"
        "                                                          \n";
    test_tmp tmp = test_tmp_make();
    const char *path = test_tmp_file(&tmp, "a.npy");
    const int64_t dims[2] = {3, 4};
    write_npy(path, DU_NPY_F32, 2, dims, 0);
    du_diag diag;
    char *bytes;
    size_t len;
    assert_ok(du_file_read(&bytes, &len, path, 1000, &diag), &diag);
    assert_int_equal(len, sizeof expected - 1);
    assert_memory_equal(bytes, expected, len);
    du_free(bytes);
    test_tmp_remove(&tmp);
}

/* A file of this version with this header and n bytes of data, read. */
static du_err read_file(int version, const char *header, size_t n_data, du_npy *npy,
                        du_diag *diag) {
    test_tmp tmp = test_tmp_make();
    char bytes[512] = "\x93NUMPY";
    size_t n_header = strlen(header), at = 8;
    bytes[6] = (char)version;
    memcpy(bytes + at, &n_header, 4);
    at += version == 1 ? 2 : 4;
    memcpy(bytes + at, header, n_header);
    at += n_header;
    for (size_t i = 0; i < n_data; i++) {
        bytes[at + i] = (char)i;
    }
    test_tmp_write(&tmp, "a.npy", bytes, at + n_data);
    du_err err = du_npy_read(npy, test_tmp_file(&tmp, "a.npy"), diag);
    test_tmp_remove(&tmp);
    return err;
}

static void other_forms_are_read(void **state) {
    (void)state;
    static const char *const headers[] = {
        "{'shape': (2, 2), 'fortran_order': False, 'descr': '<f4'}\n",
        "{'descr':'<f4','fortran_order':False,'shape':(2,2,),}",
        "{ 'descr' : '<f4'}",
    };
    du_diag diag;
    du_npy npy;
    for (int version = 1; version <= 3; version++) {
        for (int i = 0; i < 2; i++) {
            assert_ok(read_file(version, headers[i], 16, &npy, &diag), &diag);
            assert_true(npy.n_dims == 2 && npy.n == 4 && npy.dims[1] == 2);
            assert_int_equal(((const uint8_t *)npy.data.f32)[15], 15);
            du_npy_done(&npy);
        }
    }
    assert_fails(read_file(1, headers[2], 16, &npy, &diag), DU_EFORMAT, &diag,
                 "its header is no dictionary");
}

static void hostile_files_are_refused(void **state) {
    (void)state;
#define HEAD "{'descr': '<f4', 'fortran_order': False, 'shape': "
    static const struct {
        const char *header, *message;
        du_err code;
    } cases[] = {
        {"", "its header is no dictionary", DU_EFORMAT},
        {HEAD "(4), }", "its header is no dictionary", DU_EFORMAT},
        {HEAD "(4, }", "its header is no dictionary", DU_EFORMAT},
        {HEAD "(4,,), }", "its header is no dictionary", DU_EFORMAT},
        {HEAD "(-4,), }", "its header is no dictionary", DU_EFORMAT},
        {HEAD "(1,1,1,1,1,1,1,1,4), }", "its header is no dictionary", DU_EFORMAT},
        {HEAD "(4,), 'shape': (4,), }", "its header is no dictionary", DU_EFORMAT},
        {HEAD "(4,), 'x': 1, }", "its header is no dictionary", DU_EFORMAT},
        {HEAD "(4,)", "its header is no dictionary", DU_EFORMAT},
        {HEAD "(99999999999999999999,), }", "its header is no dictionary", DU_EFORMAT},
        {HEAD "(4294967296, 4294967296), }", "its header is no dictionary", DU_EFORMAT},
        {HEAD "(5,), }", "its shape has 5 numbers, it holds 16 bytes", DU_EFORMAT},
        {HEAD "(3,), }", "its shape has 3 numbers, it holds 16 bytes", DU_EFORMAT},
        {HEAD "(4611686018427387908,), }", "it holds 16 bytes", DU_EFORMAT},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", "other than '<f4'",
         DU_EUNSUPPORTED},
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (4,), }", "other than '<f4'",
         DU_EUNSUPPORTED},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (4,), }", "Fortran order",
         DU_EUNSUPPORTED},
    };
    du_diag diag;
    du_npy npy;
    int64_t live = du_mem_get_stats().n_live;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_fails(read_file(1, cases[i].header, 16, &npy, &diag), cases[i].code, &diag,
                     cases[i].message);
        assert_non_null(strstr(diag.msg, "/a.npy: "));
    }
    assert_fails(read_file(0, HEAD "(4,), }", 16, &npy, &diag), DU_EFORMAT, &diag, "no .npy file");
    assert_fails(read_file(4, HEAD "(4,), }", 16, &npy, &diag), DU_EFORMAT, &diag, "no .npy file");
    assert_int_equal(du_mem_get_stats().n_live, live);
#undef HEAD
}

static void truncated_files_are_refused(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    const int64_t dims[1] = {5};
    const char *path = test_tmp_file(&tmp, "a.npy");
    write_npy(path, DU_NPY_F32, 1, dims, 5);
    du_diag diag;
    char *bytes;
    size_t len;
    assert_ok(du_file_read(&bytes, &len, path, 1000, &diag), &diag);
    for (size_t n = 0; n < len; n++) {
        du_npy npy;
        test_tmp_write(&tmp, "a.npy", bytes, n);
        assert_int_equal(du_npy_read(&npy, path, NULL), DU_EFORMAT);
    }
    du_free(bytes);
    test_tmp_remove(&tmp);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),     cmocka_unit_test(the_header_is_numpys),
        cmocka_unit_test(other_forms_are_read),        cmocka_unit_test(hostile_files_are_refused),
        cmocka_unit_test(truncated_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
