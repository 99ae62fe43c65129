/* What the program shows: text on terminals, JSON, tables, progress. Results go to standard output,
 * everything else to standard error. */
#ifndef DU_CLI_OUT_H
#define DU_CLI_OUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/str.h"

/* Styles are escape sequences on a terminal and "" elsewhere, with NO_COLOR set, or TERM=dumb. */
typedef enum { DU_CLI_PLAIN, DU_CLI_BOLD, DU_CLI_DIM, DU_CLI_ERROR, DU_CLI_PROMPT } du_cli_style;
const char *du_cli_style_code(FILE *f, du_cli_style style);

/* "dure NAME: message" on standard error; name may be NULL. */
void du_cli_print_error(const char *name, const char *msg);
void du_cli_note(const char *fmt, ...) DU_PRINTF(1, 2); /* one line on standard error */

/* A stream for text that a model or a file produced, in pieces of whole characters. To a terminal
 * control characters other than line feed and tab, and what is not UTF-8, go out as U+FFFD, so that
 * no text can steer the terminal; elsewhere the bytes pass unchanged. */
typedef struct {
    FILE *f;
    bool filter;
    char last; /* the last byte written, 0 at the start */
} du_cli_sink;

du_cli_sink du_cli_sink_of(FILE *f);
void du_cli_sink_write(du_cli_sink *sink, du_sv text);
void du_cli_sink_end_line(du_cli_sink *sink); /* a line feed unless the last byte was one */

/* One JSON value and a line feed on standard output. Takes the reference. */
DU_NODISCARD
du_err du_cli_print_json(json_t *value, du_diag *diag);

/* Columns that text takes on a terminal: two for most East Asian characters, none for marks. */
int64_t du_cli_columns(du_sv text);

/* A table: add the cells row by row, then print. Columns are as wide as their widest cell. */
enum { DU_CLI_TABLE_COLUMNS_MAX = 16 };
typedef struct {
    int64_t n_columns;
    const char *right; /* n_columns letters: 'r' aligns to the right, anything else to the left */
    char **cells;
    size_t n_cells, cap;
    bool failed;
} du_cli_table;

void du_cli_table_add(du_cli_table *table, const char *fmt, ...) DU_PRINTF(2, 3);
DU_NODISCARD
du_err du_cli_table_print(du_cli_table *table, FILE *f, du_diag *diag); /* and frees the cells */
void du_cli_table_done(du_cli_table *table);

/* Bytes for people: "8.2 MB" (powers of 1000). buf [24]; returns buf. */
char *du_cli_bytes(char *buf, int64_t n_bytes);

/* A duration for people: "7:05" or "2:07:05". Returns buf. */
enum { DU_CLI_TIME_BYTES = 32 };
char *du_cli_time(char buf[DU_CLI_TIME_BYTES], double seconds);

/* Is standard error a terminal on which a line can be written over? */
bool du_cli_is_live(void);

/* Shows a line there in place of the one that this showed before; "" takes it away. Of a line that
 * is wider than the terminal the last fields are left out, which two blanks part. */
void du_cli_live(const char *line);

/* A progress bar on standard error when that is a terminal; nothing elsewhere. */
typedef struct {
    const char *label;
    int64_t total;
    double start_s, shown_s;
    bool on;
} du_cli_progress;

du_cli_progress du_cli_progress_start(const char *label, int64_t total);
void du_cli_progress_set(du_cli_progress *bar, int64_t done);
void du_cli_progress_end(du_cli_progress *bar); /* clears the line */

/* Writes out what standard output still holds. Returns DU_EIO when something was lost. */
DU_NODISCARD
du_err du_cli_flush(du_diag *diag);

#endif
