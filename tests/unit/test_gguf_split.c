#include <fcntl.h>
#include <sys/stat.h>

#include "test.h"
#include "tmp.h"

#include "formats/gguf.h"
#include "formats/gguf_write.h"

/* Writes part `no` of `count`: `n_tensors` tensors t<first>, t<first + 1>, ... of 8 f32. */
static void write_part(const char *path, uint16_t no, uint16_t count, int first, int n_tensors,
                       int32_t n_all) {
    du_diag diag;
    du_diag_reset(&diag);
    du_gguf_writer *w = NULL;
    assert_ok(du_gguf_writer_new(&w, &diag), &diag);
    if (no == 0) {
        du_gguf_put_u32(w, "general.quantity", 42);
    }
    du_gguf_put_value(w, "split.no", DU_GGUF_U16, &no);
    du_gguf_put_value(w, "split.count", DU_GGUF_U16, &count);
    du_gguf_put_i32(w, "split.tensors.count", n_all);
    const int64_t dims[1] = {8};
    for (int i = first; i < first + n_tensors; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        du_gguf_put_tensor(w, name, DU_F32, 1, dims);
    }
    assert_ok(du_gguf_writer_begin(w, path, &diag), &diag);
    for (int i = first; i < first + n_tensors; i++) {
        float values[8];
        for (int j = 0; j < 8; j++) {
            values[j] = (float)(i * 8 + j);
        }
        du_gguf_write(w, values, sizeof values);
    }
    assert_ok(du_gguf_writer_commit(w, &diag), &diag);
    du_gguf_writer_close(w);
}

static const char *const part_names[3] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf",
                                          "m-00003-of-00003.gguf"};

static test_tmp make_split_set(void) {
    test_tmp tmp = test_tmp_make();
    write_part(test_tmp_file(&tmp, part_names[0]), 0, 3, 0, 0, 5);
    write_part(test_tmp_file(&tmp, part_names[1]), 1, 3, 0, 3, 5);
    write_part(test_tmp_file(&tmp, part_names[2]), 2, 3, 3, 2, 5);
    return tmp;
}

static void any_part_opens_the_set(void **state) {
    (void)state;
    test_tmp tmp = make_split_set();
    for (int k = 0; k < 3; k++) {
        du_diag diag;
        du_gguf *g = NULL;
        int64_t v = 0;
        assert_ok(du_gguf_open(&g, test_tmp_file(&tmp, part_names[k]), &diag), &diag);
        assert_string_equal(du_gguf_path(g), test_tmp_file(&tmp, part_names[0]));
        assert_int_equal(du_gguf_n_parts(g), 3);
        assert_int_equal(du_gguf_n_tensors(g), 5);
        assert_ok(du_gguf_get_i64(g, "general.quantity", 0, 99, &v, &diag), &diag);
        assert_int_equal(v, 42);
        for (int i = 0; i < 5; i++) {
            char name[16];
            snprintf(name, sizeof name, "t%d", i);
            const du_gguf_tensor *t = du_gguf_tensor_find(g, name);
            assert_ptr_equal(t, du_gguf_tensor_at(g, i));
            assert_int_equal(t->i_part, i < 3 ? 1 : 2);
            assert_true(((const float *)t->data)[7] == (float)(i * 8 + 7));
        }
        du_gguf_close(g);
    }
    test_tmp_remove(&tmp);
}

static void assert_set_refused(const test_tmp *tmp, const char *name, du_err code,
                               const char *message) {
    du_diag diag;
    du_gguf *g = NULL;
    int64_t live = du_mem_get_stats().n_live;
    assert_fails(du_gguf_open(&g, test_tmp_file(tmp, name), &diag), code, &diag, message);
    assert_null(g);
    assert_int_equal(du_mem_get_stats().n_live, live);
}

static void broken_sets_are_refused(void **state) {
    (void)state;
    test_tmp tmp = make_split_set();
    write_part(test_tmp_file(&tmp, part_names[1]), 2, 3, 0, 3, 5);
    assert_set_refused(&tmp, part_names[0], DU_EFORMAT,
                       "m-00002-of-00003.gguf: says that it is part 3 of 3");
    assert_set_refused(&tmp, part_names[1], DU_EFORMAT, "its name has to end in -00003-of-00003");
    write_part(test_tmp_file(&tmp, part_names[1]), 1, 4, 0, 3, 5);
    assert_set_refused(&tmp, part_names[0], DU_EFORMAT, "says that it is part 2 of 4");
    write_part(test_tmp_file(&tmp, part_names[1]), 0, 1, 0, 3, 5);
    assert_set_refused(&tmp, part_names[0], DU_EFORMAT, "says that it is part 1 of 1");
    write_part(test_tmp_file(&tmp, part_names[1]), 1, 3, 0, 2, 5);
    assert_set_refused(&tmp, part_names[2], DU_EFORMAT,
                       "split.tensors.count: 5 tensors, but its 3 parts hold 4");
    write_part(test_tmp_file(&tmp, part_names[1]), 1, 3, 2, 3, 5);
    assert_set_refused(&tmp, part_names[0], DU_EFORMAT,
                       "m-00003-of-00003.gguf: t3: the name occurs twice");
    write_part(test_tmp_file(&tmp, part_names[1]), 3, 3, 0, 3, 5);
    assert_set_refused(&tmp, part_names[0], DU_EFORMAT,
                       "m-00002-of-00003.gguf: split.no: 3 is not between 0 and 2");
    assert_int_equal(unlink(test_tmp_file(&tmp, part_names[1])), 0);
    assert_set_refused(&tmp, part_names[0], DU_ENOENT, "part 2 of 3: ");
    assert_set_refused(&tmp, part_names[0], DU_ENOENT, "m-00002-of-00003.gguf: cannot open it");
    test_tmp_write(&tmp, part_names[1], "GGUF", 4);
    assert_set_refused(&tmp, part_names[2], DU_EFORMAT,
                       "m-00002-of-00003.gguf: header: the file ends too early");

    write_part(test_tmp_file(&tmp, "other.gguf"), 0, 3, 0, 0, 5);
    assert_set_refused(&tmp, "other.gguf", DU_EFORMAT,
                       "other.gguf: part 1 of 3 of a model; its name has to end in "
                       "-00001-of-00003.gguf");
    write_part(test_tmp_file(&tmp, "other.gguf"), 9, 65535, 0, 0, 5);
    assert_set_refused(&tmp, "other.gguf", DU_EFORMAT, "split.count: 65535 is not between");
    assert_set_refused(&tmp, "absent.gguf", DU_ENOENT, "absent.gguf");
    test_tmp_remove(&tmp);
}

static void failed_allocations_are_survived(void **state) {
    (void)state;
    test_tmp tmp = make_split_set();
    const char *path = test_tmp_file(&tmp, part_names[2]);
    int64_t live = du_mem_get_stats().n_live;
    int n = 1;
    for (bool opened = false; !opened; n++) {
        du_diag diag;
        du_diag_reset(&diag);
        du_gguf *g = NULL;
        du_mem_fail_at(n, false);
        du_err err = du_gguf_open(&g, path, &diag);
        opened = err == DU_OK;
        du_mem_fail_at(0, false);
        if (!opened) {
            assert_int_equal(err, DU_ENOMEM);
            assert_int_equal(diag.code, DU_ENOMEM);
            assert_null(g);
        }
        du_gguf_close(g);
        assert_int_equal(du_mem_get_stats().n_live, live);
    }
    assert_true(n > 10);
    test_tmp_remove(&tmp);
}

static du_gguf_stamp stamp_of(const test_tmp *tmp) {
    du_diag diag;
    du_diag_reset(&diag);
    du_gguf *g;
    du_gguf_stamp stamp;
    assert_ok(du_gguf_open(&g, test_tmp_file(tmp, part_names[1]), &diag), &diag);
    assert_true(du_gguf_get_stamp(g, &stamp));
    assert_int_equal(stamp.n_bytes, du_gguf_file_bytes(g));
    du_gguf_close(g);
    return stamp;
}

static void set_time(const test_tmp *tmp, int part, long ns) {
    const struct timespec times[2] = {{1000, ns}, {1000, ns}};
    assert_int_equal(utimensat(AT_FDCWD, test_tmp_file(tmp, part_names[part]), times, 0), 0);
}

/* A change of any part shows: of its time, its header, its weights. */
static void stamps_tell_sets_apart(void **state) {
    (void)state;
    test_tmp tmp = make_split_set();
    for (int k = 0; k < 3; k++) {
        set_time(&tmp, k, 0);
    }
    du_gguf_stamp first = stamp_of(&tmp), again = stamp_of(&tmp);
    assert_memory_equal(&first, &again, sizeof first);
    for (int k = 0; k < 3; k++) {
        set_time(&tmp, k, 1);
        again = stamp_of(&tmp);
        assert_true(again.changed != first.changed && again.contents == first.contents);
        set_time(&tmp, k, 0);
    }
    const char *last = test_tmp_file(&tmp, part_names[2]);
    static const long from_end[] = {1, 17,
                                    33}; /* in the last of 2 tensors of 32 bytes, the first */
    for (int i = 0; i < 3; i++) {
        FILE *f = fopen(last, "r+b");
        assert_non_null(f);
        assert_int_equal(fseek(f, -from_end[i], SEEK_END), 0);
        assert_int_equal(fputc(0x55, f), 0x55);
        assert_int_equal(fclose(f), 0);
        set_time(&tmp, 2, 0);
        du_gguf_stamp now = stamp_of(&tmp);
        assert_true(now.contents != again.contents && now.changed == first.changed);
        again = now;
    }
    write_part(test_tmp_file(&tmp, part_names[0]), 0, 3, 0, 0, 5);
    set_time(&tmp, 0, 0);
    du_gguf_stamp same = stamp_of(&tmp);
    assert_memory_equal(&same, &again, sizeof same);

    char *bytes;
    size_t len;
    du_diag diag;
    du_diag_reset(&diag);
    du_gguf *g;
    write_part(test_tmp_file(&tmp, "one.gguf"), 0, 1, 0, 3, 3);
    assert_ok(du_file_read(&bytes, &len, test_tmp_file(&tmp, "one.gguf"), 1 << 20, &diag), &diag);
    assert_ok(du_gguf_parse(&g, bytes, len, "bytes", &diag), &diag);
    assert_false(du_gguf_get_stamp(g, &same)); /* in no file */
    du_gguf_close(g);
    du_free(bytes);
    test_tmp_remove(&tmp);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_part_opens_the_set),
        cmocka_unit_test(broken_sets_are_refused),
        cmocka_unit_test(stamps_tell_sets_apart),
        cmocka_unit_test(failed_allocations_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
