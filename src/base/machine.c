#include "base/machine.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    char path[256], line[64], *end;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    read_line(path, line, sizeof line);
    long long v = strtoll(line, &end, 10);
    return end == line ? -1 : *end == 'K' ? v * 1024 : v;
}

/* How many numbers a list such as 0-3,8 names; 0 when it cannot be read. */
static int64_t count_list(const char *path) {
    char line[1024];
    read_line(path, line, sizeof line);
    int64_t n = 0;
    for (char *at = line, *end; *at; at = *end == ',' ? end + 1 : end) {
        long long first = strtoll(at, &end, 10), last = first;
        if (end == at) {
            return n;
        }
        if (*end == '-') {
            last = strtoll(end + 1, &end, 10);
        }
        n += last - first + 1;
        if (*end != ',') {
            return n;
        }
    }
    return n;
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

int64_t du_machine_n_nodes(void) {
    int64_t n = count_list("/sys/devices/system/node/has_memory");
    return n > 0 ? n : 1;
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
