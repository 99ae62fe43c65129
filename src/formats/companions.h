/* What goes with a model's weights from one Hugging Face directory into others: tokenizer files,
 * chat templates and generation settings as bytes, and keys of config.json. Held in memory, so that
 * many copies can be written after the source is gone. */
#ifndef DU_FORMATS_COMPANIONS_H
#define DU_FORMATS_COMPANIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

typedef struct {
    char *name;
    char *bytes; /* [n] */
    size_t n;
} du_companion;

/* Start from {0}. */
typedef struct {
    du_companion *files;
    size_t n, cap;
    json_t *config; /* merged into config.json; NULL: nothing */
} du_companions;

void du_companions_done(du_companions *c); /* frees and empties */

/* Is this the name of a file that goes with weights: tokenizer.json, ...? */
bool du_companions_has_name(const char *name);

/* Adds a copy of the bytes, or the text of a JSON value. Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_companions_add(du_companions *c, const char *name, const void *bytes, size_t n,
                         du_diag *diag);
DU_NODISCARD
du_err du_companions_add_json(du_companions *c, const char *name, const json_t *value,
                              du_diag *diag);

/* Sets a key of config. Takes the reference. Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_companions_set(du_companions *c, const char *key, json_t *value, du_diag *diag);

/* Adds what a directory has of such files. config is left alone. Returns DU_OK, DU_EIO, DU_ELIMIT,
 * DU_ENOMEM. */
DU_NODISCARD
du_err du_companions_read(du_companions *c, const char *dir, du_diag *diag);

/* Takes over the keys of a config.json that name tokens. Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_companions_take_ids(du_companions *c, const json_t *config, du_diag *diag);

/* Writes the files into a directory that exists. Returns DU_OK, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_companions_write(const du_companions *c, const char *dir, du_diag *diag);

#endif
