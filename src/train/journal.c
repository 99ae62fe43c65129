#include "train/journal.h"

#include "base/dir.h"
#include "base/file.h"
#include "base/mem.h"
#include "train/record.h"
#include "train/samples.h"

bool du_journal_exists(const char *dir) {
    return du_lines_exist(dir, DU_METRICS_FILE);
}

du_err du_journal_remove(const char *dir, du_diag *diag) {
    static const char *const names[] = {DU_METRICS_FILE, DU_METRICS_FILE DU_LINES_KEPT,
                                        DU_SAMPLES_FILE, DU_SAMPLES_FILE DU_LINES_KEPT,
                                        DU_RECORD_FILE,  DU_REPORT_FILE};
    du_err err = DU_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names && err == DU_OK; i++) {
        char *path = du_path_join(dir, names[i]);
        err = path ? du_dir_remove(path, diag) : du_fail_nomem(diag, dir);
        du_free(path);
    }
    return err ? err : du_events_remove(dir, diag);
}

du_err du_journal_open(du_journal *out, const du_trainer *t, du_diag *diag) {
    const char *dir = t->config->out;
    bool goes_on = t->step < t->config->steps; /* else there is nothing more to tell */
    *out = DU_JOURNAL_CLOSED;
    out->dir = dir;
    du_err err = du_samples_prompts(&out->prompts, t->config, diag);
    err = err ? err : du_lines_open(&out->metrics, dir, DU_METRICS_FILE, t->step, diag);
    err = err || !goes_on ? err : du_events_open(&out->events, dir, t->step, diag);
    if (err == DU_OK && (out->prompts || du_lines_exist(dir, DU_SAMPLES_FILE))) {
        err = du_lines_open(&out->samples, dir, DU_SAMPLES_FILE, t->step, diag);
    }
    err = err || !goes_on ? err : du_record_add(dir, t, diag);
    return err ? err : du_report_open(&out->report, dir, diag);
}

void du_journal_close(du_journal *j) {
    du_lines_close(&j->metrics);
    du_events_close(&j->events);
    du_lines_close(&j->samples);
    json_decref(j->prompts);
    du_report_free(j->report);
    *j = DU_JOURNAL_CLOSED;
}

du_err du_journal_add(du_journal *j, const du_metrics *m, du_diag *diag) {
    du_err err = du_metrics_add(&j->metrics, m, diag);
    if (err == DU_OK) {
        du_report_add(j->report, du_str_view(&j->metrics.line));
        err = du_events_add(&j->events, m, diag);
    }
    return err;
}

du_err du_journal_sync(du_journal *j, du_diag *diag) {
    du_err err = du_lines_sync(&j->metrics, diag);
    return err || j->samples.fd < 0 ? err : du_lines_sync(&j->samples, diag);
}

bool du_journal_wants_samples(const du_journal *j, int64_t step) {
    return j->prompts && j->samples.last_step < step;
}

du_err du_journal_add_samples(du_journal *j, int64_t step, const json_t *texts, du_diag *diag) {
    du_err err = du_samples_add(&j->samples, step, j->prompts, texts, diag);
    if (err == DU_OK) {
        du_report_add_samples(j->report, du_str_view(&j->samples.line));
        j->reported = 0;
    }
    return err;
}

du_err du_journal_report(du_journal *j, du_diag *diag) {
    int64_t step = du_report_step(j->report);
    if (step == j->reported) {
        return DU_OK;
    }
    char *path = du_path_join(j->dir, DU_REPORT_FILE);
    du_err err =
        path ? du_report_write(j->report, path, diag) : du_fail_nomem(diag, DU_REPORT_FILE);
    du_free(path);
    j->reported = step;
    return err;
}
