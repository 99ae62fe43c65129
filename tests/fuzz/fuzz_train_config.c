/* The configuration of `dure train`: the input is a file of it, and each of its lines a --set. What
 * is taken can be kept and taken again, and is the same run. */
#include "base/file.h"
#include "base/json.h"
#include "folder.h"
#include "train/config.h"

/* As a checkpoint keeps it and a continued run compares it. */
static void check_kept(const du_train_config *config) {
    du_train_config again;
    json_t *kept = du_train_config_kept(config);
    FUZZ_CHECK(kept && du_train_config_init(&again, NULL) == DU_OK);
    FUZZ_CHECK(du_train_config_take(&again, kept, "kept", NULL) == DU_OK);
    FUZZ_CHECK(du_train_config_same_run(config, &again, NULL) == DU_OK);
    json_t *twice = du_train_config_kept(&again);
    FUZZ_CHECK(json_equal(kept, twice));
    json_decref(kept);
    json_decref(twice);
    du_train_config_done(&again);
}

static void read_file(const char *path) {
    du_train_config config;
    du_diag diag;
    du_diag_reset(&diag);
    FUZZ_CHECK(du_train_config_init(&config, NULL) == DU_OK);
    if (du_train_config_read(&config, path, &diag) == DU_OK) {
        check_kept(&config);
        if (du_train_config_check(&config, &diag) == DU_OK) {
            FUZZ_CHECK(config.steps > 0 && *config.out && config.batch_seqs > 0);
            FUZZ_CHECK(*config.data.tokens || *config.data.shards);
        }
    } else {
        FUZZ_CHECK(diag.code != DU_OK && diag.msg[0] != '\0');
    }
    du_train_config_done(&config);
}

static void set_lines(char *text) {
    du_train_config config;
    FUZZ_CHECK(du_train_config_init(&config, NULL) == DU_OK);
    for (char *line = text, *end; line; line = end) {
        end = strchr(line, '\n');
        if (end) {
            *end++ = '\0';
        }
        du_diag diag;
        du_diag_reset(&diag);
        du_err err = du_train_config_set_pair(&config, line, &diag);
        FUZZ_CHECK(err == DU_OK || (diag.code == err && diag.msg[0] != '\0'));
    }
    check_kept(&config);
    du_train_config_done(&config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    FUZZ_ONCE(fuzz_make_dir());
    fuzz_put("run.conf", data, size);
    read_file(fuzz_path("run.conf"));
    char *text = malloc(size + 1);
    FUZZ_CHECK(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    set_lines(text);
    free(text);
    return 0;
}
