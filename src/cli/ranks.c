#include "cli/ranks.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

static const char name[] = "libdure-mpi.so";

/* DIR/between/libdure-mpi.so where it exists; du_free it. NULL: there is none. */
static char *plugin_in(const char *dir, const char *between) {
    char *folder = du_path_join(dir, between);
    char *path = folder ? du_path_join(folder, name) : NULL;
    du_free(folder);
    if (path && access(path, R_OK) != 0) {
        du_free(path);
        path = NULL;
    }
    return path;
}

/* Beside the program where it was built, or where `make install` puts it. */
static char *find_plugin(void) {
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (!slash) {
        return NULL;
    }
    *slash = '\0';
    char *path = plugin_in(self, ".");
    return path ? path : plugin_in(self, DURE_PLUGIN_DIR);
}

bool du_cli_ranks_wanted(void) {
    const char *n = getenv("OMPI_COMM_WORLD_SIZE"); /* set by Open MPI's mpirun */
    return n && strcmp(n, "1") != 0;
}

du_err du_cli_ranks_open(du_ranks **out, du_diag *diag) {
    if (!du_cli_ranks_wanted()) {
        return DU_OK;
    }
    char *plugin = find_plugin();
    du_err err = plugin ? du_ranks_open(out, plugin, diag)
                        : du_fail(diag, DU_EUNSUPPORTED,
                                  "mpirun started several processes, but this dure was built "
                                  "without MPI: install libopenmpi-dev and build it again");
    du_free(plugin);
    return err;
}
