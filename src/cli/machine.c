#include "cli/machine.h"

#include <stdio.h>

#include "base/machine.h"
#include "cli/out.h"

#define PROBE_NAME(code, name) name,
static const char *const probe_names[] = {DU_PROBE_LIST(PROBE_NAME)};
#undef PROBE_NAME

enum { N_COUNTS = 2, CACHES_MAX = 8 }; /* 1 thread, all threads */

typedef struct {
    int64_t n_threads[N_COUNTS];
    double read[N_COUNTS], read_4k[N_COUNTS]; /* bytes per second */
    double peaks[DU_PROBE_COUNT][N_COUNTS];   /* operations per second; 0: the level lacks them */
} limits;

static du_err measure(limits *out, const du_kern *kern, int64_t n_threads, bool pin,
                      du_diag *diag) {
    du_err err = DU_OK;
    for (int i = 0; i < N_COUNTS && err == DU_OK; i++) {
        du_pool *pool = NULL;
        out->n_threads[i] = i == 0 ? 1 : n_threads;
        err = du_pool_new(&pool, out->n_threads[i], pin, diag);
        err = err ? err : du_cli_bandwidth(&out->read[i], kern, pool, true, diag);
        err = err ? err : du_cli_bandwidth(&out->read_4k[i], kern, pool, false, diag);
        for (int p = 0; p < DU_PROBE_COUNT && err == DU_OK; p++) {
            out->peaks[p][i] = du_cli_peak(kern, (du_probe)p, pool);
        }
        du_pool_free(pool);
    }
    return err;
}

static void add_row(du_cli_table *table, const char *name, const char *unit,
                    const double values[N_COUNTS], double scale) {
    du_cli_table_add(table, "%s", name);
    for (int i = 0; i < N_COUNTS; i++) {
        du_cli_table_add(table, "%.1f", values[i] * scale);
    }
    du_cli_table_add(table, "%s", unit);
}

static du_err print_limits(const limits *l, du_diag *diag) {
    du_cli_table table = {.n_columns = N_COUNTS + 2, .right = "lrrl"};
    du_cli_table_add(&table, "limit");
    for (int i = 0; i < N_COUNTS; i++) {
        du_cli_table_add(&table, "%lld thread%s", (long long)l->n_threads[i],
                         l->n_threads[i] == 1 ? "" : "s");
    }
    du_cli_table_add(&table, " ");
    add_row(&table, "read, huge pages", "GB/s", l->read, 1e-9);
    add_row(&table, "read, 4 KiB pages", "GB/s", l->read_4k, 1e-9);
    for (int p = 0; p < DU_PROBE_COUNT; p++) {
        if (l->peaks[p][0] > 0) {
            add_row(&table, probe_names[p], "GOP/s", l->peaks[p], 1e-9);
        }
    }
    return du_cli_table_print(&table, stdout, diag);
}

static du_err print_text(const limits *l, const char *isa, du_diag *diag) {
    char name[96], pages[24], memory[24], available[24], size[24];
    du_machine_name(name, sizeof name);
    du_machine_huge_pages(pages, sizeof pages);
    printf("processor   %s, %lld cores to compute with, kernels %s\n", name[0] ? name : "?",
           (long long)du_cpu_n_cores(), isa);
    du_cache caches[CACHES_MAX];
    int64_t n = du_machine_caches(caches, CACHES_MAX);
    printf("caches     ");
    for (int64_t i = 0; i < n; i++) {
        printf("%s L%d%s %s", i ? "," : "", caches[i].level,
               caches[i].type == 'u'   ? ""
               : caches[i].type == 'd' ? "d"
                                       : "i",
               du_cli_bytes(size, caches[i].bytes));
    }
    printf("%s\n", n ? "" : " ?");
    int64_t nodes = du_machine_n_nodes();
    printf("memory      %s, %s available, %lld NUMA node%s, huge pages %s\n\n",
           du_cli_bytes(memory, du_machine_memory_bytes()),
           du_cli_bytes(available, du_mem_available_bytes()), (long long)nodes,
           nodes == 1 ? "" : "s", pages[0] ? pages : "?");
    return print_limits(l, diag);
}

static json_t *json_counts(const double values[N_COUNTS]) {
    return values[0] > 0 ? json_pack("[f, f]", values[0], values[1]) : json_null();
}

static du_err print_json(const limits *l, const char *isa, du_diag *diag) {
    char name[96], pages[24];
    du_machine_name(name, sizeof name);
    du_machine_huge_pages(pages, sizeof pages);
    du_cache caches[CACHES_MAX];
    int64_t n = du_machine_caches(caches, CACHES_MAX);
    json_t *list = json_array(), *peaks = json_object();
    for (int64_t i = 0; i < n; i++) {
        char type[2] = {caches[i].type, '\0'};
        json_array_append_new(list, json_pack("{s:i, s:s, s:I, s:I}", "level", caches[i].level,
                                              "type", type, "bytes", (json_int_t)caches[i].bytes,
                                              "shared", (json_int_t)caches[i].shared));
    }
    for (int p = 0; p < DU_PROBE_COUNT; p++) {
        json_object_set_new(peaks, probe_names[p], json_counts(l->peaks[p]));
    }
    json_t *value = json_pack("{s:s, s:s, s:I, s:o, s:I, s:I, s:I, s:s, s:[I, I], s:o, s:o, s:o}",
                              "processor", name, "isa", isa, "cores", (json_int_t)du_cpu_n_cores(),
                              "caches", list, "memory_bytes", (json_int_t)du_machine_memory_bytes(),
                              "memory_available_bytes", (json_int_t)du_mem_available_bytes(),
                              "numa_nodes", (json_int_t)du_machine_n_nodes(), "huge_pages", pages,
                              "threads", (json_int_t)l->n_threads[0], (json_int_t)l->n_threads[1],
                              "read_bytes_per_s", json_counts(l->read), "read_4k_bytes_per_s",
                              json_counts(l->read_4k), "ops_per_s", peaks);
    return du_cli_print_json(value, diag);
}

du_err du_cli_machine(const du_kern *kern, int64_t n_threads, bool pin, bool as_json,
                      du_diag *diag) {
    limits l;
    du_err err = measure(&l, kern, n_threads, pin, diag);
    const char *isa = du_isa_name(kern->isa);
    return err ? err : as_json ? print_json(&l, isa, diag) : print_text(&l, isa, diag);
}
