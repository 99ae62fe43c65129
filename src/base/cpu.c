#include "base/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/machine.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#endif

static du_cpu_features features;
static pthread_once_t features_once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)
/* The register sets that the operating system saves (Intel SDM vol. 1, 13.3: XCR0). */
static uint64_t xcr0(void) {
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return ((uint64_t)hi << 32) | lo;
}

/* May this process use the tile registers? Linux wants to be asked once, for all threads, before
 * their state is made (Documentation/arch/x86/xstate.rst: ARCH_REQ_XCOMP_PERM of XTILEDATA). */
static bool tiles_granted(void) {
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

static void read_features(void) {
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) {
        return;
    }
    bool osxsave = c >> 27 & 1, fma = c >> 12 & 1, f16c = c >> 29 & 1;
    uint64_t saved = osxsave ? xcr0() : 0;
    bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        return;
    }
    bool bmi2 = b >> 8 & 1;
    features.avx2 = ymm && fma && f16c && bmi2 && (b >> 5 & 1);
    bool f = b >> 16 & 1, dq = b >> 17 & 1, bw = b >> 30 & 1, vl = b >> 31 & 1;
    features.avx512 = features.avx2 && zmm && f && dq && bw && vl && (c >> 11 & 1);
    bool has_tiles = (saved & 0x60000) == 0x60000 && (d >> 24 & 1);
    bool tiles = features.avx512 && has_tiles && tiles_granted();
    features.amx_bf16 = tiles && (d >> 22 & 1);
    features.amx_int8 = tiles && (d >> 25 & 1);
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        features.avx_vnni = features.avx2 && (a >> 4 & 1);
        features.avx512_bf16 = features.avx512 && (a >> 5 & 1);
    }
}
#elif defined(__aarch64__)
static void read_features(void) {
    features.neon = true;
    features.dotprod = getauxval(AT_HWCAP) >> 20 & 1; /* HWCAP_ASIMDDP */
}
#else
static void read_features(void) {
}
#endif

const du_cpu_features *du_cpu_get_features(void) {
    pthread_once(&features_once, read_features);
    return &features;
}

#define DU_ISA_NAME(code, name) name,
static const char *const isa_names[] = {DU_ISA_LIST(DU_ISA_NAME)};
#undef DU_ISA_NAME

const char *du_isa_name(du_isa isa) {
    return isa_names[isa];
}

bool du_isa_find(du_isa *out, const char *name) {
    for (int i = 0; i < DU_ISA_COUNT; i++) {
        if (strcmp(isa_names[i], name) == 0) {
            *out = (du_isa)i;
            return true;
        }
    }
    return false;
}

bool du_isa_available(du_isa isa) {
    const du_cpu_features *f = du_cpu_get_features();
    switch (isa) {
    case DU_ISA_C:
        return true;
    case DU_ISA_AVX2:
        return f->avx2;
    case DU_ISA_AVX512:
        return f->avx512;
    case DU_ISA_NEON:
        return f->neon;
    default:
        return false;
    }
}

du_isa du_isa_best(void) {
    for (int i = DU_ISA_COUNT - 1; i > 0; i--) {
        if (du_isa_available((du_isa)i)) {
            return (du_isa)i;
        }
    }
    return DU_ISA_C;
}

/* One number from a small file of /proc or /sys; -1 when there is none. */
static int64_t read_number(const char *path) {
    FILE *f = fopen(path, "re");
    if (!f) {
        return -1;
    }
    long long v;
    int n = fscanf(f, "%lld", &v);
    fclose(f);
    return n == 1 ? v : -1;
}

/* The processors this process may run on, one of each core first. */
static int cpus[CPU_SETSIZE];
static int64_t n_cpus, n_cores;
static pthread_once_t cpus_once = PTHREAD_ONCE_INIT;

/* Is there an allowed processor before this one on the same core? */
static bool has_earlier_sibling(int cpu, const cpu_set_t *allowed) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    int64_t first = read_number(path); /* the list begins with the core's first thread */
    return first >= 0 && first < cpu && CPU_ISSET((int)first, allowed);
}

static void list_cpus(void) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        CPU_ZERO(&allowed);
    }
    for (int later = 0; later < 2; later++) {
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            if (CPU_ISSET(cpu, &allowed) && has_earlier_sibling(cpu, &allowed) == (later == 1)) {
                cpus[n_cpus++] = cpu;
            }
        }
        n_cores = later == 0 ? n_cpus : n_cores;
    }
    n_cores = n_cores > 0 ? n_cores : 1;
}

int64_t du_cpu_n_cores(void) {
    pthread_once(&cpus_once, list_cpus);
    int64_t quota = du_machine_cpu_quota("/sys/fs/cgroup", "/proc/self/cgroup");
    return quota > 0 && quota < n_cores ? quota : n_cores;
}

int du_cpu_of_thread(int64_t index) {
    pthread_once(&cpus_once, list_cpus);
    return n_cpus > 0 ? cpus[index % n_cpus] : 0;
}

static int64_t meminfo_available(void) {
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f) {
        return 0;
    }
    char line[128];
    long long kib = 0;
    while (fgets(line, sizeof line, f) && sscanf(line, "MemAvailable: %lld kB", &kib) != 1) {
    }
    fclose(f);
    return kib * 1024;
}

/* What is left of the limit, at least 1; INT64_MAX: there is none. Less what stacks are mapped with
 * but hardly use: text/pretok.c's, those of threads. */
static int64_t address_space_left(void) {
    enum { STACK_BYTES = 64 << 20 };
    struct rlimit limit;
    int64_t pages = read_number("/proc/self/statm"); /* its first number is of all maps */
    if (pages < 0 || getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur > INT64_MAX) {
        return INT64_MAX;
    }
    int64_t most = (int64_t)limit.rlim_cur, used = pages * sysconf(_SC_PAGESIZE) + STACK_BYTES;
    return used < most ? most - used : 1;
}

int64_t du_mem_available_bytes(void) {
    int64_t machine = meminfo_available(), least = machine > 0 ? machine : INT64_MAX;
    int64_t group = du_machine_memory_left("/sys/fs/cgroup", "/proc/self/cgroup");
    const int64_t left[] = {group > 0 ? group : INT64_MAX, address_space_left()};
    for (int i = 0; i < 2; i++) {
        least = left[i] < least ? left[i] : least;
    }
    return least < INT64_MAX ? least : 0;
}
