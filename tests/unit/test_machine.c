#include "base/machine.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "tmp.h"

/* One zone of a made-up /sys/class/powercap. */
static void write_zone(const test_tmp *t, const char *zone, const char *name, const char *energy,
                       const char *range) {
    const char *const files[] = {"name", "energy_uj", "max_energy_range_uj"};
    const char *const texts[] = {name, energy, range};
    mkdir(test_tmp_file(t, zone), 0755);
    for (int i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/%s", zone, files[i]);
        if (texts[i]) {
            test_tmp_write(t, path, texts[i], strlen(texts[i]));
        }
    }
}

static void energy_adds_packages_and_memory(void **state) {
    (void)state;
    test_tmp t = test_tmp_make();
    write_zone(&t, "intel-rapl:0", "package-0\n", "1000000\n", "262143328850\n");
    write_zone(&t, "intel-rapl:0:0", "core\n", "7\n", "262143328850\n"); /* part of package-0 */
    write_zone(&t, "intel-rapl:0:1", "dram\n", "500000\n", "65712999613\n");
    write_zone(&t, "intel-rapl:1", "package-1\n", "262143000000\n", "262143328850\n");
    write_zone(&t, "intel-rapl:2", "psys\n", "1\n", "262143328850\n"); /* holds the packages */
    write_zone(&t, "dtpm", "package-9\n", "1\n", "9\n");
    du_energy e;
    assert_true(du_energy_open(&e, t.path));
    assert_int_equal(e.n_zones, 3);
    assert_true(du_energy_used(&e) == 0);
    write_zone(&t, "intel-rapl:0", "package-0\n", "3500000\n", "262143328850\n");
    write_zone(&t, "intel-rapl:0:1", "dram\n", "750000\n", "65712999613\n");
    write_zone(&t, "intel-rapl:1", "package-1\n", "671150\n", "262143328850\n"); /* turned over */
    double used = du_energy_used(&e);
    assert_true(used > 3.75 - 1e-9 && used < 3.75 + 1e-9);
    assert_true(du_energy_used(&e) == 0);
    unlink(test_tmp_file(&t, "intel-rapl:0/energy_uj"));
    assert_true(du_energy_used(&e) < 0);
    test_tmp_remove(&t);
}

static void energy_is_left_out_where_there_is_none(void **state) {
    (void)state;
    test_tmp t = test_tmp_make();
    du_energy e;
    assert_false(du_energy_open(&e, test_tmp_file(&t, "absent")));
    assert_false(du_energy_open(&e, t.path));
    write_zone(&t, "intel-rapl:0", "package-0\n", NULL, "262143328850\n"); /* root's alone */
    write_zone(&t, "intel-rapl:1", "package-1\n", "12\n", NULL);
    write_zone(&t, "intel-rapl:2", NULL, "12\n", "99\n");
    assert_false(du_energy_open(&e, t.path));
    assert_true(du_energy_used(&e) < 0);
    test_tmp_remove(&t);
}

static void resident_memory_follows_what_is_touched(void **state) {
    (void)state;
    enum { BYTES = 64 << 20 };
    du_resident before = du_machine_resident();
    assert_true(before.peak > 0 && before.anonymous > 0 && before.file > 0);
    char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    memset(p, 1, BYTES);
    du_resident full = du_machine_resident();
    assert_true(full.anonymous >= before.anonymous + BYTES / 8 * 7);
    assert_true(full.peak >= before.anonymous + BYTES / 8 * 7);
    munmap(p, BYTES);
    du_machine_reset_peak();
    assert_true(du_machine_resident().peak < full.peak);
}

static void write_text(const test_tmp *t, const char *name, const char *text) {
    test_tmp_write(t, name, text, strlen(text));
}

static int64_t quota(const test_tmp *t) {
    return du_machine_cpu_quota(t->path, test_tmp_file(t, "self"));
}

static void processor_quotas_of_groups(void **state) {
    (void)state;
    test_tmp t = test_tmp_make();
    assert_int_equal(quota(&t), 0); /* nothing there */
    write_text(&t, "self", "0::/outer/inner\n");
    assert_int_equal(quota(&t), 0);
    mkdir(test_tmp_file(&t, "outer"), 0755);
    mkdir(test_tmp_file(&t, "outer/inner"), 0755);
    write_text(&t, "outer/inner/cpu.max", "max 100000\n");
    assert_int_equal(quota(&t), 0);
    write_text(&t, "outer/cpu.max", "250000 100000\n"); /* two and a half: three threads */
    assert_int_equal(quota(&t), 3);
    write_text(&t, "outer/inner/cpu.max", "400000 100000\n"); /* the outer one is smaller */
    assert_int_equal(quota(&t), 3);
    write_text(&t, "outer/inner/cpu.max", "20000 100000\n");
    assert_int_equal(quota(&t), 1);
    /* A container sees its own group at the top, under whatever name it has outside. */
    write_text(&t, "self", "0::/docker/0123\n");
    write_text(&t, "cpu.max", "200000 100000\n");
    assert_int_equal(quota(&t), 2);
    /* Version 1 */
    mkdir(test_tmp_file(&t, "cpu,cpuacct"), 0755);
    mkdir(test_tmp_file(&t, "cpu,cpuacct/job"), 0755);
    write_text(&t, "self", "5:cpuset:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/x\n");
    write_text(&t, "cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    write_text(&t, "cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    write_text(&t, "cpu,cpuacct/job/cpu.cfs_quota_us", "500000\n");
    write_text(&t, "cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota(&t), 5);
    write_text(&t, "cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(quota(&t), 0);
    test_tmp_remove(&t);
}

static int64_t memory_left(const test_tmp *t) {
    return du_machine_memory_left(t->path, test_tmp_file(t, "self"));
}

static void memory_that_groups_leave(void **state) {
    (void)state;
    test_tmp t = test_tmp_make();
    assert_int_equal(memory_left(&t), 0); /* nothing there */
    write_text(&t, "self", "0::/outer/inner\n");
    mkdir(test_tmp_file(&t, "outer"), 0755);
    mkdir(test_tmp_file(&t, "outer/inner"), 0755);
    write_text(&t, "outer/inner/memory.max", "max\n");
    write_text(&t, "outer/inner/memory.current", "300\n");
    assert_int_equal(memory_left(&t), 0);
    write_text(&t, "outer/memory.max", "1000\n");
    write_text(&t, "outer/memory.current", "900\n");
    assert_int_equal(memory_left(&t), 100);
    /* What files have there is given back when it is wanted. */
    write_text(&t, "outer/memory.stat",
               "anon 300\nfile 600\ninactive_file 400\nactive_file 150\nunevictable 50\n");
    assert_int_equal(memory_left(&t), 650);
    write_text(&t, "outer/inner/memory.max", "500\n"); /* the inner one is smaller */
    assert_int_equal(memory_left(&t), 200);
    write_text(&t, "outer/inner/memory.current", "500\n");
    assert_int_equal(memory_left(&t), 1);
    /* Version 1: files of the groups below are in total_*. */
    mkdir(test_tmp_file(&t, "memory"), 0755);
    mkdir(test_tmp_file(&t, "memory/job"), 0755);
    write_text(&t, "self", "4:cpu,cpuacct:/outer\n3:memory:/job\n0::/\n");
    write_text(&t, "memory/memory.limit_in_bytes", "9223372036854771712\n");
    write_text(&t, "memory/memory.usage_in_bytes", "5000\n");
    write_text(&t, "memory/job/memory.limit_in_bytes", "4000\n");
    write_text(&t, "memory/job/memory.usage_in_bytes", "3000\n");
    write_text(&t, "memory/job/memory.stat",
               "inactive_file 7\ntotal_inactive_file 1000\ntotal_active_file 500\n");
    assert_int_equal(memory_left(&t), 2500);
    test_tmp_remove(&t);
}

static void machine_says_something(void **state) {
    (void)state;
    du_cache caches[8];
    int64_t n = du_machine_caches(caches, 8);
    for (int64_t i = 0; i < n; i++) {
        assert_true(caches[i].level >= 1 && caches[i].level <= 5);
        assert_true(caches[i].type == 'd' || caches[i].type == 'i' || caches[i].type == 'u');
    }
    assert_true(du_machine_memory_bytes() > 1 << 24);
    assert_true(du_machine_n_nodes() >= 1);
    char text[24];
    du_machine_huge_pages(text, sizeof text);
    assert_true(!text[0] || strcmp(text, "always") == 0 || strcmp(text, "madvise") == 0 ||
                strcmp(text, "never") == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(energy_adds_packages_and_memory),
        cmocka_unit_test(energy_is_left_out_where_there_is_none),
        cmocka_unit_test(resident_memory_follows_what_is_touched),
        cmocka_unit_test(processor_quotas_of_groups),
        cmocka_unit_test(memory_that_groups_leave),
        cmocka_unit_test(machine_says_something),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
