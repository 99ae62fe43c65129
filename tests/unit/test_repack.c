/* When weights are repacked, and what is said about it. */
#include "kern/strips.h"
#include "quantised.h"
#include "tmp.h"

static void memory_is_shared_out(void **state) {
    (void)state;
    static const struct {
        size_t strips_bytes;
        int64_t cache_bytes, available;
        bool fits;
    } cases[] = {
        {300, 0, 400, true},
        {301, 0, 400, false},
        {200, 100, 400, true},
        {200, 101, 400, false},
        {0, 301, 400, false},
        {(size_t)9 << 30, (int64_t)1 << 30, (int64_t)16 << 30, true},
        {(size_t)9 << 30, (int64_t)4 << 30, (int64_t)16 << 30, false},
        {1, INT64_MAX, (int64_t)16 << 30, false},
        {SIZE_MAX, INT64_MAX, INT64_MAX, false},
        {SIZE_MAX, INT64_MAX, 0, true}, /* unknown: nothing speaks against it */
        {SIZE_MAX, INT64_MAX, -1, true},
        {1, 0, 1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (du_repack_fits(cases[i].strips_bytes, cases[i].cache_bytes, cases[i].available) !=
            cases[i].fits) {
            fail_msg("case %d", (int)i);
        }
    }
}

static test_tmp tmp;
static char gguf[TEST_PATH_BYTES], strips[TEST_PATH_BYTES];

static int setup(void **state) {
    (void)state;
    tmp = test_tmp_make();
    snprintf(gguf, sizeof gguf, "%s/m.gguf", tmp.path);
    snprintf(strips, sizeof strips, "%s/m.gguf.strips", tmp.path);
    write_quantised("qwen3moe", gguf, 0);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_tmp_remove(&tmp);
    return 0;
}

static char notes[4096];
static int64_t n_progress;

static void note(void *user, const char *text) {
    size_t n = strlen(notes);
    assert_ptr_equal(user, notes);
    snprintf(notes + n, sizeof notes - n, "%s\n", text);
}

static void count_progress(void *user, int64_t done, int64_t all) {
    assert_ptr_equal(user, notes);
    assert_true(done <= all);
    n_progress++;
}

static const du_repack_watch watch = {note, count_progress, notes};

/* A level that wants every block type in strips; products are never computed with it. */
static du_kern eager(void) {
    du_kern k = *du_kern_get(DU_ISA_C);
    for (int i = 0; i < DU_DTYPE_COUNT; i++) {
        k.mm_strips[i] = du_dtype_is_block((du_dtype)i) ? k.mm[i] : NULL;
    }
    return k;
}

/* Chooses for a fresh model; what was decided. */
typedef struct {
    bool strips, file;
    int64_t taken;
    size_t bytes; /* that all strips take */
} choice;

static choice choose(du_repack repack, int64_t available) {
    du_kern kern = eager();
    du_model *model = open_model_at(gguf);
    du_repack_wish wish = {
        .kern = &kern, .how = repack, .watch = watch, .cache_bytes = 1000, .available = available};
    size_t bytes = du_model_strips_bytes(model, &kern);
    notes[0] = '\0';
    n_progress = 0;
    du_repack_choice got = du_repack_choose(model, &wish);
    assert_true(got.strips == du_model_strips_has_room(model));
    assert_true(du_model_strips_in_file(model) == (got.strips && got.taken == 0));
    du_model_close(model);
    return (choice){got.strips, du_file_exists(strips), got.taken, bytes};
}

static void auto_takes_memory_where_it_is_ample(void **state) {
    (void)state;
    choice c = choose(DU_REPACK_AUTO, 0);
    assert_true(c.strips && !c.file);
    assert_int_equal(c.taken, c.bytes);
    int64_t enough = ((int64_t)c.bytes + 1000) / 3 * 4 + 8;
    c = choose(DU_REPACK_AUTO, enough);
    assert_true(c.strips && c.taken > 0);
    c = choose(DU_REPACK_AUTO, enough - 16);
    assert_true(!c.strips && c.taken == 0);
    c = choose(DU_REPACK_OFF, 0);
    assert_true(!c.strips && c.taken == 0);
    assert_string_equal(notes, "");
}

static void cache_needs_no_memory(void **state) {
    (void)state;
    choice c = choose(DU_REPACK_CACHE, 1);
    assert_true(c.strips && c.file && c.taken == 0);
    assert_true(n_progress > 0);
    assert_non_null(strstr(notes, "m.gguf.strips: holds the repacked weights"));
    c = choose(DU_REPACK_CACHE, 1);
    assert_true(c.strips && c.taken == 0 && n_progress == 0);
    assert_string_equal(notes, "");

    test_tmp_write(&tmp, "m.gguf.strips", "DURESTRP", 8); /* cut off: written anew */
    c = choose(DU_REPACK_CACHE, 1);
    assert_true(c.strips && n_progress > 0);
    assert_non_null(strstr(notes, "m.gguf.strips: it is cut off: writing it anew\n"));
    c = choose(DU_REPACK_CACHE, 1);
    assert_string_equal(notes, "");
}

static void where_no_file_can_be_memory_takes_its_place(void **state) {
    (void)state;
    test_tmp_write(&tmp, "m.gguf.strips", "my diary", 8);
    choice c = choose(DU_REPACK_CACHE, 0);
    assert_true(c.strips && c.taken > 0);
    assert_non_null(strstr(notes, "it does not hold repacked weights: repacking in memory"));
    c = choose(DU_REPACK_CACHE, 1);
    assert_true(!c.strips && c.taken == 0);
    char *text;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_file_read(&text, NULL, strips, 100, &diag), &diag);
    assert_string_equal(text, "my diary"); /* what is not ours is not replaced */
    du_free(text);
    unlink(strips);
    test_limit_files(5000);
    c = choose(DU_REPACK_CACHE, 0);
    test_limit_files(-1);
    assert_true(c.strips && c.taken > 0 && !c.file);
    assert_non_null(strstr(notes, "File too large: repacking in memory"));
}

static void what_a_model_has_stays(void **state) {
    (void)state;
    du_kern kern = eager();
    du_model *model = open_model_at(gguf);
    du_repack_wish wish = {.kern = &kern, .watch = watch, .available = 1};
    assert_false(du_repack_choose(model, &wish).strips); /* short memory for the first runner */
    wish.available = 0;
    du_repack_choice got = du_repack_choose(model, &wish);
    assert_true(got.strips && got.taken > 0);
    wish.how = DU_REPACK_CACHE;
    wish.available = 1;
    got = du_repack_choose(model, &wish);
    assert_true(got.strips && got.taken == 0);
    assert_false(du_file_exists(strips));
    wish.how = DU_REPACK_OFF;
    assert_false(du_repack_choose(model, &wish).strips);
    du_model_close(model);
}

/* Strips are not needed: without memory for them, or addresses, weights are used as they lie. */
static void without_memory_weights_stay_as_they_lie(void **state) {
    (void)state;
    du_kern kern = eager();
    du_model *model = open_model_at(gguf);
    du_repack_wish wish = {.kern = &kern, .watch = watch};
    notes[0] = '\0';
    du_mem_fail_at(1, false);
    du_repack_choice got = du_repack_choose(model, &wish);
    assert_true(!got.strips && got.taken == 0);
    assert_false(du_model_strips_has_room(model));
    assert_string_equal(notes, "not enough memory for the repacked weights: using the layout of "
                               "the model's own file\n");
    wish.how = DU_REPACK_CACHE;
    wish.watch = (du_repack_watch){0}; /* nobody listens */
    for (int n = 1; !got.strips; n++) {
        du_mem_fail_at(n, true);
        got = du_repack_choose(model, &wish);
        du_mem_fail_at(0, false);
        assert_true(got.strips == du_model_strips_has_room(model));
        assert_true(n < 100);
    }
    assert_int_equal(got.taken, 0); /* the file, once there was memory for its list */
    du_model_close(model);
}

static void nothing_to_repack_is_told(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    du_model *model = open_fixture("llama_bf16");
    du_infer_params params = {
        .auto_cache = true, .n_ctx = 64, .repack = DU_REPACK_CACHE, .watch = watch};
    notes[0] = '\0';
    du_infer *inf = open_infer(model, params);
    assert_non_null(strstr(notes, "llama_bf16: has no weights that this processor wants repacked"));
    du_infer_free(inf);
    du_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_shared_out),
        cmocka_unit_test_setup_teardown(auto_takes_memory_where_it_is_ample, setup, teardown),
        cmocka_unit_test_setup_teardown(cache_needs_no_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(where_no_file_can_be_memory_takes_its_place, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_a_model_has_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(without_memory_weights_stay_as_they_lie, setup, teardown),
        cmocka_unit_test(nothing_to_repack_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
