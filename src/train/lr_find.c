#include "train/lr_find.h"

#include <math.h>

#include "train/same.h"
#include "train/trainable.h"

static const double decay = 0.9;  /* of the smoothed loss */
static const double too_much = 4; /* times the least smoothed loss */
enum {
    REACH = 4, /* points on each side, over which a slope is taken */
    IDLE = 10, /* points at the beginning, whose rates are too small to do anything */
};

static double lr_of(int64_t i) {
    double u = (double)i / (DU_LR_FIND_STEPS - 1);
    return DU_LR_FIND_FIRST * pow(DU_LR_FIND_LAST / DU_LR_FIND_FIRST, u);
}

/* Where the smoothed loss is least. */
static int64_t least_of(const du_lr_find *f) {
    int64_t least = 0;
    for (int64_t i = 1; i < f->n; i++) {
        least = f->points[i].smooth < f->points[least].smooth ? i : least;
    }
    return least;
}

/* A smoothed loss that chance does not explain: it varies by 0.23 standard deviations of losses,
 * the least of a hundred lies some 0.7 below their mean, and that of a few is known to 0.3. */
static double learnt(const du_lr_find *f) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < IDLE; i++) {
        sum += f->points[i].loss;
        squares += f->points[i].loss * f->points[i].loss;
    }
    double mean = sum / IDLE, variance = squares / IDLE - mean * mean;
    return mean - 1.5 * (variance > 0 ? sqrt(variance) : 0);
}

void du_lr_find_judge(du_lr_find *f) {
    double slope = 0;
    int64_t least = f->n > 0 ? least_of(f) : 0;
    f->steepest = f->lowest = (double)NAN;
    if (f->n < IDLE || f->points[least].smooth >= learnt(f)) {
        return;
    }
    for (int64_t i = IDLE; i + REACH <= least; i++) {
        double fall = f->points[i - REACH].smooth - f->points[i + REACH].smooth;
        if (fall > slope) {
            slope = fall;
            f->steepest = f->points[i].lr;
            f->lowest = f->points[least].lr;
        }
    }
}

static void add_point(du_lr_find *f, double lr, double loss) {
    double before = f->n > 0 ? f->points[f->n - 1].smooth * (1 - pow(decay, (double)f->n)) : 0;
    double smooth = (decay * before + (1 - decay) * loss) / (1 - pow(decay, (double)(f->n + 1)));
    f->points[f->n++] = (du_lr_point){lr, loss, smooth};
    f->exploded = loss > too_much * f->points[least_of(f)].smooth;
}

static du_err take_steps(du_lr_find *out, du_trainer *t, const du_lr_find_params *p,
                         du_diag *diag) {
    du_err err = DU_OK;
    for (int64_t i = 0; i < DU_LR_FIND_STEPS && err == DU_OK && !out->exploded; i++) {
        du_metrics m;
        t->lr = lr_of(i);
        err = du_trainer_step(t, &m, diag);
        if (err == DU_ELIMIT && i > 0) { /* what lies behind an explosion */
            du_diag_reset(diag);
            out->exploded = true;
            return DU_OK;
        }
        if (err == DU_OK) {
            add_point(out, t->lr, m.loss);
            err = p->step ? p->step(p->user, out, diag) : DU_OK;
        }
    }
    return err;
}

du_err du_lr_find_run(du_lr_find *out, const du_lr_find_params *p, du_diag *diag) {
    *out = (du_lr_find){0};
    json_t *shape = NULL;
    du_trainer *t = NULL;
    du_err err = du_trainable_shape(&shape, p->config, diag);
    err = err ? err : du_trainer_new(&t, p->ctx, p->config, shape, p->ranks, diag);
    err = err ? err : du_trainer_open_data(t, diag);
    err = err ? err : du_trainer_begin(t, diag);
    err = du_ranks_agree(p->ranks, err, diag);
    err = err ? err : du_same_start(t, diag);
    err = err ? err : take_steps(out, t, p, diag);
    du_trainer_free(t);
    json_decref(shape);
    if (err == DU_OK) {
        du_lr_find_judge(out);
    }
    return err;
}
