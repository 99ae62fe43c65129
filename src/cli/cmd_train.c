/* dure train: a run by its configuration, from its beginning or from where it stopped.
 *
 * The first signal ends the run behind the step that is being computed, with a checkpoint; the
 * second one ends the process, which costs the steps since the last checkpoint.
 *
 * Among ranks a signal to one of them counts for all. Rank 0 alone speaks, and its exit status is
 * that of the whole: the others end with 0 unless they have lost the rest. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/bandwidth.h"
#include "cli/cli.h"
#include "cli/compute.h"
#include "cli/interrupt.h"
#include "cli/out.h"
#include "cli/ranks.h"
#include "cli/train_lr_find.h"
#include "cli/train_plan.h"
#include "cli/train_sample.h"
#include "cli/transfer.h"
#include "train/run.h"
#include "train/same.h"

enum { LINE_EVERY = 10 }; /* steps between lines where there is no terminal */

static du_opt_list sets;
static bool keys, plan, lr_find, as_json, resume, overwrite, quiet;
static du_ranks *ranks;

static const du_opt opts[] = {
    DU_OPTION_LIST(0, "set", "KEY=VALUE", &sets,
                   "set a key, over what CONFIG says; may be repeated"),
    DU_OPTION_FLAG(0, "keys", &keys, "list the keys: default, unit and meaning"),
    DU_OPTION_FLAG(
        0, "plan", &plan,
        "tell what the run, or with mpirun one of its processes, would take: parameters, "
        "operations, memory, speed; train nothing"),
    DU_OPTION_FLAG(0, "lr-find", &lr_find,
                   "test rising learning rates from where the run would begin; keep nothing"),
    DU_OPTION_FLAG(0, "json", &as_json,
                   "with --keys, --plan, --lr-find: print JSON (docs/TRAINING.md)"),
    DU_OPTION_FLAG(0, "resume", &resume,
                   "go on from the last whole checkpoint; begin where there is none"),
    DU_OPTION_FLAG(0, "overwrite", &overwrite, "remove the run that the folder holds, and begin"),
    DU_OPTION_FLAG('q', "quiet", &quiet, "show no progress"),
};

static du_err print_keys(du_diag *diag) {
    if (as_json) {
        return du_cli_print_json(du_train_config_json(), diag);
    }
    du_str text = {0};
    du_train_config_help(&text);
    du_err err = text.failed ? du_fail_nomem(diag, "the list of keys") : DU_OK;
    fputs(du_str_get(&text), stdout);
    du_str_done(&text);
    return err;
}

static du_err read_config(du_train_config *config, const char *path, du_diag *diag) {
    du_err err = path ? du_train_config_read(config, path, diag) : DU_OK;
    for (size_t i = 0; i < sets.n && err == DU_OK; i++) {
        err = du_train_config_set_pair(config, sets.items[i], diag);
    }
    return err ? err : du_train_config_check(config, diag);
}

/* The tokenizer that the configuration names: a folder, or the tokenizer.json in it. */
static du_err named_companions(du_companions *c, const char *path, du_diag *diag) {
    static const char name[] = "tokenizer.json";
    size_t n = strlen(path), n_name = sizeof name - 1;
    if (du_dir_exists(path)) {
        return du_cli_companions_of_dir(c, path, diag);
    }
    if (n < n_name || strcmp(path + n - n_name, name) != 0 ||
        (n > n_name && path[n - n_name - 1] != '/')) {
        return du_fail(diag, DU_EINVAL, "tokenizer = %s: neither a folder nor a tokenizer.json",
                       path);
    }
    char *dir = n > n_name ? du_strndup(path, n - n_name) : du_strdup(".");
    du_err err = dir ? du_cli_companions_of_dir(c, dir, diag) : du_fail_nomem(diag, path);
    du_free(dir);
    return err;
}

static du_err companions(void *user, const du_train_config *config, du_companions *c,
                         du_diag *diag) {
    (void)user;
    if (*config->tokenizer) {
        return named_companions(c, config->tokenizer, diag);
    }
    if (!*config->init) {
        return DU_OK;
    }
    du_weights *files = NULL;
    du_err err = du_weights_open(&files, config->init, diag);
    err = err ? err : du_cli_companions_of(c, files, diag);
    du_weights_close(files);
    return err;
}

/* What is shown of the steps. */
typedef struct {
    int64_t steps; /* of the whole run */
    int64_t n;     /* steps that this process has done */
    double start_s;
    bool live;
} view;

static void show(view *v, const du_metrics *m, double smooth) {
    v->n++;
    bool last = m->step == v->steps, validated = isfinite(m->validation);
    if (quiet || (!v->live && !last && !validated && v->n > 1 && m->step % LINE_EVERY != 0)) {
        return;
    }
    double left_s = (du_clock_s() - v->start_s) / (double)v->n * (double)(v->steps - m->step);
    char time[DU_CLI_TIME_BYTES];
    du_str line = {0}; /* what a narrow terminal may leave out stands last */
    du_str_addf(&line, "step %lld/%lld  %s left  loss %.4f  smooth %.4f", (long long)m->step,
                (long long)v->steps, du_cli_time(time, left_s), m->loss, smooth);
    if (validated) {
        du_str_addf(&line, "  validation %.4f", m->validation);
    }
    du_str_addf(&line, "  %.0f tok/s  lr %.3g  norm %.3g", m->tok_s, m->lr, m->grad_norm);
    if (m->peak > 0) {
        du_str_addf(&line, "  %.0f %% of peak", 100 * m->peak);
    }
    if (v->live) {
        du_cli_live(du_str_get(&line));
    } else {
        du_cli_note("%s", du_str_get(&line));
    }
    du_str_done(&line);
}

/* user: the du_ctx of the run */
static du_err sample(void *user, const du_train_config *config, const char *checkpoint,
                     const json_t *prompts, json_t *texts, du_diag *diag) {
    const du_ctx *ctx = user;
    du_infer_params how = du_infer_defaults();
    how.n_threads = du_pool_n_threads(ctx->pool);
    how.force_isa = true;
    how.isa = ctx->kern->isa;
    return du_cli_train_sample(checkpoint, config, prompts, texts, how, diag);
}

static void note(void *user, const char *text) {
    (void)user;
    du_cli_note("%s", text);
}

/* Appends a word as a shell takes it. */
static void add_word(du_str *out, const char *word) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "@%+=:,./-_";
    bool quoted = *word == '\0' || word[strspn(word, plain)] != '\0';
    du_str_add_s(out, quoted ? " '" : " ");
    for (; *word; word++) {
        if (*word == '\'') {
            du_str_add_s(out, "'\\''");
        } else {
            du_str_add_c(out, *word);
        }
    }
    du_str_add_s(out, quoted ? "'" : "");
}

/* The command that goes on with this run. */
static void add_command(du_str *out, const char *config) {
    if (ranks) {
        du_str_addf(out, "mpirun -n %lld ", (long long)du_ranks_n(ranks));
    }
    du_str_add_s(out, "dure train --resume");
    if (config) {
        add_word(out, config);
    }
    for (size_t i = 0; i < sets.n; i++) {
        du_str_add_s(out, " --set");
        add_word(out, sets.items[i]);
    }
    du_infer_params how = du_cli_infer_params();
    if (how.force_isa) {
        du_str_addf(out, " --isa %s", du_isa_name(how.isa));
    }
}

/* Says where the run stands, behind the live line. */
static void tell_end(const du_run *run, const char *config, du_err err) {
    const char *saved = du_run_saved(run);
    if (err == DU_ECANCELLED && saved) {
        du_str command = {0};
        add_command(&command, config);
        du_cli_note("saved as %s; to go on: %s", saved, du_str_get(&command));
        du_str_done(&command);
    } else if (err != DU_OK && saved) {
        du_cli_note("the last checkpoint is %s", saved);
    }
}

static du_err do_steps(du_run *run, view *v, du_diag *diag) {
    bool stopped = du_cli_interrupted();
    du_err err = du_ranks_any(ranks, &stopped, diag);
    while (err == DU_OK && !du_run_done(run) && !stopped) {
        du_metrics m;
        err = du_run_step(run, &m, diag);
        if (err == DU_OK) {
            show(v, &m, du_run_smooth(run));
            stopped = du_cli_interrupted();
            err = du_ranks_any(ranks, &stopped, diag);
        }
    }
    if (err == DU_OK && !du_run_done(run)) {
        err = du_run_save(run, diag);
        err = err ? err : DU_ECANCELLED;
    }
    return err;
}

/* Operations per second of products, by the instructions that they are made of. */
static double peak_of(const du_train_config *config, const du_ctx *ctx) {
    static const struct {
        du_probe probe;
        double n; /* operations of it for one */
    } of[DU_GEMM_KINDS] = {[DU_GEMM_F32] = {DU_PROBE_F32, 1},
                           [DU_GEMM_F32_TILES] = {DU_PROBE_AMX_BF16, DU_GEMM_PART_PRODUCTS},
                           [DU_GEMM_BF16] = {DU_PROBE_BF16, 1},
                           [DU_GEMM_BF16_TILES] = {DU_PROBE_AMX_BF16, 1}};
    du_gemm_kind kind = du_kern_gemm_kind(ctx->kern, config->dtype == DU_TRAIN_BF16);
    double peak = du_cli_peak(ctx->kern, of[kind].probe, ctx->pool) / of[kind].n;
    return peak > 0 ? peak : du_cli_peak(ctx->kern, DU_PROBE_F32, ctx->pool);
}

static du_err train(const du_train_config *config, const char *path, du_ctx *ctx, du_diag *diag) {
    du_run_params params = {.config = config,
                            .how = resume      ? DU_RUN_RESUME
                                   : overwrite ? DU_RUN_OVERWRITE
                                               : DU_RUN_NEW,
                            .ctx = ctx,
                            .ranks = ranks,
                            .peak = peak_of(config, ctx),
                            .companions = companions,
                            .sample = sample,
                            .note = note,
                            .user = ctx};
    du_run *run = NULL;
    du_err err = du_run_open(&run, &params, diag);
    if (err != DU_OK) {
        return err;
    }
    view v = {.steps = config->steps, .start_s = du_clock_s(), .live = du_cli_is_live() && !quiet};
    du_cli_interrupt_catch(true);
    err = do_steps(run, &v, diag);
    du_cli_interrupt_catch(false);
    if (v.live && v.n > 0) {
        fputc('\n', stderr);
    }
    bool first = du_ranks_rank(ranks) == 0;
    if (first) {
        tell_end(run, path, err);
    }
    if (err == DU_OK && first) {
        printf("%s\n", du_run_saved(run));
    }
    du_run_close(run);
    return err;
}

/* Ranks that were started otherwise than rank 0 are refused. */
static du_err check_ranks(const du_train_config *config, const du_kern *kern, du_diag *diag) {
    bool own[] = {plan, lr_find, resume, overwrite}, first[] = {plan, lr_find, resume, overwrite};
    du_err err = du_same_program(ranks, kern, diag);
    err = err ? err : du_ranks_take_first(ranks, first, sizeof first, diag);
    if (err == DU_OK && memcmp(own, first, sizeof own) != 0) {
        err = du_fail(diag, DU_EINVAL,
                      "--plan, --lr-find, --resume or --overwrite are not those of rank 0");
    }
    err = du_ranks_agree(ranks, err, diag);
    return err ? err : du_same_config(ranks, config, diag);
}

/* Makes what steps are computed with. */
static du_err compute(const du_train_config *config, const char *path, du_diag *diag) {
    int64_t share = du_cpu_n_cores() / (ranks ? ranks->link.n_here : 1);
    du_ctx ctx;
    du_err err = du_ranks_agree(ranks, du_cli_ctx_init(&ctx, share > 0 ? share : 1, diag), diag);
    err = err ? err : check_ranks(config, ctx.kern, diag);
    if (err == DU_OK) {
        err = plan      ? du_cli_train_plan(config, &ctx, ranks, as_json, diag)
              : lr_find ? du_cli_train_lr_find(config, &ctx, ranks, as_json, quiet, diag)
                        : train(config, path, &ctx, diag);
    }
    du_cli_ctx_done(&ctx);
    return err;
}

/* By the configuration at path, NULL: that of --set alone. */
static du_cli_status train_as(const char *path, du_diag *diag) {
    du_train_config config;
    du_err err = du_train_config_init(&config, diag);
    if (err != DU_OK) {
        return du_cli_fail(du_ranks_agree(ranks, err, diag));
    }
    err = du_ranks_agree(ranks, read_config(&config, path, diag), diag);
    du_cli_status status = err == DU_EINVAL ? DU_CLI_USAGE : du_cli_fail(err);
    if (err == DU_OK) {
        status = du_cli_fail(compute(&config, path, diag));
    }
    du_train_config_done(&config);
    return status;
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    if (keys) {
        return n_args > 0 || sets.n > 0 || resume || overwrite || plan || lr_find
                   ? du_cli_misuse(diag, "--keys lists the keys and trains nothing")
                   : du_cli_fail(print_keys(diag));
    }
    if (as_json && !plan && !lr_find) {
        return du_cli_misuse(diag, "--json goes with --keys, --plan and --lr-find");
    }
    if ((plan || lr_find) && (resume || overwrite || (plan && lr_find))) {
        return du_cli_misuse(
            diag, "--plan and --lr-find leave the run's folder alone: neither goes with the other, "
                  "--resume or --overwrite");
    }
    if (du_cli_infer_params().pin && du_cli_ranks_wanted()) {
        return du_cli_misuse(diag, "--pin: mpirun binds the processes it starts (--bind-to)");
    }
    if (resume && overwrite) {
        return du_cli_misuse(diag, "--resume keeps what --overwrite removes: choose one");
    }
    du_err err = du_cli_ranks_open(&ranks, diag);
    if (err != DU_OK) {
        return du_cli_fail(err);
    }
    bool first = du_ranks_rank(ranks) == 0;
    quiet = quiet || !first;
    du_cli_status status = train_as(n_args > 0 ? args[0] : NULL, diag);
    bool told = !first && !ranks->lost; /* by rank 0 */
    du_ranks_close(ranks);
    du_opt_list_done(&sets);
    return told ? DU_CLI_DONE : status;
}

const du_cli_command du_cli_train = {
    .name = "train",
    .args = "[CONFIG]",
    .summary = "train a model",
    .about =
        "Trains a model, new or given, as the lines `key = value` of CONFIG say; every key can be "
        "set with --set too. Checkpoints are Hugging Face directories, OUT/step-NNNNNN, which the "
        "other commands take for a MODEL; OUT/metrics.jsonl gets a line per step, and "
        "OUT/report.html shows the run (`dure report` makes it anew). SIGINT and "
        "SIGTERM end the run behind the step at hand, with a checkpoint. A run that goes on with "
        "--resume gives the bytes of one that never stopped, and so do other numbers of threads, "
        "and of processes: `mpirun -n N dure train CONFIG` spreads a run over N, which share the "
        "cores of a machine. docs/TRAINING.md explains it.",
    .example = "dure train run.conf --threads 8\n"
               "mpirun -n 4 --bind-to none dure train run.conf\n"
               "dure train run.conf --resume --set steps=20000\n"
               "dure train run.conf --plan\n"
               "dure train run.conf --lr-find\n"
               "dure train --keys",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .computes = DU_CLI_COMPUTES_PRODUCTS,
    .n_args_max = 1,
    .run = run,
};
