#include "test.h"

#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/json.h"
#include "base/machine.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/reader.h"
#include "base/rng.h"
#include "base/str.h"

static void diag_first_failure_wins(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    assert_int_equal(du_fail_at(&diag, DU_EFORMAT, 7, "type %d\nis unknown", 99), DU_EFORMAT);
    du_fail(&diag, DU_EIO, "later");
    du_diag_context(&diag, "blk.%d", 3);
    assert_string_equal(diag.msg, "blk.3: type 99?is unknown");
    assert_int_equal(diag.offset, 7);
    assert_int_equal(du_fail(NULL, DU_EIO, "nobody listens"), DU_EIO);
}

static void heap_counts_and_fails_on_demand(void **state) {
    (void)state;
    du_mem_stats before = du_mem_get_stats();
    void *p = du_alloc(100);
    du_mem_fail_at(2, false);
    void *q = du_alloc(1);
    assert_non_null(q);
    assert_null(du_alloc(1));
    void *r = du_realloc(p, 1000);
    assert_non_null(r);
    assert_int_equal(du_mem_get_stats().n_live - before.n_live, 2);
    du_free(q);
    du_free(r);
    assert_int_equal(du_mem_get_stats().n_live, before.n_live);
    assert_int_equal(du_mem_get_stats().bytes_live, before.bytes_live);
    assert_null(du_alloc_array(SIZE_MAX / 2, 4));
}

static void arena_reuses_its_chunks(void **state) {
    (void)state;
    du_arena *arena = du_arena_new(4096);
    assert_non_null(arena);
    du_arena_mark start = du_arena_get_mark(arena);
    size_t bytes = 0;
    for (int round = 0; round < 3; round++) {
        for (size_t n = 1; n < 20000; n = n * 3 + 1) {
            char *p = du_arena_alloc(arena, n, 1);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % DU_ALIGN, 0);
            memset(p, round, n);
        }
        if (round == 0) {
            bytes = du_arena_bytes(arena);
        }
        assert_int_equal(du_arena_bytes(arena), bytes);
        du_arena_release(arena, start);
    }
    assert_null(du_arena_alloc(arena, SIZE_MAX, 2));
    du_arena_free(arena);
}

static void str_appends_and_fails_softly(void **state) {
    (void)state;
    du_str s = {0};
    assert_string_equal(du_str_get(&s), "");
    du_str_add_s(&s, "두레 ");
    du_str_addf(&s, "%d+%s", 12, "abc");
    assert_string_equal(du_str_get(&s), "두레 12+abc");
    du_mem_fail_at(1, true);
    for (int i = 0; i < 100; i++) {
        du_str_add_c(&s, 'x');
    }
    du_mem_fail_at(0, false);
    assert_true(s.failed);
    assert_null(du_str_take(&s));
    du_sv hay = du_sv_of("abcabc");
    assert_int_equal(du_sv_find(hay, du_sv_of("ca"), 0), 2);
    assert_int_equal(du_sv_find(hay, du_sv_of("abc"), 1), 3);
    assert_int_equal(du_sv_find(hay, du_sv_of("abc"), 4), -1);
    assert_int_equal(du_sv_find(hay, du_sv_of(""), 2), 2);
    assert_int_equal(du_sv_find((du_sv){NULL, 0}, du_sv_of("a"), 0), -1); /* an empty file's map */
    assert_int_equal(du_sv_find((du_sv){NULL, 0}, du_sv_of(""), 0), 0);
    const char *names[] = {"run", "chat", "quantize"};
    assert_string_equal(du_nearest("quantise", names, 3), "quantize");
    assert_null(du_nearest("zzz", names, 3));
}

static void reader_never_leaves_its_bytes(void **state) {
    (void)state;
    uint8_t bytes[6] = {1, 0, 0, 0, 5, 6};
    du_reader r = du_reader_of(bytes, sizeof bytes);
    assert_int_equal(du_read_u32(&r), 1);
    assert_int_equal(du_read_u32(&r), 0);
    assert_true(r.bad);
    assert_int_equal(r.pos, 4);
    assert_int_equal(du_read_u8(&r), 0);
}

static void reserved_memory_is_taken_when_written(void **state) {
    (void)state;
    enum { BYTES = 64 << 20 };
    du_mem_stats before = du_mem_get_stats();
    int64_t resident = du_machine_resident().anonymous;
    uint8_t *p = du_mem_reserve(BYTES);
    assert_non_null(p);
    assert_true((uintptr_t)p % (uintptr_t)getpagesize() == 0);
    assert_true(du_machine_resident().anonymous - resident < BYTES / 4);
    for (size_t i = 0; i < BYTES; i += 4000) {
        assert_int_equal(p[i], 0);
        p[i] = 1;
    }
    assert_true(du_machine_resident().anonymous - resident > BYTES / 4 * 3);
    du_mem_unreserve(p, BYTES);
    assert_true(du_machine_resident().anonymous - resident < BYTES / 4);
    assert_int_equal(du_mem_get_stats().n_live, before.n_live); /* no part of the heap */
    assert_null(du_mem_reserve((size_t)1 << 62));
    du_mem_fail_at(1, false);
    assert_null(du_mem_reserve(4096));
    du_mem_unreserve(NULL, 4096);
}

static void json_limits_and_types(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    json_t *v;
    const char *text = "{\"a\": 5, \"b\": 2.0, \"c\": null, \"d\": \"x\", \"e\": 1.5}";
    assert_ok(du_json_parse(&v, text, strlen(text), "conf", &diag), &diag);
    int64_t i = -1;
    assert_ok(du_json_get_i64(v, "a", 0, 10, &i, &diag), &diag);
    assert_int_equal(i, 5);
    assert_ok(du_json_get_i64(v, "b", 0, 10, &i, &diag), &diag);
    assert_int_equal(i, 2);
    assert_ok(du_json_get_i64(v, "c", 0, 10, &i, &diag), &diag);
    assert_int_equal(i, 2);
    assert_fails(du_json_get_i64(v, "d", 0, 10, &i, &diag), DU_EFORMAT, &diag, "d: not an integer");
    assert_fails(du_json_get_i64(v, "e", 0, 10, &i, &diag), DU_EFORMAT, &diag, "e: not an integer");
    assert_fails(du_json_get_i64(v, "a", 6, 10, &i, &diag), DU_EFORMAT, &diag, "not between");
    json_decref(v);
    /* As Hugging Face writes "no limit"; the neighbours stay what they are. */
    static const char huge[] =
        "{\"n\": 1000000000000000019884624838656, \"s\": \"\\\"12345678901234567890\", "
        "\"m\": [-92233720368547758080, 9223372036854775807, 12345678901234567890.5]}";
    assert_ok(du_json_parse(&v, huge, strlen(huge), "huge", &diag), &diag);
    assert_true(json_real_value(json_object_get(v, "n")) == 1e30);
    assert_string_equal(json_string_value(json_object_get(v, "s")), "\"12345678901234567890");
    json_t *m = json_object_get(v, "m");
    assert_true(json_real_value(json_array_get(m, 0)) == -92233720368547758080.0);
    assert_true(json_integer_value(json_array_get(m, 1)) == INT64_MAX);
    assert_true(json_real_value(json_array_get(m, 2)) == 12345678901234567890.5);
    json_decref(v);
    assert_fails(du_json_parse(&v, "[99999999999999999999,]", 23, "huge", &diag), DU_EFORMAT, &diag,
                 "line 1");
    char deep[2000];
    memset(deep, '[', sizeof deep);
    assert_fails(du_json_parse(&v, deep, sizeof deep, "deep", &diag), DU_ELIMIT, &diag, "nested");
    assert_fails(du_json_parse(&v, "{\"a\":1,}", 8, "bad", &diag), DU_EFORMAT, &diag, "line 1");
}

/* Whatever allocation fails, a value comes whole or not at all: also where the buffer of a token
 * would have to grow for an escape or for a closing quote. */
static void json_survives_memory_failures(void **state) {
    (void)state;
    char text[256];
    for (int n = 0; n < 70; n++) {
        snprintf(text, sizeof text, "{\"%.*s\\n\": [\"%.*s\\\"\", 1e%.*s0]}", n % 9, "keys of", n,
                 "a string that grows until it needs some more room for its closing quote", n % 40,
                 "0000000000000000000000000000000000000000");
        du_diag diag;
        du_diag_reset(&diag);
        json_t *want, *got;
        assert_ok(du_json_parse(&want, text, strlen(text), "t", &diag), &diag);
        du_err err = DU_ENOMEM;
        int64_t live = du_mem_get_stats().n_live;
        for (int k = 1; err != DU_OK; k++) {
            assert_true(k < 1000);
            for (int forever = 0; forever < 2; forever++) {
                du_mem_fail_at(k, forever);
                err = du_json_parse(&got, text, strlen(text), "t", &diag);
                du_mem_fail_at(0, false);
                if (err == DU_OK) {
                    assert_true(json_equal(got, want));
                    json_decref(got);
                } else {
                    assert_int_equal(err, DU_ENOMEM);
                }
                assert_int_equal(du_mem_get_stats().n_live, live);
            }
        }
        json_decref(want);
    }
}

static void rng_is_fixed_and_fair(void **state) {
    (void)state;
    du_rng rng;
    du_rng_init(&rng, 42);
    uint64_t first = du_rng_u64(&rng);
    du_rng_init(&rng, 42);
    assert_true(first == du_rng_u64(&rng));
    double sum = 0, squares = 0;
    int counts[7] = {0};
    for (int i = 0; i < 100000; i++) {
        double v = du_rng_normal(&rng);
        sum += v;
        squares += v * v;
        counts[du_rng_below(&rng, 7)]++;
    }
    assert_true(fabs(sum / 1e5) < 0.02 && fabs(squares / 1e5 - 1) < 0.02);
    for (int i = 0; i < 7; i++) {
        assert_true(abs(counts[i] - 100000 / 7) < 600);
    }
}

/* Each key gives a permutation; over the keys each number comes to each place equally often. */
static void permutations(void **state) {
    (void)state;
    static const uint64_t sizes[] = {1, 2, 3, 5, 16, 17, 100, 1000, 4097};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        uint64_t n = sizes[k];
        bool *hit = du_alloc_zero(n, sizeof *hit);
        for (uint64_t i = 0; i < n; i++) {
            uint64_t place = du_rng_permute(k, n, i);
            assert_true(place < n && !hit[place]);
            hit[place] = true;
        }
        du_free(hit);
    }
    int counts[7][7] = {0}, fixed = 0, neighbours = 0;
    for (uint64_t key = 0; key < 7000; key++) {
        for (uint64_t i = 0; i < 7; i++) {
            counts[i][du_rng_permute(du_rng_hash(5, key), 7, i)]++;
        }
    }
    for (int i = 0; i < 49; i++) {
        assert_in_range(counts[i / 7][i % 7], 1000 - 150, 1000 + 150); /* five deviations */
    }
    for (uint64_t i = 0; i < 100000; i++) {
        uint64_t a = du_rng_permute(1, 100001, i), b = du_rng_permute(1, 100001, i + 1);
        fixed += a == i;
        neighbours += a + 1 == b;
    }
    assert_in_range(fixed, 0, 6); /* one is expected of each */
    assert_in_range(neighbours, 0, 6);
    assert_true(du_rng_permute(1, 1000, 0) != du_rng_permute(2, 1000, 0));
    assert_true(du_rng_permute(9, UINT64_MAX, 1) < UINT64_MAX);
}

typedef struct {
    atomic_int hits[1000];
} hit_list;

static void hit(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    hit_list *list = arg;
    atomic_fetch_add(&list->hits[i_task], 1);
}

static void pool_runs_each_task_once(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 2, 3, 7};
    for (size_t k = 0; k < 4; k++) {
        du_diag diag;
        du_diag_reset(&diag);
        du_pool *pool;
        assert_ok(du_pool_new(&pool, sizes[k], k == 1, &diag), &diag);
        hit_list *list = du_alloc_zero(1, sizeof *list);
        for (int round = 1; round <= 300; round++) {
            int64_t n = round % 50 == 0 ? 1000 : round % 9;
            int before = atomic_load(&list->hits[0]);
            du_pool_run(pool, hit, list, n);
            assert_int_equal(atomic_load(&list->hits[0]), before + (n > 0));
        }
        for (int i = 9; i < 1000; i++) {
            assert_int_equal(atomic_load(&list->hits[i]), 6);
        }
        du_free(list);
        du_pool_free(pool);
    }
}

typedef struct {
    int64_t first, second; /* tasks that fail */
    atomic_int n_run;
} failures;

static du_err fail_two(void *arg, int64_t i_task, int64_t i_thread, du_diag *diag) {
    (void)i_thread;
    failures *f = arg;
    atomic_fetch_add(&f->n_run, 1);
    return i_task == f->first || i_task == f->second
               ? du_fail(diag, i_task == f->first ? DU_EFORMAT : DU_EIO, "task %d", (int)i_task)
               : DU_OK;
}

static void pool_tells_the_first_failure(void **state) {
    (void)state;
    for (int64_t n_threads = 1; n_threads <= 5; n_threads++) {
        du_diag diag;
        du_diag_reset(&diag);
        du_pool *pool;
        assert_ok(du_pool_new(&pool, n_threads, false, &diag), &diag);
        for (int round = 0; round < 200; round++) {
            failures f = {.first = round % 97, .second = round % 97 + 1 + round % 3};
            assert_fails(du_pool_try(pool, fail_two, &f, 100, &diag), DU_EFORMAT, &diag, "task");
            assert_int_equal(strtol(strchr(diag.msg, ' '), NULL, 10), f.first);
            assert_true(f.n_run > f.first);
        }
        failures none = {.first = -1, .second = -1};
        du_diag_reset(&diag);
        assert_ok(du_pool_try(pool, fail_two, &none, 100, &diag), &diag);
        assert_int_equal(none.n_run, 100);
        du_pool_free(pool);
    }
}

typedef struct {
    atomic_int n_free;    /* tasks whose thread might run on several processors */
    atomic_llong seen[2]; /* processors that threads 0 and 1 ran on, one bit each */
} places;

static void note_place(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_task;
    places *p = arg;
    cpu_set_t set;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    atomic_fetch_add(&p->n_free, CPU_COUNT(&set) > 1);
    for (int cpu = 0; cpu < 62 && i_thread < 2; cpu++) {
        if (CPU_ISSET(cpu, &set)) {
            atomic_fetch_or(&p->seen[i_thread], 1ll << cpu);
        }
    }
    usleep(500); /* so that the other thread gets some */
}

static void pool_pins_until_it_is_freed(void **state) {
    (void)state;
    cpu_set_t before, after;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    for (int round = 0; round < 2; round++) {
        du_diag diag;
        du_diag_reset(&diag);
        du_pool *pool, *inner;
        places p = {0};
        assert_ok(du_pool_new(&pool, 2, true, &diag), &diag);
        /* A second one made by a pinned thread finds the other cores too. */
        assert_ok(du_pool_new(&inner, 2, true, &diag), &diag);
        du_pool_run(round == 0 ? pool : inner, note_place, &p, 40);
        assert_int_equal(atomic_load(&p.n_free), 0);
        if (CPU_COUNT(&before) > 1) {
            assert_true(du_cpu_of_thread(0) != du_cpu_of_thread(1));
            assert_true(atomic_load(&p.seen[0]) != atomic_load(&p.seen[1]));
        }
        du_pool_free(inner);
        du_pool_free(pool);
        assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
        assert_true(CPU_EQUAL(&before, &after));
    }
}

static double process_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void idle_pool_uses_no_processor(void **state) {
    (void)state;
    du_diag diag;
    du_diag_reset(&diag);
    du_pool *pool;
    hit_list *list = du_alloc_zero(1, sizeof *list);
    assert_ok(du_pool_new(&pool, 4, false, &diag), &diag);
    du_pool_run(pool, hit, list, 100);
    usleep(50000); /* all sleep by now, also on a busy machine */
    double before = process_s();
    usleep(300000);
    assert_true(process_s() - before < 0.01);
    du_pool_run(pool, hit, list, 100); /* and wake again */
    assert_int_equal(atomic_load(&list->hits[99]), 2);
    du_pool_free(pool);
    du_free(list);
}

static void cpu_levels(void **state) {
    (void)state;
    du_isa isa;
    assert_true(du_isa_find(&isa, "avx2") && isa == DU_ISA_AVX2);
    assert_false(du_isa_find(&isa, "sse9"));
    assert_true(du_isa_available(DU_ISA_C) && du_isa_available(du_isa_best()));
    assert_true(du_cpu_n_cores() >= 1);
    assert_true(du_mem_available_bytes() > 0);
}

static void free_memory_ends_with_the_address_space(void **state) {
    (void)state;
    enum { MIB = 1 << 20 };
    struct rlimit before, limit;
    long long pages;
    FILE *f = fopen("/proc/self/statm", "re");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lld", &pages), 1);
    fclose(f);
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    limit = before;
    limit.rlim_cur = (rlim_t)pages * (rlim_t)getpagesize() + 128 * MIB;
    assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
    int64_t available = du_mem_available_bytes();
    assert_int_equal(getrlimit(RLIMIT_AS, &limit), 0);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    if (limit.rlim_cur == before.rlim_cur) {
        skip(); /* qemu-user sets no such limit */
    }
    assert_true(available > 60 * MIB && available <= 64 * MIB);
    assert_true(du_mem_available_bytes() > 64 * MIB);
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(diag_first_failure_wins),
        cmocka_unit_test(heap_counts_and_fails_on_demand),
        cmocka_unit_test(arena_reuses_its_chunks),
        cmocka_unit_test(str_appends_and_fails_softly),
        cmocka_unit_test(reader_never_leaves_its_bytes),
        cmocka_unit_test(reserved_memory_is_taken_when_written),
        cmocka_unit_test(json_limits_and_types),
        cmocka_unit_test(json_survives_memory_failures),
        cmocka_unit_test(rng_is_fixed_and_fair),
        cmocka_unit_test(permutations),
        cmocka_unit_test(pool_runs_each_task_once),
        cmocka_unit_test(pool_tells_the_first_failure),
        cmocka_unit_test(pool_pins_until_it_is_freed),
        cmocka_unit_test(idle_pool_uses_no_processor),
        cmocka_unit_test(cpu_levels),
        cmocka_unit_test(free_memory_ends_with_the_address_space),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
