/* What strips.c (room in memory) and strips_file.c (a file beside the model) share. */
#ifndef DU_MODEL_STRIPS_INT_H
#define DU_MODEL_STRIPS_INT_H

#include <pthread.h>

#include "base/file.h"
#include "model/strips.h"

struct du_model_strips {
    pthread_mutex_t lock; /* guards all below, and the data of every du_strips of the model */
    uint8_t *bytes;       /* room in memory; NULL: none */
    size_t n_bytes;
    du_map map; /* a file of written strips; empty: none */
};

/* Called for every matrix that products read and that is worth a strip, in an order that follows
 * from the model alone. */
typedef void du_strips_visit_fn(void *user, du_mat *m);
void du_strips_visit(const du_model *model, du_strips_visit_fn *fn, void *user);

/* Have the matrices got their places? They keep them as long as the model lives. */
static inline bool du_strips_placed(const struct du_model_strips *s) {
    return s->bytes || s->map.data;
}

#endif
