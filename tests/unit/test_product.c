/* Products with one matrix in either layout: who writes strips, when, how many bytes of them, and
 * what is told to the file's map. The product functions here only say which of them was called. */
#include "kern/strips.h"
#include "nn/product.h"
#include "test.h"

enum { ROWS = 200, COLS = 64 };

static uint8_t blocks[ROWS * COLS / 32 * 34];
static du_strips strips;
static du_mat w;
static du_kern kern;
static int64_t n_plain, n_strips;

static void plain(float *y, int64_t ldy, const du_mat *m, int64_t row0, int64_t row1,
                  const du_acts *x, const int32_t *i_row, int64_t n_rows) {
    (void)y, (void)ldy, (void)m, (void)x, (void)i_row, (void)n_rows;
    n_plain += row1 - row0;
}

static void with_strips(float *y, int64_t ldy, const du_mat *m, int64_t row0, int64_t row1,
                        const du_acts *x, const int32_t *i_row, int64_t n_rows) {
    (void)y, (void)ldy, (void)m, (void)x, (void)i_row, (void)n_rows;
    n_strips += row1 - row0;
}

static const void *unloaded;
static size_t unloaded_bytes;
static int n_unloads;

static void unload(void *user, const void *p, size_t n_bytes) {
    assert_ptr_equal(user, &w);
    unloaded = p;
    unloaded_bytes = n_bytes;
    n_unloads++;
}

static du_ctx ctx;

static int setup(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof blocks; i++) {
        blocks[i] = (uint8_t)(i * 37 + i / 256);
    }
    kern = *du_kern_get(DU_ISA_C);
    kern.mm[DU_Q8_0] = plain;
    kern.mm_strips[DU_Q8_0] = with_strips;
    strips = (du_strips){0};
    w = (du_mat){.data = blocks,
                 .dtype = DU_Q8_0,
                 .rows = ROWS,
                 .cols = COLS,
                 .row_bytes = COLS / 32 * 34,
                 .strips = &strips};
    strips.data = du_alloc_zero(du_strips_bytes(&w), 1);
    ctx = (du_ctx){.kern = &kern,
                   .strips = true,
                   .repack_bytes = du_strips_bytes(&w),
                   .unload = unload,
                   .unload_user = &w};
    n_plain = n_strips = n_unloads = 0;
    return strips.data ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    du_free(strips.data);
    return 0;
}

enum { PIECE = 48, PIECES = (ROWS + PIECE - 1) / PIECE };

/* All rows, in pieces as tasks take them. */
static void run(const du_product *p) {
    for (int64_t row = 0; row < ROWS; row += PIECE) {
        du_product_run(p, NULL, 0, row, row + PIECE < ROWS ? row + PIECE : ROWS, NULL, NULL, 1);
    }
}

/* A whole product; whether it read strips. */
static bool product(void) {
    n_plain = n_strips = 0;
    du_product p = du_product_begin(&ctx, &w);
    run(&p);
    du_product_end(&p);
    assert_int_equal(n_plain + n_strips, ROWS);
    assert_true(n_plain == 0 || n_strips == 0);
    return n_strips > 0;
}

static void the_first_product_writes(void **state) {
    (void)state;
    size_t n = du_strips_bytes(&w);
    assert_true(product());
    assert_int_equal(strips.state, DU_STRIPS_READY);
    assert_int_equal(ctx.repack_bytes, 0);
    assert_int_equal(n_unloads, PIECES + 1); /* each piece, then all */
    assert_ptr_equal(unloaded, blocks);
    assert_int_equal(unloaded_bytes, sizeof blocks);
    du_strips whole = {.data = du_alloc_zero(n, 1)};
    du_mat copy = w;
    assert_non_null(whole.data);
    copy.strips = &whole;
    kern.strips_write(&copy, 0, ROWS);
    assert_memory_equal(strips.data, whole.data, n);
    du_free(whole.data);

    memset(strips.data, 0x5a, n); /* the next one only reads */
    assert_true(product());
    assert_int_equal(n_unloads, PIECES + 1); /* each piece, then all */
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(strips.data[i], 0x5a);
    }
}

static void nobody_else_reads_or_writes_meanwhile(void **state) {
    (void)state;
    ctx.repack_bytes *= 3;
    du_product writer = du_product_begin(&ctx, &w), other = du_product_begin(&ctx, &w);
    assert_non_null(writer.write);
    assert_null(other.write);
    assert_int_equal(ctx.repack_bytes, 2 * du_strips_bytes(&w));
    run(&other);
    assert_int_equal(n_plain, ROWS);
    du_product_end(&other);
    assert_int_equal(strips.state, DU_STRIPS_WRITING);
    run(&writer);
    assert_int_equal(n_strips, ROWS);
    du_product_end(&writer);
    assert_int_equal(strips.state, DU_STRIPS_READY);
    assert_int_equal(n_unloads, PIECES + 1); /* each piece, then all */
}

static void who_wants_the_same_bits_gets_them(void **state) {
    (void)state;
    ctx.same_bits = true;
    kern.strips_same_bits = false;
    assert_false(product());
    assert_int_equal(strips.state, DU_STRIPS_EMPTY);
    kern.strips_same_bits = true;
    assert_true(product());
    kern.strips_same_bits = false;
    assert_false(product()); /* though they are there */
    ctx.same_bits = false;
    assert_true(product());
}

static void the_budget_is_kept(void **state) {
    (void)state;
    size_t n = du_strips_bytes(&w);
    ctx.repack_bytes = 0;
    assert_false(product());
    assert_int_equal(strips.state, DU_STRIPS_EMPTY);
    assert_int_equal(n_unloads, 0);
    ctx.repack_bytes = n - 1; /* smaller than the matrix, which would never be written else */
    assert_true(product());
    assert_int_equal(ctx.repack_bytes, 0);
    strips.state = DU_STRIPS_EMPTY;
    ctx.repack_bytes = SIZE_MAX;
    assert_true(product());
    assert_int_equal(ctx.repack_bytes, SIZE_MAX - n);
    ctx.repack_bytes = 0; /* reading costs nothing */
    assert_true(product());
}

static void without_room_or_leave_weights_are_used_as_they_lie(void **state) {
    (void)state;
    uint8_t *data = strips.data;
    for (int what = 0; what < 4; what++) {
        ctx.strips = what != 0;
        kern.mm_strips[DU_Q8_0] = what == 1 ? NULL : with_strips;
        w.strips = what == 2 ? NULL : &strips;
        strips.data = what == 3 ? NULL : data;
        assert_false(product());
        strips.state = DU_STRIPS_READY; /* nor are written ones read */
        assert_false(product());
        strips.state = DU_STRIPS_EMPTY;
        assert_int_equal(ctx.repack_bytes, du_strips_bytes(&w));
    }
    strips.data = data;
    assert_int_equal(n_unloads, 0);
}

static void unload_may_be_missing(void **state) {
    (void)state;
    ctx.unload = NULL;
    assert_true(product());
    assert_int_equal(strips.state, DU_STRIPS_READY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_first_product_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_else_reads_or_writes_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(who_wants_the_same_bits_gets_them, setup, teardown),
        cmocka_unit_test_setup_teardown(the_budget_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(without_room_or_leave_weights_are_used_as_they_lie, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(unload_may_be_missing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
