/* What this machine and this process are made of, as the kernel tells in /sys and /proc. Everything
 * may be unknown: 0, or an empty text. */
#ifndef DU_BASE_MACHINE_H
#define DU_BASE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int level;
    char type;      /* 'd' data, 'i' instructions, 'u' both */
    int64_t bytes;  /* of one */
    int64_t shared; /* hardware threads that share one */
} du_cache;

/* The caches of processor 0, the nearest first, at most max. Returns how many. */
int64_t du_machine_caches(du_cache *out, int64_t max);

int64_t du_machine_memory_bytes(void);
int64_t du_machine_n_nodes(void); /* NUMA nodes with memory, at least 1 */

/* How many processors the control groups of this process let it keep busy on average (cpu.max, or
 * cpu.cfs_quota_us of version 1; the smallest of its group and those above), rounded up; 0: no
 * limit. root: where groups are mounted (/sys/fs/cgroup); self: which this process is in
 * (/proc/self/cgroup). */
int64_t du_machine_cpu_quota(const char *root, const char *self);

/* Bytes that the control groups of this process let it take yet, at least 1 (memory.max, or
 * memory.limit_in_bytes of version 1, less what is in use; the least of its group and those above);
 * 0: no limit. Pages of files that were read count as free, as they do in MemAvailable: a model
 * that lies in the page cache would otherwise leave no room to its next run. */
int64_t du_machine_memory_left(const char *root, const char *self);

/* Spreads the pages that this thread, and threads it starts later, will allocate over all NUMA
 * nodes in turn (set_mempolicy(2)): anonymous memory, and pages of files that are not in memory
 * yet. Returns false when there are several nodes and the kernel refuses. */
bool du_machine_interleave(void);

/* The processor's name into out [size], and which setting transparent huge pages have ("madvise").
 */
void du_machine_name(char *out, size_t size);
void du_machine_huge_pages(char *out, size_t size);

/* What this process has in memory, in bytes. */
typedef struct {
    int64_t peak;      /* resident at most, since the start or the last reset */
    int64_t anonymous; /* now, without pages of files */
    int64_t file;      /* now, pages of mapped files */
} du_resident;

du_resident du_machine_resident(void);
void du_machine_reset_peak(void);

/* Energy that processors and memory have used, by the running average power limit of Intel and AMD
 * (Linux Documentation/power/powercap/powercap.rst): zones named package-N, and dram beside them.
 * Counters in microjoules that begin at 0 again after their max_energy_range_uj. */
enum { DU_ENERGY_ZONES_MAX = 32 };
typedef struct {
    struct {
        char path[160]; /* the zone's folder */
        int64_t range_uj, last_uj;
    } zones[DU_ENERGY_ZONES_MAX];
    int64_t n_zones;
} du_energy;

/* Finds the zones under root (/sys/class/powercap) that this process may read. Returns whether
 * there are any. */
bool du_energy_open(du_energy *e, const char *root);

/* Joules since the last call, or since du_energy_open; right while no counter turns over twice in
 * between. Negative: a zone can no longer be read. */
double du_energy_used(du_energy *e);

#endif
