/* The page of a report:
 *
 *     what the run has come to        numbers in large
 *     curves                          (plot/chart.h)
 *     experts                         (plot/heat.h), where the model has some
 *     samples                         the last ones, older ones folded
 *     the run                         model, data, checkpoints, processes, configuration
 *
 * What depends on the clock and the machine stands in elements of class "time" and in the figure of
 * the speed; all else depends on the run alone. Texts of others go through du_html_add. */
#include <math.h>
#include <time.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "plot/axis.h"
#include "plot/html.h"
#include "train/checkpoint.h"
#include "train/record.h"
#include "train/report_int.h"

enum { DIGITS = 4, CHECKPOINTS_MAX = 50 };

/* Text, lines and paper by the reader's choice of light or dark. h: sequential colours, d:
 * diverging ones, each of nine; l: of layers, of eight. */
static const char style[] =
    ":root{color-scheme:light dark;--paper:#fbfbfa;--card:#fff;--ink:#1c1e21;--soft:#666b73;"
    "--rule:#e4e5e7;--c1:#2563c9;--c2:#d9480f;--c3:#2b8a3e}\n"
    "body{margin:0;background:var(--paper);color:var(--ink);"
    "font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif}\n"
    "main{max-width:1120px;margin:0 auto;padding:28px 20px 60px}\n"
    "h1{margin:0;font-size:27px;line-height:1.2;overflow-wrap:anywhere;unicode-bidi:isolate}\n"
    "h2{margin:34px 0 12px;font-size:18px}h3{margin:16px 0 4px;font-size:14px;color:var(--soft)}\n"
    "p{margin:4px 0}.soft,.note{color:var(--soft)}.note{font-size:13px;max-width:75ch}\n"
    ".cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;"
    "margin:20px 0}\n"
    ".card{background:var(--card);border:1px solid var(--rule);border-radius:8px;"
    "padding:10px 14px}\n"
    ".card span{display:block;font-size:12.5px;color:var(--soft)}"
    ".card b{font-size:22px;font-weight:600;line-height:1.35}\n"
    ".figures{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:14px}\n"
    "figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:8px;"
    "padding:10px 12px 4px;min-width:0}.wide{grid-column:1/-1}\n"
    "@media(max-width:760px){.figures{grid-template-columns:1fr}}\n"
    "figcaption{display:flex;flex-wrap:wrap;gap:2px 16px;align-items:center;font-size:13px;"
    "padding:0 4px 4px}figcaption b{font-size:14px;font-weight:600}\n"
    ".key{color:var(--soft)}.key::before{content:'';display:inline-block;width:14px;height:3px;"
    "border-radius:2px;margin-right:6px;vertical-align:middle;background:var(--k)}\n"
    ".scale{display:flex;align-items:center;color:var(--soft);font-size:11.5px}"
    ".scale i{width:20px;height:11px;margin:0 3px;background:var(--k)}\n"
    "svg{display:block;width:100%;height:auto}"
    "svg text{font-size:11.5px;fill:var(--soft);text-anchor:middle}svg text.y{text-anchor:end}\n"
    ".grid path{stroke:var(--rule);fill:none}.raw,.line{fill:none;stroke:var(--k);"
    "stroke-linejoin:round}.raw{opacity:.28}.line{stroke-width:1.8}circle{fill:var(--k)}\n"
    ".columns rect,.heat rect{fill:transparent}.columns rect:hover{fill:var(--ink);"
    "fill-opacity:.07}.heat rect:hover{stroke:var(--ink);stroke-width:2;"
    "vector-effect:non-scaling-stroke}\n"
    ".heat path{stroke:var(--k);stroke-width:1.02;fill:none;shape-rendering:crispEdges}\n"
    ".c1{--k:var(--c1)}.c2{--k:var(--c2)}.c3{--k:var(--c3)}\n"
    ".s0{--k:#eef3fb}.s1{--k:#d5e3f7}.s2{--k:#b3cdf0}.s3{--k:#8bb2e6}.s4{--k:#6495d8}"
    ".s5{--k:#4278c4}.s6{--k:#295ba5}.s7{--k:#173f80}.s8{--k:#0a2558}\n"
    ".d0{--k:#2b5ba8}.d1{--k:#5c88c7}.d2{--k:#96b6df}.d3{--k:#cbdcf0}.d4{--k:#f1f1ee}"
    ".d5{--k:#f8d9c3}.d6{--k:#efae85}.d7{--k:#dc7847}.d8{--k:#b8401a}\n"
    ".l0{--k:#5e3a98}.l1{--k:#4a55b0}.l2{--k:#2f77b8}.l3{--k:#1f93a8}.l4{--k:#2ba57f}"
    ".l5{--k:#75ad45}.l6{--k:#c09c23}.l7{--k:#d9772b}\n"
    "table{border-collapse:collapse;font-size:13.5px;width:100%}"
    "td,th{text-align:left;vertical-align:top;padding:3px 14px 3px 0;"
    "border-bottom:1px solid var(--rule);overflow-wrap:anywhere}"
    "th{font-weight:600;color:var(--soft)}tr.set td:first-child{font-weight:600}\n"
    "tr:not(.set) td{color:var(--soft)}.plain tr td{color:inherit}.facts "
    "td:first-child{width:32%;color:var(--soft)}\n"
    "details{margin:10px 0}summary{cursor:pointer;font-weight:600;padding:4px 0}\n"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0 0 10px;padding:10px 12px;"
    "background:var(--card);border:1px solid var(--rule);border-radius:8px;"
    "font:13.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,'Noto Sans Mono',monospace;"
    "unicode-bidi:isolate}pre b{color:var(--soft);font-weight:400}\n"
    "bdi{unicode-bidi:isolate}\n"
    "@media(prefers-color-scheme:dark){:root{--paper:#15171a;--card:#1d2024;--ink:#e6e7e9;"
    "--soft:#9aa0a8;--rule:#30343a;--c1:#6ea8fe;--c2:#ff9057;--c3:#69cf7f}\n"
    ".s0{--k:#20262f}.s1{--k:#22344e}.s2{--k:#254670}.s3{--k:#2a5b96}.s4{--k:#3874b9}"
    ".s5{--k:#5490d4}.s6{--k:#7baee6}.s7{--k:#a9ccf3}.s8{--k:#dcecff}\n"
    ".d0{--k:#78b0ff}.d1{--k:#5187cf}.d2{--k:#37609a}.d3{--k:#2a4165}.d4{--k:#2a2c30}"
    ".d5{--k:#5c3d2c}.d6{--k:#96562f}.d7{--k:#d3773c}.d8{--k:#ffa367}\n"
    ".l0{--k:#b08cf0}.l1{--k:#8f9bf5}.l2{--k:#6db3f2}.l3{--k:#56cadb}.l4{--k:#5fd3a6}"
    ".l5{--k:#a5d673}.l6{--k:#e3c452}.l7{--k:#f5a25d}}\n"
    "@media print{body{background:#fff}figure,.card{break-inside:avoid}}\n";

static du_sv text_of(const json_t *json, const char *key) {
    const json_t *value = json_object_get(json, key);
    return (du_sv){json_is_string(value) ? json_string_value(value) : "",
                   json_string_length(value)};
}

static int64_t number_of(const json_t *json, const char *key) {
    return json_integer_value(json_object_get(json, key));
}

/* The last name in `out`. */
static du_sv name_of(const json_t *run) {
    du_sv out = text_of(json_object_get(run, "config"), "out");
    return out.len > 0 ? du_path_last(out) : du_sv_of("A run");
}

static void add_head(du_str *s, const json_t *run) {
    du_str_add_s(s, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                    "<meta http-equiv=\"Content-Security-Policy\" "
                    "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
                    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                    "<title>");
    du_html_add(s, name_of(run));
    du_str_addf(s, " - dure train</title>\n<style>\n%s</style></head>\n<body><main>\n", style);
}

/* "deepseek_v3, 5.1M parameters, of which a token uses 2.5M" */
static void add_summary(du_str *s, const json_t *run) {
    const json_t *model = json_object_get(run, "model");
    int64_t params = number_of(model, "params"), trained = number_of(model, "params_trained");
    int64_t active = number_of(model, "params_active");
    du_str_add_s(s, "<header><h1>");
    du_html_add(s, name_of(run));
    du_str_add_s(s, "</h1><p class=\"soft\">");
    du_html_add(s, text_of(model, "arch"));
    if (params > 0) {
        du_str_add_s(s, ", ");
        du_axis_add_number(s, (double)params, 3);
        du_str_add_s(s, " parameters");
    }
    if (active > 0 && active < params) {
        du_str_add_s(s, ", of which a token uses ");
        du_axis_add_number(s, (double)active, 3);
    }
    if (text_of(json_object_get(run, "config"), "lora.rank").len > 0) {
        du_str_add_s(s, "; adapters of ");
        du_axis_add_number(s, (double)trained, 3);
    }
    du_str_add_s(s, "</p></header>\n");
}

static void begin_card(du_str *s, const char *title, bool varies) {
    du_str_addf(s, "<div class=\"card%s\"><span>%s</span><b>", varies ? " time" : "", title);
}

static void end_card(du_str *s, const char *note) {
    du_str_addf(s, "</b><span>%s</span></div>\n", note);
}

static void end_noted(du_str *s, const du_str *note) {
    s->failed = s->failed || note->failed;
    end_card(s, du_str_get(note));
}

static void add_duration(du_str *s, double seconds) {
    if (!(seconds < 1e12)) { /* speeds of next to nothing */
        du_str_add_s(s, "-");
        return;
    }
    int64_t all = seconds > 0 ? (int64_t)seconds : 0;
    if (all >= 86400) {
        du_str_addf(s, "%lld d ", (long long)(all / 86400));
    }
    if (all >= 3600) {
        du_str_addf(s, "%lld h %02lld min", (long long)(all / 3600 % 24),
                    (long long)(all / 60 % 60));
    } else if (all >= 60) {
        du_str_addf(s, "%lld min %02lld s", (long long)(all / 60), (long long)(all % 60));
    } else {
        du_str_addf(s, "%.1f s", seconds);
    }
}

/* The smoothed loss at the end of a series. */
static double last_smooth(du_str *html, const du_series *s) {
    int64_t n = du_series_n_bins(s);
    double *values = du_alloc_array((size_t)n, sizeof *values), last = (double)NAN;
    if (values && n > 0) {
        du_series_smooth(s, values);
        last = values[n - 1];
    }
    html->failed = html->failed || !values;
    du_free(values);
    return last;
}

/* "lowest 1.21 at step 300" */
static void add_lowest(du_str *note, const du_series *s) {
    du_str_reset(note);
    du_str_add_s(note, "lowest ");
    du_axis_add_number(note, s->min, DIGITS);
    du_str_addf(note, " at step %lld", (long long)s->min_step);
}

static void add_loss_cards(du_str *s, const du_report *r) {
    const du_series *loss = du_report_measure(r, DU_REPORT_loss),
                    *valid = du_report_measure(r, DU_REPORT_validation);
    du_str note = {0};
    begin_card(s, "Loss, smoothed", false);
    du_axis_add_number(s, last_smooth(s, loss), DIGITS);
    add_lowest(&note, loss);
    end_noted(s, &note);
    if (valid->n > 0) {
        begin_card(s, "Validation loss", false);
        du_axis_add_number(s, valid->last, DIGITS);
        add_lowest(&note, valid);
        end_noted(s, &note);
    }
    du_str_done(&note);
}

/* "tokens per second, 38 % of peak" */
static void add_peak(du_str *note, const du_series *peak) {
    double sum = 0;
    for (int64_t i = 0; i < du_series_n_bins(peak); i++) {
        sum += peak->bins[i].sum;
    }
    du_str_reset(note);
    du_str_add_s(note, "tokens per second");
    if (peak->n > 0) {
        du_str_addf(note, ", %.0f %% of peak", 100 * sum / (double)peak->n);
    }
}

static void add_cards(du_str *s, const du_report *r, const json_t *run) {
    const json_t *config = json_object_get(run, "config");
    du_str note = {0};
    du_str_add_s(s, "<section class=\"cards\">\n");
    begin_card(s, "Steps", false);
    du_str_addf(s, "%lld", (long long)r->step);
    if (text_of(config, "steps").len > 0) {
        du_str_add_s(&note, "of ");
        du_html_add(&note, text_of(config, "steps"));
    }
    end_noted(s, &note);
    begin_card(s, "Tokens", false);
    du_axis_add_number(s, (double)r->tokens, DIGITS);
    end_card(s, "trained on");
    if (du_report_measure(r, DU_REPORT_loss)->n > 0) {
        add_loss_cards(s, r);
    }
    if (r->seconds > 0) {
        begin_card(s, "Speed", true);
        du_axis_add_number(s, (double)r->tokens / r->seconds, DIGITS);
        add_peak(&note, du_report_measure(r, DU_REPORT_peak));
        end_noted(s, &note);
        begin_card(s, "Time", true);
        add_duration(s, r->seconds);
        end_card(s, "of steps alone");
    }
    du_str_add_s(s, "</section>\n");
    du_str_done(&note);
}

/* The samples of one line. */
static void add_sample(du_str *s, const json_t *line) {
    size_t i;
    json_t *sample;
    du_str_addf(s, "<h3>Step %lld</h3>\n", (long long)number_of(line, "step"));
    json_array_foreach(json_object_get(line, "samples"), i, sample) {
        du_str_add_s(s, "<pre><b>");
        du_html_add(s, text_of(sample, "prompt"));
        du_str_add_s(s, "</b>\n");
        if (json_is_null(json_object_get(sample, "text"))) {
            du_str_add_s(s, "(the prompt fills the context)");
        } else {
            du_html_add(s, text_of(sample, "text"));
        }
        du_str_add_s(s, "</pre>\n");
    }
}

static void add_samples(du_str *s, const du_report_samples *samples) {
    int64_t n = samples->n, last = number_of(samples->last, "step");
    if (!samples->last) {
        return;
    }
    n -= number_of(samples->kept[n - 1], "step") == last;
    du_str_add_s(s, "<h2>Samples</h2>\n<section id=\"samples\">\n");
    add_sample(s, samples->last);
    if (n > 0) {
        du_str_addf(s, "<details><summary>Before: %lld</summary>\n", (long long)n);
        while (n-- > 0) {
            add_sample(s, samples->kept[n]);
        }
        du_str_add_s(s, "</details>\n");
    }
    du_str_add_s(s, "</section>\n");
}

static void add_row(du_str *s, const char *key, du_sv value) {
    if (value.len > 0) {
        du_str_addf(s, "<tr><td>%s</td><td><bdi>", key);
        du_html_add(s, value);
        du_str_add_s(s, "</bdi></td></tr>\n");
    }
}

static void add_count_row(du_str *s, const char *key, int64_t value) {
    if (value > 0) {
        du_str_addf(s, "<tr><td>%s</td><td>", key);
        du_axis_add_number(s, (double)value, DIGITS);
        du_str_add_s(s, "</td></tr>\n");
    }
}

static void add_model(du_str *s, const json_t *run) {
    const json_t *model = json_object_get(run, "model"), *config = json_object_get(run, "config");
    du_str_add_s(s, "<table class=\"plain facts\">\n");
    add_row(s, "Architecture", text_of(model, "arch"));
    add_row(s, "Began with", text_of(config, "init"));
    add_count_row(s, "Parameters", number_of(model, "params"));
    add_count_row(s, "Parameters that a token uses", number_of(model, "params_active"));
    add_count_row(s, "Parameters that are trained", number_of(model, "params_trained"));
    add_count_row(s, "Layers", number_of(model, "layers"));
    add_count_row(s, "Width", number_of(model, "width"));
    add_count_row(s, "Experts of a layer", number_of(model, "experts"));
    add_count_row(s, "Experts that a token chooses", number_of(model, "experts_used"));
    add_row(s, "Tokens from", text_of(config, "data.tokens"));
    add_row(s, "Shards from", text_of(config, "data.shards"));
    add_count_row(s, "Tokens of the data", number_of(run, "tokens"));
    add_row(s, "Validation from", text_of(config, "data.validation"));
    du_str_add_s(s, "</table>\n");
}

static du_err add_checkpoints(du_str *s, const du_report *r, du_diag *diag) {
    const du_series *valid = du_report_measure(r, DU_REPORT_validation);
    int64_t *steps = NULL;
    size_t n = 0;
    du_err err = du_checkpoint_list(&steps, &n, r->dir, diag);
    size_t first = n > CHECKPOINTS_MAX ? n - CHECKPOINTS_MAX : 0;
    du_str_addf(s, "<details open><summary>Checkpoints: %lld</summary>\n<p>", (long long)n);
    for (size_t i = first; i < n && err == DU_OK; i++) {
        char name[DU_CHECKPOINT_NAME_BYTES];
        bool best = valid->n > 0 && steps[i] == valid->min_step;
        du_str_addf(s, "%s%s%s", i > first ? ", " : "", du_checkpoint_name(name, steps[i]),
                    best ? " (lowest validation loss)" : "");
    }
    du_str_add_s(s, "</p></details>\n");
    du_free(steps);
    return err;
}

static void add_processes(du_str *s, const json_t *run) {
    static const char *const titles[] = {"Begun",   "After step", "dure", "Processor",
                                         "Kernels", "Threads",    "Ranks"};
    static const char *const keys[] = {"time", "step",    "version", "machine",
                                       "isa",  "threads", "ranks"};
    const size_t n_keys = sizeof keys / sizeof *keys;
    const json_t *list = json_object_get(run, "processes");
    size_t i;
    json_t *process;
    du_str_addf(s,
                "<details open class=\"time\"><summary>Processes: %lld</summary>"
                "<table class=\"plain\"><tr>",
                (long long)json_array_size(list));
    for (size_t k = 0; k < n_keys; k++) {
        du_str_addf(s, "<th>%s</th>", titles[k]);
    }
    du_str_add_s(s, "</tr>\n");
    json_array_foreach((json_t *)(uintptr_t)list, i, process) {
        du_str_add_s(s, "<tr>");
        for (size_t k = 0; k < n_keys; k++) {
            du_str_add_s(s, "<td><bdi>");
            if (json_is_integer(json_object_get(process, keys[k]))) {
                du_str_addf(s, "%lld", (long long)number_of(process, keys[k]));
            } else {
                du_html_add(s, text_of(process, keys[k]));
            }
            du_str_add_s(s, "</bdi></td>");
        }
        du_str_add_s(s, "</tr>\n");
    }
    du_str_add_s(s, "</table></details>\n");
}

/* All keys; those that are given are marked. */
static void add_config(du_str *s, const json_t *run) {
    const json_t *given = json_object_get(run, "config");
    json_t *all = du_train_config_json(), *key;
    size_t i;
    s->failed = s->failed || !all;
    du_str_addf(s,
                "<details id=\"configuration\"><summary>Configuration: %lld keys given</summary>"
                "\n<table><tr><th>Key</th><th>Value</th><th>Default</th></tr>\n",
                (long long)json_object_size(given));
    json_array_foreach(all, i, key) {
        du_sv name = text_of(key, "key");
        bool set = json_object_get(given, name.s);
        du_str_addf(s, "<tr%s title=\"", set ? " class=\"set\"" : "");
        du_html_add(s, text_of(key, "help"));
        du_str_addf(s, "\"><td>%s%s</td><td><bdi>", name.s, set ? " *" : "");
        du_html_add(s, set ? text_of(given, name.s) : text_of(key, "default"));
        du_str_add_s(s, "</bdi></td><td>");
        du_html_add(s, text_of(key, "default"));
        du_str_add_s(s, "</td></tr>\n");
    }
    du_str_add_s(s, "</table></details>\n");
    json_decref(all);
}

static void add_foot(du_str *s) {
    char now[32] = "";
    time_t seconds = time(NULL);
    struct tm parts;
    if (gmtime_r(&seconds, &parts)) {
        strftime(now, sizeof now, "%Y-%m-%d %H:%M UTC", &parts);
    }
    du_str_addf(s, "<p class=\"note time\">Written %s by dure %s from metrics.jsonl.</p>\n", now,
                DURE_VERSION);
    du_str_add_s(s, "</main></body></html>\n");
}

/* run.json; *out NULL: there is none, or none that can be read. Returns DU_OK, DU_ENOMEM. */
static du_err read_run(json_t **out, const char *dir, du_diag *diag) {
    char *path = du_path_join(dir, DU_RECORD_FILE);
    du_err err = path ? DU_OK : du_fail_nomem(diag, DU_RECORD_FILE);
    *out = NULL;
    if (err == DU_OK && du_file_exists(path) &&
        du_json_load(out, path, DU_RECORD_BYTES_MAX, NULL) == DU_ENOMEM) {
        err = du_fail_nomem(diag, path);
    }
    du_free(path);
    return err;
}

du_err du_report_page(du_str *html, const du_report *r, du_diag *diag) {
    json_t *run = NULL;
    du_err err = read_run(&run, r->dir, diag);
    add_head(html, run);
    add_summary(html, run);
    add_cards(html, r, run);
    du_report_figures(html, r);
    add_samples(html, &r->samples);
    du_str_add_s(html, "<h2>Run</h2>\n<section id=\"run\">\n");
    add_model(html, run);
    err = err ? err : add_checkpoints(html, r, diag);
    add_processes(html, run);
    add_config(html, run);
    du_str_add_s(html, "</section>\n");
    add_foot(html);
    json_decref(run);
    return err || !html->failed ? err : du_fail_nomem(diag, DU_REPORT_FILE);
}
