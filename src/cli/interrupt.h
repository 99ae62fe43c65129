/* SIGINT and SIGTERM. Unless a command catches them they remove half-written files and end the
 * program with status 130. */
#ifndef DU_CLI_INTERRUPT_H
#define DU_CLI_INTERRUPT_H

#include <stdbool.h>

/* Installs the handlers; once, at the start. */
void du_cli_interrupt_install(void);

/* From here on the first signal only sets the flag (and clears an old one), so that the work can
 * stop by itself; a second one ends the program. `false` ends that. */
void du_cli_interrupt_catch(bool on);

/* True once a caught signal came. Cheap; async-signal-safe. */
bool du_cli_interrupted(void);

#endif
