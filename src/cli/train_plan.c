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

static size_t here(const du_train_plan *p, size_t of_process) {
    return of_process * (size_t)p->share.n_here;
}

/* Do frozen weights stay in memory, which processes on a machine share, beside what these take? */
static bool stays(const du_train_plan *p, const du_train_config *config) {
    size_t taken = here(p, p->levels[config->recompute].total);
    return p->available == 0 || taken + p->mapped <= here(p, p->available);
}

static void add_memory(du_cli_table *table, const du_train_plan *p, const du_train_config *config) {
    int at = config->recompute;
    bool adapters = config->lora.rank > 0;
    add_bytes(table, "frozen weights, in their files", p->mapped);
    add_bytes(table, "  made from them in memory", p->frozen);
    add_bytes(table, adapters ? "adapters" : "weights", p->weights);
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
    if (p->share.n_here > 1) {
        char name[64];
        snprintf(name, sizeof name, "  in %lld processes here", (long long)p->share.n_here);
        add_bytes(table, name, here(p, p->levels[at].total));
    }
    add_bytes(table, "free", here(p, p->available));
}

static du_err print_text(const du_train_plan *p, const du_train_config *config, du_diag *diag) {
    du_cli_table table = {.n_columns = 3, .right = "lrl"};
    bool adapters = config->lora.rank > 0;
    add_count(&table, "parameters", (double)p->n_weights, "");
    if (adapters) {
        add_count(&table, "  trained", (double)p->n_trained, "");
    }
    add_count(&table, "  of a token", (double)p->n_active, "");
    add_count(&table, "operations per token, forward", p->flops.forward, "FLOP");
    add_count(&table, "  backward", p->flops.backward, "FLOP");
    if (p->flops.again > 0) {
        add_count(&table, "  computed again", p->flops.again, "FLOP");
    }
    add_count(&table,
              adapters ? "  4 x parameters of a token, 6 x trained ones"
                       : "  6 x parameters of a token",
              p->rule_flops, "FLOP");
    add_count(&table, "bytes per token", p->token_bytes, "B");
    if (p->share.n_ranks > 1) {
        du_cli_table_add(&table, "of %lld processes one takes", (long long)p->share.n_ranks);
        du_cli_table_add(&table, "%s", "");
        du_cli_table_add(&table, "%s", "");
    }
    add_memory(&table, p, config);
    if (p->share.n_ranks > 1) {
        add_count(&table, "sent by one per step", p->sent_bytes, "B");
    }
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
    du_err err = du_cli_table_print(&table, stdout, diag);
    if (err == DU_OK && !stays(p, config)) {
        printf("The frozen weights do not stay in memory: steps read them from the disk again.\n");
    }
    return err;
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
    return json_pack("{s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I}",
                     "mapped", (json_int_t)p->mapped, "mapped_stays", stays(p, config), "frozen",
                     (json_int_t)p->frozen, "weights", (json_int_t)p->weights, "rounded",
                     (json_int_t)p->rounded, "gradients", (json_int_t)p->gradients, "waiting",
                     (json_int_t)p->levels[at].nodes, "moments", (json_int_t)p->moments, "mean",
                     (json_int_t)p->mean, "kept", (json_int_t)p->levels[at].kept, "scratch",
                     (json_int_t)p->levels[at].scratch, "logits", (json_int_t)p->levels[at].logits,
                     "total", all, "available", (json_int_t)p->available);
}

static json_t *ranks_of(const du_train_plan *p, const du_train_config *config) {
    const du_train_share *s = &p->share;
    return json_pack("{s:I, s:I, s:I, s:I, s:f, s:I, s:I}", "n", (json_int_t)s->n_ranks, "here",
                     (json_int_t)s->n_here, "sequences", (json_int_t)s->n_seq, "micro_batches",
                     (json_int_t)s->n_micro, "sent_bytes_per_step", p->sent_bytes, "total_here",
                     (json_int_t)here(p, p->levels[config->recompute].total), "available_here",
                     (json_int_t)here(p, p->available));
}

static du_err print_json(const du_train_plan *p, const du_train_config *config, bool fits,
                         du_diag *diag) {
    json_t *memory = memory_of(p, config);
    json_t *plan = json_pack(
        "{s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:I, s:o, s:o, s:b}", "params",
        (json_int_t)p->n_weights, "params_trained", (json_int_t)p->n_trained, "params_active",
        (json_int_t)p->n_active, "flops_forward", p->flops.forward, "flops_backward",
        p->flops.backward, "flops_again", p->flops.again, "flops_rule", p->rule_flops,
        "bytes_per_token", p->token_bytes, "tokens_per_step", (json_int_t)p->step_tokens,
        "memory_bytes", memory, "ranks", ranks_of(p, config), "fits", fits);
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

static du_err make_plan(du_train_plan *plan, const du_train_config *config, const json_t *shape,
                        du_ctx *ctx, du_ranks *ranks, du_diag *diag) {
    du_params *params = NULL;
    du_err err = du_trainable_new(&params, config, shape, diag);
    err = err ? err : du_train_plan_make(plan, ctx, config, params, ranks, diag);
    du_params_free(params);
    return du_ranks_agree(ranks, err, diag);
}

du_err du_cli_train_plan(const du_train_config *config, du_ctx *ctx, du_ranks *ranks, bool as_json,
                         du_diag *diag) {
    json_t *shape = NULL;
    du_train_plan plan;
    du_diag why;
    du_diag_reset(&why);
    du_err err = du_ranks_agree(ranks, du_trainable_shape(&shape, config, diag), diag);
    err = err ? err : make_plan(&plan, config, shape, ctx, ranks, diag);
    if (err != DU_OK) {
        json_decref(shape);
        return err;
    }
    du_err fits = du_ranks_agree(ranks, du_train_plan_check(&plan, config, &why), &why);
    err = fits ? DU_OK : du_train_plan_probe(&plan, ctx, config, shape, ranks, diag);
    if (err == DU_OK && du_ranks_rank(ranks) == 0) {
        err = as_json ? print_json(&plan, config, fits == DU_OK, diag)
                      : print_text(&plan, config, diag);
    }
    json_decref(shape);
    return err || fits == DU_OK ? err : du_fail(diag, fits, "%s", why.msg);
}
