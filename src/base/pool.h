/* A pool of threads that shares out numbered tasks. */
#ifndef DU_BASE_POOL_H
#define DU_BASE_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

typedef struct du_pool du_pool;

enum { DU_POOL_THREADS_MAX = 1024 };

/* One task: i_task in [0, n_tasks), i_thread in [0, n_threads). */
typedef void du_task_fn(void *arg, int64_t i_task, int64_t i_thread);

/* Makes a pool of n_threads (at least 1), the calling thread being one of them.
 * pin  bind thread i to the i-th core (du_cpu_of_thread), until du_pool_free also the caller
 * Returns DU_OK, DU_ENOMEM, DU_ELIMIT (too many threads, or the system refuses one).
 * Free with du_pool_free, which takes NULL. */
DU_NODISCARD
du_err du_pool_new(du_pool **out, int64_t n_threads, bool pin, du_diag *diag);
void du_pool_free(du_pool *pool);

int64_t du_pool_n_threads(const du_pool *pool);

/* Runs fn(arg, i, thread) for i = 0 .. n_tasks-1 (at most 2^31), each exactly once, and returns
 * when all are done. A thread takes neighbouring tasks in order, about n_tasks / n_threads of them,
 * and what slower threads have left, so a result must not depend on i_thread. One caller at a time;
 * not from inside a task. pool NULL: in this thread.
 */
void du_pool_run(du_pool *pool, du_task_fn *fn, void *arg, int64_t n_tasks);

/* A task that can fail; *diag is its own and empty. */
typedef du_err du_try_fn(void *arg, int64_t i_task, int64_t i_thread, du_diag *diag);

/* As du_pool_run. Returns what the first task in their order that fails returned, with its
 * diagnostic; tasks behind it may have been left out, those before it have run. */
DU_NODISCARD
du_err du_pool_try(du_pool *pool, du_try_fn *fn, void *arg, int64_t n_tasks, du_diag *diag);

#endif
