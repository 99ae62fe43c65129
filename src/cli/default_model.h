/* The model that is linked into the program: what every command uses when no MODEL is named. */
#ifndef DU_CLI_DEFAULT_MODEL_H
#define DU_CLI_DEFAULT_MODEL_H

#include <stddef.h>
#include <stdint.h>

/* The bytes of models/dure-tiny.gguf, at an address that is a multiple of 4096; NULL with *len = 0
 * in a program that was built while that file was absent. Static storage. */
const uint8_t *du_cli_default_model(size_t *len);

#endif
