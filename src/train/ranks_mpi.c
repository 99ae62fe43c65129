/* Ranks by MPI: a plug-in (train/ranks.h), the only file that knows of MPI. It stands alone: of
 * dure it uses the header. */
#include <mpi.h>
#include <time.h>

#include "train/ranks.h"

__attribute__((visibility("default"))) du_ranks_link_open_fn du_ranks_link_open;

static int rank, n_ranks;

/* Until all requests are done. MPI's own waiting spins, which takes cores from ranks that compute:
 * after a short while this one sleeps, at most a millisecond at a time. */
static int wait_for(int n, MPI_Request *requests) {
    enum { SPINS = 1000, SLEEP_NS = 20000, SLEEP_NS_MAX = 1000000 };
    int done = 0, failed = MPI_SUCCESS;
    long sleep_ns = SLEEP_NS;
    for (int i = 0; !done && !failed; i++) {
        failed = MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE);
        if (i >= SPINS && !done && !failed) {
            nanosleep(&(struct timespec){0, sleep_ns}, NULL);
            sleep_ns = sleep_ns < SLEEP_NS_MAX / 2 ? 2 * sleep_ns : SLEEP_NS_MAX;
        }
    }
    return failed;
}

static const char *exchange(const du_ranks_part *send, const du_ranks_part *receive) {
    static MPI_Request requests[2 * DU_RANKS_MAX];
    int n = 0, failed = MPI_SUCCESS;
    for (int i = 0; i < n_ranks && !failed; i++) {
        if (i != rank && receive[i].n_bytes > 0) {
            failed = MPI_Irecv(receive[i].data, (int)receive[i].n_bytes, MPI_BYTE, i, 0,
                               MPI_COMM_WORLD, &requests[n++]);
        }
    }
    for (int k = 1; k < n_ranks && !failed; k++) {
        int i = (rank + k) % n_ranks; /* not all to the same one at once */
        if (send[i].n_bytes > 0) {
            failed = MPI_Isend(send[i].data, (int)send[i].n_bytes, MPI_BYTE, i, 0, MPI_COMM_WORLD,
                               &requests[n++]);
        }
    }
    failed = failed ? failed : wait_for(n, requests);
    return failed ? "a rank cannot be reached any more" : NULL;
}

static void end(void) {
    MPI_Finalize();
}

const char *du_ranks_link_open(du_ranks_link *out, int version) {
    int provided, n_here;
    MPI_Comm here;
    if (version != DU_RANKS_LINK_VERSION) {
        return "belongs to another version of dure";
    }
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        return "MPI cannot be started";
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here);
    MPI_Comm_size(here, &n_here);
    MPI_Comm_free(&here);
    *out = (du_ranks_link){rank, n_ranks, n_here, exchange, end};
    return NULL;
}
