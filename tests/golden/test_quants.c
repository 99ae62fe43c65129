/* Every number type against the gguf package's dequantiser (F8_E4M3: torch) on random blocks, bit
 * for bit: the factors of a product fit into a float's 24 bits together, so that no order of them
 * rounds differently. Made by tools/ref/make_quants.py. */
#include "test.h"

#include "base/file.h"
#include "base/mem.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

#define DIR_QUANTS DURE_SOURCE_DIR "/tests/golden/quants/"

static void same_bits_or_both_nan(const float *got, const float *want, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++) {
        if (du_bits_of_f32(got[i]) != du_bits_of_f32(want[i]) &&
            (got[i] == got[i] || want[i] == want[i])) {
            fail_msg("%s: weight %zu is %a, not %a", name, i, (double)got[i], (double)want[i]);
        }
    }
}

/* name: the type's in lower case, as in the file names. */
static void check_type(du_dtype dtype, const char *name) {
    const du_dtype_info *info = du_dtype_get(dtype);
    char path[512];
    snprintf(path, sizeof path, DIR_QUANTS "%s.bin", name);
    du_diag diag;
    du_diag_reset(&diag);
    du_map map;
    assert_ok(du_map_open(&map, path, &diag), &diag);
    size_t unit = info->block_bytes + (size_t)info->block * sizeof(float);
    assert_int_equal(map.len % unit, 0);
    size_t n_blocks = map.len / unit;
    assert_true(n_blocks > 0);
    size_t n = n_blocks * (size_t)info->block;

    /* At an odd address: blocks need no alignment. */
    uint8_t *blocks = du_alloc(n_blocks * info->block_bytes + 1);
    float *want = du_alloc_array(n, sizeof *want);
    float *got = du_alloc_array(n, sizeof *got);
    memcpy(blocks + 1, map.data, n_blocks * info->block_bytes);
    memcpy(want, map.data + n_blocks * info->block_bytes, n * sizeof *want);
    info->unpack(got, blocks + 1, (int64_t)n);
    same_bits_or_both_nan(got, want, n, name);
    assert_int_equal(du_dtype_row_bytes(dtype, (int64_t)n), n_blocks * info->block_bytes);

    du_free(blocks);
    du_free(want);
    du_free(got);
    du_map_close(&map);
}

static void every_type_unpacks_as_the_reference(void **state) {
    (void)state;
#define CHECK(suffix, name, id, block, bytes) check_type(DU_##suffix, #name);
    DU_DTYPE_LIST(CHECK)
}

static void lattices_are_the_reference_s(void **state) {
    (void)state;
    static const struct {
        const void *grid;
        size_t bytes;
    } grids[] = {
        {du_iq1_grid, sizeof du_iq1_grid},         {du_iq2_xxs_grid, sizeof du_iq2_xxs_grid},
        {du_iq2_xs_grid, sizeof du_iq2_xs_grid},   {du_iq2_s_grid, sizeof du_iq2_s_grid},
        {du_iq3_xxs_grid, sizeof du_iq3_xxs_grid}, {du_iq3_s_grid, sizeof du_iq3_s_grid},
    };
    du_diag diag;
    du_diag_reset(&diag);
    du_map map;
    assert_ok(du_map_open(&map, DIR_QUANTS "iq_grids.bin", &diag), &diag);
    size_t at = 0;
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        assert_true(at + grids[i].bytes <= map.len);
        assert_memory_equal(grids[i].grid, map.data + at, grids[i].bytes);
        at += grids[i].bytes;
    }
    assert_int_equal(at, map.len);
    du_map_close(&map);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_unpacks_as_the_reference),
        cmocka_unit_test(lattices_are_the_reference_s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
