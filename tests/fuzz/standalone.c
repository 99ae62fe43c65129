/* Runs a fuzz target on files, or on all files of folders: regressions without a fuzzer. One TAP
 * line per input; an input that breaks something ends the program. */
#include <dirent.h>
#include <sys/stat.h>

#include "base/file.h"
#include "fuzz.h"

enum { INPUT_BYTES_MAX = 64 << 20 };

static int n_run;

static int run_file(const char *path) {
    du_diag diag;
    du_diag_reset(&diag);
    char *bytes = NULL;
    size_t len = 0;
    if (du_file_read(&bytes, &len, path, INPUT_BYTES_MAX, &diag) != DU_OK) {
        printf("not ok %d - %s\n", ++n_run, diag.msg);
        return 1;
    }
    /* A block of exactly its size, so that reads beyond are seen. */
    uint8_t *exact = malloc(len ? len : 1);
    if (!exact) {
        return 1;
    }
    memcpy(exact, bytes, len);
    du_free(bytes);
    int64_t live = du_mem_get_stats().n_live;
    LLVMFuzzerTestOneInput(exact, len);
    int64_t leaked = du_mem_get_stats().n_live - live;
    free(exact);
    const char *slash = strrchr(path, '/');
    printf("%s %d - %s\n", leaked ? "not ok" : "ok", ++n_run, slash ? slash + 1 : path);
    fflush(stdout);
    return leaked != 0;
}

static int run_folder(const char *path) {
    struct dirent **entries;
    int n = scandir(path, &entries, NULL, alphasort), failed = 0;
    for (int i = 0; i < n; i++) {
        char *file = entries[i]->d_name[0] == '.' ? NULL : du_path_join(path, entries[i]->d_name);
        failed |= file ? run_file(file) : 0;
        du_free(file);
        free(entries[i]);
    }
    if (n >= 0) {
        free(entries);
    }
    return failed;
}

int main(int argc, char **argv) {
    int failed = 0;
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0); /* as libFuzzer does: what it sets up stays */
    for (int i = 1; i < argc; i++) {
        failed |= du_dir_exists(argv[i]) ? run_folder(argv[i]) : run_file(argv[i]);
    }
    if (n_run == 0) {
        printf("not ok 1 - no input given\n");
    }
    return failed || n_run == 0;
}
