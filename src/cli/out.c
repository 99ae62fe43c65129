#include "cli/out.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

#include "base/clock.h"
#include "base/mem.h"
#include "text/unicode.h"

static bool wants_style(FILE *f) {
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fileno(f)) && !(no_color && *no_color) && !(term && strcmp(term, "dumb") == 0);
}

const char *du_cli_style_code(FILE *f, du_cli_style style) {
    static const char *const codes[] = {[DU_CLI_PLAIN] = "\033[0m",
                                        [DU_CLI_BOLD] = "\033[1m",
                                        [DU_CLI_DIM] = "\033[2m",
                                        [DU_CLI_ERROR] = "\033[31m",
                                        [DU_CLI_PROMPT] = "\033[1;32m"};
    return wants_style(f) ? codes[style] : "";
}

void du_cli_print_error(const char *name, const char *msg) {
    fprintf(stderr, "%sdure%s%s:%s ", du_cli_style_code(stderr, DU_CLI_ERROR), name ? " " : "",
            name ? name : "", du_cli_style_code(stderr, DU_CLI_PLAIN));
    du_cli_sink sink = du_cli_sink_of(stderr);
    du_cli_sink_write(&sink, du_sv_of(msg));
    fputc('\n', stderr);
}

void du_cli_note(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

du_cli_sink du_cli_sink_of(FILE *f) {
    return (du_cli_sink){.f = f, .filter = isatty(fileno(f))};
}

void du_cli_sink_write(du_cli_sink *sink, du_sv text) {
    if (text.len > 0) {
        sink->last = text.s[text.len - 1];
    }
    if (!sink->filter) {
        fwrite(text.s, 1, text.len, sink->f);
        return;
    }
    while (text.len > 0) {
        int32_t cp;
        size_t n = du_utf8_next(text.s, text.len, &cp);
        bool control = (cp < 0x20 && cp != '\n' && cp != '\t') || (cp >= 0x7f && cp < 0xa0);
        if (control) { /* or -1: not UTF-8 */
            fputs("\xef\xbf\xbd", sink->f);
        } else {
            fwrite(text.s, 1, n, sink->f);
        }
        text = (du_sv){text.s + n, text.len - n};
    }
}

void du_cli_sink_end_line(du_cli_sink *sink) {
    if (sink->last != '\n' && sink->last != '\0') {
        fputc('\n', sink->f);
        sink->last = '\n';
    }
}

du_err du_cli_print_json(json_t *value, du_diag *diag) {
    if (!value) {
        return du_fail_nomem(diag, "the JSON output");
    }
    int failed = json_dumpf(value, stdout, JSON_REAL_PRECISION(12) | JSON_ENCODE_ANY);
    json_decref(value);
    if (failed) {
        return du_fail(diag, DU_EIO, "standard output: cannot write the JSON result");
    }
    fputc('\n', stdout);
    return DU_OK;
}

int64_t du_cli_columns(du_sv text) {
    int64_t n = 0;
    size_t at = 0;
    while (at < text.len) {
        utf8proc_int32_t c = 0xfffd;
        utf8proc_ssize_t got = utf8proc_iterate((const utf8proc_uint8_t *)text.s + at,
                                                (utf8proc_ssize_t)(text.len - at), &c);
        at += got > 0 ? (size_t)got : 1;
        n += got > 0 ? utf8proc_charwidth(c) : 1;
    }
    return n;
}

void du_cli_table_add(du_cli_table *table, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *cell = n >= 0 ? du_alloc((size_t)n + 1) : NULL;
    void *cells = table->cells;
    bool grown = du_grow(&cells, &table->cap, table->n_cells, sizeof *table->cells);
    table->cells = cells;
    if (!cell || !grown) {
        du_free(cell);
        table->failed = true;
        return;
    }
    va_start(args, fmt);
    vsnprintf(cell, (size_t)n + 1, fmt, args);
    va_end(args);
    table->cells[table->n_cells++] = cell;
}

/* The row whose cells begin with the i-th; without blanks behind what is not empty */
static void print_row(const du_cli_table *table, size_t i, const int64_t *width, du_cli_sink *out) {
    char *const *cells = table->cells + i;
    int64_t n = table->n_columns;
    while (n > 1 && !*cells[n - 1]) {
        n--;
    }
    for (int64_t c = 0; c < n; c++) {
        int64_t pad = width[c] - du_cli_columns(du_sv_of(cells[c]));
        bool right = table->right[c] == 'r', last = c == n - 1;
        int before = right ? (int)pad : 0, after = right || last ? 0 : (int)pad;
        fprintf(out->f, "%*s", before, "");
        du_cli_sink_write(out, du_sv_of(cells[c]));
        fprintf(out->f, "%*s%s", after, "", last ? "\n" : "  ");
    }
}

du_err du_cli_table_print(du_cli_table *table, FILE *f, du_diag *diag) {
    int64_t width[DU_CLI_TABLE_COLUMNS_MAX] = {0};
    size_t n = (size_t)table->n_columns;
    DU_CHECK(n <= DU_CLI_TABLE_COLUMNS_MAX);
    for (size_t i = 0; i < table->n_cells; i++) {
        int64_t columns = du_cli_columns(du_sv_of(table->cells[i]));
        width[i % n] = columns > width[i % n] ? columns : width[i % n];
    }
    bool failed = table->failed;
    du_cli_sink out = du_cli_sink_of(f);
    for (size_t i = 0; i + n <= table->n_cells && !failed; i += n) {
        print_row(table, i, width, &out);
    }
    du_cli_table_done(table);
    return failed ? du_fail_nomem(diag, "a table") : DU_OK;
}

void du_cli_table_done(du_cli_table *table) {
    for (size_t i = 0; i < table->n_cells; i++) {
        du_free(table->cells[i]);
    }
    du_free(table->cells);
    *table = (du_cli_table){.n_columns = table->n_columns, .right = table->right};
}

char *du_cli_bytes(char *buf, int64_t n_bytes) {
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB", "PB"};
    double v = (double)n_bytes;
    size_t unit = 0;
    while (v >= 999.5 && unit + 1 < sizeof units / sizeof *units) {
        v /= 1000;
        unit++;
    }
    snprintf(buf, 24, unit == 0 || v >= 99.95 ? "%.0f %s" : "%.1f %s", v, units[unit]);
    return buf;
}

static int64_t terminal_columns(void) {
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

bool du_cli_is_live(void) {
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && !(term && strcmp(term, "dumb") == 0);
}

void du_cli_live(const char *line) {
    size_t n = strlen(line), width = (size_t)terminal_columns() - 1;
    if (n > width) {
        for (n = width; n > 0 && memcmp(line + n, "  ", 2) != 0; n--) {
        }
    }
    fprintf(stderr, "\r%.*s\033[K", (int)(n > 0 ? n : width), line);
    fflush(stderr);
}

du_cli_progress du_cli_progress_start(const char *label, int64_t total) {
    return (du_cli_progress){
        .label = label, .total = total, .start_s = du_clock_s(), .on = du_cli_is_live()};
}

void du_cli_progress_set(du_cli_progress *bar, int64_t done) {
    double now = du_clock_s();
    if (!bar->on || (now - bar->shown_s < 0.1 && done < bar->total)) {
        return;
    }
    bar->shown_s = now;
    double part = bar->total > 0 ? (double)done / (double)bar->total : 1;
    double left_s = part > 0 ? (now - bar->start_s) * (1 - part) / part : 0;
    int64_t width = terminal_columns() - du_cli_columns(du_sv_of(bar->label)) - 26;
    width = width > 50 ? 50 : width < 0 ? 0 : width;
    fprintf(stderr, "\r%s [", bar->label);
    for (int64_t i = 0; i < width; i++) {
        fputc(i < (int64_t)(part * (double)width) ? '=' : ' ', stderr);
    }
    char time[DU_CLI_TIME_BYTES];
    fprintf(stderr, "] %3.0f%%  %s left\033[K", part * 100, du_cli_time(time, left_s));
    fflush(stderr);
}

void du_cli_progress_end(du_cli_progress *bar) {
    if (bar->on && bar->shown_s > 0) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
}

char *du_cli_time(char buf[DU_CLI_TIME_BYTES], double seconds) {
    long long s = seconds < 0 ? 0 : seconds > 1e12 ? 1000000000000 : (long long)seconds;
    if (s >= 3600) {
        snprintf(buf, DU_CLI_TIME_BYTES, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    } else {
        snprintf(buf, DU_CLI_TIME_BYTES, "%lld:%02lld", s / 60, s % 60);
    }
    return buf;
}

du_err du_cli_flush(du_diag *diag) {
    if (fflush(stdout) != 0 || ferror(stdout)) {
        return du_fail(diag, DU_EIO, "standard output: cannot write: %s", strerror(errno));
    }
    return DU_OK;
}
