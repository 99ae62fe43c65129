#include "base/machine.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The first line of a small file into out, without its line feed; empty when there is none. */
static void read_line(const char *path, char *out, size_t size) {
    out[0] = '\0';
    FILE *f = fopen(path, "re");
    if (!f) {
        return;
    }
    if (!fgets(out, (int)size, f)) {
        out[0] = '\0';
    }
    fclose(f);
    out[strcspn(out, "\n")] = '\0';
}

/* A number in the file DIR/NAME; -1 when there is none. A K after it multiplies by 1024. */
static int64_t read_number(const char *dir, const char *name) {
    char path[512], line[64], *end;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    read_line(path, line, sizeof line);
    long long v = strtoll(line, &end, 10);
    return end == line ? -1 : *end == 'K' ? v * 1024 : v;
}

enum { LIST_MAX = 1024 };

/* The numbers below LIST_MAX that a list such as 0-3,8 names, into is_in [LIST_MAX]. Returns how
 * many; 0 when it cannot be read. */
static int64_t read_list(const char *path, bool *is_in) {
    char line[1024];
    read_line(path, line, sizeof line);
    int64_t n = 0;
    for (char *at = line, *end; *at; at = end + 1) {
        long long first = strtoll(at, &end, 10), last = first;
        if (end == at) {
            return n;
        }
        if (*end == '-') {
            last = strtoll(end + 1, &end, 10);
        }
        for (long long i = first < 0 ? 0 : first; i <= last && i < LIST_MAX; i++) {
            n += !is_in[i];
            is_in[i] = true;
        }
        if (*end != ',') {
            return n;
        }
    }
    return n;
}

static int64_t count_list(const char *path) {
    bool is_in[LIST_MAX] = {0};
    return read_list(path, is_in);
}

int64_t du_machine_caches(du_cache *out, int64_t max) {
    int64_t n = 0;
    for (int i = 0; n < max; i++) {
        char dir[96], path[128], type[16];
        snprintf(dir, sizeof dir, "/sys/devices/system/cpu/cpu0/cache/index%d", i);
        int64_t level = read_number(dir, "level"), bytes = read_number(dir, "size");
        if (level < 0) {
            return n;
        }
        snprintf(path, sizeof path, "%s/type", dir);
        read_line(path, type, sizeof type);
        snprintf(path, sizeof path, "%s/shared_cpu_list", dir);
        out[n++] = (du_cache){.level = (int)level,
                              .type = type[0] == 'D'   ? 'd'
                                      : type[0] == 'I' ? 'i'
                                                       : 'u',
                              .bytes = bytes > 0 ? bytes : 0,
                              .shared = count_list(path)};
    }
    return n;
}

int64_t du_machine_memory_bytes(void) {
    int64_t pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? pages * page : 0;
}

static const char nodes_path[] = "/sys/devices/system/node/has_memory";

int64_t du_machine_n_nodes(void) {
    int64_t n = count_list(nodes_path);
    return n > 0 ? n : 1;
}

bool du_machine_interleave(void) {
    enum { INTERLEAVE = 3, BITS = 64 }; /* MPOL_INTERLEAVE of linux/mempolicy.h */
    bool nodes[LIST_MAX] = {0};
    uint64_t mask[LIST_MAX / BITS] = {0};
    if (read_list(nodes_path, nodes) < 2) {
        return true;
    }
    for (int i = 0; i < LIST_MAX; i++) {
        mask[i / BITS] |= (uint64_t)nodes[i] << i % BITS;
    }
    return syscall(SYS_set_mempolicy, INTERLEAVE, mask, LIST_MAX + 1) == 0;
}

/* Processors of one group, rounded up; 0: no limit, or no such group. */
static int64_t quota_of(const char *dir) {
    char path[512], line[64];
    snprintf(path, sizeof path, "%s/cpu.max", dir); /* "max 100000", "150000 100000" */
    read_line(path, line, sizeof line);
    long long quota = -1, period = 0;
    if (sscanf(line, "%lld %lld", &quota, &period) != 2) {
        quota = read_number(dir, "cpu.cfs_quota_us"); /* -1: no limit */
        period = read_number(dir, "cpu.cfs_period_us");
    }
    return quota > 0 && period > 0 ? (quota + period - 1) / period : 0;
}

/* Bytes of the files that a group's processes have read, which the kernel gives back when it has
 * to: the lines inactive_file and active_file, in version 1 with total_ before them. */
static int64_t file_bytes_of(const char *dir, const char *before) {
    char path[512], line[128], name[64];
    long long bytes, sum = 0;
    size_t n = strlen(before);
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%63s %lld", name, &bytes) == 2 && strncmp(name, before, n) == 0 &&
            (strcmp(name + n, "inactive_file") == 0 || strcmp(name + n, "active_file") == 0)) {
            sum += bytes;
        }
    }
    if (f) {
        fclose(f);
    }
    return sum;
}

/* Bytes that one group may still take, at least 1; 0: no limit, or no such group. */
static int64_t memory_left_of(const char *dir) {
    int64_t limit = read_number(dir, "memory.max"), used = read_number(dir, "memory.current");
    const char *before = "";
    if (used < 0) {
        limit = read_number(dir, "memory.limit_in_bytes");
        used = read_number(dir, "memory.usage_in_bytes");
        before = "total_";
    }
    if (limit < 0 || used < 0) {
        return 0;
    }
    int64_t files = file_bytes_of(dir, before);
    used = files < used ? used - files : 0;
    return used < limit ? limit - used : 1;
}

/* What a group grants, from its folder; 0: no limit. */
typedef int64_t group_fn(const char *dir);

static int64_t less_of(int64_t a, int64_t b) {
    return a == 0 || (b > 0 && b < a) ? b : a;
}

/* The least that the group and those above it grant. mount is where the top one lies. */
static int64_t least_upwards(group_fn *of, const char *mount, const char *group) {
    char dir[400];
    int64_t least = 0;
    int n = snprintf(dir, sizeof dir, "%s%s", mount, group);
    if (n < 0 || n >= (int)sizeof dir) {
        return 0;
    }
    for (char *slash = dir + n; slash; slash = strrchr(dir + strlen(mount), '/')) {
        *slash = '\0';
        least = less_of(least, of(dir));
    }
    return least;
}

/* The least that the groups of the file `self` grant: those of version 2, and of version 1 those
 * whose kinds begin with `kind`. */
static int64_t least_of_groups(group_fn *of, const char *kind, const char *root, const char *self) {
    int64_t least = 0;
    FILE *f = fopen(self, "re");
    char line[400];
    while (f && fgets(line, sizeof line, f)) { /* "0::/a/b", or "4:cpu,cpuacct:/a/b" */
        line[strcspn(line, "\n")] = '\0';
        char *kinds = strchr(line, ':'), *group = kinds ? strchr(kinds + 1, ':') : NULL;
        if (!group) {
            continue;
        }
        *group++ = '\0';
        char mount[256];
        bool unified = kinds[1] == '\0', wanted = strncmp(kinds + 1, kind, strlen(kind)) == 0;
        snprintf(mount, sizeof mount, "%s%s%s", root, unified ? "" : "/", kinds + 1);
        if (unified || wanted) {
            least = less_of(least, least_upwards(of, mount, group));
        }
    }
    if (f) {
        fclose(f);
    }
    return least;
}

int64_t du_machine_cpu_quota(const char *root, const char *self) {
    return least_of_groups(quota_of, "cpu", root, self);
}

int64_t du_machine_memory_left(const char *root, const char *self) {
    return least_of_groups(memory_left_of, "memory", root, self);
}

void du_machine_name(char *out, size_t size) {
    out[0] = '\0';
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon && colon[1] == ' ') {
            snprintf(out, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
            break;
        }
    }
    if (f) {
        fclose(f);
    }
}

void du_machine_huge_pages(char *out, size_t size) {
    char line[128];
    read_line("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof line);
    const char *open = strchr(line, '['); /* always [madvise] never */
    snprintf(out, size, "%.*s", open ? (int)strcspn(open + 1, "]") : 0, open ? open + 1 : "");
}

du_resident du_machine_resident(void) {
    du_resident now = {0};
    int64_t shared = 0;
    const struct {
        const char *format;
        int64_t *to;
    } fields[] = {{"VmHWM: %lld kB", &now.peak},
                  {"RssAnon: %lld kB", &now.anonymous},
                  {"RssFile: %lld kB", &now.file},
                  {"RssShmem: %lld kB", &shared}};
    FILE *f = fopen("/proc/self/status", "re");
    char line[128];
    while (f && fgets(line, sizeof line, f)) {
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
            size_t name = strcspn(fields[i].format, ":");
            if (strncmp(line, fields[i].format, name + 1) == 0) {
                *fields[i].to = strtoll(line + name + 1, NULL, 10) * 1024;
            }
        }
    }
    if (f) {
        fclose(f);
    }
    now.anonymous += shared;
    return now;
}

void du_machine_reset_peak(void) {
    FILE *f = fopen("/proc/self/clear_refs", "we");
    if (f) {
        fputs("5\n", f); /* Linux Documentation/filesystems/proc.rst: resets VmHWM */
        fclose(f);
    }
}

/* Does this zone count? Packages hold cores and what is beside them; psys would hold them again. */
static bool is_counted(const char *dir) {
    char path[256], name[64];
    snprintf(path, sizeof path, "%s/name", dir);
    read_line(path, name, sizeof name);
    return strncmp(name, "package", 7) == 0 || strcmp(name, "dram") == 0;
}

bool du_energy_open(du_energy *e, const char *root) {
    *e = (du_energy){0};
    DIR *dir = opendir(root);
    for (struct dirent *entry; dir && e->n_zones < DU_ENERGY_ZONES_MAX && (entry = readdir(dir));) {
        char path[sizeof e->zones[0].path];
        int n = snprintf(path, sizeof path, "%s/%s", root, entry->d_name);
        if (strncmp(entry->d_name, "intel-rapl:", 11) != 0 || n >= (int)sizeof path ||
            !is_counted(path)) {
            continue;
        }
        int64_t now = read_number(path, "energy_uj"),
                range = read_number(path, "max_energy_range_uj");
        if (now >= 0 && range > 0) {
            memcpy(e->zones[e->n_zones].path, path, sizeof path);
            e->zones[e->n_zones].range_uj = range;
            e->zones[e->n_zones++].last_uj = now;
        }
    }
    if (dir) {
        closedir(dir);
    }
    return e->n_zones > 0;
}

double du_energy_used(du_energy *e) {
    double used_uj = 0;
    bool lost = false;
    for (int64_t i = 0; i < e->n_zones; i++) {
        int64_t now = read_number(e->zones[i].path, "energy_uj"), last = e->zones[i].last_uj;
        lost |= now < 0;
        used_uj += (double)(now < last ? now + e->zones[i].range_uj - last : now - last);
        e->zones[i].last_uj = now;
    }
    return lost || e->n_zones == 0 ? -1 : used_uj * 1e-6;
}
