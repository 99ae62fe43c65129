#include "model/strips.h"

#include "kern/strips.h"
#include "model/strips_int.h"
#include "nn/product.h"

static void visit(du_strips_visit_fn *fn, void *user, du_mat *mats, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (mats[i].data && du_dtype_is_block(mats[i].dtype) && mats[i].rows >= DU_STRIP_ROWS) {
            fn(user, &mats[i]);
        }
    }
}

void du_strips_visit(const du_model *model, du_strips_visit_fn *fn, void *user) {
    const du_arch *arch = model->arch;
    for (int64_t i = 0; i < arch->n_weights; i++) {
        const du_weight_def *def = &arch->weights[i];
        if (def->kind == DU_WEIGHT_VEC || def->read_only || def->role == DU_ROLE_EMBED) {
            continue;
        }
        for (int64_t layer = 0; layer < (def->in_layer ? model->hp.n_layer : 1); layer++) {
            if (!du_weight_def_in(def, &model->hp, layer)) {
                continue;
            }
            void *field = du_model_field(model, def, layer);
            if (def->kind == DU_WEIGHT_MAT) {
                visit(fn, user, field, 1);
            } else if (*(du_mat **)field) {
                visit(fn, user, *(du_mat **)field, du_weight_def_n(def, &model->hp));
            }
        }
    }
}

static void count(void *user, du_mat *m) {
    (void)m;
    ++*(size_t *)user;
}

static void attach(void *user, du_mat *m) {
    du_strips **next = user;
    m->strips = (*next)++;
    *m->strips = (du_strips){0};
}

du_err du_model_strips_init(du_model *model) {
    size_t n = 0;
    du_strips_visit(model, count, &n);
    du_strips *strips = du_model_alloc(model, n, sizeof *strips);
    model->strips = du_model_alloc(model, 1, sizeof *model->strips);
    if (!strips || !model->strips) {
        model->strips = NULL;
        return DU_ENOMEM;
    }
    *model->strips = (struct du_model_strips){0};
    pthread_mutex_init(&model->strips->lock, NULL);
    du_strips_visit(model, attach, &strips);
    return DU_OK;
}

void du_model_strips_done(du_model *model) {
    if (model->strips) {
        du_mem_unreserve(model->strips->bytes, model->strips->n_bytes);
        du_map_close(&model->strips->map);
        pthread_mutex_destroy(&model->strips->lock);
    }
}

typedef struct {
    const du_kern *kern;
    uint8_t *at; /* NULL while sizes are summed */
    size_t n_bytes;
} room;

static void place(void *user, du_mat *m) {
    room *r = user;
    if (r->kern->mm_strips[m->dtype]) {
        if (r->at) {
            m->strips->data = r->at + r->n_bytes;
        }
        r->n_bytes += du_strips_bytes(m);
    }
}

size_t du_model_strips_bytes(const du_model *model, const du_kern *kern) {
    room r = {.kern = kern};
    du_strips_visit(model, place, &r);
    return r.n_bytes;
}

bool du_model_strips_has_room(const du_model *model) {
    struct du_model_strips *s = model->strips;
    pthread_mutex_lock(&s->lock);
    bool has = du_strips_placed(s);
    pthread_mutex_unlock(&s->lock);
    return has;
}

bool du_model_strips_in_file(const du_model *model) {
    struct du_model_strips *s = model->strips;
    pthread_mutex_lock(&s->lock);
    bool in_file = s->map.data != NULL;
    pthread_mutex_unlock(&s->lock);
    return in_file;
}

du_err du_model_strips_reserve(const du_model *model, const du_kern *kern, du_diag *diag) {
    struct du_model_strips *s = model->strips;
    du_err err = DU_OK;
    pthread_mutex_lock(&s->lock);
    size_t n_bytes = du_strips_placed(s) ? 0 : du_model_strips_bytes(model, kern);
    if (n_bytes > 0) {
        s->bytes = du_mem_reserve(n_bytes);
        s->n_bytes = n_bytes;
        err = s->bytes ? DU_OK : du_fail_nomem(diag, "the repacked weights");
    }
    if (n_bytes > 0 && err == DU_OK) {
        room r = {.kern = kern, .at = s->bytes};
        du_strips_visit(model, place, &r);
    }
    pthread_mutex_unlock(&s->lock);
    return err;
}

typedef struct {
    const du_product *p;
    int64_t rows; /* per task */
} write_job;

static void write_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const write_job *job = arg;
    int64_t row0 = i_task * job->rows, row1 = row0 + job->rows;
    job->p->write(job->p->w, row0, row1 < job->p->w->rows ? row1 : job->p->w->rows);
}

static void write_strips(void *user, du_mat *m) {
    du_ctx *ctx = user;
    du_product p = du_product_begin(ctx, m);
    if (p.write) {
        int64_t rows = m->rows / du_pool_n_threads(ctx->pool) / DU_STRIP_ROWS * DU_STRIP_ROWS;
        write_job job = {&p, rows < DU_STRIP_ROWS ? DU_STRIP_ROWS : rows};
        du_pool_run(ctx->pool, write_task, &job, (m->rows + job.rows - 1) / job.rows);
    }
    du_product_end(&p);
}

void du_model_strips_write(du_ctx *ctx, const du_model *model) {
    ctx->repack_bytes = SIZE_MAX;
    du_strips_visit(model, write_strips, ctx);
}
