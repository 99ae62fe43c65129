/* Included by the compiler before every source file: functions that no part of dure uses, because
 * they are unbounded or ill-defined on bad input. What only some places may use (the heap outside
 * base/mem.c, the environment and standard output outside cli/) is checked on the object files by
 * tools/check_symbols.sh, since library headers mention those names. */
#ifndef DU_BASE_POISON_H
#define DU_BASE_POISON_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC poison strcpy strcat sprintf strtok gets atoi atol atof rand system tmpnam

#endif
