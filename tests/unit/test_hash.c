#include "test.h"

#include "base/hash.h"
#include "base/mem.h"

enum { N = 5000, KEY_BYTES = 48 };

/* Keys of every length from 0 on: i in decimal, filled up with letters. */
static du_sv key_of(char *buffer, int i) {
    int n = i == 0 ? 0 : snprintf(buffer, KEY_BYTES, "%d", i);
    while (n < i % 40 && i % 3 == 0) {
        buffer[n++] = 'x';
    }
    return (du_sv){buffer, (size_t)n};
}

static void finds_what_was_added_and_nothing_else(void **state) {
    (void)state;
    static char keys[N][KEY_BYTES];
    du_hash h = {0};
    assert_null(du_hash_find(&h, du_sv_of("a")));
    for (int i = 0; i < N; i++) {
        assert_int_equal(du_hash_add(&h, key_of(keys[i], i), i), DU_OK);
        assert_int_equal(du_hash_add(&h, key_of(keys[i], i), -1), DU_EEXIST);
    }
    assert_int_equal(h.n, N);
    for (int i = 0; i < N; i++) {
        char copy[KEY_BYTES];
        int64_t *value = du_hash_find(&h, key_of(copy, i));
        assert_non_null(value);
        assert_int_equal(*value, i);
        *value = i + 1;
        assert_int_equal(*du_hash_find(&h, key_of(copy, i)), i + 1);
    }
    assert_null(du_hash_find(&h, du_sv_of("5000y")));
    assert_null(du_hash_find(&h, (du_sv){"\0", 1}));
    du_hash_done(&h);
}

/* Keys that agree in all but one bit, and in all but their length, stay apart. */
static void near_keys_differ(void **state) {
    (void)state;
    static char keys[512][64];
    du_hash h = {0};
    for (int i = 0; i < 512; i++) {
        memset(keys[i], 0, sizeof keys[i]);
        keys[i][i / 8] = (char)(1 << i % 8);
        assert_int_equal(du_hash_add(&h, (du_sv){keys[i], 64}, i), DU_OK);
    }
    static const char zeros[64];
    for (size_t len = 0; len < 64; len++) {
        assert_int_equal(du_hash_add(&h, (du_sv){zeros, len}, (int64_t)len), DU_OK);
    }
    for (int i = 0; i < 512; i++) {
        assert_int_equal(*du_hash_find(&h, (du_sv){keys[i], 64}), i);
    }
    du_hash_done(&h);
}

static void failed_allocation_leaves_the_map_whole(void **state) {
    (void)state;
    static char keys[64][KEY_BYTES];
    du_hash h = {0};
    du_mem_fail_at(1, true);
    assert_int_equal(du_hash_add(&h, du_sv_of("a"), 1), DU_ENOMEM);
    du_mem_fail_at(0, false);
    assert_int_equal(du_hash_reserve(&h, 8), DU_OK);
    du_mem_fail_at(1, true);
    for (int i = 0; i < 64; i++) {
        assert_int_equal(du_hash_add(&h, key_of(keys[i], i + 1), i), i < 8 ? DU_OK : DU_ENOMEM);
    }
    du_mem_fail_at(0, false);
    for (int i = 0; i < 64; i++) {
        assert_int_equal(du_hash_find(&h, key_of(keys[i], i + 1)) != NULL, i < 8);
    }
    assert_int_equal(du_hash_reserve(&h, SIZE_MAX), DU_ENOMEM);
    du_hash_done(&h);
}

static void checksums_differ(void **state) {
    (void)state;
    uint8_t bytes[40];
    uint64_t sums[40 * 9];
    int n = 0;
    for (int i = 0; i < 40; i++) {
        bytes[i] = (uint8_t)(i * 11);
    }
    assert_true(du_checksum(7, bytes, 0) == 7);
    for (int len = 1; len < 40; len++) {
        sums[n++] = du_checksum(0, bytes, (size_t)len);
        for (int bit = 0; bit < 8; bit++) { /* of the last byte, and every third before */
            bytes[len - 1 - bit % len] ^= (uint8_t)(1 << bit);
            sums[n++] = du_checksum(0, bytes, (size_t)len);
            bytes[len - 1 - bit % len] ^= (uint8_t)(1 << bit);
        }
    }
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < i; j++) {
            assert_true(sums[i] != sums[j]);
        }
    }
    assert_true(du_checksum(0, "a", 1) != du_checksum(0, "a\0", 2));
    assert_true(du_checksum(0, "\0", 1) != du_checksum(0, "\0\0", 2));
    /* Taken on from words. */
    assert_true(du_checksum(du_checksum(0, bytes, 16), bytes + 16, 24) ==
                du_checksum(0, bytes, 40));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_was_added_and_nothing_else),
        cmocka_unit_test(near_keys_differ),
        cmocka_unit_test(checksums_differ),
        cmocka_unit_test(failed_allocation_leaves_the_map_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
