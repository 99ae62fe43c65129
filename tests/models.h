/* The model fixtures of tests/golden/models, opened for tests of the forward pass. */
#ifndef DU_TESTS_MODELS_H
#define DU_TESTS_MODELS_H

#include <dirent.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/mem.h"
#include "infer/session.h"
#include "test.h"

#define MODELS_DIR DURE_SOURCE_DIR "/tests/golden/models"

/* Names of the fixtures, sorted; n of them. */
static inline int64_t list_models(char names[][64], int64_t max) {
    struct dirent **entries;
    int n_entries = scandir(MODELS_DIR, &entries, NULL, alphasort);
    int64_t n = 0;
    assert_true(n_entries > 0);
    for (int i = 0; i < n_entries; i++) {
        const char *name = entries[i]->d_name;
        if (name[0] != '.' && !strchr(name, '.')) {
            assert_true(n < max);
            snprintf(names[n++], 64, "%.63s", name);
        }
        free(entries[i]);
    }
    free(entries);
    return n;
}

/* White-space separated ids of MODELS_DIR/name/file. */
static inline int64_t read_ids(const char *name, const char *file, int32_t *ids, int64_t max) {
    char path[512];
    snprintf(path, sizeof path, MODELS_DIR "/%s/%s", name, file);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    int64_t n = 0;
    while (n < max && fscanf(f, "%d", &ids[n]) == 1) {
        n++;
    }
    fclose(f);
    return n;
}

static inline du_model *open_fixture(const char *name) {
    char path[512];
    du_diag diag;
    du_diag_reset(&diag);
    du_model *model;
    snprintf(path, sizeof path, MODELS_DIR "/%s", name);
    assert_ok(du_model_open(&model, path, &diag), &diag);
    return model;
}

static inline du_infer *open_infer(const du_model *model, du_infer_params params) {
    du_diag diag;
    du_diag_reset(&diag);
    du_infer *inf;
    if (params.n_ctx == 0) {
        params.n_ctx = 256;
    }
    const char *isa = getenv("DURE_TEST_ISA"); /* the level under test; the best one when unset */
    if (isa && !params.force_isa) {
        assert_true(du_isa_find(&params.isa, isa));
        params.force_isa = true;
    }
    assert_ok(du_infer_new(&inf, model, &params, &diag), &diag);
    return inf;
}

static inline du_session *open_session(du_infer *inf) {
    du_diag diag;
    du_diag_reset(&diag);
    du_session *s;
    assert_ok(du_session_new(&s, inf, &diag), &diag);
    return s;
}

typedef struct {
    float *rows; /* [n, V] */
    int64_t V, first;
} row_store;

static inline bool store_row(void *user, int64_t i, const float *logits) {
    row_store *store = user;
    memcpy(store->rows + (i - store->first) * store->V, logits, (size_t)store->V * sizeof(float));
    return false;
}

/* Logits after each of the n tokens, computed from an empty session; free with du_free. */
static inline float *all_logits(du_session *s, const int32_t *tokens, int64_t n) {
    int64_t V = du_infer_model(du_session_infer(s))->hp.n_vocab;
    row_store store = {du_alloc((size_t)(n * V) * sizeof(float)), V, 0};
    du_diag diag;
    du_diag_reset(&diag);
    du_session_truncate(s, 0);
    assert_ok(du_session_sync_rows(s, tokens, n, 0, store_row, &store, &diag), &diag);
    return store.rows;
}

/* Those of a model by itself, with a cache that rounds nothing. */
static inline float *logits_of(const du_model *model, const int32_t *tokens, int64_t n) {
    du_infer *inf = open_infer(model, (du_infer_params){.cache_type = DU_F32});
    du_session *s = open_session(inf);
    float *logits = all_logits(s, tokens, n);
    du_session_free(s);
    du_infer_free(inf);
    return logits;
}

#endif
