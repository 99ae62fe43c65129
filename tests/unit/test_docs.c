/* Documents from files: lines at every cut, zstd, text parts, JSON lines, mistakes. */
#include "test.h"

#include <zstd.h>

#include "base/json.h"
#include "base/rng.h"
#include "data/docs.h"
#include "data/stream.h"
#include "tmp.h"

static du_stream *open_stream(const test_tmp *tmp, const char *name) {
    du_diag diag;
    du_diag_reset(&diag);
    du_stream *s = NULL;
    assert_ok(du_stream_open(&s, test_tmp_file(tmp, name), &diag), &diag);
    return s;
}

/* All lines joined, and how many there are. */
static size_t read_all(du_stream *s, du_str *out) {
    du_diag diag;
    du_diag_reset(&diag);
    du_sv line;
    size_t n = 0;
    for (;; n++) {
        assert_ok(du_stream_line(s, &line, &diag), &diag);
        if (line.len == 0) {
            return n;
        }
        const char *feed = memchr(line.s, '\n', line.len);
        assert_true(!feed || feed == line.s + line.len - 1);
        du_str_add_sv(out, line);
        assert_int_equal(du_stream_n_lines(s), n + 1);
    }
}

/* n lines of up to `longest` bytes, zeros among them. */
static void make_lines(du_str *out, size_t n, uint64_t longest, uint64_t seed) {
    du_rng rng;
    du_rng_init(&rng, seed);
    for (size_t i = 0; i < n; i++) {
        uint64_t len = du_rng_below(&rng, longest);
        for (uint64_t k = 0; k < len; k++) {
            du_str_add_c(out, (char)(du_rng_below(&rng, 4) ? 'a' + (char)(k % 20) : 0));
        }
        du_str_add_c(out, '\n');
    }
}

static void write_packed(const test_tmp *tmp, const char *name, du_sv text, int n_frames) {
    du_str packed = {0};
    static const char skippable[] = "\x50\x2a\x4d\x18\x03\x00\x00\x00xyz";
    for (int i = 0; i < n_frames; i++) {
        size_t from = text.len * (size_t)i / (size_t)n_frames;
        size_t len = text.len * ((size_t)i + 1) / (size_t)n_frames - from;
        size_t room = ZSTD_compressBound(len);
        du_str_add(&packed, skippable, sizeof skippable - 1);
        du_str_reserve(&packed, room);
        size_t n = ZSTD_compress(packed.data + packed.len, room, text.s + from, len, 1);
        assert_false(ZSTD_isError(n));
        packed.len += n;
    }
    test_tmp_write(tmp, name, packed.data, packed.len);
    du_str_done(&packed);
}

static void lines_come_back(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    static const struct {
        size_t n;
        uint64_t longest;
    } shapes[] = {{0, 1}, {1, 1}, {3, 2}, {40000, 40}, {300, 20000}, {5, 3000000}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        for (int last = 0; last < 2; last++) { /* with and without a line feed at the end */
            du_str text = {0}, back = {0};
            make_lines(&text, shapes[i].n, shapes[i].longest, i);
            du_str_add_s(&text, last ? "end" : "");
            test_tmp_write(&tmp, "a", du_str_get(&text), text.len);
            write_packed(&tmp, "b", du_str_view(&text), 1 + (int)i);
            static const char *const names[] = {"a", "b"};
            for (int k = 0; k < 2; k++) {
                du_stream *s = open_stream(&tmp, names[k]);
                du_str_reset(&back);
                assert_int_equal(read_all(s, &back), shapes[i].n + (size_t)last);
                assert_true(du_sv_eq(du_str_view(&back), du_str_view(&text)));
                du_map map;
                assert_int_equal(du_map_open(&map, test_tmp_file(&tmp, names[k]), NULL), DU_OK);
                assert_int_equal(du_stream_pos(s), map.len);
                du_map_close(&map);
                du_stream_close(s);
            }
            du_str_done(&text);
            du_str_done(&back);
        }
    }
    test_tmp_remove(&tmp);
}

static du_err read_file(const test_tmp *tmp, const char *name, du_diag *diag) {
    du_stream *s = NULL;
    du_sv line = {"", 1};
    du_err err = du_stream_open(&s, test_tmp_file(tmp, name), diag);
    while (err == DU_OK && line.len > 0) {
        err = du_stream_line(s, &line, diag);
    }
    du_stream_close(s);
    return err;
}

static void damage_is_told(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_str text = {0};
    make_lines(&text, 5000, 60, 3);
    write_packed(&tmp, "whole", du_str_view(&text), 2);
    char *bytes = NULL;
    size_t len = 0;
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_file_read(&bytes, &len, test_tmp_file(&tmp, "whole"), 1 << 30, &diag), &diag);
    du_rng rng;
    du_rng_init(&rng, 1);
    for (int i = 0; i < 200; i++) {
        /* Behind the first frame's header: skippable frames may hold anything. */
        size_t cut = 30 + du_rng_below(&rng, len / 2 - 60);
        test_tmp_write(&tmp, "cut", bytes, cut);
        assert_fails(read_file(&tmp, "cut", &diag), DU_EFORMAT, &diag, "cut");
        assert_int_equal(diag.offset, cut);
    }
    memset(bytes + 20, 0xff, 8);
    test_tmp_write(&tmp, "bad", bytes, len);
    assert_fails(read_file(&tmp, "bad", &diag), DU_EFORMAT, &diag, "bad: byte");
    test_tmp_write(&tmp, "gzip", "\x1f\x8b\x08", 3);
    assert_fails(read_file(&tmp, "gzip", &diag), DU_EUNSUPPORTED, &diag, "gzip");
    assert_fails(read_file(&tmp, "none", &diag), DU_ENOENT, &diag, "none");
    assert_fails(read_file(&tmp, "", &diag), DU_EIO, &diag, "directory");
    du_free(bytes);
    du_str_done(&text);
    test_tmp_remove(&tmp);
}

static void endless_lines_are_refused(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    size_t n = DU_STREAM_LINE_BYTES_MAX + (2 << 20);
    char *zeros = du_alloc_zero(n, 1); /* packed it is a few kilobytes */
    write_packed(&tmp, "zeros.zst", (du_sv){zeros, n}, 1);
    du_free(zeros);
    du_diag diag;
    assert_fails(read_file(&tmp, "zeros.zst", &diag), DU_ELIMIT, &diag, "zeros.zst:1: a line of");
    test_tmp_remove(&tmp);
}

/* ---- documents ---- */

/* All documents of some files, read in batches: "file:line begins ends text|" each. */
static void list_docs(du_str *out, const du_docs_params *params, size_t batch_bytes) {
    du_diag diag;
    du_diag_reset(&diag);
    du_docs *docs = NULL;
    du_doc_batch batch = {0};
    assert_ok(du_docs_open(&docs, params, &diag), &diag);
    for (;;) {
        assert_ok(du_docs_read(docs, &batch, batch_bytes, &diag), &diag);
        if (batch.n == 0) {
            break;
        }
        for (size_t i = 0; i < batch.n; i++) {
            const du_doc *d = &batch.docs[i];
            du_record r;
            assert_ok(du_record_open(&r, docs, &batch, i, &diag), &diag);
            du_str_addf(out, "%d:%d %s%s", (int)d->i_file, (int)d->line, d->begins ? "(" : "",
                        d->ends ? ")" : "");
            du_sv text = r.kind == DU_RECORD_ANSWER ? r.prompt : r.text;
            du_str_add_sv(out, text);
            du_str_add_c(out, '|');
            du_record_close(&r);
        }
    }
    assert_int_equal(du_docs_pos(docs), du_docs_bytes(docs));
    du_doc_batch_done(&batch);
    du_docs_close(docs);
}

static void put(const test_tmp *tmp, const char *name, const char *text) {
    test_tmp_write(tmp, name, text, strlen(text));
}

static void documents_and_their_lines(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    put(&tmp, "a.txt", "one\ntwo\n");
    put(&tmp, "b.txt", "--\nx\n--\n--\n--x\r\n--\r\ny");
    put(&tmp, "c.jsonl", "\n{\"text\": \"t\"}\n  \n{\"prompt\": \"p\", \"response\": \"r\"}");
    put(&tmp, "d.txt", "");
    const char *paths[] = {test_tmp_file(&tmp, "a.txt"), test_tmp_file(&tmp, "b.txt"),
                           test_tmp_file(&tmp, "c.jsonl"), test_tmp_file(&tmp, "d.txt")};
    du_docs_params params = {.paths = paths, .n_paths = 4, .separator = "--"};
    du_str out = {0};
    list_docs(&out, &params, 1 << 20);
    assert_string_equal(du_str_get(&out),
                        "0:1 ()one\ntwo\n|1:2 ()x\n|1:5 ()--x\r\n|1:7 ()y|2:2 ()t|2:4 ()p|");
    /* A batch that is full in the middle of a document cuts it. */
    du_str_reset(&out);
    params.n_paths = 1;
    list_docs(&out, &params, 1);
    assert_string_equal(du_str_get(&out), "0:1 (one\n|0:2 two\n|0:2 )|");
    du_str_reset(&out);
    params.paths++;
    params.separator = NULL;
    params.form = DU_DOCS_TEXT;
    list_docs(&out, &params, 1 << 20);
    assert_string_equal(du_str_get(&out), "0:1 ()--\nx\n--\n--\n--x\r\n--\r\ny|");
    du_str_done(&out);
    test_tmp_remove(&tmp);
}

/* Beyond DU_DOCS_PART_BYTES a text goes on in another part, cut at a line's end. */
static void long_texts_come_in_parts(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_str text = {0};
    for (int i = 0; text.len < 5 * DU_DOCS_PART_BYTES / 2; i++) {
        du_str_addf(&text, "line %d\n", i);
    }
    test_tmp_write(&tmp, "a", text.data, text.len);
    const char *path = test_tmp_file(&tmp, "a");
    du_docs_params params = {.paths = &path, .n_paths = 1};
    du_docs *docs = NULL;
    du_doc_batch batch = {0};
    du_diag diag;
    du_diag_reset(&diag);
    assert_ok(du_docs_open(&docs, &params, &diag), &diag);
    assert_ok(du_docs_read(docs, &batch, 100 << 20, &diag), &diag);
    assert_int_equal(batch.n, 3);
    size_t at = 0;
    for (size_t i = 0; i < 3; i++) {
        const du_doc *d = &batch.docs[i];
        assert_int_equal(d->begins, i == 0);
        assert_int_equal(d->ends, i == 2);
        assert_int_equal(d->start, at);
        assert_in_range(d->len, 1, DU_DOCS_PART_BYTES + 20);
        assert_int_equal(text.data[at + d->len - 1], '\n');
        char wanted[32];
        snprintf(wanted, sizeof wanted, "line %d\n", (int)d->line - 1);
        assert_memory_equal(batch.bytes.data + at, wanted, strlen(wanted));
        at += d->len;
    }
    assert_int_equal(at, text.len);
    du_doc_batch_done(&batch);
    du_docs_close(docs);
    du_str_done(&text);
    test_tmp_remove(&tmp);
}

static du_err open_first(const test_tmp *tmp, const char *name, const char *text, du_record *r,
                         du_diag *diag) {
    du_docs *docs = NULL;
    du_doc_batch batch = {0};
    put(tmp, name, text);
    const char *path = test_tmp_file(tmp, name);
    du_docs_params params = {.paths = &path, .n_paths = 1};
    du_err err = du_docs_open(&docs, &params, diag);
    err = err ? err : du_docs_read(docs, &batch, 1 << 20, diag);
    err = err ? err : du_record_open(r, docs, &batch, batch.n - 1, diag);
    du_doc_batch_done(&batch);
    du_docs_close(docs);
    return err;
}

static void records(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    du_diag diag;
    du_diag_reset(&diag);
    du_record r;
    assert_ok(open_first(&tmp, "a.jsonl", "{\"messages\": [{\"role\": \"user\"}], \"tools\": [1]}",
                         &r, &diag),
              &diag);
    assert_int_equal(r.kind, DU_RECORD_CHAT);
    assert_int_equal(json_array_size(r.messages), 1);
    assert_int_equal(json_array_size(r.tools), 1);
    du_record_close(&r);
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"{\"text\": \"a\"}\n{\"text\": 1}", "x.jsonl:2: no text \"text\""},
        {"{\"prompt\": \"a\"}", "x.jsonl:1: no text"},
        {"{\"response\": \"a\", \"prompt\": null}", "x.jsonl:1: no text"},
        {"\n\n[]", "x.jsonl:3: not a JSON object"},
        {"{\"messages\": []}", "no list of messages"},
        {"{\"messages\": 5}", "no list of messages"},
        {"{\"messages\": [{\"role\": \"a\"}, 5]}", "has no \"role\""},
        {"{\"messages\": [{\"role\": \"a\"}], \"tools\": {}}", "\"tools\" is no list"},
        {"{", "x.jsonl:1: line 1, column 1"},
        {"{\"text\": \"\xff\"}", "x.jsonl:1: "},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_fails(open_first(&tmp, "x.jsonl", bad[i].text, &r, &diag), DU_EFORMAT, &diag,
                     bad[i].message);
    }
    assert_fails(open_first(&tmp, "x.txt", "a\nb\n\xea\xb0\n", &r, &diag), DU_EFORMAT, &diag,
                 "x.txt:3: bytes that are not UTF-8");
    du_docs *docs = NULL;
    const char *missing = "/nowhere/x";
    du_docs_params params = {.paths = &missing, .n_paths = 1};
    assert_fails(du_docs_open(&docs, &params, &diag), DU_ENOENT, &diag, "/nowhere/x");
    assert_null(docs);
    test_tmp_remove(&tmp);
}

static void short_memory_is_told(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    int64_t live = du_mem_get_stats().n_live;
    bool done = false;
    for (int64_t n = 1; !done; n++) {
        du_diag diag;
        du_diag_reset(&diag);
        du_record r;
        du_mem_fail_at(n, false);
        du_err err =
            open_first(&tmp, "m.jsonl", "{\"text\": \"abc\", \"more\": [1, 2]}\n", &r, &diag);
        du_mem_fail_at(0, false);
        done = err == DU_OK;
        assert_true(done || err == DU_ENOMEM);
        if (done) {
            du_record_close(&r);
        }
        assert_int_equal(du_mem_get_stats().n_live, live);
    }
    test_tmp_remove(&tmp);
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_come_back),           cmocka_unit_test(damage_is_told),
        cmocka_unit_test(endless_lines_are_refused), cmocka_unit_test(documents_and_their_lines),
        cmocka_unit_test(long_texts_come_in_parts),  cmocka_unit_test(records),
        cmocka_unit_test(short_memory_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
