#include "cli/train_lr_find.h"

#include <math.h>
#include <stdio.h>

#include "cli/interrupt.h"
#include "cli/out.h"

enum { ROWS = 30 }; /* of the table */

typedef struct {
    du_ranks *ranks;
    bool live;
} view;

static du_err show(void *user, const du_lr_find *so_far, du_diag *diag) {
    const view *v = user;
    const du_lr_point *p = &so_far->points[so_far->n - 1];
    if (v->live) {
        char line[128];
        snprintf(line, sizeof line, "step %lld/%d  lr %.3g  loss %.4f  smooth %.4f",
                 (long long)so_far->n, DU_LR_FIND_STEPS, p->lr, p->loss, p->smooth);
        du_cli_live(line);
    }
    bool stopped = du_cli_interrupted();
    du_err err = du_ranks_any(v->ranks, &stopped, diag);
    return err ? err : stopped ? DU_ECANCELLED : DU_OK;
}

static du_err print_text(const du_lr_find *f, du_diag *diag) {
    du_cli_table table = {.n_columns = 3, .right = "rrr"};
    int64_t every = (f->n + ROWS - 1) / ROWS;
    du_cli_table_add(&table, "lr");
    du_cli_table_add(&table, "loss");
    du_cli_table_add(&table, "smooth");
    for (int64_t i = (f->n - 1) % every; i < f->n; i += every) {
        du_cli_table_add(&table, "%.2e", f->points[i].lr);
        du_cli_table_add(&table, "%.4f", f->points[i].loss);
        du_cli_table_add(&table, "%.4f", f->points[i].smooth);
    }
    du_err err = du_cli_table_print(&table, stdout, diag);
    if (err == DU_OK) {
        printf("\nthe loss falls fastest at lr %.2e, is least at %.2e, and ", f->steepest,
               f->lowest);
        if (f->exploded) {
            printf("explodes at %.2e\n", f->points[f->n - 1].lr);
        } else {
            printf("never explodes\n");
        }
        printf("suggested: optim.lr = %.1e\n", f->steepest);
    }
    return err;
}

static du_err print_json(const du_lr_find *f, du_diag *diag) {
    json_t *steps = json_array();
    bool failed = !steps;
    for (int64_t i = 0; i < f->n && !failed; i++) {
        const du_lr_point *p = &f->points[i];
        json_t *point =
            json_pack("{s:f, s:f, s:f}", "lr", p->lr, "loss", p->loss, "smooth", p->smooth);
        failed = json_array_append_new(steps, point) != 0;
    }
    if (failed) {
        json_decref(steps);
        return du_fail_nomem(diag, "the test");
    }
    return du_cli_print_json(json_pack("{s:f, s:f, s:b, s:o}", "steepest", f->steepest, "lowest",
                                       f->lowest, "exploded", f->exploded, "steps", steps),
                             diag);
}

du_err du_cli_train_lr_find(const du_train_config *config, du_ctx *ctx, du_ranks *ranks,
                            bool as_json, bool quiet, du_diag *diag) {
    bool first = du_ranks_rank(ranks) == 0;
    view v = {.ranks = ranks, .live = first && !quiet && du_cli_is_live()};
    du_lr_find_params params = {
        .config = config, .ctx = ctx, .ranks = ranks, .step = show, .user = &v};
    du_lr_find find;
    du_cli_interrupt_catch(true);
    du_err err = du_lr_find_run(&find, &params, diag);
    du_cli_interrupt_catch(false);
    if (v.live) {
        du_cli_live("");
    }
    if (err == DU_OK && isnan(find.steepest)) {
        err = du_fail(diag, DU_ELIMIT,
                      "--lr-find: no learning rate from %g to %g lowers the loss of %g",
                      DU_LR_FIND_FIRST, DU_LR_FIND_LAST, find.points[0].loss);
    }
    if (err != DU_OK || !first) {
        return err;
    }
    return as_json ? print_json(&find, diag) : print_text(&find, diag);
}
