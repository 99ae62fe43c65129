/* SIGINT, SIGTERM, SIGHUP and SIGUSR1 (which mpirun hands on). Unless a command catches them they
 * remove half-written files and end the program with status 130. What the parent process ignores
 * (nohup, a shell's background job) stays ignored. */
#ifndef DU_CLI_INTERRUPT_H
#define DU_CLI_INTERRUPT_H

#include <stdbool.h>

/* Installs the handlers; once, at the start. */
void du_cli_interrupt_install(void);

/* From here on the first signal is only noted (an old note is cleared), so that the work can stop
 * by itself; a second one ends the program. `false` ends that. */
void du_cli_interrupt_catch(bool on);

/* True once a caught signal came. Cheap. */
bool du_cli_interrupted(void);

/* True when it was one that asks for the end of the program and not of a piece of work. */
bool du_cli_terminated(void);

/* A descriptor that has something to read from a signal until the next du_cli_interrupt_catch, to
 * be waited for together with input. -1: there is none. */
int du_cli_interrupt_fd(void);

#endif
