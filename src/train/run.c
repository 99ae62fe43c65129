/* A run and its folder.
 *
 *     OUT/lock             locked by the process that works here (flock), empty
 *     OUT/metrics.jsonl    a line per step (train/metrics.h)
 *     OUT/events.*         the same for TensorBoard, a file per process (train/events.h)
 *     OUT/samples.jsonl    with sample.prompt a line per checkpoint that is due (train/samples.h)
 *     OUT/NAME.jsonl.bad   one of these that was damaged, as it was
 *     OUT/run.json         what the run is, and who worked on it (train/record.h)
 *     OUT/report.html      all of these on a page (train/report.h)
 *     OUT/step-NNNNNN/     checkpoints (train/checkpoint.h)
 *
 * The lines of metrics.jsonl and samples.jsonl are on the disk before the checkpoint that follows
 * them, so a run that goes on finds those of all steps before it and cuts off what lies behind.
 * Validation happens where the configuration says and not because a run is stopped, so that
 * stopping leaves no trace; so do samples, and one that a killed process did not come to is made up
 * for at its checkpoint.
 *
 * Among ranks number 0 has the lock and writes; the others read what it has tidied up, decide alike
 * because they see the same files, and are held back until all have seen them. */
#include "train/run.h"

#include <math.h>
#include <string.h>

#include "base/dir.h"
#include "base/file.h"
#include "model/lora.h"
#include "train/journal.h"
#include "train/same.h"
#include "train/samples.h"
#include "train/schedule.h"
#include "train/spike.h"
#include "train/trainable.h"

struct du_run {
    du_run_params params;
    int lock;
    du_trainer *trainer;
    du_companions companions;
    du_journal journal; /* of rank 0 */
    /* As of the last checkpoint; best_* and spike also of the steps behind it */
    du_train_state state;
    char *saved; /* folder of the last checkpoint; NULL: none */
};

const du_trainer *du_run_trainer(const du_run *run) {
    return run->trainer;
}

const char *du_run_saved(const du_run *run) {
    return run->saved;
}

double du_run_smooth(const du_run *run) {
    return du_spike_smooth(&run->state.spike);
}

bool du_run_done(const du_run *run) {
    return run->trainer->step >= run->params.config->steps;
}

static bool is_first(const du_run *run) {
    return du_ranks_rank(run->params.ranks) == 0;
}

static void note(const du_run *run, const char *text) {
    if (run->params.note && is_first(run)) {
        run->params.note(run->params.user, text);
    }
}

static du_err take_folder(du_run *run, du_diag *diag) {
    const char *out = run->params.config->out;
    du_err err = du_dir_make(out, diag);
    char *path = du_path_join(out, "lock");
    if (err == DU_OK) {
        err = path ? du_dir_lock(&run->lock, path, diag) : du_fail_nomem(diag, out);
    }
    du_free(path);
    return err ? err : du_checkpoint_clean(out, diag);
}

/* Removes what a run wrote, or nothing where a checkpoint's folder holds something else. */
static du_err empty_folder(const char *out, const int64_t *steps, size_t n, du_diag *diag) {
    du_err err = DU_OK;
    for (size_t i = 0; i < n && err == DU_OK; i++) {
        err = du_checkpoint_check_ours(out, steps[i], diag);
    }
    for (size_t i = 0; i < n && err == DU_OK; i++) {
        err = du_checkpoint_remove(out, steps[i], diag);
    }
    return err ? err : du_journal_remove(out, diag);
}

static du_err set_saved(du_run *run, int64_t step, du_diag *diag) {
    char name[DU_CHECKPOINT_NAME_BYTES];
    char *path = du_path_join(run->params.config->out, du_checkpoint_name(name, step));
    du_free(run->saved);
    run->saved = path;
    return path ? DU_OK : du_fail_nomem(diag, "a path");
}

/* The run of a checkpoint and the one that is to go on are the same. */
static du_err check_same(const du_run *run, const du_saved *saved, du_diag *diag) {
    du_train_config begun;
    du_err err = du_train_config_init(&begun, diag);
    if (err != DU_OK) {
        return err;
    }
    err = du_train_config_take(&begun, saved->config, saved->dir, diag);
    err = err ? err : du_train_config_same_run(run->params.config, &begun, diag);
    du_train_config_done(&begun);
    int64_t next = du_schedule_micros_before(run->params.config, saved->state.step + 1);
    if (err == DU_OK && saved->state.micro_batch != next) { /* by the schedule of another version */
        err =
            du_fail(diag, DU_EINVAL,
                    "%s: goes on with micro-batch %lld, and step %lld of this configuration begins "
                    "with %lld: it would not be the same run",
                    saved->dir, (long long)saved->state.micro_batch,
                    (long long)saved->state.step + 1, (long long)next);
    }
    return err;
}

static uint64_t base_sum(const du_trainer *t) {
    return t->params->adapters ? du_lora_base_sum(t->params) : 0;
}

static du_err check_base(const du_run *run, const du_trainer *t, const du_saved *saved,
                         du_diag *diag) {
    return base_sum(t) == saved->state.base
               ? DU_OK
               : du_fail(diag, DU_EINVAL,
                         "%s: is not what it was when the run was begun: its adapters would not "
                         "fit",
                         run->params.config->init);
}

/* A trainer for the checkpoint's values, if it is of this run. */
static du_err new_trainer(du_trainer **out, const du_run *run, const du_saved *saved,
                          du_diag *diag) {
    const du_run_params *p = &run->params;
    du_trainer *t = NULL;
    du_err err = check_same(run, saved, diag);
    err = err ? err : du_trainer_new(&t, p->ctx, p->config, saved->model_config, p->ranks, diag);
    err = err ? err : check_base(run, t, saved, diag);
    if (err != DU_OK) {
        du_trainer_free(t);
        return err;
    }
    *out = t;
    return DU_OK;
}

static du_err check_data(const du_run *run, const du_saved *saved, du_diag *diag) {
    const du_train_config *config = run->params.config;
    return du_loader_checksum(run->trainer->passes.data) == saved->state.data
               ? DU_OK
               : du_fail(diag, DU_EINVAL,
                         "%s: is not what it was when the run was begun: it would not be the same "
                         "run",
                         *config->data.shards ? config->data.shards : config->data.tokens);
}

/* What goes on from here besides: the data, and files for the next checkpoints. */
static du_err go_on(du_run *run, const du_saved *saved, du_diag *diag) {
    const du_run_params *p = &run->params;
    run->state = saved->state;
    du_err err = du_trainer_open_data(run->trainer, diag);
    err = err ? err : check_data(run, saved, diag);
    err = err ? err : set_saved(run, saved->state.step, diag);
    if (err == DU_OK && *p->config->tokenizer && p->companions) {
        return p->companions(p->user, p->config, &run->companions, diag);
    }
    err = err ? err : du_companions_read(&run->companions, saved->dir, diag);
    return err || !saved->model_config
               ? err
               : du_companions_take_ids(&run->companions, saved->model_config, diag);
}

/* Could a checkpoint before this one do? Its damage is told then, and no error. */
static du_err pass_over(const du_run *run, du_err err, du_diag *why, du_diag *diag) {
    if (err != DU_ENOENT && err != DU_EIO && err != DU_EFORMAT && err != DU_ELIMIT) {
        return du_fail(diag, err, "%s", why->msg);
    }
    du_diag_context(why, "not resumed from");
    note(run, why->msg);
    return DU_OK;
}

/* Loads the checkpoint of a step; run->trainer stays NULL where its files are damaged. What keeps a
 * whole one from being loaded, as the state of `init`, is no damage. */
static du_err resume_from(du_run *run, int64_t step, du_diag *diag) {
    du_saved saved = {0};
    du_trainer *t = NULL;
    du_diag why;
    du_diag_reset(&why);
    du_err err = du_saved_open(&saved, run->params.config->out, step, &why);
    if (err != DU_OK) {
        return pass_over(run, err, &why, diag);
    }
    err = new_trainer(&t, run, &saved, diag);
    if (err == DU_OK) {
        err = du_checkpoint_load(saved.dir, t->params, &t->optim, &why);
        if (err == DU_OK) {
            t->step = step;
            run->trainer = t;
            err = go_on(run, &saved, diag);
        } else {
            du_trainer_free(t);
            err = pass_over(run, err, &why, diag);
        }
    }
    du_saved_close(&saved);
    return err;
}

/* Loads the last checkpoint that is whole; run->trainer stays NULL when none is. */
static du_err resume(du_run *run, const int64_t *steps, size_t n, du_diag *diag) {
    du_err err = DU_OK;
    while (n-- > 0 && !run->trainer && err == DU_OK) {
        err = resume_from(run, steps[n], diag);
    }
    return err;
}

static du_err begin(du_run *run, du_diag *diag) {
    const du_run_params *p = &run->params;
    json_t *shape = NULL;
    du_err err = du_trainable_shape(&shape, p->config, diag);
    err = err ? err : du_trainer_new(&run->trainer, p->ctx, p->config, shape, p->ranks, diag);
    err = err ? err : du_trainer_open_data(run->trainer, diag);
    err = err ? err : du_trainer_begin(run->trainer, diag);
    if (err == DU_OK && p->companions) {
        err = p->companions(p->user, p->config, &run->companions, diag);
    }
    json_decref(shape);
    return err;
}

static du_err check_sample(const du_run *run, du_diag *diag) {
    bool tokenizer = false;
    for (size_t i = 0; i < run->companions.n; i++) {
        tokenizer = tokenizer || strcmp(run->companions.files[i].name, "tokenizer.json") == 0;
    }
    return tokenizer || !*run->params.config->sample.prompt
               ? DU_OK
               : du_fail(diag, DU_EINVAL,
                         "sample.prompt: the run has no tokenizer: set `tokenizer` to a folder "
                         "with one");
}

/* Makes or loads what is trained. *steps [*n]: the checkpoints that are there. */
static du_err make_trainer(du_run *run, int64_t **steps, size_t *n, du_diag *diag) {
    const char *out = run->params.config->out;
    du_err err = du_checkpoint_list(steps, n, out, diag);
    bool used = err == DU_OK && (*n > 0 || du_journal_exists(out));
    if (used && run->params.how == DU_RUN_NEW) {
        err = du_fail(diag, DU_EEXIST,
                      "%s: holds a run: --resume goes on with it, --overwrite removes it", out);
    } else if (used && run->params.how == DU_RUN_RESUME) {
        err = resume(run, *steps, *n, diag);
        if (err == DU_OK && !run->trainer) {
            note(run, "no checkpoint is whole: the run begins anew");
        }
    }
    err = err == DU_OK && !run->trainer ? begin(run, diag) : err;
    return err ? err : check_sample(run, diag);
}

/* Does the step end a stretch of `every`, or the run? */
static bool is_due(const du_run *run, int64_t step, int64_t every) {
    return step == run->params.config->steps || (every > 0 && step % every == 0);
}

/* The report is worth no training: where it cannot be written a line says so. */
static void write_report(du_run *run) {
    du_diag why;
    du_diag_reset(&why);
    if (du_journal_report(&run->journal, &why) != DU_OK) {
        du_diag_context(&why, "no report");
        note(run, why.msg);
    }
}

static du_err sample(du_run *run, du_diag *diag) {
    const du_run_params *p = &run->params;
    const json_t *prompts = run->journal.prompts;
    json_t *texts = json_array();
    du_err err = texts ? p->sample(p->user, p->config, run->saved, prompts, texts, diag)
                       : du_fail_nomem(diag, "samples");
    err = err ? err : du_journal_add_samples(&run->journal, run->state.step, texts, diag);
    json_decref(texts);
    return err;
}

/* Samples of the last checkpoint, where it is due and they are not there yet; nor are they worth
 * the training. */
static void make_samples(du_run *run) {
    int64_t step = run->state.step;
    du_diag why;
    du_diag_reset(&why);
    if (step > 0 && run->params.sample && du_journal_wants_samples(&run->journal, step) &&
        is_due(run, step, run->params.config->checkpoint.every) && sample(run, &why) != DU_OK) {
        du_diag_context(&why, "no samples of step %lld", (long long)step);
        note(run, why.msg);
    }
}

/* What is missing of the run's files is told, and no reason not to go on. */
static void tell_losses(const du_run *run) {
    const du_journal *j = &run->journal;
    long long step = run->trainer->step;
    du_str text = {0};
    if (j->metrics.last_step < step) {
        du_str_addf(&text, DU_METRICS_FILE ": ends at step %lld, the checkpoint is of step %lld",
                    (long long)j->metrics.last_step, step);
        note(run, du_str_get(&text));
    }
    if (j->metrics.kept) {
        note(run, DU_METRICS_FILE ": was damaged; it is kept as " DU_METRICS_FILE DU_LINES_KEPT);
    }
    if (j->samples.kept) {
        note(run, DU_SAMPLES_FILE ": was damaged; it is kept as " DU_SAMPLES_FILE DU_LINES_KEPT);
    }
    du_str_done(&text);
}

static du_err open_run(du_run *run, du_diag *diag) {
    const char *out = run->params.config->out;
    du_ranks *ranks = run->params.ranks;
    int64_t *steps = NULL;
    size_t n = 0;
    du_err err = du_ranks_agree(ranks, is_first(run) ? take_folder(run, diag) : DU_OK, diag);
    if (err != DU_OK) {
        return err;
    }
    err = du_ranks_agree(ranks, make_trainer(run, &steps, &n, diag), diag);
    err = err ? err : du_same_start(run->trainer, diag);
    if (err == DU_OK && is_first(run)) {
        bool anew = run->params.how == DU_RUN_OVERWRITE;
        err = anew ? empty_folder(out, steps, n, diag) : DU_OK;
        err = err ? err : du_journal_open(&run->journal, run->trainer, diag);
        if (err == DU_OK) {
            tell_losses(run);
            make_samples(run);
        }
    }
    if (err == DU_OK) {
        run->trainer->peak = run->params.peak * (double)du_ranks_n(ranks);
    }
    du_free(steps);
    return du_ranks_agree(ranks, err, diag);
}

du_err du_run_open(du_run **out, const du_run_params *params, du_diag *diag) {
    du_run *run = du_alloc_zero(1, sizeof *run);
    if (!run) {
        return du_fail_nomem(diag, "the run");
    }
    *run = (du_run){.params = *params, .lock = -1, .journal = DU_JOURNAL_CLOSED};
    du_err err = open_run(run, diag);
    if (err != DU_OK) {
        du_run_close(run);
        return err;
    }
    *out = run;
    return DU_OK;
}

void du_run_close(du_run *run) {
    if (!run) {
        return;
    }
    if (run->journal.report) {
        write_report(run); /* of what no checkpoint has followed, where a step has failed */
    }
    du_journal_close(&run->journal);
    du_trainer_free(run->trainer);
    du_companions_done(&run->companions);
    du_dir_unlock(run->lock);
    du_free(run->saved);
    du_free(run);
}

du_err du_run_save(du_run *run, du_diag *diag) {
    const du_train_config *config = run->params.config;
    du_trainer *t = run->trainer;
    if (t->step == run->state.step) {
        return DU_OK;
    }
    du_train_state state = {.step = t->step,
                            .micro_batch = du_schedule_micros_before(config, t->step + 1),
                            .data = du_loader_checksum(t->passes.data),
                            .base = base_sum(t),
                            .best_step = run->state.best_step,
                            .best_loss = run->state.best_loss,
                            .spike = run->state.spike};
    du_checkpoint c = {.config = config,
                       .params = t->params,
                       .optim = &t->optim,
                       .companions = &run->companions,
                       .pool = t->ctx->pool};
    du_ranks *ranks = run->params.ranks;
    du_err err = du_trainer_check_weights(t, diag);
    if (err == DU_OK && is_first(run)) {
        err = du_journal_sync(&run->journal, diag);
    }
    err = du_ranks_agree(ranks, err, diag);
    err = err ? err : du_checkpoint_save(config->out, &c, &state, diag);
    if (err != DU_OK) {
        return err;
    }
    run->state = state;
    err = set_saved(run, t->step, diag);
    if (err == DU_OK && is_first(run)) {
        make_samples(run);
        if (state.spike.n_high == 0) { /* else the one before a spike stays until it is over */
            err = du_checkpoint_prune(config->out, state.step, state.best_step,
                                      config->checkpoint.keep, diag);
        }
        write_report(run);
    }
    return du_ranks_agree(ranks, err, diag);
}

static du_err validate(du_run *run, du_metrics *m, bool saving, du_diag *diag) {
    du_err err = du_trainer_validate(run->trainer, &m->validation, diag);
    bool better = run->state.best_step == 0 || m->validation < run->state.best_loss;
    if (err == DU_OK && saving && isfinite(m->validation) && better) {
        run->state.best_step = m->step;
        run->state.best_loss = m->validation;
    }
    return err;
}

static du_err check_spike(du_run *run, const du_metrics *m, du_diag *diag) {
    const du_train_config *config = run->params.config;
    double factor = config->spike.factor;
    int64_t n_steps = config->spike.steps;
    if (!du_spike_add(&run->state.spike, m->loss, factor, n_steps)) {
        return DU_OK;
    }
    return du_fail(diag, DU_ELIMIT,
                   "step %lld: the loss is %g, and since step %lld above %g times the smoothed "
                   "loss, %g; a lower optim.lr or optim.clip, or a higher spike.factor, may do",
                   (long long)m->step, m->loss, (long long)(m->step - n_steps + 1), factor,
                   du_spike_smooth(&run->state.spike));
}

du_err du_run_step(du_run *run, du_metrics *out, du_diag *diag) {
    const du_train_config *config = run->params.config;
    du_err err = du_trainer_step(run->trainer, out, diag);
    if (err != DU_OK) {
        return err;
    }
    int64_t save_every = config->checkpoint.every, every = config->validate.every;
    bool saving = is_due(run, out->step, save_every);
    if (run->trainer->passes.validation && is_due(run, out->step, every > 0 ? every : save_every)) {
        err = validate(run, out, saving, diag);
    }
    if (err == DU_OK && is_first(run)) {
        err = du_journal_add(&run->journal, out, diag);
    }
    err = err ? err : check_spike(run, out, diag);
    err = du_ranks_agree(run->params.ranks, err, diag);
    return err || !saving ? err : du_run_save(run, diag);
}
