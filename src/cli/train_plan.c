#include "cli/train_plan.h"

#include <stdio.h>

#include "cli/out.h"
#include "train/plan.h"
#include "train/trainable.h"

static const char *const levels[] = {"none", "cheap", "layer"};

static void add_count(du_cli_table *table, const char *name, double value, const char *unit) {
    static const char *const prefixes[] = {"", "k", "M", "G", "T"};
    int i = 0;
    for (; value >= 1000 && i < 4; i++) {
        value /= 1000;
    }
    du_cli_table_add(table, "%s", name);
    du_cli_table_add(table, "%.*f", i > 0 ? 2 : 0, value);
    du_cli_table_add(table, "%s%s", prefixes[i], unit);
}

static void add_bytes(du_cli_table *table, const char *name, size_t n) {
    if (n > 0) {
        du_cli_table_add(table, "%s", name);
        du_cli_table_add(table, "%.1f", (double)n * 1e-6);
        du_cli_table_add(table, "MB");
    }
}

static void add_memory(du_cli_table *table, const du_train_plan *p, const du_train_config *config) {
    int at = config->recompute;
    add_bytes(table, "weights", p->weights);
    add_bytes(table, "weights, rounded", p->rounded);
    add_bytes(table, "gradients", p->gradients);
    add_bytes(table, "sums that wait", p->levels[at].nodes);
    add_bytes(table, "moments", p->moments);
    add_bytes(table, "running mean", p->mean);
    add_bytes(table, "kept activations", p->levels[at].kept);
    add_bytes(table, "scratch", p->levels[at].scratch);
    add_bytes(table, "  of that, logits", p->levels[at].logits);
    for (int i = 0; i < DU_PLAN_LEVELS; i++) {
        char name[64];
        bool fits = p->available == 0 || p->levels[i].total <= p->available;
        snprintf(name, sizeof name, "all, recompute = %s%s%s", levels[i], i == at ? " (set)" : "",
                 fits ? "" : ": too much");
        add_bytes(table, name, p->levels[i].total);
    }
    add_bytes(table, "free", p->available);
}

static du_err print_text(const du_train_plan *p, const du_train_config *config, du_diag *diag) {
    du_cli_table table = {.n_columns = 3, .right = "lrl"};
    add_count(&table, "parameters", (double)p->n_weights, "");
    add_count(&table, "  of a token", (double)p->n_active, "");
    add_count(&table, "operations per token, forward", p->flops.forward, "FLOP");
    add_count(&table, "  backward", p->flops.backward, "FLOP");
    if (p->flops.again > 0) {
        add_count(&table, "  computed again", p->flops.again, "FLOP");
    }
    add_count(&table, "  6 x parameters of a token", p->rule_flops, "FLOP");
    add_count(&table, "bytes per token", p->token_bytes, "B");
    add_memory(&table, p, config);
    add_count(&table, "tokens per step", (double)p->step_tokens, "");
    if (p->step_s > 0) {
        du_cli_table_add(&table, "speed");
        du_cli_table_add(&table, "%.0f", p->tok_s);
        du_cli_table_add(&table, "tok/s");
        du_cli_table_add(&table, "%lld steps", (long long)config->steps);
        char time[DU_CLI_TIME_BYTES];
        du_cli_table_add(&table, "%s", du_cli_time(time, p->run_s));
        du_cli_table_add(&table, "%s", "");
    }
    return du_cli_table_print(&table, stdout, diag);
}

static json_t *memory_of(const du_train_plan *p, const du_train_config *config) {
    int at = config->recompute;
    json_t *all = json_object();
    for (int i = 0; i < DU_PLAN_LEVELS; i++) {
        json_t *total = json_integer((json_int_t)p->levels[i].total);
        if (json_object_set_new(all, levels[i], total) != 0) {
            json_decref(all);
            return NULL;
        }
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I}", "weights",
                     (json_int_t)p->weights, "rounded", (json_int_t)p->rounded, "gradients",
                     (json_int_t)p->gradients, "waiting", (json_int_t)p->levels[at].nodes,
                     "moments", (json_int_t)p->moments, "mean", (json_int_t)p->mean, "kept",
                     (json_int_t)p->levels[at].kept, "scratch", (json_int_t)p->levels[at].scratch,
                     "logits", (json_int_t)p->levels[at].logits, "total", all, "available",
                     (json_int_t)p->available);
}

static du_err print_json(const du_train_plan *p, const du_train_config *config, bool fits,
                         du_diag *diag) {
    json_t *memory = memory_of(p, config);
    json_t *plan = json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:I, s:o, s:b}", "params",
                             (json_int_t)p->n_weights, "params_active", (json_int_t)p->n_active,
                             "flops_forward", p->flops.forward, "flops_backward", p->flops.backward,
                             "flops_again", p->flops.again, "flops_rule", p->rule_flops,
                             "bytes_per_token", p->token_bytes, "tokens_per_step",
                             (json_int_t)p->step_tokens, "memory_bytes", memory, "fits", fits);
    if (plan && p->step_s > 0) {
        json_t *speed =
            json_pack("{s:f, s:f, s:f}", "tok_s", p->tok_s, "step_s", p->step_s, "run_s", p->run_s);
        if (!speed || json_object_update(plan, speed) != 0) {
            json_decref(plan);
            plan = NULL;
        }
        json_decref(speed);
    }
    return du_cli_print_json(plan, diag);
}

du_err du_cli_train_plan(const du_train_config *config, du_ctx *ctx, bool as_json, du_diag *diag) {
    json_t *shape = NULL;
    du_train_plan plan;
    du_diag why;
    du_diag_reset(&why);
    if (config->lora.rank > 0) {
        return du_fail(diag, DU_EUNSUPPORTED, "--plan: does not count adapters (lora.rank)");
    }
    du_err err = du_trainable_shape(&shape, config, diag);
    err = err ? err : du_train_plan_make(&plan, ctx, config, shape, NULL, diag);
    if (err != DU_OK) {
        json_decref(shape);
        return err;
    }
    du_err fits = du_train_plan_check(&plan, config, &why);
    err = fits ? DU_OK : du_train_plan_probe(&plan, ctx, config, shape, diag);
    if (err == DU_OK) {
        err = as_json ? print_json(&plan, config, fits == DU_OK, diag)
                      : print_text(&plan, config, diag);
    }
    json_decref(shape);
    return err || fits == DU_OK ? err : du_fail(diag, fits, "%s", why.msg);
}
