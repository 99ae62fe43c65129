/* Lines typed by a person: with editing and a history on a terminal, plain elsewhere. */
#ifndef DU_CLI_EDITOR_H
#define DU_CLI_EDITOR_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"

typedef struct du_cli_editor du_cli_editor;

/* Reads standard input. On a terminal the history is kept in a file under XDG_STATE_HOME; one that
 * cannot be read or written is no error. Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_cli_editor_open(du_cli_editor **out, du_diag *diag);
void du_cli_editor_close(du_cli_editor *ed); /* takes NULL; writes the history */

bool du_cli_editor_is_terminal(const du_cli_editor *ed);

/* Replaces *out by the next line, without its line feed.
 * Returns DU_OK; DU_ENOENT at the end of the input; DU_ECANCELLED when an interrupt gave up the
 * line; DU_ENOMEM. */
DU_NODISCARD
du_err du_cli_editor_line(du_cli_editor *ed, const char *prompt, du_str *out, du_diag *diag);

/* Adds a text to the history. */
void du_cli_editor_remember(du_cli_editor *ed, const char *text);

#endif
