#include "cli/default_model.h"

#ifdef DURE_DEFAULT_MODEL

/* Both names are local to this object; the assembler reads the file named by CMakeLists.txt. */
__asm__(".pushsection .rodata,\"a\"\n"
        ".balign 4096\n"
        "default_model_begin:\n"
        ".incbin \"" DURE_DEFAULT_MODEL "\"\n"
        "default_model_end:\n"
        ".popsection\n");

extern const uint8_t default_model_begin[] __attribute__((visibility("hidden")));
extern const uint8_t default_model_end[] __attribute__((visibility("hidden")));

const uint8_t *du_cli_default_model(size_t *len) {
    *len = (size_t)(default_model_end - default_model_begin);
    return default_model_begin;
}

#else

const uint8_t *du_cli_default_model(size_t *len) {
    *len = 0;
    return NULL;
}

#endif
