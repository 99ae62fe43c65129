/* The thread pool.
 *
 * A job's tasks are cut into as many ranges of neighbours as there are threads. A thread takes
 * those of its own range, in order, so that it reads on in memory where it stopped, and the same
 * rows of a matrix in every pass; then what is left in the other ranges. Of many small tasks it
 * claims several at once, fewer towards the end of a range. A range is published by
 * one 64-bit ticket, (epoch << 32 | tasks left). A thread claims a task by lowering the count with
 * compare-and-swap; the epoch in the upper half makes a claim on a finished job fail, so a thread
 * that was descheduled between looking and claiming can do no harm. The caller works too and waits
 * for *tasks* to be done, never for a thread to arrive: a thread that the system does not run costs
 * nothing.
 *
 * Waiting threads spin for SPIN_S, since the next layer's job comes soon, and then sleep in a
 * futex, so that an idle pool uses no processor time, and one whose thread has lost its core to
 * another process leaves the other cores to those that can use them. */
#include "base/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/mem.h"

/* How long a thread looks for the next job, or the caller for the last task, before it sleeps:
 * docs/KERNELS.md has the measurement. Waking costs some 10 us, more on a virtual machine. */
#define SPIN_S 50e-6
enum {
    N_LOOKS = 64, /* between two looks at the clock */
    CLAIMS = 32,  /* part of what is left of a range that is claimed at once */
};

typedef struct {
    du_pool *pool;
    pthread_t thread;
    int64_t index;
} worker;

typedef struct {
    _Alignas(64) _Atomic uint64_t ticket;
} range;

struct du_pool {
    /* The job: written by the caller while no ticket counts a task, then published by tickets. */
    _Atomic(du_task_fn *) fn;
    _Atomic(void *) arg;
    _Atomic int64_t n_tasks;
    range *ranges;                        /* [n_threads] */
    uint32_t epoch;                       /* of the last job, the caller's */
    _Alignas(64) _Atomic int64_t n_done;  /* tasks finished of the current job */
    _Alignas(64) _Atomic uint32_t signal; /* counts published jobs; sleeping workers wait on it */
    _Atomic uint32_t n_sleeping;
    _Atomic uint32_t caller_sleeps; /* futex word: 1 while the caller waits for n_done */
    atomic_bool stop;
    bool pin, pinned; /* workers are to be; the caller is */
    cpu_set_t before; /* where the caller might run before it was pinned */
    int64_t n_threads;
    int64_t n_started;
    worker *workers; /* n_threads - 1 */
};

static void futex_wait(_Atomic uint32_t *word, uint32_t expected) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The first task of a range; of the range behind the last, the number of tasks. */
static int64_t first_of_range(int64_t n_tasks, int64_t n_ranges, int64_t i_range) {
    return n_tasks * i_range / n_ranges;
}

/* How many tasks are claimed at once where so many are left of a range. */
static int64_t claim_of(int64_t n_left) {
    return n_left < 2 * CLAIMS ? 1 : n_left / CLAIMS;
}

/* Claims and runs tasks of a range of the published job until none is left. */
static void work_range(du_pool *pool, int64_t i_range, int64_t i_thread) {
    _Atomic uint64_t *at = &pool->ranges[i_range].ticket;
    uint64_t ticket = atomic_load_explicit(at, memory_order_acquire);
    while ((uint32_t)ticket > 0) {
        du_task_fn *fn = atomic_load_explicit(&pool->fn, memory_order_relaxed);
        void *arg = atomic_load_explicit(&pool->arg, memory_order_relaxed);
        int64_t n_tasks = atomic_load_explicit(&pool->n_tasks, memory_order_relaxed);
        int64_t n_left = (int64_t)(uint32_t)ticket, n = claim_of(n_left);
        if (!atomic_compare_exchange_weak_explicit(at, &ticket, ticket - (uint64_t)n,
                                                   memory_order_acq_rel, memory_order_acquire)) {
            continue;
        }
        int64_t begin = first_of_range(n_tasks, pool->n_threads, i_range + 1) - n_left;
        for (int64_t i = begin; i < begin + n; i++) {
            fn(arg, i, i_thread);
        }
        int64_t done = atomic_fetch_add(&pool->n_done, n) + n;
        if (done == n_tasks && atomic_exchange(&pool->caller_sleeps, 0)) {
            futex_wake(&pool->caller_sleeps, 1);
        }
        ticket = atomic_load_explicit(at, memory_order_acquire);
    }
}

/* The thread's own range, then what the others have left. */
static void work(du_pool *pool, int64_t i_thread) {
    for (int64_t i = 0; i < pool->n_threads; i++) {
        work_range(pool, (i_thread + i) % pool->n_threads, i_thread);
    }
}

/* The core of thread `index` alone. */
static cpu_set_t core_of(int64_t index) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(du_cpu_of_thread(index), &one);
    return one;
}

static bool has_signal(du_pool *pool, int64_t seen) {
    return atomic_load_explicit(&pool->signal, memory_order_acquire) != (uint32_t)seen;
}

static bool is_done(du_pool *pool, int64_t n_tasks) {
    return atomic_load_explicit(&pool->n_done, memory_order_acquire) == n_tasks;
}

/* Looks for what is waited for during SPIN_S; false: it did not come. */
static bool spin(du_pool *pool, bool (*came)(du_pool *, int64_t), int64_t arg) {
    double end = 0;
    do {
        for (int i = 0; i < N_LOOKS; i++) {
            if (came(pool, arg)) {
                return true;
            }
            relax();
        }
        double now = du_clock_s();
        end = end > 0 ? end : now + SPIN_S;
        if (now >= end) {
            return false;
        }
    } while (true);
}

static void wait_for_signal(du_pool *pool, uint32_t seen) {
    if (spin(pool, has_signal, seen)) {
        return;
    }
    atomic_fetch_add(&pool->n_sleeping, 1);
    while (atomic_load(&pool->signal) == seen) {
        futex_wait(&pool->signal, seen);
    }
    atomic_fetch_sub(&pool->n_sleeping, 1);
}

static void *worker_main(void *arg) {
    worker *w = arg;
    du_pool *pool = w->pool;
    uint32_t seen = 0;
    for (;;) {
        wait_for_signal(pool, seen);
        seen = atomic_load(&pool->signal);
        if (atomic_load(&pool->stop)) {
            return NULL;
        }
        work(pool, w->index);
    }
}

static void publish_signal(du_pool *pool) {
    atomic_fetch_add(&pool->signal, 1);
    if (atomic_load(&pool->n_sleeping) > 0) {
        futex_wake(&pool->signal, INT_MAX);
    }
}

/* A worker that is pinned begins on its core: on that of its creator it might never run. */
static bool start_worker(worker *w) {
    pthread_attr_t attr;
    cpu_set_t core = core_of(w->index);
    if (pthread_attr_init(&attr) != 0) {
        return false;
    }
    bool placed = !w->pool->pin || pthread_attr_setaffinity_np(&attr, sizeof core, &core) == 0;
    bool started = placed && pthread_create(&w->thread, &attr, worker_main, w) == 0;
    pthread_attr_destroy(&attr);
    return started;
}

du_err du_pool_new(du_pool **out, int64_t n_threads, bool pin, du_diag *diag) {
    if (n_threads < 1 || n_threads > DU_POOL_THREADS_MAX) {
        return du_fail(diag, DU_ELIMIT, "%lld threads: not between 1 and %d", (long long)n_threads,
                       DU_POOL_THREADS_MAX);
    }
    du_pool *pool = du_alloc_aligned(sizeof *pool);
    if (!pool) {
        return du_fail_nomem(diag, "the thread pool");
    }
    *pool = (du_pool){.n_threads = n_threads, .pin = pin};
    pool->workers = du_alloc_zero((size_t)n_threads, sizeof *pool->workers);
    pool->ranges = du_alloc_aligned((size_t)n_threads * sizeof *pool->ranges);
    if (!pool->workers || !pool->ranges) {
        du_pool_free(pool);
        return du_fail_nomem(diag, "the thread pool");
    }
    for (int64_t i = 0; i < n_threads; i++) {
        atomic_init(&pool->ranges[i].ticket, 0);
    }
    for (int64_t i = 0; i < n_threads - 1; i++) {
        worker *w = &pool->workers[i];
        *w = (worker){.pool = pool, .index = i + 1};
        if (!start_worker(w)) {
            du_pool_free(pool);
            return du_fail(diag, DU_ELIMIT, "the system gives no %lld threads: ask for fewer",
                           (long long)n_threads);
        }
        pool->n_started++;
    }
    if (pin) {
        sched_getaffinity(0, sizeof pool->before, &pool->before);
        cpu_set_t core = core_of(0);
        sched_setaffinity(0, sizeof core, &core);
        pool->pinned = true;
    }
    *out = pool;
    return DU_OK;
}

void du_pool_free(du_pool *pool) {
    if (!pool) {
        return;
    }
    atomic_store(&pool->stop, true);
    publish_signal(pool);
    for (int64_t i = 0; i < pool->n_started; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    if (pool->pinned) {
        sched_setaffinity(0, sizeof pool->before, &pool->before);
    }
    du_free(pool->workers);
    du_free(pool->ranges);
    du_free(pool);
}

int64_t du_pool_n_threads(const du_pool *pool) {
    return pool ? pool->n_threads : 1;
}

static void wait_until_done(du_pool *pool, int64_t n_tasks) {
    if (spin(pool, is_done, n_tasks)) {
        return;
    }
    while (atomic_load(&pool->n_done) != n_tasks) {
        atomic_store(&pool->caller_sleeps, 1);
        if (atomic_load(&pool->n_done) == n_tasks) {
            break;
        }
        futex_wait(&pool->caller_sleeps, 1);
    }
    atomic_store(&pool->caller_sleeps, 0);
}

void du_pool_run(du_pool *pool, du_task_fn *fn, void *arg, int64_t n_tasks) {
    if (!pool || pool->n_threads == 1 || n_tasks <= 1) {
        for (int64_t i = 0; i < n_tasks; i++) {
            fn(arg, i, 0);
        }
        return;
    }
    DU_CHECK(n_tasks <= INT32_MAX);
    atomic_store_explicit(&pool->fn, fn, memory_order_relaxed);
    atomic_store_explicit(&pool->arg, arg, memory_order_relaxed);
    atomic_store_explicit(&pool->n_tasks, n_tasks, memory_order_relaxed);
    atomic_store_explicit(&pool->n_done, 0, memory_order_relaxed);
    uint64_t epoch = (uint64_t)++pool->epoch << 32;
    for (int64_t i = 0; i < pool->n_threads; i++) {
        int64_t first = first_of_range(n_tasks, pool->n_threads, i);
        int64_t end = first_of_range(n_tasks, pool->n_threads, i + 1);
        atomic_store_explicit(&pool->ranges[i].ticket, epoch | (uint64_t)(end - first),
                              memory_order_release);
    }
    publish_signal(pool);
    work(pool, 0);
    wait_until_done(pool, n_tasks);
}

typedef struct {
    du_try_fn *fn;
    void *arg;
    _Atomic int64_t i_failed; /* the first task that has, n_tasks: none */
    pthread_mutex_t lock;     /* guards err, diag and lowering i_failed */
    du_err err;
    du_diag diag;
} attempt;

static void try_task(void *arg, int64_t i_task, int64_t i_thread) {
    attempt *a = arg;
    if (i_task > atomic_load(&a->i_failed)) {
        return;
    }
    du_diag diag;
    du_diag_reset(&diag);
    du_err err = a->fn(a->arg, i_task, i_thread, &diag);
    if (err == DU_OK) {
        return;
    }
    pthread_mutex_lock(&a->lock);
    if (i_task < atomic_load(&a->i_failed)) {
        atomic_store(&a->i_failed, i_task);
        a->err = err;
        a->diag = diag;
    }
    pthread_mutex_unlock(&a->lock);
}

du_err du_pool_try(du_pool *pool, du_try_fn *fn, void *arg, int64_t n_tasks, du_diag *diag) {
    attempt a = {.fn = fn, .arg = arg};
    atomic_init(&a.i_failed, n_tasks);
    pthread_mutex_init(&a.lock, NULL);
    du_pool_run(pool, try_task, &a, n_tasks);
    pthread_mutex_destroy(&a.lock);
    if (a.err != DU_OK && diag && diag->code == DU_OK) {
        *diag = a.diag;
    }
    return a.err;
}
