#include "train/events.h"

#include <math.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/mem.h"
#include "test.h"
#include "tmp.h"

static du_diag diag;

/* The check value of CRC-32C, and RFC 3720, appendix B.4: 32 bytes of zeros, of ones, ascending. */
static void test_crc(void **state) {
    (void)state;
    uint8_t bytes[32] = {0};
    assert_int_equal(du_events_crc("123456789", 9), 0xe3069283);
    assert_int_equal(du_events_crc(bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(du_events_crc(bytes, 32), 0x62a8ab43);
    for (int i = 0; i < 32; i++) {
        bytes[i] = (uint8_t)i;
    }
    assert_int_equal(du_events_crc(bytes, 32), 0x46dd794e);
}

/* The bytes that TensorBoard's own RecordWriter writes for this data
 * (tests/reference/test_events.py reads whole files with its reader). */
static void test_record(void **state) {
    (void)state;
    static const uint8_t want[] = {0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x42, 0x45,
                                   0x52, 0x04, 0x64, 0x75, 0x72, 0x65, 0xba, 0xc8, 0x5c, 0x67};
    du_str s = {0};
    du_events_record(&s, "dure", 4);
    assert_int_equal(s.len, sizeof want);
    assert_memory_equal(s.data, want, sizeof want);
    du_str_done(&s);
}

static uint64_t read_u64(const char *at) {
    uint64_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

/* A file: a version, a session's start, a step; and that only such files are removed. */
static void test_file(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_events e;
    du_metrics m = {.step = 300, .loss = 0.5, .grad_norm = NAN, .lr = 0.25, .tok_s = INFINITY};
    m.validation = m.mtp_loss = m.balance = m.overload = m.products = m.peak = NAN;
    assert_ok(du_events_open(&e, tmp.path, 299, &diag), &diag);
    assert_ok(du_events_add(&e, &m, &diag), &diag);
    char *text;
    size_t len, at = 0, n[4] = {0};
    int i = 0;
    assert_ok(du_file_read(&text, &len, e.path, 1 << 20, &diag), &diag);
    for (; at < len && i < 4; i++, at += n[i - 1] + 16) {
        n[i] = read_u64(text + at);
    }
    assert_int_equal(i, 3);
    assert_int_equal(at, len);
    assert_memory_equal(text + 12 + 12,
                        "\x1a\x0d"
                        "brain.Event:2",
                        15);
    /* field 2 is the step, 300; of the summary come loss and lr */
    static const char step[] = "\x10\xac\x02\x2a\x18"
                               "\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f"
                               "\x0a\x09\x0a\x02lr\x15\x00\x00\x80\x3e";
    const char *third = text + n[0] + n[1] + 32 + 12 + 9;
    assert_int_equal(n[2], 9 + sizeof step - 1);
    assert_memory_equal(third, step, sizeof step - 1);
    du_free(text);
    du_events_close(&e);
    FILE *other = fopen(test_tmp_file(&tmp, "events.out.tfevents.1.host"), "w");
    assert_non_null(other);
    fclose(other);
    assert_ok(du_events_remove(tmp.path, &diag), &diag);
    du_names names = {0};
    assert_ok(du_dir_names(&names, tmp.path, &diag), &diag);
    assert_int_equal(names.n, 1);
    du_names_done(&names);
    test_tmp_remove(&tmp);
}

/* What a full disk takes of an event is written over by the next one. */
static void test_full_disk(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_events e;
    du_metrics m = {.step = 1, .loss = 0.5};
    char *text;
    size_t before, len;
    assert_ok(du_events_open(&e, tmp.path, 0, &diag), &diag);
    assert_ok(du_file_read(&text, &before, e.path, 1 << 20, &diag), &diag);
    du_free(text);
    test_limit_files((int64_t)before + 20);
    du_err err = du_events_add(&e, &m, &diag);
    test_limit_files(-1);
    assert_int_equal(err, DU_EIO);
    du_diag_reset(&diag);
    assert_ok(du_events_add(&e, &m, &diag), &diag);
    assert_ok(du_file_read(&text, &len, e.path, 1 << 20, &diag), &diag);
    assert_int_equal(len, before + read_u64(text + before) + 16);
    du_free(text);
    du_events_close(&e);
    test_tmp_remove(&tmp);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc),
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
