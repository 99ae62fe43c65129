/* Room for strips and their file: whatever is done to it, it is either what the model calls for or
 * refused. The kernels need not be there: all block types count as wanted at every level. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "kern/strips.h"
#include "model/strips.h"
#include "quantised.h"
#include "tmp.h"

static test_tmp tmp;
static char gguf[TEST_PATH_BYTES], strips[TEST_PATH_BYTES];
static du_kern wants_all, wants_none, wants_q8;

static int setup(void **state) {
    (void)state;
    tmp = test_tmp_make();
    snprintf(gguf, sizeof gguf, "%s/m.gguf", tmp.path);
    snprintf(strips, sizeof strips, "%s/m.gguf.strips", tmp.path);
    write_quantised("deepseek_v2_lite", gguf, 0);
    wants_none = wants_all = *du_kern_get(DU_ISA_C);
    for (int i = 0; i < DU_DTYPE_COUNT; i++) {
        wants_none.mm_strips[i] = NULL;
        wants_all.mm_strips[i] = du_dtype_is_block((du_dtype)i) ? wants_all.mm[i] : NULL;
    }
    wants_q8 = wants_none;
    wants_q8.mm_strips[DU_Q8_0] = wants_q8.mm[DU_Q8_0];
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_tmp_remove(&tmp);
    return 0;
}

/* Calls fn for each matrix of the layers that may have strips. */
static int64_t each_matrix(const du_model *model, void (*fn)(const du_mat *m)) {
    int64_t n = 0;
    for (int64_t i = 0; i < model->arch->n_weights; i++) {
        const du_weight_def *def = &model->arch->weights[i];
        if (def->kind == DU_WEIGHT_VEC) {
            continue;
        }
        for (int64_t layer = 0; layer < (def->in_layer ? model->hp.n_layer : 1); layer++) {
            if (!du_weight_def_in(def, &model->hp, layer)) {
                continue;
            }
            const void *field = du_model_field(model, def, layer);
            bool one = def->kind == DU_WEIGHT_MAT;
            const du_mat *mats = one ? field : *(du_mat *const *)field;
            for (int64_t k = 0; mats && k < du_weight_def_n(def, &model->hp); k++) {
                if (mats[k].data && mats[k].strips) {
                    fn(&mats[k]);
                    n++;
                }
            }
        }
    }
    return n;
}

/* READY, and the bytes that the level's writer makes. */
static void expect_written(const du_mat *m) {
    size_t n = du_strips_bytes(m);
    du_strips fresh = {.data = du_alloc_zero(n, 1)};
    du_mat copy = *m;
    assert_non_null(fresh.data);
    copy.strips = &fresh;
    du_kern_get(test_isa())->strips_write(&copy, 0, m->rows);
    assert_int_equal(m->strips->state, DU_STRIPS_READY);
    assert_true((uintptr_t)m->strips->data % 64 == 0);
    assert_memory_equal(m->strips->data, fresh.data, n);
    du_free(fresh.data);
}

static void expect_nothing(const du_mat *m) {
    assert_null(m->strips->data);
    assert_int_equal(m->strips->state, DU_STRIPS_EMPTY);
}

static void expect_room(const du_mat *m) {
    assert_non_null(m->strips->data);
    assert_int_equal(m->strips->state, DU_STRIPS_EMPTY);
}

static const uint8_t *first_data;

static void note_first(const du_mat *m) {
    first_data = first_data ? first_data : m->strips->data;
}

static void expect_q8_alone(const du_mat *m) {
    (m->dtype == DU_Q8_0 ? expect_written : expect_nothing)(m);
}

static void save(const du_kern *kern) {
    du_diag diag;
    du_diag_reset(&diag);
    du_model *model = open_model_at(gguf);
    assert_ok(du_model_strips_save(model, kern, strips, NULL, NULL, NULL, &diag), &diag);
    du_model_close(model);
}

static void read_file(char **bytes, size_t *len) {
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_file_read(bytes, len, strips, 16 << 20, &diag), &diag);
}

/* A fresh model refuses the file, for this reason, and has no strips. */
static void expect_refused(const char *path, du_err code, const char *reason) {
    du_diag diag;
    du_model *model = open_model_at(path);
    assert_fails(du_model_strips_map(model, &wants_all, strips, &diag), code, &diag, reason);
    assert_false(du_model_strips_has_room(model));
    each_matrix(model, expect_nothing);
    du_model_close(model);
}

static int64_t n_calls, last_done, last_all;

static void note_progress(void *user, int64_t done, int64_t all) {
    (void)user;
    assert_true(done >= last_done && done <= all);
    n_calls++;
    last_done = done;
    last_all = all;
}

static void a_file_holds_what_kernels_write(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    du_pool *pool;
    assert_ok(du_pool_new(&pool, 3, false, &diag), &diag);
    for (int threads = 0; threads < 2; threads++) {
        du_model *model = open_model_at(gguf);
        du_kern kern = *du_kern_get(test_isa());
        memcpy(kern.mm_strips, wants_all.mm_strips, sizeof kern.mm_strips);
        n_calls = last_done = 0;
        assert_ok(du_model_strips_save(model, &kern, strips, threads ? pool : NULL, note_progress,
                                       NULL, &diag),
                  &diag);
        struct stat st;
        assert_int_equal(stat(strips, &st), 0);
        assert_true(n_calls > 0 && last_done == last_all && last_all == st.st_size);
        assert_true(last_all > (int64_t)du_model_strips_bytes(model, &kern));
        char *path;
        assert_ok(du_model_strips_path(&path, model, &diag), &diag);
        assert_string_equal(path, strips);
        assert_ok(du_model_strips_map(model, &kern, path, &diag), &diag);
        assert_true(du_model_strips_has_room(model));
        assert_true(each_matrix(model, expect_written) > 20);
        /* Once placed they stay, whatever is asked then. */
        assert_ok(du_model_strips_reserve(model, &kern, &diag), &diag);
        assert_ok(du_model_strips_map(model, &kern, "/nonexistent", &diag), &diag);
        each_matrix(model, expect_written);
        du_free(path);
        du_model_close(model);
    }
    du_pool_free(pool);
}

static void the_file_is_as_private_as_the_model(void **state) {
    (void)state;
    struct stat st;
    unlink(strips);
    assert_int_equal(chmod(gguf, 0600), 0);
    save(&wants_all);
    assert_int_equal(stat(strips, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(chmod(gguf, 0644), 0);
}

static void types_may_be_missing_or_too_many(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    save(&wants_q8);
    expect_refused(gguf, DU_EFORMAT, "lacks weights");
    du_model *model = open_model_at(gguf);
    assert_ok(du_model_strips_map(model, &wants_q8, strips, &diag), &diag);
    each_matrix(model, expect_q8_alone);
    du_model_close(model);
    save(&wants_all);
    model = open_model_at(gguf);
    assert_ok(du_model_strips_map(model, &wants_q8, strips, &diag), &diag);
    du_model_close(model);
    save(&wants_none);
    model = open_model_at(gguf);
    assert_int_equal(du_model_strips_bytes(model, &wants_none), 0);
    assert_ok(du_model_strips_map(model, &wants_none, strips, &diag), &diag);
    each_matrix(model, expect_nothing);
    du_model_close(model);
}

static void cut_and_longer_files_are_refused(void **state) {
    (void)state;
    save(&wants_all);
    char *bytes;
    size_t len;
    read_file(&bytes, &len);
    du_diag diag;
    du_diag_reset(&diag);
    du_model *model = open_model_at(gguf);
    for (size_t n = len; n-- > 0; n -= n > 8192 ? 4098 : n > 100 ? 12 : 0) {
        assert_int_equal(truncate(strips, (off_t)n), 0);
        assert_fails(du_model_strips_map(model, &wants_all, strips, &diag), DU_EFORMAT, &diag,
                     "m.gguf.strips: it ");
    }
    assert_false(du_model_strips_has_room(model));
    char *more = du_realloc(bytes, len + 1);
    assert_non_null(more);
    more[len] = 0;
    test_tmp_write(&tmp, "m.gguf.strips", more, len - 1);
    assert_fails(du_model_strips_map(model, &wants_all, strips, &diag), DU_EFORMAT, &diag, "bytes");
    test_tmp_write(&tmp, "m.gguf.strips", more, len + 1);
    assert_fails(du_model_strips_map(model, &wants_all, strips, &diag), DU_EFORMAT, &diag, "bytes");
    test_tmp_write(&tmp, "m.gguf.strips", more, len);
    assert_ok(du_model_strips_map(model, &wants_all, strips, &diag), &diag);
    du_free(more);
    du_model_close(model);
}

/* Byte `at` of the file becomes `value`. */
static void patch(size_t at, const void *value, size_t n) {
    FILE *f = fopen(strips, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    assert_int_equal(fwrite(value, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static uint32_t header_bytes(const char *bytes) {
    uint32_t n;
    memcpy(&n, bytes + 12, sizeof n);
    return n;
}

static void every_flipped_byte_of_the_header_is_found(void **state) {
    (void)state;
    save(&wants_all);
    char *bytes;
    size_t len;
    read_file(&bytes, &len);
    du_model *model = open_model_at(gguf);
    for (size_t i = 0; i < header_bytes(bytes); i += i < 128 ? 1 : 5) {
        for (int bit = 0; bit < 8; bit += i < 64 ? 1 : 3) {
            char byte = (char)(bytes[i] ^ 1 << bit);
            patch(i, &byte, 1);
            du_diag diag;
            assert_fails(du_model_strips_map(model, &wants_all, strips, &diag),
                         i < 8 ? DU_EEXIST : DU_EFORMAT, &diag, "m.gguf.strips: it");
        }
        patch(i, &bytes[i], 1);
    }
    assert_false(du_model_strips_has_room(model));
    du_free(bytes);
    du_model_close(model);
}

/* An enemy knows the checksum: numbers of the header are changed and it is made right again. Every
 * number is wrong then, but for what the file is free to say, which is nothing. */
static void a_forged_header_is_found(void **state) {
    (void)state;
    static const uint64_t values[] = {0, 1, 63, 64, 0x1000, UINT32_MAX, INT64_MAX, UINT64_MAX};
    save(&wants_all);
    char *bytes;
    size_t len;
    read_file(&bytes, &len);
    uint32_t n = header_bytes(bytes);
    du_model *model = open_model_at(gguf);
    for (size_t at = 24; at < n; at += 8) {
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
            uint64_t before;
            memcpy(&before, bytes + at, sizeof before);
            if (before == values[k]) {
                continue;
            }
            memcpy(bytes + at, &values[k], sizeof before);
            uint64_t sum = du_checksum(0, bytes + 24, n - 24);
            memcpy(bytes + at, &before, sizeof before);
            patch(16, &sum, sizeof sum);
            patch(at, &values[k], sizeof before);
            du_diag diag;
            assert_fails(du_model_strips_map(model, &wants_all, strips, &diag), DU_EFORMAT, &diag,
                         "m.gguf.strips: ");
            patch(at, &before, sizeof before);
        }
    }
    for (size_t k = 0; k < sizeof values / sizeof *values; k++) { /* the header's own length */
        uint32_t forged = (uint32_t)values[k];
        bool fits = forged >= 64 && forged <= len;
        uint64_t sum = fits ? du_checksum(0, bytes + 24, forged - 24) : 0;
        patch(12, &forged, sizeof forged);
        patch(16, &sum, sizeof sum);
        du_diag diag;
        assert_fails(du_model_strips_map(model, &wants_all, strips, &diag), DU_EFORMAT, &diag, "");
    }
    assert_false(du_model_strips_has_room(model));
    du_free(bytes);
    du_model_close(model);
}

static void other_versions_and_models_are_told(void **state) {
    (void)state;
    uint32_t version = DU_STRIPS_VERSION + 1;
    save(&wants_all);
    patch(8, &version, sizeof version);
    expect_refused(gguf, DU_EFORMAT, "version 2, this program writes 1");
    save(&wants_all);
    const char *other = test_tmp_file(&tmp, "other.gguf");
    write_quantised("moonlight", other, 0);
    expect_refused(other, DU_EFORMAT, "another model");
    write_quantised("deepseek_v2_lite", other, 1);
    expect_refused(other, DU_EFORMAT, "another model");
    test_tmp_write(&tmp, "m.gguf.strips", "a letter", 8);
    expect_refused(gguf, DU_EEXIST, "does not hold repacked weights");
    unlink(strips);
    expect_refused(gguf, DU_ENOENT, "m.gguf.strips");
    assert_int_equal(mkdir(strips, 0777), 0);
    expect_refused(gguf, DU_EIO, "not a regular file");
    assert_int_equal(rmdir(strips), 0);
}

/* The same header, the same size, other weights: as after some more training. */
static void a_model_that_changed_is_told(void **state) {
    (void)state;
    static const struct timespec then[2] = {{1000, 5}, {1000, 5}},
                                 later[2] = {{1000, 6}, {1000, 6}};
    assert_int_equal(utimensat(AT_FDCWD, gguf, then, 0), 0);
    save(&wants_all);
    assert_int_equal(utimensat(AT_FDCWD, gguf, later, 0), 0);
    expect_refused(gguf, DU_EFORMAT, "was written since");

    du_model *model = open_model_at(gguf);
    const du_gguf_tensor *t = du_gguf_tensor_at(du_weights_gguf(model->files), 0);
    int64_t middle = t->offset + (int64_t)t->n_bytes / 2;
    du_model_close(model);
    FILE *f = fopen(gguf, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)middle, SEEK_SET), 0);
    int byte = fgetc(f);
    assert_int_equal(fseek(f, (long)middle, SEEK_SET), 0);
    assert_int_equal(fputc(byte ^ 1, f), byte ^ 1);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(utimensat(AT_FDCWD, gguf, then, 0), 0);
    expect_refused(gguf, DU_EFORMAT, "another model");
    write_quantised("deepseek_v2_lite", gguf, 0);
}

static void a_model_in_memory_has_no_place(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    char *bytes, *path;
    size_t len;
    assert_ok(du_file_read(&bytes, &len, gguf, 16 << 20, &diag), &diag);
    du_weights *files;
    du_model *model;
    assert_ok(du_weights_open_memory(&files, bytes, len, "some bytes", &diag), &diag);
    assert_ok(du_model_load(&model, files, &diag), &diag);
    assert_fails(du_model_strips_path(&path, model, &diag), DU_ENOENT, &diag, "some bytes");
    assert_fails(du_model_strips_save(model, &wants_all, strips, NULL, NULL, NULL, &diag),
                 DU_ENOENT, &diag, "some bytes");
    du_model_close(model);
    du_free(bytes);
}

static void a_full_disk_leaves_nothing(void **state) {
    (void)state;
    du_diag diag;
    unlink(strips);
    int64_t before = test_tmp_count(&tmp);
    du_model *model = open_model_at(gguf);
    test_limit_files(100000);
    assert_fails(du_model_strips_save(model, &wants_all, strips, NULL, NULL, NULL, &diag), DU_EIO,
                 &diag, "File too large");
    test_limit_files(-1);
    assert_int_equal(test_tmp_count(&tmp), before);
    assert_fails(du_model_strips_save(model, &wants_all, "/nonexistent/x", NULL, NULL, NULL, &diag),
                 DU_ENOENT, &diag, "/nonexistent/x");
    du_model_close(model);
}

static void memory_failures_leak_nothing(void **state) {
    (void)state;
    save(&wants_all);
    du_model *model = open_model_at(gguf);
    du_diag diag;
    for (int what = 0; what < 3; what++) {
        du_err err = DU_ENOMEM;
        for (int n = 1; err != DU_OK && n < 20; n++) {
            du_diag_reset(&diag);
            int64_t live = du_mem_get_stats().n_live;
            du_mem_fail_at(n, false);
            err = what == 0
                      ? du_model_strips_save(model, &wants_all, strips, NULL, NULL, NULL, &diag)
                  : what == 1 ? du_model_strips_map(model, &wants_all, strips, &diag)
                              : du_model_strips_reserve(model, &wants_all, &diag);
            du_mem_fail_at(0, false);
            assert_true(err == DU_OK || err == DU_ENOMEM);
            assert_int_equal(du_mem_get_stats().n_live, live);
            assert_true(du_model_strips_has_room(model) == (what > 0 && err == DU_OK));
        }
        assert_int_equal(err, DU_OK);
        if (what == 1) { /* the map is taken: another model for the room */
            du_model_close(model);
            model = open_model_at(gguf);
        }
    }
    each_matrix(model, expect_room);
    du_model_close(model);
}

static void *reserve_in_thread(void *arg) {
    du_diag diag;
    du_diag_reset(&diag);
    assert_int_equal(du_model_strips_reserve(arg, &wants_all, &diag), DU_OK);
    return NULL;
}

static void room_is_given_once(void **state) {
    (void)state;
    du_diag diag;
    du_model *model = open_model_at(gguf);
    du_mem_fail_at(1, false);
    assert_fails(du_model_strips_reserve(model, &wants_all, &diag), DU_ENOMEM, &diag,
                 "the repacked weights");
    each_matrix(model, expect_nothing);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, reserve_in_thread, model), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    du_diag_reset(&diag);
    first_data = NULL;
    each_matrix(model, note_first);
    const uint8_t *before = first_data;
    assert_ok(du_model_strips_reserve(model, &wants_none, &diag), &diag);
    assert_ok(du_model_strips_reserve(model, &wants_all, &diag), &diag);
    first_data = NULL;
    each_matrix(model, note_first);
    assert_ptr_equal(first_data, before);
    each_matrix(model, expect_room);
    du_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_holds_what_kernels_write),
        cmocka_unit_test(the_file_is_as_private_as_the_model),
        cmocka_unit_test(types_may_be_missing_or_too_many),
        cmocka_unit_test(cut_and_longer_files_are_refused),
        cmocka_unit_test(every_flipped_byte_of_the_header_is_found),
        cmocka_unit_test(a_forged_header_is_found),
        cmocka_unit_test(other_versions_and_models_are_told),
        cmocka_unit_test(a_model_that_changed_is_told),
        cmocka_unit_test(a_model_in_memory_has_no_place),
        cmocka_unit_test(a_full_disk_leaves_nothing),
        cmocka_unit_test(memory_failures_leak_nothing),
        cmocka_unit_test(room_is_given_once),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
