#include "test.h"

#include "base/mem.h"
#include "text/unicode.h"
#include "text/vocab.h"

static du_vocab vocab(int32_t n) {
    du_vocab v;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_vocab_init(&v, n, 200, &diag), &diag);
    return v;
}

static void set(du_vocab *v, int32_t id, const char *text, du_token_type type) {
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_vocab_set(v, id, du_sv_of(text), type, &diag), &diag);
}

static void piece_is(const du_vocab *v, int32_t id, const char *want) {
    assert_int_equal(v->pieces[id].len, strlen(want));
    assert_memory_equal(v->pieces[id].s, want, strlen(want));
}

static void byte_alphabet_is_one_to_one(void **state) {
    (void)state;
    bool seen[0x200] = {false};
    for (int b = 0; b < 256; b++) {
        int32_t cp = du_byte_level_char((uint8_t)b);
        assert_true(cp > 0x20 && cp < 0x144 && !seen[cp]);
        seen[cp] = true;
    }
    assert_int_equal(du_byte_level_char('a'), 'a');
    assert_int_equal(du_byte_level_char(' '), 0x120);
    assert_int_equal(du_byte_level_char('\n'), 0x10a);
    assert_int_equal(du_byte_level_char(0xad), 0x143);
}

static void byte_level_texts_stand_for_bytes(void **state) {
    (void)state;
    du_vocab v = vocab(6);
    set(&v, 0, "Ġa", DU_TOKEN_NORMAL);
    set(&v, 1, "ê°", DU_TOKEN_NORMAL); /* EA B0 */
    set(&v, 2, "Ġ", DU_TOKEN_NORMAL);
    set(&v, 3, "<Ġ>", DU_TOKEN_CONTROL);
    set(&v, 5, "두", DU_TOKEN_NORMAL); /* outside the alphabet: itself */
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_vocab_finish(&v, DU_VOCAB_BYTE_LEVEL, &diag), &diag);
    piece_is(&v, 0, " a");
    piece_is(&v, 1, "\xea\xb0");
    piece_is(&v, 3, "<Ġ>");
    piece_is(&v, 4, "[PAD4]");
    piece_is(&v, 5, "두");
    assert_int_equal(v.types[4], DU_TOKEN_UNUSED);
    assert_int_equal(v.bytes[' '], 2);
    assert_int_equal(v.bytes['a'], -1);
    assert_int_equal(du_vocab_find(&v, du_sv_of("Ġa")), 0);
    assert_int_equal(du_vocab_find(&v, du_sv_of("[PAD4]")), 4);
    assert_int_equal(du_vocab_find(&v, du_sv_of("b")), -1);
    assert_int_equal(du_vocab_find(&v, du_sv_of("")), -1);
    du_vocab_done(&v);
}

static void sentencepiece_texts_stand_for_bytes(void **state) {
    (void)state;
    du_vocab v = vocab(4);
    set(&v, 0, "▁a▁▁b", DU_TOKEN_NORMAL);
    set(&v, 1, "<0xE3>", DU_TOKEN_BYTE);
    set(&v, 2, "<｜▁｜>", DU_TOKEN_USER_DEFINED);
    set(&v, 3, "<0x0A>", DU_TOKEN_BYTE);
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_vocab_finish(&v, DU_VOCAB_SPM, &diag), &diag);
    piece_is(&v, 0, " a  b");
    piece_is(&v, 1, "\xe3");
    piece_is(&v, 2, "<｜▁｜>");
    assert_int_equal(v.bytes[0xe3], 1);
    assert_int_equal(v.bytes['\n'], 3);
    du_vocab_done(&v);
}

static void bad_entries_are_refused(void **state) {
    (void)state;
    du_diag diag;
    du_vocab v = vocab(3);
    set(&v, 0, "a", DU_TOKEN_NORMAL);
    assert_fails(du_vocab_set(&v, 0, du_sv_of("b"), DU_TOKEN_NORMAL, &diag), DU_EFORMAT, &diag,
                 "token 0 is both 'a' and 'b'");
    assert_fails(du_vocab_set(&v, 1, du_sv_of("a"), DU_TOKEN_NORMAL, &diag), DU_EFORMAT, &diag,
                 "tokens 0 and 1 are both 'a'");
    assert_fails(du_vocab_set(&v, 2, du_sv_of(""), DU_TOKEN_NORMAL, &diag), DU_EFORMAT, &diag,
                 "token 2 is empty");
    assert_fails(du_vocab_set_twin(&v, 0, du_sv_of("a"), DU_TOKEN_NORMAL, &diag), DU_EFORMAT, &diag,
                 "token 0 is both");
    du_vocab_done(&v);

    static const char *const no_bytes[] = {"<0xG0>", "<0x0a>", "<0x00", "x"};
    for (size_t i = 0; i < sizeof no_bytes / sizeof no_bytes[0]; i++) {
        v = vocab(1);
        set(&v, 0, no_bytes[i], DU_TOKEN_BYTE);
        assert_fails(du_vocab_finish(&v, DU_VOCAB_SPM, &diag), DU_EFORMAT, &diag,
                     "is a byte token");
        du_vocab_done(&v);
    }
}

static void twins_are_decoded_only(void **state) {
    (void)state;
    du_diag diag;
    du_vocab v = vocab(4);
    set(&v, 1, "<0x41>", DU_TOKEN_BYTE);
    assert_ok(du_vocab_set_twin(&v, 2, du_sv_of("<0x41>"), DU_TOKEN_BYTE, &diag), &diag);
    set(&v, 3, "[PAD0]", DU_TOKEN_NORMAL);
    assert_ok(du_vocab_finish(&v, DU_VOCAB_SPM, &diag), &diag);
    assert_int_equal(du_vocab_find(&v, du_sv_of("<0x41>")), 1);
    assert_true(du_vocab_is_twin(&v, 2) && !du_vocab_is_twin(&v, 1));
    assert_int_equal(v.bytes['A'], 1);
    piece_is(&v, 2, "A");
    assert_int_equal(du_vocab_find(&v, du_sv_of("[PAD0]")), 3);
    assert_int_equal(v.types[0], DU_TOKEN_UNUSED);
    du_vocab_done(&v);
}

static void long_texts_are_refused(void **state) {
    (void)state;
    du_diag diag;
    du_vocab v = vocab(1);
    char *text = du_alloc(DU_VOCAB_TOKEN_BYTES_MAX + 1);
    memset(text, 'a', DU_VOCAB_TOKEN_BYTES_MAX + 1);
    assert_fails(
        du_vocab_set(&v, 0, (du_sv){text, DU_VOCAB_TOKEN_BYTES_MAX + 1}, DU_TOKEN_NORMAL, &diag),
        DU_ELIMIT, &diag, "more than 65536");
    du_free(text);
    du_vocab_done(&v);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    int64_t live = du_mem_get_stats().n_live;
    int64_t n = 1;
    for (du_err err = DU_ENOMEM; err != DU_OK; n++) {
        du_vocab v;
        du_mem_fail_at(n, false);
        err = du_vocab_init(&v, 10, 10, NULL);
        du_mem_fail_at(0, false);
        assert_true(err == DU_OK || err == DU_ENOMEM);
        du_vocab_done(&v);
        assert_int_equal(du_mem_get_stats().n_live, live);
    }
    assert_true(n > 6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_alphabet_is_one_to_one),
        cmocka_unit_test(byte_level_texts_stand_for_bytes),
        cmocka_unit_test(sentencepiece_texts_stand_for_bytes),
        cmocka_unit_test(bad_entries_are_refused),
        cmocka_unit_test(twins_are_decoded_only),
        cmocka_unit_test(long_texts_are_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
